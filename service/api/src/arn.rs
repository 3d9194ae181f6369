//! Names of things: ARNs.
//!
//! Policies are held against these texts, so each part must be what it stands for. Region and account are those of the
//! service's settings and of nothing that a request says; a name that would reach into another part (`:`, `/`) has no
//! ARN at all. There is no other way to make one.

use belvedere_fleet::Settings;
use std::fmt;

/// Where this service is: what stands in every ARN before the name of the thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home<'a> {
    region: &'a str,
    account: &'a str,
}

impl<'a> From<&'a Settings> for Home<'a> {
    fn from(settings: &'a Settings) -> Home<'a> {
        Home { region: &settings.region, account: &settings.account }
    }
}

/// The name of a thing of this service, or `*`: whatever there is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arn(String);

impl Arn {
    /// `*`: of actions that are about nothing in particular.
    pub fn any() -> Arn {
        Arn("*".to_owned())
    }

    /// One that this service made earlier and kept.
    pub fn stored(text: &str) -> Arn {
        Arn(text.to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `arn:aws:s3:::<bucket>`.
    pub fn bucket(bucket: &str) -> Option<Arn> {
        plain(bucket, ":/").then(|| Arn(format!("arn:aws:s3:::{bucket}")))
    }

    /// `arn:aws:s3:::<bucket>/<key>`.
    pub fn object(bucket: &str, key: &str) -> Option<Arn> {
        plain(bucket, ":/").then(|| Arn(format!("arn:aws:s3:::{bucket}/{key}")))
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<Arn> for String {
    fn from(arn: Arn) -> String {
        arn.0
    }
}

/// Whether a name is there and has none of these characters, and nothing that cannot be seen.
fn plain(name: &str, without: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| without.contains(c) || c.is_control())
}

impl<'a> Home<'a> {
    /// In this region, of this account.
    pub const fn new(region: &'a str, account: &'a str) -> Home<'a> {
        Home { region, account }
    }

    /// Twelve digits.
    pub fn account(&self) -> &'a str {
        self.account
    }

    fn regional(&self, service: &str, resource: fmt::Arguments<'_>) -> Arn {
        Arn(format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account))
    }

    fn global(&self, service: &str, resource: fmt::Arguments<'_>) -> Arn {
        Arn(format!("arn:aws:{service}::{}:{resource}", self.account))
    }

    /// A device, package or application instance: `<kind>/<id>`.
    pub fn panorama(&self, kind: &str, id: &str) -> Option<Arn> {
        plain(id, ":/").then(|| self.regional("panorama", format_args!("{kind}/{id}")))
    }

    /// A log group without its streams, as lists show it.
    pub fn log_group(&self, group: &str) -> Option<Arn> {
        plain(group, ":*").then(|| self.regional("logs", format_args!("log-group:{group}")))
    }

    /// A log group with all that is in it.
    pub fn whole_log_group(&self, group: &str) -> Option<Arn> {
        plain(group, ":*").then(|| self.regional("logs", format_args!("log-group:{group}:*")))
    }

    /// All log groups.
    pub fn all_log_groups(&self) -> Arn {
        self.regional("logs", format_args!("log-group:*"))
    }

    /// A stream of a log group.
    pub fn log_stream(&self, group: &str, stream: &str) -> Option<Arn> {
        let sound = plain(group, ":*") && plain(stream, ":*");
        sound.then(|| self.regional("logs", format_args!("log-group:{group}:log-stream:{stream}")))
    }

    /// An alarm. Its name stands last and may have any characters that can be seen.
    pub fn alarm(&self, name: &str) -> Option<Arn> {
        plain(name, "").then(|| self.regional("cloudwatch", format_args!("alarm:{name}")))
    }

    /// A topic of SNS.
    pub fn topic(&self, name: &str) -> Option<Arn> {
        plain(name, ":/*").then(|| self.regional("sns", format_args!("{name}")))
    }

    /// A subscription to a topic.
    pub fn subscription(&self, topic: &str, id: &str) -> Option<Arn> {
        (plain(topic, ":/*") && plain(id, ":/*")).then(|| self.regional("sns", format_args!("{topic}:{id}")))
    }

    /// A topic of MQTT, which has slashes.
    pub fn mqtt_topic(&self, topic: &str) -> Option<Arn> {
        plain(topic, "").then(|| self.regional("iot", format_args!("topic/{topic}")))
    }

    /// What devices get keys for.
    pub fn role_alias(&self, alias: &str) -> Option<Arn> {
        plain(alias, ":/").then(|| self.regional("iot", format_args!("rolealias/{alias}")))
    }

    /// A role, by its path (`/`, `/…/`) and name.
    pub fn role(&self, path: &str, name: &str) -> Option<Arn> {
        self.with_path("role", path, name)
    }

    /// A managed policy.
    pub fn policy(&self, path: &str, name: &str) -> Option<Arn> {
        self.with_path("policy", path, name)
    }

    fn with_path(&self, kind: &str, path: &str, name: &str) -> Option<Arn> {
        let sound = plain(name, ":/*?") && plain(path, ":*?") && path.starts_with('/') && path.ends_with('/');
        sound.then(|| self.global("iam", format_args!("{kind}{path}{name}")))
    }

    /// A secret with the random characters that tell it from an earlier one of its name.
    pub fn secret(&self, name: &str, suffix: &str) -> Option<Arn> {
        plain(name, ":").then(|| self.regional("secretsmanager", format_args!("secret:{name}-{suffix}")))
    }

    /// A stack or change set of CloudFormation with its identifier, or any of that name (`*`).
    pub fn stack(&self, kind: &str, name: &str, id: &str) -> Option<Arn> {
        plain(name, ":/*").then(|| self.regional("cloudformation", format_args!("{kind}/{name}/{id}")))
    }

    /// What a request names by an ARN: it must be of this account and, where it has a region, of this region.
    pub fn named(&self, text: &str) -> Option<Arn> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", "aws", service, region, account, resource] = parts[..] else { return None };
        let here = (region.is_empty() || region == self.region) && account == self.account;
        (here && plain(service, "*") && plain(resource, "")).then(|| Arn(text.to_owned()))
    }

    /// The topic that a request names by its ARN.
    pub fn topic_named<'t>(&self, text: &'t str) -> Option<&'t str> {
        let name = text.strip_prefix(&format!("arn:aws:sns:{}:{}:", self.region, self.account))?;
        plain(name, ":/*").then_some(name)
    }

    /// Topic and identifier of the subscription that a request names by its ARN.
    pub fn subscription_named<'t>(&self, text: &'t str) -> Option<(&'t str, &'t str)> {
        let (topic, id) = text.rsplit_once(':')?;
        Some((self.topic_named(topic)?, id)).filter(|_| plain(id, ":/*"))
    }

    /// The log group that a request names by its ARN, with or without `:*`.
    pub fn log_group_named<'t>(&self, text: &'t str) -> Option<&'t str> {
        let name = text.strip_prefix(&format!("arn:aws:logs:{}:{}:log-group:", self.region, self.account))?;
        let name = name.strip_suffix(":*").unwrap_or(name);
        plain(name, ":*").then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: Home<'static> = Home::new("us-east-1", "123456789012");

    #[test]
    fn service_d1_a_name_that_reaches_into_another_part_has_no_arn() {
        let group = HOME.whole_log_group("/app/mine").unwrap();
        assert_eq!(group.as_str(), "arn:aws:logs:us-east-1:123456789012:log-group:/app/mine:*");
        for bad in ["", "a:b", "mine:123456789012:log-group:theirs", "*", "a\n"] {
            assert_eq!(HOME.whole_log_group(bad), None, "{bad}");
            assert_eq!(HOME.log_stream("g", bad), None, "{bad}");
            assert_eq!(HOME.log_stream(bad, "s"), None, "{bad}");
            assert_eq!(HOME.topic(bad), None, "{bad}");
        }
        for bad in ["a/b", "x:y", ""] {
            assert_eq!(HOME.panorama("device", bad), None, "{bad}");
            assert_eq!(HOME.role("/", bad), None, "{bad}");
            assert_eq!(HOME.stack("stack", bad, "*"), None, "{bad}");
            assert_eq!(Arn::object(bad, "k"), None, "{bad}");
        }
        for path in ["", "x", "/x", "x/", "/a:b/", "/*/"] {
            assert_eq!(HOME.role(path, "n"), None, "{path}");
        }
    }

    #[test]
    fn service_d1_what_a_request_names_is_of_this_region_and_account() {
        assert!(HOME.named("arn:aws:iam::123456789012:role/a").is_some());
        assert!(HOME.named("arn:aws:sns:us-east-1:123456789012:t").is_some());
        for bad in [
            "*",
            "arn",
            "arn:aws:sns:eu-west-1:123456789012:t",
            "arn:aws:sns:us-east-1:999999999999:t",
            "arn:aws:sns:us-east-1::t",
            "arn:aws:sns:us-east-1:123456789012:",
            "arn:aws:*:us-east-1:123456789012:t",
            "arn:aws-cn:sns:us-east-1:123456789012:t",
        ] {
            assert_eq!(HOME.named(bad), None, "{bad}");
        }
        assert_eq!(HOME.topic_named("arn:aws:sns:us-east-1:123456789012:people"), Some("people"));
        assert_eq!(HOME.subscription_named("arn:aws:sns:us-east-1:123456789012:people:7"), Some(("people", "7")));
        assert_eq!(HOME.log_group_named("arn:aws:logs:us-east-1:123456789012:log-group:/g:*"), Some("/g"));
        for bad in ["arn:aws:sns:eu-west-1:123456789012:people", "people", "arn:aws:sns:us-east-1:123456789012:a:b"] {
            assert_eq!(HOME.topic_named(bad), None, "{bad}");
        }
        for bad in
            ["/g", "arn:aws:logs:eu-west-1:123456789012:log-group:/g", "arn:aws:logs:us-east-1:123456789012:log-group:a:b"]
        {
            assert_eq!(HOME.log_group_named(bad), None, "{bad}");
        }
    }

    proptest! {
        /// Whatever the names are, the first five parts are the service's own.
        #[test]
        fn service_d1_the_first_five_parts_are_never_a_requests(a in "[a-z:/*]{0,12}", b in "[a-z:/*]{0,12}") {
            let made = [
                HOME.panorama("device", &a), HOME.whole_log_group(&a), HOME.log_stream(&a, &b), HOME.alarm(&a), HOME.topic(&a),
                HOME.subscription(&a, &b), HOME.mqtt_topic(&a), HOME.role(&a, &b), HOME.policy(&a, &b), HOME.secret(&a, "x"),
                HOME.stack("stack", &a, "*"), HOME.role_alias(&a),
            ];
            for arn in made.into_iter().flatten() {
                let parts: Vec<&str> = arn.as_str().splitn(6, ':').collect();
                prop_assert_eq!(parts[4], "123456789012");
                prop_assert!(parts[3].is_empty() || parts[3] == "us-east-1");
            }
        }
    }
}

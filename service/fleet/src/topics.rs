//! Topics: how filters match, and what an identity may touch. Pure.

use crate::identity::Identity;
use belvedere_device_protocol::provisioning::{CREATE_FROM_CSR, TEMPLATE, register_thing_topic};
use belvedere_device_protocol::shadow::CLASSIC;
use belvedere_store::certificates::CertificateKind;

/// Longest topic or filter, bytes, as AWS IoT Core has it. The client's name in it does not count: here a device's name
/// may have 255 letters, and its reserved topics must work all the same.
pub const MAX_TOPIC: usize = 256;
/// Slashes in a topic or filter, as AWS IoT Core has it.
pub const MAX_SLASHES: usize = 7;

/// Whether a topic or filter of a client is within the limits.
fn within_limits(name: &str, topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= MAX_TOPIC + name.len()
        && topic.bytes().filter(|b| *b == b'/').count() <= MAX_SLASHES
        && !topic.contains('\0')
}

/// The client in whose space a topic lies. All spaces begin with their client's name after a fixed word, which is why
/// nobody else can have subscribed there.
pub fn owner(topic: &str) -> Option<&str> {
    let spaces = ["$aws/things/", "belvedere/things/", "panorama/"];
    let rest = spaces.iter().find_map(|s| topic.strip_prefix(s))?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// Whether a filter is well formed (MQTT 3.1.1, 4.7.1).
pub fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let good = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['#', '+']),
        };
        if !good {
            return false;
        }
    }
    true
}

/// Whether `filter` (valid) matches `topic` (MQTT 3.1.1, 4.7.1 and 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut filters = filter.split('/');
    let mut levels = topic.split('/');
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What a publication asks of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// `$aws/things/<own>/shadow/<operation>` or `$aws/things/<own>/shadow/name/<shadow>/<operation>`.
    Shadow {
        /// Shadow name; empty for the classic one.
        shadow: &'a str,
        /// Which operation.
        operation: ShadowOperation,
    },
    /// `$aws/things/<own>/jobs/…`.
    Job(JobRequest<'a>),
    /// CreateCertificateFromCsr.
    CreateFromCsr,
    /// RegisterThing with the one template.
    RegisterThing,
    /// A message for subscribers.
    Message,
}

/// What a device asks about its jobs. Identifiers are `<DeviceId>-<n>`; whether a job is one of the device's is not
/// decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRequest<'a> {
    /// `get`: what there is to do.
    Pending,
    /// `start-next`: begins the next one.
    StartNext,
    /// `$next/get`: the next one.
    Next,
    /// `<job>/get`: that one.
    Describe(&'a str),
    /// `<job>/update`: where it stands.
    Update(&'a str),
}

/// Operations on a shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowOperation {
    /// `get`.
    Get,
    /// `update`.
    Update,
    /// `delete`.
    Delete,
}

fn own_spaces(name: &str) -> [String; 2] {
    [format!("belvedere/things/{name}"), format!("panorama/{name}")]
}

fn inside(space: &str, topic: &str) -> bool {
    topic.strip_prefix(space).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a publication means, or `None` if this identity may not publish there.
pub fn publication<'a>(identity: &Identity, topic: &'a str) -> Option<Request<'a>> {
    if !within_limits(&identity.name, topic) || topic.contains(['#', '+']) {
        return None;
    }
    match identity.kind {
        CertificateKind::Claim if topic == CREATE_FROM_CSR => Some(Request::CreateFromCsr),
        CertificateKind::Claim if topic == register_thing_topic(TEMPLATE) => Some(Request::RegisterThing),
        CertificateKind::Claim => None,
        CertificateKind::Device => {
            // Answers and notifications are the service's to give.
            if let Some(rest) = topic.strip_prefix(&format!("$aws/things/{}/shadow/", identity.name)) {
                let (shadow, operation) = match rest.strip_prefix("name/") {
                    Some(named) => named.split_once('/').filter(|(shadow, _)| valid_shadow_name(shadow))?,
                    None => (CLASSIC, rest),
                };
                let operation = match operation {
                    "get" => ShadowOperation::Get,
                    "update" => ShadowOperation::Update,
                    "delete" => ShadowOperation::Delete,
                    _ => return None,
                };
                return Some(Request::Shadow { shadow, operation });
            }
            if let Some(rest) = topic.strip_prefix(&format!("$aws/things/{}/jobs/", identity.name)) {
                return match rest.split_once('/') {
                    None if rest == "get" => Some(Request::Job(JobRequest::Pending)),
                    None if rest == "start-next" => Some(Request::Job(JobRequest::StartNext)),
                    Some(("$next", "get")) => Some(Request::Job(JobRequest::Next)),
                    Some((job, "get")) if valid_job_id(job) => Some(Request::Job(JobRequest::Describe(job))),
                    Some((job, "update")) if valid_job_id(job) => Some(Request::Job(JobRequest::Update(job))),
                    _ => None,
                };
            }
            own_spaces(&identity.name).iter().any(|s| inside(s, topic)).then_some(Request::Message)
        }
    }
}

/// Shadow names: 1 to 64 of `[a-zA-Z0-9:_-]`, as AWS IoT Core has it.
pub fn valid_shadow_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b))
}

/// Job identifiers: 1 to 64 of `[a-zA-Z0-9_-]`, as AWS IoT Core has it.
fn valid_job_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Whether this identity may subscribe to a filter. The filter must lie inside an allowed space as a whole: spaces
/// hold no wildcards, so whatever a filter inside one matches is inside it as well.
pub fn may_subscribe(identity: &Identity, filter: &str) -> bool {
    if !within_limits(&identity.name, filter) || !valid_filter(filter) {
        return false;
    }
    match identity.kind {
        CertificateKind::Claim => {
            let spaces = [CREATE_FROM_CSR.to_owned(), register_thing_topic(TEMPLATE)];
            spaces.iter().any(|s| inside(s, filter))
        }
        CertificateKind::Device => {
            let reserved = ["shadow", "jobs"].map(|part| format!("$aws/things/{}/{part}", identity.name));
            reserved.iter().chain(&own_spaces(&identity.name)).any(|s| inside(s, filter))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Identity {
        let kind = CertificateKind::Device;
        Identity { name: name.into(), device_id: "device-a".into(), fingerprint: "f".into(), kind }
    }
    fn claim() -> Identity {
        Identity { kind: CertificateKind::Claim, ..device("claim-device-a") }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$aws/b", false),
            ("+/b", "$aws/b", false),
            ("$aws/#", "$aws/b", true),
            ("a/b", "a/b/c", false),
            ("+", "a/b", false),
            ("a/+/c", "a//c", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
        for bad in ["", "a/#/b", "a#", "a/b+", "a\0"] {
            assert!(!valid_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_device_touches_only_its_own_topics() {
        let me = device("panorama_cam_Thing_1");
        let update = Request::Shadow { shadow: "device", operation: ShadowOperation::Update };
        assert_eq!(publication(&me, "$aws/things/panorama_cam_Thing_1/shadow/name/device/update"), Some(update));
        let get = Request::Shadow { shadow: CLASSIC, operation: ShadowOperation::Get };
        assert_eq!(publication(&me, "$aws/things/panorama_cam_Thing_1/shadow/get"), Some(get));
        for (topic, request) in [
            ("get", JobRequest::Pending),
            ("start-next", JobRequest::StartNext),
            ("$next/get", JobRequest::Next),
            ("device-a-0/get", JobRequest::Describe("device-a-0")),
            ("device-a-0/update", JobRequest::Update("device-a-0")),
        ] {
            let topic = format!("$aws/things/panorama_cam_Thing_1/jobs/{topic}");
            assert_eq!(publication(&me, &topic), Some(Request::Job(request)), "{topic}");
        }
        assert_eq!(publication(&me, "panorama/panorama_cam_Thing_1"), Some(Request::Message));
        assert_eq!(publication(&me, "belvedere/things/panorama_cam_Thing_1/connection"), Some(Request::Message));
        for foreign in [
            "$aws/things/panorama_cam_Thing_2/shadow/name/device/update",
            "$aws/things/panorama_cam_Thing_1/shadow/name/device/update/accepted",
            "$aws/things/panorama_cam_Thing_1/shadow/name/a b/update",
            "$aws/things/panorama_cam_Thing_2/jobs/$next/get",
            "$aws/things/panorama_cam_Thing_11/jobs/device-a-0/update",
            "$aws/things/panorama_cam_Thing_1/jobs/notify-next",
            "$aws/things/panorama_cam_Thing_1/jobs/$next/get/accepted",
            "$aws/things/panorama_cam_Thing_1/jobs/$next/update",
            "$aws/things/panorama_cam_Thing_1/jobs/device-a-0/update/accepted",
            "$aws/things/panorama_cam_Thing_1/jobs/a.b/get",
            "$aws/things/panorama_cam_Thing_1/jobs/notify",
            "$aws/things/panorama_cam_Thing_1/jobs/start-next/accepted",
            "$aws/things/panorama_cam_Thing_1/shadow/update/delta",
            "$aws/things/panorama_cam_Thing_1/shadow/name//get",
            "$aws/things/panorama_cam_Thing_1/shadow/name",
            "$aws/certificates/create-from-csr/json",
            "panorama/panorama_cam_Thing_11",
            "panorama/panorama_cam_Thing_1/+",
            "belvedere/things/panorama_cam_Thing_12/x",
            "somewhere",
            "",
        ] {
            assert_eq!(publication(&me, foreign), None, "{foreign}");
        }
        for mine in [
            "$aws/things/panorama_cam_Thing_1/shadow/#",
            "$aws/things/panorama_cam_Thing_1/jobs/#",
            "panorama/panorama_cam_Thing_1/#",
        ] {
            assert!(may_subscribe(&me, mine), "{mine}");
        }
        for foreign in [
            "#",
            "$aws/#",
            "$aws/things/+/shadow/#",
            "$aws/things/+/jobs/#",
            "$aws/things/panorama_cam_Thing_2/jobs/#",
            "panorama/#",
            "panorama/+",
            "panorama/panorama_cam_Thing_11",
        ] {
            assert!(!may_subscribe(&me, foreign), "{foreign}");
        }
    }

    #[test]
    fn topics_and_filters_have_aws_limits_and_the_name_does_not_count() {
        let me = device(&"n".repeat(278));
        let space = format!("panorama/{}/", me.name);
        let fits = format!("{space}{}", "x".repeat(MAX_TOPIC - "panorama//".len()));
        assert!(publication(&me, &fits).is_some() && may_subscribe(&me, &fits));
        let long = format!("{fits}x");
        assert!(publication(&me, &long).is_none() && !may_subscribe(&me, &long));
        let deep = format!("{space}{}", "a/".repeat(MAX_SLASHES - 2));
        assert!(publication(&me, &deep).is_some() && may_subscribe(&me, &format!("{deep}#")));
        assert!(publication(&me, &format!("{deep}/")).is_none() && !may_subscribe(&me, &format!("{deep}/+")));
    }

    #[test]
    fn every_space_has_one_owner() {
        let me = device("panorama_cam_Thing_1");
        for space in own_spaces(&me.name).iter().chain([&format!("$aws/things/{}/jobs/notify", me.name)]) {
            assert_eq!(owner(space), Some("panorama_cam_Thing_1"));
            assert_eq!(owner(&format!("{space}/x")), Some("panorama_cam_Thing_1"));
        }
        for nobodys in ["", "panorama/", "panorama", "$aws/certificates/create-from-csr/json", "elsewhere/a"] {
            assert_eq!(owner(nobodys), None, "{nobodys}");
        }
    }

    #[test]
    fn a_claim_can_only_provision() {
        assert_eq!(publication(&claim(), CREATE_FROM_CSR), Some(Request::CreateFromCsr));
        assert_eq!(publication(&claim(), "$aws/provisioning-templates/other/provision/json"), None);
        assert_eq!(publication(&claim(), "panorama/claim-device-a"), None);
        assert!(may_subscribe(&claim(), "$aws/certificates/create-from-csr/json/+"));
        assert!(!may_subscribe(&claim(), "$aws/things/claim-device-a/shadow/#"));
        assert!(!may_subscribe(&claim(), "$aws/certificates/#"));
    }
}

//! What whoever has a stack made, changed or removed must be allowed to do: what IAM, CloudWatch and SNS themselves would
//! ask for the same. Pure.
//!
//! A stack does nothing for its caller that the caller may not do directly. What acts on a role is asked about that role,
//! wherever in a template it is written: a policy that names roles is attached to *them*.

use super::kinds::{self, MANAGED_POLICY, POLICY, Planned, ROLE};
use super::watching::{ALARM, SUBSCRIPTION, TOPIC};
use crate::arn::{Arn, Home};
use crate::operation::{Ask, Subject};
use belvedere_store::stacks::StackResource;
use belvedere_watch::definition::topic_of;

/// What is asked about a resource; `changes`: whether it is there already and becomes another. `None` if it cannot be
/// told, which is an administrator's alone. `all` are the stack's resources: roles that it makes have their ARNs there.
pub fn asks(resource: &StackResource, changes: bool, all: &[&StackResource], home: &Home<'_>) -> Option<Vec<Ask>> {
    let planned = kinds::plan(&resource.kind, &resource.properties).ok()?;
    let own = |name: &str| resource.attributes.get(name).map(|text| Arn::stored(text));
    let about = |actions: &[&'static str], subject: Subject| {
        actions.iter().map(move |action| Ask { action: Some(action), ..Ask::about(subject.clone()) }).collect::<Vec<_>>()
    };
    // A role by its name: as the stack knows it, and as it is.
    let role = |actions: &[&'static str], name: &str| {
        let mut asks = about(actions, Subject::Role(name.to_owned()));
        let made = all.iter().filter(|r| r.kind == ROLE && r.physical_id == name).filter_map(|r| r.attributes.get("Arn"));
        for arn in made {
            // One that is not there yet will have the path that the stack gives it.
            asks.extend(about(actions, Subject::Of(Arn::stored(arn))));
        }
        asks
    };
    Some(match (&planned, resource.kind.as_str()) {
        (Planned::Role(properties), ROLE) => {
            let mut actions = vec!["iam:CreateRole", "iam:DeleteRole"];
            if changes {
                actions.push("iam:UpdateAssumeRolePolicy");
            }
            if !properties.policies.is_empty() {
                actions.extend(["iam:PutRolePolicy", "iam:DeleteRolePolicy"]);
            }
            if !properties.managed_policy_arns.is_empty() {
                actions.extend(["iam:AttachRolePolicy", "iam:DetachRolePolicy"]);
            }
            let mut asks = about(&actions, Subject::Of(own("Arn")?));
            if changes {
                // Somebody may have made another role of this name, with another path.
                asks.extend(about(&actions, Subject::Role(resource.physical_id.clone())));
            }
            asks
        }
        (Planned::Policy(properties), POLICY) => {
            let roles = properties.roles.iter();
            let asks: Vec<Ask> = roles.flat_map(|name| role(&["iam:PutRolePolicy", "iam:DeleteRolePolicy"], name)).collect();
            (!asks.is_empty()).then_some(asks)?
        }
        (Planned::ManagedPolicy(properties), MANAGED_POLICY) => {
            let mut actions = vec!["iam:CreatePolicy", "iam:DeletePolicy"];
            if changes {
                actions.push("iam:CreatePolicyVersion");
            }
            let mut asks = about(&actions, Subject::Of(own("PolicyArn")?));
            let roles = properties.roles.iter();
            asks.extend(roles.flat_map(|name| role(&["iam:AttachRolePolicy", "iam:DetachRolePolicy"], name)));
            asks
        }
        (Planned::Alarm(_), ALARM) => {
            about(&["cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"], Subject::Of(own("Arn")?))
        }
        (Planned::Topic(_), TOPIC) => {
            about(&["sns:CreateTopic", "sns:DeleteTopic", "sns:Subscribe"], Subject::Of(own("TopicArn")?))
        }
        (Planned::Subscription(properties), SUBSCRIPTION) => {
            let topic = home.topic(topic_of(&properties.topic_arn, home.account())?)?;
            let mut asks = about(&["sns:Subscribe"], Subject::Of(topic));
            asks.extend(about(&["sns:Unsubscribe"], Subject::Of(own("Arn")?)));
            asks
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    const HOME: Home<'static> = Home::new("us-east-1", "123456789012");

    fn resource(kind: &str, physical_id: &str, attribute: (&str, &str), properties: Value) -> StackResource {
        StackResource {
            logical_id: "r".into(),
            kind: kind.into(),
            physical_id: physical_id.into(),
            properties,
            attributes: BTreeMap::from([(attribute.0.to_owned(), attribute.1.to_owned())]),
            status: "CREATE_COMPLETE".into(),
            updated_ms: 0,
        }
    }

    fn asked(resource: &StackResource, changes: bool, all: &[&StackResource]) -> Vec<(String, Subject)> {
        let asks = asks(resource, changes, all, &HOME).unwrap();
        asks.into_iter().map(|ask| (ask.action.unwrap().to_owned(), ask.subject)).collect()
    }

    fn everything() -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] })
    }

    #[test]
    fn service_d7_a_policy_that_names_roles_is_asked_about_these_roles() {
        let policy = "arn:aws:iam::123456789012:policy/mine-all";
        let properties = json!({ "ManagedPolicyName": "mine-all", "PolicyDocument": everything(), "Roles": ["admin"] });
        let attached = asked(&resource(MANAGED_POLICY, policy, ("PolicyArn", policy), properties), false, &[]);
        for action in ["iam:AttachRolePolicy", "iam:DetachRolePolicy"] {
            let about: Vec<&Subject> = attached.iter().filter(|(a, _)| a == action).map(|(_, s)| s).collect();
            assert_eq!(about, [&Subject::Role("admin".into())], "{action}: about the role, not about the policy");
        }
        let inline = json!({ "PolicyName": "p", "PolicyDocument": everything(), "Roles": ["admin", "other"] });
        let inline = asked(&resource(POLICY, "p", ("none", ""), inline), false, &[]);
        for role in ["admin", "other"] {
            assert!(inline.contains(&("iam:PutRolePolicy".into(), Subject::Role(role.into()))), "{inline:?}");
        }
        let nobody = json!({ "PolicyName": "p", "PolicyDocument": everything(), "Roles": [] });
        assert_eq!(asks(&resource(POLICY, "p", ("none", ""), nobody), false, &[], &HOME), None);
    }

    #[test]
    fn service_d7_a_role_of_the_stack_is_asked_about_with_the_path_that_it_will_have() {
        let arn = "arn:aws:iam::123456789012:role/app/new";
        let trust = json!({ "Statement": [{ "Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole" }] });
        let role = resource(ROLE, "new", ("Arn", arn), json!({ "Path": "/app/", "AssumeRolePolicyDocument": trust }));
        let inline = json!({ "PolicyName": "p", "PolicyDocument": everything(), "Roles": ["new"] });
        let policy = resource(POLICY, "p", ("none", ""), inline);
        let asked_for = asked(&policy, false, &[&role, &policy]);
        assert!(asked_for.contains(&("iam:PutRolePolicy".into(), Subject::Of(Arn::stored(arn)))), "{asked_for:?}");
        let actions = |changes| asked(&role, changes, &[]).into_iter().map(|(a, _)| a).collect::<Vec<_>>();
        assert_eq!(actions(false), ["iam:CreateRole", "iam:DeleteRole"]);
        assert!(actions(true).contains(&"iam:UpdateAssumeRolePolicy".to_owned()), "who may assume it may change");
        assert!(asked(&role, true, &[]).contains(&("iam:UpdateAssumeRolePolicy".into(), Subject::Role("new".into()))));
    }

    #[test]
    fn service_d1_a_subscription_is_asked_about_its_topic_in_this_region() {
        let properties = |topic: &str| json!({ "TopicArn": topic, "Protocol": "https", "Endpoint": "https://h/" });
        let made =
            |topic: &str| resource(SUBSCRIPTION, "s", ("Arn", "arn:aws:sns:us-east-1:123456789012:t:7"), properties(topic));
        let there = Subject::Of(Arn::stored("arn:aws:sns:us-east-1:123456789012:theirs"));
        let abroad = asked(&made("arn:aws:sns:eu-west-1:123456789012:theirs"), false, &[]);
        assert!(abroad.contains(&("sns:Subscribe".into(), there)), "{abroad:?}");
        assert_eq!(asks(&made("theirs"), false, &[], &HOME), None);
    }
}

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn policy(statements: Value) -> Policy {
    Policy::parse(&json!({ "Version": "2012-10-17", "Statement": statements }).to_string()).unwrap()
}

fn ask(action: &str, resource: &str) -> Question {
    Question::new(action, Arn::stored(resource))
}

#[test]
fn the_guides_role_may_put_metrics_and_nothing_else() {
    let guide = policy(json!([{ "Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*" }]));
    assert_eq!(decide([&guide], &ask("cloudwatch:PutMetricData", "*")), Decision::Allowed);
    assert_eq!(decide([&guide], &ask("cloudwatch:putmetricdata", "*")), Decision::Allowed, "actions have no case");
    assert_eq!(decide([&guide], &ask("cloudwatch:PutMetricAlarm", "*")), Decision::NotAllowed);
    assert_eq!(decide([], &ask("cloudwatch:PutMetricData", "*")), Decision::NotAllowed);
}

#[test]
fn a_bucket_prefix_is_a_bucket_prefix() {
    let prefix = policy(json!([
        { "Effect": "Allow", "Action": ["s3:PutObject", "s3:Get*"], "Resource": "arn:aws:s3:::bucket/results/*" },
        { "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket",
          "Condition": { "StringLike": { "s3:prefix": "results/*" } } },
        { "Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/results/secret*" },
    ]));
    let decide = |q: &Question| super::decide([&prefix], q);
    assert_eq!(decide(&ask("s3:PutObject", "arn:aws:s3:::bucket/results/a.json")), Decision::Allowed);
    assert_eq!(decide(&ask("s3:PutObject", "arn:aws:s3:::bucket/result/a.json")), Decision::NotAllowed);
    assert_eq!(decide(&ask("s3:DeleteObject", "arn:aws:s3:::bucket/results/a.json")), Decision::NotAllowed);
    assert_eq!(decide(&ask("s3:GetObject", "arn:aws:s3:::bucket/results/secret.txt")), Decision::ExplicitlyDenied);
    let mut list = ask("s3:ListBucket", "arn:aws:s3:::bucket");
    assert_eq!(decide(&list), Decision::NotAllowed, "without a prefix");
    list.context = vec![("s3:prefix", "results/2026".into())];
    assert_eq!(decide(&list), Decision::Allowed);
    list.context = vec![("s3:prefix", "other".into())];
    assert_eq!(decide(&list), Decision::NotAllowed);
}

#[test]
fn conditions_on_the_namespace() {
    let own = policy(json!([{ "Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*",
        "Condition": { "StringEquals": { "cloudwatch:namespace": ["Mine", "Ours"] } } }]));
    for (namespace, expected) in [("Mine", Decision::Allowed), ("Ours", Decision::Allowed), ("mine", Decision::NotAllowed)] {
        let mut question = ask("cloudwatch:PutMetricData", "*");
        question.context = vec![("cloudwatch:namespace", namespace.into())];
        assert_eq!(decide([&own], &question), expected, "{namespace}");
    }
}

#[test]
fn a_trust_policy_names_who_may_and_where_from() {
    let trust = |condition: Value| {
        let mut statement = json!({ "Effect": "Allow", "Principal": { "Service": ["panorama.amazonaws.com"] }, "Action": ["sts:AssumeRole"] });
        if !condition.is_null() {
            statement["Condition"] = condition;
        }
        TrustPolicy::parse(&json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()).unwrap()
    };
    let panorama = [Principal::Service("panorama.amazonaws.com".into())];
    let device = |id: &str| {
        vec![
            ("aws:SourceAccount", "123456789012".to_owned()),
            ("aws:SourceArn", format!("arn:aws:panorama:us-east-1:123456789012:device/{id}")),
        ]
    };
    assert!(trusted(&trust(Value::Null), &panorama, &[]));
    assert!(!trusted(&trust(Value::Null), &[Principal::Aws("arn:aws:iam::123456789012:root".into())], &[]));
    let one = trust(json!({
        "ArnLike": { "aws:SourceArn": "arn:aws:panorama:us-east-1:123456789012:device/device-a" },
        "StringEquals": { "aws:SourceAccount": "123456789012" }
    }));
    assert!(trusted(&one, &panorama, &device("device-a")));
    assert!(!trusted(&one, &panorama, &device("device-b")));
    assert!(!trusted(&one, &panorama, &[]));
}

#[test]
fn what_is_not_understood_is_refused_and_named() {
    let base = json!({ "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*" });
    for (element, value, expected) in [
        ("NotAction", json!("s3:*"), "NotAction"),
        ("NotResource", json!("*"), "NotResource"),
        ("Principal", json!("*"), "Principal"),
        ("Effect", json!("allow"), "Effect"),
        ("Action", json!("GetObject"), "GetObject"),
        ("Action", json!([]), "entries"),
        ("Action", json!(3), "string"),
        ("Resource", json!("bucket/key"), "bucket/key"),
        ("Resource", json!("arn:aws:s3:::b/${aws:username}"), "variables"),
        ("Condition", json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } }), "IpAddress"),
        ("Condition", json!({ "StringEquals": { "aws:username": "x" } }), "aws:username"),
        ("Condition", json!({ "ArnLike": { "s3:prefix": "x" } }), "not an ARN"),
        ("Condition", json!({ "StringEqualsIfExists": { "s3:prefix": "x" } }), "StringEqualsIfExists"),
        ("Condition", json!({ "ForAllValues:StringLike": { "s3:prefix": "x" } }), "ForAllValues"),
    ] {
        let mut statement = base.clone();
        statement[element] = value;
        let text = json!({ "Statement": [statement] }).to_string();
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with("Statement[0]"), "{element}: {error}");
    }
    for bad in ["", "[]", "{}", r#"{"Statement":[]}"#, r#"{"Version":"2020-01-01","Statement":[]}"#, r#"{"Statement":[1]}"#]
    {
        assert!(Policy::parse(bad).is_err(), "{bad}");
    }
    let long = json!({ "Statement": [{ "Effect": "Allow", "Action": "a".repeat(11_000), "Resource": "*" }] }).to_string();
    assert!(Policy::parse(&long).is_err());
    let trust = json!({ "Statement": { "Effect": "Allow", "Principal": { "Federated": "x" }, "Action": "sts:AssumeRole" } });
    assert!(TrustPolicy::parse(&trust.to_string()).unwrap_err().to_string().contains("Federated"));
}

#[test]
fn a_policy_in_which_something_is_said_twice_or_means_nothing_is_refused() {
    let narrow = r#""Condition":{"StringLike":{"s3:prefix":"mine/*"}}"#;
    let allow = r#""Effect":"Allow","Action":"s3:*","Resource":"*""#;
    for bad in [
        format!(r#"{{"Statement":[{{{allow},{narrow},"Condition":{{}}}}]}}"#),
        format!(r#"{{"Statement":[{{{allow},"Condition":{{"StringLike":{{"s3:prefix":"mine/*"}},"StringLike":{{}}}}}}]}}"#),
        format!(r#"{{"Statement":[{{{allow},"Condition":{{"StringLike":{{"s3:prefix":"mine/*","s3:prefix":"*"}}}}}}]}}"#),
        format!(r#"{{"Statement":[{{"Effect":"Deny",{allow}}}]}}"#),
        format!(r#"{{"Statement":[{{"Effect":"Deny","Action":"*","Resource":"*"}}],"Statement":[{{{allow}}}]}}"#),
    ] {
        let error = Policy::parse(&bad).unwrap_err().to_string();
        assert!(error.contains("twice"), "{bad}: {error}");
    }
    let trust = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole",
        "Condition":{"StringEquals":{"sts:ExternalId":"secret"}},"Condition":{}}}"#;
    assert!(TrustPolicy::parse(trust).unwrap_err().to_string().contains("twice"));
    // A deny that can never match is none.
    for (action, resource) in [("s3:*", "ARN:aws:s3:::b/*"), ("s3:*", " arn:aws:s3:::b/*"), (" s3:*", "*"), ("s3 :*", "*")] {
        let document = json!({ "Statement": [{ "Effect": "Deny", "Action": action, "Resource": resource }] });
        assert!(Policy::parse(&document.to_string()).is_err(), "{document}");
    }
}

fn statement() -> impl Strategy<Value = Value> {
    let action = prop::sample::select(vec!["*", "s3:*", "s3:GetObject", "s3:Put*", "logs:?ut", "logs:Put"]);
    let resource = prop::sample::select(vec!["*", "arn:aws:s3:::b/*", "arn:aws:s3:::b/x", "arn:aws:s3:::?/x"]);
    let condition =
        prop::option::of((prop::sample::select(vec!["StringEquals", "StringLike", "StringNotEquals"]), "[ab*]{1,2}"));
    (any::<bool>(), prop::collection::vec(action, 1..3), prop::collection::vec(resource, 1..3), condition).prop_map(
        |(allow, action, resource, condition)| {
            let mut statement =
                json!({ "Effect": if allow { "Allow" } else { "Deny" }, "Action": action, "Resource": resource });
            if let Some((operator, value)) = condition {
                statement["Condition"] = json!({ operator: { "s3:prefix": value } });
            }
            statement
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    let action = prop::sample::select(vec!["s3:GetObject", "s3:PutObject", "logs:Put", "iam:CreateRole"]);
    let resource = prop::sample::select(vec!["*", "arn:aws:s3:::b/x", "arn:aws:s3:::b/y", "arn:aws:s3:::c/x"]);
    (action, resource, prop::option::of("[ab]{1,2}")).prop_map(|(action, resource, prefix)| Question {
        action: action.into(),
        resource: Arn::stored(resource),
        context: prefix.map(|p| ("s3:prefix", p)).into_iter().collect(),
    })
}

proptest! {
    #[test]
    fn a_deny_is_final_and_only_an_allow_allows(statements in prop::collection::vec(statement(), 1..6), question in question()) {
        let each: Vec<(bool, Decision)> = statements
            .iter()
            .map(|s| (s["Effect"] == "Allow", decide([&policy(json!([s]))], &question)))
            .collect();
        let denied = each.iter().any(|(_, d)| *d == Decision::ExplicitlyDenied);
        let allowed = each.iter().any(|(_, d)| *d == Decision::Allowed);
        let by_its_effect = each.iter().all(|(allow, d)| *d != if *allow { Decision::ExplicitlyDenied } else { Decision::Allowed });
        prop_assert!(by_its_effect);
        let expected = if denied { Decision::ExplicitlyDenied } else if allowed { Decision::Allowed } else { Decision::NotAllowed };
        prop_assert_eq!(decide([&policy(json!(statements))], &question), expected);
        // However the statements are spread over policies, and in whatever order.
        let apart: Vec<Policy> = statements.iter().rev().map(|s| policy(json!([s]))).collect();
        prop_assert_eq!(decide(&apart, &question), expected);
    }

    #[test]
    fn documents_of_any_kind_never_panic_the_reader(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text);
        let _ = TrustPolicy::parse(&text);
    }
}

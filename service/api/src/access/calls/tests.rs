use super::*;
use crate::model::{Member, Shape};
use crate::operation::{DocumentOperation, FormOperation};
use crate::query::Form;
use crate::{cloudformation, cloudwatch, cloudwatch_logs, iam, query, secrets_manager, sns, sts};
use serde_json::{Map, Value, json};

const HOME: Home<'static> = Home::new("r", "1");

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = axum::http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn objects_are_named_as_their_handler_names_them() {
    let s3 = |method, uri, headers: &[(&str, &str)]| -> Vec<(String, String)> {
        let asking = super::s3(&parts(method, uri, headers));
        asking.questions.into_iter().map(|q| (q.action, q.resource.into())).collect()
    };
    assert_eq!(s3("GET", "/b/a%20b", &[]), pairs(&[("s3:GetObject", "arn:aws:s3:::b/a b")]));
    assert_eq!(s3("PUT", "/b/k?partNumber=1&uploadId=x", &[]), pairs(&[("s3:PutObject", "arn:aws:s3:::b/k")]));
    assert_eq!(s3("DELETE", "/b/k?uploadId=x", &[]), pairs(&[("s3:AbortMultipartUpload", "arn:aws:s3:::b/k")]));
    assert_eq!(s3("GET", "/b?list-type=2&prefix=p", &[]), pairs(&[("s3:ListBucket", "arn:aws:s3:::b")]));
    let copy = s3("PUT", "/b/k", &[("x-amz-copy-source", "/c/secret%2Fx?versionId=1")]);
    assert_eq!(copy, pairs(&[("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::c/secret/x")]));
    assert!(s3("PUT", "/b/k", &[("x-amz-copy-source", "nokey")]).is_empty());
    assert!(s3("PATCH", "/b/k", &[]).is_empty());
    assert!(s3("GET", "/b/k?acl", &[]).is_empty(), "what is not known is nobody's");
    assert!(s3("GET", "/a:b/k", &[]).is_empty(), "no bucket is named so");
}

fn logs(operation: &str, body: &str) -> Option<Vec<Ask>> {
    let parts = parts("POST", "/", &[("x-amz-target", &format!("Logs_20140328.{operation}"))]);
    asks(&cloudwatch_logs::read(&parts, body.as_bytes(), &HOME).ok()?, &HOME)
}

fn named(asks: Option<Vec<Ask>>) -> Vec<String> {
    let arn = |ask: Ask| match ask.subject {
        Subject::Of(arn) => arn.into(),
        other => format!("{other:?}"),
    };
    asks.unwrap_or_default().into_iter().map(arn).collect()
}

#[test]
fn the_log_group_that_a_call_acts_on_is_asked_for() {
    let put = logs("PutLogEvents", r#"{"logGroupName":"/g","logStreamName":"s","logEvents":[]}"#);
    assert_eq!(named(put), ["arn:aws:logs:r:1:log-group:/g:log-stream:s"]);
    let two = r#"{"logGroupName":"a","logGroupIdentifier":"arn:aws:logs:r:1:log-group:b:*"}"#;
    assert_eq!(named(logs("FilterLogEvents", two)), ["arn:aws:logs:r:1:log-group:a:*"], "the one that is read");
    let other = r#"{"logGroupIdentifier":"arn:aws:logs:r:1:log-group:b:*"}"#;
    assert_eq!(named(logs("FilterLogEvents", other)), ["arn:aws:logs:r:1:log-group:b:*"]);
    assert_eq!(named(logs("DescribeLogGroups", "{}")), ["arn:aws:logs:r:1:log-group:*"]);
    // Where the handler writes, not what the request says.
    for (given, asked) in
        [(r#""""#, "exportedlogs"), (r#""/""#, "exportedlogs"), (r#""/a/b/""#, "a/b"), ("null", "exportedlogs")]
    {
        let body = format!(r#"{{"logGroupName":"a","destination":"b","destinationPrefix":{given}}}"#);
        let expected = ["arn:aws:logs:r:1:log-group:a:*".to_owned(), format!("arn:aws:s3:::b/{asked}/*")];
        assert_eq!(named(logs("CreateExportTask", &body)), expected, "{given}");
    }
    assert_eq!(logs("PutLogEvents", "not json"), None);
    assert_eq!(logs("PutLogEvents", r#"{"logGroupName":"a:b","logStreamName":"s"}"#), None, "no name of a group");
    assert_eq!(logs("Nonesuch", "{}"), None);
    assert_eq!(log_group("arn:aws:logs:r:1:log-group:/g/x:log-stream:s:t"), Some("/g/x"));
}

fn form(table: &'static [FormOperation], body: &str) -> Option<Vec<Ask>> {
    asks(&query::read(table, &parts("POST", "/", &[]), body.as_bytes()).ok()?, &HOME)
}

#[test]
fn assuming_is_asked_for_the_role() {
    let body = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr";
    assert_eq!(named(form(sts::OPERATIONS, body)), ["arn:aws:iam::1:role/r"]);
    assert_eq!(form(sts::OPERATIONS, "Action=AssumeRole&RoleArn=*"), None);
    assert_eq!(form(sts::OPERATIONS, "Action=GetFederationToken"), None);
}

#[test]
fn service_d2_the_attacks_that_were_tried_ask_what_they_act_on() {
    for (operation, body, asked) in [
        ("DeleteLogGroup", r#"{"logGroupName":"g","logStreamName":"mine"}"#, "arn:aws:logs:r:1:log-group:g:*"),
        ("PutRetentionPolicy", r#"{"logGroupName":"g","logStreamName":"mine"}"#, "arn:aws:logs:r:1:log-group:g:*"),
        ("FilterLogEvents", r#"{"logGroupName":"g","logStreamName":"mine"}"#, "arn:aws:logs:r:1:log-group:g:*"),
        ("DescribeLogGroups", r#"{"logGroupName":"mine"}"#, "arn:aws:logs:r:1:log-group:*"),
        ("DescribeExportTasks", r#"{"logGroupName":"mine"}"#, "arn:aws:logs:r:1:log-group:*"),
        ("CancelExportTask", r#"{"logGroupName":"mine","taskId":"t"}"#, "arn:aws:logs:r:1:log-group:*"),
    ] {
        assert_eq!(named(logs(operation, body)), [asked], "{operation}");
    }
    let topic = "TopicArn=arn%3Aaws%3Asns%3Ar%3A1%3Amine";
    let sns = |body: &str| asks(&sns::read(&parts("POST", "/", &[]), body.as_bytes()).ok()?, &HOME);
    assert_eq!(named(sns(&format!("Action=ListSubscriptions&{topic}"))), ["*"]);
    assert_eq!(named(sns(&format!("Action=CreateTopic&Name=theirs&{topic}"))), ["arn:aws:sns:r:1:theirs"]);
    let theirs = "SubscriptionArn=arn%3Aaws%3Asns%3Ar%3A1%3Atheirs%3A7";
    assert_eq!(named(sns(&format!("Action=Unsubscribe&{theirs}&{topic}"))), ["arn:aws:sns:r:1:theirs:7"]);
    let iam = |body: &str| named(form(iam::OPERATIONS, body));
    let policy = "PolicyArn=arn%3Aaws%3Aiam%3A%3A1%3Apolicy%2Ftheirs";
    assert_eq!(iam(&format!("Action=DeletePolicy&RoleName=mine&{policy}")), ["arn:aws:iam::1:policy/theirs"]);
    assert_eq!(iam("Action=ListRoles&RoleName=mine"), ["*"]);
    assert_eq!(named(form(cloudformation::OPERATIONS, "Action=ListStacks&StackName=mine")), ["*"]);
}

/// A value that every shape's reader takes for one, and that names something of its own.
fn sample(shape: &Shape, name: &str) -> Value {
    match shape.bare() {
        Shape::List(inner, ..) => json!([sample(inner, name)]),
        Shape::Structure(members) | Shape::Union(members) => {
            Value::Object(members.iter().map(|m| (m.name.to_owned(), sample(&m.shape, name))).collect())
        }
        Shape::Integer(..) | Shape::Timestamp => json!(1),
        Shape::Double => json!(1.5),
        Shape::Boolean => json!(true),
        Shape::Map(..) => json!({ "k": "v" }),
        Shape::Word(words) => json!(words[0]),
        Shape::Text(_) | Shape::Blob | Shape::Named(_) => match name {
            "TopicArn" => json!("arn:aws:sns:r:1:mine"),
            "SubscriptionArn" => json!("arn:aws:sns:r:1:mine:7"),
            "resourceArn" => json!("arn:aws:logs:r:1:log-group:mine"),
            _ => json!("mine"),
        },
    }
}

fn documents(table: &'static [DocumentOperation]) -> Vec<(&'static str, &'static Member)> {
    table.iter().flat_map(|o| o.takes.iter().map(|m| (m.name, m))).collect()
}

/// For each operation of a table, with each member that any operation has and it does not take: what is asked is what is
/// asked without. Refusing such an input asks nothing at all.
fn no_surplus_member_decides(
    service: &str,
    table: &'static [DocumentOperation],
    all: &[(&'static str, &'static Member)],
    ask: impl Fn(&'static str, &Map<String, Value>) -> Option<Vec<Ask>>,
) -> usize {
    let mut tried = 0;
    for operation in table {
        let own: Map<String, Value> =
            operation.takes.iter().map(|m| (m.name.to_owned(), sample(&m.shape, m.name))).collect();
        for optional in [true, false] {
            let mut input = own.clone();
            input.retain(|name, _| optional || operation.takes.iter().any(|m| m.name == name && m.required));
            let without = ask(operation.name, &input);
            assert!(without.as_ref().is_some_and(|asks| !asks.is_empty()), "{service}:{} asks nothing", operation.name);
            for (name, member) in all.iter().filter(|(name, _)| !own.contains_key(*name) && *name != "logGroupIdentifier") {
                let mut more = input.clone();
                more.insert((*name).to_owned(), sample(&member.shape, name));
                let with = ask(operation.name, &more);
                assert!(with.is_none() || with == without, "{service}:{} with {name}: {with:?}", operation.name);
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn service_d2_no_member_decides_about_an_operation_that_does_not_take_it() {
    let tables = [sns::OPERATIONS, cloudwatch::OPERATIONS, cloudwatch_logs::OPERATIONS, secrets_manager::OPERATIONS];
    let all: Vec<_> = tables.iter().flat_map(|table| documents(table)).collect();
    let body = |input: &Map<String, Value>| Value::Object(input.clone()).to_string().into_bytes();
    let target = |name: &str| parts("POST", "/", &[("x-amz-target", name)]);
    let mut tried = 0;
    tried += no_surplus_member_decides("logs", cloudwatch_logs::OPERATIONS, &all, |name, input| {
        asks(&cloudwatch_logs::read(&target(&format!("Logs_20140328.{name}")), &body(input), &HOME).ok()?, &HOME)
    });
    tried += no_surplus_member_decides("secretsmanager", secrets_manager::OPERATIONS, &all, |name, input| {
        asks(&secrets_manager::read(&target(&format!("secretsmanager.{name}")), &body(input)).ok()?, &HOME)
    });
    tried += no_surplus_member_decides("cloudwatch, JSON", cloudwatch::OPERATIONS, &all, |name, input| {
        let parts = target(&format!("GraniteServiceVersion20100801.{name}"));
        asks(&cloudwatch::read(cloudwatch::Form::Json, &parts, &body(input)).ok()?, &HOME)
    });
    tried += no_surplus_member_decides("cloudwatch, CBOR", cloudwatch::OPERATIONS, &all, |name, input| {
        let parts = parts("POST", &format!("/service/GraniteServiceVersion20100801/operation/{name}"), &[]);
        asks(&cloudwatch::read(cloudwatch::Form::Cbor, &parts, &cbor(input)).ok()?, &HOME)
    });
    tried += no_surplus_member_decides("cloudwatch, form", cloudwatch::OPERATIONS, &all, |name, input| {
        asks(
            &cloudwatch::read(cloudwatch::Form::Query, &parts("POST", "/", &[]), fields(name, input).as_bytes()).ok()?,
            &HOME,
        )
    });
    tried += no_surplus_member_decides("sns", sns::OPERATIONS, &all, |name, input| {
        asks(&sns::read(&parts("POST", "/", &[]), fields(name, input).as_bytes()).ok()?, &HOME)
    });
    assert!(tried > 5000, "{tried}");
}

fn cbor(input: &Map<String, Value>) -> Vec<u8> {
    fn put(to: &mut minicbor::Encoder<Vec<u8>>, value: &Value) {
        match value {
            Value::String(text) => to.str(text).map(drop),
            Value::Bool(truth) => to.bool(*truth).map(drop),
            Value::Array(items) => to.array(items.len() as u64).map(|to| items.iter().for_each(|item| put(to, item))),
            Value::Object(members) => to.map(members.len() as u64).map(|to| {
                for (name, value) in members {
                    to.str(name).unwrap();
                    put(to, value);
                }
            }),
            other => to.f64(other.as_f64().unwrap()).map(drop),
        }
        .unwrap();
    }
    let mut encoder = minicbor::Encoder::new(Vec::new());
    put(&mut encoder, &Value::Object(input.clone()));
    encoder.into_writer()
}

/// A document as the fields of a form.
fn fields(action: &str, input: &Map<String, Value>) -> String {
    fn put(to: &mut String, name: &str, value: &Value) {
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, item)| put(to, &format!("{name}.member.{}", n + 1), item));
            }
            Value::Object(members) => members.iter().for_each(|(inner, value)| put(to, &format!("{name}.{inner}"), value)),
            Value::String(text) => *to += &format!("&{name}={}", crate::sigv4::canonical::encode(text.as_bytes(), b"")),
            other => *to += &format!("&{name}={other}"),
        }
    }
    let mut text = format!("Action={action}");
    input.iter().for_each(|(name, value)| put(&mut text, name, value));
    text
}

#[test]
fn service_d2_no_field_decides_about_an_operation_of_forms_that_does_not_take_it() {
    let all: Vec<&str> = [iam::OPERATIONS, sts::OPERATIONS, cloudformation::OPERATIONS]
        .into_iter()
        .flatten()
        .flat_map(|o| o.takes)
        .copied()
        .chain(["TopicArn", "SubscriptionArn", "AlarmName", "SecretId", "logGroupName"])
        .collect();
    let field = |name: &str| match name {
        "PolicyArn" => "PolicyArn=arn:aws:iam::1:policy/mine".to_owned(),
        "RoleArn" => "RoleArn=arn:aws:iam::1:role/mine".to_owned(),
        "Path" => "Path=/mine/".to_owned(),
        name => format!("{name}=mine"),
    };
    let mut tried = 0;
    for table in [iam::OPERATIONS, sts::OPERATIONS, cloudformation::OPERATIONS] {
        for operation in table {
            let own: Vec<String> = operation.takes.iter().map(|name| field(name)).collect();
            let body = format!("Action={}&{}", operation.name, own.join("&"));
            let without = form(table, &body);
            assert!(without.as_ref().is_some_and(|asks| !asks.is_empty()), "{} asks nothing", operation.name);
            for name in all.iter().filter(|name| !operation.takes.contains(name)) {
                assert_eq!(form(table, &format!("{body}&{}", field(name))), without, "{} with {name}", operation.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 800, "{tried}");
}

#[test]
fn an_operation_is_in_its_table_once() {
    let mut names: Vec<&str> = Vec::new();
    for table in [sns::OPERATIONS, cloudwatch::OPERATIONS, secrets_manager::OPERATIONS] {
        names.extend(table.iter().map(|o| o.name));
    }
    names.extend(iam::OPERATIONS.iter().map(|o| o.name));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn forms_keep_what_their_operation_takes() {
    let form = Form::of(&parts("POST", "/", &[]), b"Action=A&Tags.member.1.Key=k&Tagsx=1&Name=n").unwrap();
    let form = form.only(&["Tags", "Name"]);
    assert_eq!(form.fields().collect::<Vec<_>>(), [("Name", "n"), ("Tags.member.1.Key", "k")]);
}

//! A request becomes questions: which action on which resource, in AWS's words. All of them must be answered with yes.
//!
//! What is asked here is read from the request exactly as its handler reads it (the same route, the same form, the
//! first of several fields); whatever a handler knows and this does not is an administrator's alone.

use super::evaluate::Question;
use crate::Api;
use crate::cloudwatch;
use crate::entry::Service;
use crate::panorama::operations;
use crate::query::Form;
use crate::s3::operation::{Operation, Target};
use crate::secrets_manager;
use crate::sigv4::canonical::decode;
use axum::http::request::Parts;
use belvedere_store::StoreError;
use serde_json::{Map, Value};

/// A verified request, as far as questions need it.
pub struct Call<'a> {
    /// Which service it is for.
    pub service: Service,
    /// Method, path, query, headers.
    pub parts: &'a Parts,
    /// The body; empty for objects, which are read while they come.
    pub body: &'a [u8],
    /// The region of its signature.
    pub region: &'a str,
    /// The account.
    pub account: &'a str,
}

impl Call<'_> {
    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }
}

/// The questions of a call; none if this service does not know it.
pub async fn questions(api: &Api, call: &Call<'_>) -> Result<Vec<Question>, StoreError> {
    match call.service {
        Service::Panorama => panorama(api, call).await,
        Service::S3 => Ok(s3(call)),
        Service::Logs => Ok(logs(call)),
        Service::Sts => Ok(sts(call)),
        Service::Iam => iam(api, call).await,
        Service::SecretsManager => secrets(api, call).await,
        Service::CloudFormation => Ok(cloudformation(call)),
        Service::Monitoring(form) => Ok(monitoring(call, form)),
        Service::Sns => Ok(sns(call)),
        Service::IotData => Ok(crate::iot_data::topic(call.parts)
            .map(|topic| Question::new("iot:Publish", call.arn("iot", &format!("topic/{topic}"))))
            .into_iter()
            .collect()),
    }
}

async fn panorama(api: &Api, call: &Call<'_>) -> Result<Vec<Question>, StoreError> {
    let Some((index, labels)) = operations::find(call.parts.method.as_str(), call.parts.uri.path()) else {
        return Ok(Vec::new());
    };
    let name = operations::OPERATIONS[index].signature.name;
    let body: Map<String, Value> = serde_json::from_slice(call.body).unwrap_or_default();
    let label = |wanted: &str| labels.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.as_str());
    let resource = if let Some(id) = label("DeviceId") {
        call.arn("panorama", &format!("device/{id}"))
    } else if let Some(id) = label("ApplicationInstanceId") {
        call.arn("panorama", &format!("applicationInstance/{id}"))
    } else if let Some(id) = label("PackageId") {
        // A package may be named in two ways; policies name it by its identifier.
        let named = match id.strip_prefix("packageName/") {
            Some(name) => api.fleet.store.package_of_name(name).await?.map(|p| p.package_id),
            None => None,
        };
        call.arn("panorama", &format!("package/{}", named.as_deref().unwrap_or(id)))
    } else if let Some(arn) = label("ResourceArn") {
        arn.to_owned()
    } else if name == "CreateJobForDevices" {
        let first = body.get("DeviceIds").and_then(|ids| ids.get(0)).and_then(Value::as_str).unwrap_or("");
        call.arn("panorama", &format!("device/{first}"))
    } else {
        "*".to_owned()
    };
    let mut questions = vec![Question::new(format!("panorama:{name}"), resource)];
    // Whoever gives a role to an application must be allowed to.
    if let Some(role) = body.get("RuntimeRoleArn").and_then(Value::as_str) {
        questions.push(Question::new("iam:PassRole", role));
    }
    Ok(questions)
}

/// Deleting many objects at once. Which ones is in the body: the handler asks about each.
pub const EACH_KEY: &str = "s3:DeleteObjects";

/// `arn:aws:s3:::bucket/key`.
pub fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

fn s3(call: &Call<'_>) -> Vec<Question> {
    let Ok(target) = Target::of(call.parts) else { return Vec::new() };
    let Some(operation) = Operation::of(call.parts, &target) else { return Vec::new() };
    let resource = match operation {
        Operation::ListBuckets => "*".to_owned(),
        _ if target.key.is_empty() => format!("arn:aws:s3:::{}", target.bucket),
        _ => object_arn(&target.bucket, &target.key),
    };
    if operation == Operation::DeleteObjects {
        return vec![Question::new(EACH_KEY, resource)];
    }
    let mut first = Question::new(operation.action(), resource);
    if operation == Operation::ListObjects {
        first.context.push(("s3:prefix", target.query("prefix").unwrap_or("").to_owned()));
    }
    let mut questions = vec![first];
    if matches!(operation, Operation::CopyObject | Operation::CopyPart) {
        match target.copy_source(&call.parts.headers) {
            Some((bucket, key)) => questions.push(Question::new("s3:GetObject", object_arn(&bucket, &key))),
            None => return Vec::new(),
        }
    }
    questions
}

/// The name in the ARN of a log group or stream.
pub fn log_group(arn: &str) -> Option<&str> {
    let group = arn.splitn(6, ':').nth(5)?.strip_prefix("log-group:")?;
    Some(group.split_once(':').map_or(group, |(group, _)| group))
}

fn logs(call: &Call<'_>) -> Vec<Question> {
    let target = call.parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let Some(operation) = target.strip_prefix("Logs_20140328.").filter(|o| !o.is_empty()) else { return Vec::new() };
    let Ok(input) = serde_json::from_slice::<Map<String, Value>>(call.body) else { return Vec::new() };
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    let mut groups: Vec<&str> = Vec::new();
    for name in ["logGroupName", "logGroupIdentifier", "resourceArn"] {
        groups.extend(text(name).map(|g| log_group(g).unwrap_or(g)));
    }
    for name in ["logGroupNames", "logGroupIdentifiers"] {
        let list = input.get(name).and_then(Value::as_array).into_iter().flatten();
        groups.extend(list.filter_map(Value::as_str).map(|g| log_group(g).unwrap_or(g)));
    }
    let action = format!("logs:{operation}");
    let arn = |group: &str| match text("logStreamName") {
        Some(stream) => call.arn("logs", &format!("log-group:{group}:log-stream:{stream}")),
        None => call.arn("logs", &format!("log-group:{group}:*")),
    };
    let mut questions: Vec<Question> = groups.iter().map(|g| Question::new(action.clone(), arn(g))).collect();
    if questions.is_empty() {
        questions.push(Question::new(action, call.arn("logs", "log-group:*")));
    }
    // Exports write into a bucket.
    if let Some(bucket) = text("destination") {
        let prefix = crate::cloudwatch_logs::key_prefix(text("destinationPrefix"));
        questions.push(Question::new("s3:PutObject", object_arn(bucket, &format!("{prefix}/*"))));
    }
    questions
}

fn monitoring(call: &Call<'_>, form: cloudwatch::Form) -> Vec<Question> {
    let Ok((operation, input)) = cloudwatch::read(form, call.parts, call.body) else { return Vec::new() };
    if operation.is_empty() {
        return Vec::new();
    }
    let one = input.get("AlarmName").and_then(Value::as_str);
    let many = input.get("AlarmNames").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut resources: Vec<String> =
        one.into_iter().chain(many).map(|name| call.arn("cloudwatch", &format!("alarm:{name}"))).collect();
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let namespace = input.get("Namespace").and_then(Value::as_str);
    let context: Vec<(&'static str, String)> =
        namespace.map(|n| ("cloudwatch:namespace", n.to_owned())).into_iter().collect();
    let question = |resource| Question { action: format!("cloudwatch:{operation}"), resource, context: context.clone() };
    resources.into_iter().map(question).collect()
}

fn sns(call: &Call<'_>) -> Vec<Question> {
    let Some(form) = Form::of(call.parts, call.body).filter(|f| !f.action().is_empty()) else { return Vec::new() };
    let resource = match (form.get("TopicArn"), form.get("SubscriptionArn"), form.get("Name")) {
        (Some(arn), ..) | (None, Some(arn), _) => arn.to_owned(),
        (None, None, Some(name)) => call.arn("sns", name),
        _ => "*".to_owned(),
    };
    vec![Question::new(format!("sns:{}", form.action()), resource)]
}

fn sts(call: &Call<'_>) -> Vec<Question> {
    let Some(form) = Form::of(call.parts, call.body) else { return Vec::new() };
    match form.action() {
        "GetCallerIdentity" => vec![Question::new("sts:GetCallerIdentity", "*")],
        "AssumeRole" => vec![Question::new("sts:AssumeRole", form.get("RoleArn").unwrap_or(""))],
        _ => Vec::new(),
    }
}

async fn iam(api: &Api, call: &Call<'_>) -> Result<Vec<Question>, StoreError> {
    let Some(form) = Form::of(call.parts, call.body) else { return Ok(Vec::new()) };
    let global = |kind: &str, path: &str, name: &str| format!("arn:aws:iam::{}:{kind}{path}{name}", call.account);
    let path = form.get("Path").unwrap_or("/");
    let resource = match (form.action(), form.get("RoleName"), form.get("PolicyArn")) {
        ("", ..) => return Ok(Vec::new()),
        ("CreateRole", Some(name), _) => global("role", path, name),
        ("CreatePolicy", ..) => global("policy", path, form.get("PolicyName").unwrap_or("")),
        (_, Some(name), _) => {
            let known = api.fleet.store.role(name).await?.map(|r| r.path);
            global("role", known.as_deref().unwrap_or("/"), name)
        }
        (_, None, Some(arn)) => arn.to_owned(),
        _ => "*".to_owned(),
    };
    Ok(vec![Question::new(format!("iam:{}", form.action()), resource)])
}

async fn secrets(api: &Api, call: &Call<'_>) -> Result<Vec<Question>, StoreError> {
    let operation = secrets_manager::operation(call.parts);
    let Ok(input) = serde_json::from_slice::<Map<String, Value>>(call.body) else { return Ok(Vec::new()) };
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    // Policies name secrets by ARNs whose last characters are random.
    let unknown = |name: &str| call.arn("secretsmanager", &format!("secret:{name}-??????"));
    let resource = match (operation, text("SecretId")) {
        ("", _) => return Ok(Vec::new()),
        ("CreateSecret", _) => unknown(text("Name").unwrap_or("")),
        (_, Some(id)) => api.fleet.store.managed_secret(id).await?.map_or_else(|| unknown(id), |s| s.arn),
        _ => "*".to_owned(),
    };
    Ok(vec![Question::new(format!("secretsmanager:{operation}"), resource)])
}

/// What a stack's resources need is asked when it is known what they are.
fn cloudformation(call: &Call<'_>) -> Vec<Question> {
    let Some(form) = Form::of(call.parts, call.body) else { return Vec::new() };
    let resource = match form.get("StackName") {
        _ if form.action().is_empty() => return Vec::new(),
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        Some(name) => call.arn("cloudformation", &format!("stack/{name}/*")),
        None => "*".to_owned(),
    };
    vec![Question::new(format!("cloudformation:{}", form.action()), resource)]
}

/// A copy's source as bucket and key: `/bucket/key` or `bucket/key`, percent-encoded.
pub fn copy_source(header: &str) -> Option<(String, String)> {
    let path = header.split_once('?').map_or(header, |(path, _)| path);
    let text = String::from_utf8(decode(path.trim_start_matches('/'), false)).ok()?;
    let (bucket, key) = text.split_once('/')?;
    (!bucket.is_empty() && !key.is_empty()).then(|| (bucket.to_owned(), key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(service: Service, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Vec<(String, String)> {
        let mut builder = axum::http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let parts = builder.body(()).unwrap().into_parts().0;
        let call = Call { service, parts: &parts, body: body.as_bytes(), region: "r", account: "1" };
        let questions = match service {
            Service::S3 => s3(&call),
            Service::Logs => logs(&call),
            _ => sts(&call),
        };
        questions.into_iter().map(|q| (q.action, q.resource)).collect()
    }
    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn objects_are_named_as_their_handler_names_them() {
        let s3 = |method, uri, headers: &[(&str, &str)]| ask(Service::S3, method, uri, headers, "");
        assert_eq!(s3("GET", "/b/a%20b", &[]), pairs(&[("s3:GetObject", "arn:aws:s3:::b/a b")]));
        assert_eq!(s3("PUT", "/b/k?partNumber=1&uploadId=x", &[]), pairs(&[("s3:PutObject", "arn:aws:s3:::b/k")]));
        assert_eq!(s3("DELETE", "/b/k?uploadId=x", &[]), pairs(&[("s3:AbortMultipartUpload", "arn:aws:s3:::b/k")]));
        assert_eq!(s3("GET", "/b?list-type=2&prefix=p", &[]), pairs(&[("s3:ListBucket", "arn:aws:s3:::b")]));
        let copy = s3("PUT", "/b/k", &[("x-amz-copy-source", "/c/secret%2Fx?versionId=1")]);
        assert_eq!(copy, pairs(&[("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::c/secret/x")]));
        assert!(s3("PUT", "/b/k", &[("x-amz-copy-source", "nokey")]).is_empty());
        assert!(s3("PATCH", "/b/k", &[]).is_empty());
        assert!(s3("GET", "/b/k?acl", &[]).is_empty(), "what is not known is nobody's");
    }

    #[test]
    fn every_log_group_that_a_call_names_is_asked_for() {
        let logs = |operation: &str, body: &str| {
            ask(Service::Logs, "POST", "/", &[("x-amz-target", &format!("Logs_20140328.{operation}"))], body)
        };
        let put = logs("PutLogEvents", r#"{"logGroupName":"/g","logStreamName":"s","logEvents":[]}"#);
        assert_eq!(put, pairs(&[("logs:PutLogEvents", "arn:aws:logs:r:1:log-group:/g:log-stream:s")]));
        let two = logs("FilterLogEvents", r#"{"logGroupName":"a","logGroupIdentifier":"arn:aws:logs:r:1:log-group:b:*"}"#);
        assert_eq!(
            two,
            pairs(&[
                ("logs:FilterLogEvents", "arn:aws:logs:r:1:log-group:a:*"),
                ("logs:FilterLogEvents", "arn:aws:logs:r:1:log-group:b:*")
            ])
        );
        assert_eq!(logs("DescribeLogGroups", "{}"), pairs(&[("logs:DescribeLogGroups", "arn:aws:logs:r:1:log-group:*")]));
        // Where the handler writes, not what the request says.
        for (given, asked) in
            [(r#""""#, "exportedlogs"), (r#""/""#, "exportedlogs"), (r#""/a/b/""#, "a/b"), ("null", "exportedlogs")]
        {
            let body = format!(r#"{{"logGroupName":"a","destination":"b","destinationPrefix":{given}}}"#);
            let object = format!("arn:aws:s3:::b/{asked}/*");
            let expected = [("logs:CreateExportTask", "arn:aws:logs:r:1:log-group:a:*"), ("s3:PutObject", object.as_str())];
            assert_eq!(logs("CreateExportTask", &body), pairs(&expected), "{given}");
        }
        assert!(logs("PutLogEvents", "not json").is_empty());
        assert_eq!(log_group("arn:aws:logs:r:1:log-group:/g/x:log-stream:s:t"), Some("/g/x"));
    }

    #[test]
    fn assuming_is_asked_for_the_role() {
        let body = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr";
        assert_eq!(ask(Service::Sts, "POST", "/", &[], body), pairs(&[("sts:AssumeRole", "arn:aws:iam::1:role/r")]));
        assert!(ask(Service::Sts, "POST", "/", &[], "Action=GetFederationToken").is_empty());
    }
}

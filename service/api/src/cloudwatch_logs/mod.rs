//! CloudWatch Logs (JSON 1.1).
//!
//! | module | one idea |
//! |---|---|
//! | [`groups`] | groups and streams: made, described, kept for so long, tagged, deleted |
//! | [`events`] | events of one stream: put, and read from either end |
//! | [`filter`], [`pattern`] | events of several streams that fit a pattern |
//! | [`exports`] | groups become objects |

mod events;
mod exports;
mod filter;
mod groups;
mod pattern;

pub use exports::key_prefix;

use crate::Api;
use crate::entry::Request;
use crate::model::{Fault, Member, Shape, Text, check};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::{StoreError, identifiers};
use serde_json::{Map, Value, json};

static GROUP: Text = Text { min: 1, max: 512, pattern: Some(r"^[\.\-_/#A-Za-z0-9]+$") };
static STREAM: Text = Text { min: 1, max: 512, pattern: Some(r"^[^:*]*$") };
static TOKEN: Text = Text { min: 1, max: 2048, pattern: None };
const GROUP_NAME: Member = Member::required("logGroupName", Shape::Text(&GROUP));
const STREAM_NAME: Member = Member::required("logStreamName", Shape::Text(&STREAM));

/// An error in this service's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "__type": code, "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response()
}

struct LogsError(StatusCode, &'static str, String);

fn wrong(code: &'static str, message: impl Into<String>) -> LogsError {
    LogsError(StatusCode::BAD_REQUEST, code, message.into())
}
fn missing(what: &str) -> LogsError {
    wrong("ResourceNotFoundException", format!("The specified {what} does not exist."))
}
impl From<StoreError> for LogsError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Exists { what } => wrong("ResourceAlreadyExistsException", format!("{what} already exists")),
            other => {
                let id = identifiers::token::<8>();
                tracing::error!(error_id = id, "{other}");
                let message = format!("internal error {id}; the service's log says more");
                LogsError(StatusCode::INTERNAL_SERVER_ERROR, "ServiceUnavailableException", message)
            }
        }
    }
}

/// Answers a request.
pub async fn answer(api: &Api, request: Request) -> Response {
    match run(api, request).await {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
        }
        Err(LogsError(status, code, message)) => error(status, code, &message),
    }
}

/// The group of `arn:aws:logs:<region>:<account>:log-group:<name>`, with or without `:*`.
fn group_of_arn(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(7, ':');
    let (prefix, service) = (parts.next()?, parts.nth(1)?);
    let (kind, name) = (parts.nth(2)?, parts.next()?);
    let name = name.strip_suffix(":*").unwrap_or(name);
    (prefix == "arn" && service == "logs" && kind == "log-group" && !name.is_empty()).then(|| name.to_owned())
}

async fn run(api: &Api, request: Request) -> Result<Value, LogsError> {
    let target = request.parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let operation = target.strip_prefix("Logs_20140328.").unwrap_or("").to_owned();
    let body = request.body.collect().await.map_err(|e| wrong("SerializationException", e.to_string()))?;
    let mut input: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|e| wrong("SerializationException", e.to_string()))?;
    // Newer callers name a group by its identifier: its name or its ARN.
    if let Some(Value::String(identifier)) = input.remove("logGroupIdentifier")
        && !input.contains_key("logGroupName")
    {
        let name = group_of_arn(&identifier).unwrap_or(identifier);
        input.insert("logGroupName".into(), name.into());
    }
    if let Some(group) = input.get("logGroupName").and_then(Value::as_str)
        && !request.caller.may_use_log_group(group)
    {
        let message = format!("an appliance may not use the log group {group}");
        return Err(wrong("AccessDeniedException", message));
    }
    let region = &request.region;
    match operation.as_str() {
        // A group's tags are its owner's.
        "CreateLogGroup" if request.caller.is_device() => {
            input.remove("tags");
            groups::create_group(api, checked(groups::CREATE_GROUP, input)?).await
        }
        "CreateLogGroup" => groups::create_group(api, checked(groups::CREATE_GROUP, input)?).await,
        "CreateLogStream" => groups::create_stream(api, checked(groups::STREAM_OF_GROUP, input)?).await,
        "PutLogEvents" => events::put(api, checked(events::PUT, events::without_zeros(input))?).await,
        // Appliances write logs; they have no business reading them.
        _ if request.caller.is_device() => {
            Err(wrong("AccessDeniedException", format!("an appliance may not call logs:{operation}")))
        }
        "GetLogEvents" => events::get(api, checked(events::GET, input)?).await,
        "FilterLogEvents" => filter::filter(api, checked(filter::FILTER, input)?).await,
        "DescribeLogGroups" => groups::describe_groups(api, region, checked(groups::DESCRIBE_GROUPS, input)?).await,
        "DescribeLogStreams" => groups::describe_streams(api, region, checked(groups::DESCRIBE_STREAMS, input)?).await,
        "DeleteLogGroup" => groups::delete_group(api, checked(groups::ONE_GROUP, input)?).await,
        "DeleteLogStream" => groups::delete_stream(api, checked(groups::STREAM_OF_GROUP, input)?).await,
        "PutRetentionPolicy" => groups::put_retention(api, checked(groups::RETENTION, input)?).await,
        "DeleteRetentionPolicy" => groups::delete_retention(api, checked(groups::ONE_GROUP, input)?).await,
        "ListTagsForResource" => groups::list_tags(api, checked(groups::LIST_TAGS, input)?).await,
        "TagResource" => groups::change_tags(api, checked(groups::TAG, input)?).await,
        "UntagResource" => groups::change_tags(api, checked(groups::UNTAG, input)?).await,
        "CreateExportTask" => exports::create(api, checked(exports::CREATE, input)?).await,
        "DescribeExportTasks" => exports::describe(api, checked(exports::DESCRIBE, input)?).await,
        "CancelExportTask" => exports::cancel(api, checked(exports::CANCEL, input)?).await,
        _ => Err(wrong("UnknownOperationException", format!("no operation {operation}"))),
    }
}

fn checked<T: serde::de::DeserializeOwned>(members: &[Member], mut input: Map<String, Value>) -> Result<T, LogsError> {
    input.retain(|_, value| !value.is_null());
    let faults: Vec<Fault> = check(members, &input);
    if let Some(first) = faults.first() {
        let message = format!(
            "1 validation error detected: Value at '{}' failed to satisfy constraint: {}",
            first.name, first.message
        );
        return Err(wrong("InvalidParameterException", message));
    }
    serde_json::from_value(Value::Object(input)).map_err(|e| wrong("InvalidParameterException", e.to_string()))
}

fn arn(api: &Api, region: &str, group: &str) -> String {
    format!("arn:aws:logs:{region}:{}:log-group:{group}", api.fleet.settings.account)
}

fn with_token(mut body: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        body["nextToken"] = next.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_its_arn() {
        for arn in ["arn:aws:logs:r:1:log-group:/aws/x", "arn:aws:logs:r:1:log-group:/aws/x:*"] {
            assert_eq!(group_of_arn(arn).as_deref(), Some("/aws/x"));
        }
        for bad in ["/aws/x", "arn:aws:logs:r:1:log-group:", "arn:aws:s3:r:1:log-group:x", "arn:aws:logs:r:1:x:y", ""] {
            assert_eq!(group_of_arn(bad), None, "{bad}");
        }
    }
}

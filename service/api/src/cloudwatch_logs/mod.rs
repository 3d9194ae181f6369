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

use crate::Api;
use crate::arn::{Arn, Home};
use crate::caller::Caller;
use crate::model::{Fault, Member, Shape, Text, check};
use crate::operation::{Ask, AskedDocument, DocumentOperation, text};
use crate::wire::json;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::{StoreError, identifiers};
use serde_json::{Map, Value};

static GROUP: Text = Text { min: 1, max: 512, pattern: Some(r"^[\.\-_/#A-Za-z0-9]+$") };
static STREAM: Text = Text { min: 1, max: 512, pattern: Some(r"^[^:*]*$") };
static TOKEN: Text = Text { min: 1, max: 2048, pattern: None };
const GROUP_NAME: Member = Member::required("logGroupName", Shape::Text(&GROUP));
const STREAM_NAME: Member = Member::required("logStreamName", Shape::Text(&STREAM));

/// An error in this service's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "__type": code, "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response()
}

/// A request that is not followed: status, code, message.
pub struct LogsError(StatusCode, &'static str, String);

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

fn about_all(_: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(home.all_log_groups())])
}
fn about_group(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(home.whole_log_group(text(input, "logGroupName")?)?)])
}
fn about_stream(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(home.log_stream(text(input, "logGroupName")?, text(input, "logStreamName")?)?)])
}
fn about_arn(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(home.whole_log_group(home.log_group_named(text(input, "resourceArn")?)?)?)])
}
/// Exports write into a bucket.
fn about_export(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    let prefix = exports::key_prefix(text(input, "destinationPrefix"));
    let objects = Arn::object(text(input, "destination")?, &format!("{prefix}/*"))?;
    let mut asks = about_group(input, home)?;
    asks.push(Ask::also("s3:PutObject", objects));
    Some(asks)
}

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[DocumentOperation] = &[
    DocumentOperation { name: "CreateLogGroup", takes: groups::CREATE_GROUP, asks: about_group },
    DocumentOperation { name: "CreateLogStream", takes: groups::STREAM_OF_GROUP, asks: about_stream },
    DocumentOperation { name: "PutLogEvents", takes: events::PUT, asks: about_stream },
    DocumentOperation { name: "GetLogEvents", takes: events::GET, asks: about_stream },
    DocumentOperation { name: "FilterLogEvents", takes: filter::FILTER, asks: about_group },
    DocumentOperation { name: "DescribeLogGroups", takes: groups::DESCRIBE_GROUPS, asks: about_all },
    DocumentOperation { name: "DescribeLogStreams", takes: groups::DESCRIBE_STREAMS, asks: about_group },
    DocumentOperation { name: "DeleteLogGroup", takes: groups::ONE_GROUP, asks: about_group },
    DocumentOperation { name: "DeleteLogStream", takes: groups::STREAM_OF_GROUP, asks: about_stream },
    DocumentOperation { name: "PutRetentionPolicy", takes: groups::RETENTION, asks: about_group },
    DocumentOperation { name: "DeleteRetentionPolicy", takes: groups::ONE_GROUP, asks: about_group },
    DocumentOperation { name: "ListTagsForResource", takes: groups::LIST_TAGS, asks: about_arn },
    DocumentOperation { name: "TagResource", takes: groups::TAG, asks: about_arn },
    DocumentOperation { name: "UntagResource", takes: groups::UNTAG, asks: about_arn },
    DocumentOperation { name: "CreateExportTask", takes: exports::CREATE, asks: about_export },
    DocumentOperation { name: "DescribeExportTasks", takes: exports::DESCRIBE, asks: about_all },
    DocumentOperation { name: "CancelExportTask", takes: exports::CANCEL, asks: about_all },
];

/// Reads a request, once.
pub fn read(parts: &Parts, body: &[u8], home: &Home<'_>) -> Result<AskedDocument, LogsError> {
    let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let name = target.strip_prefix("Logs_20140328.").unwrap_or("");
    let operation = DocumentOperation::of(OPERATIONS, name)
        .ok_or_else(|| wrong("UnknownOperationException", format!("no operation {name}")))?;
    let mut input = json::read(body).map_err(|e| wrong("SerializationException", e))?;
    // Newer callers name a group by its identifier: its name or its ARN.
    if let Some(Value::String(identifier)) = input.remove("logGroupIdentifier")
        && !input.contains_key("logGroupName")
    {
        let name = home.log_group_named(&identifier).unwrap_or(&identifier).to_owned();
        input.insert("logGroupName".into(), name.into());
    }
    Ok(operation.asked(input))
}

/// Answers a request.
pub async fn answer(api: &Api, caller: &Caller, asked: Result<AskedDocument, LogsError>) -> Response {
    match run(api, caller, asked).await {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
        }
        Err(LogsError(status, code, message)) => error(status, code, &message),
    }
}

async fn run(api: &Api, caller: &Caller, asked: Result<AskedDocument, LogsError>) -> Result<Value, LogsError> {
    let AskedDocument { operation, mut input } = asked?;
    if let Some(group) = text(&input, "logGroupName")
        && !caller.may_use_log_group(group)
    {
        let message = format!("an appliance may not use the log group {group}");
        return Err(wrong("AccessDeniedException", message));
    }
    match operation.name {
        // A group's tags are its owner's.
        "CreateLogGroup" if caller.is_device() => {
            input.remove("tags");
            groups::create_group(api, checked(groups::CREATE_GROUP, input)?).await
        }
        "CreateLogGroup" => groups::create_group(api, checked(groups::CREATE_GROUP, input)?).await,
        "CreateLogStream" => groups::create_stream(api, checked(groups::STREAM_OF_GROUP, input)?).await,
        "PutLogEvents" => events::put(api, checked(events::PUT, events::without_zeros(input))?).await,
        // Appliances write logs; they have no business reading them.
        name if caller.is_device() => Err(wrong("AccessDeniedException", format!("an appliance may not call logs:{name}"))),
        "GetLogEvents" => events::get(api, checked(events::GET, input)?).await,
        "FilterLogEvents" => filter::filter(api, checked(filter::FILTER, input)?).await,
        "DescribeLogGroups" => groups::describe_groups(api, checked(groups::DESCRIBE_GROUPS, input)?).await,
        "DescribeLogStreams" => groups::describe_streams(api, checked(groups::DESCRIBE_STREAMS, input)?).await,
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
        other => Err(wrong("UnknownOperationException", format!("no operation {other}"))),
    }
}

fn checked<T: serde::de::DeserializeOwned>(members: &[Member], input: Map<String, Value>) -> Result<T, LogsError> {
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

/// ARN of a group whose name was checked when it was made.
fn arn(api: &Api, group: &str) -> String {
    api.home().log_group(group).unwrap_or_else(Arn::any).into()
}

fn with_token(mut body: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        body["nextToken"] = next.into();
    }
    body
}

//! CloudWatch Logs: groups, streams, events (JSON 1.1).

use crate::Api;
use crate::entry::Request;
use crate::model::{Fault, Member, Shape, Text, check};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::logs::{Event, From as Part, NewEvent, Position};
use belvedere_store::{StoreError, identifiers};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most bytes of messages in one call, as CloudWatch counts them.
const MAX_BATCH: usize = 1_048_576;
const OVERHEAD: usize = 26;

static GROUP: Text = Text { min: 1, max: 512, pattern: Some(r"^[\.\-_/#A-Za-z0-9]+$") };
static STREAM: Text = Text { min: 1, max: 512, pattern: Some(r"^[^:*]*$") };
static TOKEN: Text = Text { min: 1, max: 2048, pattern: None };
static MESSAGE: Text = Text { min: 1, max: 262_144, pattern: None };
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
        Ok(body) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response(),
        Err(LogsError(status, code, message)) => error(status, code, &message),
    }
}

async fn run(api: &Api, request: Request) -> Result<Value, LogsError> {
    let target = request.parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let operation = target.strip_prefix("Logs_20140328.").unwrap_or("").to_owned();
    let body = request.body.collect().await.map_err(|e| wrong("SerializationException", e.to_string()))?;
    let input: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|e| wrong("SerializationException", e.to_string()))?;
    if let Some(group) = input.get("logGroupName").and_then(Value::as_str)
        && !request.caller.may_use_log_group(group)
    {
        let message = format!("an appliance may not use the log group {group}");
        return Err(wrong("AccessDeniedException", message));
    }
    match operation.as_str() {
        "CreateLogGroup" => create_group(api, checked(&[GROUP_NAME], input)?).await,
        "CreateLogStream" => create_stream(api, checked(&[GROUP_NAME, STREAM_NAME], input)?).await,
        "PutLogEvents" => put(api, checked(PUT, input)?).await,
        // Appliances write logs; they have no business reading them.
        _ if request.caller.is_device() => {
            Err(wrong("AccessDeniedException", format!("an appliance may not call logs:{operation}")))
        }
        "GetLogEvents" => get(api, checked(GET, input)?).await,
        "DescribeLogGroups" => describe_groups(api, &request.region, checked(DESCRIBE_GROUPS, input)?).await,
        "DescribeLogStreams" => describe_streams(api, &request.region, checked(DESCRIBE_STREAMS, input)?).await,
        _ => Err(wrong("UnknownOperationException", format!("no operation {target}", target = operation))),
    }
}

fn checked<T: serde::de::DeserializeOwned>(members: &[Member], input: Map<String, Value>) -> Result<T, LogsError> {
    let faults: Vec<Fault> = check(members, &input);
    if let Some(first) = faults.first() {
        let message = format!("1 validation error detected: Value at '{}' failed to satisfy constraint: {}", first.name, first.message);
        return Err(wrong("InvalidParameterException", message));
    }
    serde_json::from_value(Value::Object(input)).map_err(|e| wrong("InvalidParameterException", e.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    log_group_name: String,
}

async fn create_group(api: &Api, input: Group) -> Result<Value, LogsError> {
    api.fleet.store.create_log_group(&input.log_group_name).await?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    log_group_name: String,
    log_stream_name: String,
}

async fn create_stream(api: &Api, input: Stream) -> Result<Value, LogsError> {
    match api.fleet.store.create_log_stream(&input.log_group_name, &input.log_stream_name).await? {
        true => Ok(json!({})),
        false => Err(missing("log group")),
    }
}

static PUT: &[Member] = &[
    GROUP_NAME,
    STREAM_NAME,
    Member::required(
        "logEvents",
        Shape::List(
            &Shape::Structure(&[
                Member::required("timestamp", Shape::Integer(0, i64::MAX)),
                Member::required("message", Shape::Text(&MESSAGE)),
            ]),
            1,
            10_000,
        ),
    ),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Put {
    log_group_name: String,
    log_stream_name: String,
    log_events: Vec<InputEvent>,
}

#[derive(Deserialize)]
struct InputEvent {
    timestamp: i64,
    message: String,
}

/// Events of any age are taken: an appliance that was without a network for weeks has them still.
async fn put(api: &Api, input: Put) -> Result<Value, LogsError> {
    let bytes: usize = input.log_events.iter().map(|e| e.message.len() + OVERHEAD).sum();
    if bytes > MAX_BATCH {
        return Err(wrong("InvalidParameterException", format!("Upload too large: {bytes} bytes exceeds limit of {MAX_BATCH}")));
    }
    let stream = stream(api, &input.log_group_name, &input.log_stream_name).await?;
    let events: Vec<NewEvent> =
        input.log_events.into_iter().map(|e| NewEvent { timestamp_ms: e.timestamp, message: e.message }).collect();
    api.fleet.store.put_log_events(stream, &events).await?;
    Ok(json!({ "nextSequenceToken": identifiers::token::<28>() }))
}

async fn stream(api: &Api, group: &str, name: &str) -> Result<i64, LogsError> {
    match api.fleet.store.log_stream(group, name).await? {
        Some(stream) => Ok(stream),
        None if api.fleet.store.list_log_streams(group, name).await?.is_none() => Err(missing("log group")),
        None => Err(missing("log stream")),
    }
}

static GET: &[Member] = &[
    GROUP_NAME,
    STREAM_NAME,
    Member::optional("startTime", Shape::Integer(0, i64::MAX)),
    Member::optional("endTime", Shape::Integer(0, i64::MAX)),
    Member::optional("limit", Shape::Integer(1, 10_000)),
    Member::optional("startFromHead", Shape::Boolean),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    log_group_name: String,
    log_stream_name: String,
    start_time: Option<i64>,
    end_time: Option<i64>,
    limit: Option<usize>,
    start_from_head: Option<bool>,
    next_token: Option<String>,
}

/// `f/…` goes on, `b/…` goes back; the rest is a position.
fn token(direction: char, at: Position) -> String {
    format!("{direction}/{:020}/{:020}", at.timestamp_ms, at.sequence)
}

fn parse_token(text: &str) -> Option<Part> {
    let mut fields = text.split('/');
    let (direction, time, sequence) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let at = Position { timestamp_ms: time, sequence };
    match (direction, fields.next()) {
        ("f", None) => Some(Part::After(at)),
        ("b", None) => Some(Part::Before(at)),
        _ => None,
    }
}

async fn get(api: &Api, input: Get) -> Result<Value, LogsError> {
    let stream = stream(api, &input.log_group_name, &input.log_stream_name).await?;
    let from = match &input.next_token {
        Some(text) => parse_token(text).ok_or_else(|| wrong("InvalidParameterException", "The specified nextToken is invalid."))?,
        None if input.start_from_head == Some(true) => Part::Head,
        None => Part::Tail,
    };
    let (start, end) = (input.start_time.unwrap_or(0), input.end_time.unwrap_or(i64::MAX));
    let events = api.fleet.store.log_events(stream, from, start, end, input.limit.unwrap_or(10_000)).await?;
    // At either end of a stream the token stays the same: that is how callers know the end.
    let here = match from {
        Part::After(at) | Part::Before(at) => at,
        Part::Head | Part::Tail => Position { timestamp_ms: 0, sequence: 0 },
    };
    let forward = events.last().map_or(here, |e| e.position);
    let backward = events.first().map_or(here, |e| e.position);
    Ok(json!({
        "events": events.iter().map(shown).collect::<Vec<_>>(),
        "nextForwardToken": token('f', forward),
        "nextBackwardToken": token('b', backward),
    }))
}

fn shown(event: &Event) -> Value {
    json!({ "timestamp": event.position.timestamp_ms, "message": event.message, "ingestionTime": event.ingestion_ms })
}

static DESCRIBE_GROUPS: &[Member] = &[
    Member::optional("logGroupNamePrefix", Shape::Text(&GROUP)),
    Member::optional("limit", Shape::Integer(1, 50)),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeGroups {
    log_group_name_prefix: Option<String>,
    limit: Option<usize>,
    next_token: Option<String>,
}

/// A page of names in order; the token is the last name.
fn page<T>(items: Vec<T>, name: impl Fn(&T) -> &str, limit: Option<usize>, token: Option<String>) -> (Vec<T>, Option<String>) {
    let after = token.unwrap_or_default();
    let mut rest: Vec<T> = items.into_iter().filter(|i| name(i) > after.as_str()).collect();
    let limit = limit.unwrap_or(50);
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = if more { rest.last().map(|i| name(i).to_owned()) } else { None };
    (rest, next)
}

fn arn(api: &Api, region: &str, group: &str) -> String {
    format!("arn:aws:logs:{region}:{}:log-group:{group}", api.fleet.settings.account)
}

async fn describe_groups(api: &Api, region: &str, input: DescribeGroups) -> Result<Value, LogsError> {
    let groups = api.fleet.store.list_log_groups(input.log_group_name_prefix.as_deref().unwrap_or("")).await?;
    let (groups, next) = page(groups, |g| &g.name, input.limit, input.next_token);
    let groups: Vec<Value> = groups
        .iter()
        .map(|g| json!({ "logGroupName": g.name, "creationTime": g.created_ms, "arn": format!("{}:*", arn(api, region, &g.name)), "storedBytes": 0 }))
        .collect();
    Ok(with_token(json!({ "logGroups": groups }), next))
}

static DESCRIBE_STREAMS: &[Member] = &[
    GROUP_NAME,
    Member::optional("logStreamNamePrefix", Shape::Text(&STREAM)),
    Member::optional("orderBy", Shape::Word(&["LogStreamName", "LastEventTime"])),
    Member::optional("descending", Shape::Boolean),
    Member::optional("limit", Shape::Integer(1, 50)),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeStreams {
    log_group_name: String,
    log_stream_name_prefix: Option<String>,
    order_by: Option<String>,
    descending: Option<bool>,
    limit: Option<usize>,
    next_token: Option<String>,
}

async fn describe_streams(api: &Api, region: &str, input: DescribeStreams) -> Result<Value, LogsError> {
    let group = &input.log_group_name;
    let found = api.fleet.store.list_log_streams(group, input.log_stream_name_prefix.as_deref().unwrap_or("")).await?;
    let (mut streams, next) = page(found.ok_or_else(|| missing("log group"))?, |s| &s.name, input.limit, input.next_token);
    if input.order_by.as_deref() == Some("LastEventTime") {
        streams.sort_by_key(|s| s.last_event_ms);
    }
    if input.descending == Some(true) {
        streams.reverse();
    }
    let streams: Vec<Value> = streams
        .iter()
        .map(|s| {
            let mut shown = json!({
                "logStreamName": s.name,
                "creationTime": s.created_ms,
                "arn": format!("{}:log-stream:{}", arn(api, region, group), s.name),
                "storedBytes": 0,
            });
            let times = [
                ("firstEventTimestamp", s.first_event_ms),
                ("lastEventTimestamp", s.last_event_ms),
                ("lastIngestionTime", s.last_ingestion_ms),
            ];
            for (name, time) in times {
                if let Some(time) = time {
                    shown[name] = time.into();
                }
            }
            shown
        })
        .collect();
    Ok(with_token(json!({ "logStreams": streams }), next))
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
    fn tokens_come_back_as_they_went() {
        let at = Position { timestamp_ms: 1_795_314_913_123, sequence: 42 };
        assert_eq!(parse_token(&token('f', at)), Some(Part::After(at)));
        assert_eq!(parse_token(&token('b', at)), Some(Part::Before(at)));
        for bad in ["", "f", "f/1", "x/1/2", "f/1/2/3", "f/a/2"] {
            assert_eq!(parse_token(bad), None, "{bad}");
        }
    }
}

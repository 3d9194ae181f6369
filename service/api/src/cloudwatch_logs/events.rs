//! Events of one stream: put, and read from either end.

use super::{GROUP_NAME, LogsError, STREAM_NAME, TOKEN, missing, wrong};
use crate::Api;
use crate::model::{Member, Shape, Text};
use belvedere_store::identifiers;
use belvedere_store::logs::{Event, From as Part, NewEvent, OVERHEAD, Position};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most bytes of messages in one call, as CloudWatch counts them.
const MAX_BATCH: usize = 1_048_576;

static MESSAGE: Text = Text { min: 1, max: 262_144, pattern: None };

pub(super) static PUT: &[Member] = &[
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
pub(super) struct Put {
    log_group_name: String,
    log_stream_name: String,
    log_events: Vec<InputEvent>,
}

#[derive(Deserialize)]
struct InputEvent {
    timestamp: i64,
    message: String,
}

/// What an application wrote is kept as far as it can be: a zero becomes the sign for what cannot be shown.
pub(super) fn without_zeros(mut input: Map<String, Value>) -> Map<String, Value> {
    for event in input.get_mut("logEvents").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::String(message)) =
            event.get_mut("message").filter(|m| m.as_str().is_some_and(|m| m.contains('\0')))
        {
            *message = message.replace('\0', "\u{fffd}");
        }
    }
    input
}

/// Events of any age are taken: an appliance that was without a network for weeks has them still.
pub(super) async fn put(api: &Api, input: Put) -> Result<Value, LogsError> {
    let bytes: usize = input.log_events.iter().map(|e| e.message.len() + OVERHEAD).sum();
    if bytes > MAX_BATCH {
        return Err(wrong(
            "InvalidParameterException",
            format!("Upload too large: {bytes} bytes exceeds limit of {MAX_BATCH}"),
        ));
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
        None if api.fleet.store.log_group_tags(group).await?.is_none() => Err(missing("log group")),
        None => Err(missing("log stream")),
    }
}

pub(super) static GET: &[Member] = &[
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
pub(super) struct Get {
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

pub(super) async fn get(api: &Api, input: Get) -> Result<Value, LogsError> {
    let stream = stream(api, &input.log_group_name, &input.log_stream_name).await?;
    let from = match &input.next_token {
        Some(text) => {
            parse_token(text).ok_or_else(|| wrong("InvalidParameterException", "The specified nextToken is invalid."))?
        }
        None if input.start_from_head == Some(true) => Part::Head,
        None => Part::Tail,
    };
    let (start, end) = (input.start_time.unwrap_or(0), input.end_time.unwrap_or(i64::MAX));
    let events = api.fleet.store.log_events(stream, from, start, end, input.limit.unwrap_or(10_000)).await?;
    let (forward, backward) = ends(from, &events);
    Ok(json!({
        "events": events.iter().map(shown).collect::<Vec<_>>(),
        "nextForwardToken": token('f', forward),
        "nextBackwardToken": token('b', backward),
    }))
}

/// Where reading goes on, and back. At either end of a stream the token stays the same: that is how callers know it.
fn ends(from: Part, events: &[Event]) -> (Position, Position) {
    let here = match from {
        Part::After(at) | Part::Before(at) => at,
        Part::Head | Part::Tail => Position { timestamp_ms: 0, sequence: 0 },
    };
    (events.last().map_or(here, |e| e.position), events.first().map_or(here, |e| e.position))
}

fn shown(event: &Event) -> Value {
    json!({ "timestamp": event.position.timestamp_ms, "message": event.message, "ingestionTime": event.ingestion_ms })
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

    #[test]
    fn at_an_end_the_token_stays() {
        let at = Position { timestamp_ms: 5, sequence: 7 };
        assert_eq!(ends(Part::After(at), &[]), (at, at));
        assert_eq!(ends(Part::Before(at), &[]), (at, at));
    }
}

//! `FilterLogEvents`: events of several streams of a group, in the order of their times, that fit a pattern.

use super::pattern::Pattern;
use super::{GROUP_NAME, LogsError, STREAM, TOKEN, missing, with_token, wrong};
use crate::Api;
use crate::model::{Member, Shape, Text};
use belvedere_store::logs::{Event, OVERHEAD, Position};
use serde::Deserialize;
use serde_json::{Value, json};

/// Events that one answer is looked for among; what follows is on the next page.
const MAX_SCANNED: usize = 50_000;
/// Bytes of messages of one answer.
const MAX_BYTES: usize = 1_048_576;
/// Streams of a group that are searched.
const MAX_STREAMS: usize = 1000;

static PATTERN: Text = Text { min: 0, max: 1024, pattern: None };

pub(super) static FILTER: &[Member] = &[
    GROUP_NAME,
    Member::optional("logStreamNames", Shape::List(&Shape::Text(&STREAM), 1, 100)),
    Member::optional("logStreamNamePrefix", Shape::Text(&STREAM)),
    Member::optional("startTime", Shape::Integer(0, i64::MAX)),
    Member::optional("endTime", Shape::Integer(0, i64::MAX)),
    Member::optional("filterPattern", Shape::Text(&PATTERN)),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
    Member::optional("limit", Shape::Integer(1, 10_000)),
    Member::optional("interleaved", Shape::Boolean),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    log_group_name: String,
    log_stream_names: Option<Vec<String>>,
    log_stream_name_prefix: Option<String>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    filter_pattern: Option<String>,
    next_token: Option<String>,
    limit: Option<usize>,
}

fn token(at: Position) -> String {
    format!("{:020}/{:020}", at.timestamp_ms, at.sequence)
}

fn parse_token(text: &str) -> Option<Position> {
    let (time, sequence) = text.split_once('/')?;
    Some(Position { timestamp_ms: time.parse().ok()?, sequence: sequence.parse().ok()? })
}

/// Unique and in the order of events: callers that poll tell by it which they have seen.
fn event_id(at: Position) -> String {
    format!("{:020}{:036}", at.timestamp_ms, at.sequence)
}

fn shown(stream: &str, event: &Event) -> Value {
    json!({
        "logStreamName": stream,
        "timestamp": event.position.timestamp_ms,
        "message": event.message,
        "ingestionTime": event.ingestion_ms,
        "eventId": event_id(event.position),
    })
}

pub(super) async fn filter(api: &Api, input: Filter) -> Result<Value, LogsError> {
    let invalid = |message: String| wrong("InvalidParameterException", message);
    if input.log_stream_names.is_some() && input.log_stream_name_prefix.is_some() {
        return Err(invalid("logStreamNames and logStreamNamePrefix cannot be used together.".into()));
    }
    let pattern = Pattern::parse(input.filter_pattern.as_deref().unwrap_or(""))
        .map_err(|e| invalid(format!("Invalid filter pattern: {e}")))?;
    let mut after = match &input.next_token {
        None => Position { timestamp_ms: i64::MIN, sequence: 0 },
        Some(text) => parse_token(text).ok_or_else(|| invalid("The specified nextToken is invalid.".into()))?,
    };
    let (store, group) = (&api.fleet.store, &input.log_group_name);
    let streams = store.list_log_streams(group, input.log_stream_name_prefix.as_deref().unwrap_or("")).await?;
    let mut names: Vec<String> = streams.ok_or_else(|| missing("log group"))?.into_iter().map(|s| s.name).collect();
    if let Some(wanted) = &input.log_stream_names {
        if wanted.iter().any(|name| !names.contains(name)) {
            return Err(missing("log stream"));
        }
        names.retain(|name| wanted.contains(name));
    }
    if names.len() > MAX_STREAMS {
        return Err(invalid(format!("more than {MAX_STREAMS} streams: name some, or a prefix")));
    }
    let mut numbers = Vec::with_capacity(names.len());
    for name in &names {
        // One that was deleted this moment has no events.
        numbers.push(store.log_stream(group, name).await?.unwrap_or(-1));
    }
    let (start, end) = (input.start_time.unwrap_or(0), input.end_time.map_or(i64::MAX, |e| e.saturating_add(1)));
    let limit = input.limit.unwrap_or(10_000);
    let (mut found, mut scanned, mut bytes) = (Vec::new(), 0, 0);
    let next = 'all: loop {
        let scan = store.scan_log_events(&numbers, after, start, end).await?;
        for (index, event) in &scan.events {
            if !pattern.matches(&event.message) {
                after = event.position;
                continue;
            }
            let size = event.message.len() + OVERHEAD;
            if found.len() == limit || (bytes + size > MAX_BYTES && !found.is_empty()) {
                break 'all Some(after);
            }
            bytes += size;
            found.push(shown(&names[*index], event));
            after = event.position;
        }
        scanned += scan.events.len();
        match scan.more_after {
            None => break None,
            Some(position) if scanned >= MAX_SCANNED => break Some(position),
            Some(position) => after = position,
        }
    };
    let complete = next.is_none();
    let searched: Vec<Value> = names.iter().map(|n| json!({ "logStreamName": n, "searchedCompletely": complete })).collect();
    Ok(with_token(json!({ "events": found, "searchedLogStreams": searched }), next.map(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_and_identifiers_are_in_order() {
        let at = Position { timestamp_ms: 1_795_314_913_123, sequence: 42 };
        assert_eq!(parse_token(&token(at)), Some(at));
        for bad in ["", "/", "1", "1/", "a/1", "1/2/3"] {
            assert_eq!(parse_token(bad), None, "{bad}");
        }
        let later = Position { timestamp_ms: at.timestamp_ms, sequence: 43 };
        assert!(event_id(at) < event_id(later) && event_id(at).len() == 56);
    }
}

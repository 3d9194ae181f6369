//! Groups and streams: created, described, kept for so many days, tagged, deleted.

use super::{GROUP, GROUP_NAME, LogsError, STREAM, STREAM_NAME, TOKEN, arn, missing, with_token, wrong};
use crate::Api;
use crate::model::{Member, Shape, Text};
use belvedere_store::devices::Tags;
use belvedere_store::logs::LogStream;
use serde::Deserialize;
use serde_json::{Value, json};

/// Days that a retention may have, as CloudWatch has them.
const RETENTIONS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
/// Most tags of a group.
const MAX_TAGS: usize = 50;

static TAG_KEY: Text = Text { min: 1, max: 128, pattern: None };
static TAG_VALUE: Text = Text { min: 0, max: 256, pattern: None };
static RESOURCE: Text = Text { min: 1, max: 1011, pattern: None };
const TAGS: Shape = Shape::Map(&Shape::Text(&TAG_KEY), &Shape::Text(&TAG_VALUE), MAX_TAGS);

pub(super) static CREATE_GROUP: &[Member] = &[GROUP_NAME, Member::optional("tags", TAGS)];
pub(super) static STREAM_OF_GROUP: &[Member] = &[GROUP_NAME, STREAM_NAME];
pub(super) static ONE_GROUP: &[Member] = &[GROUP_NAME];

/// A group to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewGroup {
    log_group_name: String,
    tags: Option<Tags>,
}

pub(super) async fn create_group(api: &Api, input: NewGroup) -> Result<Value, LogsError> {
    api.fleet.store.create_log_group(&input.log_group_name).await?;
    if let Some(tags) = input.tags {
        api.fleet.store.set_log_group_tags(&input.log_group_name, &tags).await?;
    }
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    log_group_name: String,
}

fn found(there: bool, what: &str) -> Result<Value, LogsError> {
    if there { Ok(json!({})) } else { Err(missing(what)) }
}

pub(super) async fn delete_group(api: &Api, input: Group) -> Result<Value, LogsError> {
    found(api.fleet.store.delete_log_group(&input.log_group_name).await?, "log group")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stream {
    log_group_name: String,
    log_stream_name: String,
}

pub(super) async fn create_stream(api: &Api, input: Stream) -> Result<Value, LogsError> {
    found(api.fleet.store.create_log_stream(&input.log_group_name, &input.log_stream_name).await?, "log group")
}

pub(super) async fn delete_stream(api: &Api, input: Stream) -> Result<Value, LogsError> {
    let deleted = api.fleet.store.delete_log_stream(&input.log_group_name, &input.log_stream_name).await?;
    let group = api.fleet.store.log_group_tags(&input.log_group_name).await?;
    found(deleted, if group.is_some() { "log stream" } else { "log group" })
}

pub(super) static RETENTION: &[Member] = &[GROUP_NAME, Member::required("retentionInDays", Shape::Integer(1, 3653))];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retention {
    log_group_name: String,
    retention_in_days: i64,
}

pub(super) async fn put_retention(api: &Api, input: Retention) -> Result<Value, LogsError> {
    if !RETENTIONS.contains(&input.retention_in_days) {
        let message = format!("retentionInDays must be one of {RETENTIONS:?}");
        return Err(wrong("InvalidParameterException", message));
    }
    found(api.fleet.store.set_log_retention(&input.log_group_name, Some(input.retention_in_days)).await?, "log group")
}

pub(super) async fn delete_retention(api: &Api, input: Group) -> Result<Value, LogsError> {
    found(api.fleet.store.set_log_retention(&input.log_group_name, None).await?, "log group")
}

pub(super) static DESCRIBE_GROUPS: &[Member] = &[
    Member::optional("logGroupNamePrefix", Shape::Text(&GROUP)),
    Member::optional("logGroupNamePattern", Shape::Text(&STREAM)),
    Member::optional("limit", Shape::Integer(1, 50)),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeGroups {
    log_group_name_prefix: Option<String>,
    log_group_name_pattern: Option<String>,
    limit: Option<usize>,
    next_token: Option<String>,
}

/// A page of items that are in order of their keys; the token is the last one's.
fn page<T>(
    items: Vec<T>,
    key: impl Fn(&T) -> String,
    past: impl Fn(&str) -> bool,
    limit: Option<usize>,
) -> (Vec<T>, Option<String>) {
    let mut rest: Vec<T> = items.into_iter().filter(|i| past(&key(i))).collect();
    let limit = limit.unwrap_or(50);
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().filter(|_| more).map(key);
    (rest, next)
}

pub(super) async fn describe_groups(api: &Api, input: DescribeGroups) -> Result<Value, LogsError> {
    let mut groups = api.fleet.store.list_log_groups(input.log_group_name_prefix.as_deref().unwrap_or("")).await?;
    if let Some(part) = &input.log_group_name_pattern {
        groups.retain(|g| g.name.to_lowercase().contains(&part.to_lowercase()));
    }
    let after = input.next_token.unwrap_or_default();
    let (groups, next) = page(groups, |g| g.name.clone(), |name| name > after.as_str(), input.limit);
    let shown = |g: &belvedere_store::logs::LogGroup| {
        let arn = arn(api, &g.name);
        let mut group = json!({
            "logGroupName": g.name, "creationTime": g.created_ms, "arn": format!("{arn}:*"), "logGroupArn": arn,
            "storedBytes": g.stored_bytes, "metricFilterCount": 0, "logGroupClass": "STANDARD",
        });
        if let Some(days) = g.retention_days {
            group["retentionInDays"] = days.into();
        }
        group
    };
    let groups: Vec<Value> = groups.iter().map(shown).collect();
    Ok(with_token(json!({ "logGroups": groups }), next))
}

pub(super) static DESCRIBE_STREAMS: &[Member] = &[
    GROUP_NAME,
    Member::optional("logStreamNamePrefix", Shape::Text(&STREAM)),
    Member::optional("orderBy", Shape::Word(&["LogStreamName", "LastEventTime"])),
    Member::optional("descending", Shape::Boolean),
    Member::optional("limit", Shape::Integer(1, 50)),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeStreams {
    log_group_name: String,
    log_stream_name_prefix: Option<String>,
    order_by: Option<String>,
    descending: Option<bool>,
    limit: Option<usize>,
    next_token: Option<String>,
}

pub(super) async fn describe_streams(api: &Api, input: DescribeStreams) -> Result<Value, LogsError> {
    let group = &input.log_group_name;
    let by_time = input.order_by.as_deref() == Some("LastEventTime");
    if by_time && input.log_stream_name_prefix.is_some() {
        return Err(wrong("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let found = api.fleet.store.list_log_streams(group, input.log_stream_name_prefix.as_deref().unwrap_or("")).await?;
    let mut streams = found.ok_or_else(|| missing("log group"))?;
    // The whole list is put in order before it is cut into pages; equal times are in the order of their names.
    let key = |s: &LogStream| match by_time {
        true => format!("{:020}/{}", s.last_event_ms.unwrap_or(0), s.name),
        false => s.name.clone(),
    };
    let descending = input.descending == Some(true);
    streams.sort_by_key(key);
    if descending {
        streams.reverse();
    }
    let token = input.next_token;
    let past = |key: &str| token.as_deref().is_none_or(|last| if descending { key < last } else { key > last });
    let (streams, next) = page(streams, key, past, input.limit);
    let shown = |s: &LogStream| {
        let mut stream = json!({
            "logStreamName": s.name,
            "creationTime": s.created_ms,
            "arn": format!("{}:log-stream:{}", arn(api, group), s.name),
            "storedBytes": s.stored_bytes,
        });
        let times = [
            ("firstEventTimestamp", s.first_event_ms),
            ("lastEventTimestamp", s.last_event_ms),
            ("lastIngestionTime", s.last_ingestion_ms),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                stream[name] = time.into();
            }
        }
        stream
    };
    let streams: Vec<Value> = streams.iter().map(shown).collect();
    Ok(with_token(json!({ "logStreams": streams }), next))
}

const RESOURCE_ARN: Member = Member::required("resourceArn", Shape::Text(&RESOURCE));
pub(super) static LIST_TAGS: &[Member] = &[RESOURCE_ARN];
pub(super) static TAG: &[Member] = &[RESOURCE_ARN, Member::required("tags", TAGS)];
pub(super) static UNTAG: &[Member] =
    &[RESOURCE_ARN, Member::required("tagKeys", Shape::List(&Shape::Text(&TAG_KEY), 0, MAX_TAGS))];

/// What is asked about tags.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tagging {
    resource_arn: String,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    tag_keys: Vec<String>,
}

async fn tagged(api: &Api, input: &Tagging) -> Result<(String, Tags), LogsError> {
    let group = api
        .home()
        .log_group_named(&input.resource_arn)
        .map(str::to_owned)
        .ok_or_else(|| wrong("InvalidParameterException", "resourceArn is not that of a log group"))?;
    let tags = api.fleet.store.log_group_tags(&group).await?.ok_or_else(|| missing("log group"))?;
    Ok((group, tags))
}

pub(super) async fn list_tags(api: &Api, input: Tagging) -> Result<Value, LogsError> {
    Ok(json!({ "tags": tagged(api, &input).await?.1 }))
}

/// Adds tags and takes others away.
pub(super) async fn change_tags(api: &Api, input: Tagging) -> Result<Value, LogsError> {
    let (group, mut tags) = tagged(api, &input).await?;
    tags.retain(|key, _| !input.tag_keys.contains(key));
    tags.extend(input.tags);
    if tags.len() > MAX_TAGS {
        return Err(wrong("TooManyTagsException", format!("a log group has at most {MAX_TAGS} tags")));
    }
    found(api.fleet.store.set_log_group_tags(&group, &tags).await?, "log group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_list_once_in_either_direction() {
        for descending in [false, true] {
            let mut items: Vec<String> = (0..7).map(|n| n.to_string()).collect();
            if descending {
                items.reverse();
            }
            let (mut seen, mut token): (Vec<String>, Option<String>) = (Vec::new(), None);
            loop {
                let past = |key: &str| token.as_deref().is_none_or(|last| if descending { key < last } else { key > last });
                let (part, next) = page(items.clone(), Clone::clone, past, Some(3));
                seen.extend(part);
                token = next;
                if token.is_none() {
                    break;
                }
            }
            assert_eq!(seen, items);
        }
    }
}

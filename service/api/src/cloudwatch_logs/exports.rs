//! Export tasks, as `export_logs` uses them. They are carried out by `belvedere_watch::export`.

use super::{GROUP_NAME, LogsError, STREAM, TOKEN, missing, with_token, wrong};
use crate::Api;
use crate::model::{Member, Shape, Text};
use crate::s3::operation::acceptable;
use belvedere_store::log_exports::{Export, MAX_WAITING, NewExport};
use serde::Deserialize;
use serde_json::{Value, json};

/// What keys begin with when nobody says, as CloudWatch has it.
const PREFIX: &str = "exportedlogs";

static NAME: Text = Text { min: 1, max: 512, pattern: None };
static BUCKET: Text = Text { min: 1, max: 512, pattern: None };
static KEY: Text = Text { min: 0, max: 512, pattern: Some(r"^[A-Za-z0-9!_.*'()/=@ -]*$") };
static TASK: Text = Text { min: 1, max: 512, pattern: None };

pub(super) static CREATE: &[Member] = &[
    Member::optional("taskName", Shape::Text(&NAME)),
    GROUP_NAME,
    Member::optional("logStreamNamePrefix", Shape::Text(&STREAM)),
    Member::required("from", Shape::Integer(0, i64::MAX)),
    Member::required("to", Shape::Integer(0, i64::MAX)),
    Member::required("destination", Shape::Text(&BUCKET)),
    Member::optional("destinationPrefix", Shape::Text(&KEY)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    task_name: Option<String>,
    log_group_name: String,
    log_stream_name_prefix: Option<String>,
    from: i64,
    to: i64,
    destination: String,
    destination_prefix: Option<String>,
}

/// What the keys of an export begin with. Who may write there is asked with these same words.
pub fn key_prefix(given: Option<&str>) -> &str {
    let prefix = given.unwrap_or("").trim_matches('/');
    if prefix.is_empty() { PREFIX } else { prefix }
}

pub(super) async fn create(api: &Api, input: Create) -> Result<Value, LogsError> {
    if input.from > input.to {
        return Err(wrong("InvalidParameterException", "from must not be later than to"));
    }
    if input.destination != api.fleet.settings.bucket {
        let message = format!("The given bucket does not exist. This service's is {}.", api.fleet.settings.bucket);
        return Err(wrong("InvalidParameterException", message));
    }
    if !acceptable(key_prefix(input.destination_prefix.as_deref())) {
        // Nobody could read or delete what lies there.
        let message = "destinationPrefix has a part \".\" or \"..\": no key of this service has one";
        return Err(wrong("InvalidParameterException", message));
    }
    if api.fleet.store.log_group_tags(&input.log_group_name).await?.is_none() {
        return Err(missing("log group"));
    }
    let new = NewExport {
        name: input.task_name.as_deref(),
        group: &input.log_group_name,
        stream_prefix: input.log_stream_name_prefix.as_deref().unwrap_or(""),
        from_ms: input.from,
        to_ms: input.to,
        bucket: &input.destination,
        prefix: key_prefix(input.destination_prefix.as_deref()),
    };
    match api.fleet.store.create_log_export(new).await? {
        Some(id) => Ok(json!({ "taskId": id })),
        None => Err(wrong("LimitExceededException", format!("{MAX_WAITING} export tasks wait already"))),
    }
}

pub(super) static DESCRIBE: &[Member] = &[
    Member::optional("taskId", Shape::Text(&TASK)),
    Member::optional(
        "statusCode",
        Shape::Word(&["CANCELLED", "COMPLETED", "FAILED", "PENDING", "PENDING_CANCEL", "RUNNING"]),
    ),
    Member::optional("nextToken", Shape::Text(&TOKEN)),
    Member::optional("limit", Shape::Integer(1, 50)),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Describe {
    task_id: Option<String>,
    status_code: Option<String>,
    next_token: Option<String>,
    limit: Option<usize>,
}

fn shown(export: &Export) -> Value {
    let mut execution = json!({ "creationTime": export.created_ms });
    if let Some(time) = export.completed_ms {
        execution["completionTime"] = time.into();
    }
    let mut task = json!({
        "taskId": export.task_id, "logGroupName": export.group, "from": export.from_ms, "to": export.to_ms,
        "destination": export.bucket, "destinationPrefix": export.prefix,
        "status": { "code": export.status, "message": export.message }, "executionInfo": execution,
    });
    if let Some(name) = &export.name {
        task["taskName"] = name.as_str().into();
    }
    task
}

/// Newest first.
pub(super) async fn describe(api: &Api, input: Describe) -> Result<Value, LogsError> {
    let mut exports = api.fleet.store.list_log_exports().await?;
    exports.retain(|e| {
        input.task_id.as_ref().is_none_or(|id| e.task_id == *id)
            && input.status_code.as_ref().is_none_or(|code| e.status == *code)
    });
    if input.task_id.is_some() && exports.is_empty() && input.status_code.is_none() {
        return Err(missing("export task"));
    }
    let start = match &input.next_token {
        None => 0,
        Some(last) => exports.iter().position(|e| e.task_id == *last).map_or(exports.len(), |n| n + 1),
    };
    let limit = input.limit.unwrap_or(50);
    let next = (exports.len() > start + limit).then(|| exports[start + limit - 1].task_id.clone());
    let page: Vec<Value> = exports.iter().skip(start).take(limit).map(shown).collect();
    Ok(with_token(json!({ "exportTasks": page }), next))
}

pub(super) static CANCEL: &[Member] = &[Member::required("taskId", Shape::Text(&TASK))];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cancel {
    task_id: String,
}

pub(super) async fn cancel(api: &Api, input: Cancel) -> Result<Value, LogsError> {
    if api.fleet.store.cancel_log_export(&input.task_id).await? {
        return Ok(json!({}));
    }
    match api.fleet.store.list_log_exports().await?.iter().any(|e| e.task_id == input.task_id) {
        true => Err(wrong("InvalidOperationException", "The export task has begun or ended already.")),
        false => Err(missing("export task")),
    }
}

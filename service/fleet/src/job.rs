//! What a device's update does to a job. Pure.
//!
//! Codes, bounds and letters of details are those that AWS IoT Core documents for its jobs.

use crate::shadow::client_token;
use belvedere_device_protocol::jobs::{Operation, Status};
use belvedere_store::device_jobs::JobTimes;
use serde_json::Value;
use std::collections::BTreeMap;

/// Details of one job.
pub const MAX_DETAILS: usize = 10;
/// Letters of a detail's name.
pub const MAX_DETAIL_NAME: usize = 128;
/// Letters of a detail's value.
pub const MAX_DETAIL_VALUE: usize = 1024;

/// Minutes that a step may be given.
pub const STEP_MINUTES: std::ops::RangeInclusive<i64> = 1..=10_080;
/// A restart that is not reported by then did not happen.
const REBOOT_MS: i64 = 60 * 60 * 1000;
/// A release that is not installed by then will not be: slow lines are slow, but not slower than this.
const OTA_MS: i64 = 12 * 60 * 60 * 1000;

/// A request that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `InvalidJson`, `InvalidRequest`, `InvalidStateTransition`, `ResourceNotFound`, `TerminalStateReached`,
    /// `VersionMismatch`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Refused {
    /// A refusal.
    pub fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }
}

/// A parsed update.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Where the job stands now.
    pub status: Status,
    /// What replaces the details; `None` keeps them.
    pub details: Option<BTreeMap<String, String>>,
    /// The version that the device believes the job to have.
    pub expected_version: Option<u64>,
    /// The time for the step that begins now.
    pub step: Step,
    /// Whether the answer says how the job stands now.
    pub include_state: bool,
    /// Whether the answer holds the document.
    pub include_document: bool,
    /// Echoed.
    pub client_token: Option<String>,
}

/// `stepTimeoutInMinutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Step {
    /// Not given: an earlier one goes on.
    #[default]
    Kept,
    /// −1: there is none from now on.
    Cleared,
    /// Minutes from now.
    Minutes(i64),
}

/// A parsed start of the next job.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its first details.
    pub details: Option<BTreeMap<String, String>>,
    /// The time for its first step.
    pub step: Step,
    /// Echoed.
    pub client_token: Option<String>,
}

/// A parsed question about one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    /// Unless the device says no.
    pub include_document: bool,
    /// Echoed.
    pub client_token: Option<String>,
}

/// Any request as JSON; nothing at all is an empty one.
pub fn parse(payload: &[u8]) -> Result<Value, Refused> {
    if payload.is_empty() {
        return Ok(Value::Object(Default::default()));
    }
    match serde_json::from_slice(payload) {
        Ok(document @ Value::Object(_)) => Ok(document),
        _ => Err(Refused::new("InvalidJson", "the payload is not a JSON object")),
    }
}

/// The request's token, to be echoed.
pub fn token(document: &Value) -> Result<Option<String>, Refused> {
    client_token(document).map_err(|e| Refused::new("InvalidRequest", e.message))
}

/// Reads an update.
pub fn parse_update(document: &Value) -> Result<Update, Refused> {
    let client_token = token(document)?;
    let invalid = |message: String| Refused::new("InvalidRequest", message);
    let status = document.get("status").cloned().unwrap_or_default();
    let status: Status = serde_json::from_value(status).map_err(|e| invalid(format!("status: {e}")))?;
    let expected_version = match document.get("expectedVersion") {
        None | Some(Value::Null) => None,
        // Clients that put JSON together from text send it as text.
        Some(Value::String(text)) => Some(text.parse().map_err(|e| invalid(format!("expectedVersion: {e}")))?),
        Some(v) => Some(v.as_u64().ok_or_else(|| invalid("expectedVersion is not a version".into()))?),
    };
    first_execution(document)?;
    Ok(Update {
        status,
        details: details(document)?,
        expected_version,
        step: step(document)?,
        include_state: flag(document, "includeJobExecutionState", false)?,
        include_document: flag(document, "includeJobDocument", false)?,
        client_token,
    })
}

/// Reads a start of the next job.
pub fn parse_start(document: &Value) -> Result<Start, Refused> {
    Ok(Start { details: details(document)?, step: step(document)?, client_token: token(document)? })
}

/// Reads a question about one job.
pub fn parse_describe(document: &Value) -> Result<Describe, Refused> {
    let client_token = token(document)?;
    first_execution(document)?;
    Ok(Describe { include_document: flag(document, "includeJobDocument", true)?, client_token })
}

fn details(document: &Value) -> Result<Option<BTreeMap<String, String>>, Refused> {
    let invalid = |message: String| Refused::new("InvalidRequest", message);
    match document.get("statusDetails") {
        None | Some(Value::Null) => Ok(None),
        Some(given) => {
            let details: BTreeMap<String, String> =
                serde_json::from_value(given.clone()).map_err(|e| invalid(format!("statusDetails: {e}")))?;
            check(&details).map_err(invalid)?;
            Ok(Some(details))
        }
    }
}

fn step(document: &Value) -> Result<Step, Refused> {
    match document.get("stepTimeoutInMinutes") {
        None | Some(Value::Null) => Ok(Step::Kept),
        Some(given) => match given.as_i64() {
            Some(-1) => Ok(Step::Cleared),
            Some(minutes) if STEP_MINUTES.contains(&minutes) => Ok(Step::Minutes(minutes)),
            _ => Err(Refused::new("InvalidRequest", "stepTimeoutInMinutes is neither 1 to 10080 nor -1")),
        },
    }
}

fn flag(document: &Value, name: &str, otherwise: bool) -> Result<bool, Refused> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(otherwise),
        Some(Value::Bool(given)) => Ok(*given),
        Some(_) => Err(Refused::new("InvalidRequest", format!("{name} is not true or false"))),
    }
}

/// A job is executed once by a device: there is no other number than 1.
fn first_execution(document: &Value) -> Result<(), Refused> {
    match document.get("executionNumber") {
        None | Some(Value::Null) => Ok(()),
        Some(number) if number.as_i64() == Some(1) => Ok(()),
        Some(number) if number.is_i64() => Err(Refused::new("ResourceNotFound", "the job has no such execution")),
        Some(_) => Err(Refused::new("InvalidRequest", "executionNumber is not a number")),
    }
}

/// The clocks of a job that goes from `from` to `to` at `now`.
pub fn times(operation: &Operation, before: JobTimes, (from, to): (Status, Status), step: Step, now: i64) -> JobTimes {
    if ended(to) {
        return JobTimes { started_ms: before.started_ms, ..JobTimes::default() };
    }
    if to == Status::Queued {
        return before;
    }
    let mut times = before;
    if from == Status::Queued {
        let whole = match operation {
            Operation::Reboot {} => REBOOT_MS,
            Operation::Ota { .. } => OTA_MS,
        };
        times.started_ms = Some(now);
        times.deadline_ms = Some(now + whole);
    }
    match step {
        Step::Kept => {}
        Step::Cleared => times.step_deadline_ms = None,
        Step::Minutes(minutes) => times.step_deadline_ms = Some(now + minutes * 60_000),
    }
    times
}

fn check(details: &BTreeMap<String, String>) -> Result<(), String> {
    if details.len() > MAX_DETAILS {
        return Err(format!("statusDetails has more than {MAX_DETAILS} entries"));
    }
    for (name, value) in details {
        let name_letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b));
        if !(1..=MAX_DETAIL_NAME).contains(&name.len()) || !name_letters {
            return Err(format!("statusDetails: a name is not 1 to {MAX_DETAIL_NAME} of [a-zA-Z0-9:_-]"));
        }
        if !(1..=MAX_DETAIL_VALUE).contains(&value.chars().count()) || value.chars().any(char::is_control) {
            return Err(format!("statusDetails: {name} is not 1 to {MAX_DETAIL_VALUE} letters on one line"));
        }
    }
    Ok(())
}

/// Whether a job is done with, well or not.
pub fn ended(status: Status) -> bool {
    !matches!(status, Status::Queued | Status::InProgress)
}

/// Whether a job may go from `status` at `version` to where the update says. Statuses only move forward; staying in
/// progress is how a device reports progress.
pub fn allow(status: Status, version: u64, update: &Update) -> Result<(), Refused> {
    if update.expected_version.is_some_and(|v| v != version) {
        return Err(Refused::new("VersionMismatch", format!("the job has version {version}")));
    }
    if ended(status) {
        return Err(Refused::new("InvalidStateTransition", "the job has ended"));
    }
    match update.status {
        Status::Queued => Err(Refused::new("InvalidStateTransition", "a job does not go back into the queue")),
        Status::TimedOut | Status::Canceled => Err(Refused::new("InvalidRequest", "that is for the service to say")),
        Status::InProgress | Status::Succeeded | Status::Failed | Status::Rejected => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: [Status; 7] = [
        Status::Queued,
        Status::InProgress,
        Status::Succeeded,
        Status::Failed,
        Status::Rejected,
        Status::TimedOut,
        Status::Canceled,
    ];

    fn update(status: Status) -> Update {
        parse_update(&json!({ "status": status })).unwrap()
    }

    #[test]
    fn statuses_only_move_forward() {
        for from in ALL {
            for to in ALL {
                let services = matches!(to, Status::TimedOut | Status::Canceled);
                let expected = match (ended(from), to == Status::Queued || services) {
                    (false, false) => None,
                    (false, true) if services => Some("InvalidRequest"),
                    _ => Some("InvalidStateTransition"),
                };
                assert_eq!(allow(from, 3, &update(to)).err().map(|r| r.code), expected, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        let with = |v| Update { expected_version: Some(v), ..update(Status::InProgress) };
        assert_eq!(allow(Status::Queued, 3, &with(3)), Ok(()));
        assert_eq!(allow(Status::Queued, 3, &with(2)).unwrap_err().code, "VersionMismatch");
        assert_eq!(allow(Status::Failed, 3, &with(4)).unwrap_err().code, "VersionMismatch");
    }

    #[test]
    fn updates_are_read_within_bounds() {
        let many = |n: usize| (0..n).map(|i| (format!("n{i}"), json!("v"))).collect::<serde_json::Map<_, _>>();
        for good in [
            json!({ "status": "IN_PROGRESS" }),
            json!({ "status": "FAILED", "statusDetails": many(MAX_DETAILS), "expectedVersion": "7", "clientToken": "a" }),
            json!({ "status": "FAILED", "statusDetails": { "reason": "ä".repeat(MAX_DETAIL_VALUE) }, "expectedVersion": 7 }),
            json!({ "status": "FAILED", "statusDetails": { "a".repeat(MAX_DETAIL_NAME): "x" } }),
        ] {
            assert!(parse_update(&good).is_ok(), "{good}");
        }
        for bad in [
            json!({}),
            json!({ "status": "DONE" }),
            json!({ "status": "FAILED", "expectedVersion": -1 }),
            json!({ "status": "FAILED", "clientToken": 1 }),
            json!({ "status": "FAILED", "statusDetails": many(MAX_DETAILS + 1) }),
            json!({ "status": "FAILED", "statusDetails": { "reason": "ä".repeat(MAX_DETAIL_VALUE + 1) } }),
            json!({ "status": "FAILED", "statusDetails": { "a".repeat(MAX_DETAIL_NAME + 1): "x" } }),
            json!({ "status": "FAILED", "statusDetails": { "reason": "two\nlines" } }),
            json!({ "status": "FAILED", "statusDetails": { "reason": "" } }),
            json!({ "status": "FAILED", "statusDetails": { "a b": "x" } }),
            json!({ "status": "FAILED", "statusDetails": { "n": 1 } }),
            json!({ "status": "IN_PROGRESS", "stepTimeoutInMinutes": 0 }),
            json!({ "status": "IN_PROGRESS", "stepTimeoutInMinutes": 10_081 }),
            json!({ "status": "IN_PROGRESS", "stepTimeoutInMinutes": "1" }),
            json!({ "status": "IN_PROGRESS", "includeJobDocument": 1 }),
            json!({ "status": "IN_PROGRESS", "executionNumber": "1" }),
        ] {
            assert_eq!(parse_update(&bad).unwrap_err().code, "InvalidRequest", "{bad}");
        }
        for payload in [&b"{"[..], b"[]", b"7"] {
            assert_eq!(parse(payload).unwrap_err().code, "InvalidJson");
        }
        assert_eq!(parse(b"").unwrap(), json!({}));
    }

    #[test]
    fn details_that_are_not_given_are_kept() {
        assert_eq!(parse_update(&json!({ "status": "FAILED" })).unwrap().details, None);
        let empty = parse_update(&json!({ "status": "FAILED", "statusDetails": {} })).unwrap();
        assert_eq!(empty.details, Some(BTreeMap::new()));
    }

    #[test]
    fn other_requests_have_their_defaults() {
        assert!(parse_describe(&json!({})).unwrap().include_document);
        assert!(!parse_describe(&json!({ "includeJobDocument": false, "executionNumber": 1 })).unwrap().include_document);
        assert_eq!(parse_describe(&json!({ "executionNumber": 2 })).unwrap_err().code, "ResourceNotFound");
        let start = parse_start(&json!({ "stepTimeoutInMinutes": 10_080, "clientToken": "t" })).unwrap();
        assert_eq!(start, Start { details: None, step: Step::Minutes(10_080), client_token: Some("t".into()) });
    }

    #[test]
    fn clocks_begin_with_the_job_and_end_with_it() {
        use Status::{InProgress, Queued, Succeeded};
        let reboot = Operation::Reboot {};
        let begun = times(&reboot, JobTimes::default(), (Queued, InProgress), Step::Minutes(2), 1_000);
        let expected =
            JobTimes { started_ms: Some(1_000), deadline_ms: Some(1_000 + REBOOT_MS), step_deadline_ms: Some(121_000) };
        assert_eq!(begun, expected);
        assert_eq!(times(&reboot, begun, (InProgress, InProgress), Step::Kept, 5_000), begun);
        assert_eq!(times(&reboot, begun, (InProgress, InProgress), Step::Minutes(1), 5_000).step_deadline_ms, Some(65_000));
        assert_eq!(times(&reboot, begun, (InProgress, InProgress), Step::Cleared, 5_000).step_deadline_ms, None);
        let over = times(&reboot, begun, (InProgress, Succeeded), Step::Kept, 5_000);
        assert_eq!(over, JobTimes { started_ms: Some(1_000), ..JobTimes::default() });
    }
}

//! What a device's update does to a job. Pure.
//!
//! Codes, bounds and letters of details are those that AWS IoT Core documents for its jobs.

use crate::shadow::client_token;
use belvedere_device_protocol::jobs::Status;
use serde_json::Value;
use std::collections::BTreeMap;

/// Details of one job.
pub const MAX_DETAILS: usize = 10;
/// Letters of a detail's name.
pub const MAX_DETAIL_NAME: usize = 128;
/// Letters of a detail's value.
pub const MAX_DETAIL_VALUE: usize = 1024;

/// A request that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `InvalidJson`, `InvalidRequest`, `InvalidStateTransition`, `ResourceNotFound`, `VersionMismatch`.
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
    let details = match document.get("statusDetails") {
        None | Some(Value::Null) => None,
        Some(given) => {
            let details: BTreeMap<String, String> =
                serde_json::from_value(given.clone()).map_err(|e| invalid(format!("statusDetails: {e}")))?;
            check(&details).map_err(invalid)?;
            Some(details)
        }
    };
    Ok(Update { status, details, expected_version, client_token })
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
    matches!(status, Status::Succeeded | Status::Failed | Status::Rejected)
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
    if update.status == Status::Queued {
        return Err(Refused::new("InvalidStateTransition", "a job does not go back into the queue"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: [Status; 5] = [Status::Queued, Status::InProgress, Status::Succeeded, Status::Failed, Status::Rejected];

    fn update(status: Status) -> Update {
        Update { status, details: None, expected_version: None, client_token: None }
    }

    #[test]
    fn statuses_only_move_forward() {
        for from in ALL {
            for to in ALL {
                let expected = !ended(from) && to != Status::Queued;
                let given = allow(from, 3, &update(to));
                assert_eq!(given.is_ok(), expected, "{from:?} to {to:?}");
                assert!(given.is_ok() || given.unwrap_err().code == "InvalidStateTransition");
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
}

//! Jobs, with AWS IoT Core's topics and envelopes ("Jobs device MQTT API").
//!
//! A device has a queue of jobs; it asks for the next one with `$next/get` when it connects and is told of changes by
//! `notify-next`. The one job that is `IN_PROGRESS` stays the next one until it ends, so that a device which lost its
//! power in the middle finds it again. What a device must remember over a restart is kept in `statusDetails`, at the
//! service, and nowhere else.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `$aws/things/<thing>/jobs/notify-next`: [`Next`], published by the service when the next job changes.
pub fn notify_next_topic(thing: &str) -> String {
    format!("$aws/things/{thing}/jobs/notify-next")
}

/// `$aws/things/<thing>/jobs/$next/get`: publish [`GetNext`]; answered with [`Next`] at `/accepted`, or at `/rejected`.
pub fn next_topic(thing: &str) -> String {
    format!("$aws/things/{thing}/jobs/$next/get")
}

/// `$aws/things/<thing>/jobs/<job>/update`: publish [`Update`]; answered at `/accepted` or `/rejected`.
pub fn update_topic(thing: &str, job: &str) -> String {
    format!("$aws/things/{thing}/jobs/{job}/update")
}

/// `$aws/things/<thing>/jobs/notify`, published by the service when a job comes or ends: what is pending, by status.
pub fn notify_topic(thing: &str) -> String {
    format!("$aws/things/{thing}/jobs/notify")
}

/// `$aws/things/<thing>/jobs/get`: what is pending.
pub fn pending_topic(thing: &str) -> String {
    format!("$aws/things/{thing}/jobs/get")
}

/// `$aws/things/<thing>/jobs/start-next`: begins the next job.
pub fn start_next_topic(thing: &str) -> String {
    format!("$aws/things/{thing}/jobs/start-next")
}

/// `$aws/things/<thing>/jobs/<job>/get`: how a job stands.
pub fn describe_topic(thing: &str, job: &str) -> String {
    format!("$aws/things/{thing}/jobs/{job}/get")
}

/// Asks for the next job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetNext {
    /// Echoed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_token: Option<String>,
}

/// The next job, if there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    /// Of the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_token: Option<String>,
    /// Seconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// Absent (or an empty object on the wire) when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "execution_or_nothing")]
    pub execution: Option<Execution>,
}

fn execution_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Execution>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    match value {
        None => Ok(None),
        Some(value) if value.as_object().is_some_and(serde_json::Map::is_empty) => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(serde::de::Error::custom),
    }
}

/// A job as it stands for this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// `<DeviceId>-<n>`.
    pub job_id: String,
    /// Where it stands.
    pub status: Status,
    /// What the device noted when it last updated it.
    #[serde(default)]
    pub status_details: BTreeMap<String, String>,
    /// Grows with each update.
    pub version_number: u64,
    /// What to do.
    pub job_document: Operation,
}

/// `status` of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Not begun.
    Queued,
    /// Begun.
    InProgress,
    /// Done.
    Succeeded,
    /// Not done; `statusDetails.reason` says why.
    Failed,
    /// The device will not do it; likewise.
    Rejected,
    /// The service ended it because the device took too long.
    TimedOut,
    /// The service ended it for another reason.
    Canceled,
}

/// The job document; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum Operation {
    /// Restart the machine.
    Reboot {},
    /// Install a release.
    Ota {
        /// `a.b.c`.
        image_version: String,
        /// Whether the first number may change.
        allow_major_version_update: bool,
    },
}

/// Names in `statusDetails`.
pub mod details {
    /// What the API shows while a job is in progress: `IN_PROGRESS`, `DOWNLOADING`, `VERIFYING`, `REBOOTING`.
    pub const PROGRESS: &str = "progress";
    /// One line for people about a job that failed.
    pub const REASON: &str = "reason";
    /// For REBOOT: the kernel's boot identifier when the restart was asked for; another one means that it happened.
    pub const BOOT: &str = "boot";
}

/// What a device says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Where it stands now.
    pub status: Status,
    /// Replaces what was noted before.
    #[serde(default)]
    pub status_details: BTreeMap<String, String>,
    /// Refused with `VersionMismatch` when the execution has another version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected_version: Option<u64>,
    /// Echoed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_token: Option<String>,
}

//! Named shadows, with AWS IoT Core's topics and envelopes.
//!
//! Names in use: [`DEVICE`] (reported: [`DeviceState`]) and [`APPLICATIONS`] (desired: [`DesiredApplications`],
//! reported: [`ReportedApplications`]).

use crate::{ApplicationReport, NetworkStatus, NodeSignal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shadow of the appliance itself.
pub const DEVICE: &str = "device";
/// Shadow of its applications.
pub const APPLICATIONS: &str = "applications";

/// The classic shadow, which has no name. Not in use here, but a thing may have one.
pub const CLASSIC: &str = "";

/// `$aws/things/<thing>/shadow/name/<shadow>/<operation>`, without `name/<shadow>/` for [`CLASSIC`]; operations `get`,
/// `update`, `delete`, with `/accepted`, `/rejected`, and `update/delta`, `update/documents`.
pub fn topic(thing: &str, shadow: &str, operation: &str) -> String {
    match shadow {
        CLASSIC => format!("$aws/things/{thing}/shadow/{operation}"),
        _ => format!("$aws/things/{thing}/shadow/name/{shadow}/{operation}"),
    }
}

/// What is published to `update`, and what `get/accepted` answers (with `version`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document<D, R> {
    /// The two halves.
    pub state: State<D, R>,
    /// Grows with each change; present in answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<u64>,
    /// Echoed in answers.
    #[serde(rename = "clientToken", skip_serializing_if = "Option::is_none", default)]
    pub client_token: Option<String>,
}

/// The two halves of a shadow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State<D, R> {
    /// Set by the service.
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    pub desired: Option<D>,
    /// Set by the appliance.
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    pub reported: Option<R>,
}

fn none<T>() -> Option<T> {
    None
}

/// `update/delta`: for [`APPLICATIONS`] the appliance takes any delta as the hint to `get` the whole shadow. So it does with
/// any `update/accepted` that has a desired half: what is desired no longer makes no delta.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Of the shadow.
    pub version: u64,
    /// What differs.
    pub state: serde_json::Value,
}

/// Reported half of [`DEVICE`]; published on connect, on change, and at least every 5 minutes (it renews the lease).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    /// `a.b.c`.
    pub software_version: String,
    /// `qemu-aarch64`, ….
    pub board: String,
    /// What the ports do.
    pub network: NetworkStatus,
    /// Seconds since the machine started.
    pub uptime_s: u64,
}

/// Desired half of [`APPLICATIONS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DesiredApplications {
    /// By application instance. What is missing is to be removed. `null` values never reach the appliance.
    pub instances: BTreeMap<String, DeploymentReference>,
}

/// Where the [`crate::Deployment`] document of an instance is (documents are far larger than a shadow may be).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentReference {
    /// In the service's bucket.
    pub bucket: String,
    /// Object key.
    pub key: String,
    /// SHA-256 of the document, 64 hexadecimal digits: a change means a new deployment of the same instance.
    pub sha256: String,
    /// Camera nodes that were signalled. They pause and resume while the application runs on; nodes that are not here do
    /// what the graph says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<String, NodeSignal>,
}

/// Reported half of [`APPLICATIONS`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReportedApplications {
    /// By application instance; an instance that was removed is reported once as `REMOVAL_SUCCEEDED`, then no more.
    pub instances: BTreeMap<String, ApplicationReport>,
}

/// The appliance's last word: an MQTT will on `belvedere/things/<thing>/connection`, retained by nobody.
pub fn connection_topic(thing: &str) -> String {
    format!("belvedere/things/{thing}/connection")
}

//! An application instance, as the service asks for it and as the appliance reports it.

use serde::{Deserialize, Serialize};

/// Everything the appliance needs to run an application instance; one JSON object in the service's bucket.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// `applicationInstance-…`.
    pub application_instance_id: String,
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970; the instance that was created last owns the monitor.
    pub created_ms: i64,
    /// The graph (`ManifestPayload`), parsed but otherwise as given.
    pub graph: serde_json::Value,
    /// The overrides (`ManifestOverridesPayload`), likewise.
    pub overrides: Option<serde_json::Value>,
    /// Every package version that graph and overrides name, `panorama::…` built-ins apart.
    pub packages: Vec<PackageVersion>,
    /// What the cameras' packages say, with their secrets, by `<account>::<package>`.
    pub cameras: Vec<CameraSource>,
    /// Whether it should run.
    pub desired_state: DesiredState,
    /// The instance whose place it takes, on the same appliance: that one runs until this one is ready to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The role that it was created with (`RuntimeRoleArn`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_role_arn: Option<String>,
}
impl core::fmt::Debug for Deployment {
    // Cameras carry passwords.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Deployment")
            .field("application_instance_id", &self.application_instance_id)
            .field("name", &self.name)
            .field("packages", &self.packages)
            .finish_non_exhaustive()
    }
}

/// `DesiredState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DesiredState {
    /// Runs.
    Running,
    /// Kept, not running.
    Stopped,
}

/// The last word about a camera node; it outlasts restarts of its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeSignal {
    /// Its stream is not watched.
    Pause,
    /// Its stream is watched, even if the graph lets it wait for a signal.
    Resume,
}

/// One package version, with where its parts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageVersion {
    /// `<account>::<name>`, as graphs write it.
    pub name: String,
    /// `1.0`.
    pub version: String,
    /// 64 hexadecimal digits, SHA-256 of the manifest.
    pub patch: String,
    /// `package.json`.
    pub manifest: Object,
    /// Its assets and their descriptors, named as in the manifest's URIs (`<sha256>.tar.gz`, `<sha256>.json`).
    pub assets: Vec<Object>,
}

/// An object in the service's bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// File name, as URIs in the manifest write it.
    pub name: String,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// What a camera package made from the `RTSP_CAMERA_STREAM` template says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraSource {
    /// `<account>::<name>` of the package.
    pub package: String,
    /// `StreamUrl`.
    pub stream_url: String,
    /// `Username`.
    pub username: Option<String>,
    /// `Password`; never logged.
    pub password: Option<String>,
}

/// How an application instance is on the appliance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplicationReport {
    /// `applicationInstance-…`.
    pub application_instance_id: String,
    /// SHA-256 of the deployment document this is about.
    pub sha256: String,
    /// The API's `ApplicationInstanceStatus`: `DEPLOYMENT_REQUESTED`, `DEPLOYMENT_IN_PROGRESS`, `DEPLOYMENT_SUCCEEDED`,
    /// `DEPLOYMENT_ERROR`, `DEPLOYMENT_FAILED`, `REMOVAL_IN_PROGRESS`, `REMOVAL_SUCCEEDED`, `REMOVAL_FAILED`.
    pub status: String,
    /// One line for people, at most 255 characters.
    pub status_description: String,
    /// `RUNNING`, `ERROR`, `NOT_AVAILABLE`.
    pub health: String,
    /// `DeviceReportedStatus`: `INSTALL_IN_PROGRESS`, `INSTALL_ERROR`, `LAUNCHED`, `LAUNCH_ERROR`, `RUNNING`, ….
    pub device_reported_status: String,
    /// Every node of the overridden graph.
    pub nodes: Vec<NodeReport>,
}

/// The words of [`ApplicationReport::status`].
const STATUSES: &[&str] = &[
    "DEPLOYMENT_PENDING", "DEPLOYMENT_REQUESTED", "DEPLOYMENT_IN_PROGRESS", "DEPLOYMENT_SUCCEEDED", "DEPLOYMENT_ERROR",
    "DEPLOYMENT_FAILED", "REMOVAL_PENDING", "REMOVAL_REQUESTED", "REMOVAL_IN_PROGRESS", "REMOVAL_SUCCEEDED",
    "REMOVAL_FAILED",
];
/// The words of [`ApplicationReport::health`].
const HEALTH: &[&str] = &["RUNNING", "ERROR", "NOT_AVAILABLE"];
/// The words of [`ApplicationReport::device_reported_status`].
const REPORTED: &[&str] = &[
    "STOPPING", "STOPPED", "STOP_ERROR", "REMOVAL_FAILED", "REMOVAL_IN_PROGRESS", "STARTING", "RUNNING", "INSTALL_ERROR",
    "LAUNCHED", "LAUNCH_ERROR", "INSTALL_IN_PROGRESS",
];
/// The words of [`NodeReport::status`].
const NODES: &[&str] = &["RUNNING", "ERROR", "NOT_AVAILABLE", "PAUSED"];

impl ApplicationReport {
    /// The first word in it that is none of the contract's: what a device sends is shown by the API, which promises
    /// these words alone.
    pub fn unknown_word(&self) -> Option<&str> {
        let single = [(&self.status, STATUSES), (&self.health, HEALTH), (&self.device_reported_status, REPORTED)];
        let nodes = self.nodes.iter().map(|node| (&node.status, NODES));
        single.into_iter().chain(nodes).find(|(word, words)| !words.contains(&word.as_str())).map(|(word, _)| word.as_str())
    }
}

/// One node instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node's name in the graph.
    pub node: String,
    /// `RUNNING`, `ERROR`, `NOT_AVAILABLE`, `PAUSED`.
    pub status: String,
    /// One line for people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_may_say_only_words_of_the_contract() {
        let report = |status: &str, node: &str| ApplicationReport {
            application_instance_id: "applicationInstance-a".into(),
            sha256: String::new(),
            status: status.into(),
            status_description: String::new(),
            health: "RUNNING".into(),
            device_reported_status: "RUNNING".into(),
            nodes: vec![NodeReport { node: "code_node".into(), status: node.into(), detail: String::new() }],
        };
        assert_eq!(report("DEPLOYMENT_SUCCEEDED", "PAUSED").unknown_word(), None);
        assert_eq!(report("FINE", "PAUSED").unknown_word(), Some("FINE"));
        assert_eq!(report("DEPLOYMENT_SUCCEEDED", "").unknown_word(), Some(""));
    }
}

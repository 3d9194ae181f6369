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

//! Where things are, so that a test can put them elsewhere.

use belvedere_interfaces::{paths, users};
use std::path::PathBuf;

/// Paths and numbers of one running service.
#[derive(Debug, Clone)]
pub struct Places {
    /// What must survive a power cut: desired state, unpacked packages, applications' storage and logs.
    pub state: PathBuf,
    /// What must not: node sockets, the runtime's own state, bundles.
    pub run: PathBuf,
    /// Where this service answers.
    pub socket: PathBuf,
    /// `camera`.
    pub camera: PathBuf,
    /// `decoder`.
    pub frames: PathBuf,
    /// `inference`.
    pub inference: PathBuf,
    /// `display`.
    pub display: PathBuf,
    /// `panoramasdk`'s directory.
    pub sdk: PathBuf,
    /// The OCI runtime.
    pub crun: PathBuf,
    /// Whether containers get control groups with limits. Only tests on machines without cgroup v2 say no.
    pub cgroups: bool,
    /// First host user of containers.
    pub first_id: u32,
    /// How many users a container has.
    pub ids: u32,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            state: paths::APPLICATIONS_STATE.into(),
            run: "/run/belvedere-applications".into(),
            socket: paths::APPLICATIONS.into(),
            camera: paths::CAMERA.into(),
            frames: paths::FRAMES.into(),
            inference: paths::INFERENCE.into(),
            display: paths::DISPLAY.into(),
            sdk: paths::SDK_ON_APPLIANCE.into(),
            crun: "/usr/bin/crun".into(),
            cgroups: true,
            first_id: users::CONTAINER_FIRST_ID,
            ids: users::CONTAINER_IDS,
        }
    }
}

impl Places {
    /// Unpacked root file systems, by the SHA-256 of the archive they came in.
    pub fn trees(&self) -> PathBuf {
        self.state.join("trees")
    }
    /// ONNX files, by the SHA-256 of the archive they came in.
    pub fn models(&self) -> PathBuf {
        self.state.join("models")
    }
    /// Downloads.
    pub fn objects(&self) -> PathBuf {
        self.state.join("objects")
    }
    /// Everything that belongs to one application instance.
    pub fn instance(&self, id: &str) -> PathBuf {
        self.state.join("instances").join(id)
    }
    /// Everything that belongs to one code node.
    pub fn node(&self, id: &str, node: &str) -> PathBuf {
        self.instance(id).join("nodes").join(node)
    }
}

//! What the threads of this process share: what is wanted, what is known, and the bell that rings when it changes.

use crate::health::{CodeHealth, ModelHealth, Stage};
use crate::places::Places;
use crate::spool::Spool;
use belvedere_interfaces::applications::{DesiredDeployment, SetObjectAccess};
use belvedere_interfaces::camera::{StreamConfiguration, StreamStatus};
use belvedere_manifest::Application;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Shared by all threads.
pub struct Shared {
    /// Paths.
    pub places: Places,
    /// Lines for the service.
    pub spool: Arc<Spool>,
    /// See [`crate::deployment::streams`].
    pub stream_key: [u8; 32],
    /// One installation at a time: two could unpack the same archive.
    pub installing: Mutex<()>,
    model: Mutex<Model>,
    bell: Condvar,
}

/// What is wanted and known.
#[derive(Default)]
pub struct Model {
    /// Instances that are wanted.
    pub desired: BTreeMap<String, DesiredDeployment>,
    /// Instances that are known of, wanted or not.
    pub instances: BTreeMap<String, Known>,
    /// Access to the object store.
    pub access: Option<SetObjectAccess>,
    /// `AWS_REGION` of applications.
    pub region: String,
    /// What `camera` says of streams, by stream.
    pub streams: BTreeMap<String, StreamStatus>,
    /// The process ends: containers stop, nothing is removed.
    pub ending: bool,
}

/// What is known of an instance.
pub struct Known {
    /// Of the deployment that this is about.
    pub sha256: String,
    /// Where it stands.
    pub stage: Stage,
    /// When it came to be removed; such an instance is forgotten after a while.
    pub removed: Option<Instant>,
    /// Whether a thread cares for it.
    pub has_worker: bool,
    /// Nodes, once the graph is resolved.
    pub nodes: Option<Nodes>,
}

/// Nodes of an instance.
pub struct Nodes {
    /// The overridden graph.
    pub application: Application,
    /// By camera node.
    pub streams: BTreeMap<String, StreamConfiguration>,
    /// By code node.
    pub code: BTreeMap<String, Arc<Mutex<CodeHealth>>>,
    /// By model node.
    pub models: BTreeMap<String, Arc<Mutex<ModelHealth>>>,
    /// Whether its cameras are to be watched.
    pub active: bool,
}

impl Shared {
    /// With nothing wanted yet.
    pub fn new(places: Places, stream_key: [u8; 32], region: String) -> Shared {
        Shared {
            places,
            spool: Arc::default(),
            stream_key,
            installing: Mutex::new(()),
            model: Mutex::new(Model { region, ..Model::default() }),
            bell: Condvar::new(),
        }
    }

    /// The model. A thread that panicked while it held it ends the process (`panic = "abort"`); in tests it is used on.
    pub fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the model and rings.
    pub fn change<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.notify_all();
        result
    }

    /// Waits for a change, at most so long.
    pub fn wait(&self, time: Duration) {
        let guard = self.lock();
        drop(self.bell.wait_timeout(guard, time));
    }
}

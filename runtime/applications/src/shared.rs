//! What the threads of this process share: what is wanted, what is known, and the bell that rings when it changes.

use crate::claims::Claims;
use crate::discard::Discard;
use crate::disk::Shortage;
use crate::health::{CodeHealth, ModelHealth, Stage};
use crate::node_server::CONNECTIONS;
use crate::places::Places;
use crate::spool::Spool;
use belvedere_frames::shares::Shares;
use belvedere_interfaces::applications::{DesiredDeployment, SetObjectAccess};
use belvedere_interfaces::camera::{StreamConfiguration, StreamStatus};
use belvedere_manifest::Application;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Shared by all threads.
pub struct Shared {
    /// Paths.
    pub places: Places,
    /// Lines for the service.
    pub spool: Arc<Spool>,
    /// See [`crate::deployment::streams`].
    pub stream_key: [u8; 32],
    /// Objects that are being brought. Held for no longer than a look; never with the model's lock around it.
    pub claims: Claims,
    /// Where removed directories go.
    pub discard: Arc<Discard>,
    /// Connections of programs to their nodes' sockets.
    pub connections: Arc<Shares>,
    model: Mutex<Model>,
    bell: Condvar,
}

/// What is wanted and known.
#[derive(Default)]
pub struct Model {
    /// Counts changes of what threads of instances wait for. A thread reads it together with what it acts upon, and does
    /// not wait when it has changed since.
    wishes: u64,
    /// Instances that are wanted.
    pub desired: BTreeMap<String, DesiredDeployment>,
    /// Instances that are not wanted any more and go on until what replaces them is ready; by the instance that goes.
    pub retiring: BTreeMap<String, Retiring>,
    /// Instances that are known of, wanted or not.
    pub instances: BTreeMap<String, Known>,
    /// Access to the object store.
    pub access: Option<SetObjectAccess>,
    /// `AWS_REGION` of applications.
    pub region: String,
    /// What `camera` says of streams, by stream.
    pub streams: BTreeMap<String, StreamStatus>,
    /// While the disk is as good as full.
    pub shortage: Option<Shortage>,
    /// The process ends: containers stop, nothing is removed.
    pub ending: bool,
}

/// An instance that runs until another one is ready.
#[derive(Debug, Clone)]
pub struct Retiring {
    /// As it was wanted.
    pub desired: DesiredDeployment,
    /// The instance that takes its place.
    pub replaced_by: String,
}

impl Model {
    /// See [`Shared::wait`].
    pub fn wishes(&self) -> u64 {
        self.wishes
    }

    /// What should run of an instance: what is wanted, or what goes on for a while.
    pub fn wanted(&self, id: &str) -> Option<&DesiredDeployment> {
        self.desired.get(id).or_else(|| self.retiring.get(id).map(|retiring| &retiring.desired))
    }
}

/// What is known of an instance.
pub struct Known {
    /// Of the deployment that this is about.
    pub sha256: String,
    /// Where it stands.
    pub stage: Stage,
    /// What is going on besides: a newer version that is being brought, or cannot be.
    pub update: Option<String>,
    /// What the application asked for and does not get here.
    pub missing: Vec<String>,
    /// When it came to be removed; such an instance is forgotten after a while.
    pub removed: Option<Instant>,
    /// Whether a thread cares for it.
    pub has_worker: bool,
    /// Packages that it runs from, by SHA-256: kept, whatever is desired.
    pub holds: BTreeSet<String>,
    /// Nodes, once the graph is resolved.
    pub nodes: Option<Nodes>,
    /// How many streams of each camera node were opened.
    pub opened: BTreeMap<String, u64>,
}

impl Known {
    /// An instance that was just heard of.
    pub fn new(sha256: String) -> Known {
        Known {
            sha256,
            stage: Stage::Requested,
            update: None,
            missing: Vec::new(),
            removed: None,
            has_worker: false,
            holds: BTreeSet::new(),
            nodes: None,
            opened: BTreeMap::new(),
        }
    }
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
            discard: Arc::new(Discard::new(&places.state)),
            places,
            spool: Arc::default(),
            stream_key,
            claims: Claims::default(),
            connections: Shares::new(CONNECTIONS),
            model: Mutex::new(Model { region, ..Model::default() }),
            bell: Condvar::new(),
        }
    }

    /// The model. A thread that panicked while it held it ends the process (`panic = "abort"`); in tests it is used on.
    pub fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the model can be had at this moment.
    pub fn is_free(&self) -> bool {
        !matches!(self.model.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Changes what threads of instances wait for, and rings.
    pub fn wish<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = {
            let mut model = self.lock();
            model.wishes += 1;
            change(&mut model)
        };
        self.bell.notify_all();
        result
    }

    /// Changes what is known. Nobody waits for that.
    pub fn note<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(&mut self.lock())
    }

    /// Waits until wishes are not what they were at `seen` ([`Model::wishes`]), at most so long. A change that came
    /// between the look and this call is not missed.
    pub fn wait(&self, seen: u64, time: Duration) {
        drop(self.bell.wait_timeout_while(self.lock(), time, |model| model.wishes == seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runtime D12: the worker looked, let go of the lock, and waited; a change in between was found a minute later.
    #[test]
    fn a_change_between_the_look_and_the_wait_is_not_missed() {
        let shared = Shared::new(Places::default(), [0; 32], String::new());
        let seen = shared.lock().wishes();
        shared.wish(|model| model.ending = true);
        let begin = Instant::now();
        shared.wait(seen, Duration::from_secs(60));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        // And what is only noted wakes nobody: a worker that notes its own failure must still wait before the next attempt.
        let seen = shared.lock().wishes();
        shared.note(|model| model.ending = false);
        shared.wait(seen, Duration::from_millis(100));
        assert!(begin.elapsed() >= Duration::from_millis(100));
    }
}

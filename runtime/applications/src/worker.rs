//! One thread per application instance: compares what is wanted with what is, and carries out the plan's steps.

use crate::deployment::{Prepared, PreparedModel, missing, paused};
use crate::health::{CodeHealth, ModelHealth, Stage};
use crate::install::{self, InstallError, Surroundings};
use crate::model_keeper::{self, ModelKeeper};
use crate::node_server::{Context, NodeServer};
use crate::plan::{Actual, Step, Wanted, plan};
use crate::shared::{Nodes, Shared};
use crate::state::Store;
use crate::supervisor::{Node, Supervisor, node_id};
use belvedere_device_protocol::DesiredState;
use belvedere_frames::packet;
use belvedere_interfaces::applications::{DesiredDeployment, SetObjectAccess};
use belvedere_interfaces::channel::{display, frames, node::Target};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a removed instance is still reported.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How long a new instance waits for the containers of the one that it replaces to end. Both at once do no harm.
const TAKE_OVER: Duration = Duration::from_secs(15);

/// Starts the thread of an instance, if there can be one.
pub fn start(shared: Arc<Shared>, store: Store, id: String) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().spawn(move || {
        Worker { shared, store, id, actual: Actual::default(), prepared: None, running: None, refused: None }.run()
    })
}

struct Worker {
    shared: Arc<Shared>,
    store: Store,
    id: String,
    actual: Actual,
    prepared: Option<Prepared>,
    running: Option<Running>,
    /// A deployment that can never be installed.
    refused: Option<String>,
}

/// Everything that runs of an instance; the order is the order of ending.
struct Running {
    supervisors: Vec<Supervisor>,
    _servers: Vec<NodeServer>,
    _models: Vec<ModelKeeper>,
}

impl Worker {
    fn run(mut self) {
        self.bring_back();
        let mut attempts = 0;
        loop {
            let (wishes, wanted, ending) = {
                let model = self.shared.lock();
                (model.wishes(), model.wanted(&self.id).cloned(), model.ending)
            };
            if ending {
                self.stop();
                return;
            }
            let target = wanted.as_ref().map(|wanted| Wanted {
                sha256: wanted.sha256.clone(),
                run: wanted.deployment.desired_state == DesiredState::Running,
            });
            let steps = plan(target.as_ref(), &self.actual);
            let refused = target.as_ref().is_some_and(|target| self.refused.as_ref() == Some(&target.sha256));
            if steps.is_empty() || refused {
                self.shared.wait(wishes, Duration::from_secs(60));
                continue;
            }
            log::info!("{}: {steps:?}", self.id);
            let mut failed = None;
            for step in steps {
                if let Err(error) = self.step(step, wanted.as_ref()) {
                    failed = Some(error);
                    break;
                }
            }
            match failed {
                None => attempts = 0,
                Some(InstallError::Permanent(problem)) => {
                    log::error!("{}: {problem}", self.id);
                    self.refused = target.as_ref().map(|target| target.sha256.clone());
                    // What runs goes on: an update that cannot be had is no reason to have nothing.
                    let goes_on = self.actual.running.is_some();
                    self.shared.note(|model| {
                        if let (Some(known), Some(target)) = (model.instances.get_mut(&self.id), &target) {
                            known.sha256.clone_from(&target.sha256);
                            known.update = None;
                            known.stage = if goes_on { Stage::UpdateFailed(problem) } else { Stage::Failed(problem) };
                        }
                    });
                }
                Some(InstallError::Transient(problem)) => {
                    attempts += 1;
                    let wait = crate::health::back_off(attempts).min(Duration::from_secs(30));
                    log::warn!("{}: {problem}; trying again within {} s", self.id, wait.as_secs());
                    if wanted.is_none() {
                        self.set(Stage::Removing(problem));
                    } else {
                        self.progress(problem);
                    }
                    // A change (new access, another wish) is worth an attempt at once, but not many a second.
                    std::thread::sleep(Duration::from_millis(500));
                    self.shared.wait(wishes, wait);
                }
            }
            if target.is_none() && self.may_go() {
                return;
            }
        }
    }

    /// Runs what ran before this process started, from the disk, while something newer is still to be brought: after a
    /// power cut in the middle of an update the old version works again, with or without the service.
    fn bring_back(&mut self) {
        let wanted = self.shared.lock().wanted(&self.id).cloned();
        let Some(wanted) = wanted.filter(|wanted| wanted.deployment.desired_state == DesiredState::Running) else { return };
        let directory = self.shared.places.instance(&self.id);
        let Some(before) = self.store.running(&directory).filter(|before| before.sha256 != wanted.sha256) else { return };
        let begun = self.install(&before, &|| None).and_then(|prepared| {
            self.prepared = Some(prepared);
            self.start(&before)
        });
        match begun {
            Ok(()) => {
                self.actual = Actual { installed: Some(before.sha256.clone()), running: Some(before.sha256.clone()) };
                self.shared.note(|model| {
                    if let Some(known) = model.instances.get_mut(&self.id) {
                        known.sha256 = before.sha256;
                        known.stage = Stage::Deployed;
                    }
                });
            }
            Err(error) => log::warn!("{}: the version that ran before does not run again: {error}", self.id),
        }
    }

    /// Whether the instance is gone and nobody has asked for it again meanwhile. Decided under the lock, so that
    /// whoever asks later knows that it needs a new thread.
    fn may_go(&self) -> bool {
        let mut model = self.shared.lock();
        if model.desired.contains_key(&self.id) {
            return false;
        }
        match model.instances.get_mut(&self.id) {
            Some(known) if known.stage == Stage::Removed => {
                known.has_worker = false;
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    fn set(&self, stage: Stage) {
        self.shared.note(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                known.stage = stage;
                known.update = None;
            }
        });
    }

    /// Says what is going on with an installation: instead of everything else while nothing runs, else besides.
    fn progress(&self, text: String) {
        let update = self.actual.running.is_some();
        self.shared.note(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                match update {
                    true => known.update = Some(text),
                    false => known.stage = Stage::Installing(text),
                }
            }
        });
    }

    fn step(&mut self, step: Step, wanted: Option<&DesiredDeployment>) -> Result<(), InstallError> {
        match (step, wanted) {
            (Step::Install(sha256), Some(wanted)) => {
                if let Some(running) = self.actual.running.clone() {
                    // What runs is reported as what it is, until the new one is installed.
                    self.shared.note(|model| {
                        if let Some(known) = model.instances.get_mut(&self.id) {
                            known.sha256 = running;
                            known.stage = Stage::Deployed;
                        }
                    });
                }
                let prepared = self.install(wanted, &|| self.shared.lock().access.clone())?;
                let missing = missing(&prepared.application, wanted.deployment.runtime_role_arn.as_deref());
                self.prepared = Some(prepared);
                self.actual.installed = Some(sha256.clone());
                // Its containers do not run yet; say what the instance is about from now on.
                self.shared.note(|model| {
                    if let Some(known) = model.instances.get_mut(&self.id) {
                        known.sha256 = sha256;
                        known.update = None;
                        known.missing = missing;
                        known.stage = match wanted.deployment.desired_state {
                            DesiredState::Running => Stage::Installing("starting".into()),
                            DesiredState::Stopped => Stage::Stopped,
                        };
                    }
                });
                Ok(())
            }
            (Step::Start(sha256), Some(wanted)) => {
                if let Some(old) = &wanted.deployment.replaces {
                    // Kept before the other one is let go, so that after a power cut one of the two is there to run.
                    self.keep(wanted);
                    self.take_over(old);
                }
                if let Err(error) = self.start(wanted) {
                    // What had been started of it is ended; nobody watches its cameras meanwhile.
                    self.stop();
                    return Err(error);
                }
                self.actual.running = Some(sha256);
                self.set(Stage::Deployed);
                Ok(())
            }
            (Step::Stop, wanted) => {
                self.stop();
                self.set(if wanted.is_some() { Stage::Stopped } else { Stage::Removing(String::new()) });
                Ok(())
            }
            (Step::Remove, _) => self.remove(),
            (Step::Install(_) | Step::Start(_), None) => Ok(()),
        }
    }

    /// Lets the instances go that this one replaces, and waits until their containers have ended. That is the one that
    /// it names, and what goes on because that one never ran.
    fn take_over(&self, old: &str) {
        let gone: BTreeSet<String> = self.shared.wish(|model| {
            let replaced = model.retiring.iter().filter(|(id, known)| *id == old || known.replaced_by == self.id);
            let gone = replaced.map(|(id, _)| id.clone()).chain([old.to_owned()]).collect();
            model.retiring.retain(|id, _| !BTreeSet::contains(&gone, id));
            gone
        });
        let until = Instant::now() + TAKE_OVER;
        let runs = || {
            let model = self.shared.lock();
            let active = |id: &String| model.instances.get(id)?.nodes.as_ref().map(|nodes| nodes.active);
            !model.ending && gone.iter().any(|id| active(id) == Some(true))
        };
        while runs() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Keeps what is about to run, for the next start of this process.
    fn keep(&self, deployment: &DesiredDeployment) {
        let directory = self.shared.places.instance(&self.id);
        let kept = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o711)))
            .map_err(|error| format!("make {}: {error}", directory.display()))
            .and_then(|()| self.store.set_running(&directory, deployment));
        if let Err(problem) = kept {
            log::warn!("{}: {problem}; after a restart it is fetched anew", self.id);
        }
        let holds: BTreeSet<String> = install::hashes(&deployment.deployment).map(str::to_owned).collect();
        self.shared.note(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                known.holds = holds;
            }
        });
    }

    fn install(
        &self,
        wanted: &DesiredDeployment,
        access: &dyn Fn() -> Option<SetObjectAccess>,
    ) -> Result<Prepared, InstallError> {
        let shared = &self.shared;
        let asked_for = shared.lock().wanted(&self.id).map(|wanted| wanted.sha256.clone());
        let go_on = || {
            let model = shared.lock();
            !model.ending && model.wanted(&self.id).is_some_and(|now| Some(&now.sha256) == asked_for.as_ref())
        };
        let around = Surroundings {
            places: &shared.places,
            id: &self.id,
            claims: &shared.claims,
            discard: &shared.discard,
            access,
            go_on: &go_on,
            progress: &|text| {
                log::info!("{}: {text}", self.id);
                self.progress(text);
            },
            shortage: &|| {
                // Adding files up may take minutes; who looks at the disk all the time has done it, as a rule.
                let known = shared.lock().shortage.clone();
                known.unwrap_or_else(|| crate::service::measure(shared)).words()
            },
            stream_key: &shared.stream_key,
        };
        install::install(&wanted.deployment, &around)
    }

    fn start(&mut self, wanted: &DesiredDeployment) -> Result<(), InstallError> {
        self.keep(wanted);
        let deployment = &wanted.deployment;
        let Some(prepared) = &self.prepared else { return Err(InstallError::Transient("nothing is installed".into())) };
        let places = &self.shared.places;
        let code: BTreeMap<String, Arc<Mutex<CodeHealth>>> =
            prepared.code.iter().map(|code| (code.node.clone(), Arc::default())).collect();
        let models: BTreeMap<String, Arc<Mutex<ModelHealth>>> =
            prepared.models.iter().map(|model| (model.node.clone(), Arc::default())).collect();
        let region = self.shared.note(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                known.nodes = Some(Nodes {
                    application: prepared.application.clone(),
                    streams: prepared.streams.clone(),
                    code: code.clone(),
                    models: models.clone(),
                    active: true,
                });
            }
            model.region.clone()
        });
        let no_thread = |error: std::io::Error| InstallError::Transient(format!("start a thread: {error}"));
        let mut running = Running { supervisors: Vec::new(), _servers: Vec::new(), _models: Vec::new() };
        for model in &prepared.models {
            let health = models.get(&model.node).cloned().unwrap_or_default();
            let file = model_file(&self.shared, model);
            let keeper = ModelKeeper::start(
                places.inference.clone(),
                &self.id,
                model.node.clone(),
                model.inputs.clone(),
                file,
                health,
            );
            running._models.push(keeper.map_err(no_thread)?);
        }
        for prepared_code in &prepared.code {
            let health = code.get(&prepared_code.node).cloned().unwrap_or_default();
            let sockets = places.run.join("nodes").join(node_id(&self.id, &prepared_code.node));
            let transient = |error: std::io::Error| InstallError::Transient(format!("make {}: {error}", sockets.display()));
            std::fs::create_dir_all(&sockets).map_err(transient)?;
            let context = Context {
                node: prepared_code.node.clone(),
                application_instance_id: self.id.clone(),
                inputs: prepared_code.inputs.clone(),
                outputs: prepared_code.outputs.clone(),
                models: prepared.models.iter().map(|model| model.node.clone()).collect(),
                connections: self.shared.connections.clone(),
                open: opener(&self.shared, &self.id, deployment.created_ms, prepared_code.node.clone(), prepared),
            };
            let path = sockets.join("node.sock");
            let server = NodeServer::start(&path, context, health.clone())
                .map_err(|error| InstallError::Transient(format!("serve {}: {error}", path.display())))?;
            // Reached from inside the container by its own users; nobody else can see the directory's mount there.
            let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            std::fs::set_permissions(&path, open_to_all).map_err(transient)?;
            running._servers.push(server);
            let supervisor = Supervisor::start(Node {
                places: places.clone(),
                spool: self.shared.spool.clone(),
                discard: self.shared.discard.clone(),
                application_instance_id: self.id.clone(),
                node: prepared_code.node.clone(),
                region: region.clone(),
                tree: prepared_code.tree.clone(),
                entry: prepared_code.entry.clone(),
                sockets,
                health,
            });
            running.supervisors.push(supervisor.map_err(no_thread)?);
        }
        self.running = Some(running);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // All at once: the machine has ten seconds to shut down.
            running.supervisors.iter().for_each(Supervisor::ask_to_stop);
            running.supervisors.into_iter().for_each(Supervisor::stop);
        }
        self.actual.running = None;
        self.shared.note(|model| {
            if let Some(nodes) = model.instances.get_mut(&self.id).and_then(|known| known.nodes.as_mut()) {
                nodes.active = false;
            }
        });
    }

    fn remove(&mut self) -> Result<(), InstallError> {
        self.set(Stage::Removing(String::new()));
        let directory = self.shared.places.instance(&self.id);
        self.shared
            .discard
            .take(&directory)
            .map_err(|error| InstallError::Transient(format!("remove {}: {error}", directory.display())))?;
        self.actual = Actual::default();
        self.prepared = None;
        self.refused = None;
        self.shared.note(|model| {
            // Asked for again meanwhile, it begins anew: as a removed one it would be forgotten while it runs.
            let again = model.wanted(&self.id).map(|wanted| wanted.sha256.clone());
            if let Some(known) = model.instances.get_mut(&self.id) {
                match again {
                    None => (known.stage, known.removed) = (Stage::Removed, Some(Instant::now())),
                    Some(sha256) => (known.stage, known.sha256) = (Stage::Requested, sha256),
                }
                known.nodes = None;
                known.holds.clear();
            }
        });
        // What other instances use, run from or are bringing stays.
        collect(&self.shared);
        log::info!("{}: removed", self.id);
        Ok(())
    }
}

/// Removes packages and directories that no instance needs.
pub fn collect(shared: &Shared) {
    // Nobody finds an object there, and relies on it, between the look and the removal.
    let claims = shared.claims.all();
    let (mut hashes, instances) = shared.note(|model| {
        let wanted = model.desired.values().chain(model.retiring.values().map(|retiring| &retiring.desired));
        let mut hashes: BTreeSet<String> =
            wanted.flat_map(|wanted| install::hashes(&wanted.deployment)).map(str::to_owned).collect();
        let known = || model.instances.iter().filter(|(_, known)| known.removed.is_none());
        hashes.extend(known().flat_map(|(_, known)| known.holds.iter().cloned()));
        let instances = model.desired.keys().chain(model.retiring.keys()).chain(known().map(|(id, _)| id));
        (hashes, instances.cloned().collect::<BTreeSet<String>>())
    });
    hashes.extend(claims.keys().cloned());
    install::collect(&shared.places, &shared.discard, &hashes, &instances);
}

fn model_file(shared: &Shared, model: &PreparedModel) -> std::path::PathBuf {
    shared.places.models().join(format!("{}.onnx", model.archive))
}

type Opener = Box<dyn Fn(&Target) -> Result<OwnedFd, String> + Send + Sync>;

/// Opens the channels of one code node: what its ports are bound to, and nothing else.
fn opener(shared: &Arc<Shared>, id: &str, created_ms: i64, node: String, prepared: &Prepared) -> Opener {
    let places = shared.places.clone();
    let id = id.to_owned();
    let code = prepared.code.iter().find(|code| code.node == node).cloned();
    let streams = prepared.streams.clone();
    let launches: BTreeMap<String, belvedere_manifest::Launch> =
        prepared.application.cameras.iter().map(|camera| (camera.node.name.clone(), camera.launch)).collect();
    let shared = shared.clone();
    let models: BTreeMap<String, (PreparedModel, std::path::PathBuf)> =
        prepared.models.iter().map(|model| (model.node.clone(), (model.clone(), model_file(&shared, model)))).collect();
    Box::new(move |target| match target {
        Target::Frames { port, index } => {
            let input = code.as_ref().and_then(|code| code.inputs.iter().find(|input| input.name == *port));
            let camera = input.and_then(|input| input.bound.get(*index as usize));
            // Others may watch the same camera: that it is not asked for pictures for this node is not enough.
            let while_not_paused = || {
                let Some((camera, launch)) = camera.and_then(|camera| launches.get_key_value(camera)) else { return Ok(()) };
                let signal = shared.lock().wanted(&id).and_then(|wanted| wanted.signals.get(camera).copied());
                if paused(*launch, signal) {
                    return Err(format!("camera node {camera} is paused; it waits for a RESUME signal"));
                }
                Ok(())
            };
            while_not_paused()?;
            let stream = camera
                .and_then(|camera| streams.get(camera))
                .ok_or_else(|| format!("no camera {index} is bound to port {port}"))?;
            // Before it is asked for: a pause from now on finds that there is a stream to end.
            shared.note(|model| {
                if let (Some(known), Some(camera)) = (model.instances.get_mut(&id), camera) {
                    *known.opened.entry(camera.clone()).or_default() += 1;
                }
            });
            let channel = packet::connect(&places.frames).map_err(|error| format!("pictures of port {port}: {error}"))?;
            packet::send(
                &channel,
                &frames::Request::Subscribe { stream_id: stream.stream_id.clone(), owner: id.clone() },
                &[],
            )
            .map_err(|error| format!("pictures of port {port}: {error}"))?;
            // It may have been paused meanwhile, and open streams have been ended before this one was open.
            while_not_paused()?;
            Ok(channel)
        }
        Target::Model { name } => {
            let (model, file) = models.get(name).ok_or_else(|| format!("the application has no model node {name}"))?;
            model_keeper::open(&places.inference, &id, name, &model.inputs, file)
        }
        Target::Display { port } => {
            let output = code.as_ref().and_then(|code| code.outputs.iter().find(|output| output.name == *port));
            if output.is_none_or(|output| output.bound.is_empty()) {
                return Err(format!("port {port} leads to no display"));
            }
            let channel = packet::connect(&places.display).map_err(|error| format!("display: {error}"))?;
            let request =
                display::Request::Open { application_instance_id: id.clone(), started_us: created_ms.saturating_mul(1_000) };
            packet::send(&channel, &request, &[]).map_err(|error| format!("display: {error}"))?;
            Ok(channel)
        }
    })
}

/// Whether a removed instance may be forgotten.
pub fn forgotten(removed: Option<Instant>, now: Instant) -> bool {
    removed.is_some_and(|removed| now.saturating_duration_since(removed) > REMEMBERED)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

//! One thread per application instance: compares what is wanted with what is, and carries out the plan's steps.

use crate::deployment::{Prepared, PreparedModel};
use crate::health::{CodeHealth, ModelHealth, Stage};
use crate::install::{self, InstallError, Surroundings};
use crate::model_keeper::{self, ModelKeeper};
use crate::node_server::{Context, NodeServer};
use crate::plan::{Actual, Step, Wanted, plan};
use crate::shared::{Nodes, Shared};
use crate::supervisor::{Node, Supervisor, node_id};
use belvedere_device_protocol::{Deployment, DesiredState};
use belvedere_frames::packet;
use belvedere_interfaces::applications::DesiredDeployment;
use belvedere_interfaces::channel::{display, frames, node::Target};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a removed instance is still reported.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Starts the thread of an instance.
pub fn start(shared: Arc<Shared>, id: String) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        Worker { shared, id, actual: Actual::default(), prepared: None, running: None, refused: None }.run()
    })
}

struct Worker {
    shared: Arc<Shared>,
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
        let mut attempts = 0;
        loop {
            let (wanted, ending) = {
                let model = self.shared.lock();
                (model.desired.get(&self.id).cloned(), model.ending)
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
                self.shared.wait(Duration::from_secs(60));
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
                    self.stop();
                    self.shared.change(|model| {
                        if let (Some(known), Some(target)) = (model.instances.get_mut(&self.id), &target) {
                            known.sha256.clone_from(&target.sha256);
                            known.stage = Stage::Failed(problem);
                        }
                    });
                }
                Some(InstallError::Transient(problem)) => {
                    attempts += 1;
                    let wait = crate::health::back_off(attempts).min(Duration::from_secs(30));
                    log::warn!("{}: {problem}; trying again within {} s", self.id, wait.as_secs());
                    let stage = if wanted.is_some() { Stage::Installing(problem) } else { Stage::Removing(problem) };
                    if !matches!(self.shared.lock().instances.get(&self.id), Some(known) if known.stage == Stage::Deployed) {
                        self.set(stage);
                    }
                    // A change (new access, another wish) is worth an attempt at once, but not many a second.
                    std::thread::sleep(Duration::from_millis(500));
                    self.shared.wait(wait);
                }
            }
            if target.is_none() && self.may_go() {
                return;
            }
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
        self.shared.change(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                known.stage = stage;
            }
        });
    }

    fn step(&mut self, step: Step, wanted: Option<&DesiredDeployment>) -> Result<(), InstallError> {
        match (step, wanted) {
            (Step::Install(sha256), Some(wanted)) => {
                let prepared = self.install(&wanted.deployment, &sha256)?;
                self.prepared = Some(prepared);
                self.actual.installed = Some(sha256.clone());
                // Its containers do not run yet; say what the instance is about from now on.
                self.shared.change(|model| {
                    if let Some(known) = model.instances.get_mut(&self.id) {
                        known.sha256 = sha256;
                        known.stage = match wanted.deployment.desired_state {
                            DesiredState::Running => Stage::Installing("starting".into()),
                            DesiredState::Stopped => Stage::Stopped,
                        };
                    }
                });
                Ok(())
            }
            (Step::Start(sha256), Some(wanted)) => {
                self.start(&wanted.deployment)?;
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

    fn install(&self, deployment: &Deployment, sha256: &str) -> Result<Prepared, InstallError> {
        let shared = &self.shared;
        let _one = shared.installing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let go_on = || {
            let model = shared.lock();
            !model.ending && model.desired.get(&self.id).is_some_and(|wanted| wanted.sha256 == sha256)
        };
        let around = Surroundings {
            places: &shared.places,
            access: &|| shared.lock().access.clone(),
            go_on: &go_on,
            progress: &|text| {
                log::info!("{}: {text}", self.id);
                // An update is brought while the old one goes on.
                if self.actual.running.is_none() {
                    self.set(Stage::Installing(text));
                }
            },
            stream_key: &shared.stream_key,
        };
        install::install(deployment, &around)
    }

    fn start(&mut self, deployment: &Deployment) -> Result<(), InstallError> {
        let Some(prepared) = &self.prepared else { return Err(InstallError::Transient("nothing is installed".into())) };
        let places = &self.shared.places;
        let code: BTreeMap<String, Arc<Mutex<CodeHealth>>> =
            prepared.code.iter().map(|code| (code.node.clone(), Arc::default())).collect();
        let models: BTreeMap<String, Arc<Mutex<ModelHealth>>> =
            prepared.models.iter().map(|model| (model.node.clone(), Arc::default())).collect();
        let region = self.shared.change(|model| {
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
        let mut running = Running { supervisors: Vec::new(), _servers: Vec::new(), _models: Vec::new() };
        for model in &prepared.models {
            let health = models.get(&model.node).cloned().unwrap_or_default();
            let file = model_file(&self.shared, model);
            running._models.push(ModelKeeper::start(
                places.inference.clone(),
                model.node.clone(),
                model.inputs.clone(),
                file,
                health,
            ));
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
                open: opener(&self.shared, &self.id, deployment.created_ms, prepared_code.node.clone(), prepared),
            };
            let path = sockets.join("node.sock");
            let server = NodeServer::start(&path, context, health.clone())
                .map_err(|error| InstallError::Transient(format!("serve {}: {error}", path.display())))?;
            // Reached from inside the container by its own users; nobody else can see the directory's mount there.
            let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            std::fs::set_permissions(&path, open_to_all).map_err(transient)?;
            running._servers.push(server);
            running.supervisors.push(Supervisor::start(Node {
                places: places.clone(),
                spool: self.shared.spool.clone(),
                application_instance_id: self.id.clone(),
                node: prepared_code.node.clone(),
                region: region.clone(),
                tree: prepared_code.tree.clone(),
                entry: prepared_code.entry.clone(),
                sockets,
                health,
            }));
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
        self.shared.change(|model| {
            if let Some(nodes) = model.instances.get_mut(&self.id).and_then(|known| known.nodes.as_mut()) {
                nodes.active = false;
            }
        });
    }

    fn remove(&mut self) -> Result<(), InstallError> {
        self.set(Stage::Removing(String::new()));
        let directory = self.shared.places.instance(&self.id);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(InstallError::Transient(format!("remove {}: {error}", directory.display())));
            }
            _ => {}
        }
        // What other instances use stays; nobody unpacks meanwhile.
        {
            let _one = self.shared.installing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let desired: Vec<Deployment> =
                self.shared.lock().desired.values().map(|desired| desired.deployment.clone()).collect();
            install::collect(&self.shared.places, desired.iter());
        }
        self.actual = Actual::default();
        self.prepared = None;
        self.shared.change(|model| {
            if let Some(known) = model.instances.get_mut(&self.id) {
                known.stage = Stage::Removed;
                known.removed = Some(Instant::now());
                known.nodes = None;
            }
        });
        log::info!("{}: removed", self.id);
        Ok(())
    }
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
    let models: BTreeMap<String, (PreparedModel, std::path::PathBuf)> =
        prepared.models.iter().map(|model| (model.node.clone(), (model.clone(), model_file(shared, model)))).collect();
    Box::new(move |target| match target {
        Target::Frames { port, index } => {
            let input = code.as_ref().and_then(|code| code.inputs.iter().find(|input| input.name == *port));
            let camera = input.and_then(|input| input.bound.get(*index as usize));
            let stream = camera
                .and_then(|camera| streams.get(camera))
                .ok_or_else(|| format!("no camera {index} is bound to port {port}"))?;
            let channel = packet::connect(&places.frames).map_err(|error| format!("pictures of port {port}: {error}"))?;
            packet::send(&channel, &frames::Request::Subscribe { stream_id: stream.stream_id.clone() }, &[])
                .map_err(|error| format!("pictures of port {port}: {error}"))?;
            Ok(channel)
        }
        Target::Model { name } => {
            let (model, file) = models.get(name).ok_or_else(|| format!("the application has no model node {name}"))?;
            model_keeper::open(&places.inference, name, &model.inputs, file)
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

//! The service: what is asked of it by Varlink, the threads of instances, and the cameras that they all need together.

use crate::deployment::paused;
use crate::disk::{self, Shortage, Space};
use crate::health::{self, Stage};
use crate::install;
use crate::pauses::{self, Pauses};
use crate::places::Places;
use crate::shared::{Known, Model, Nodes, Retiring, Shared};
use crate::spool::Spool;
use crate::state::Store;
use crate::{supervisor, worker};
use belvedere_device_protocol::{ApplicationReport, NodeSignal};
use belvedere_interfaces::applications::{DesiredDeployment, GetReports, Reports, SetDesired, SetObjectAccess};
use belvedere_interfaces::camera::{GetStreams, SetStreams, StreamConfiguration};
use belvedere_interfaces::logs::ReadLogs;
use belvedere_interfaces::{Done, Failure};
use belvedere_varlink::{Client, Pulse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Application instances of an appliance (the guide says ten; a little more for those being replaced).
const INSTANCES: usize = 20;
/// How often the disk's room is looked at, and while it is short who has taken it.
const DISK_PERIOD: Duration = Duration::from_secs(20);
/// Containers are given a few seconds to end; the machine itself ends ten seconds after it was asked.
const END: Duration = Duration::from_secs(8);
/// A turn of the loop that follows wishes calls `camera` three times (10 s each at most) and tells the decoder of pauses;
/// behind the lock of the model nothing waits.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// The running service.
pub struct Service {
    shared: Arc<Shared>,
    store: Store,
    workers: Mutex<BTreeMap<String, JoinHandle<()>>>,
    /// Held while a set of wishes is kept and taken over: one after the other, both in the same order.
    wishing: Mutex<()>,
}

impl Service {
    /// Reads the state, ends what an earlier run left, and begins to bring back what is desired.
    pub fn start(places: Places) -> Result<Arc<Service>, String> {
        let store = Store::open(&places.state)?;
        std::fs::create_dir_all(places.run.join("nodes"))
            .map_err(|error| format!("make {}: {error}", places.run.display()))?;
        for path in [&places.run, &places.run.join("nodes")] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(path, mode).map_err(|error| format!("set the mode of {}: {error}", path.display()))?;
        }
        supervisor::clean_up(&places);
        let region = store.region().unwrap_or_else(|| "us-east-1".into());
        let shared = Arc::new(Shared::new(places, store.stream_key()?, region));
        let service =
            Arc::new(Service { shared: shared.clone(), store, workers: Mutex::default(), wishing: Mutex::default() });
        let discard = shared.discard.clone();
        match service.store.desired() {
            Ok(desired) => {
                service.adopt(desired.deployments);
                worker::collect(&shared);
            }
            Err(problem) => log::error!("{problem}; waiting for the service to say what is desired"),
        }
        std::thread::spawn(move || {
            // Behind what people wait for: it is only room that this makes.
            let _ = rustix::process::setpriority_process(None, 10);
            discard.run(&|| true);
        });
        let watched = shared.clone();
        std::thread::spawn(move || watch_disk(&watched));
        let cameras = service.clone();
        std::thread::spawn(move || watch_cameras(&cameras));
        Ok(service)
    }

    /// Serves `org.belvedere.Applications` and `org.belvedere.Logs`.
    pub fn serve(self: &Arc<Service>) -> Result<impl Sized + use<>, String> {
        let (one, two, three, spool) = (self.clone(), self.clone(), self.clone(), self.shared.spool.clone());
        let watched = self.shared.clone();
        let server = belvedere_varlink::Server::bind(&self.shared.places.socket)
            .map_err(|error| error.to_string())?
            .watch(Pulse::new("calls", LONGEST_TURN), move || watched.is_free())
            .route(move |call: SetDesired, _| one.set_desired(call))
            .route(move |call: SetObjectAccess, _| Ok(two.set_access(call)))
            .route(move |_: GetReports, _| Ok(three.reports()))
            .route(move |call: ReadLogs, _| Ok(spool.read(call.after, call.limit)))
            .spawn();
        Ok(server)
    }

    fn set_desired(&self, desired: SetDesired) -> Result<Done, Failure> {
        let invalid = |message: String| Failure { reason: "invalid_parameter".into(), message };
        let mut seen = BTreeSet::new();
        for wanted in &desired.deployments {
            let id = &wanted.deployment.application_instance_id;
            let plain =
                (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if !plain || !seen.insert(id) {
                return Err(invalid("an application instance identifier is not plain or is there twice".into()));
            }
            if wanted.sha256.len() != 64 || !wanted.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid(format!("{id}: the SHA-256 is not 64 hexadecimal digits")));
            }
        }
        if desired.deployments.len() > INSTANCES {
            return Err(invalid(format!("more than {INSTANCES} application instances")));
        }
        let _wishing = self.wishing.lock().unwrap_or_else(PoisonError::into_inner);
        let same = {
            let model = self.shared.lock();
            model.desired.len() == desired.deployments.len()
                && desired
                    .deployments
                    .iter()
                    .all(|wanted| model.desired.get(&wanted.deployment.application_instance_id) == Some(wanted))
        };
        // What cannot be read is not the same, even if nothing is wanted: nobody knows what it leaves behind.
        let readable = self.store.desired().is_ok();
        if !same || !readable {
            // On the medium before it is begun: after a power cut the appliance goes on with it.
            self.store.set_desired(&desired).map_err(|message| Failure { reason: "storage".into(), message })?;
            self.adopt(desired.deployments);
            if !readable {
                worker::collect(&self.shared);
            }
        }
        Ok(Done {})
    }

    /// Takes a new set of wishes over, and starts threads for instances that have none.
    fn adopt(&self, deployments: Vec<DesiredDeployment>) {
        let ran = |id: &str| self.store.running(&self.shared.places.instance(id));
        let desired: BTreeMap<String, DesiredDeployment> =
            deployments.into_iter().map(|wanted| (wanted.deployment.application_instance_id.clone(), wanted)).collect();
        self.shared.wish(|model| {
            let retiring = retiring(model, &desired, &ran);
            model.desired = desired;
            model.retiring = retiring;
            let wanted: Vec<(String, String)> = model
                .desired
                .iter()
                .chain(model.retiring.iter().map(|(id, retiring)| (id, &retiring.desired)))
                .map(|(id, wanted)| (id.clone(), wanted.sha256.clone()))
                .collect();
            for (id, sha256) in wanted {
                let known = model.instances.entry(id.clone()).or_insert_with(|| {
                    let mut known = Known::new(sha256.clone());
                    // What it may go back to is not collected.
                    let ran = ran(&id);
                    known.holds = ran.iter().flat_map(|ran| install::hashes(&ran.deployment)).map(str::to_owned).collect();
                    known
                });
                // What runs is reported as what it is, until the new one is installed.
                let runs = matches!(known.stage, Stage::Deployed | Stage::UpdateFailed(_));
                if known.removed.take().is_some() || (known.sha256 != sha256 && !runs) {
                    known.sha256 = sha256;
                    known.stage = Stage::Requested;
                }
            }
            let now = Instant::now();
            let (desired, retiring) = (&model.desired, &model.retiring);
            model.instances.retain(|id, known| {
                desired.contains_key(id) || retiring.contains_key(id) || !worker::forgotten(known.removed, now)
            });
        });
        self.start_workers();
    }

    /// Gives a thread to each instance that has none. One that gets none now, because the threads that this process may
    /// have are used up, gets it later: [`watch_cameras`] asks again.
    fn start_workers(&self) {
        let ids: Vec<String> = self.shared.note(|model| {
            let ending = model.ending;
            let without = model.instances.iter_mut().filter(|(_, known)| known.removed.is_none() && !known.has_worker);
            without
                .filter(|_| !ending)
                .map(|(id, known)| {
                    known.has_worker = true;
                    id.clone()
                })
                .collect()
        });
        let Ok(mut workers) = self.workers.lock() else { return };
        for id in ids {
            match worker::start(self.shared.clone(), self.store.clone(), id.clone()) {
                Ok(thread) => drop(workers.insert(id, thread)),
                Err(error) => {
                    log::error!("{id} waits: start a thread: {error}");
                    self.shared.note(|model| {
                        if let Some(known) = model.instances.get_mut(&id) {
                            known.has_worker = false;
                        }
                    });
                }
            }
        }
    }

    fn set_access(&self, access: SetObjectAccess) -> Done {
        let region = access.region.clone();
        let changed = self.shared.wish(|model| {
            model.access = Some(access);
            let changed = model.region != region;
            model.region.clone_from(&region);
            changed
        });
        if changed {
            self.store.set_region(&region);
        }
        Done {}
    }

    /// How all instances are.
    pub fn reports(&self) -> Reports {
        let model = self.shared.lock();
        let now = Instant::now();
        let applications = model
            .instances
            .iter()
            .filter(|(_, known)| !worker::forgotten(known.removed, now))
            .map(|(id, known)| report(id, known, &model, now))
            .collect();
        Reports { applications }
    }

    /// Lines that wait.
    pub fn spool(&self) -> &Spool {
        &self.shared.spool
    }

    /// Stops all containers; what is desired stays desired.
    pub fn end(&self) {
        self.shared.wish(|model| model.ending = true);
        let workers = self.workers.lock().map(|mut workers| std::mem::take(&mut *workers)).unwrap_or_default();
        // One that does not come back must not keep the machine from ending.
        let until = Instant::now() + END;
        while Instant::now() < until && workers.values().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for (id, thread) in workers {
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                log::warn!("{id} does not end in time; the next start ends what is left of it");
            }
        }
    }
}

/// Which instances go on although they are not desired: those that a desired one replaces that has never run.
fn retiring(
    model: &Model,
    desired: &BTreeMap<String, DesiredDeployment>,
    ran: &dyn Fn(&str) -> Option<DesiredDeployment>,
) -> BTreeMap<String, Retiring> {
    let mut retiring = BTreeMap::new();
    for (new, wanted) in desired {
        let Some(old) = wanted.deployment.replaces.as_ref().filter(|old| !desired.contains_key(*old)) else { continue };
        let plain = !old.is_empty() && old.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain || ran(new).is_some() {
            continue;
        }
        // What an instance was to replace that never ran itself goes on for the one that comes in its place.
        let waiting = model
            .retiring
            .iter()
            .filter(|(id, known)| (known.replaced_by == *old || known.replaced_by == *new) && !desired.contains_key(*id));
        let waiting = waiting.map(|(id, known)| (id.clone(), Retiring { replaced_by: new.clone(), ..known.clone() }));
        retiring.extend(waiting);
        let removed = model.instances.get(old).is_some_and(|known| known.removed.is_some());
        if removed || retiring.contains_key(old) {
            continue;
        }
        // From this process's memory, or what the one before it kept on the disk. One that never ran is not waited for.
        let Some(kept) = ran(old) else { continue };
        let before = model.desired.get(old).or_else(|| model.retiring.get(old).map(|retiring| &retiring.desired));
        let desired = before.cloned().unwrap_or(kept);
        retiring.insert(old.clone(), Retiring { desired, replaced_by: new.clone() });
    }
    retiring
}

fn report(id: &str, known: &Known, model: &Model, now: Instant) -> ApplicationReport {
    let signals = signals(model, id);
    let nodes = known.nodes.as_ref().map(|nodes| node_reports(nodes, &model.streams, &signals, now)).unwrap_or_default();
    let code: Vec<String> = known.nodes.iter().flat_map(|nodes| nodes.code.keys().cloned()).collect();
    let runs = matches!(known.stage, Stage::Deployed | Stage::UpdateFailed(_));
    let retiring = model.retiring.get(id).filter(|_| runs).map(|retiring| {
        let new = &retiring.replaced_by;
        Stage::Retiring(match model.instances.get(new).map(|known| &known.stage) {
            Some(Stage::Failed(_)) => format!("goes on running: {new}, which replaces it, cannot be deployed"),
            _ => format!("runs until {new}, which replaces it, is ready"),
        })
    });
    // What can be changed comes before what is so.
    let blame = model.shortage.as_ref().and_then(|shortage| shortage.blame(id));
    let update = known.update.as_ref().map(|update| format!("a newer version is on its way: {update}"));
    let remarks = blame.into_iter().chain(update).chain(known.missing.iter().cloned()).collect();
    let stage = retiring.as_ref().unwrap_or(&known.stage);
    health::application(health::Facts { id, sha256: &known.sha256, stage, nodes, code: &code, remarks })
}

fn node_reports(
    nodes: &Nodes,
    streams: &BTreeMap<String, belvedere_interfaces::camera::StreamStatus>,
    signals: &Signals,
    now: Instant,
) -> Vec<belvedere_device_protocol::NodeReport> {
    let application = &nodes.application;
    let mut reports = Vec::new();
    for camera in &application.cameras {
        let name = &camera.node.name;
        let stream = nodes.streams.get(name).and_then(|configuration| streams.get(&configuration.stream_id));
        reports.push(health::camera(name, paused(camera.launch, signals.get(name).copied()), stream));
    }
    for code in &application.code {
        let state = nodes.code.get(&code.node.name).and_then(|health| health.lock().ok().map(|health| health.clone()));
        reports.push(health::code(&code.node.name, &state.unwrap_or_default(), now));
    }
    for model in &application.models {
        let state = nodes.models.get(&model.node.name).and_then(|health| health.lock().ok().map(|health| health.clone()));
        reports.push(health::model(&model.node.name, &state.unwrap_or_default()));
    }
    reports.extend(application.sinks.iter().map(|sink| health::sink(&sink.node.name)));
    reports
}

type Signals = BTreeMap<String, NodeSignal>;

/// What was signalled to an instance's cameras.
fn signals(model: &Model, id: &str) -> Signals {
    model.wanted(id).map(|desired| desired.signals.clone()).unwrap_or_default()
}

/// The streams that all running instances need together, each once. Paused cameras need none.
pub fn wanted_streams(model: &Model) -> Vec<StreamConfiguration> {
    let mut streams = BTreeMap::new();
    for (id, known) in &model.instances {
        let Some(nodes) = known.nodes.as_ref().filter(|nodes| nodes.active) else { continue };
        let signals = signals(model, id);
        for camera in &nodes.application.cameras {
            let name = &camera.node.name;
            if paused(camera.launch, signals.get(name).copied()) {
                continue;
            }
            if let Some(configuration) = nodes.streams.get(name) {
                streams.entry(configuration.stream_id.clone()).or_insert_with(|| configuration.clone());
            }
        }
    }
    streams.into_values().collect()
}

/// Looks who has taken the disk's room. May take seconds; not to be called with a lock.
pub fn measure(shared: &Shared) -> Shortage {
    let nothing = Space { free: 0, total: 0, free_files: 0, files: 0 };
    let space = Space::of(&shared.places.state).unwrap_or(nothing);
    let ids: Vec<String> = shared.lock().instances.keys().cloned().collect();
    let used = ids.into_iter().filter_map(|id| {
        let usage = disk::usage(&shared.places.instance(&id), disk::NAMES).ok()?;
        // Who has a twentieth of the disk or of its files has much.
        let much = usage.bytes > space.total / 20 || (space.files > 0 && usage.files > space.files / 20) || !usage.whole;
        much.then_some((id, usage))
    });
    Shortage { space, largest: used.max_by_key(|(_, usage)| (usage.bytes, usage.files)) }
}

/// Says who fills the disk for as long as it is full: in the status, in the log, and to the application itself.
fn watch_disk(shared: &Shared) {
    let mut said: Option<Option<String>> = None;
    let mut measured: Option<Measured> = None;
    while !shared.lock().ending {
        let short = Space::of(&shared.places.state).is_ok_and(|space| space.is_short());
        if !short {
            measured = None;
        } else if measured.as_ref().is_none_or(|measured| measured.is_old(Instant::now())) {
            let began = Instant::now();
            let shortage = measure(shared);
            let at = Instant::now();
            measured = Some(Measured { shortage, took: at - began, at });
        }
        let shortage = measured.as_ref().map(|measured| measured.shortage.clone());
        let largest = shortage.as_ref().map(|shortage| shortage.largest.as_ref().map(|(id, _)| id.clone()));
        if largest != said {
            match &shortage {
                Some(shortage) => log::warn!("{}", shortage.words()),
                None => log::info!("the disk has room again"),
            }
            if let Some((shortage, id)) = shortage.as_ref().zip(largest.clone().flatten())
                && let Some(text) = shortage.blame(&id)
            {
                shared.spool.push(&id, supervisor::CONSOLE, text.as_bytes());
            }
            said = largest;
        }
        shared.note(|model| model.shortage = shortage);
        std::thread::sleep(DISK_PERIOD);
    }
}

/// What was found the last time that applications' files were added up.
struct Measured {
    shortage: Shortage,
    took: Duration,
    at: Instant,
}

impl Measured {
    /// Adding up again takes a tenth of one processor at most, however many files somebody has made: with forty thousand
    /// levels of directories and a busy processor, it took minutes.
    fn is_old(&self, now: Instant) -> bool {
        now - self.at >= 9 * self.took
    }
}

/// Tells `camera` what to watch, again whenever it has forgotten (it may restart), and learns how the streams are. Since
/// it looks every two seconds, it also asks for the threads that could not be started.
fn watch_cameras(service: &Service) {
    let shared = &service.shared;
    let mut client: Option<Client> = None;
    let mut told: Option<Vec<StreamConfiguration>> = None;
    let mut pauses = Pauses::default();
    let pulse = Pulse::new("wishes", LONGEST_TURN);
    while !shared.lock().ending {
        pulse.beat();
        service.start_workers();
        let (wanted, paused) = {
            let model = shared.lock();
            (wanted_streams(&model), pauses::pauses(&model))
        };
        pauses.follow(&shared.places, &paused);
        if client.is_none() {
            client = Client::connect(&shared.places.camera).ok();
        }
        if let Some(connection) = client.as_mut() {
            match round(connection, &wanted, &mut told) {
                Ok(streams) => shared.lock().streams = streams,
                Err(error) => {
                    log::warn!("camera: {error}");
                    client = None;
                    shared.lock().streams.clear();
                }
            }
        }
        // Not rung at each change of the model: a change of cameras may wait two seconds.
        std::thread::sleep(Duration::from_secs(2));
    }
}

type Statuses = BTreeMap<String, belvedere_interfaces::camera::StreamStatus>;

fn round(
    connection: &mut Client,
    wanted: &[StreamConfiguration],
    told: &mut Option<Vec<StreamConfiguration>>,
) -> Result<Statuses, belvedere_varlink::CallError> {
    let ask = |connection: &mut Client| -> Result<Statuses, belvedere_varlink::CallError> {
        let streams = connection.call(&GetStreams {})?.streams;
        Ok(streams.into_iter().map(|status| (status.stream_id.clone(), status)).collect())
    };
    let mut streams = ask(connection)?;
    let same = streams.len() == wanted.len() && wanted.iter().all(|wanted| streams.contains_key(&wanted.stream_id));
    if !same || told.as_deref().is_some_and(|told| told != wanted) {
        connection.call(&SetStreams { streams: wanted.to_vec() })?;
        log::info!("camera: {} streams are wanted", wanted.len());
        streams = ask(connection)?;
    }
    *told = Some(wanted.to_vec());
    Ok(streams)
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

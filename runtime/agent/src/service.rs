//! The running agent: joins the link, HTTPS and the appliance's other processes.
//!
//! Three threads besides MQTT's: the loop here (owns the core), one that fetches and hands over deployments, one that sends
//! log lines. They share nothing but channels; each HTTPS thread has its own short-lived credentials.

use crate::core::{Core, FetchError, Output};
use crate::jobs::{Action, Jobs};
use crate::link::{Heard, Link};
use crate::logs::{Batch, Limits, Position, Verdict, batches, verdict};
use crate::release::{self, Asking};
use crate::web::{Web, WebError};
use belvedere_device_protocol::shadow::{DeploymentReference, DeviceState};
use belvedere_device_protocol::{Deployment, NetworkStatus};
use belvedere_interfaces::applications::{DesiredDeployment, GetReports, SetDesired, SetObjectAccess};
use belvedere_interfaces::front_panel::{NetworkCondition, SetNetwork};
use belvedere_interfaces::logs::ReadLogs;
use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::network::GetStatus;
use belvedere_interfaces::provisioning::{GetIdentity, Identity, RELEASED};
use belvedere_varlink::{CallError, Client};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often `applications` is asked while something changes, and otherwise.
const BUSY_PERIOD: Duration = Duration::from_secs(2);
const CALM_PERIOD: Duration = Duration::from_secs(10);
/// How often the network's status and the identity's generation are looked at.
const STATUS_PERIOD: Duration = Duration::from_secs(15);
/// How often lines are looked for; doubled up to [`LAST_LOG_WAIT`] while the service does not take them.
const LOG_PERIOD: Duration = Duration::from_secs(5);
const LAST_LOG_WAIT: Duration = Duration::from_secs(60);
/// Lines of one look.
const LOG_LINES: u32 = 500;
/// Positions are written at most so often: losing one costs a few lines sent twice.
const POSITION_PERIOD: Duration = Duration::from_secs(60);
const POSITIONS: &str = "log-positions.json";
/// Keys are not renewed more often, seconds.
const RENEW_AGAIN: i64 = 30;
/// Events waiting for the loop; MQTT's thread waits when it is full.
const EVENTS: usize = 64;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sockets of the appliance's other processes.
    pub provisioning: PathBuf,
    /// Likewise.
    pub applications: PathBuf,
    /// Likewise.
    pub network: PathBuf,
    /// Likewise.
    pub init: PathBuf,
    /// Likewise.
    pub front_panel: PathBuf,
    /// Directory of what the agent keeps.
    pub state: PathBuf,
    /// Directory of the release: `version`, `board`.
    pub release: PathBuf,
    /// File with the kernel's boot identifier.
    pub boot_id: PathBuf,
}

/// Runs until the process ends.
pub fn run(options: &Options) -> ! {
    belvedere_varlink::notify_ready();
    loop {
        let identity = wait_for_identity(options);
        log::info!("{} speaks with {}:{}", identity.thing_name, identity.endpoints.mqtt.host, identity.endpoints.mqtt.port);
        match Session::start(options, &identity) {
            Ok(mut session) => {
                if session.run(options, &identity) == Ended::Released {
                    drop(session);
                    tell_front_panel(options, None);
                    release::give_up(options, &identity);
                }
            }
            Err(message) => {
                log::error!("{message}; provision the appliance again");
                std::thread::sleep(STATUS_PERIOD);
            }
        }
    }
}

fn wait_for_identity(options: &Options) -> Identity {
    let (mut wait, mut said) = (Duration::from_secs(1), String::new());
    loop {
        match belvedere_varlink::call(&options.provisioning, &GetIdentity {}) {
            Ok(identity) => return identity,
            Err(CallError::Failure(failure)) if failure.reason == RELEASED => release::clear(options, &[POSITIONS]),
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    log::info!("no identity yet: {text}");
                    said = text;
                }
            }
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

enum Event {
    Link(Heard),
    Documents(BTreeMap<String, (DeploymentReference, Result<Box<Deployment>, FetchError>)>),
    Applied(Vec<(String, String)>, bool),
    /// Whether the service has released the appliance.
    Released(bool),
}

enum Task {
    /// Ask whether the service has released the appliance.
    AskForRelease,
    Fetch(BTreeMap<String, DeploymentReference>),
    Apply(Vec<DesiredDeployment>),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Another identity is in force, or none.
    OtherIdentity,
    /// The service has released the appliance.
    Released,
}

/// Whether what an identity brings may still be handed to `applications`. Who has closed it knows that nothing follows,
/// whatever waited or was under way.
#[derive(Clone, Default)]
struct Gate {
    closed: Arc<AtomicBool>,
    passing: Arc<Mutex<()>>,
}

impl Gate {
    fn close(&self) {
        // First, so that what passes now is the last, however the lock is handed on.
        self.closed.store(true, Ordering::Release);
        drop(self.passing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Does it, unless the gate is closed.
    fn pass<T>(&self, hand_over: impl FnOnce() -> Result<T, CallError>) -> Result<T, String> {
        let _passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err("another identity is in force, or none".to_owned());
        }
        hand_over().map_err(|error| error.to_string())
    }
}

/// The time with one identity.
struct Session {
    core: Core,
    link: Link,
    events: Receiver<Event>,
    jobs: Jobs,
    asking: Asking,
    released: bool,
    tasks: Sender<Task>,
    init: PathBuf,
    _ending: Ending,
    began: Instant,
}

/// Ends the threads of a session when dropped, also of one that did not come to be.
struct Ending {
    stop: Arc<AtomicBool>,
    gate: Gate,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.gate.close();
    }
}

impl Session {
    fn start(options: &Options, identity: &Identity) -> Result<Self, String> {
        let (sender, events) = sync_channel(EVENTS);
        let ending = Ending { stop: Arc::default(), gate: Gate::default() };
        let (tasks, task_receiver) = channel();
        let (deployer, lines) = (Web::new(identity)?, Web::new(identity)?);
        let results = sender.clone();
        let (applications, ca_pem, region) =
            (options.applications.clone(), identity.service_ca_pem.clone(), identity.endpoints.region.clone());
        let gate = ending.gate.clone();
        std::thread::spawn(move || {
            Deployer { web: deployer, applications, ca_pem, region, renew: false, gate }.run(&task_receiver, &results)
        });
        let heard = sender.clone();
        let (log_options, device_id, log_stop) = (options.clone(), identity.device_id.clone(), Arc::clone(&ending.stop));
        std::thread::spawn(move || send_logs(&log_options, &device_id, lines, &log_stop, &heard));
        let link = Link::start(identity, move |heard| drop(sender.send(Event::Link(heard)))).map_err(|e| e.to_string())?;
        let core = Core::new(&identity.thing_name);
        let jobs = Jobs::new(&identity.thing_name, &boot_id(options), random());
        let init = options.init.clone();
        let asking = Asking::new(Duration::ZERO, random());
        let (released, began) = (false, Instant::now());
        Ok(Self { core, jobs, asking, released, link, events, tasks, init, _ending: ending, began })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Until another identity is in force, or the service has released the appliance.
    fn run(&mut self, options: &Options, identity: &Identity) -> Ended {
        let mut applications = Asked::new(&options.applications);
        let (mut next_reports, mut next_status) = (Duration::ZERO, Duration::ZERO);
        loop {
            let now = self.now();
            if now >= next_reports {
                self.ask_applications(&mut applications, now);
                next_reports = now + if self.core.busy() { BUSY_PERIOD } else { CALM_PERIOD };
            }
            if now >= next_status {
                next_status = now + STATUS_PERIOD;
                let outputs = self.core.device(device_state(options), now);
                self.carry_out(outputs);
                match belvedere_varlink::call(&options.provisioning, &GetIdentity {}) {
                    // The whole of it: a count that began anew would look like no change.
                    Ok(other) if other != *identity => {
                        log::info!("there is a new identity; starting over");
                        tell_front_panel(options, None);
                        return Ended::OtherIdentity;
                    }
                    Err(CallError::Failure(failure)) if failure.reason == RELEASED => return Ended::OtherIdentity,
                    _ => {}
                }
            }
            if self.asking.ask(now, random()) && self.tasks.send(Task::AskForRelease).is_err() {
                self.asking.answered();
            }
            let deadlines = [self.core.deadline(), self.jobs.deadline(), self.asking.deadline()];
            let deadline = deadlines.into_iter().flatten().fold(next_reports.min(next_status), Duration::min);
            match self.events.recv_timeout(deadline.saturating_sub(self.now())) {
                Ok(event) => {
                    let changed = !matches!(event, Event::Link(Heard::Message { .. }));
                    self.event(options, event);
                    // Something happens: look sooner.
                    if changed {
                        next_reports = next_reports.min(self.now() + BUSY_PERIOD);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ended::OtherIdentity,
            }
            if self.released {
                return Ended::Released;
            }
            let outputs = self.core.poll(self.now());
            self.carry_out(outputs);
            let actions = self.jobs.poll(self.now());
            self.carry_out_jobs(actions);
        }
    }

    fn event(&mut self, options: &Options, event: Event) {
        let now = self.now();
        let outputs = match event {
            Event::Link(Heard::Connected) => {
                tell_front_panel(options, Some(NetworkCondition::Communicating));
                self.asking.connected();
                let actions = self.jobs.connected(now);
                self.carry_out_jobs(actions);
                self.core.connected(now)
            }
            Event::Link(Heard::Disconnected) => {
                tell_front_panel(options, None);
                self.asking.disconnected(now, random());
                self.core.disconnected();
                self.jobs.disconnected();
                Vec::new()
            }
            Event::Link(Heard::Message { topic, payload }) if self.jobs.hears(&topic) => {
                let actions = self.jobs.message(&topic, &payload, now);
                self.carry_out_jobs(actions);
                Vec::new()
            }
            Event::Link(Heard::Message { topic, payload }) => self.core.message(&topic, &payload, now),
            Event::Documents(documents) => self.core.documents(documents, now),
            Event::Applied(set, accepted) => self.core.applied(&set, accepted, now),
            Event::Released(released) => {
                self.asking.answered();
                self.released |= released;
                Vec::new()
            }
        };
        self.carry_out(outputs);
    }

    fn ask_applications(&mut self, applications: &mut Asked, now: Duration) {
        match applications.ask(&GetReports {}) {
            Ok((reports, restarted)) => {
                if restarted {
                    self.core.applications_restarted();
                }
                let outputs = self.core.reports(reports.applications, now);
                self.carry_out(outputs);
            }
            Err(error) => log::debug!("ask for reports: {error}"),
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let done = match output {
                Output::Subscribe(topics) => self.link.subscribe(&topics),
                Output::Publish { topic, payload } => self.link.publish(&topic, &payload),
                Output::Fetch(references) => self.tasks.send(Task::Fetch(references)).is_ok(),
                Output::Apply(set) => self.tasks.send(Task::Apply(set)).is_ok(),
            };
            if !done {
                // The next connection compares everything again.
                log::warn!("a message to the service could not be queued");
            }
        }
    }

    fn carry_out_jobs(&mut self, actions: Vec<Action>) {
        let mut waiting = VecDeque::from(actions);
        while let Some(action) = waiting.pop_front() {
            let done = match action {
                Action::Subscribe(topics) => self.link.subscribe(&topics),
                Action::Publish { topic, payload } => self.link.publish(&topic, &payload),
                Action::Restart { why } => {
                    log::info!("asking for a restart: {why}");
                    let answer = belvedere_varlink::call(&self.init, &Restart { why }).map(drop).map_err(|e| e.to_string());
                    waiting.extend(self.jobs.restart_answered(answer, self.began.elapsed()));
                    true
                }
            };
            if !done {
                // Without an answer it is asked again.
                log::warn!("a message about jobs could not be queued");
            }
        }
    }
}

/// A process that is asked again and again; notices when it was restarted.
struct Asked {
    path: PathBuf,
    client: Option<Client>,
    pid: Option<i32>,
}

impl Asked {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), client: None, pid: None }
    }

    /// The answer, and whether another process gave it than the last time.
    fn ask<M: belvedere_interfaces::Method>(&mut self, method: &M) -> Result<(M::Reply, bool), CallError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path)?,
        };
        let reply = client.call(method)?;
        let pid = client.server().map(|peer| peer.pid);
        let restarted = self.pid.is_some() && pid.is_some() && self.pid != pid;
        self.pid = pid.or(self.pid);
        self.client = Some(client);
        Ok((reply, restarted))
    }

    fn pid(&self) -> i32 {
        self.pid.unwrap_or(0)
    }
}

fn tell_front_panel(options: &Options, condition: Option<NetworkCondition>) {
    let call = SetNetwork { source: "agent".into(), condition };
    if let Err(error) = belvedere_varlink::call(&options.front_panel, &call) {
        log::debug!("tell the front panel: {error}");
    }
}

/// Of the running kernel; empty when it cannot be read.
fn boot_id(options: &Options) -> String {
    let text = std::fs::read_to_string(&options.boot_id).unwrap_or_else(|error| {
        log::error!("read {}: {error}", options.boot_id.display());
        String::new()
    });
    text.trim().to_owned()
}

fn device_state(options: &Options) -> DeviceState {
    let text = |name: &str| {
        let text = std::fs::read_to_string(options.release.join(name)).unwrap_or_default();
        text.trim().chars().take(64).collect::<String>()
    };
    let network = belvedere_varlink::call(&options.network, &GetStatus {}).unwrap_or_else(|error| {
        log::debug!("ask for the network's status: {error}");
        NetworkStatus::default()
    });
    let uptime_s = u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0);
    DeviceState { software_version: text("version"), board: text("board"), network, uptime_s }
}

/// When the keys are renewed next: when they are about to end; soon, when that failed or there are none, because they were
/// thrown away and the service could not be reached; never sooner than `not_before`, whatever a clock that is wrong makes
/// of their end.
fn renewal(failed: bool, renew_at: Option<i64>, not_before: i64) -> i64 {
    renew_at.filter(|_| !failed).map_or(not_before, |at| at.max(not_before))
}

/// The thread that brings documents and hands sets to `applications`.
struct Deployer {
    web: Web,
    applications: PathBuf,
    ca_pem: String,
    region: String,
    /// Whether `applications` has keys that must be renewed.
    renew: bool,
    gate: Gate,
}

impl Deployer {
    fn run(mut self, tasks: &Receiver<Task>, results: &SyncSender<Event>) {
        let (mut failed, mut not_before) = (false, i64::MIN);
        loop {
            let renew_at = self.renew.then(|| renewal(failed, self.web.renew_at(), not_before));
            let wait = renew_at.map_or(Duration::from_secs(3600), |at| {
                Duration::from_secs(u64::try_from(at.saturating_sub(now_seconds())).unwrap_or(0))
            });
            let result = match tasks.recv_timeout(wait) {
                Ok(Task::Fetch(references)) => Event::Documents(
                    references
                        .into_iter()
                        .map(|(id, reference)| {
                            let document = self.web.deployment(&reference, now_seconds());
                            (id, (reference, document))
                        })
                        .collect(),
                ),
                Ok(Task::Apply(set)) => {
                    let event = self.apply(set);
                    not_before = now_seconds() + RENEW_AGAIN;
                    event
                }
                Ok(Task::AskForRelease) => {
                    let event = Event::Released(self.web.is_released(now_seconds()));
                    not_before = now_seconds() + RENEW_AGAIN;
                    event
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.renew {
                        let result = self.give_access();
                        failed = result.is_err();
                        not_before = now_seconds() + RENEW_AGAIN;
                        if let Err(message) = result {
                            log::warn!("renew the object store's keys: {message}");
                        }
                    }
                    continue;
                }
            };
            if results.send(result).is_err() {
                return;
            }
        }
    }

    fn give_access(&mut self) -> Result<(), String> {
        let access = self.web.access(now_seconds()).map_err(|error| error.to_string())?;
        let call = SetObjectAccess {
            endpoint: self.web.endpoint().to_owned(),
            ca_pem: self.ca_pem.clone(),
            region: self.region.clone(),
            access_key_id: access.credentials.access_key_id,
            secret_access_key: access.credentials.secret_access_key,
            session_token: access.credentials.session_token,
            expires: access.expires,
        };
        self.gate.pass(|| belvedere_varlink::call(&self.applications, &call)).map(drop)
    }

    fn apply(&mut self, set: Vec<DesiredDeployment>) -> Event {
        let names: Vec<(String, String)> =
            set.iter().map(|d| (d.deployment.application_instance_id.clone(), crate::core::state_of(d))).collect();
        self.renew = !set.is_empty();
        // What is on the disk already runs without keys.
        if self.renew
            && let Err(message) = self.give_access()
        {
            log::warn!("give applications the object store's keys: {message}");
        }
        let call = SetDesired { deployments: set };
        let accepted = match self.gate.pass(|| belvedere_varlink::call(&self.applications, &call)) {
            Ok(_) => {
                log::info!("applications has the desired set: {:?}", names.iter().map(|(id, _)| id).collect::<Vec<_>>());
                true
            }
            Err(error) => {
                log::warn!("hand the desired set to applications: {error}");
                false
            }
        };
        Event::Applied(names, accepted)
    }
}

/// The thread that sends lines. Lines are forgotten by their servers only after the service took them.
fn send_logs(options: &Options, device_id: &str, mut web: Web, stop: &AtomicBool, heard: &SyncSender<Event>) {
    let boot_id = boot_id(options);
    let mut positions: BTreeMap<String, Position> = belvedere_durable::read_file(&options.state, POSITIONS, 64 << 10)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut sources = [("applications", Asked::new(&options.applications)), ("init", Asked::new(&options.init))];
    let (mut wait, mut written, mut said) = (LOG_PERIOD, Instant::now(), String::new());
    while !stop.load(Ordering::Acquire) {
        let (mut more, mut failed, mut changed) = (false, false, false);
        for (name, source) in &mut sources {
            match send_lines(name, source, positions.entry((*name).to_owned()).or_default(), &boot_id, device_id, &mut web) {
                Ok(count) => {
                    changed |= count > 0;
                    more |= count >= LOG_LINES as usize;
                }
                Err(_) if web.heard_of_release() => {
                    // An appliance that still is connected, by a broker that has not heard, hears it here within the hour.
                    let _ = heard.send(Event::Released(true));
                    return;
                }
                Err(message) => {
                    // Said once: this line becomes one of those that wait.
                    let text = format!("lines of {name}: {message}");
                    if text != said {
                        log::warn!("{text}; they wait");
                        said = text;
                    }
                    failed = true;
                }
            }
        }
        if changed && written.elapsed() >= POSITION_PERIOD {
            written = Instant::now();
            let bytes = serde_json::to_vec(&positions).unwrap_or_default();
            if let Err(error) = belvedere_durable::write_file(&options.state, POSITIONS, &bytes, 0o600) {
                log::warn!("{error}");
            }
        }
        wait = if failed { (wait * 2).min(LAST_LOG_WAIT) } else { LOG_PERIOD };
        if !more || failed {
            std::thread::sleep(wait);
        }
    }
}

fn send_lines(
    name: &str,
    source: &mut Asked,
    position: &mut Position,
    boot_id: &str,
    device_id: &str,
    web: &mut Web,
) -> Result<usize, String> {
    let after = position.after(boot_id, source.pid());
    let (mut batch, mut restarted) = source.ask(&ReadLogs { after, limit: LOG_LINES }).map_err(|e| e.to_string())?;
    // The first answer of a server that we did not know by its process: its numbers may have begun again.
    let right = position.after(boot_id, source.pid());
    if restarted || right != after {
        (batch, restarted) = source.ask(&ReadLogs { after: right, limit: LOG_LINES }).map_err(|e| e.to_string())?;
        if restarted {
            return Ok(0);
        }
    }
    position.of(boot_id, source.pid());
    let dropped = position.newly_dropped(batch.dropped);
    if dropped > 0 {
        // Becomes a line of the device's own log.
        log::warn!("{dropped} lines lost: {name} had no room for more while they waited to be sent");
    }
    let (count, Some(last)) = (batch.entries.len(), batch.entries.last().map(|entry| entry.sequence)) else { return Ok(0) };
    let parts = batches(device_id, &position.left(batch.entries), &Limits::default());
    send_parts(&parts, position, &mut |part| web.put_log_events(part, now_seconds()))?;
    position.advance(last);
    Ok(count)
}

/// Sends parts, each for itself: what one stream's lines meet does not hold up those of others. What was sent is
/// remembered in `position` at once; an error means that the rest is to be tried again.
fn send_parts(
    parts: &[Batch],
    position: &mut Position,
    put: &mut dyn FnMut(&Batch) -> Result<(), WebError>,
) -> Result<(), String> {
    let lost = |part: &Batch, error: &WebError| {
        log::warn!("{} lines lost, of {} {}: {error}", part.events.len(), part.group, part.stream);
    };
    let (mut sent, mut doubtful) = (0, Vec::new());
    for part in parts {
        let mut result = put(part);
        if matches!(&result, Err(WebError::Refused { status: 401 | 403, .. })) {
            // The keys were thrown away; perhaps new ones are better.
            result = put(part);
        }
        match result {
            Ok(()) => sent += 1,
            Err(error) => match &error {
                WebError::Refused { status, problem, .. } => match verdict(*status, problem) {
                    Verdict::Wait => return Err(error.to_string()),
                    Verdict::Lost => lost(part, &error),
                    Verdict::Doubtful => {
                        doubtful.push((part, error));
                        continue;
                    }
                },
                _ => return Err(error.to_string()),
            },
        }
        position.ahead.extend(&part.sequences);
    }
    match doubtful.first() {
        // Nothing is taken at all: that is not these lines' fault.
        Some((_, error)) if sent == 0 => return Err(error.to_string()),
        _ => doubtful.iter().for_each(|(part, error)| lost(part, error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_device_protocol::{Endpoint, Endpoints};
    use belvedere_interfaces::Done;
    use belvedere_interfaces::logs::LogEntry;
    use belvedere_provisioning::key::{DeviceKey, SoftwareKey};
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicUsize;

    fn parts() -> Vec<Batch> {
        let entry = |sequence: u64, stream: &str| LogEntry {
            sequence,
            application_instance_id: Some(format!("applicationInstance-{stream}")),
            stream: stream.into(),
            timestamp_ms: 1,
            message: "x".into(),
        };
        batches("device-a", &[entry(1, "a"), entry(2, "b"), entry(3, "c"), entry(4, "a")], &Limits::default())
    }

    fn refused(status: u16, problem: &str) -> WebError {
        WebError::Refused { what: "PutLogEvents".into(), status, problem: problem.into() }
    }

    /// Runtime D29: every answer but one held up all lines behind it, and those before it were sent again.
    #[test]
    fn one_refused_answer_holds_nobody_up_and_nothing_is_sent_twice() {
        for problem in ["AccessDeniedException", "LimitExceededException"] {
            let status = if problem.starts_with("Access") { 403 } else { 400 };
            let (mut position, mut sent) = (Position::default(), Vec::new());
            let mut put = |part: &Batch| match part.stream.as_str() {
                "b" => Err(refused(status, problem)),
                other => {
                    sent.push(other.to_owned());
                    Ok(())
                }
            };
            send_parts(&parts(), &mut position, &mut put).unwrap();
            assert_eq!(sent, ["a", "c"]);
        }
        // The service goes away in the middle: what it took is not sent again.
        let mut position = Position::default();
        let mut put = |part: &Batch| if part.stream == "b" { Err(refused(503, "")) } else { Ok(()) };
        send_parts(&parts(), &mut position, &mut put).unwrap_err();
        assert_eq!(position.ahead, BTreeSet::from([1, 4]));
        // Keys that are good for nothing cost no line.
        let mut position = Position::default();
        send_parts(&parts(), &mut position, &mut |_| Err(refused(403, "InvalidClientTokenId"))).unwrap_err();
        assert!(position.ahead.is_empty());
    }

    /// With a clock an hour ahead keys seem to end before they begin: the service was asked without a pause. And a question
    /// about a release, asked while the service was away, left no keys and nobody who renewed them.
    #[test]
    fn keys_are_renewed_before_they_end_and_never_without_a_pause() {
        assert_eq!(renewal(false, Some(5_000), 1_030), 5_000);
        assert_eq!(renewal(false, Some(900), 1_030), 1_030, "the clock is ahead");
        assert_eq!(renewal(true, Some(5_000), 1_030), 1_030, "that failed: again soon");
        assert_eq!(renewal(false, None, 1_030), 1_030, "there are none any more");
    }

    /// A set that waited when the service released the appliance came to `applications` after the empty one, and the earlier
    /// owner's applications were wanted again.
    #[test]
    fn nothing_is_handed_over_when_the_session_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("applications.sock");
        let handed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handed);
        let server = belvedere_varlink::Server::bind(&socket).unwrap().route(move |_: SetDesired, _| {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            Ok(Done {})
        });
        server.spawn();
        let endpoint = || Endpoint { host: "127.0.0.1".into(), port: 1 };
        let identity = Identity {
            device_id: "device-a".into(),
            thing_name: "thing".into(),
            endpoints: Endpoints { mqtt: endpoint(), https: endpoint(), region: "eu-central-1".into() },
            service_ca_pem: String::new(),
            certificate_pem: String::new(),
            private_key_pem: SoftwareKey::generate().unwrap().private_key_pem(),
            mqtt_password: None,
            generation: 1,
        };
        let ending = Ending { stop: Arc::default(), gate: Gate::default() };
        let web = Web::new(&identity).unwrap();
        let (ca_pem, region, gate) = (String::new(), String::new(), ending.gate.clone());
        let deployer = Deployer { web, applications: socket, ca_pem, region, renew: false, gate };
        let (tasks, receiver) = channel();
        let (results, events) = sync_channel(EVENTS);
        for _ in 0..3 {
            tasks.send(Task::Apply(Vec::new())).unwrap();
        }
        let thread = std::thread::spawn(move || deployer.run(&receiver, &results));
        while handed.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(ending);
        // The first was under way; it has been answered, and none comes after it.
        drop(tasks);
        thread.join().unwrap();
        assert_eq!(handed.load(Ordering::SeqCst), 1);
        let accepted: Vec<bool> =
            events.try_iter().map(|event| matches!(event, Event::Applied(_, accepted) if accepted)).collect();
        assert_eq!(accepted, [true, false, false]);
    }
}

//! The running agent: joins the link, HTTPS and the appliance's other processes.
//!
//! Three threads besides MQTT's: the loop here (owns the core), one that fetches and hands over deployments, one that sends
//! log lines. They share nothing but channels; each HTTPS thread has its own short-lived credentials.

use crate::asked::Asked;
use crate::core::{Core, FetchError, Output};
use crate::deployer::{Deployer, Gate, Task};
use crate::jobs::{Action, Jobs};
use crate::key;
use crate::link::{Heard, Link};
use crate::log_sender::{POSITIONS, send_logs};
use crate::release::{self, Asking};
use crate::web::Web;
use belvedere_device_protocol::shadow::{DeploymentReference, DeviceState};
use belvedere_device_protocol::{Deployment, NetworkStatus};
use belvedere_interfaces::applications::GetReports;
use belvedere_interfaces::front_panel::{NetworkCondition, SetNetwork};
use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::network::GetStatus;
use belvedere_interfaces::provisioning::{GetIdentity, Identity, RELEASED};
use belvedere_varlink::{CallError, Pulse};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often `applications` is asked while something changes, and otherwise.
const BUSY_PERIOD: Duration = Duration::from_secs(2);
const CALM_PERIOD: Duration = Duration::from_secs(10);
/// How often the network's status and the identity's generation are looked at.
const STATUS_PERIOD: Duration = Duration::from_secs(15);
/// Events waiting for the loop; MQTT's thread waits when it is full.
pub(crate) const EVENTS: usize = 64;

/// A turn of the loop asks five of the appliance's other processes, 10 s each at most, and writes no more than a file.
const LONGEST_TURN: Duration = Duration::from_secs(120);

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
    let pulse = Pulse::new("session", LONGEST_TURN);
    loop {
        let identity = wait_for_identity(options, &pulse);
        log::info!("{} speaks with {}:{}", identity.thing_name, identity.endpoints.mqtt.host, identity.endpoints.mqtt.port);
        match Session::start(options, &identity) {
            Ok(mut session) => {
                if session.run(options, &identity, &pulse) == Ended::Released {
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

fn wait_for_identity(options: &Options, pulse: &Pulse) -> Identity {
    let (mut wait, mut said) = (Duration::from_secs(1), String::new());
    loop {
        pulse.beat();
        match belvedere_varlink::call(&options.provisioning, &GetIdentity {}) {
            Ok(identity) => return identity,
            Err(CallError::Failure(failure)) if failure.reason == RELEASED => release::clear(options, &[POSITIONS], pulse),
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

pub(crate) fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

pub(crate) enum Event {
    Link(Heard),
    Documents(BTreeMap<String, (DeploymentReference, Result<Box<Deployment>, FetchError>)>),
    Applied(Vec<(String, String)>, bool),
    /// Whether the service has released the appliance.
    Released(bool),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Another identity is in force, or none.
    OtherIdentity,
    /// The service has released the appliance.
    Released,
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
        let tls = key::tls(identity, &options.provisioning).map_err(|error| error.to_string())?;
        let (deployer, lines) = (Web::new(identity, Arc::clone(&tls)), Web::new(identity, Arc::clone(&tls)));
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
        let link = Link::start(identity, tls, move |heard| drop(sender.send(Event::Link(heard))));
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
    fn run(&mut self, options: &Options, identity: &Identity, pulse: &Pulse) -> Ended {
        let mut applications = Asked::new(&options.applications);
        let (mut next_reports, mut next_status) = (Duration::ZERO, Duration::ZERO);
        loop {
            pulse.beat();
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

fn tell_front_panel(options: &Options, condition: Option<NetworkCondition>) {
    let call = SetNetwork { source: "agent".into(), condition };
    if let Err(error) = belvedere_varlink::call(&options.front_panel, &call) {
        log::debug!("tell the front panel: {error}");
    }
}

/// Of the running kernel; empty when it cannot be read.
pub(crate) fn boot_id(options: &Options) -> String {
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

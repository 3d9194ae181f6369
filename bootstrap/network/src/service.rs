//! The running service: one loop over sockets, timers and calls.

use crate::dhcp::MAX_PACKET;
use crate::kernel::{Kernel, Threads};
use crate::manager::Manager;
use crate::netlink::link_events;
use crate::plan::{Plan, plan, plan_of_stored};
use crate::time::{self, Source};
use belvedere_device_protocol::{NetworkConfiguration, NetworkStatus};
use belvedere_interfaces::front_panel::{NetworkCondition, SetNetwork};
use belvedere_interfaces::network::{GetStatus, Keep, Revert, ServiceAddress, Try};
use belvedere_interfaces::{Done, Failure};
use belvedere_varlink::{Pulse, Server};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a `Try` waits for addresses.
pub const TRY_TIME: Duration = Duration::from_secs(25);
/// A turn of the loop reads sysfs and netlink and writes two files durably at most; nothing in it waits for the network.
const LONGEST_TURN: Duration = Duration::from_secs(60);
/// Name of the durable configuration in the state directory.
const CONFIGURATION: &str = "configuration.json";
/// Name of what has to be reached, beside it.
const SERVICE: &str = "service.json";
/// Bound of each.
const CONFIGURATION_LIMIT: usize = 64 << 10;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Socket to serve.
    pub socket: PathBuf,
    /// Directory of the durable configuration.
    pub state: PathBuf,
    /// The resolver's file.
    pub resolv_conf: PathBuf,
    /// Socket of the front panel.
    pub front_panel: PathBuf,
    /// Names of the ports instead of finding them.
    pub ports: Vec<String>,
}

/// What stops the service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No netlink, or no wake-up pair.
    #[error("open {what}: {source}; the service needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE")]
    Open {
        /// What could not be opened.
        what: &'static str,
        /// Kernel's answer.
        source: std::io::Error,
    },
    /// The socket could not be served.
    #[error(transparent)]
    Bind(#[from] belvedere_varlink::BindError),
}

enum Call {
    Try(Try, Sender<Result<NetworkStatus, Failure>>),
    Keep(Sender<Result<Done, Failure>>),
    Revert(Sender<Result<Done, Failure>>),
    Status(Sender<Result<NetworkStatus, Failure>>),
    Probed(u64, u32, bool),
    TimeKept(Option<Source>),
}

/// Hands calls from the server's threads to the loop.
struct Calls {
    sender: Mutex<Sender<Call>>,
    wake: Mutex<UnixStream>,
}

impl Calls {
    /// `None` when the loop has ended.
    fn tell(&self, call: Call) -> Option<()> {
        self.sender.lock().ok()?.send(call).ok()?;
        // A full pipe wakes as well.
        let _ = self.wake.lock().ok()?.write(&[1]);
        Some(())
    }

    fn ask<T>(&self, call: impl FnOnce(Sender<Result<T, Failure>>) -> Call, wait: Duration) -> Result<T, Failure> {
        let gone = || failure("internal", "the network service is stopping; try again");
        let (reply, answer) = channel();
        self.tell(call(reply)).ok_or_else(gone)?;
        answer.recv_timeout(wait).map_err(|_| failure("timeout", "the network service is busy; try again"))?
    }
}

fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), message: message.into() }
}

/// Runs until the process ends.
pub fn run(options: Options) -> Result<(), ServiceError> {
    let open = |what| move |source| ServiceError::Open { what, source };
    let (light, lights) = channel();
    let front_panel = options.front_panel.clone();
    thread("front-panel", move || tell_front_panel(&front_panel, &lights))?;
    let links = link_events().map_err(open("link events"))?;
    let (wake, woken) = UnixStream::pair().map_err(open("wake-up pair"))?;
    wake.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).map_err(open("wake-up pair"))?;
    let (sender, calls) = channel();
    let shared = Arc::new(Calls { sender: Mutex::new(sender), wake: Mutex::new(wake) });

    let (time_servers, servers) = channel();
    let tell = Arc::clone(&shared);
    thread("time", move || {
        time::keep(&servers, |source| {
            tell.tell(Call::TimeKept(source));
        })
    })?;
    let tell = Arc::clone(&shared);
    let probed = Arc::new(move |round, port, reached| {
        tell.tell(Call::Probed(round, port, reached));
    });
    let kernel = Kernel::new(options.ports.clone(), options.resolv_conf.clone(), Threads { light, time_servers, probed })
        .map_err(open("netlink"))?;
    let mut state = State::new(options.state.clone(), kernel);
    state.manager.links_changed(state.now());
    let short = Duration::from_secs(9);
    let (a, b, c, d) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared), shared);
    Server::bind(&options.socket)?
        // What they need is the loop's to say.
        .watch(Pulse::new("calls", LONGEST_TURN), || true)
        .route(move |call: Try, _| a.ask(|reply| Call::Try(call, reply), TRY_TIME + short))
        .route(move |_: Keep, _| b.ask(Call::Keep, short))
        .route(move |_: Revert, _| c.ask(Call::Revert, short))
        .route(move |_: GetStatus, _| d.ask(Call::Status, short))
        .spawn();
    belvedere_varlink::notify_ready();
    state.run(&links, &woken, &calls);
    Ok(())
}

/// What is kept over a restart.
#[derive(Debug, Clone)]
struct Kept {
    configuration: NetworkConfiguration,
    service: Option<ServiceAddress>,
}

struct State {
    began: Instant,
    directory: PathBuf,
    manager: Manager<Kernel>,
    durable: Kept,
    tried: Option<Kept>,
    waiting: Option<(Duration, Sender<Result<NetworkStatus, Failure>>)>,
}

impl State {
    fn new(directory: PathBuf, kernel: Kernel) -> Self {
        let durable =
            Kept { configuration: read(&directory, CONFIGURATION).unwrap_or_default(), service: read(&directory, SERVICE) };
        let in_force = plan_of_stored(&durable.configuration).unwrap_or_else(|error| {
            log::error!("the stored {error}; using DHCP");
            Plan::default()
        });
        let seed = getrandom::u64().unwrap_or(u64::from(std::process::id()));
        let mut manager = Manager::new(kernel, in_force, seed);
        manager.set_service(durable.service.clone(), Duration::ZERO);
        Self { began: Instant::now(), directory, manager, durable, tried: None, waiting: None }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn run(&mut self, links: &impl std::os::fd::AsFd, woken: &UnixStream, calls: &Receiver<Call>) {
        let pulse = Pulse::new("ports", LONGEST_TURN);
        loop {
            pulse.beat();
            let sockets: Vec<(u32, std::net::UdpSocket)> = self
                .manager
                .system
                .sockets()
                .filter_map(|(index, socket)| Some((index, socket.try_clone().ok()?)))
                .collect();
            let mut fds = vec![PollFd::new(links, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            fds.extend(sockets.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)));
            let deadline = [self.manager.deadline(), self.waiting.as_ref().map(|(deadline, _)| *deadline)];
            // Rounded up by a millisecond, so that it is due when we wake.
            let left = deadline.into_iter().flatten().min().map_or(Pulse::WAIT, |deadline| {
                (deadline.saturating_sub(self.now()) + Duration::from_millis(1)).min(Pulse::WAIT)
            });
            let wait = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            if let Err(error) = poll(&mut fds, Some(&wait))
                && error != rustix::io::Errno::INTR
            {
                log::error!("wait for events: {error}");
                std::thread::sleep(Duration::from_secs(1));
            }
            drop(fds);
            drain(links);
            drain(woken);
            let now = self.now();
            // Cheap (a few small files of sysfs), and right also when notices were lost.
            self.manager.links_changed(now);
            for (index, socket) in &sockets {
                let mut buffer = [0; MAX_PACKET + 1];
                // Bounded, so that a flood on one port cannot starve the rest.
                for _ in 0..32 {
                    let Ok(length) = socket.recv(&mut buffer) else { break };
                    self.manager.dhcp_packet(*index, &buffer[..length], now);
                }
            }
            self.manager.poll(now);
            for call in calls.try_iter().take(64) {
                self.answer(call);
            }
            self.answer_try();
        }
    }

    fn answer(&mut self, call: Call) {
        let now = self.now();
        match call {
            Call::Status(reply) => drop(reply.send(Ok(self.manager.status()))),
            Call::Probed(round, port, reached) => self.manager.probed(round, port, reached, now),
            Call::TimeKept(source) => self.manager.time_kept(source),
            Call::Try(Try { configuration, service }, reply) => match plan(&configuration) {
                Err(error) => drop(reply.send(Err(failure("invalid_parameter", error.to_string())))),
                Ok(plan) => {
                    log::info!("trying a network configuration");
                    self.manager.apply(plan, now);
                    self.manager.set_service(service.clone(), now);
                    self.tried = Some(Kept { configuration, service });
                    // One try at a time: the newer one answers both.
                    if let Some((_, old)) = self.waiting.replace((now + TRY_TIME, reply)) {
                        let _ = old.send(Err(failure("superseded", "another configuration is being tried")));
                    }
                }
            },
            Call::Keep(reply) => drop(reply.send(self.keep())),
            Call::Revert(reply) => {
                if self.tried.take().is_some() {
                    log::info!("going back to the kept network configuration");
                    self.manager.apply(plan_of_stored(&self.durable.configuration).unwrap_or_default(), now);
                    self.manager.set_service(self.durable.service.clone(), now);
                }
                drop(reply.send(Ok(Done {})));
            }
        }
    }

    /// First what has to be reached, then the configuration. A cut in between leaves the old configuration, which may then look
    /// for a service that it does not lead to: it stays the way it is, as long as nothing else reaches that service.
    fn keep(&mut self) -> Result<Done, Failure> {
        let Some(tried) = self.tried.clone() else { return Ok(Done {}) };
        let write = |name: &str, bytes: serde_json::Result<Vec<u8>>| {
            let bytes = bytes.map_err(|error| failure("internal", error.to_string()))?;
            belvedere_durable::write_file(&self.directory, name, &bytes, 0o600)
                .map_err(|error| failure("storage", error.to_string()))
        };
        write(SERVICE, serde_json::to_vec_pretty(&tried.service))?;
        write(CONFIGURATION, serde_json::to_vec_pretty(&tried.configuration))?;
        log::info!("the network configuration is kept");
        self.durable = tried;
        self.tried = None;
        Ok(Done {})
    }

    fn answer_try(&mut self) {
        let now = self.now();
        if let Some((deadline, _)) = &self.waiting
            && (self.manager.settled() || now >= *deadline)
            && let Some((_, reply)) = self.waiting.take()
        {
            let _ = reply.send(Ok(self.manager.status()));
        }
    }
}

/// A file of the state directory; none when it is not there or cannot be read, which is logged.
fn read<T: serde::de::DeserializeOwned>(directory: &std::path::Path, name: &str) -> Option<T> {
    match belvedere_durable::read_file(directory, name, CONFIGURATION_LIMIT) {
        Ok(bytes) => serde_json::from_slice(&bytes?)
            .map_err(|error| log::error!("the stored {name} cannot be read ({error}); going on without it"))
            .ok(),
        Err(error) => {
            log::error!("{error}; going on without it");
            None
        }
    }
}

fn thread(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), ServiceError> {
    let begun = std::thread::Builder::new().name(name.into()).spawn(work);
    begun.map(drop).map_err(|source| ServiceError::Open { what: "thread", source })
}

fn drain(fd: &impl std::os::fd::AsFd) {
    let mut buffer = [0; 8192];
    for _ in 0..64 {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => break,
            Ok(_) => continue,
            // ENOBUFS (lost notices) is followed by more to read.
            Err(rustix::io::Errno::NOBUFS) => continue,
            Err(_) => break,
        }
    }
}

/// Tells the front panel the latest condition, until it has heard it.
fn tell_front_panel(path: &std::path::Path, conditions: &Receiver<NetworkCondition>) {
    while let Ok(mut condition) = conditions.recv() {
        loop {
            while let Ok(newer) = conditions.try_recv() {
                condition = newer;
            }
            let call = SetNetwork { source: "network".into(), condition: Some(condition) };
            match belvedere_varlink::call(path, &call) {
                Ok(_) => break,
                Err(error) => log::debug!("tell the front panel: {error}"),
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

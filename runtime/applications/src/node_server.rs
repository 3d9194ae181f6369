//! One code node's `node.sock`: the SDK inside the container announces itself, learns its ports, asks for channels and
//! says that it lives. A channel is handed over connected and already opened, so that the application reaches exactly
//! what its graph names.

use crate::health::CodeHealth;
use belvedere_frames::packet;
use belvedere_frames::shares::{Limits, Shares};
use belvedere_interfaces::channel::node::{Event, Port, Request, Target};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections of all containers, counted by application instance: each is a thread of this process, whose threads are
/// bounded, and an application may have many nodes.
pub const CONNECTIONS: Limits = Limits { in_all: 192, burst: 32, assured: 8 };
/// How long one packet may take to a program that does not read.
const PACKET_TIME: Duration = Duration::from_secs(5);
/// Channels that a container may ask for at once, and how soon it may ask for another after that. What it has open is bounded
/// where it is served (by owner); this bounds what asking costs: connections that others answer, and lines of our log. What
/// else a container does that is worth a line is bounded likewise.
const CHANNELS_AT_ONCE: u32 = 64;
const CHANNEL_EVERY: Duration = Duration::from_millis(100);

/// What a node is told, and how its channels are opened.
pub struct Context {
    /// The node's name.
    pub node: String,
    /// Whose it is.
    pub application_instance_id: String,
    /// Ports.
    pub inputs: Vec<Port>,
    /// Ports.
    pub outputs: Vec<Port>,
    /// Models that may be called.
    pub models: Vec<String>,
    /// Those of all nodes of all instances; see [`CONNECTIONS`].
    pub connections: Arc<Shares>,
    /// Opens a channel; the error is for people.
    pub open: Box<dyn Fn(&Target) -> Result<OwnedFd, String> + Send + Sync>,
}

/// The running server; ends when dropped.
pub struct NodeServer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
}

impl NodeServer {
    /// Serves at `path`; what is heard goes to `health`.
    pub fn start(path: &Path, context: Context, health: Arc<Mutex<CodeHealth>>) -> Result<NodeServer, packet::Error> {
        let listener = packet::listen(path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            context,
            health,
            stop: stop.clone(),
            asking: Mutex::new(Asking::new()),
            saying: Mutex::new(Asking::new()),
        });
        let thread = std::thread::Builder::new().name("node".into()).spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                if !readable(&listener) {
                    continue;
                }
                let Ok(connection) = packet::accept(&listener) else {
                    // A shortage of descriptors would otherwise be asked about a million times a second.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                let id = &shared.context.application_instance_id;
                let Some(place) = shared.context.connections.take(id, 1) else {
                    let (has, taken) = shared.context.connections.taken(id);
                    shared.say(Level::Warn, format_args!("{id} has {has} connections, of {taken} in all; one is refused"));
                    continue;
                };
                let serving = shared.clone();
                let started = std::thread::Builder::new().name("node".into()).spawn(move || {
                    let _place = place;
                    serving.serve(&connection);
                });
                if let Err(error) = started {
                    // The SDK asks again; others than this application must not end with it.
                    shared.say(Level::Warn, format_args!("no thread for a connection: {error}"));
                }
            }
        });
        let thread = thread.map_err(|error| packet::Error::System {
            operation: "start a thread",
            source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN),
        })?;
        Ok(NodeServer { stop, thread: Some(thread), path: path.to_owned() })
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Shared {
    context: Context,
    health: Arc<Mutex<CodeHealth>>,
    stop: Arc<AtomicBool>,
    asking: Mutex<Asking>,
    saying: Mutex<Asking>,
}

/// A bucket of [`CHANNELS_AT_ONCE`] tokens, one of which comes back every [`CHANNEL_EVERY`].
struct Asking {
    tokens: u32,
    counted: Option<Instant>,
}

impl Asking {
    fn new() -> Self {
        Asking { tokens: CHANNELS_AT_ONCE, counted: None }
    }

    /// Whether there is one more at `now`.
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.counted.get_or_insert(now);
        let returned = now.saturating_duration_since(since).as_millis() / CHANNEL_EVERY.as_millis();
        if returned > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(returned).unwrap_or(u32::MAX)).min(CHANNELS_AT_ONCE);
            self.counted = Some(now);
        }
        let left = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        left
    }
}

/// Waits at most half a second, so that a stop is noticed.
fn readable(socket: &OwnedFd) -> bool {
    let mut list = [PollFd::new(socket, PollFlags::IN)];
    let time = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    matches!(rustix::event::poll(&mut list, Some(&time)), Ok(1..))
}

impl Shared {
    fn heard(&self) {
        if let Ok(mut health) = self.health.lock() {
            health.heard = Some(Instant::now());
        }
    }

    /// A line in our log about the container, unless there were too many: that is not the container's to fill.
    fn say(&self, level: Level, text: std::fmt::Arguments) {
        if self.saying.lock().is_ok_and(|mut saying| saying.take(Instant::now())) {
            log::log!(level, "node {}: {text}", self.context.node);
        }
    }

    /// Opens a channel, unless the container asks for too many.
    fn open(&self, target: &Target) -> Result<OwnedFd, String> {
        let allowed = self.asking.lock().is_ok_and(|mut asking| asking.take(Instant::now()));
        if !allowed {
            return Err(format!(
                "the program asks for more than {} channels a second: keep the connections that it has",
                1_000 / CHANNEL_EVERY.as_millis()
            ));
        }
        (self.context.open)(target)
    }

    fn serve(&self, connection: &OwnedFd) {
        let mut announced = false;
        if packet::limit_waiting(connection, PACKET_TIME, Some(PACKET_TIME)).is_err() {
            return;
        }
        while !self.stop.load(Ordering::Relaxed) {
            if !readable(connection) {
                continue;
            }
            let request = match packet::receive::<Request>(connection) {
                Ok((request, _descriptors)) => request,
                Err(packet::Error::Closed) => return,
                Err(error) => {
                    self.say(Level::Warn, format_args!("{error}; the connection is closed"));
                    return;
                }
            };
            let answer = match request {
                Request::Announce { sdk_version, process_id } => {
                    let version: String = sdk_version.chars().filter(|c| c.is_ascii_graphic()).take(32).collect();
                    if !announced {
                        self.say(Level::Info, format_args!("announced by process {process_id} with panoramasdk {version}"));
                    }
                    announced = true;
                    self.heard();
                    let event = Event::Configuration {
                        node: self.context.node.clone(),
                        application_instance_id: self.context.application_instance_id.clone(),
                        inputs: self.context.inputs.clone(),
                        outputs: self.context.outputs.clone(),
                        models: self.context.models.clone(),
                    };
                    packet::send(connection, &event, &[])
                }
                Request::Heartbeat {} if announced => {
                    self.heard();
                    Ok(())
                }
                Request::Heartbeat {} => Ok(()),
                Request::Connect { target } => match self.open(&target) {
                    Ok(channel) => packet::send(connection, &Event::Connected { target }, &[channel.as_fd()]),
                    Err(message) => {
                        self.say(Level::Warn, format_args!("{message}"));
                        packet::send(connection, &Event::Refused { target, message }, &[])
                    }
                },
            };
            if answer.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn runtime_d3_asking_for_channels_without_end_is_bounded() {
        let begin = Instant::now();
        let mut asking = Asking::new();
        assert_eq!((0..1_000).filter(|_| asking.take(begin)).count() as u32, CHANNELS_AT_ONCE);
        assert!(!asking.take(begin + CHANNEL_EVERY / 2));
        assert!(asking.take(begin + CHANNEL_EVERY));
        assert!(!asking.take(begin + CHANNEL_EVERY));
        let later = begin + Duration::from_secs(1_000_000);
        assert_eq!((0..1_000).filter(|_| asking.take(later)).count() as u32, CHANNELS_AT_ONCE);
    }

    #[test]
    fn a_node_announces_itself_and_gets_what_its_graph_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let health = Arc::new(Mutex::new(CodeHealth::default()));
        let port = Port { name: "threshold".into(), kind: "float32".into(), value: Some(json!(0.5)), bound: vec![] };
        let context = Context {
            node: "code_node".into(),
            application_instance_id: "a".into(),
            inputs: vec![port],
            outputs: vec![],
            models: vec!["m".into()],
            connections: Shares::new(CONNECTIONS),
            open: Box::new(|target| match target {
                Target::Model { name } if name == "m" => {
                    let (near, far) = packet::pair().unwrap();
                    packet::send(&far, &json!("hello"), &[]).unwrap();
                    Ok(near)
                }
                _ => Err("the graph does not name it".into()),
            }),
        };
        let server = NodeServer::start(&path, context, health.clone()).unwrap();
        let client = packet::connect(&path).unwrap();
        packet::send(&client, &json!({"kind": "announce", "sdk_version": "1", "process_id": 7}), &[]).unwrap();
        let (configuration, _): (Value, _) = packet::receive(&client).unwrap();
        assert_eq!(configuration["kind"], "configuration");
        assert_eq!(configuration["inputs"][0], json!({"name": "threshold", "type": "float32", "value": 0.5, "bound": []}));
        assert!(health.lock().unwrap().heard.is_some());
        packet::send(&client, &json!({"kind": "connect", "what": "model", "name": "m"}), &[]).unwrap();
        let (answer, channels): (Value, _) = packet::receive(&client).unwrap();
        assert_eq!(answer, json!({"kind": "connected", "what": "model", "name": "m"}));
        assert_eq!(packet::receive::<String>(&channels[0]).unwrap().0, "hello");
        packet::send(&client, &json!({"kind": "connect", "what": "frames", "port": "p", "index": 0}), &[]).unwrap();
        let (answer, channels): (Value, _) = packet::receive(&client).unwrap();
        assert_eq!((answer["kind"].as_str(), channels.len()), (Some("refused"), 0));
        // Nonsense closes the connection and nothing else.
        packet::send(&client, &json!({"kind": "destroy"}), &[]).unwrap();
        assert!(matches!(packet::receive::<Value>(&client), Err(packet::Error::Closed)));
        let again = packet::connect(&path).unwrap();
        packet::send(&again, &json!({"kind": "announce", "sdk_version": "1", "process_id": 7}), &[]).unwrap();
        assert_eq!(packet::receive::<Value>(&again).unwrap().0["node"], "code_node");
        drop(server);
        assert!(!path.exists());
    }

    fn context(node: &str, id: &str, connections: &Arc<Shares>) -> Context {
        Context {
            node: node.into(),
            application_instance_id: id.into(),
            inputs: vec![],
            outputs: vec![],
            models: vec![],
            connections: connections.clone(),
            open: Box::new(|_| Err("nothing to open".into())),
        }
    }

    /// Connects and announces itself; nothing when the connection was refused.
    fn announced(path: &Path) -> Option<OwnedFd> {
        let client = packet::connect(path).unwrap();
        let _ = packet::send(&client, &json!({"kind": "announce", "sdk_version": "1", "process_id": 7}), &[]);
        packet::receive::<Value>(&client).is_ok().then_some(client)
    }

    /// Runtime D3 and D4, their kind: each node of an application had its own connections, each a thread of this process.
    #[test]
    fn the_connections_of_an_application_are_counted_over_all_its_nodes() {
        let directory = tempfile::tempdir().unwrap();
        let connections = Shares::new(CONNECTIONS);
        let serve = |node: &str, id: &str| {
            let path = directory.path().join(node);
            let server = NodeServer::start(&path, context(node, id, &connections), Arc::default()).unwrap();
            (path, server)
        };
        let nodes: Vec<_> = (0..4).map(|node| serve(&format!("node-{node}"), "greedy")).collect();
        let other = serve("other", "other");
        let held: Vec<_> = (0..80).filter_map(|number| announced(&nodes[number % nodes.len()].0)).collect();
        assert_eq!(held.len() as u64, CONNECTIONS.burst);
        assert!(announced(&other.0).is_some());
    }

    /// Counts the lines about the node `noisy`.
    struct Lines(std::sync::atomic::AtomicUsize);
    static LINES: Lines = Lines(std::sync::atomic::AtomicUsize::new(0));
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }
        fn log(&self, record: &log::Record) {
            let about = record.args().to_string().contains("node noisy:");
            self.0.fetch_add(usize::from(about), Ordering::Relaxed);
        }
        fn flush(&self) {}
    }

    /// Tried applications A2, its kind: a program that announced itself without end filled the appliance's own log.
    #[test]
    fn what_a_program_does_without_end_costs_a_bounded_number_of_lines() {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let begin = Instant::now();
        let noisy = context("noisy", "a", &Shares::new(CONNECTIONS));
        let _server = NodeServer::start(&path, noisy, Arc::default()).unwrap();
        let client = announced(&path).unwrap();
        for _ in 0..500 {
            packet::send(&client, &json!({"kind": "announce", "sdk_version": "1", "process_id": 7}), &[]).unwrap();
            packet::receive::<Value>(&client).unwrap();
        }
        for _ in 0..200 {
            let nonsense = announced(&path).unwrap();
            packet::send(&nonsense, &json!({"kind": "destroy"}), &[]).unwrap();
            assert!(packet::receive::<Value>(&nonsense).is_err());
        }
        let allowed = u128::from(CHANNELS_AT_ONCE) + begin.elapsed().as_millis() / CHANNEL_EVERY.as_millis() + 1;
        let lines = LINES.0.load(Ordering::Relaxed);
        assert!(lines > 0 && lines as u128 <= allowed, "{lines} lines, {allowed} are allowed");
    }
}

//! One code node's `node.sock`: the SDK inside the container announces itself, learns its ports, asks for channels and
//! says that it lives. A channel is handed over connected and already opened, so that the application reaches exactly
//! what its graph names.

use crate::health::CodeHealth;
use belvedere_frames::packet;
use belvedere_interfaces::channel::node::{Event, Port, Request, Target};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Connections of one container.
const CONNECTIONS: usize = 32;

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
        let shared = Arc::new(Shared { context, health, stop: stop.clone(), connections: AtomicUsize::new(0) });
        let thread = std::thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                if !readable(&listener) {
                    continue;
                }
                let Ok(connection) = packet::accept(&listener) else { continue };
                if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                    log::warn!("node {}: more than {CONNECTIONS} connections; one is refused", shared.context.node);
                    continue;
                }
                let shared = shared.clone();
                std::thread::spawn(move || {
                    shared.serve(&connection);
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
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
    connections: AtomicUsize,
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

    fn serve(&self, connection: &OwnedFd) {
        let mut announced = false;
        while !self.stop.load(Ordering::Relaxed) {
            if !readable(connection) {
                continue;
            }
            let request = match packet::receive::<Request>(connection) {
                Ok((request, _descriptors)) => request,
                Err(packet::Error::Closed) => return,
                Err(error) => {
                    log::warn!("node {}: {error}; the connection is closed", self.context.node);
                    return;
                }
            };
            let answer = match request {
                Request::Announce { sdk_version, process_id } => {
                    let version: String = sdk_version.chars().filter(|c| c.is_ascii_graphic()).take(32).collect();
                    log::info!("node {}: announced by process {process_id} with panoramasdk {version}", self.context.node);
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
                Request::Connect { target } => match (self.context.open)(&target) {
                    Ok(channel) => packet::send(connection, &Event::Connected { target }, &[channel.as_fd()]),
                    Err(message) => {
                        log::warn!("node {}: {message}", self.context.node);
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
}

//! The channel `inference.sock`. One thread a connection; see `models` for how long a model stays loaded.
//!
//! Everything that is bounded is bounded for each owner (application instance), see `frames::shares`: connections
//! ([`CONNECTIONS`]) and bytes of calls in flight ([`IN_FLIGHT`]). No client is waited for without a deadline, but for its
//! next call.

use crate::crashes::{self, Crashes};
use crate::engine::{Engine, TensorValue};
use crate::models::{Loaded, ModelHash, Models};
use crate::tensors;
use belvedere_frames::packet;
use belvedere_frames::shares::{Limits, Share, Shares};
use belvedere_interfaces::channel::MAXIMUM_OWNER;
use belvedere_interfaces::channel::inference::{Event, RESULT_PACKET, Request, TensorView};
use belvedere_varlink::Pulse;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections at a time; each is a thread.
pub const CONNECTIONS: Limits = Limits { in_all: 128, burst: 16, assured: 4 };
/// Connections that did not say yet whose they are, beyond those; `applications` says it at once.
const UNOPENED: usize = 16;
/// Bytes of tensors of calls that run or whose results are being sent. The largest call alone, or many small ones.
pub const IN_FLIGHT: Limits = Limits { in_all: 768 << 20, burst: 256 << 20, assured: 24 << 20 };
/// How long a call waits for others to end when there are too many bytes in flight.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the first packet may take, and one packet to a client that does not read.
const PACKET_TIME: Duration = Duration::from_secs(5);
/// Results have to be read at least so fast (after [`PACKET_TIME`] twice), in bytes a second.
const RESULT_RATE: u64 = 4 << 20;

/// A turn of the loop that takes connections starts one thread or sends one packet.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// Serves models.
pub struct Server {
    engine: Box<dyn Engine>,
    crashes: Crashes,
    models: Models,
    threads: AtomicUsize,
    connections: Arc<Shares>,
    in_flight: Arc<Shares>,
}

/// An open connection.
struct Client {
    /// Whose it is.
    owner: String,
    /// The model node's name, for messages.
    model: String,
    key: crashes::Key,
    session: Loaded,
    _place: Share,
}

/// What a call brought.
struct Results {
    values: Vec<TensorValue>,
    views: Vec<TensorView>,
    bytes: u64,
    _share: Share,
}

impl Server {
    /// With an engine; crashes are not remembered.
    pub fn new(engine: Box<dyn Engine>) -> Arc<Server> {
        Server::remembering(engine, Crashes::forgetful())
    }

    /// With an engine and what is known of its crashes.
    pub fn remembering(engine: Box<dyn Engine>, crashes: Crashes) -> Arc<Server> {
        Arc::new(Server {
            engine,
            crashes,
            models: Models::default(),
            threads: AtomicUsize::new(0),
            connections: Shares::new(CONNECTIONS),
            in_flight: Shares::new(IN_FLIGHT),
        })
    }

    /// Accepts connections for ever; ends when accepting fails for good.
    ///
    /// That a model takes its time, for a call or to be loaded, is no silence; that the locks which every connection needs
    /// cannot be had is.
    pub fn serve(self: &Arc<Server>, listener: impl AsFd) -> packet::Error {
        let pulse = Pulse::new("connections", LONGEST_TURN);
        loop {
            if self.models.is_free() && self.connections.is_free() && self.in_flight.is_free() {
                pulse.beat();
            }
            if !Pulse::wait_for(&listener) {
                continue;
            }
            let connection = match packet::accept(&listener) {
                Ok(connection) => connection,
                Err(error) if error.passes() => {
                    log::warn!("{error}; trying again");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
                Err(error) => return error,
            };
            if !belvedere_varlink::may_connect(&connection, "inference") {
                continue;
            }
            let threads = CONNECTIONS.in_all as usize + UNOPENED;
            if self.threads.fetch_add(1, Ordering::Relaxed) >= threads {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                refuse(&connection, &format!("the model process has {threads} connections, which is all that it serves"));
                continue;
            }
            let server = self.clone();
            // What a thread that cannot be made would have served is still answered, by a copy.
            let spare = connection.try_clone();
            let started = std::thread::Builder::new().name("connection".into()).spawn(move || {
                if let Err(error) = server.attend(&connection) {
                    log::warn!("{error}; the connection is closed");
                }
                drop(connection);
                server.threads.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = started {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                log::warn!("no thread for a connection: {error}");
                if let Ok(connection) = spare {
                    refuse(&connection, "the model process has no thread left; close connections to models");
                }
            }
        }
    }

    /// One connection, from `open` to its end.
    fn attend(&self, connection: &OwnedFd) -> Result<(), packet::Error> {
        packet::limit_waiting(connection, PACKET_TIME, Some(PACKET_TIME))?;
        let client = match packet::receive::<Request>(connection) {
            Ok((Request::Open { model, owner, inputs: _ }, descriptors)) => {
                let model: String = model.chars().filter(|c| c.is_ascii_graphic()).take(128).collect();
                match self.open(model.clone(), owner, descriptors) {
                    Ok(client) => client,
                    Err(message) => {
                        log::warn!("model {model}: {message}");
                        return packet::send(connection, &Event::Failed { message: line(&message) }, &[]);
                    }
                }
            }
            Ok((Request::Call { id, .. }, _)) => {
                return packet::send(connection, &Event::Error { id, message: "`open` comes first".into() }, &[]);
            }
            Err(packet::Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let session = client.session.as_ref().as_ref();
        let ready = Event::Ready { inputs: session.inputs().to_vec(), outputs: session.outputs().to_vec() };
        packet::send(connection, &ready, &[])?;
        packet::limit_waiting(connection, PACKET_TIME, None)?;
        loop {
            match packet::receive::<Request>(connection) {
                Ok((Request::Call { id, inputs }, descriptors)) => match self.call(&client, &inputs, descriptors) {
                    Ok(results) => send_results(connection, id, &results)?,
                    Err(message) => {
                        log::debug!("model {}: {message}", client.model);
                        packet::send(connection, &Event::Error { id, message: line(&message) }, &[])?;
                    }
                },
                Ok((Request::Open { .. }, _)) => {
                    return packet::send(
                        connection,
                        &Event::Failed { message: "the connection has a model already".into() },
                        &[],
                    );
                }
                Err(packet::Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&self, model: String, owner: String, mut descriptors: Vec<OwnedFd>) -> Result<Client, String> {
        if owner.len() > MAXIMUM_OWNER {
            return Err(format!("the owner's name has more than {MAXIMUM_OWNER} bytes"));
        }
        let (Some(file), true) = (descriptors.pop(), descriptors.is_empty()) else {
            return Err("`open` needs one descriptor: the model's file".into());
        };
        // Before anything is read: who has too many connections costs no more than this packet.
        let place = self.connections.take(&owner, 1).ok_or_else(|| {
            let (has, taken) = self.connections.taken(&owner);
            format!(
                "the application has {has} connections to models, of {taken} in all; an application may have {} (while few \
                 are in use, {}): call models from fewer threads or processes",
                CONNECTIONS.assured, CONNECTIONS.burst
            )
        })?;
        let around = |hash: &ModelHash, load: &mut dyn FnMut() -> Result<Loaded, String>| {
            self.crashes.around(&crashes::key(&owner, hash), load)
        };
        let (hash, session) = self.models.open(self.engine.as_ref(), &model, file, &around)?;
        Ok(Client { key: crashes::key(&owner, &hash), owner, model, session, _place: place })
    }

    fn call(&self, client: &Client, views: &[TensorView], mut descriptors: Vec<OwnedFd>) -> Result<Results, String> {
        let (Some(memory), true) = (descriptors.pop(), descriptors.is_empty()) else {
            return Err("a call needs one descriptor: the memory of its tensors".into());
        };
        let session = client.session.as_ref().as_ref();
        let size = tensors::memory_size(&memory)?;
        let checked = tensors::check(views, session.inputs(), size)?;
        let wants = checked.iter().map(|checked| (checked.count * checked.kind.bytes()) as u64).sum();
        let mut share = self.in_flight.take_within(&client.owner, wants, PATIENCE).ok_or_else(|| {
            let (has, taken) = self.in_flight.taken(&client.owner);
            format!(
                "after {} s there is still no room for the call's {wants} bytes beside other calls ({has} bytes of this \
                 application, {taken} of all): make fewer or smaller calls at a time",
                PATIENCE.as_secs()
            )
        })?;
        let memory = File::from(memory);
        let inputs: Vec<TensorValue> = checked
            .iter()
            .map(|checked| tensors::read(&memory, checked, &session.inputs()[checked.input].name))
            .collect::<Result<_, _>>()?;
        let values = self.crashes.around(&client.key, || session.run(inputs).map_err(|error| error.to_string()))?;
        let (views, bytes) = tensors::describe(&values)?;
        share.grow(bytes);
        Ok(Results { values, views, bytes, _share: share })
    }
}

/// Says why, without waiting.
fn refuse(connection: &OwnedFd, message: &str) {
    log::warn!("a connection is refused: {message}");
    let _ = packet::try_send(connection, &Event::Failed { message: message.into() }, &[]);
}

/// Sends a call's results, to a client that reads them within a time.
fn send_results(connection: &OwnedFd, id: u64, results: &Results) -> Result<(), packet::Error> {
    let end = Instant::now() + 2 * PACKET_TIME + Duration::from_secs(results.bytes / RESULT_RATE);
    packet::send(connection, &Event::Result { id, outputs: results.views.clone(), bytes: results.bytes }, &[])?;
    tensors::in_packets(&results.values, &results.views, RESULT_PACKET, |bytes| {
        if Instant::now() > end {
            return Err(packet::Error::System {
                operation: "send results to a client that reads so slowly",
                source: rustix::io::Errno::TIMEDOUT,
            });
        }
        packet::send_bytes(connection, bytes)
    })
}

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Elements, EngineError, Session};
    use belvedere_interfaces::channel::inference::Tensor;
    use serde_json::{Value, json};
    use std::io::{Seek, Write};

    /// Doubles float32; counts what is loaded.
    struct Doubler(Arc<AtomicUsize>);
    struct Doubling(Vec<Tensor>, Arc<AtomicUsize>);
    impl Engine for Doubler {
        fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, EngineError> {
            if model == b"bad" {
                return Err(EngineError("it is no model".into()));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Doubling(
                vec![Tensor { name: "x".into(), dtype: "float32".into(), shape: vec![-1] }],
                self.0.clone(),
            )))
        }
    }
    impl Drop for Doubling {
        fn drop(&mut self) {
            self.1.fetch_add(100, Ordering::SeqCst);
        }
    }
    impl Session for Doubling {
        fn inputs(&self) -> &[Tensor] {
            &self.0
        }
        fn outputs(&self) -> &[Tensor] {
            &self.0
        }
        fn run(&self, mut inputs: Vec<TensorValue>) -> Result<Vec<TensorValue>, EngineError> {
            let Elements::Float32(elements) = &mut inputs[0].elements else { panic!() };
            elements.iter_mut().for_each(|element| *element *= 2.0);
            Ok(inputs)
        }
    }

    fn served() -> (tempfile::TempDir, Arc<AtomicUsize>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = packet::listen(directory.path().join("inference.sock")).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let server = Server::new(Box::new(Doubler(count.clone())));
        std::thread::spawn(move || server.serve(listener));
        (directory, count)
    }

    fn open(directory: &tempfile::TempDir, model: &[u8]) -> (OwnedFd, Value) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(model).unwrap();
        file.rewind().unwrap();
        let channel = packet::connect(directory.path().join("inference.sock")).unwrap();
        packet::send(&channel, &json!({"kind": "open", "model": "m", "inputs": []}), &[file.as_fd()]).unwrap();
        let answer = packet::receive(&channel).unwrap().0;
        (channel, answer)
    }

    fn memory(values: &[f32]) -> OwnedFd {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors::tests::sealed(&bytes)
    }

    /// The answer, and the bytes of the results if there are any.
    fn answer(channel: &OwnedFd) -> (Value, Vec<u8>) {
        let message: Value = packet::receive(channel).unwrap().0;
        let mut results = vec![0; message["bytes"].as_u64().unwrap_or(0) as usize];
        let mut at = 0;
        while at < results.len() {
            at += packet::receive_bytes(channel, &mut results[at..]).unwrap();
        }
        (message, results)
    }

    fn ask(channel: &OwnedFd, message: Value, memory: &[&OwnedFd]) -> (Value, Vec<u8>) {
        let descriptors: Vec<_> = memory.iter().map(|memory| memory.as_fd()).collect();
        packet::send(channel, &message, &descriptors).unwrap();
        answer(channel)
    }

    #[test]
    fn a_model_is_opened_and_called() {
        let (directory, _) = served();
        let (channel, ready) = open(&directory, b"good");
        assert_eq!(ready["kind"], "ready");
        assert_eq!(ready["inputs"][0], json!({"name": "x", "dtype": "float32", "shape": [-1]}));
        let view = json!({"name": "", "dtype": "float32", "shape": [3], "offset": 0});
        let (answer, results) =
            ask(&channel, json!({"kind": "call", "id": 7, "inputs": [view]}), &[&memory(&[1.0, 2.0, 3.0])]);
        assert_eq!((answer["kind"].as_str(), answer["id"].as_u64()), (Some("result"), Some(7)));
        let views: Vec<TensorView> = serde_json::from_value(answer["outputs"].clone()).unwrap();
        let output = Tensor { name: "x".into(), dtype: "float32".into(), shape: vec![3] };
        let checked = tensors::check(&views, &[output], results.len() as u64).unwrap();
        let file = File::from(tensors::tests::sealed(&results));
        assert_eq!(tensors::read(&file, &checked[0], "x").unwrap().elements, Elements::Float32(vec![2.0, 4.0, 6.0]));
    }

    #[test]
    fn wrong_calls_are_answered_and_the_connection_goes_on() {
        let (directory, _) = served();
        let (channel, _) = open(&directory, b"good");
        let view = json!({"name": "x", "dtype": "float32", "shape": [1_000], "offset": 0});
        let call = json!({"kind": "call", "id": 1, "inputs": [view]});
        assert!(ask(&channel, call.clone(), &[&memory(&[1.0])]).0["message"].as_str().unwrap().contains("do not lie"));
        assert!(ask(&channel, call.clone(), &[]).0["message"].as_str().unwrap().contains("descriptor"));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(ask(&channel, call, &[&pipe]).0["message"].as_str().unwrap().contains("memfd"));
        let view = json!({"name": "x", "dtype": "float32", "shape": [1], "offset": 0});
        assert_eq!(
            ask(&channel, json!({"kind": "call", "id": 2, "inputs": [view]}), &[&memory(&[1.0])]).0["kind"],
            "result"
        );
    }

    #[test]
    fn a_bad_model_is_said_to_be_bad() {
        let (directory, _) = served();
        assert_eq!(open(&directory, b"bad").1, json!({"kind": "failed", "message": "it is no model"}));
        let channel = packet::connect(directory.path().join("inference.sock")).unwrap();
        assert_eq!(ask(&channel, json!({"kind": "open", "model": "m", "inputs": []}), &[]).0["kind"], "failed");
    }

    #[test]
    fn one_model_is_loaded_once_and_unloaded_with_its_last_user() {
        let (directory, count) = served();
        let channels: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| open(&directory, b"same").0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let _other = open(&directory, b"another");
        assert_eq!(count.load(Ordering::SeqCst), 2);
        drop(channels);
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        while count.load(Ordering::SeqCst) != 102 {
            assert!(Instant::now() < deadline, "{}", count.load(Ordering::SeqCst));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn open_for(directory: &tempfile::TempDir, owner: &str, model: &[u8]) -> (OwnedFd, Value) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(model).unwrap();
        let channel = packet::connect(directory.path().join("inference.sock")).unwrap();
        let message = json!({"kind": "open", "model": "m", "owner": owner, "inputs": []});
        packet::send(&channel, &message, &[file.as_fd()]).unwrap();
        let answer = packet::receive(&channel).unwrap().0;
        (channel, answer)
    }

    #[test]
    fn runtime_d3_one_application_cannot_take_all_connections_and_is_told_so() {
        let (directory, _) = served();
        let mut held = Vec::new();
        let refusal = loop {
            let (channel, answer) = open_for(&directory, "greedy", b"good");
            if answer["kind"] != "ready" {
                break answer;
            }
            held.push(channel);
            assert!(held.len() as u64 <= CONNECTIONS.burst);
        };
        assert_eq!(refusal["kind"], "failed");
        assert!(refusal["message"].as_str().unwrap().contains("fewer threads"), "{refusal}");
        assert_eq!(open_for(&directory, "other", b"good").1["kind"], "ready");
    }

    #[test]
    fn runtime_d4_a_connection_that_is_silent_at_first_does_not_keep_its_thread() {
        let (directory, _) = served();
        let silent: Vec<_> = (0..CONNECTIONS.in_all as usize + UNOPENED)
            .map(|_| packet::connect(directory.path().join("inference.sock")).unwrap())
            .collect();
        // One beyond is answered, with words.
        let beyond = packet::connect(directory.path().join("inference.sock")).unwrap();
        let (answer, _): (Value, _) = packet::receive(&beyond).unwrap();
        assert!(answer["message"].as_str().unwrap().contains("all that it serves"), "{answer}");
        // And the silent ones are closed.
        assert!(matches!(packet::receive::<Value>(&silent[0]), Err(packet::Error::Closed)));
    }

    #[test]
    fn runtime_d31_results_that_nobody_reads_do_not_hold_a_thread_for_ever() {
        use rustix::event::{PollFd, PollFlags, Timespec};
        let (directory, _) = served();
        let (channel, _) = open(&directory, b"good");
        let values = vec![1.0; 1 << 20];
        let view = json!({"name": "", "dtype": "float32", "shape": [values.len()], "offset": 0});
        packet::send(&channel, &json!({"kind": "call", "id": 1, "inputs": [view]}), &[memory(&values).as_fd()]).unwrap();
        // The client reads nothing and keeps its end; the server gives up.
        let mut ended = [PollFd::new(&channel, PollFlags::empty())];
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        rustix::event::poll(&mut ended, Some(&patience)).unwrap();
        assert!(ended[0].revents().contains(PollFlags::HUP), "the thread still waits");
    }

    #[test]
    fn runtime_d2_results_leave_no_memory_behind_that_the_client_could_keep() {
        let (directory, _) = served();
        let (channel, _) = open(&directory, b"good");
        let view = json!({"name": "", "dtype": "float32", "shape": [1000], "offset": 0});
        packet::send(&channel, &json!({"kind": "call", "id": 1, "inputs": [view]}), &[memory(&[1.0; 1000]).as_fd()])
            .unwrap();
        let (message, descriptors): (Value, _) = packet::receive(&channel).unwrap();
        assert_eq!((message["bytes"].as_u64(), descriptors.len()), (Some(4032), 0));
    }

    #[test]
    fn runtime_d4_a_call_that_would_exceed_the_memory_in_flight_waits_and_is_told() {
        let server = Server::new(Box::new(Doubler(Arc::default())));
        let _one = server.in_flight.take("a", IN_FLIGHT.burst).unwrap();
        assert!(server.in_flight.take("a", 1).is_none(), "an owner has no more than the largest call");
        assert!(server.in_flight.take("b", IN_FLIGHT.assured).is_some(), "others still have theirs");
    }
}

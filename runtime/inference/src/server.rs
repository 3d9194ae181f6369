//! The channel `inference.sock`. One thread a connection; a model is loaded once however many connections use it, and
//! unloaded with the last of them.

use crate::engine::{Engine, Session, TensorValue};
use crate::tensors;
use belvedere_frames::packet;
use belvedere_interfaces::channel::inference::{Event, Request, TensorView};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// Bytes of a model.
pub const MODEL: u64 = 1 << 30;
/// Connections at a time.
const CONNECTIONS: usize = 128;

type Loaded = Arc<Box<dyn Session>>;
/// One model's place: locked while it is being loaded, so that two connections do not load it twice.
type Place = Arc<Mutex<Weak<Box<dyn Session>>>>;

/// Serves models.
pub struct Server {
    engine: Box<dyn Engine>,
    models: Mutex<HashMap<[u8; 32], Place>>,
    connections: AtomicUsize,
}

impl Server {
    /// With an engine.
    pub fn new(engine: Box<dyn Engine>) -> Arc<Server> {
        Arc::new(Server { engine, models: Mutex::default(), connections: AtomicUsize::new(0) })
    }

    /// Accepts connections for ever; ends when accepting fails.
    pub fn serve(self: &Arc<Server>, listener: impl AsFd) -> packet::Error {
        loop {
            let connection = match packet::accept(&listener) {
                Ok(connection) => connection,
                Err(error) => return error,
            };
            if !belvedere_varlink::may_connect(&connection, "inference") {
                continue;
            }
            if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                log::warn!("more than {CONNECTIONS} connections; one is refused");
                continue;
            }
            let server = self.clone();
            std::thread::spawn(move || {
                if let Err(error) = server.attend(&connection) {
                    log::warn!("{error}; the connection is closed");
                }
                server.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// One connection, from `open` to its end.
    fn attend(&self, connection: &OwnedFd) -> Result<(), packet::Error> {
        let (model, session) = match packet::receive::<Request>(connection) {
            Ok((Request::Open { model, inputs: _ }, descriptors)) => {
                let name: String = model.chars().filter(|c| c.is_ascii_graphic()).take(128).collect();
                match self.open(&name, descriptors) {
                    Ok(session) => (name, session),
                    Err(message) => {
                        log::warn!("model {name}: {message}");
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
        let ready = Event::Ready { inputs: session.inputs().to_vec(), outputs: session.outputs().to_vec() };
        packet::send(connection, &ready, &[])?;
        loop {
            match packet::receive::<Request>(connection) {
                Ok((Request::Call { id, inputs }, descriptors)) => {
                    match call(session.as_ref().as_ref(), &inputs, descriptors) {
                        Ok((memory, outputs)) => {
                            packet::send(connection, &Event::Result { id, outputs }, &[memory.as_fd()])?
                        }
                        Err(message) => {
                            log::debug!("model {model}: {message}");
                            packet::send(connection, &Event::Error { id, message: line(&message) }, &[])?;
                        }
                    }
                }
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

    fn open(&self, name: &str, mut descriptors: Vec<OwnedFd>) -> Result<Loaded, String> {
        let (Some(file), true) = (descriptors.pop(), descriptors.is_empty()) else {
            return Err("`open` needs one descriptor: the model's file".into());
        };
        let bytes = read_model(file)?;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let place = {
            let mut models = self.models.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            models
                .retain(|_, place| Arc::strong_count(place) > 1 || place.lock().is_ok_and(|model| model.strong_count() > 0));
            models.entry(hash).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(session) = place.upgrade() {
            return Ok(session);
        }
        let begin = Instant::now();
        let session = Arc::new(self.engine.load(&bytes).map_err(|error| error.to_string())?);
        log::info!(
            "model {name}: {} bytes (SHA-256 {}…) loaded in {} ms",
            bytes.len(),
            &hex::encode(hash)[..16],
            begin.elapsed().as_millis()
        );
        *place = Arc::downgrade(&session);
        Ok(session)
    }
}

fn read_model(file: OwnedFd) -> Result<Vec<u8>, String> {
    let there = rustix::fs::fstat(&file).map_err(|error| format!("look at the model's file: {error}"))?;
    if rustix::fs::FileType::from_raw_mode(there.st_mode) != rustix::fs::FileType::RegularFile {
        return Err("the model is no file".into());
    }
    let size = u64::try_from(there.st_size).unwrap_or(0);
    if size > MODEL {
        return Err(format!("the model has {size} bytes; at most {MODEL} are taken"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    File::from(file).take(MODEL).read_to_end(&mut bytes).map_err(|error| format!("read the model: {error}"))?;
    Ok(bytes)
}

fn call(
    session: &dyn Session,
    views: &[TensorView],
    mut descriptors: Vec<OwnedFd>,
) -> Result<(OwnedFd, Vec<TensorView>), String> {
    let (Some(memory), true) = (descriptors.pop(), descriptors.is_empty()) else {
        return Err("a call needs one descriptor: the memory of its tensors".into());
    };
    let size = tensors::memory_size(&memory)?;
    let checked = tensors::check(views, session.inputs(), size)?;
    let memory = File::from(memory);
    let inputs: Vec<TensorValue> = checked
        .iter()
        .map(|checked| tensors::read(&memory, checked, &session.inputs()[checked.input].name))
        .collect::<Result<_, _>>()?;
    let results = session.run(inputs).map_err(|error| error.to_string())?;
    tensors::write(&results)
}

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Elements, EngineError};
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
        let value =
            TensorValue { name: "x".into(), shape: vec![values.len() as u64], elements: Elements::Float32(values.to_vec()) };
        tensors::write(&[value]).unwrap().0
    }

    fn ask(channel: &OwnedFd, message: Value, memory: &[&OwnedFd]) -> (Value, Vec<OwnedFd>) {
        let descriptors: Vec<_> = memory.iter().map(|memory| memory.as_fd()).collect();
        packet::send(channel, &message, &descriptors).unwrap();
        packet::receive(channel).unwrap()
    }

    #[test]
    fn a_model_is_opened_and_called() {
        let (directory, _) = served();
        let (channel, ready) = open(&directory, b"good");
        assert_eq!(ready["kind"], "ready");
        assert_eq!(ready["inputs"][0], json!({"name": "x", "dtype": "float32", "shape": [-1]}));
        let view = json!({"name": "", "dtype": "float32", "shape": [3], "offset": 0});
        let (answer, memories) =
            ask(&channel, json!({"kind": "call", "id": 7, "inputs": [view]}), &[&memory(&[1.0, 2.0, 3.0])]);
        assert_eq!((answer["kind"].as_str(), answer["id"].as_u64()), (Some("result"), Some(7)));
        let views: Vec<TensorView> = serde_json::from_value(answer["outputs"].clone()).unwrap();
        let output = Tensor { name: "x".into(), dtype: "float32".into(), shape: vec![3] };
        let checked = tensors::check(&views, &[output], tensors::memory_size(&memories[0]).unwrap()).unwrap();
        let file = File::from(memories.into_iter().next().unwrap());
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
}

//! QEMU's machine protocol, as much as is needed: one order at a time, events kept aside.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;

/// How long an answer may take: the machine may be badly overloaded.
const ANSWER: Duration = Duration::from_secs(60);
const EVENTS: usize = 256;

/// A connection to QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and negotiates. `alive` says whether QEMU still runs, so that its end is noticed at once.
    pub fn connect(socket: &Path, timeout: Duration, mut alive: impl FnMut() -> bool) -> Result<Self, Error> {
        let deadline = Instant::now() + timeout;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= deadline || !alive() => {
                    return Err(Error::Monitor { order: "connect".into(), message: error.to_string() });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(30)),
            }
        };
        let mut qmp = Self { stream, received: Vec::new(), events: VecDeque::new() };
        qmp.message("greeting", Instant::now() + ANSWER)?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives an order and returns what it returns.
    pub fn execute(&mut self, order: &str, arguments: Value) -> Result<Value, Error> {
        let failed = |message: String| Error::Monitor { order: order.to_owned(), message };
        let line = json!({"execute": order, "arguments": arguments}).to_string() + "\n";
        self.stream.write_all(line.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut message = self.message(order, deadline)?;
            if message.get("event").is_some() {
                self.keep(message);
            } else if let Some(error) = message.get("error") {
                let text = error["desc"].as_str().unwrap_or("unknown error");
                return Err(failed(text.to_owned()));
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Runs a command of the human monitor and returns what it prints.
    pub fn human(&mut self, line: &str) -> Result<String, Error> {
        let answer = self.execute("human-monitor-command", json!({"command-line": line}))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for an event for which `wanted` holds; earlier kept ones count.
    pub fn wait_event(&mut self, what: &str, timeout: Duration, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(place) = self.events.iter().position(&wanted) {
                self.events.remove(place);
                return Ok(());
            }
            let message = self.message(what, deadline)?;
            self.keep(message);
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn message(&mut self, order: &str, deadline: Instant) -> Result<Value, Error> {
        let failed = |message: String| Error::Monitor { order: order.to_owned(), message };
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|error| failed(error.to_string()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed("no answer in time".into()));
            }
            let mut chunk = [0u8; 8192];
            self.stream.set_read_timeout(Some(left)).map_err(|error| failed(error.to_string()))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(failed("QEMU closed the connection".into())),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}

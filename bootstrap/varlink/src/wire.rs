//! Messages on a stream: cut at NUL bytes, bounded in size and time, read without building a tree of their values.
//!
//! A tree of values (`serde_json::Value`) takes up to eighty times the room of its text, so one message of a stranger
//! would cost its reader that much before anybody has looked at who sent it. A message is therefore read twice: once for
//! its head, which allocates the method's name and nothing else, and once, when the head is accepted, straight into the
//! method's own type.

use crate::client::describe_member;
use rustix::net::sockopt::{self, Timeout};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a call is, its parameters left unread.
#[derive(Deserialize)]
pub(crate) struct CallHead {
    pub method: String,
    #[serde(default, rename = "parameters")]
    _parameters: Option<IgnoredAny>,
    /// The caller wants no answer.
    #[serde(default)]
    pub oneway: bool,
}

/// What an answer is, its parameters left unread.
#[derive(Deserialize)]
pub(crate) struct AnswerHead {
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default, rename = "parameters")]
    _parameters: Option<IgnoredAny>,
}

/// The parameters of a call or an answer. `null` and nothing are an empty object, as Varlink says.
pub(crate) fn parameters<T: DeserializeOwned>(message: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    #[serde(bound = "T: DeserializeOwned")]
    struct Body<T> {
        #[serde(default = "none")]
        parameters: Option<T>,
    }
    fn none<T>() -> Option<T> {
        None
    }
    // The head was read from the same bytes: they are JSON, whatever the parser calls a word where it wants a number.
    let wrong = |error: serde_json::Error| describe_member(&error);
    let body: Body<T> = serde_json::from_slice(message).map_err(wrong)?;
    match body.parameters {
        Some(parameters) => Ok(parameters),
        None => serde_json::from_slice(b"{}").map_err(wrong),
    }
}

/// The text of a call.
pub(crate) fn call_text(method: &str, parameters: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Text<'a, P> {
        method: &'a str,
        parameters: &'a P,
    }
    serde_json::to_vec(&Text { method, parameters })
}

/// The text of an answer; `error` is the error's full name.
pub(crate) fn answer_text(error: Option<&str>, parameters: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Text<'a, P> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        parameters: &'a P,
    }
    serde_json::to_vec(&Text { error, parameters })
}

/// Why no message came.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The peer closed; `midway` when it did so inside a message.
    Closed { midway: bool },
    /// Nothing, or not all of it, came in time.
    TimedOut,
    /// More bytes than the bound.
    TooLarge,
    /// The socket failed.
    Io(io::Error),
}

/// A connected stream and the bytes that came but are not yet asked for.
pub(crate) struct Wire {
    stream: UnixStream,
    /// Longest message that is taken, in bytes.
    maximum: usize,
    pending: Vec<u8>,
    /// How much of `pending` is known to hold no NUL.
    searched: usize,
}

impl Wire {
    pub fn new(stream: UnixStream, maximum: usize) -> Wire {
        Wire { stream, maximum, pending: Vec::new(), searched: 0 }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Waits up to `first` for a message to begin and up to `rest` more for it to be complete.
    pub fn receive(&mut self, first: Duration, rest: Duration) -> Result<Vec<u8>, ReceiveError> {
        let mut deadline = Instant::now() + if self.pending.is_empty() { first } else { rest };
        let mut chunk = [0u8; 16 * 1024];
        loop {
            if let Some(at) = self.pending[self.searched..].iter().position(|&byte| byte == 0) {
                let end = self.searched + at;
                let behind = self.pending.split_off(end + 1);
                let mut message = std::mem::replace(&mut self.pending, behind);
                message.pop();
                self.searched = 0;
                return if message.len() > self.maximum { Err(ReceiveError::TooLarge) } else { Ok(message) };
            }
            self.searched = self.pending.len();
            if self.pending.len() > self.maximum {
                return Err(ReceiveError::TooLarge);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReceiveError::TimedOut);
            }
            self.stream.set_read_timeout(Some(left)).map_err(ReceiveError::Io)?;
            match (&self.stream).read(&mut chunk) {
                Ok(0) => return Err(ReceiveError::Closed { midway: !self.pending.is_empty() }),
                Ok(count) => {
                    if self.pending.is_empty() {
                        deadline = Instant::now() + rest;
                    }
                    self.pending.extend_from_slice(&chunk[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(ReceiveError::TimedOut);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ReceiveError::Closed { midway: !self.pending.is_empty() });
                }
                Err(error) => return Err(ReceiveError::Io(error)),
            }
        }
    }

    /// Sends one message, whose text this is, within `time`.
    pub fn send(&mut self, mut bytes: Vec<u8>, time: Duration) -> io::Result<()> {
        bytes.push(0);
        let deadline = Instant::now() + time;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(left))?;
            match (&self.stream).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Connects, waiting at most `time` for a place in the server's queue (a server that hangs lets that queue fill).
pub(crate) fn connect(path: &std::path::Path, time: Duration) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(time))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

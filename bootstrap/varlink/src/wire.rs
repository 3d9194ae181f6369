//! Messages on a stream: cut at NUL bytes, bounded in size and time.

use crate::MAXIMUM_MESSAGE;
use rustix::net::sockopt::{self, Timeout};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A call.
#[derive(Serialize, Deserialize)]
pub(crate) struct Call {
    pub method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// The caller wants no answer.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub oneway: bool,
}

/// An answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// Why no message came.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The peer closed; `midway` when it did so inside a message.
    Closed { midway: bool },
    /// Nothing, or not all of it, came in time.
    TimedOut,
    /// More than [`MAXIMUM_MESSAGE`] bytes.
    TooLarge,
    /// The socket failed.
    Io(io::Error),
}

/// A connected stream and the bytes that came but are not yet asked for.
pub(crate) struct Wire {
    stream: UnixStream,
    pending: Vec<u8>,
    /// How much of `pending` is known to hold no NUL.
    searched: usize,
}

impl Wire {
    pub fn new(stream: UnixStream) -> Wire {
        Wire { stream, pending: Vec::new(), searched: 0 }
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
                return if message.len() > MAXIMUM_MESSAGE { Err(ReceiveError::TooLarge) } else { Ok(message) };
            }
            self.searched = self.pending.len();
            if self.pending.len() > MAXIMUM_MESSAGE {
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

    /// Sends one message within `time`. `InvalidInput` when it is larger than [`MAXIMUM_MESSAGE`], with nothing sent.
    pub fn send(&mut self, message: &impl Serialize, time: Duration) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAXIMUM_MESSAGE {
            let text = format!("the message has {} bytes, more than {MAXIMUM_MESSAGE}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
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

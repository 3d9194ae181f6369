//! The calling side.

use crate::wire::{self, AnswerHead, ReceiveError, Wire, connect};
use crate::{CALL_TIME, FAILURE, IDLE_TIME, MAXIMUM_MESSAGE, Peer};
use belvedere_interfaces::{Failure, Method};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service answered that it could not do it.
    #[error("{} ({})", .0.message, .0.reason)]
    Failure(Failure),
    /// No connection: the service is not there (yet), or does not take connections.
    #[error("connect to {path}: {source}; is the service running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The call could not be sent whole.
    #[error("send {method}: {source}")]
    Send {
        /// Full name of the method.
        method: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer could not be read.
    #[error("receive the answer to {method}: {source}")]
    Receive {
        /// Full name of the method.
        method: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The service closed the connection without an answer; the call may or may not have been carried out.
    #[error("the service closed the connection before it answered {method}; look at its log")]
    Closed {
        /// Full name of the method.
        method: &'static str,
    },
    /// No answer in time; the call may or may not have been carried out.
    #[error("no answer to {method} within {} ms", .after.as_millis())]
    TimedOut {
        /// Full name of the method.
        method: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is not what the interface says.
    #[error("the answer to {method} does not follow the interface: {detail}")]
    Decode {
        /// Full name of the method.
        method: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Another Varlink error, such as `org.varlink.service.MethodNotFound`.
    #[error("{method} was answered with {error}")]
    Refused {
        /// Full name of the method.
        method: &'static str,
        /// Full name of the error.
        error: String,
    },
}

impl CallError {
    /// The peer's failure, when the peer answered with one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            CallError::Failure(failure) => Some(failure),
            _ => None,
        }
    }
}

/// Connects, calls once within [`CALL_TIME`], closes.
pub fn call<M: Method>(path: impl AsRef<Path>, method: &M) -> Result<M::Reply, CallError> {
    Client::connect(path)?.call(method)
}

/// A connection to one service, for calls one after another.
///
/// A connection that failed or was long unused is opened anew with the next call, so that a client outlives restarts
/// of its service; only the call that meets the restart fails.
pub struct Client {
    path: PathBuf,
    wire: Option<Wire>,
    last_use: Instant,
}

impl Client {
    /// Connects. Fails with [`CallError::Connect`] alone.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, CallError> {
        let mut client = Client { path: path.as_ref().to_owned(), wire: None, last_use: Instant::now() };
        client.wire = Some(client.open(CALL_TIME)?);
        Ok(client)
    }

    fn open(&self, time: Duration) -> Result<Wire, CallError> {
        let stream = connect(&self.path, time).map_err(|source| CallError::Connect { path: self.path.clone(), source })?;
        Ok(Wire::new(stream, MAXIMUM_MESSAGE))
    }

    /// Who serves; `None` while there is no connection.
    pub fn server(&self) -> Option<Peer> {
        self.wire.as_ref().and_then(|wire| Peer::of(wire.stream()).ok())
    }

    /// Calls and waits for the reply, at most [`CALL_TIME`].
    pub fn call<M: Method>(&mut self, method: &M) -> Result<M::Reply, CallError> {
        self.call_within(method, CALL_TIME)
    }

    /// Calls and waits for the reply, at most `time`.
    pub fn call_within<M: Method>(&mut self, method: &M, time: Duration) -> Result<M::Reply, CallError> {
        let deadline = Instant::now() + time;
        // Half the server's patience: never start a call on a connection that the server is about to close.
        let fresh = self.last_use.elapsed() < IDLE_TIME / 2;
        let mut wire = match self.wire.take() {
            Some(wire) if fresh => wire,
            _ => self.open(time)?,
        };
        let name = M::NAME;
        let too_large = || format!("the call is larger than {MAXIMUM_MESSAGE} bytes");
        let invalid = |detail: String| io::Error::new(io::ErrorKind::InvalidInput, detail);
        let text = wire::call_text(name, method)
            .map_err(|error| error.to_string())
            .and_then(|text| if text.len() > MAXIMUM_MESSAGE { Err(too_large()) } else { Ok(text) })
            .map_err(|detail| CallError::Send { method: name, source: invalid(detail) })?;
        let left = || deadline.saturating_duration_since(Instant::now());
        let sent = wire.send(text, left());
        // A server that has no place or no ear for this caller says so and closes: its answer lies there to be read.
        let refused = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        match sent {
            Ok(()) => {}
            Err(_) if refused => {}
            Err(source) if source.kind() == io::ErrorKind::TimedOut => {
                return Err(CallError::TimedOut { method: name, after: time });
            }
            Err(source) => return Err(CallError::Send { method: name, source }),
        }
        let bytes = wire.receive(left(), left()).map_err(|error| match error {
            ReceiveError::Closed { .. } => CallError::Closed { method: name },
            ReceiveError::TimedOut => CallError::TimedOut { method: name, after: time },
            ReceiveError::TooLarge => CallError::Decode { method: name, detail: "it is larger than 1 MiB".into() },
            ReceiveError::Io(source) => CallError::Receive { method: name, source },
        })?;
        // From here on the stream stands between two messages: it may be used again.
        let wrong = |detail: String| CallError::Decode { method: name, detail };
        let head: AnswerHead = serde_json::from_slice(&bytes).map_err(|error| wrong(describe(&error)))?;
        if !refused {
            self.wire = Some(wire);
            self.last_use = Instant::now();
        }
        match head.error {
            None => wire::parameters(&bytes).map_err(wrong),
            Some(error) if error == FAILURE => Err(wire::parameters(&bytes).map_or_else(wrong, CallError::Failure)),
            Some(error) => Err(CallError::Refused { method: name, error }),
        }
    }
}

/// What is wrong with a document, without quoting its values: they may be secrets, and errors are logged.
pub(crate) fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => describe_member(error),
        _ => format!("not JSON at line {} column {}", error.line(), error.column()),
    }
}

/// The same of a document that is known to be JSON.
pub(crate) fn describe_member(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let named = ["missing field", "duplicate field", "unknown field"].iter().any(|safe| text.starts_with(safe));
    if named { text } else { "a member has another type or value than expected".into() }
}

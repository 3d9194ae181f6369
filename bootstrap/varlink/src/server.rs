//! The answering side: one thread a connection, as many connections as the bound allows.

use crate::client::describe;
use crate::wire::{Answer, Call, ReceiveError, Wire};
use crate::{FAILURE, IDLE_TIME, MAXIMUM_CONNECTIONS, MESSAGE_TIME};
use belvedere_interfaces::{Failure, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Who is at the other end, as the kernel knows it (`SO_PEERCRED`): cannot be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process; may be gone or reused by now, so decide by user.
    pub pid: i32,
}

impl Peer {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        Ok(Peer {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            pid: credentials.pid.as_raw_nonzero().get(),
        })
    }
}

/// Why a socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers on it.
    #[error("{0} is served by another process; end that first")]
    Served(PathBuf),
    /// Something that is not a socket has the name.
    #[error("{0} exists and is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

enum Outcome {
    Reply(Value),
    Failed(Failure),
    /// The parameters do not fit the method.
    Invalid(String),
    Unanswerable(String),
}

type Handler = Box<dyn Fn(Value, Peer) -> Outcome + Send + Sync>;

/// One socket and the methods that it answers.
pub struct Server {
    listener: UnixListener,
    path: Option<PathBuf>,
    routes: BTreeMap<&'static str, Handler>,
    idle: Duration,
    message_time: Duration,
}

impl Server {
    /// Makes the socket, open to every user (the methods look at the [`Peer`]); a socket that nobody serves is
    /// replaced.
    ///
    /// The new socket takes the place of the old one by renaming, so that there is no moment at which another user
    /// could take the name in a directory with the sticky bit.
    pub fn bind(path: impl AsRef<Path>) -> Result<Server, BindError> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let path = path.as_ref();
        let failed = |operation, source| BindError::Io { operation, path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
            Ok(_) if crate::wire::connect(path, Duration::from_millis(200)).is_ok() => {
                return Err(BindError::Served(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", error)),
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let new = path.with_file_name(format!(".{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(|error| failed("make the socket", error))?;
        #[expect(clippy::disallowed_methods, reason = "a socket lives as long as its server")]
        let done = std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666))
            .map_err(|error| failed("set the mode of", error))
            .and_then(|()| std::fs::rename(&new, path).map_err(|error| failed("rename the new socket to", error)));
        if let Err(error) = done {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        Ok(Server { path: Some(path.to_owned()), ..Server::from_listener(listener) })
    }

    /// Serves on a socket that exists already.
    pub fn from_listener(listener: UnixListener) -> Server {
        Server { listener, path: None, routes: BTreeMap::new(), idle: IDLE_TIME, message_time: MESSAGE_TIME }
    }

    /// Gives the socket another mode than 0666. Without effect after [`Server::from_listener`].
    pub fn mode(self, mode: u32) -> Result<Server, BindError> {
        if let Some(path) = &self.path {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|source| BindError::Io {
                operation: "set the mode of",
                path: path.clone(),
                source,
            })?;
        }
        Ok(self)
    }

    /// Other patience than [`IDLE_TIME`] and [`MESSAGE_TIME`]; for tests.
    pub fn patience(mut self, idle: Duration, message: Duration) -> Server {
        self.idle = idle;
        self.message_time = message;
        self
    }

    /// Answers `M` with `handler`, which runs on the connection's own thread and may block.
    pub fn route<M: Method>(
        mut self,
        handler: impl Fn(M, Peer) -> Result<M::Reply, Failure> + Send + Sync + 'static,
    ) -> Server {
        let handler: Handler = Box::new(move |parameters, peer| match serde_json::from_value::<M>(parameters) {
            Err(error) => Outcome::Invalid(describe(&error)),
            Ok(method) => match handler(method, peer) {
                Err(failure) => Outcome::Failed(failure),
                Ok(reply) => match serde_json::to_value(reply) {
                    Ok(value) => Outcome::Reply(value),
                    Err(error) => Outcome::Unanswerable(error.to_string()),
                },
            },
        });
        self.routes.insert(M::NAME, handler);
        self
    }

    /// Serves until the process ends.
    pub fn run(self) {
        let Server { listener, path, routes, idle, message_time } = self;
        let routes = Arc::new(routes);
        let open = Arc::new(AtomicUsize::new(0));
        let name = path.map_or_else(|| "varlink".to_owned(), |path| path.display().to_string());
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                // The listener was shut down: the only way to end.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => return,
                Err(error) => {
                    if error.kind() != io::ErrorKind::Interrupted {
                        // Out of descriptors or memory: others' fault or ours, it may pass.
                        log::warn!("{name}: accept a connection: {error}");
                        std::thread::sleep(Duration::from_millis(200));
                    }
                    continue;
                }
            };
            let place = Place::take(&open);
            let routes = Arc::clone(&routes);
            let spawned = std::thread::Builder::new().name("varlink".into()).stack_size(512 * 1024).spawn(move || {
                let mut wire = Wire::new(stream);
                match (place, Peer::of(wire.stream())) {
                    (Some(_place), Ok(peer)) => converse(&mut wire, peer, &routes, idle, message_time),
                    (None, _) => {
                        let busy = Failure {
                            reason: "busy".into(),
                            message: format!("more than {MAXIMUM_CONNECTIONS} connections are open; try again later"),
                        };
                        let _ = wire.send(&failure_answer(&busy), Duration::from_millis(200));
                    }
                    (Some(_), Err(error)) => log::warn!("read the credentials of a peer: {error}"),
                }
            });
            if let Err(error) = spawned {
                log::warn!("{name}: start a thread for a connection: {error}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }

    /// Serves on a thread of its own.
    pub fn spawn(self) -> JoinHandle<()> {
        std::thread::spawn(move || self.run())
    }
}

/// A place among the [`MAXIMUM_CONNECTIONS`].
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAXIMUM_CONNECTIONS).then_some(count + 1))
            .ok()
            .map(|_| Place(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn failure_answer(failure: &Failure) -> Answer {
    Answer {
        error: Some(FAILURE.to_owned()),
        parameters: Some(json!({"reason": failure.reason, "message": failure.message})),
    }
}

/// Answers calls until the peer leaves, falls silent or stops following the protocol.
fn converse(wire: &mut Wire, peer: Peer, routes: &BTreeMap<&'static str, Handler>, idle: Duration, message_time: Duration) {
    loop {
        let bytes = match wire.receive(idle, message_time) {
            Ok(bytes) => bytes,
            Err(ReceiveError::Closed { midway: false }) => return,
            Err(ReceiveError::TimedOut) => return,
            Err(error) => {
                log::warn!("closing the connection of user {} (process {}): {error:?}", peer.uid, peer.pid);
                return;
            }
        };
        let call: Call = match serde_json::from_slice(&bytes) {
            Ok(call) => call,
            Err(error) => {
                log::warn!("closing the connection of user {} (process {}): {}", peer.uid, peer.pid, describe(&error));
                return;
            }
        };
        let answer = answer(&call.method, call.parameters, peer, routes);
        if call.oneway {
            continue;
        }
        match wire.send(&answer, message_time) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let failure = Failure { reason: "reply_too_large".into(), message: format!("{}: {error}", call.method) };
                if wire.send(&failure_answer(&failure), message_time).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn answer(method: &str, parameters: Option<Value>, peer: Peer, routes: &BTreeMap<&'static str, Handler>) -> Answer {
    let error = |name: &str, parameters: Value| Answer { error: Some(name.to_owned()), parameters: Some(parameters) };
    let parameters = parameters.unwrap_or_else(|| json!({}));
    if let Some(handler) = routes.get(method) {
        return match handler(parameters, peer) {
            Outcome::Reply(value) => Answer { error: None, parameters: Some(value) },
            Outcome::Failed(failure) => failure_answer(&failure),
            Outcome::Invalid(detail) => error("org.varlink.service.InvalidParameter", json!({ "parameter": detail })),
            Outcome::Unanswerable(detail) => {
                failure_answer(&Failure { reason: "internal".into(), message: format!("{method}: {detail}") })
            }
        };
    }
    let interfaces = || {
        let mut names: Vec<&str> =
            routes.keys().filter_map(|name| name.rsplit_once('.').map(|(interface, _)| interface)).collect();
        names.push("org.varlink.service");
        names.dedup();
        names
    };
    match method.rsplit_once('.') {
        Some(("org.varlink.service", "GetInfo")) => Answer {
            error: None,
            parameters: Some(json!({
                "vendor": "Belvedere", "product": "Belvedere appliance", "version": env!("CARGO_PKG_VERSION"),
                "url": "", "interfaces": interfaces(),
            })),
        },
        // The descriptions are the Rust types of formats/interfaces; there is no second copy to get out of step.
        Some(("org.varlink.service", "GetInterfaceDescription")) => {
            error("org.varlink.service.MethodNotImplemented", json!({ "method": method }))
        }
        Some((interface, _)) if !interfaces().contains(&interface) => {
            error("org.varlink.service.InterfaceNotFound", json!({ "interface": interface }))
        }
        _ => error("org.varlink.service.MethodNotFound", json!({ "method": method })),
    }
}

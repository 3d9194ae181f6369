//! The answering side: one thread a connection, as many connections as the bounds allow.
//!
//! A server may be PID 1, which nothing may end: whatever a peer sends costs at most its places' messages, threads that
//! cannot be started are an error and no panic, and a peer that has no right here ([`belvedere_interfaces::rights`]) is
//! refused before anything of it is read. What it may call is asked before its parameters are read.

use crate::client::describe;
use crate::places::{Place, Places};
use crate::rights::host;
use crate::wire::{self, CallHead, ReceiveError, Wire};
use crate::{FAILURE, IDLE_TIME, MAXIMUM_MESSAGE, MESSAGE_TIME, Pulse};
use belvedere_interfaces::rights::{self, Caller, Host};
use belvedere_interfaces::{Failure, Method};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
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
    /// Who that is to the server; `None` where a client looks at its server.
    pub caller: Option<Caller>,
}

impl Peer {
    pub(crate) fn of(stream: impl std::os::fd::AsFd) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        Ok(Peer {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            pid: credentials.pid.as_raw_nonzero().get(),
            caller: None,
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

/// Reads the parameters of a message straight into the method, and gives the text of the answer.
type Handler = Box<dyn Fn(&[u8], Peer) -> Vec<u8> + Send + Sync>;
/// Whether what the methods work on can be had.
type Watch = Box<dyn Fn() -> bool + Send>;

/// One socket and the methods that it answers.
pub struct Server {
    listener: UnixListener,
    path: Option<PathBuf>,
    routes: BTreeMap<&'static str, Handler>,
    idle: Duration,
    message_time: Duration,
    maximum_message: usize,
    /// Its name in the table of rights.
    name: String,
    host: Host,
    watch: Option<(Pulse, Watch)>,
}

impl Server {
    /// Makes the socket; a socket that nobody serves is replaced. Every user can connect, and the table of rights says
    /// who is served: the socket's name without `.sock` is the server's name there.
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
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Server { path: Some(path.to_owned()), ..Server::from_listener(listener, &name) })
    }

    /// Serves on a socket that exists already, as the server of this name.
    pub fn from_listener(listener: UnixListener, name: &str) -> Server {
        Server {
            listener,
            path: None,
            routes: BTreeMap::new(),
            idle: IDLE_TIME,
            message_time: MESSAGE_TIME,
            maximum_message: MAXIMUM_MESSAGE,
            name: name.to_owned(),
            host: host(),
            watch: None,
        }
    }

    /// Takes callers for what they are on another host than this one; for tests.
    pub fn host(mut self, host: Host) -> Server {
        self.host = host;
        self
    }

    /// Takes calls of at most so many bytes; for servers whose calls are known to be short.
    pub fn maximum_message(mut self, bytes: usize) -> Server {
        self.maximum_message = bytes.min(MAXIMUM_MESSAGE);
        self
    }

    /// Other patience than [`IDLE_TIME`] and [`MESSAGE_TIME`]; for tests.
    pub fn patience(mut self, idle: Duration, message: Duration) -> Server {
        self.idle = idle;
        self.message_time = message;
        self
    }

    /// Gives `pulse` a beat at each turn of the loop that takes connections, at which `alive` says that the methods can
    /// do their work: that a lock which they take was to be had. `alive` must not wait: a lock that is busy now will be
    /// free at another turn, and one that never is makes the service silent.
    pub fn watch(mut self, pulse: Pulse, alive: impl Fn() -> bool + Send + 'static) -> Server {
        self.watch = Some((pulse, Box::new(alive)));
        self
    }

    /// Answers `M` with `handler`, which runs on the connection's own thread and may block.
    pub fn route<M: Method>(
        mut self,
        handler: impl Fn(M, Peer) -> Result<M::Reply, Failure> + Send + Sync + 'static,
    ) -> Server {
        let handler: Handler = Box::new(move |message, peer| match wire::parameters::<M>(message) {
            Err(detail) => text(Some("org.varlink.service.InvalidParameter"), &json!({ "parameter": detail })),
            Ok(method) => match handler(method, peer) {
                Err(failure) => text(Some(FAILURE), &failure),
                Ok(reply) => text(None, &reply),
            },
        });
        self.routes.insert(M::NAME, handler);
        self
    }

    /// Serves until the process ends.
    pub fn run(self) {
        let Server { listener, path, routes, idle, message_time, maximum_message, name: server, host, watch } = self;
        let served = Arc::new(Served { server, routes });
        let places = Places::default();
        let name = path.map_or_else(|| "varlink".to_owned(), |path| path.display().to_string());
        loop {
            if let Some((pulse, alive)) = &watch {
                if alive() {
                    pulse.beat();
                }
                if !Pulse::wait_for(&listener) {
                    continue;
                }
            }
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
            let peer = match Peer::of(&stream) {
                Ok(peer) => Peer { caller: rights::caller(peer.uid, peer.pid, host), ..peer },
                Err(error) => {
                    log::warn!("{name}: read the credentials of a peer: {error}");
                    continue;
                }
            };
            // Refusals are said here and now: a thread for each would be what the bound is to prevent.
            if !peer.caller.is_some_and(|caller| rights::may_connect(&served.server, caller)) {
                refuse(&stream, &denied(peer, &served.server));
                continue;
            }
            let place = match places.take(peer.uid) {
                Ok(place) => place,
                Err(full) => {
                    refuse(&stream, &Failure { reason: "busy".into(), message: format!("{full}; try again later") });
                    continue;
                }
            };
            let served = Arc::clone(&served);
            let spawned = std::thread::Builder::new().name("varlink".into()).stack_size(512 * 1024).spawn(move || {
                let _place: Place = place;
                converse(&mut Wire::new(stream, maximum_message), peer, &served, idle, message_time);
            });
            if let Err(error) = spawned {
                log::warn!("{name}: start a thread for a connection: {error}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }

    /// Serves on a thread of its own.
    ///
    /// # Panics
    ///
    /// When no thread can be started; PID 1 uses [`Server::try_spawn`].
    pub fn spawn(self) -> JoinHandle<()> {
        self.try_spawn().unwrap_or_else(|error| panic!("start the thread of a Varlink server: {error}"))
    }

    /// Serves on a thread of its own, if there can be one.
    pub fn try_spawn(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("varlink".into()).spawn(move || self.run())
    }
}

/// What a server answers, and its name in the table of rights.
struct Served {
    server: String,
    routes: BTreeMap<&'static str, Handler>,
}

fn denied(peer: Peer, what: &str) -> Failure {
    let who = match peer.caller {
        Some(caller) => caller.name().to_owned(),
        None => format!("user {}", peer.uid),
    };
    Failure { reason: "permission_denied".into(), message: format!("{who} may not call {what}") }
}

/// Tells a peer why it is not served, as far as that goes without waiting; dropping the stream closes it.
fn refuse(mut stream: &UnixStream, failure: &Failure) {
    let mut answer = text(Some(FAILURE), failure);
    answer.push(0);
    if stream.set_nonblocking(true).is_ok() {
        // The buffer of a new connection is empty: this fits, or the peer is gone.
        let _ = stream.write(&answer);
    }
}

/// The text of an answer; when that is too large or cannot be written, the text of the failure to give it.
fn text(error: Option<&str>, parameters: &impl Serialize) -> Vec<u8> {
    let failed = |reason: &str, message: String| {
        wire::answer_text(Some(FAILURE), &Failure { reason: reason.into(), message }).unwrap_or_default()
    };
    match wire::answer_text(error, parameters) {
        Ok(text) if text.len() <= MAXIMUM_MESSAGE => text,
        Ok(text) => failed("reply_too_large", format!("the reply has {} bytes, more than {MAXIMUM_MESSAGE}", text.len())),
        Err(error) => failed("internal", describe(&error)),
    }
}

/// Answers calls until the peer leaves, falls silent or stops following the protocol.
fn converse(wire: &mut Wire, peer: Peer, served: &Served, idle: Duration, message_time: Duration) {
    let closing = |why: &str| log::warn!("closing the connection of user {} (process {}): {why}", peer.uid, peer.pid);
    loop {
        let message = match wire.receive(idle, message_time) {
            Ok(message) => message,
            Err(ReceiveError::Closed { midway: false } | ReceiveError::TimedOut) => return,
            Err(error) => return closing(&format!("{error:?}")),
        };
        let head: CallHead = match serde_json::from_slice(&message) {
            Ok(head) => head,
            Err(error) => return closing(&describe(&error)),
        };
        let answer = answer(&head.method, &message, peer, served);
        drop(message);
        if !head.oneway && wire.send(answer, message_time).is_err() {
            return;
        }
    }
}

fn answer(method: &str, message: &[u8], peer: Peer, served: &Served) -> Vec<u8> {
    let routes = &served.routes;
    if let Some((name, handler)) = routes.get_key_value(method) {
        return match peer.caller {
            Some(caller) if rights::may_call(&served.server, name, caller) => handler(message, peer),
            _ => text(Some(FAILURE), &denied(peer, name)),
        };
    }
    // What is not ours is told back, but not at any length.
    let method: String = method.chars().take(200).collect();
    let interfaces = || {
        let mut names: Vec<&str> =
            routes.keys().filter_map(|name| name.rsplit_once('.').map(|(interface, _)| interface)).collect();
        names.push("org.varlink.service");
        names.dedup();
        names
    };
    match method.rsplit_once('.') {
        Some(("org.varlink.service", "GetInfo")) => text(
            None,
            &json!({
                "vendor": "Belvedere", "product": "Belvedere appliance", "version": env!("CARGO_PKG_VERSION"),
                "url": "", "interfaces": interfaces(),
            }),
        ),
        // The descriptions are the Rust types of formats/interfaces; there is no second copy to get out of step.
        Some(("org.varlink.service", "GetInterfaceDescription")) => {
            text(Some("org.varlink.service.MethodNotImplemented"), &json!({ "method": method }))
        }
        Some((interface, _)) if !interfaces().contains(&interface) => {
            text(Some("org.varlink.service.InterfaceNotFound"), &json!({ "interface": interface }))
        }
        _ => text(Some("org.varlink.service.MethodNotFound"), &json!({ "method": method })),
    }
}

//! Varlink over Unix stream sockets: how the appliance's services call one another.
//!
//! A message is one JSON object ended by a NUL byte. A call is
//! `{"method":"org.belvedere.X.Y","parameters":{…}}`; its answer is `{"parameters":{…}}` or
//! `{"error":"org.belvedere.Error","parameters":{"reason":…,"message":…}}`. What the methods are is defined in
//! `formats/interfaces`; this crate only carries them.
//!
//! ```no_run
//! use belvedere_interfaces::{Done, front_panel::{Condition, SetCondition}, paths};
//!
//! // A service:
//! let server = belvedere_varlink::Server::bind(paths::FRONT_PANEL)?
//!     .route(|call: SetCondition, peer: belvedere_varlink::Peer| {
//!         log::info!("{:?} from user {}", call.condition, peer.uid);
//!         Ok(Done {})
//!     })
//!     .spawn();
//! belvedere_varlink::notify_ready();
//!
//! // Its caller:
//! let call = SetCondition { source: "network".into(), condition: Condition::Error, active: true };
//! belvedere_varlink::call(paths::FRONT_PANEL, &call)?;
//! # let _ = server;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why not `zlink`
//!
//! `zlink` is an asynchronous library. PID 1, the front panel, the display and the model processes have no
//! asynchronous runtime and should not get one to answer a call a minute: blocking threads are smaller, and a
//! stack trace of PID 1 stays readable. It also neither hands the peer's credentials (`SO_PEERCRED`) to a method nor
//! bounds a message, a connection's idle time or the number of connections, and those bounds are what keeps one
//! broken service from taking another with it. The wire format is the same, so `varlinkctl` and `zlink` clients work.
//!
//! # Who may call
//!
//! The table is [`belvedere_interfaces::rights`]; a server asks it, services do not. A peer that may call nothing of a
//! server is answered `permission_denied` and closed before a byte of it is read; a method that it may not call is
//! answered so before its parameters are read. Servers of channels ask it with [`may_connect`].
//!
//! # Ready, and alive
//!
//! A service says once that it is ready ([`notify_ready`]) and from then on gives signs of life ([`Pulse`]) out of the
//! loops that do its work; `init` starts one anew that falls silent. What counts as work of a server on threads of its own is
//! that it takes connections and that the service's state can be had ([`Server::watch`]).
//!
//! # Bounds
//!
//! | what | limit | then |
//! |---|---|---|
//! | one message | [`MAXIMUM_MESSAGE`]; calls as [`Server::maximum_message`] says | connection closed |
//! | JSON nesting | 128 | connection closed |
//! | from a message's first byte to its last | [`MESSAGE_TIME`] | connection closed |
//! | time without a call | [`IDLE_TIME`] | connection closed; [`Client`] connects again by itself |
//! | connections of one user to one server | [`MAXIMUM_CONNECTIONS_PER_USER`] | the new one gets the failure `busy` |
//! | connections of one server | [`MAXIMUM_CONNECTIONS`], room for every service | the new one gets the failure `busy` |
//! | memory for one connection | twice a message's bound, and what its method's own type takes | |
//! | a call | [`CALL_TIME`] or as given | [`CallError::TimedOut`] |

mod client;
mod logging;
mod places;
mod pulse;
mod ready;
mod rights;
mod server;
mod wire;

pub use client::{CallError, Client, call};
pub use logging::log_to_stderr;
pub use pulse::Pulse;
pub use ready::{
    PROVEN_VARIABLE, READY_VARIABLE, RESTORED_VARIABLE, claim_ready_pipe, notify_ready, release_is_proven,
    restores_the_minimum,
};
pub use rights::may_connect;
pub use server::{BindError, Peer, Server};

use std::time::Duration;

/// Longest message in bytes, the ending NUL not counted.
pub const MAXIMUM_MESSAGE: usize = 1024 * 1024;
/// Most connections that one user has to one server at once: who takes more takes none from others.
pub const MAXIMUM_CONNECTIONS_PER_USER: usize = 8;
/// Most connections that one server holds at once: every service's share.
pub const MAXIMUM_CONNECTIONS: usize = (belvedere_interfaces::users::USERS.len() + 1) * MAXIMUM_CONNECTIONS_PER_USER;
/// How long a server keeps a connection on which nothing is asked.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long one message may take from its first byte to its last, and an answer to be taken by its caller.
pub const MESSAGE_TIME: Duration = Duration::from_secs(10);
/// How long [`Client::call`] waits for an answer.
pub const CALL_TIME: Duration = Duration::from_secs(10);

/// Name of the one error that carries a [`belvedere_interfaces::Failure`].
pub const FAILURE: &str = "org.belvedere.Error";

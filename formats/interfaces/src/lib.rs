//! What the appliance's processes say to each other.
//!
//! Two kinds of conversation:
//! - **Varlink calls** (one request, one reply, JSON ended by NUL over a Unix stream socket; transport in
//!   `bootstrap/varlink`). Each service has one socket, `/run/belvedere/<service>/<service>.sock`; its methods are the types
//!   that implement [`Method`] in the module of that service.
//! - **Channels** ([`channel`]): Unix `SOCK_SEQPACKET` connections on which every packet is one JSON message, with
//!   file descriptors beside it. Pictures, tensors and metadata go this way, by shared memory.
//!
//! No process reads another's files. Everything here is data: no I/O, no clock.

pub mod access_units;
pub mod applications;
pub mod camera;
pub mod channel;
pub mod front_panel;
pub mod logs;
pub mod machine;
pub mod network;
pub mod paths;
pub mod provisioning;
pub mod rights;
pub mod users;

use serde::{Serialize, de::DeserializeOwned};

/// One method of a Varlink interface: its full name, its parameters (the implementing type) and its reply.
pub trait Method: Serialize + DeserializeOwned {
    /// Full name, as in `org.belvedere.Camera.SetStreams`.
    const NAME: &'static str;
    /// What comes back when the call succeeds.
    type Reply: Serialize + DeserializeOwned;
}

/// The one error every interface of ours can answer with, named `org.belvedere.Error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Failure {
    /// Stable word for programs, such as `not_provisioned` or `invalid_parameter`.
    pub reason: String,
    /// One line for people: what failed, on what, and what to do next. Never a secret.
    pub message: String,
}

/// An empty reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct Done {}

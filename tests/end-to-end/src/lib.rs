//! The whole product on one machine: service, camera, appliance, and the people who use them.
//!
//! [`Scene`] is the furniture of the demonstration (`scripts/demo`) and of the whole-system tests: it starts the real
//! service, a real RTSP camera and the virtual appliance, and does what an operator and a developer would do, with
//! the tools that they would use. Everything it starts ends with it.

#![allow(clippy::disallowed_methods, reason = "files of tests")]

pub mod children;
pub mod picture;
pub mod progress;
pub mod scene;
pub mod tools;

pub use scene::{Scene, SceneConfiguration};

/// What went wrong, for people: what was being done, what happened, and where to look.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {what}")]
pub struct Trouble {
    /// What was being done.
    pub doing: String,
    /// What happened.
    pub what: String,
}

impl Trouble {
    /// What was being done, and what happened instead.
    pub fn new(doing: impl Into<String>, what: impl std::fmt::Display) -> Trouble {
        Trouble { doing: doing.into(), what: what.to_string() }
    }
}

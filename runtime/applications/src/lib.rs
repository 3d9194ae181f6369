//! Turns desired application instances into containers that run, and keeps them running. See README.md.

pub mod container;
pub mod download;
pub mod model_archive;
pub mod places;
pub mod plan;
pub mod seccomp;
pub mod spool;
pub mod unpack;

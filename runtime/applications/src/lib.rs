//! Turns desired application instances into containers that run, and keeps them running. See README.md.

pub mod claims;
pub mod container;
pub mod deployment;
pub mod discard;
pub mod disk;
pub mod download;
pub mod ending;
pub mod health;
pub mod install;
pub mod model_archive;
pub mod model_keeper;
pub mod node_server;
pub mod pauses;
pub mod places;
pub mod plan;
pub mod reserve;
pub mod seccomp;
pub mod service;
pub mod shared;
pub mod spool;
pub mod state;
pub mod supervisor;
pub mod tail;
pub mod unpack;
pub mod worker;

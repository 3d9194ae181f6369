//! The appliance's link to its service.
//!
//! [`core`] decides what is said over MQTT (shadows) and what is asked of `applications`; [`jobs`] what is done about the
//! service's jobs; [`logs`] what is sent as log events; all three are pure. [`release`] is about the end of an identity. [`link`] is
//! MQTT, [`web`] is HTTPS (credentials, deployment documents, log events; signed by
//! [`sigv4`]), [`key`] is how the device's key signs in both. [`service`] joins them with the appliance's other processes; its threads for deployments and for log lines
//! are `deployer` and `log_sender`.
//!
//! Being offline is normal: applications go on, lines wait in their servers' bounded spools, and with the next connection
//! the whole state is compared and what differs is said again.

mod asked;
pub mod core;
mod deployer;
mod https;
pub mod jobs;
pub mod key;
pub mod link;
mod log_sender;
pub mod logs;
pub mod release;
pub mod service;
pub mod sigv4;
pub mod time;
pub mod web;

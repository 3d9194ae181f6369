//! From a USB stick to an identity.
//!
//! [`devices`] notices sticks, [`stick`] reads and writes one, [`plan()`] decides what to do with it, [`executor`] does
//! it through the [`world::World`] (network, clock, [`key`], [`claim`], identity, lights), [`result`] says how it went.
//! [`service`] is the loop around them and `org.belvedere.Provisioning`.

pub mod claim;
pub mod devices;
pub mod executor;
pub mod identity;
pub mod key;
pub mod plan;
pub mod result;
pub mod service;
pub mod stick;
pub mod tls;
pub mod world;

pub use plan::plan;

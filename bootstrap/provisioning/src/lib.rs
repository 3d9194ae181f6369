//! From a USB stick to an identity.
//!
//! [`devices`] notices sticks, [`survey`] chooses a volume, [`stick`] reads and writes it, [`owner`] tells whether it may
//! take the appliance over, [`plan()`] decides what to do with it, [`executor`] does
//! it through the [`world::World`] (network, [`clock`], [`key`], [`claim`], identity, lights), [`result`] says how it went.
//! [`tpm_key`] is the device's key, [`tpm`] the way to it, [`signing`] who may use it.
//! [`service`] is the loop around them and `org.belvedere.Provisioning`.

pub mod claim;
pub mod clock;
pub mod devices;
pub mod executor;
pub mod identity;
pub mod key;
pub mod owner;
pub mod plan;
pub mod result;
pub mod secure_world_key;
pub mod service;
pub mod signing;
pub mod stick;
pub mod survey;
pub mod tls;
pub mod tpm_key;
pub mod world;

pub use plan::plan;

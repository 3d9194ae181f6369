//! The factory's side of a Jetson board's fuses: which of them to burn, from which keys, and everything that must be
//! right before NVIDIA's program is let at them. Nothing of this runs on an appliance.
//!
//! - [`chip`]: the fuses of a generation; [`reading`]: what is in them now, from NVIDIA's reading program;
//! - [`plan`]: from what is and what is wanted to what is burned, or a refusal. Pure;
//! - [`configuration`]: NVIDIA's XML; [`table`]: the same for people, without the secrets;
//! - [`procedure`]: the steps, with a dry run and without; [`bench`]: what they do to the world, and NVIDIA's scripts
//!   ([`nvidia`]) behind it.

#![allow(clippy::disallowed_methods, reason = "a tool of the factory: what it writes can be made again")]

pub mod bench;
pub mod chip;
pub mod configuration;
pub mod mask;
pub mod nvidia;
pub mod plan;
pub mod procedure;
pub mod reading;
pub mod secret;
pub mod table;

//! The console of UEFI programs, and the end of a panic.
//!
//! The `uefi` crate's `println!` panics when the console is missing, fails, or warns about a letter, and its panic handler
//! switches the machine off. An appliance never just stops: here errors of the console are ignored, and a panic restarts.
#![no_std]

#[cfg(test)]
extern crate std;

mod letters;

pub use letters::Letters;

#[cfg(target_os = "uefi")]
mod firmware;

#[cfg(target_os = "uefi")]
pub use firmware::{panicked, say};

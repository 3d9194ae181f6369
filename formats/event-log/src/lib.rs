//! What was measured into the TPM at a start, event by event, and what should have been: a table for people. No I/O.
//!
//! | module | what | source |
//! |---|---|---|
//! | [`log`] | the firmware's event log | TCG PC Client Platform Firmware Profile 1.06, 10 |
//! | [`expected`] | the events of a release, which travel in its image's section `.belvexp` | our own |
//! | [`comparison`] | both side by side | |
//!
//! Nobody decides by any of this: the TPM gives its secrets out or not by what is in its registers. It says why not.
#![no_std]

extern crate alloc;

pub mod comparison;
pub mod expected;
pub mod log;

use alloc::string::String;
use core::fmt::Write;
use sha2::Digest as _;

/// A SHA-256.
pub type Digest = [u8; 32];

/// The registers that a release is recognised by: those of Secure Boot and of the release.
pub const REGISTERS: [u32; 2] = [7, 11];

/// A register after an event.
pub fn extend(register: &Digest, event: &Digest) -> Digest {
    let mut hash = sha2::Sha256::new();
    hash.update(register);
    hash.update(event);
    hash.finalize().into()
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

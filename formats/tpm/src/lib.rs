//! A small part of TPM 2.0: the commands that the appliance needs, the digests of its policies, and what it keeps in the
//! TPM.
//!
//! Written here and not taken from a library (tss-esapi over tpm2-tss): the same code runs in the firmware without `std`,
//! in the initramfs, which stays under 4 MB, and in the running system; the C library is 1 MB and brings OpenSSL. No I/O:
//! bytes go through [`Tpm`], which has one implementation over the firmware's protocol and one over `/dev/tpmrm0`.
//!
//! References are to "Trusted Platform Module Library", Family 2.0, revision 1.59: part 1 (architecture), 2 (structures),
//! 3 (commands).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod approval;
pub mod boot_policy;
pub mod commands;
mod error;
pub mod layout;
pub mod policy;
mod structures;
mod wire;

pub use error::{ResponseCode, TpmError};
pub use structures::{Name, NvPublic, P256Key, P256Signature, PolicyKey, PolicySignature, attributes};
pub use wire::{Authorization, MAXIMUM, PolicySession};

/// A SHA-256 digest. The SHA-256 bank of the PCRs and SHA-256 policies are all that is used.
pub type Digest = [u8; 32];

/// A way to a TPM: bytes there and back.
pub trait Tpm {
    /// Why no answer came.
    type Error: core::fmt::Display;

    /// Sends one command and waits for its answer, with a deadline of its own; gives the answer's length.
    ///
    /// # Errors
    /// When no answer came. What the TPM answers, a refusal too, is no error here.
    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, Self::Error>;

    /// Waits a little before a command is sent again that the TPM had no time for, for the `attempt`th time (0, 1, …).
    /// Does nothing unless told how.
    fn wait(&mut self, attempt: u32) {
        let _ = attempt;
    }
}

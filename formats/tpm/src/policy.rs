//! Digests as the TPM computes them, so that a release can be signed without one. Pure.
//!
//! All with SHA-256. A policy starts from [`START`]; each function takes the digest before and gives the one behind.

use crate::structures::{concatenated, pcr_selection};
use crate::{Digest, Name, commands};
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

/// A policy nothing was added to.
pub const START: Digest = [0; 32];

/// SHA-256 of several pieces, one behind the other.
pub fn sha256(pieces: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().into()
}

/// What a PCR holds after a digest was measured into it.
pub fn extend(pcr: &Digest, digest: &Digest) -> Digest {
    sha256(&[pcr, digest])
}

/// What PolicyPCR compares: SHA-256 of the values, in the order of the PCRs' numbers.
pub fn pcr_digest(values: &[(u8, Digest)]) -> Digest {
    concatenated(values)
}

/// PolicyPCR (part 3, 23.7): the PCRs hold these values.
pub fn policy_pcr(before: &Digest, values: &[(u8, Digest)]) -> Digest {
    let selection = pcr_selection(values.iter().map(|(pcr, _)| *pcr));
    sha256(&[before, &commands::POLICY_PCR.to_be_bytes(), &selection, &pcr_digest(values)])
}

/// A comparison of PolicyNV (`TPM_EO`, part 2, 6.11); the index's value stands on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Comparison {
    /// equal
    Equal = 0,
    /// at most, without sign
    AtMost = 9,
}

/// PolicyNV (part 3, 23.9): the start of an index compares so with the operand. `name` is the index's name as written.
pub fn policy_nv(before: &Digest, name: &Name, operand: &[u8], comparison: Comparison) -> Digest {
    // The offset, 0, stands between.
    let arguments = sha256(&[operand, &0u16.to_be_bytes(), &(comparison as u16).to_be_bytes()]);
    sha256(&[before, &commands::POLICY_NV.to_be_bytes(), &arguments, name])
}

/// PolicyNvWritten (part 3, 23.20): the index to be used was written before, or never.
pub fn policy_nv_written(before: &Digest, written: bool) -> Digest {
    sha256(&[before, &commands::POLICY_NV_WRITTEN.to_be_bytes(), &[u8::from(written)]])
}

/// PolicyCommandCode (part 3, 23.11): only for this command.
pub fn policy_command_code(before: &Digest, code: u32) -> Digest {
    sha256(&[before, &commands::POLICY_COMMAND_CODE.to_be_bytes(), &code.to_be_bytes()])
}

/// PolicyOR (part 3, 23.6): one of these. What was before is one of them.
pub fn policy_or(branches: &[Digest]) -> Digest {
    let (code, mut pieces) = (commands::POLICY_OR.to_be_bytes(), Vec::<&[u8]>::new());
    pieces.extend([&START[..], &code]);
    pieces.extend(branches.iter().map(|branch| &branch[..]));
    sha256(&pieces)
}

/// PolicyAuthorize (part 3, 23.16): whatever the key's owner signed for this `policy_ref`. What was before is what is
/// signed, see [`to_be_signed`].
pub fn policy_authorize(key: &Name, policy_ref: &[u8]) -> Digest {
    let first = sha256(&[&START, &commands::POLICY_AUTHORIZE.to_be_bytes(), key]);
    sha256(&[&first, policy_ref])
}

/// The message that is signed (RSASSA-PKCS1-v1_5 with SHA-256) so that PolicyAuthorize takes `approved`.
pub fn to_be_signed(approved: &Digest, policy_ref: &[u8]) -> Vec<u8> {
    [approved, policy_ref].concat()
}

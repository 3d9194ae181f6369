//! What Belvedere keeps in the TPM, and what opens it. Others take names, numbers and rules from here.
//!
//! | index | content | read | written |
//! |---|---|---|---|
//! | [`FUSES`] | the rollback fuses: 64 bits that can only be set | by everybody | by what was signed for [`Purpose::Fuses`] |
//! | [`SYSTEM_SECRET`] | 32 random bytes | by what was signed for [`Purpose::Storage`] | by the same |
//! | [`DATA_SECRET`] | 32 random bytes; others after a full reset | the same | the same |
//!
//! All three have the policy PolicyAuthorize(name of the policy key, policyRef of the purpose), so that they outlive
//! every update: what they really ask for is signed with each release.
//!
//! - For storage ([`approved_policy`]): PCRs 7 and 11 hold the release's values, and the fuses are not above the release's
//!   rollback level. So the TPM itself gives an old release nothing once the fuses moved.
//! - For the fuses ([`approved_fuses_policy`]): the same; or the same PCRs while the fuses were never written. A policy
//!   cannot compare an index that was never written, and without the second branch the first write would be impossible.
//!
//! The rollback level n is the lowest n bits set, 0 to 64.
//!
//! Beside them there is one persistent object, [`KEYS_PARENT`]. It opens nothing by itself.

use crate::policy::{self, Comparison, START};
use crate::{Digest, Name, NvPublic, attributes};
use core::fmt;

/// The handle of the rollback fuses. 0x0180_0000 to 0x01bf_ffff are the owner's ("Registry of Reserved TPM 2.0 Handles and
/// Localities", 2.2).
pub const FUSES: u32 = 0x0180_be00;
/// The handle of the secret of everything but the `data` partition, and of the TPM's authorisation values.
pub const SYSTEM_SECRET: u32 = 0x0180_be01;
/// The handle of the secret of the `data` partition.
pub const DATA_SECRET: u32 = 0x0180_be02;
/// The handle of the owner's storage key, under which the device's key is: made once with the owner's authorisation and used
/// with its own, which is empty. 0x8100_0000 to 0x817f_ffff are the owner's (the same registry).
pub const KEYS_PARENT: u32 = 0x8100_be00;
/// Bytes of a secret.
pub const SECRET: usize = 32;
/// The highest rollback level.
pub const HIGHEST_LEVEL: u32 = 64;
/// The PCR of the Secure Boot keys and of the key that verified what was started.
pub const SECURE_BOOT_PCR: u8 = 7;
/// The PCR of the release: the sections of its image, and [`OPERATING_PHASE`] when it operates.
pub const RELEASE_PCR: u8 = 11;
/// Measured into [`RELEASE_PCR`] (its SHA-256) when nothing in the TPM is needed any more until the next start.
pub const OPERATING_PHASE: &[u8] = b"belvedere: operating phase";

/// What a policy was signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading and writing the secrets.
    Storage,
    /// Setting fuses.
    Fuses,
}

impl Purpose {
    /// What is signed with the policy, so that a signature for one purpose is none for the other.
    pub fn policy_ref(self) -> &'static [u8] {
        match self {
            Purpose::Storage => b"belvedere storage 1",
            Purpose::Fuses => b"belvedere fuses 1",
        }
    }
}

/// The bits that are set at a level. A level above [`HIGHEST_LEVEL`] has as many as that one.
pub fn level_bits(level: u32) -> u64 {
    match HIGHEST_LEVEL.saturating_sub(level) {
        HIGHEST_LEVEL => 0,
        clear => u64::MAX >> clear,
    }
}

/// The level of the fuses: their highest bit, so that a value no level has is not read as a lower one.
pub fn level_of(bits: u64) -> u32 {
    HIGHEST_LEVEL - bits.leading_zeros()
}

/// The rollback fuses as they are defined, never written.
pub fn fuses(policy_key: &Name) -> NvPublic {
    NvPublic {
        index: FUSES,
        attributes: attributes::TYPE_BITS | attributes::POLICY_WRITE | attributes::AUTH_READ | attributes::NO_DA,
        policy: policy::policy_authorize(policy_key, Purpose::Fuses.policy_ref()).to_vec(),
        size: 8,
    }
}

/// The name of the rollback fuses once they are written.
pub fn fuses_name(policy_key: &Name) -> Name {
    fuses(policy_key).as_written().name()
}

fn secret(index: u32, policy_key: &Name) -> NvPublic {
    NvPublic {
        index,
        attributes: attributes::POLICY_READ | attributes::POLICY_WRITE | attributes::NO_DA,
        policy: policy::policy_authorize(policy_key, Purpose::Storage.policy_ref()).to_vec(),
        size: SECRET as u16,
    }
}

/// [`SYSTEM_SECRET`] as it is defined, never written.
pub fn system_secret(policy_key: &Name) -> NvPublic {
    secret(SYSTEM_SECRET, policy_key)
}

/// [`DATA_SECRET`] as it is defined, never written.
pub fn data_secret(policy_key: &Name) -> NvPublic {
    secret(DATA_SECRET, policy_key)
}

/// How an index that exists differs from the one that we define.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Attributes or size.
    Attributes,
    /// The policy: it belongs to another policy key.
    Policy,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Difference::Attributes => "it has other attributes",
            Difference::Policy => "it has the policy of another key",
        })
    }
}

/// Whether `found` is what we define, written or not. `policy`: whether the policy is compared as well; who does not
/// know the policy key cannot.
///
/// # Errors
/// What differs first.
pub fn same(found: &NvPublic, ours: &NvPublic, policy: bool) -> Result<(), Difference> {
    if found.as_written().attributes != ours.as_written().attributes || (found.index, found.size) != (ours.index, ours.size)
    {
        return Err(Difference::Attributes);
    }
    if policy && found.policy != ours.policy { Err(Difference::Policy) } else { Ok(()) }
}

/// PCRs that a release is recognised by, with their values.
pub fn release_pcrs(pcr7: &Digest, pcr11: &Digest) -> [(u8, Digest); 2] {
    [(SECURE_BOOT_PCR, *pcr7), (RELEASE_PCR, *pcr11)]
}

/// What is signed for [`Purpose::Storage`]: the PCRs of a release, and fuses not above its rollback level.
pub fn approved_policy(pcr7: &Digest, pcr11: &Digest, level: u32, fuses_name: &Name) -> Digest {
    let pcrs = policy::policy_pcr(&START, &release_pcrs(pcr7, pcr11));
    policy::policy_nv(&pcrs, fuses_name, &level_bits(level).to_be_bytes(), Comparison::AtMost)
}

/// The two ways to set fuses: they were never written, or they are not above the release's level.
pub fn fuses_branches(pcr7: &Digest, pcr11: &Digest, level: u32, fuses_name: &Name) -> [Digest; 2] {
    let pcrs = policy::policy_pcr(&START, &release_pcrs(pcr7, pcr11));
    [policy::policy_nv_written(&pcrs, false), approved_policy(pcr7, pcr11, level, fuses_name)]
}

/// What is signed for [`Purpose::Fuses`].
pub fn approved_fuses_policy(pcr7: &Digest, pcr11: &Digest, level: u32, fuses_name: &Name) -> Digest {
    policy::policy_or(&fuses_branches(pcr7, pcr11, level, fuses_name))
}

/// What is signed for a purpose.
pub fn approved(purpose: Purpose, pcr7: &Digest, pcr11: &Digest, level: u32, fuses_name: &Name) -> Digest {
    match purpose {
        Purpose::Storage => approved_policy(pcr7, pcr11, level, fuses_name),
        Purpose::Fuses => approved_fuses_policy(pcr7, pcr11, level, fuses_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_read_as_what_was_set() {
        for level in 0..=HIGHEST_LEVEL {
            assert_eq!(level_of(level_bits(level)), level);
            assert_eq!(level_bits(level).count_ones(), level);
        }
        assert_eq!((level_bits(0), level_bits(1), level_bits(3), level_bits(64)), (0, 1, 7, u64::MAX));
        assert_eq!(level_bits(65), u64::MAX);
        assert_eq!(level_bits(u32::MAX), u64::MAX);
    }

    #[test]
    fn bits_that_no_level_has_count_as_the_highest() {
        assert_eq!(level_of(0b100), 3);
        assert_eq!(level_of(1 << 63), 64);
    }

    #[test]
    fn the_purposes_do_not_open_each_other() {
        let key = [7; 34];
        assert_ne!(fuses(&key).policy, system_secret(&key).policy);
        assert_eq!(system_secret(&key).policy, data_secret(&key).policy);
        let difference = |found: &NvPublic, policy| same(found, &fuses(&key), policy);
        assert_eq!(difference(&fuses(&key).as_written(), true), Ok(()));
        assert_eq!(difference(&fuses(&[8; 34]), true), Err(Difference::Policy));
        assert_eq!(difference(&fuses(&[8; 34]), false), Ok(()));
        assert_eq!(difference(&NvPublic { size: 9, ..fuses(&key) }, false), Err(Difference::Attributes));
        let owner_writes = fuses(&key).attributes | attributes::OWNER_WRITE;
        assert_eq!(difference(&NvPublic { attributes: owner_writes, ..fuses(&key) }, false), Err(Difference::Attributes));
    }
}

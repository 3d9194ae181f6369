//! The document that says what a release's signed policies are: it travels in a section of the release's image
//! (`.belvpol`) and from the bootloader to `init` in a UEFI variable.
//!
//! Binary, big-endian, all of fixed size:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `belvpol` and a zero |
//! | 2 | version, 1 |
//! | 2 | number of entries, 1 to [`MAXIMUM_ENTRIES`] |
//! | 256 | the policy key: an RSA modulus |
//! | 584 for each entry | PCR 7 (32), PCR 11 (32), rollback level (4, at most 64), zero (4), signature for storage (256), signature for the fuses (256) |
//!
//! No two entries have the same PCRs: which one is meant would depend on the reader.
//!
//! Whoever reads it need not trust it: only what the policy key signed opens anything, and the TPM knows that key's name.

use crate::layout::{HIGHEST_LEVEL, Purpose};
use crate::{Digest, PolicyKey, PolicySignature};
use alloc::vec::Vec;
use core::fmt;

/// The section of the release's image.
pub const SECTION: &str = ".belvpol";
/// The longest document, in bytes.
pub const LIMIT: usize = 4096;
/// The most entries.
pub const MAXIMUM_ENTRIES: usize = (LIMIT - HEADER) / ENTRY;
const MAGIC: &[u8; 8] = b"belvpol\0";
const VERSION: u16 = 1;
const HEADER: usize = 268;
const ENTRY: usize = 584;

/// What one release may do on one kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// PCR 7 of the SHA-256 bank: the keys of Secure Boot.
    pub pcr7: Digest,
    /// PCR 11 of the SHA-256 bank: the release.
    pub pcr11: Digest,
    /// The release's rollback level.
    pub level: u32,
    /// Over the policy for storage.
    pub storage: PolicySignature,
    /// Over the policy for the fuses.
    pub fuses: PolicySignature,
}

impl Entry {
    /// The signature for a purpose.
    pub fn signature(&self, purpose: Purpose) -> &PolicySignature {
        match purpose {
            Purpose::Storage => &self.storage,
            Purpose::Fuses => &self.fuses,
        }
    }
}

/// A release's signed policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPolicy {
    /// The key that signed them.
    pub key: PolicyKey,
    /// One for each kind of machine; at least one.
    pub entries: Vec<Entry>,
}

/// Why bytes are no such document, or why it cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootPolicyError {
    /// It does not start like one.
    NotOurs,
    /// A version that is not known here.
    Version(u16),
    /// None, or more than fit.
    Entries(usize),
    /// It ends too early or goes on.
    Length,
    /// A rollback level above the highest.
    Level(u32),
    /// Bytes that must be zero are not.
    Reserved,
    /// Two entries with the same PCRs.
    Duplicate,
}

impl fmt::Display for BootPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("boot policy: ")?;
        match self {
            BootPolicyError::NotOurs => f.write_str("not a boot policy"),
            BootPolicyError::Version(version) => write!(f, "version {version} is not known here"),
            BootPolicyError::Entries(count) => write!(f, "{count} entries; 1 to {MAXIMUM_ENTRIES} are allowed"),
            BootPolicyError::Length => f.write_str("its length does not fit its number of entries"),
            BootPolicyError::Level(level) => write!(f, "rollback level {level} is above {HIGHEST_LEVEL}"),
            BootPolicyError::Reserved => f.write_str("reserved bytes are not zero"),
            BootPolicyError::Duplicate => f.write_str("two entries have the same PCRs"),
        }
    }
}

impl core::error::Error for BootPolicyError {}

impl BootPolicy {
    /// What both directions hold an entry list to.
    fn check(&self) -> Result<(), BootPolicyError> {
        if self.entries.is_empty() || self.entries.len() > MAXIMUM_ENTRIES {
            return Err(BootPolicyError::Entries(self.entries.len()));
        }
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.level > HIGHEST_LEVEL {
                return Err(BootPolicyError::Level(entry.level));
            }
            if self.entries.iter().take(at).any(|other| (other.pcr7, other.pcr11) == (entry.pcr7, entry.pcr11)) {
                return Err(BootPolicyError::Duplicate);
            }
        }
        Ok(())
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// When it could not be read again.
    pub fn encode(&self) -> Result<Vec<u8>, BootPolicyError> {
        self.check()?;
        let mut bytes = Vec::with_capacity(HEADER + ENTRY * self.entries.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&(self.entries.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.key.0);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.pcr7);
            bytes.extend_from_slice(&entry.pcr11);
            bytes.extend_from_slice(&entry.level.to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
            for signature in [&entry.storage, &entry.fuses] {
                bytes.extend_from_slice(&signature.0);
            }
        }
        Ok(bytes)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is not exactly one.
    pub fn decode(bytes: &[u8]) -> Result<BootPolicy, BootPolicyError> {
        let (policy, rest) = read(bytes)?;
        if rest.is_empty() { Ok(policy) } else { Err(BootPolicyError::Length) }
    }

    /// Reads a section of an image, which may have been filled up with zeros.
    ///
    /// # Errors
    /// When it is not exactly one document, and zeros.
    pub fn decode_section(bytes: &[u8]) -> Result<BootPolicy, BootPolicyError> {
        let (policy, rest) = read(bytes)?;
        if rest.iter().all(|&byte| byte == 0) { Ok(policy) } else { Err(BootPolicyError::Length) }
    }

    /// The entry of a machine that measured these values.
    pub fn entry(&self, pcr7: &Digest, pcr11: &Digest) -> Option<&Entry> {
        self.entries.iter().find(|entry| (&entry.pcr7, &entry.pcr11) == (pcr7, pcr11))
    }
}

fn read(bytes: &[u8]) -> Result<(BootPolicy, &[u8]), BootPolicyError> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(BootPolicyError::NotOurs)?;
    if magic != MAGIC {
        return Err(BootPolicyError::NotOurs);
    }
    let mut rest = rest;
    let version = u16::from_be_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(BootPolicyError::Version(version));
    }
    let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
    if count == 0 || count > MAXIMUM_ENTRIES {
        return Err(BootPolicyError::Entries(count));
    }
    let key = PolicyKey(take(&mut rest)?);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (pcr7, pcr11) = (take(&mut rest)?, take(&mut rest)?);
        let level = u32::from_be_bytes(take(&mut rest)?);
        if take::<4>(&mut rest)? != [0; 4] {
            return Err(BootPolicyError::Reserved);
        }
        let mut signature = || Ok(PolicySignature(take(&mut rest)?));
        entries.push(Entry { pcr7, pcr11, level, storage: signature()?, fuses: signature()? });
    }
    let policy = BootPolicy { key, entries };
    policy.check()?;
    Ok((policy, rest))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BootPolicyError> {
    let (front, behind) = rest.split_first_chunk().ok_or(BootPolicyError::Length)?;
    *rest = behind;
    Ok(*front)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signature(byte: u8) -> PolicySignature {
        PolicySignature([byte; 256])
    }

    fn policy(entries: usize) -> BootPolicy {
        let entry = |number: usize| Entry {
            pcr7: [number as u8; 32],
            pcr11: [2; 32],
            level: number as u32,
            storage: signature(10),
            fuses: signature(20),
        };
        BootPolicy { key: PolicyKey([1; 256]), entries: (0..entries).map(entry).collect() }
    }

    #[test]
    fn the_fullest_document_fits_and_one_entry_more_does_not() {
        assert_eq!(MAXIMUM_ENTRIES, 6);
        let bytes = policy(MAXIMUM_ENTRIES).encode().unwrap();
        assert_eq!(bytes.len(), 3772);
        assert!(bytes.len() <= LIMIT);
        assert_eq!(BootPolicy::decode(&bytes), Ok(policy(MAXIMUM_ENTRIES)));
        assert_eq!(policy(MAXIMUM_ENTRIES + 1).encode(), Err(BootPolicyError::Entries(7)));
        assert_eq!(policy(0).encode(), Err(BootPolicyError::Entries(0)));
    }

    #[test]
    fn what_is_not_exactly_a_document_is_refused() {
        let good = policy(2).encode().unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            BootPolicy::decode(&bytes)
        };
        assert_eq!(with(0, b'B'), Err(BootPolicyError::NotOurs));
        assert_eq!(with(9, 2), Err(BootPolicyError::Version(2)));
        assert_eq!(with(11, 0), Err(BootPolicyError::Entries(0)));
        assert_eq!(with(10, 1), Err(BootPolicyError::Entries(258)));
        assert_eq!(with(11, 1), Err(BootPolicyError::Length));
        assert_eq!(with(11, 3), Err(BootPolicyError::Length));
        assert_eq!(with(HEADER + 67, 65), Err(BootPolicyError::Level(65)));
        assert_eq!(with(HEADER + 71, 1), Err(BootPolicyError::Reserved));
        let mut twice = policy(2);
        twice.entries[1].pcr7 = twice.entries[0].pcr7;
        assert_eq!(twice.encode(), Err(BootPolicyError::Duplicate));
        for length in 0..good.len() {
            assert!(BootPolicy::decode(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn only_a_section_may_be_filled_up_and_only_with_zeros() {
        let mut bytes = policy(1).encode().unwrap();
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(BootPolicy::decode(&bytes), Err(BootPolicyError::Length));
        assert_eq!(BootPolicy::decode_section(&bytes), Ok(policy(1)));
        bytes.push(1);
        assert_eq!(BootPolicy::decode_section(&bytes), Err(BootPolicyError::Length));
    }

    fn any_signature() -> impl Strategy<Value = PolicySignature> {
        any::<u8>().prop_map(|byte| PolicySignature([byte; 256]))
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        (any::<([u8; 32], [u8; 32])>(), 0..=HIGHEST_LEVEL, any_signature(), any_signature())
            .prop_map(|((pcr7, pcr11), level, storage, fuses)| Entry { pcr7, pcr11, level, storage, fuses })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            key in any::<u8>(),
            entries in proptest::collection::vec(any_entry(), 1..=MAXIMUM_ENTRIES),
        ) {
            let policy = BootPolicy { key: PolicyKey([key; 256]), entries };
            prop_assert_eq!(BootPolicy::decode(&policy.encode().unwrap()), Ok(policy));
        }

        #[test]
        fn what_is_read_is_written_the_same_way(at in 0usize..1436, byte: u8) {
            let mut bytes = policy(2).encode().unwrap();
            bytes[at] = byte;
            if let Ok(policy) = BootPolicy::decode(&bytes) {
                prop_assert_eq!(policy.encode(), Ok(bytes));
            }
        }
    }
}

//! Structures of part 2 that are sent, received and hashed.

use crate::Digest;
use crate::policy::sha256;
use alloc::vec::Vec;

/// `TPM_ALG_SHA256`.
pub(crate) const SHA256: u16 = 0x000b;
pub(crate) const NULL: u16 = 0x0010;
pub(crate) const ECDSA: u16 = 0x0018;
pub(crate) const RSASSA: u16 = 0x0014;
const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;
const NIST_P256: u16 = 0x0003;

/// The name of an object or an NV index: the algorithm's number and SHA-256 of its public area (part 1, 16).
pub type Name = [u8; 34];

/// The name of a public area.
pub(crate) fn name_of(public_area: &[u8]) -> Name {
    let mut name = [0; 34];
    name[..2].copy_from_slice(&SHA256.to_be_bytes());
    name[2..].copy_from_slice(&sha256(&[public_area]));
    name
}

/// Attributes of NV indices (`TPMA_NV`, part 2, 13.4).
pub mod attributes {
    /// The owner's authorisation writes.
    pub const OWNER_WRITE: u32 = 1 << 1;
    /// The index's own authorisation value writes.
    pub const AUTH_WRITE: u32 = 1 << 2;
    /// The index's policy writes.
    pub const POLICY_WRITE: u32 = 1 << 3;
    /// The index holds eight bytes whose bits can be set and never be cleared (`TPM_NT_BITS` in bits 7 to 4).
    pub const TYPE_BITS: u32 = 2 << 4;
    /// The owner's authorisation reads.
    pub const OWNER_READ: u32 = 1 << 17;
    /// The index's own authorisation value reads.
    pub const AUTH_READ: u32 = 1 << 18;
    /// The index's policy reads.
    pub const POLICY_READ: u32 = 1 << 19;
    /// Failed authorisations do not count against dictionary attacks, and the index can be used while others are locked.
    pub const NO_DA: u32 = 1 << 25;
    /// Was written at least once. Set by the TPM.
    pub const WRITTEN: u32 = 1 << 29;
}

/// The public area of an NV index (`TPMS_NV_PUBLIC`), with SHA-256 as its name algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// The index's handle.
    pub index: u32,
    /// See [`attributes`].
    pub attributes: u32,
    /// Its policy; empty when it has none.
    pub policy: Vec<u8>,
    /// Bytes that it holds.
    pub size: u16,
}

impl NvPublic {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&SHA256.to_be_bytes());
        bytes.extend_from_slice(&self.attributes.to_be_bytes());
        // A digest, 64 bytes at most: whatever is longer came from nowhere.
        bytes.extend_from_slice(&(self.policy.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.policy);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes
    }

    /// Whether it was written at least once.
    pub fn written(&self) -> bool {
        self.attributes & attributes::WRITTEN != 0
    }

    /// The same index after its first write.
    #[must_use]
    pub fn as_written(&self) -> NvPublic {
        NvPublic { attributes: self.attributes | attributes::WRITTEN, ..self.clone() }
    }

    /// Its name, which changes with the first write.
    pub fn name(&self) -> Name {
        name_of(&self.bytes())
    }
}

/// The public key that signs policies: an RSA modulus of 2048 bits, big-endian; the exponent is 65537.
///
/// RSA, because its signatures are the same each time that they are made: same inputs, same release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyKey(pub [u8; 256]);

/// A signature over a policy: RSASSA-PKCS1-v1_5 with SHA-256, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySignature(pub [u8; 256]);

impl PolicyKey {
    /// The public area (`TPMT_PUBLIC`) with which the key is loaded: signs, RSASSA with SHA-256 alone.
    pub fn public_area(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(290);
        bytes.extend_from_slice(&RSA.to_be_bytes());
        bytes.extend_from_slice(&SHA256.to_be_bytes());
        bytes.extend_from_slice(&(object::SIGN | object::USER_WITH_AUTH).to_be_bytes());
        // No policy; then symmetric algorithm, scheme, bits of the key.
        for value in [0, NULL, RSASSA, SHA256, 2048] {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        // The usual exponent.
        bytes.extend_from_slice(&0u32.to_be_bytes());
        bytes.extend_from_slice(&(self.0.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.0);
        bytes
    }

    /// The name under which the TPM knows it.
    pub fn name(&self) -> Name {
        name_of(&self.public_area())
    }
}

/// A public key on the curve P-256: both coordinates, big-endian. Whether it is on the curve is for the TPM to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P256Key {
    /// x
    pub x: [u8; 32],
    /// y
    pub y: [u8; 32],
}

/// An ECDSA signature on the curve P-256 over SHA-256; both numbers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P256Signature {
    /// r
    pub r: [u8; 32],
    /// s
    pub s: [u8; 32],
}

/// Attributes of objects (`TPMA_OBJECT`, part 2, 8.3).
mod object {
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    pub const NO_DA: u32 = 1 << 10;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;
    /// Made by the TPM and never outside of it.
    pub const OF_THIS_TPM: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA;
}

fn ecc_public_area(attributes: u32, symmetric_and_scheme: &[u16], x: &[u8], y: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.extend_from_slice(&ECC.to_be_bytes());
    bytes.extend_from_slice(&SHA256.to_be_bytes());
    bytes.extend_from_slice(&attributes.to_be_bytes());
    // No policy; then symmetric algorithm, scheme, curve, no key derivation.
    for value in [0].iter().chain(symmetric_and_scheme).chain(&[NIST_P256, NULL]) {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    for coordinate in [x, y] {
        bytes.extend_from_slice(&(coordinate.len() as u16).to_be_bytes());
        bytes.extend_from_slice(coordinate);
    }
    bytes
}

impl P256Key {
    /// The point in a public area of a P-256 key; nothing when it is none.
    pub fn of_public_area(public_area: &[u8]) -> Option<P256Key> {
        // The point is the end of it: two numbers of 32 bytes with their lengths.
        let (front, point) = public_area.split_last_chunk::<68>()?;
        let (kind, curve) = (front.first_chunk::<2>()?, front.get(front.len().checked_sub(4)?..)?);
        let (&[0, 32], x) = point[..34].split_first_chunk()? else { return None };
        let (&[0, 32], y) = point[34..].split_first_chunk()? else { return None };
        if u16::from_be_bytes(*kind) != ECC || curve != [0, NIST_P256 as u8, 0, NULL as u8] {
            return None;
        }
        Some(P256Key { x: x.try_into().ok()?, y: y.try_into().ok()? })
    }
}

/// Public area of a primary key under which others are kept: ECC P-256 with AES-128-CFB (template "SRK ECC" of the TCG's
/// "EK Credential Profile" and "Provisioning Guidance", without authorisation value).
pub(crate) fn storage_key() -> Vec<u8> {
    let mut scheme = Vec::new();
    scheme.extend_from_slice(&[AES, 128, CFB, NULL]);
    ecc_public_area(object::OF_THIS_TPM | object::RESTRICTED | object::DECRYPT, &scheme, &[], &[])
}

/// Whether a public area is that of such a key: the same but for its point, which the template leaves to the TPM.
pub(crate) fn is_storage_key(public_area: &[u8]) -> bool {
    let mut template = storage_key();
    // Two numbers of no length.
    template.truncate(template.len().saturating_sub(4));
    P256Key::of_public_area(public_area).is_some() && public_area.starts_with(&template)
}

/// Public area of a key that signs and never leaves the TPM: ECDSA on P-256 with SHA-256.
pub(crate) fn signing_key() -> Vec<u8> {
    ecc_public_area(object::OF_THIS_TPM | object::SIGN, &[NULL, ECDSA, SHA256], &[], &[])
}

/// A `TPML_PCR_SELECTION` of the SHA-256 bank, three bytes of map as the TPM itself sends it. PCRs above 23 are passed
/// over: there are none on a PC.
pub(crate) fn pcr_selection(pcrs: impl IntoIterator<Item = u8>) -> [u8; 10] {
    let mut selection = [0, 0, 0, 1, 0, SHA256 as u8, 3, 0, 0, 0];
    for pcr in pcrs {
        if let Some(byte) = selection[7..].get_mut(usize::from(pcr / 8)) {
            *byte |= 1 << (pcr % 8);
        }
    }
    selection
}

/// Digest type used in hashing PCR values.
pub(crate) fn concatenated(values: &[(u8, Digest)]) -> Digest {
    // In the order of their numbers, however they are given.
    let mut values = values.to_vec();
    values.sort_by_key(|(pcr, _)| *pcr);
    sha256(&values.iter().map(|(_, value)| &value[..]).collect::<Vec<_>>())
}

//! Lists of signatures (EFI_SIGNATURE_LIST): GUID of the kind (16 bytes), size of the list, size of a head of the kind's own,
//! size of each signature (4 bytes each, little-endian), that head, and signatures: GUID of the owner and data.

use crate::{Guid, Malformed, take, take_slice};
use alloc::vec::Vec;

/// EFI_CERT_SHA256_GUID: data is the SHA-256 of a program, as Authenticode takes it.
pub const SHA256: Guid = [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];
/// EFI_CERT_X509_GUID: data is a certificate, DER.
pub const X509: Guid = [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];

/// The most signatures that are read.
pub const LIMIT: usize = 4096;
const HEAD: usize = 28;
const OWNER: usize = 16;

/// An entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature<'a> {
    /// What the data is.
    pub kind: Guid,
    /// Who put it there.
    pub owner: Guid,
    /// Hash or certificate.
    pub data: &'a [u8],
}

/// A list with these signatures, all of one kind and one length.
pub fn list(kind: Guid, owner: Guid, signatures: &[&[u8]]) -> Vec<u8> {
    let each = OWNER + signatures.first().map_or(0, |data| data.len());
    let mut bytes = kind.to_vec();
    for size in [HEAD + each * signatures.len(), 0, each] {
        bytes.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    }
    for data in signatures {
        bytes.extend(owner);
        bytes.extend_from_slice(data);
    }
    bytes
}

/// One list as it lies in a variable.
struct List<'a> {
    kind: Guid,
    /// The kind's own head.
    head: &'a [u8],
    /// Each with its owner.
    signatures: Vec<&'a [u8]>,
}

fn lists(bytes: &[u8]) -> Result<Vec<List<'_>>, Malformed> {
    let (mut rest, mut found, mut count) = (bytes, Vec::new(), 0);
    while !rest.is_empty() {
        const SHORT: &str = "a list of signatures ends too early";
        let kind = *take(&mut rest, SHORT)?;
        let mut size = || Ok(u32::from_le_bytes(*take(&mut rest, SHORT)?) as usize);
        let (whole, head, each) = (size()?, size()?, size()?);
        let mut content = take_slice(&mut rest, whole.checked_sub(HEAD).ok_or(Malformed(SHORT))?, SHORT)?;
        let head = take_slice(&mut content, head, SHORT)?;
        if each < OWNER || content.len() % each != 0 {
            return Err(Malformed("the signatures do not fit the size of their list"));
        }
        count += content.len() / each;
        if count > LIMIT {
            return Err(Malformed("there are too many signatures"));
        }
        found.push(List { kind, head, signatures: content.chunks_exact(each).collect() });
    }
    Ok(found)
}

/// Every signature of a variable, in its order.
///
/// # Errors
/// When the bytes are not whole lists, or hold more than [`LIMIT`] signatures.
pub fn signatures(bytes: &[u8]) -> Result<Vec<Signature<'_>>, Malformed> {
    let mut all = Vec::new();
    for list in lists(bytes)? {
        for signature in &list.signatures {
            if let Some((owner, data)) = signature.split_first_chunk() {
                all.push(Signature { kind: list.kind, owner: *owner, data });
            }
        }
    }
    Ok(all)
}

/// Whether a variable that holds `current` has every signature of `wanted`.
///
/// # Errors
/// When one of them is malformed.
pub fn has_all(current: &[u8], wanted: &[u8]) -> Result<bool, Malformed> {
    let current = signatures(current)?;
    Ok(signatures(wanted)?.iter().all(|signature| current.contains(signature)))
}

/// What a variable holds after the firmware appended `more`: UEFI 2.10, 8.2.2 has it leave out what is there already, and EDK2
/// (`FilterSignatureList` of AuthVariableLib) then puts what is left of each list behind what was there.
///
/// # Errors
/// When one of them is malformed.
pub fn appended(current: &[u8], more: &[u8]) -> Result<Vec<u8>, Malformed> {
    let there = lists(current)?;
    let mut bytes = current.to_vec();
    for new in lists(more)? {
        let known = |signature: &&[u8]| there.iter().any(|old| old.kind == new.kind && old.signatures.contains(signature));
        let left: Vec<&[u8]> = new.signatures.iter().copied().filter(|signature| !known(signature)).collect();
        let Some(each) = left.first().map(|signature| signature.len()) else { continue };
        bytes.extend(new.kind);
        for size in [HEAD + new.head.len() + each * left.len(), new.head.len(), each] {
            bytes.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(new.head);
        left.iter().for_each(|signature| bytes.extend_from_slice(signature));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const OWNER: Guid = [7; 16];

    #[test]
    fn what_was_written_is_read_with_its_kind_and_owner() {
        let two = list(SHA256, OWNER, &[&[1; 32], &[2; 32]]);
        assert_eq!(two.len(), 28 + 2 * 48);
        let both = [two, list(X509, [8; 16], &[b"certificate"])].concat();
        let all = signatures(&both).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1], Signature { kind: SHA256, owner: OWNER, data: &[2; 32] });
        assert_eq!(all[2], Signature { kind: X509, owner: [8; 16], data: b"certificate" });
        assert_eq!(signatures(&[]).unwrap(), []);
    }

    #[test]
    fn lists_that_are_cut_or_do_not_fit_are_refused() {
        let whole = list(SHA256, OWNER, &[&[1; 32], &[2; 32]]);
        for length in 1..whole.len() {
            assert!(signatures(&whole[..length]).is_err(), "{length}");
        }
        for (at, byte) in [(16, 0), (16, 123), (20, 200), (24, 15), (24, 47), (24, 0)] {
            let mut wrong = whole.clone();
            wrong[at] = byte;
            assert!(signatures(&wrong).is_err(), "{at} {byte}");
        }
        let many = list(SHA256, OWNER, &vec![[0u8; 1].as_slice(); LIMIT + 1]);
        assert!(signatures(&many).is_err());
    }

    #[test]
    fn appending_leaves_out_what_is_there() {
        let base = list(SHA256, OWNER, &[&[0; 32]]);
        let more = list(SHA256, OWNER, &[&[1; 32], &[0; 32], &[2; 32]]);
        let after = appended(&base, &more).unwrap();
        assert_eq!(after, [base.clone(), list(SHA256, OWNER, &[&[1; 32], &[2; 32]])].concat());
        assert_eq!(appended(&after, &more).unwrap(), after, "once more changes nothing");
        assert!(has_all(&after, &more).unwrap() && !has_all(&base, &more).unwrap());
        // Another owner's entry is another entry, for EDK2 as well.
        assert!(!has_all(&after, &list(SHA256, [9; 16], &[&[1; 32]])).unwrap());
    }

    proptest! {
        #[test]
        fn after_appending_all_is_there_and_what_was_there_is_unchanged(
            old in proptest::collection::vec(0u8..8, 0..6), new in proptest::collection::vec(0u8..8, 1..6),
        ) {
            let make = |numbers: &[u8]| {
                let hashes: Vec<[u8; 32]> = numbers.iter().map(|number| [*number; 32]).collect();
                let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_slice()).collect();
                if hashes.is_empty() { Vec::new() } else { list(SHA256, OWNER, &hashes) }
            };
            let (old, new) = (make(&old), make(&new));
            let after = appended(&old, &new).unwrap();
            prop_assert!(after.starts_with(&old) && has_all(&after, &new).unwrap());
            prop_assert_eq!(appended(&after, &new).unwrap(), after);
        }
    }
}

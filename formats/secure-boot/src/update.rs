//! One update of a database, as the firmware's SetVariable takes it: EFI_VARIABLE_AUTHENTICATION_2 and the lists to append.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | time (EFI_TIME); for appending the firmware does not compare it |
//! | 4, 2, 2 | WIN_CERTIFICATE: length from here to the lists, revision 0x0200, type 0x0ef1 |
//! | 16 | EFI_CERT_TYPE_PKCS7_GUID |
//! | … | PKCS#7 SignedData, DER, over [`to_be_signed`] |
//! | … | lists of signatures |
//!
//! Whoever reads it need not trust it: the firmware checks the signature before it changes anything.

use crate::lists::{self, SHA256, Signature, X509};
use crate::{Database, Guid, Malformed, VENDOR_GUID, take, take_slice};
use alloc::vec::Vec;

/// Non-volatile, for boot services and run time, with a signature and a time, appended to what is there.
pub const ATTRIBUTES: u32 = 0x67;
/// The longest update, bytes. EDK2's default limit for such variables is 10 KiB.
pub const LIMIT: usize = 8 << 10;

const PKCS7: Guid = [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
const REVISION_AND_TYPE: [u8; 4] = [0, 2, 0xf1, 0x0e];
const CERTIFICATE_HEAD: usize = 24;
/// 2026-01-01 00:00:00, the time of everything that is made for a release.
pub const TIME: [u8; 16] = [0xea, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the key exchange key signs: the variable's name without its end, vendor, attributes, time and lists.
pub fn to_be_signed(database: Database, lists: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = database.name().encode_utf16().flat_map(u16::to_le_bytes).collect();
    bytes.extend(VENDOR_GUID);
    bytes.extend(ATTRIBUTES.to_le_bytes());
    bytes.extend(TIME);
    bytes.extend(lists);
    bytes
}

/// The whole update; `signature` is a SignedData.
pub fn encode(signature: &[u8], lists: &[u8]) -> Vec<u8> {
    let mut bytes = TIME.to_vec();
    bytes.extend(u32::try_from(CERTIFICATE_HEAD + signature.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(REVISION_AND_TYPE);
    bytes.extend(PKCS7);
    bytes.extend(signature);
    bytes.extend(lists);
    bytes
}

/// The lists of an update, when it is one that is ours to apply: certificates for [`Database::Db`], certificates and SHA-256
/// for [`Database::Dbx`]. Others are refused, for it cannot be told here what they would keep from starting.
///
/// # Errors
/// When it is no such update.
pub fn decode(database: Database, update: &[u8]) -> Result<&[u8], Malformed> {
    const SHORT: &str = "the update ends too early";
    if update.len() > LIMIT {
        return Err(Malformed("the update is too long"));
    }
    let mut rest = update;
    take::<16>(&mut rest, SHORT)?;
    let length = u32::from_le_bytes(*take(&mut rest, SHORT)?) as usize;
    if *take(&mut rest, SHORT)? != REVISION_AND_TYPE || *take(&mut rest, SHORT)? != PKCS7 {
        return Err(Malformed("the update is not signed in the one way that is known here"));
    }
    take_slice(&mut rest, length.checked_sub(CERTIFICATE_HEAD).ok_or(Malformed(SHORT))?, SHORT)?;
    let all = lists::signatures(rest)?;
    let known = |signature: &Signature<'_>| match signature.kind {
        X509 => !signature.data.is_empty(),
        SHA256 => database == Database::Dbx && signature.data.len() == 32,
        _ => false,
    };
    if all.is_empty() || !all.iter().all(known) {
        return Err(Malformed("the update holds no signatures, or of a kind that is not known here"));
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let hashes = lists::list(SHA256, [7; 16], &[&[1; 32]]);
        let good = encode(b"signature", &hashes);
        assert_eq!(decode(Database::Dbx, &good), Ok(hashes.as_slice()));
        assert!(decode(Database::Db, &good).is_err(), "a hash in db");
        let certificate = lists::list(X509, [7; 16], &[b"certificate"]);
        assert_eq!(decode(Database::Db, &encode(b"", &certificate)), Ok(certificate.as_slice()));
        for length in 0..good.len() {
            assert!(decode(Database::Dbx, &good[..length]).is_err(), "{length}");
        }
        for (at, byte) in [(16, 23), (16, 200), (19, 1), (20, 1), (22, 0), (24, 0)] {
            let mut wrong = good.clone();
            wrong[at] = byte;
            assert!(decode(Database::Dbx, &wrong).is_err(), "{at} {byte}");
        }
        for wrong in [Vec::new(), lists::list([3; 16], [7; 16], &[&[1; 32]]), lists::list(SHA256, [7; 16], &[&[1; 31]])] {
            assert!(decode(Database::Dbx, &encode(b"", &wrong)).is_err());
        }
        assert!(decode(Database::Dbx, &vec![0; LIMIT + 1]).is_err());
    }

    /// UEFI 2.10, 8.2.2: name, vendor, attributes, time, content.
    #[test]
    fn what_is_signed_names_the_variable_and_that_it_is_appended() {
        let bytes = to_be_signed(Database::Dbx, b"lists");
        assert_eq!(bytes[..6], *b"d\0b\0x\0");
        assert_eq!(bytes[6..22], VENDOR_GUID);
        assert_eq!(bytes[22..26], [0x67, 0, 0, 0]);
        assert_eq!((bytes.len(), &bytes[42..]), (47, b"lists".as_slice()));
    }
}

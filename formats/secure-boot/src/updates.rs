//! The section `.belvupd` of a release's image: all updates of the firmware's databases there ever were for this product, in
//! the order in which they are applied. The image's signature covers it.
//!
//! Big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `belvupd` and a zero |
//! | 2 | version, 1 |
//! | 2 | number of updates, 1 to [`MAXIMUM`] |
//! | for each: 1, 3, 4, … | database (1: `db`, 2: `dbx`), zero, length, the update ([`crate::update`]) |
//!
//! All, and in this order, because the TPM's register 7 depends on both: an appliance that has the first n of them measures
//! a value that follows from n, and the release's boot policy is signed for it.

use crate::{Database, Malformed, lists, take, take_slice, update};
use alloc::vec::Vec;

/// The section of the release's image.
pub const SECTION: &str = ".belvupd";
/// The most updates of one product.
pub const MAXIMUM: usize = 64;

const MAGIC: &[u8; 8] = b"belvupd\0";
const VERSION: u16 = 1;

/// An update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update<'a> {
    /// Of which database.
    pub database: Database,
    /// What the firmware is given.
    pub bytes: &'a [u8],
    /// What is appended.
    pub lists: &'a [u8],
}

impl<'a> Update<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// See [`update::decode`].
    pub fn new(database: Database, bytes: &'a [u8]) -> Result<Self, Malformed> {
        update::decode(database, bytes).map(|lists| Self { database, bytes, lists })
    }
}

/// The section's content.
pub fn encode(updates: &[Update<'_>]) -> Result<Vec<u8>, Malformed> {
    if updates.is_empty() || updates.len() > MAXIMUM {
        return Err(Malformed("a release has 1 to 64 updates of the firmware's databases, or no section for them"));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend((updates.len() as u16).to_be_bytes());
    for update in updates {
        bytes.extend([database_number(update.database), 0, 0, 0]);
        bytes.extend((update.bytes.len() as u32).to_be_bytes());
        bytes.extend(update.bytes);
    }
    decode_section(&bytes).map(|_| ())?;
    Ok(bytes)
}

const fn database_number(database: Database) -> u8 {
    match database {
        Database::Db => 1,
        Database::Dbx => 2,
    }
}

/// Reads the section, which may have been filled up with zeros.
///
/// # Errors
/// When it is not exactly one document, and zeros.
pub fn decode_section(section: &[u8]) -> Result<Vec<Update<'_>>, Malformed> {
    const SHORT: &str = "the section with updates ends too early";
    let mut rest = section;
    if take(&mut rest, SHORT)? != MAGIC || u16::from_be_bytes(*take(&mut rest, SHORT)?) != VERSION {
        return Err(Malformed("the section with updates is of no version that is known here"));
    }
    let count = usize::from(u16::from_be_bytes(*take(&mut rest, SHORT)?));
    if count == 0 || count > MAXIMUM {
        return Err(Malformed("the section holds no updates, or too many"));
    }
    let mut updates = Vec::with_capacity(count);
    for _ in 0..count {
        let database = match take::<4>(&mut rest, SHORT)? {
            [1, 0, 0, 0] => Database::Db,
            [2, 0, 0, 0] => Database::Dbx,
            _ => return Err(Malformed("an update of a database that is not known here")),
        };
        let length = u32::from_be_bytes(*take(&mut rest, SHORT)?) as usize;
        updates.push(Update::new(database, take_slice(&mut rest, length, SHORT)?)?);
    }
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Malformed("the section with updates goes on behind its end"));
    }
    Ok(updates)
}

/// Which updates are still to be applied, from the first that is not there to the last one.
///
/// `current` gives what a database holds.
///
/// # Errors
/// When a database is malformed, or has a later update but not an earlier one: what would be measured after that is no value
/// that anything was signed for.
pub fn pending<'u, 'a>(updates: &'u [Update<'a>], db: &[u8], dbx: &[u8]) -> Result<&'u [Update<'a>], Malformed> {
    let mut first = None;
    for (number, update) in updates.iter().enumerate() {
        let current = match update.database {
            Database::Db => db,
            Database::Dbx => dbx,
        };
        match (lists::has_all(current, update.lists)?, first) {
            (true, Some(_)) => return Err(Malformed("a later update is there and an earlier one is not")),
            (false, None) => first = Some(number),
            _ => {}
        }
    }
    Ok(first.and_then(|first| updates.get(first..)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::{SHA256, X509, appended, list};
    use alloc::vec;

    fn samples() -> [Vec<u8>; 3] {
        let hash = |number: u8| update::encode(b"signature", &list(SHA256, [7; 16], &[&[number; 32]]));
        [hash(1), update::encode(b"signature", &list(X509, [7; 16], &[b"certificate"])), hash(2)]
    }

    fn three(samples: &[Vec<u8>; 3]) -> [Update<'_>; 3] {
        let databases = [Database::Dbx, Database::Db, Database::Dbx];
        core::array::from_fn(|number| Update::new(databases[number], &samples[number]).unwrap())
    }

    #[test]
    fn what_was_written_is_read_also_with_zeros_behind_it() {
        let samples = samples();
        let mut bytes = encode(&three(&samples)).unwrap();
        let whole = bytes.len();
        assert_eq!(decode_section(&bytes).unwrap(), three(&samples));
        bytes.extend([0; 100]);
        assert_eq!(decode_section(&bytes).unwrap(), three(&samples));
        bytes.push(1);
        assert!(decode_section(&bytes).is_err());
        for length in 0..whole {
            assert!(decode_section(&bytes[..length]).is_err(), "{length}");
        }
        for (at, byte) in [(0, b'B'), (9, 2), (11, 0), (11, 65), (12, 3), (13, 1), (16, 1), (12, 1)] {
            let mut wrong = bytes[..whole].to_vec();
            wrong[at] = byte;
            assert!(decode_section(&wrong).is_err(), "{at} {byte}");
        }
        let [first, ..] = three(&samples);
        assert!(encode(&vec![first; MAXIMUM]).is_ok() && encode(&vec![first; MAXIMUM + 1]).is_err() && encode(&[]).is_err());
    }

    #[test]
    fn pending_is_what_follows_the_first_that_is_missing() {
        let samples = samples();
        let updates = three(&samples);
        let (mut db, mut dbx) = (Vec::new(), list(SHA256, [9; 16], &[&[0; 32]]));
        for applied in 0..=3 {
            assert_eq!(pending(&updates, &db, &dbx).unwrap(), &updates[applied..]);
            if let Some(update) = updates.get(applied) {
                let current = if update.database == Database::Db { &mut db } else { &mut dbx };
                *current = appended(current, update.lists).unwrap();
            }
        }
        assert!(pending(&updates, &[], &dbx).is_err(), "the second is missing, the third is there");
        assert!(pending(&updates, b"x", &dbx).is_err());
    }
}

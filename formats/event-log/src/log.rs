//! The firmware's event log (crypto agile): a head of the old form, then for each event register (4 bytes, all numbers
//! little-endian), kind (4), digests (4: how many; 2: algorithm; the digest), length (4) and data.

use crate::Digest;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The longest log that is read, bytes.
pub const LIMIT: usize = 256 << 10;
/// The most events.
pub const MAXIMUM_EVENTS: usize = 2048;
/// The most algorithms of digests.
const MAXIMUM_ALGORITHMS: usize = 8;
const SHA256: u16 = 0x000b;
const NO_ACTION: u32 = 3;
const HEAD: &[u8; 16] = b"Spec ID Event03\0";

/// A log that cannot be read to its end; the words say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register that was extended.
    pub register: u32,
    /// What it was, a number of the profile's table 27.
    pub kind: u32,
    /// What it was extended with, of the SHA-256 bank.
    pub digest: Digest,
    /// What the firmware says of it. Nothing vouches for that.
    pub data: &'a [u8],
}

impl Event<'_> {
    /// In words of a bounded length without control characters: a variable's name, our own text, or the profile's name.
    pub fn name(&self) -> String {
        let printable = |text: &str| -> String { text.chars().filter(|letter| !letter.is_control()).take(100).collect() };
        match self.kind {
            0x0d => match core::str::from_utf8(self.data) {
                Ok(text) => printable(text.strip_prefix("belvedere section ").map_or(text, |text| {
                    // The digest of its content is in the text as well.
                    text.split(' ').next().unwrap_or(text)
                })),
                Err(_) => "data that is no text".to_string(),
            },
            0x8000_0001 => self.variable().map_or_else(|| "a variable".to_string(), |name| printable(&name)),
            0x8000_00e0 => "authority".to_string(),
            0x04 => "separator".to_string(),
            kind => match kind {
                0x01 => "POST code",
                0x05 => "action",
                0x07 => "contents of the firmware",
                0x08 => "version of the firmware",
                0x8000_0002 => "a boot variable",
                0x8000_0003 => "a boot program",
                0x8000_0004 => "a driver",
                0x8000_0006 => "the partition table",
                0x8000_0007 => "action of the firmware",
                0x8000_0008 | 0x8000_000a => "a part of the firmware",
                0x8000_0009 | 0x8000_000b => "a table of the firmware",
                _ => "an event of another kind",
            }
            .to_string(),
        }
    }

    /// The name in UEFI_VARIABLE_DATA: GUID, length of the name, length of the content, name.
    fn variable(&self) -> Option<String> {
        let length = u64::from_le_bytes(self.data.get(16..24)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?.checked_mul(2).filter(|length| *length <= 200)?;
        let name = self.data.get(32..)?.get(..length)?;
        let units = name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        Some(char::decode_utf16(units).map(|unit| unit.unwrap_or('?')).collect())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Malformed("the event log ends too early"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Malformed("the event log ends too early"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn small(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.number()?).map_err(|_| Malformed("the event log ends too early"))
    }
}

/// Reads a log. Events that extend no register are left out.
///
/// # Errors
/// When it is too long, of another form, ends in the middle of an event, or an event has no digest of the SHA-256 bank.
pub fn read(bytes: &[u8]) -> Result<Vec<Event<'_>>, Malformed> {
    if bytes.len() > LIMIT {
        return Err(Malformed("the event log is too long"));
    }
    let mut reader = Reader(bytes);
    let sizes = head(&mut reader)?;
    let mut events = Vec::new();
    while !reader.0.is_empty() {
        let (register, kind) = (reader.number()?, reader.number()?);
        // EDK2 leaves what is unused at its end as it was.
        if (register, kind) == (0, 0) && reader.0.iter().all(|&byte| byte == 0)
            || (register, kind) == (u32::MAX, u32::MAX) && reader.0.iter().all(|&byte| byte == 0xff)
        {
            break;
        }
        let count = reader.length()?;
        if count > MAXIMUM_ALGORITHMS {
            return Err(Malformed("an event of the log has too many digests"));
        }
        let mut digest = None;
        for _ in 0..count {
            let algorithm = reader.small()?;
            let (_, size) = sizes
                .iter()
                .find(|(known, _)| *known == algorithm)
                .ok_or(Malformed("an event of the log has a digest that the log's head does not name"))?;
            let content = reader.slice(*size)?;
            if algorithm == SHA256 {
                digest = content.try_into().ok();
            }
        }
        let length = reader.length()?;
        let data = reader.slice(length)?;
        if kind == NO_ACTION {
            continue;
        }
        if events.len() >= MAXIMUM_EVENTS {
            return Err(Malformed("the event log has too many events"));
        }
        let digest = digest.ok_or(Malformed("an event of the log has no SHA-256"))?;
        events.push(Event { register, kind, digest, data });
    }
    Ok(events)
}

/// Algorithms and the length of their digests, of the head.
fn head(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, Malformed> {
    const OTHER: Malformed = Malformed("the event log is of a form that is not known here");
    let (_register, kind) = (reader.number()?, reader.number()?);
    reader.slice(20)?;
    let length = reader.length()?;
    let mut head = Reader(reader.slice(length)?);
    if kind != NO_ACTION || head.array()? != *HEAD {
        return Err(OTHER);
    }
    // Class of the platform, version, width of numbers.
    head.slice(8)?;
    let count = head.length()?;
    if count == 0 || count > MAXIMUM_ALGORITHMS {
        return Err(OTHER);
    }
    (0..count).map(|_| Ok((head.small()?, usize::from(head.small()?)))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// A log with SHA-1 and SHA-256 as EDK2 writes it.
    pub fn sample(events: &[(u32, u32, Digest, &[u8])]) -> Vec<u8> {
        let mut bytes = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
        bytes.extend([0; 20]);
        let mut head = HEAD.to_vec();
        head.extend([0, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 4, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
        bytes.extend((head.len() as u32).to_le_bytes());
        bytes.extend(head);
        for (register, kind, digest, data) in events {
            bytes.extend([register.to_le_bytes(), kind.to_le_bytes(), 2u32.to_le_bytes()].concat());
            bytes.extend([4, 0]);
            bytes.extend([9; 20]);
            bytes.extend([0x0b, 0]);
            bytes.extend(digest);
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    pub fn variable(name: &str) -> Vec<u8> {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [vec![0; 16], (name.len() as u64 / 2).to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), name, vec![1]].concat()
    }

    #[test]
    fn events_are_read_with_their_names() {
        let (db, text) = (variable("db"), b"belvedere section .linux sha256 00ff");
        let bytes = sample(&[
            (7, 0x8000_0001, [1; 32], &db),
            (0, NO_ACTION, [2; 32], b"StartupLocality"),
            (7, 4, [3; 32], &[0; 4]),
            (11, 0x0d, [4; 32], text),
            (12, 0x0d, [5; 32], b"belvedere slot a\x1b[31m"),
        ]);
        let events = read(&bytes).unwrap();
        let names: Vec<(u32, String)> = events.iter().map(|event| (event.register, event.name())).collect();
        let names: Vec<(u32, &str)> = names.iter().map(|(register, name)| (*register, name.as_str())).collect();
        assert_eq!(names, [(7, "db"), (7, "separator"), (11, ".linux"), (12, "belvedere slot a[31m")]);
        assert_eq!((events[0].digest, events[3].digest), ([1; 32], [5; 32]));
        // The rest of the memory that the firmware keeps for it.
        for filling in [0, 0xff] {
            let filled = [bytes.clone(), vec![filling; 4096]].concat();
            assert_eq!(read(&filled).unwrap(), events);
        }
    }

    #[test]
    fn the_name_of_a_variable_is_looked_for_within_its_event() {
        let name = |data: &[u8]| read(&sample(&[(7, 0x8000_0001, [1; 32], data)])).unwrap()[0].name();
        let whole = variable("dbx");
        assert_eq!(name(&whole), "dbx");
        for length in 0..38 {
            assert_eq!(name(&whole[..length]), "a variable", "{length}");
        }
        for letters in [4, 100, 101, 1 << 62, (1 << 63) + 3, u64::MAX] {
            let mut wrong = whole.clone();
            wrong[16..24].copy_from_slice(&letters.to_le_bytes());
            assert_eq!(name(&wrong), "a variable", "{letters}");
        }
    }

    #[test]
    fn what_is_cut_or_of_another_form_is_refused() {
        let bytes = sample(&[(7, 4, [3; 32], &[0; 4])]);
        let head = sample(&[]).len();
        for length in (0..bytes.len()).filter(|length| *length != head) {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        // Kind of the head, its name, number of algorithms, number of digests, an unknown algorithm, a length.
        for (at, byte) in [(4, 1), (32, b'x'), (56, 9), (56, 0), (head + 8, 9), (head + 12, 5), (bytes.len() - 5, 1)] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert!(read(&wrong).is_err(), "{at}");
        }
        let mut without = bytes;
        without[head + 8] = 1;
        without.drain(head + 34..head + 68);
        assert_eq!(read(&without), Err(Malformed("an event of the log has no SHA-256")));
        assert!(read(&vec![0; LIMIT + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200) {
            let mut log = sample(&[(7, 0x8000_0001, [1; 32], &variable("db"))]);
            let at = at.min(log.len());
            log.truncate(at);
            log.extend(bytes);
            for event in read(&log).unwrap_or_default() {
                prop_assert!(event.name().len() <= 400);
            }
        }
    }
}

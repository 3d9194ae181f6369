//! The binary header (spec 2.1): 4096 bytes, numbers big-endian, a SHA-256 over it and its JSON area.

use crate::HEADER_SIZE;
use sha2::{Digest, Sha256};

/// Size of the binary header, bytes; the JSON area follows.
pub(crate) const BINARY: usize = 4096;
/// Size of the JSON area, bytes.
pub(crate) const JSON_AREA: usize = HEADER_SIZE - BINARY;
/// Longest label in bytes; a NUL follows it.
pub(crate) const MAXIMUM_LABEL: usize = 47;

const VERSION: u16 = 2;
const LABEL: std::ops::Range<usize> = 24..72;
const ALGORITHM: std::ops::Range<usize> = 72..104;
const SALT: std::ops::Range<usize> = 104..168;
const UUID: std::ops::Range<usize> = 168..208;
const SUBSYSTEM: std::ops::Range<usize> = 208..256;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// Which of the two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Primary,
    Secondary,
}

impl Place {
    pub(crate) const fn offset(self) -> usize {
        match self {
            Place::Primary => 0,
            Place::Secondary => HEADER_SIZE,
        }
    }

    pub(crate) const fn other(self) -> Place {
        match self {
            Place::Primary => Place::Secondary,
            Place::Secondary => Place::Primary,
        }
    }

    const fn magic(self) -> &'static [u8; 6] {
        match self {
            Place::Primary => b"LUKS\xba\xbe",
            Place::Secondary => b"SKUL\xba\xbe",
        }
    }
}

/// Why a copy is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Defect {
    /// No magic number.
    Absent,
    /// LUKS1, or something later than LUKS2; it need not have a checksum that we know.
    Version(u16),
    /// The size, which has to be known before the checksum, is not ours.
    Size(u64),
    /// Another checksum than SHA-256.
    Algorithm,
    /// Torn or damaged.
    Checksum,
}

impl std::fmt::Display for Defect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Defect::Absent => formatter.write_str("is not there"),
            Defect::Version(version) => write!(formatter, "has version {version}, not 2"),
            Defect::Size(size) => write!(formatter, "has {size} bytes, not {HEADER_SIZE}"),
            Defect::Algorithm => formatter.write_str("has a checksum that is not SHA-256"),
            Defect::Checksum => formatter.write_str("is damaged: its checksum is wrong"),
        }
    }
}

/// An intact copy. Whether it is of the profile is seen afterwards ([`fields`](Self::fields) and the metadata).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intact<'bytes> {
    bytes: &'bytes [u8],
    place: Place,
}

/// What a binary header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) sequence: u64,
    pub(crate) label: String,
    pub(crate) uuid: String,
    pub(crate) salt: [u8; 64],
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn checksum(copy: &[u8]) -> [u8; 32] {
    let length = CHECKSUM.len();
    Sha256::new()
        .chain_update(&copy[..CHECKSUM.start])
        .chain_update(vec![0; length])
        .chain_update(&copy[CHECKSUM.end..])
        .finalize()
        .into()
}

/// Text that NULs fill up, at least one of them.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0)?;
    let (text, rest) = field.split_at(end);
    rest.iter().all(|&byte| byte == 0).then(|| std::str::from_utf8(text).ok())?
}

/// Checks one copy's frame. `area` begins with the partition and holds both copies.
pub(crate) fn read(area: &[u8], place: Place) -> Result<Intact<'_>, Defect> {
    let copy = area.get(place.offset()..place.offset() + HEADER_SIZE).ok_or(Defect::Absent)?;
    if &copy[..6] != place.magic() {
        return Err(Defect::Absent);
    }
    let version = u16::from_be_bytes([copy[6], copy[7]]);
    if version != VERSION {
        return Err(Defect::Version(version));
    }
    let size = number(copy, 8);
    if size != HEADER_SIZE as u64 {
        return Err(Defect::Size(size));
    }
    if text(&copy[ALGORITHM]) != Some("sha256") {
        return Err(Defect::Algorithm);
    }
    // The field has room for longer hashes, and the checksum does not cover it: the rest must be zero to be covered.
    let field = &copy[CHECKSUM];
    if field[..32] != checksum(copy) || field[32..].iter().any(|&byte| byte != 0) {
        return Err(Defect::Checksum);
    }
    Ok(Intact { bytes: copy, place })
}

impl<'bytes> Intact<'bytes> {
    pub(crate) fn sequence(&self) -> u64 {
        number(self.bytes, 16)
    }

    pub(crate) fn json(&self) -> &'bytes [u8] {
        &self.bytes[BINARY..]
    }

    /// The fields; in words what of them is not of the profile.
    pub(crate) fn fields(&self) -> Result<Fields, String> {
        let bytes = self.bytes;
        if number(bytes, 256) != self.place.offset() as u64 {
            return Err("a copy of the header says that it belongs elsewhere".into());
        }
        if bytes[264..CHECKSUM.start].iter().chain(&bytes[CHECKSUM.end..BINARY]).any(|&byte| byte != 0) {
            return Err("the binary header has something in its padding".into());
        }
        if text(&bytes[SUBSYSTEM]) != Some("") {
            return Err("it has a subsystem label".into());
        }
        let label = text(&bytes[LABEL]).ok_or("its label is not text")?;
        let uuid = text(&bytes[UUID]).filter(|uuid| parse_uuid(uuid).is_some()).ok_or("its UUID is none")?;
        let mut salt = [0; 64];
        salt.copy_from_slice(&bytes[SALT]);
        Ok(Fields { sequence: self.sequence(), label: label.to_owned(), uuid: uuid.to_owned(), salt })
    }
}

/// A whole copy: binary header and JSON area. `json` must fit ([`JSON_AREA`]); what does not is cut.
pub(crate) fn write(place: Place, fields: &Fields, json: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; HEADER_SIZE];
    copy[..6].copy_from_slice(place.magic());
    copy[6..8].copy_from_slice(&VERSION.to_be_bytes());
    copy[8..16].copy_from_slice(&(HEADER_SIZE as u64).to_be_bytes());
    copy[16..24].copy_from_slice(&fields.sequence.to_be_bytes());
    put(&mut copy[LABEL], fields.label.as_bytes());
    put(&mut copy[ALGORITHM], b"sha256");
    copy[SALT].copy_from_slice(&fields.salt);
    put(&mut copy[UUID], fields.uuid.as_bytes());
    copy[256..264].copy_from_slice(&(place.offset() as u64).to_be_bytes());
    let length = json.len().min(JSON_AREA - 1);
    copy[BINARY..BINARY + length].copy_from_slice(&json[..length]);
    let checksum = checksum(&copy);
    put(&mut copy[CHECKSUM], &checksum);
    copy
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// The 16 bytes of a UUID in its usual form, lower case.
pub(crate) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        });
    let digits: String = text.chars().filter(|&character| character != '-').collect();
    let value = plain.then(|| u128::from_str_radix(&digits, 16).ok())??;
    Some(value.to_be_bytes())
}

/// The usual form of a UUID.
pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_they_are_written_and_nothing_else_is_one() {
        let uuid = *b"0123456789abcdef";
        assert_eq!(uuid_text(uuid), "30313233-3435-3637-3839-616263646566");
        assert_eq!(parse_uuid(&uuid_text(uuid)), Some(uuid));
        let others = ["", "30313233-3435-3637-3839-61626364656", "30313233-3435-3637-3839-6162636465GG"];
        for other in
            others.into_iter().chain(["30313233-3435-3637-3839-616263646566\n", "+0313233-3435-3637-3839-616263646566"])
        {
            assert_eq!(parse_uuid(other), None, "{other}");
        }
    }
}

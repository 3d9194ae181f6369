//! The central directory of a ZIP file, read strictly.
//!
//! The `zip` crate is made to open whatever opens elsewhere: it searches for the end record, tolerates bytes before and
//! behind the archive, and keeps the last of two entries with one name. Each of those lets two readers see two different
//! archives. So this module reads the directory first and refuses everything that our own writer never makes; only
//! then the crate unpacks. Field offsets: PKWARE APPNOTE 6.3.10, 4.3.12 (directory header) and 4.3.16 (end record).

use crate::ArchiveError;

const END_RECORD: usize = 22;
const HEADER: usize = 46;

/// One entry, as the directory declares it.
pub(crate) struct Entry<'a> {
    pub name: &'a [u8],
    pub flags: u16,
    pub method: u16,
    pub made_by_unix: bool,
    pub external_attributes: u32,
    pub packed: u64,
    pub unpacked: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn damaged(what: &str) -> ArchiveError {
    ArchiveError::Damaged { what: what.into() }
}

/// All entries in their order.
pub(crate) fn read(bytes: &[u8], max_entries: usize) -> Result<Vec<Entry<'_>>, ArchiveError> {
    let end_at = bytes.len().checked_sub(END_RECORD).ok_or_else(|| damaged("too short"))?;
    if u32_at(bytes, end_at) != Some(0x0605_4b50) {
        if !bytes.starts_with(b"PK") {
            return Err(damaged("not a ZIP file"));
        }
        return Err(damaged("its end is missing"));
    }
    let field = |offset| u16_at(bytes, end_at + offset).unwrap_or(u16::MAX);
    let long = |offset| u32_at(bytes, end_at + offset).unwrap_or(u32::MAX) as usize;
    if field(4) != 0 || field(6) != 0 || field(8) != field(10) {
        return Err(ArchiveError::Unsupported { what: "several volumes".into() });
    }
    if field(20) != 0 {
        return Err(ArchiveError::Unsupported { what: "a comment".into() });
    }
    let count = field(10) as usize;
    if count > max_entries {
        return Err(ArchiveError::TooManyEntries { limit: max_entries });
    }
    let (size, start) = (long(12), long(16));
    if start.checked_add(size) != Some(end_at) {
        return Err(damaged("its directory is not where it should be"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        let (entry, next) = header(bytes, at, end_at).ok_or_else(|| damaged("its directory is cut off"))?;
        entries.push(entry);
        at = next;
    }
    if at != end_at {
        return Err(damaged("its directory is longer than declared"));
    }
    Ok(entries)
}

fn header(bytes: &[u8], at: usize, end: usize) -> Option<(Entry<'_>, usize)> {
    let bytes = bytes.get(..end)?;
    if u32_at(bytes, at)? != 0x0201_4b50 {
        return None;
    }
    let name_length = u16_at(bytes, at + 28)? as usize;
    let extra_length = u16_at(bytes, at + 30)? as usize;
    let comment_length = u16_at(bytes, at + 32)? as usize;
    let entry = Entry {
        made_by_unix: u16_at(bytes, at + 4)? >> 8 == 3,
        flags: u16_at(bytes, at + 8)?,
        method: u16_at(bytes, at + 10)?,
        packed: u32_at(bytes, at + 20)?.into(),
        unpacked: u32_at(bytes, at + 24)?.into(),
        external_attributes: u32_at(bytes, at + 38)?,
        name: bytes.get(at + HEADER..at + HEADER + name_length)?,
    };
    let next = at + HEADER + name_length + extra_length + comment_length;
    (next <= end).then_some((entry, next))
}

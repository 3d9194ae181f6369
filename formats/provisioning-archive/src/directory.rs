//! The central directory of a ZIP file, read strictly and once.
//!
//! Everything that is decided about an archive rests on what is read here, and its contents are unpacked by the same
//! entries ([`crate::unpack`]): no second reader sees another archive. Common ZIP libraries are made to open whatever opens
//! elsewhere: they search for the end record, tolerate bytes before and behind the archive, and keep the last of two
//! entries with one name. Field offsets: PKWARE APPNOTE 6.3.10, 4.3.12 (directory header), 4.3.14 to 4.3.16 (end records)
//! and 4.5.3 (ZIP64's extra field).

use crate::ArchiveError;

const END_RECORD: usize = 22;
const END_SIGNATURE: u32 = 0x0605_4b50;
const LONG_END_RECORD: usize = 56;
const LONG_END_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR: usize = 20;
const LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const HEADER: usize = 46;
const HEADER_SIGNATURE: u32 = 0x0201_4b50;
/// Of an extra field that holds what does not fit into four bytes.
const LONG_SIZES: u16 = 1;

/// The directory.
pub(crate) struct Directory<'a> {
    /// In their order.
    pub entries: Vec<Entry<'a>>,
    /// Where it begins: contents end before it.
    pub start: usize,
}

/// One entry, as the directory declares it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub name: &'a [u8],
    pub flags: u16,
    pub method: u16,
    pub made_by_unix: bool,
    pub external_attributes: u32,
    pub checksum: u32,
    pub packed: u64,
    pub unpacked: u64,
    /// Of its local header.
    pub offset: u64,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(crate) fn damaged(what: &str) -> ArchiveError {
    ArchiveError::Damaged { what: what.into() }
}

/// Where the end record is: the last thing in the file.
fn end_record(bytes: &[u8]) -> Result<usize, ArchiveError> {
    let last = bytes.len().checked_sub(END_RECORD).ok_or_else(|| damaged("too short"))?;
    let is_end = |at| u32_at(bytes, at) == Some(END_SIGNATURE);
    let comment = |at| u16_at(bytes, at + 20).map(usize::from);
    if is_end(last) && comment(last) == Some(0) {
        return Ok(last);
    }
    // With a comment it is further to the front. Two places would fit then in a file that is made for it.
    if (last.saturating_sub(usize::from(u16::MAX))..last).any(|at| is_end(at) && comment(at) == Some(last - at)) {
        return Err(ArchiveError::Unsupported { what: "a comment".into() });
    }
    Err(damaged(if bytes.starts_with(b"PK") { "its end is missing" } else { "not a ZIP file" }))
}

/// Number of entries, size and beginning of the directory, and where it must end.
struct Extent {
    count: u64,
    size: u64,
    start: u64,
    end: usize,
}

fn extent(bytes: &[u8]) -> Result<Extent, ArchiveError> {
    let end = end_record(bytes)?;
    let several = || ArchiveError::Unsupported { what: "several volumes".into() };
    let cut = || damaged("its end is cut off");
    let short = |offset| u16_at(bytes, end + offset).map(u64::from).ok_or_else(cut);
    let long = |offset| u32_at(bytes, end + offset).map(u64::from).ok_or_else(cut);
    let locator = end.checked_sub(LOCATOR).filter(|at| u32_at(bytes, *at) == Some(LOCATOR_SIGNATURE));
    let Some(locator) = locator else {
        if short(4)? != 0 || short(6)? != 0 || short(8)? != short(10)? {
            return Err(several());
        }
        return Ok(Extent { count: short(10)?, size: long(12)?, start: long(16)?, end });
    };
    let record = u64_at(bytes, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
    if record.checked_add(LONG_END_RECORD) != Some(locator) || u32_at(bytes, record) != Some(LONG_END_SIGNATURE) {
        return Err(damaged("its ZIP64 end is not where it should be"));
    }
    let field = |offset| u64_at(bytes, record + offset).ok_or_else(cut);
    if u64_at(bytes, record + 16) != Some(0) || field(24)? != field(32)? {
        return Err(several());
    }
    Ok(Extent { count: field(32)?, size: field(40)?, start: field(48)?, end: record })
}

/// The directory, with `max_entries` entries at most.
pub(crate) fn read(bytes: &[u8], max_entries: usize) -> Result<Directory<'_>, ArchiveError> {
    let Extent { count, size, start, end } = extent(bytes)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= max_entries);
    let count = count.ok_or(ArchiveError::TooManyEntries { limit: max_entries })?;
    if start.checked_add(size) != Some(end as u64) {
        return Err(damaged("its directory is not where it should be"));
    }
    // No larger than `end`.
    let start = start as usize;
    let mut entries = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        let (entry, next) = header(bytes, at, end).ok_or_else(|| damaged("its directory is cut off"))?;
        entries.push(entry);
        at = next;
    }
    if at != end {
        return Err(damaged("its directory is longer than declared"));
    }
    Ok(Directory { entries, start })
}

fn header(bytes: &[u8], at: usize, end: usize) -> Option<(Entry<'_>, usize)> {
    let bytes = bytes.get(..end)?;
    if u32_at(bytes, at)? != HEADER_SIGNATURE {
        return None;
    }
    let name_length = u16_at(bytes, at + 28)? as usize;
    let extra_length = u16_at(bytes, at + 30)? as usize;
    let comment_length = u16_at(bytes, at + 32)? as usize;
    let extra_at = at + HEADER + name_length;
    let mut long = long_sizes(bytes.get(extra_at..extra_at + extra_length)?);
    let mut size = |offset: usize| -> Option<u64> {
        match u32_at(bytes, at + offset)? {
            u32::MAX => long.next(),
            size => Some(size.into()),
        }
    };
    // In the order in which the extra field has those that are too large.
    let (unpacked, packed, offset) = (size(24)?, size(20)?, size(42)?);
    let entry = Entry {
        made_by_unix: u16_at(bytes, at + 4)? >> 8 == 3,
        flags: u16_at(bytes, at + 8)?,
        method: u16_at(bytes, at + 10)?,
        checksum: u32_at(bytes, at + 16)?,
        packed,
        unpacked,
        offset,
        external_attributes: u32_at(bytes, at + 38)?,
        name: bytes.get(at + HEADER..extra_at)?,
    };
    let next = extra_at + extra_length + comment_length;
    (next <= end).then_some((entry, next))
}

/// The numbers of ZIP64's extra field; none without one.
fn long_sizes(mut extra: &[u8]) -> impl Iterator<Item = u64> + use<'_> {
    let mut found: &[u8] = &[];
    while let (Some(kind), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(content) = extra.get(4..4 + usize::from(length)) else { break };
        if kind == LONG_SIZES {
            found = content;
            break;
        }
        extra = &extra[4 + usize::from(length)..];
    }
    found.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0))
}

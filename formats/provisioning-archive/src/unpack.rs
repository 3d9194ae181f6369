//! The content of an entry, found by what the directory says of it.

use crate::directory::{Entry, damaged, u16_at, u32_at};
use crate::{ArchiveError, Limits};
use flate2::bufread::DeflateDecoder;
use std::io::Read;
use std::ops::Range;

const LOCAL_HEADER: usize = 30;
const LOCAL_SIGNATURE: u32 = 0x0403_4b50;

/// Where an entry is in the file, from its local header to the end of its content. `end`: contents end before it.
fn place(bytes: &[u8], entry: &Entry<'_>, end: usize) -> Option<(Range<usize>, Range<usize>)> {
    let bytes = bytes.get(..end)?;
    let at = usize::try_from(entry.offset).ok().filter(|at| *at < end)?;
    if u32_at(bytes, at)? != LOCAL_SIGNATURE {
        return None;
    }
    // Of the local header only the lengths count: its name, sizes and checksum may be other ones, or come behind.
    let content = at + LOCAL_HEADER + usize::from(u16_at(bytes, at + 26)?) + usize::from(u16_at(bytes, at + 28)?);
    let content_end = content.checked_add(usize::try_from(entry.packed).ok()?).filter(|past| *past <= end)?;
    Some((at..content_end, content..content_end))
}

/// The contents of entries, in their order. What they declare was checked against `limits` before.
pub(crate) fn contents(
    bytes: &[u8],
    entries: &[(&'static str, &Entry<'_>)],
    end: usize,
    limits: &Limits,
) -> Result<Vec<(&'static str, Vec<u8>)>, ArchiveError> {
    let mut taken: Vec<Range<usize>> = Vec::with_capacity(entries.len());
    let mut contents = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (whole, packed) =
            place(bytes, entry, end).ok_or_else(|| damaged(&format!("{name} is not where it should be")))?;
        if taken.iter().any(|other| whole.start < other.end && other.start < whole.end) {
            return Err(damaged("its files overlap"));
        }
        taken.push(whole);
        contents.push((*name, content(name, entry, &bytes[packed], limits)?));
    }
    Ok(contents)
}

fn content(name: &str, entry: &Entry<'_>, packed: &[u8], limits: &Limits) -> Result<Vec<u8>, ArchiveError> {
    let mut content = Vec::new();
    match entry.method {
        0 => content.extend_from_slice(packed),
        // Declared sizes may lie. One byte more than is allowed, so that "exactly the limit" and "more" can be told apart.
        8 => {
            let mut decoder = DeflateDecoder::new(packed).take(limits.entry_bytes + 1);
            decoder
                .read_to_end(&mut content)
                .map_err(|error| damaged(&ArchiveError::shortened(format!("{name}: {error}"))))?;
            if content.len() as u64 <= limits.entry_bytes && decoder.into_inner().total_in() != entry.packed {
                return Err(damaged(&format!("{name} is shorter than declared")));
            }
        }
        other => return Err(ArchiveError::Unsupported { what: format!("compression method {other}") }),
    }
    if content.len() as u64 > limits.entry_bytes {
        return Err(ArchiveError::EntryTooLarge { name: format!("\"{name}\""), limit: limits.entry_bytes });
    }
    if content.len() as u64 != entry.unpacked {
        return Err(damaged(&format!("{name} is not as long as declared")));
    }
    if crc32fast::hash(&content) != entry.checksum {
        return Err(damaged(&format!("the checksum of {name} is wrong")));
    }
    Ok(content)
}

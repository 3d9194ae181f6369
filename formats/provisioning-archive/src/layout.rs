//! Which of an archive's entries are ours.
//!
//! Browsers unpack what they load, and people pack it again: then the files are in a folder, and what their system puts
//! into every folder is beside them. That is accepted: the four files are all in one folder, whatever it is called (but not
//! hidden), and litter that is known by its name is left out, unread: so is what we left on the stick ourselves. Anything
//! else is refused. No name of the archive becomes a path.

use crate::directory::{Directory, Entry};
use crate::{ArchiveError, Limits, entries};

/// Longest name of an entry with its folders.
const MAX_NAME: usize = 512;
/// Folders in folders.
const MAX_DEPTH: usize = 8;
/// Below this size a good ratio is no bomb.
const RATIO_FREE_BYTES: u64 = 4096;

/// Folders that systems make, with everything below them. Compared without case. Hidden ones are litter by any name.
const LITTER_FOLDERS: [&str; 5] = ["__MACOSX", "$RECYCLE.BIN", "System Volume Information", "LOST.DIR", "@eaDir"];
/// Files that systems make. The last one is a folder's picture on macOS.
const LITTER_FILES: [&str; 4] = ["Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"];
/// Ends of the names of files that systems and editors make: where a download came from, what it was before it was edited.
const LITTER_ENDS: [&str; 2] = [":Zone.Identifier", "~"];
/// The folder on the stick for results and logs. It is litter beside the four files; they may be in one of that name.
const RESULTS: &[u8] = b"panorama";

/// The entries that are ours.
pub(crate) struct Layout<'a> {
    /// Those of our names that are there.
    pub ours: Vec<(&'static str, &'a Entry<'a>)>,
    /// The first that is neither ours nor litter. Judged after the format version: a newer format may hold more.
    pub unknown: Option<ArchiveError>,
}

/// Checks all that the directory declares, and finds our entries.
pub(crate) fn layout<'a>(directory: &'a Directory<'a>, limits: &Limits) -> Result<Layout<'a>, ArchiveError> {
    let mut files: Vec<(Vec<&[u8]>, &Entry<'_>)> = Vec::new();
    let mut folders = Vec::new();
    for entry in &directory.entries {
        let shown = || ArchiveError::shown(entry.name);
        let (parts, is_folder) = parts(entry).ok_or_else(|| ArchiveError::UnsafeName { name: shown() })?;
        let is_folder = is_folder || kind(entry, &shown)? == Kind::Folder;
        if is_litter(&parts) {
            continue;
        }
        if is_folder {
            folders.push((parts, entry));
            continue;
        }
        if !parts.last().is_some_and(|name| is_plain_name(name)) {
            return Err(ArchiveError::UnsafeName { name: shown() });
        }
        if files.iter().any(|(other, _)| is_same(other, &parts)) {
            return Err(ArchiveError::DuplicateEntry { name: shown() });
        }
        files.push((parts, entry));
    }
    let home = home(&files)?;
    let is_result = |folder: &[&[u8]]| {
        folder.strip_prefix(home.as_slice()).and_then(<[_]>::first).is_some_and(|name| name.eq_ignore_ascii_case(RESULTS))
    };
    files.retain(|(parts, _)| !parts.split_last().is_some_and(|(_, folder)| is_result(folder)));
    folders.retain(|(parts, _)| !is_result(parts));
    check_sizes(&files, limits)?;
    if let Some((_, entry)) = folders.iter().find(|(parts, _)| !home.starts_with(parts)) {
        return Err(ArchiveError::NotAFile { name: ArchiveError::shown(entry.name) });
    }
    let mut layout = Layout { ours: Vec::new(), unknown: None };
    for (parts, entry) in files {
        let (name, folder) = parts.split_last().map_or((&[][..], &[][..]), |(name, folder)| (*name, folder));
        match entries::ALL.into_iter().find(|ours| ours.as_bytes() == name) {
            Some(ours) if folder == home.as_slice() => layout.ours.push((ours, entry)),
            _ => {
                let name = ArchiveError::shown(entry.name);
                layout.unknown.get_or_insert(ArchiveError::UnknownEntry { name });
            }
        }
    }
    Ok(layout)
}

/// The folder that holds the configuration.
fn home<'a>(files: &[(Vec<&'a [u8]>, &Entry<'_>)]) -> Result<Vec<&'a [u8]>, ArchiveError> {
    let mut found =
        files.iter().filter(|(parts, _)| parts.last().is_some_and(|name| *name == entries::CONFIGURATION.as_bytes()));
    match (found.next(), found.next()) {
        (Some((parts, _)), None) => Ok(parts[..parts.len() - 1].to_vec()),
        (Some(_), Some((_, second))) => Err(ArchiveError::DuplicateEntry { name: ArchiveError::shown(second.name) }),
        (None, _) => match files {
            [(_, only)] if only.name.to_ascii_lowercase().ends_with(b".zip") => {
                Err(ArchiveError::Nested { name: ArchiveError::shown(only.name) })
            }
            _ => Err(ArchiveError::MissingEntry { name: entries::CONFIGURATION }),
        },
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// Upper half of the attributes: Unix mode, S_IFMT; 0 is what some tools write for a plain file. Lower half: DOS, bit 4
/// is a folder.
fn kind(entry: &Entry<'_>, shown: &impl Fn() -> String) -> Result<Kind, ArchiveError> {
    let mode = if entry.made_by_unix { (entry.external_attributes >> 16) & 0o170_000 } else { 0 };
    match mode {
        0o040_000 => Ok(Kind::Folder),
        0 if entry.external_attributes & 0x10 != 0 => Ok(Kind::Folder),
        0 | 0o100_000 => Ok(Kind::File),
        _ => Err(ArchiveError::NotAFile { name: shown() }),
    }
}

/// A name's folders and its last part, and whether it says itself that it is a folder. `None` for a name that leads
/// elsewhere, or cannot be shown. Programs on Windows write backslashes; some name the folder that they pack `.`. A colon in
/// the name of a folder is a slash in the Finder; in that of a file it names a stream, behind a single letter a drive.
fn parts<'a>(entry: &Entry<'a>) -> Option<(Vec<&'a [u8]>, bool)> {
    let is_separator = |byte: &u8| matches!(byte, b'/' | b'\\');
    let (name, is_folder) = match entry.name.split_last() {
        Some((last, name)) if is_separator(last) => (name, true),
        _ => (entry.name, false),
    };
    let parts: Vec<&[u8]> = name.split(|byte| is_separator(byte)).collect();
    let (last, folders) = parts.split_last()?;
    let good = |part: &[u8]| !part.is_empty() && part != b".." && !part.iter().any(|b| *b < 0x20 || *b == 0x7f);
    let good_last = if is_folder { good(last) } else { is_litter_file(last) || (good(last) && !last.contains(&b':')) };
    let is_drive = matches!(parts[..], [[letter, b':'], ..] if letter.is_ascii_alphabetic());
    if name.len() > MAX_NAME || parts.len() > MAX_DEPTH || is_drive || !good_last || !folders.iter().all(|part| good(part)) {
        return None;
    }
    Some((parts.into_iter().filter(|part| *part != b".").collect(), is_folder))
}

fn is_same(one: &[&[u8]], other: &[&[u8]]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

fn is_one_of(names: &[&str], part: &[u8]) -> bool {
    names.iter().any(|name| part.eq_ignore_ascii_case(name.as_bytes()))
}

fn is_litter(parts: &[&[u8]]) -> bool {
    parts.iter().any(|part| part.starts_with(b".") || is_one_of(&LITTER_FOLDERS, part))
        || parts.last().is_some_and(|name| is_litter_file(name))
}

fn is_litter_file(name: &[u8]) -> bool {
    is_one_of(&LITTER_FILES, name) || LITTER_ENDS.iter().any(|end| name.ends_with(end.as_bytes()))
}

/// Letters, digits, `.`, `-`, `_`.
fn is_plain_name(name: &[u8]) -> bool {
    name.len() <= 64
        && name.first().is_some_and(|first| *first != b'.')
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn check_sizes(files: &[(Vec<&[u8]>, &Entry<'_>)], limits: &Limits) -> Result<(), ArchiveError> {
    let mut total = 0u64;
    for (_, entry) in files {
        let shown = || ArchiveError::shown(entry.name);
        // Bit 0: encrypted, bit 6: strongly, bit 13: directory masked.
        if entry.flags & 0x2041 != 0 {
            return Err(ArchiveError::Encrypted);
        }
        if entry.flags & 0x20 != 0 {
            return Err(ArchiveError::Unsupported { what: "patched data".into() });
        }
        if entry.method != 0 && entry.method != 8 {
            return Err(ArchiveError::Unsupported { what: format!("compression method {}", entry.method) });
        }
        if entry.unpacked > limits.entry_bytes {
            return Err(ArchiveError::EntryTooLarge { name: shown(), limit: limits.entry_bytes });
        }
        if entry.unpacked > RATIO_FREE_BYTES && entry.unpacked > entry.packed.saturating_mul(limits.ratio) {
            return Err(ArchiveError::Ratio { name: shown(), limit: limits.ratio });
        }
        total = total.saturating_add(entry.unpacked);
        if total > limits.total_bytes {
            return Err(ArchiveError::EntryTooLarge { name: "the whole".into(), limit: limits.total_bytes });
        }
    }
    Ok(())
}

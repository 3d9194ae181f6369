//! Which file of a stick is the archive.

use crate::{ArchiveError, FILE_NAME_PREFIX, FILE_NAME_SUFFIX};

/// One entry of the stick's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As the file system gives it.
    pub name: String,
    /// A regular file (not a directory).
    pub is_file: bool,
}

/// Whether a file name is that of an archive. FAT does not distinguish case, so neither do we.
pub fn is_archive_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.len() > FILE_NAME_PREFIX.len() + FILE_NAME_SUFFIX.len()
        && name.starts_with(FILE_NAME_PREFIX)
        && name.ends_with(FILE_NAME_SUFFIX)
}

/// The name of the one archive in the root directory of a stick.
///
/// # Errors
/// [`ArchiveError::NoArchive`] when there is none, [`ArchiveError::SeveralArchives`] when there are more than one: the
/// appliance does not guess which identity it should get.
pub fn choose(listing: &[Listed]) -> Result<&str, ArchiveError> {
    let mut found = listing.iter().filter(|entry| entry.is_file && is_archive_name(&entry.name));
    match (found.next(), found.next()) {
        (None, _) => Err(ArchiveError::NoArchive),
        (Some(one), None) => Ok(&one.name),
        (Some(first), Some(second)) => {
            Err(ArchiveError::SeveralArchives { first: first.name.clone(), second: second.name.clone() })
        }
    }
}

//! One file.

use crate::{Disk, DurableError, RealDisk, check_name, failed};
use std::path::{Path, PathBuf};

fn temporary(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.tmp"))
}

/// Writes `directory`/`name` whole, with these permission bits (such as `0o600`), replacing what was there.
pub fn write_file(directory: impl AsRef<Path>, name: &str, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    write_file_on(&mut RealDisk, directory.as_ref(), name, bytes, mode)
}

pub(crate) fn write_file_on(
    disk: &mut impl Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
    mode: u32,
) -> Result<(), DurableError> {
    check_name(name)?;
    let path = directory.join(name);
    let new = temporary(directory, name);
    disk.remove(&new).map_err(failed("remove the remnant", &new))?;
    // The numbers are those of the crate's documentation.
    // 1
    disk.create(&new, bytes, mode).map_err(failed("write", &new))?;
    // 2: a failed fsync is not tried again, the kernel may have dropped the pages.
    disk.sync_file(&new).map_err(failed("synchronise", &new))?;
    // 3
    disk.rename(&new, &path).map_err(failed("rename the new file to", &path))?;
    // 4
    disk.sync_directory(directory).map_err(failed("synchronise the directory", directory))?;
    // 5
    match disk.read(&path, bytes.len()).map_err(failed("read back", &path))? {
        Some(found) if found == bytes => Ok(()),
        _ => Err(DurableError::ReadBack { path }),
    }
}

/// Reads `directory`/`name`, at most `limit` bytes; `None` when there is no such file. Follows no symbolic link.
pub fn read_file(directory: impl AsRef<Path>, name: &str, limit: usize) -> Result<Option<Vec<u8>>, DurableError> {
    read_file_on(&mut RealDisk, directory.as_ref(), name, limit)
}

pub(crate) fn read_file_on(
    disk: &mut impl Disk,
    directory: &Path,
    name: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, DurableError> {
    check_name(name)?;
    let path = directory.join(name);
    match disk.read(&path, limit).map_err(failed("read", &path))? {
        Some(bytes) if bytes.len() > limit => Err(DurableError::TooLarge { path, limit }),
        found => Ok(found),
    }
}

/// Removes `directory`/`name` for good; no error when there is none.
pub fn remove_file(directory: impl AsRef<Path>, name: &str) -> Result<(), DurableError> {
    remove_file_on(&mut RealDisk, directory.as_ref(), name)
}

pub(crate) fn remove_file_on(disk: &mut impl Disk, directory: &Path, name: &str) -> Result<(), DurableError> {
    check_name(name)?;
    for path in [directory.join(name), temporary(directory, name)] {
        disk.remove(&path).map_err(failed("remove", &path))?;
    }
    disk.sync_directory(directory).map_err(failed("synchronise the directory", directory))
}

//! Several files that belong together: all old or all new.

use crate::{Disk, DurableError, RealDisk, check_name, failed};
use std::path::{Path, PathBuf};

fn staging(parent: &Path, name: &str) -> PathBuf {
    parent.join(format!(".{name}.new"))
}

/// A directory that is being filled and not yet in place. Dropping it leaves a remnant for [`recover_directory`].
#[derive(Debug)]
#[must_use = "nothing is in place before commit"]
pub struct StagedDirectory {
    parent: PathBuf,
    name: String,
}

/// Makes an empty directory to be filled by any means and then [committed](StagedDirectory::commit) as
/// `parent`/`name`.
pub fn stage_directory(parent: impl AsRef<Path>, name: &str, mode: u32) -> Result<StagedDirectory, DurableError> {
    stage_on(&mut RealDisk, parent.as_ref(), name, mode)
}

fn stage_on(disk: &mut impl Disk, parent: &Path, name: &str, mode: u32) -> Result<StagedDirectory, DurableError> {
    check_name(name)?;
    let new = staging(parent, name);
    disk.remove_tree(&new).map_err(failed("remove the remnant", &new))?;
    disk.make_directory(&new, mode).map_err(failed("make the directory", &new))?;
    Ok(StagedDirectory { parent: parent.to_owned(), name: name.to_owned() })
}

impl StagedDirectory {
    /// Where to put the files.
    pub fn path(&self) -> PathBuf {
        staging(&self.parent, &self.name)
    }

    /// Puts the directory in place of the old one and removes that.
    pub fn commit(self) -> Result<(), DurableError> {
        self.commit_on(&mut RealDisk)
    }

    fn commit_on(self, disk: &mut impl Disk) -> Result<(), DurableError> {
        let path = self.parent.join(&self.name);
        let new = self.path();
        // Whole file system at once: one flush instead of one a file, and nothing can be forgotten.
        disk.sync_all(&self.parent).map_err(failed("synchronise", &new))?;
        if disk.is_directory(&path).map_err(failed("look at", &path))? {
            disk.exchange(&new, &path).map_err(failed("exchange the new directory with", &path))?;
        } else {
            disk.rename(&new, &path).map_err(failed("rename the new directory to", &path))?;
        }
        disk.sync_directory(&self.parent).map_err(failed("synchronise the directory", &self.parent))?;
        // From here on the new one is in place whatever happens; a remnant of the old one does not matter.
        disk.remove_tree(&new).map_err(failed("remove the old directory", &new))
    }
}

/// Writes a directory of small files (name, bytes, permission bits), replacing the directory that was there.
pub fn write_directory(
    parent: impl AsRef<Path>,
    name: &str,
    mode: u32,
    files: &[(&str, &[u8], u32)],
) -> Result<(), DurableError> {
    write_directory_on(&mut RealDisk, parent.as_ref(), name, mode, files)
}

pub(crate) fn write_directory_on(
    disk: &mut impl Disk,
    parent: &Path,
    name: &str,
    mode: u32,
    files: &[(&str, &[u8], u32)],
) -> Result<(), DurableError> {
    for (file, _, _) in files {
        check_name(file)?;
    }
    let staged = stage_on(disk, parent, name, mode)?;
    for (file, bytes, mode) in files {
        let path = staged.path().join(file);
        disk.create(&path, bytes, *mode).map_err(failed("write", &path))?;
    }
    staged.commit_on(disk)?;
    for (file, bytes, _) in files {
        let path = parent.join(name).join(file);
        match disk.read(&path, bytes.len()).map_err(failed("read back", &path))? {
            Some(found) if found == *bytes => {}
            _ => return Err(DurableError::ReadBack { path }),
        }
    }
    Ok(())
}

/// Removes what an interrupted [`stage_directory`] left beside `parent`/`name`; to be called once at start.
pub fn recover_directory(parent: impl AsRef<Path>, name: &str) -> Result<(), DurableError> {
    check_name(name)?;
    let new = staging(parent.as_ref(), name);
    RealDisk.remove_tree(&new).map_err(failed("remove the remnant", &new))
}

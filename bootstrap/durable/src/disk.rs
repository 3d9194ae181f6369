//! The side effects, so that a fake can cut the power between any two of them.

use rustix::fs::{Advice, CWD, Mode, OFlags, RenameFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What this crate asks of a file system.
pub trait Disk {
    /// Makes a file that must not exist, with these bytes. Not yet on the medium.
    fn create(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// Brings a file's bytes to the medium.
    fn sync_file(&mut self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file of that name. Not yet on the medium.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges two names at once. Not yet on the medium.
    fn exchange(&mut self, one: &Path, other: &Path) -> io::Result<()>;
    /// Brings a directory's names to the medium.
    fn sync_directory(&mut self, path: &Path) -> io::Result<()>;
    /// Brings everything of this file system to the medium.
    fn sync_all(&mut self, path: &Path) -> io::Result<()>;
    /// Reads from the medium (not from memory, where that can be had) at most `limit` + 1 bytes; `None`: no such file.
    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>>;
    /// Removes a file; no error when there is none. Not yet on the medium.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Makes a directory that must not exist. Not yet on the medium.
    fn make_directory(&mut self, path: &Path, mode: u32) -> io::Result<()>;
    /// Removes a directory with all that is in it; no error when there is none. Not yet on the medium.
    fn remove_tree(&mut self, path: &Path) -> io::Result<()>;
    /// Whether there is such a directory.
    fn is_directory(&mut self, path: &Path) -> io::Result<bool>;
}

/// The kernel's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

fn none_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Disk for RealDisk {
    fn create(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(mode & 0o7777))?;
        // The mode at creation is cut by the umask; nothing is in the file yet.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        File::from(file).write_all(bytes)
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(open(path, OFlags::RDONLY)?)?)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
    }

    fn sync_all(&mut self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
    }

    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Best effort: without it the page cache answers, which proves less but is not wrong.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        let mut bytes = Vec::new();
        File::from(file).take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        none_is_fine(std::fs::remove_file(path))
    }

    fn make_directory(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::mkdir(path, mode)?;
        Ok(rustix::fs::chmod(path, mode)?)
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        none_is_fine(std::fs::remove_dir_all(path))
    }

    fn is_directory(&mut self, path: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

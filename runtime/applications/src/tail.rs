//! Follows the files that an application writes into `/opt/aws/panorama/logs`. The directory is the application's:
//! it may hold pipes (three of the samples make one), links and files that are renamed or cut while they are read.

use crate::spool::Lines;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Files followed at a time.
const FILES: usize = 64;
/// Entries of the directory looked at.
const ENTRIES: usize = 1_000;
/// Bytes of one file taken at a time.
const BYTES: usize = 256 << 10;

/// Follows one directory.
#[derive(Default)]
pub struct Tail {
    /// By inode, so that a file keeps its place when it is renamed (Python's rotation).
    files: BTreeMap<u64, Followed>,
    started: bool,
}

#[derive(Default)]
struct Followed {
    offset: u64,
    lines: Lines,
}

impl Tail {
    /// Follows what is written from now on: what is there already was followed before this process started.
    pub fn from_the_end() -> Tail {
        Tail::default()
    }

    /// Follows files from their beginning.
    pub fn from_the_start() -> Tail {
        Tail { started: true, ..Tail::default() }
    }

    /// Reads what is new; gives it line by line.
    pub fn poll(&mut self, directory: &Path, mut line: impl FnMut(&[u8])) -> std::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, directory, flags, Mode::empty())?;
        let mut seen = Vec::new();
        for entry in fs::Dir::read_from(&directory)?.take(ENTRIES) {
            let entry = entry?;
            let Ok(there) = fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(there.st_mode) != FileType::RegularFile || seen.len() >= FILES {
                continue;
            }
            seen.push(there.st_ino);
            let length = there.st_size as u64;
            let first = !self.files.contains_key(&there.st_ino);
            let followed = self.files.entry(there.st_ino).or_default();
            if first && !self.started {
                followed.offset = length;
            }
            if length < followed.offset {
                // Cut and written anew.
                *followed = Followed::default();
            }
            if length > followed.offset
                && let Ok(file) = regular(&directory, entry.file_name(), there.st_ino)
            {
                // Holes are no text: a file of terabytes that holds nothing costs one call.
                match fs::seek(&file, fs::SeekFrom::Data(followed.offset)) {
                    Ok(data) => followed.offset = data.min(length),
                    Err(rustix::io::Errno::NXIO) => followed.offset = length,
                    Err(_) => {}
                }
                let mut buffer = vec![0; BYTES.min((length - followed.offset) as usize)];
                let count = file.read_at(&mut buffer, followed.offset).unwrap_or(0);
                followed.offset += count as u64;
                followed.lines.feed(&buffer[..count], &mut line);
            }
        }
        self.files.retain(|inode, _| seen.contains(inode));
        self.started = true;
        Ok(())
    }
}

/// Opens without following a link and without waiting for a pipe's writer, and makes sure that it is what was seen.
fn regular(directory: &OwnedFd, name: &std::ffi::CStr, inode: u64) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::openat(directory, name, flags, Mode::empty())?;
    let there = fs::fstat(&file)?;
    if FileType::from_raw_mode(there.st_mode) == FileType::RegularFile && there.st_ino == inode {
        Ok(File::from(file))
    } else {
        Err(std::io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn poll(tail: &mut Tail, directory: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        tail.poll(directory, |line| lines.push(String::from_utf8(line.to_vec()).unwrap())).unwrap();
        lines
    }

    #[test]
    fn lines_are_followed_through_rotation_and_cutting() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("app.log");
        let mut tail = Tail::from_the_start();
        let mut file = File::create(&log).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(poll(&mut tail, directory.path()), ["one"]);
        file.write_all(b"o\n").unwrap();
        std::fs::rename(&log, directory.path().join("app.log.1")).unwrap();
        std::fs::write(&log, b"three\n").unwrap();
        let mut lines = poll(&mut tail, directory.path());
        lines.sort();
        assert_eq!(lines, ["three", "two"]);
        assert!(poll(&mut tail, directory.path()).is_empty());
        std::fs::write(&log, b"x\n").unwrap();
        assert_eq!(poll(&mut tail, directory.path()), ["x"]);
    }

    #[test]
    fn what_was_there_before_is_not_sent_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("old.log"), b"old\n").unwrap();
        let mut tail = Tail::from_the_end();
        assert!(poll(&mut tail, directory.path()).is_empty());
        std::fs::write(directory.path().join("new.log"), b"new\n").unwrap();
        assert_eq!(poll(&mut tail, directory.path()), ["new"]);
    }

    /// Runtime D1, its kind: what an application leaves among its logs.
    #[test]
    fn a_hole_of_terabytes_is_passed_over_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = Tail::from_the_start();
        let mut file = File::create(directory.path().join("sparse.log")).unwrap();
        file.set_len(1 << 42).unwrap();
        assert!(poll(&mut tail, directory.path()).is_empty());
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        file.write_all(b"behind it\n").unwrap();
        // A hole ends with a block, so the line may have some of it in front.
        let lines = poll(&mut tail, directory.path());
        assert_eq!(lines.iter().map(|line| line.trim_start_matches('\0')).collect::<Vec<_>>(), ["behind it"]);
    }

    #[test]
    fn pipes_and_links_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("post_metrics_ipc");
        fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link.log")).unwrap();
        std::fs::create_dir(directory.path().join("folder")).unwrap();
        std::fs::write(directory.path().join("app.log"), b"mine\n").unwrap();
        assert_eq!(poll(&mut Tail::from_the_start(), directory.path()), ["mine"]);
    }
}

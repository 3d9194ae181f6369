//! Files for the secure world's storage: what is in them is encrypted and authenticated there.

use belvedere_tee::Code;
use rustix::fs::{Mode, OFlags, RenameFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the secure world asks of files. What a write, truncation, creation, removal or renaming did is durable when it returns:
/// OP-TEE counts on the order of them.
pub trait Files {
    /// Opens a file; with `create`, makes it, or empties it.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`] where none is.
    fn open(&mut self, name: &str, create: bool) -> Result<u32, Code>;
    /// Forgets a handle.
    fn close(&mut self, handle: u32);
    /// Reads from a place on, as far as there is something; gives how many bytes came.
    ///
    /// # Errors
    /// When the medium fails, or there is no such handle.
    fn read(&mut self, handle: u32, offset: u64, into: &mut [u8]) -> Result<usize, Code>;
    /// Writes all of it.
    ///
    /// # Errors
    /// As reading.
    fn write(&mut self, handle: u32, offset: u64, bytes: &[u8]) -> Result<(), Code>;
    /// Sets the length.
    ///
    /// # Errors
    /// As reading.
    fn truncate(&mut self, handle: u32, length: u64) -> Result<(), Code>;
    /// Removes a file.
    ///
    /// # Errors
    /// As opening.
    fn remove(&mut self, name: &str) -> Result<(), Code>;
    /// Gives a file another name.
    ///
    /// # Errors
    /// As opening; also when there is a file of the new name, and it is not to be replaced.
    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<(), Code>;
}

/// No files at all.
#[derive(Debug)]
pub struct Nothing;

impl Files for Nothing {
    fn open(&mut self, _: &str, _: bool) -> Result<u32, Code> {
        Err(Code::NOT_FOUND)
    }

    fn close(&mut self, _: u32) {}

    fn read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<usize, Code> {
        Err(Code::NOT_FOUND)
    }

    fn write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), Code> {
        Err(Code::NOT_FOUND)
    }

    fn truncate(&mut self, _: u32, _: u64) -> Result<(), Code> {
        Err(Code::NOT_FOUND)
    }

    fn remove(&mut self, _: &str) -> Result<(), Code> {
        Err(Code::NOT_FOUND)
    }

    fn rename(&mut self, _: &str, _: &str, _: bool) -> Result<(), Code> {
        Err(Code::NOT_FOUND)
    }
}

/// Files of which nothing is changed before somebody says so.
///
/// OP-TEE deletes what it cannot decrypt. A disk that is put into another board for once would lose what its own board keeps on
/// it; so whoever serves a storage that is in use waits with this until OP-TEE has read it.
#[derive(Debug)]
pub struct Protected<F> {
    files: F,
    writable: Arc<AtomicBool>,
    keeps_directory: bool,
}

/// The file in which OP-TEE keeps what other files there are. It deletes it after any error, and never when all is well.
const DIRECTORY: &str = "dirf.db";

impl<F: Files> Protected<F> {
    /// These files; `writable` says whether they may be changed, now and later. With `in_use` the directory among them is never
    /// removed.
    pub fn new(files: F, writable: Arc<AtomicBool>, in_use: bool) -> Self {
        Self { files, writable, keeps_directory: in_use }
    }

    fn may_change(&self) -> Result<(), Code> {
        if self.writable.load(Ordering::Acquire) { Ok(()) } else { Err(Code::ACCESS_DENIED) }
    }
}

impl<F: Files> Files for Protected<F> {
    fn open(&mut self, name: &str, create: bool) -> Result<u32, Code> {
        if create {
            self.may_change()?;
        }
        self.files.open(name, create)
    }

    fn close(&mut self, handle: u32) {
        self.files.close(handle);
    }

    fn read(&mut self, handle: u32, offset: u64, into: &mut [u8]) -> Result<usize, Code> {
        self.files.read(handle, offset, into)
    }

    fn write(&mut self, handle: u32, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        self.may_change().and_then(|()| self.files.write(handle, offset, bytes))
    }

    fn truncate(&mut self, handle: u32, length: u64) -> Result<(), Code> {
        self.may_change().and_then(|()| self.files.truncate(handle, length))
    }

    fn remove(&mut self, name: &str) -> Result<(), Code> {
        self.may_change()?;
        if self.keeps_directory && name == DIRECTORY { Err(Code::ACCESS_DENIED) } else { self.files.remove(name) }
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<(), Code> {
        self.may_change().and_then(|()| self.files.rename(from, to, replace))
    }
}

/// Files in a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: BTreeMap<u32, File>,
    next: u32,
}

fn code(error: &io::Error) -> Code {
    if error.kind() == ErrorKind::NotFound { Code::NOT_FOUND } else { Code::GENERIC }
}

impl Directory {
    /// An existing directory, which nobody else uses.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), open: BTreeMap::new(), next: 1 }
    }

    fn file(&self, handle: u32) -> Result<&File, Code> {
        self.open.get(&handle).ok_or(Code::BAD_PARAMETERS)
    }

    /// Makes durable what names there are.
    fn settle(&self) -> Result<(), Code> {
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(|error| code(&error))
    }
}

impl Files for Directory {
    fn open(&mut self, name: &str, create: bool) -> Result<u32, Code> {
        let flags = if create { OFlags::CREATE | OFlags::TRUNC } else { OFlags::empty() };
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.path.join(name), flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|error| code(&error.into()))?);
        if create {
            file.sync_all().map_err(|error| code(&error))?;
            self.settle()?;
        }
        let handle = self.next;
        self.next = handle.checked_add(1).ok_or(Code::OUT_OF_MEMORY)?;
        self.open.insert(handle, file);
        Ok(handle)
    }

    fn close(&mut self, handle: u32) {
        self.open.remove(&handle);
    }

    fn read(&mut self, handle: u32, offset: u64, into: &mut [u8]) -> Result<usize, Code> {
        let file = self.file(handle)?;
        let mut done = 0;
        while done < into.len() {
            match file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(code(&error)),
            }
        }
        Ok(done)
    }

    fn write(&mut self, handle: u32, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let file = self.file(handle)?;
        file.write_all_at(bytes, offset).and_then(|()| file.sync_all()).map_err(|error| code(&error))
    }

    fn truncate(&mut self, handle: u32, length: u64) -> Result<(), Code> {
        let file = self.file(handle)?;
        file.set_len(length).and_then(|()| file.sync_all()).map_err(|error| code(&error))
    }

    fn remove(&mut self, name: &str) -> Result<(), Code> {
        std::fs::remove_file(self.path.join(name)).map_err(|error| code(&error))?;
        self.settle()
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<(), Code> {
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let (from, to) = (self.path.join(from), self.path.join(to));
        rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags).map_err(|error| code(&error.into()))?;
        self.settle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_files_are_read_and_not_changed_until_somebody_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut plain = Directory::new(directory.path());
        let handle = plain.open("dirf.db", true).unwrap();
        plain.write(handle, 0, b"what is kept").unwrap();
        let writable = Arc::new(AtomicBool::new(false));
        let mut files = Protected::new(Directory::new(directory.path()), Arc::clone(&writable), true);
        let handle = files.open("dirf.db", false).unwrap();
        let mut bytes = [0; 12];
        let mut denied = |files: &mut Protected<Directory>| {
            [
                files.open("dirf.db", true).map(drop),
                files.open("new", true).map(drop),
                files.write(handle, 0, b"x"),
                files.truncate(handle, 0),
                files.rename("dirf.db", "other", true),
                files.remove("dirf.db"),
            ]
        };
        assert_eq!(denied(&mut files), [Err(Code::ACCESS_DENIED); 6]);
        assert_eq!((files.read(handle, 0, &mut bytes), &bytes), (Ok(12), b"what is kept"));
        writable.store(true, Ordering::Release);
        assert_eq!(files.remove("dirf.db"), Err(Code::ACCESS_DENIED), "it is in use");
        assert!(denied(&mut files)[1..5].iter().all(Result::is_ok));
    }
}

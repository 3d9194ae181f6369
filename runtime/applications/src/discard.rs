//! Removes directories that applications have filled. Whatever is in them, removing it costs bounded memory, stack and
//! descriptors, and nobody waits for it.
//!
//! A directory is *taken* by one rename into `discarded/`; whoever took it goes on at once. A thread then empties
//! `discarded/`. It never walks down: a directory that is not empty is moved up, directly into `discarded/`, and emptied
//! there. So a tree of any depth needs two descriptors and no recursion (`std::fs::remove_dir_all` descends by recursion
//! and overflows its stack at some 15,000 levels; a stack overflow ends the process), and what is left to do is always
//! written on the disk: after a power cut at any moment the next start goes on.
//!
//! Names are bytes to us, and only names relative to an open directory are used, so neither odd names nor long paths
//! matter. Links are removed, not followed; sockets, pipes and devices are names like any other. What cannot be removed
//! (a mount point, a file marked immutable) is left, said, and tried again later.

use rustix::fs::{self, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Directories remembered as the next ones to empty; others are found again by reading `discarded/`.
const REMEMBERED: usize = 1_024;
/// What could not be removed is tried again after so long.
const PAUSE: Duration = Duration::from_secs(60);

/// The place where discarded directories wait.
#[derive(Debug)]
pub struct Discard {
    directory: PathBuf,
    next: AtomicU64,
    waiting: Mutex<bool>,
    bell: Condvar,
}

/// What one attempt to empty the place came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emptied {
    /// Nothing is left.
    Whole,
    /// It was asked to end.
    Interrupted,
    /// The rest cannot be removed now.
    Left {
        /// The first reason.
        problem: String,
    },
}

impl Discard {
    /// In `state`, which must be on the file system of everything that is taken.
    pub fn new(state: &Path) -> Discard {
        Discard {
            directory: state.join("discarded"),
            // Names of an earlier run may be there; a taken name is skipped.
            next: AtomicU64::new(0),
            waiting: Mutex::new(true),
            bell: Condvar::new(),
        }
    }

    /// Takes what is at `path` out of the way. Nothing there is good too.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let top = self.open()?;
        self.move_up(
            &fs::openat(CWD, parent(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?,
            &name(path)?,
            &top,
        )?;
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
        Ok(())
    }

    /// Empties the place for as long as `go_on` says; to be called by a thread that has nothing else to do.
    pub fn run(&self, go_on: &dyn Fn() -> bool) {
        let mut said = String::new();
        while go_on() {
            *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = false;
            let again = match self.empty(go_on) {
                Ok(Emptied::Interrupted) => return,
                Ok(Emptied::Whole) => None,
                Ok(Emptied::Left { problem }) => Some(problem),
                Err(error) => Some(format!("{}: {error}", self.directory.display())),
            };
            if let Some(problem) = &again
                && *problem != said
            {
                log::warn!("what was discarded is not removed yet: {problem}");
            }
            let pause = if again.is_some() { PAUSE } else { Duration::from_secs(3_600) };
            said = again.unwrap_or_default();
            let guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.bell.wait_timeout_while(guard, pause, |waiting| !*waiting));
        }
    }

    /// Empties the place.
    pub fn empty(&self, go_on: &dyn Fn() -> bool) -> io::Result<Emptied> {
        let top = self.open()?;
        loop {
            let (mut done, mut left, mut problem) = (0_u64, 0_u64, None);
            for entry in Dir::read_from(&top)? {
                let entry = entry?;
                if is_itself_or_parent(entry.file_name()) {
                    continue;
                }
                // Depth first, so that `discarded/` itself stays small: what is moved up out of this one comes next.
                let mut next = vec![entry.file_name().to_owned()];
                while let Some(name) = next.pop() {
                    if !go_on() {
                        return Ok(Emptied::Interrupted);
                    }
                    let one = self.one(&top, &name, &mut next);
                    done += one.done;
                    left += u64::from(one.problem.is_some());
                    problem = problem.or(one.problem);
                }
            }
            match (left, problem) {
                (0, _) if done == 0 => return Ok(Emptied::Whole),
                // Nothing went and nothing moved in this round: it will not in the next one.
                (_, Some(problem)) if done == 0 => return Ok(Emptied::Left { problem }),
                _ => {}
            }
        }
    }

    /// Removes one entry of the place, or what can be removed in it.
    fn one(&self, top: &OwnedFd, name: &CString, next: &mut Vec<CString>) -> One {
        let failed = |what: &str, error: Errno| One { done: 0, problem: Some(format!("{what} {name:?}: {error}")) };
        match remove(top, name) {
            Ok(()) => return One { done: 1, problem: None },
            Err(Errno::NOENT) => return One { done: 0, problem: None },
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return failed("remove", error),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match fs::openat(top, name, flags, Mode::empty()) {
            // Without root its own mode may keep us out; it is ours.
            Err(Errno::ACCESS) => fs::chmodat(top, name, Mode::RWXU, AtFlags::empty())
                .and_then(|()| fs::openat(top, name, flags, Mode::empty())),
            other => other,
        };
        let directory = match directory {
            Ok(directory) => directory,
            Err(error) => return failed("open", error),
        };
        let entries = match Dir::read_from(&directory) {
            Ok(entries) => entries,
            Err(error) => return failed("read", error),
        };
        let mut one = One { done: 0, problem: None };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    one.problem.get_or_insert(format!("read {name:?}: {error}"));
                    break;
                }
            };
            let inner = entry.file_name();
            if is_itself_or_parent(inner) {
                continue;
            }
            match remove(&directory, inner) {
                Ok(()) => one.done += 1,
                Err(Errno::NOTEMPTY | Errno::EXIST) => match self.move_up(&directory, inner, top) {
                    Ok(moved) => {
                        one.done += 1;
                        if next.len() < REMEMBERED {
                            next.push(moved);
                        }
                    }
                    // Such as a full disk, on which `discarded/` cannot grow: what goes now makes room for the rest.
                    Err(error) => drop(one.problem.get_or_insert(format!("move up {inner:?}: {error}"))),
                },
                Err(Errno::NOENT) => {}
                Err(error) => drop(one.problem.get_or_insert(format!("remove {inner:?}: {error}"))),
            }
        }
        // Empty now, unless something was left or moved in at this moment; then the next round comes to it.
        one.done += u64::from(fs::unlinkat(top, name, AtFlags::REMOVEDIR).is_ok());
        one
    }

    /// Moves an entry of `directory` into the place, under a name that nothing has; the name.
    fn move_up(&self, directory: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd) -> Result<CString, Errno> {
        loop {
            let new = CString::new(self.next.fetch_add(1, Ordering::Relaxed).to_string()).map_err(|_| Errno::INVAL)?;
            match fs::renameat_with(directory, name, top, &new, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(new),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        match fs::mkdir(&self.directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(CWD, &self.directory, flags, Mode::empty())?)
    }
}

/// What became of one entry.
struct One {
    /// Names that went or moved.
    done: u64,
    problem: Option<String>,
}

/// Removes a name, whatever it is; a directory that is not empty stays.
fn remove(directory: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Errno> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            // Neither this nor that: it is no directory, and what the first attempt said counts.
            Err(Errno::NOTDIR) => Err(Errno::PERM),
            other => other,
        },
        other => other,
    }
}

fn is_itself_or_parent(name: &std::ffi::CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name(path: &Path) -> io::Result<CString> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name)).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
#[path = "discard_tests.rs"]
mod tests;

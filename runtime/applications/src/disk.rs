//! How much room the disk has, and which application has taken the most of it.

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Names looked at in one application's directory.
pub const NAMES: u64 = 200_000;
/// Bytes of names of directories that wait to be looked into.
const WAITING: usize = 8 << 20;

/// Room on a file system, without what is kept for the appliance itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes of the whole.
    pub total: u64,
    /// Files that can still be made.
    pub free_files: u64,
    /// Files of the whole; 0 where there is no such limit.
    pub files: u64,
}

impl Space {
    /// Of the file system that holds `path`.
    pub fn of(path: &Path) -> io::Result<Space> {
        let found = fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space {
            free: bytes(found.f_bavail),
            total: bytes(found.f_blocks),
            free_files: found.f_favail,
            files: found.f_files,
        })
    }

    /// Whether people should be told: less than a fiftieth is left (of a large disk: less than half a gigabyte).
    pub fn is_short(&self) -> bool {
        self.free < (self.total / 50).min(512 << 20) || (self.files > 0 && self.free_files < self.files / 50)
    }
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the medium; holes in files take none.
    pub bytes: u64,
    /// Names.
    pub files: u64,
    /// Whether all of it was looked at.
    pub whole: bool,
}

/// An application that has taken more of a full disk than any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What is left.
    pub space: Space,
    /// Which, and how much it has; `None` when no application has much.
    pub largest: Option<(String, Usage)>,
}

impl Shortage {
    /// A sentence for whoever is in need of room.
    pub fn words(&self) -> String {
        let free = size(self.space.free);
        match &self.largest {
            Some((id, usage)) => {
                let least = if usage.whole { "" } else { "at least " };
                format!("the appliance's disk is full ({free} free); {id} uses {least}{}", size(usage.bytes))
            }
            None => format!("the appliance's disk is full ({free} free)"),
        }
    }

    /// A sentence for the application that fills the disk.
    pub fn blame(&self, id: &str) -> Option<String> {
        let (largest, usage) = self.largest.as_ref()?;
        (largest == id).then(|| {
            format!(
                "this application fills the appliance's disk: it uses {} in {} files, {} of {} are free; remove files from \
                 /opt/aws/panorama/storage or remove the application",
                size(usage.bytes),
                usage.files,
                size(self.space.free),
                size(self.space.total)
            )
        })
    }
}

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// Adds up what is below `directory`, which an application filled and may be changing at this moment: no recursion, two
/// descriptors, at most `names` names; other file systems are left out.
pub fn usage(directory: &Path, names: u64) -> io::Result<Usage> {
    let mut usage = Usage { whole: true, ..Usage::default() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = fs::openat(CWD, directory, flags, Mode::empty())?;
    let device = fs::fstat(&here)?.st_dev;
    let mut waiting = 0;
    let mut levels = vec![look(&here, &mut usage, names, &mut waiting)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.inner.pop() {
            waiting -= name.as_bytes().len();
            let Ok(inner) = fs::openat(&here, &name, flags, Mode::empty()) else { continue };
            if fs::fstat(&inner)?.st_dev == device {
                levels.push(look(&inner, &mut usage, names, &mut waiting)?);
                here = inner;
            }
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        here = fs::openat(&here, c"..", flags, Mode::empty())?;
        if fs::fstat(&here)?.st_ino != above.inode {
            // Moved elsewhere while we were in it: the way back is lost.
            usage.whole = false;
            break;
        }
    }
    Ok(usage)
}

struct Level {
    inode: u64,
    /// Directories to look into.
    inner: Vec<CString>,
}

fn look(directory: &OwnedFd, usage: &mut Usage, names: u64, waiting: &mut usize) -> Result<Level, Errno> {
    let mut level = Level { inode: fs::fstat(directory)?.st_ino, inner: Vec::new() };
    for entry in Dir::read_from(directory)? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if usage.files >= names {
            usage.whole = false;
            break;
        }
        usage.files += 1;
        let Ok(found) = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        usage.bytes = usage.bytes.saturating_add((found.st_blocks as u64).saturating_mul(512));
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            if *waiting + name.to_bytes().len() > WAITING {
                usage.whole = false;
                continue;
            }
            *waiting += name.to_bytes().len();
            level.inner.push(name.to_owned());
        }
    }
    Ok(level)
}

/// Whether the kernel says that the disk has no room, rather than that something is wrong.
pub fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
    full.contains(&of_the_kernel(error))
}

/// The kernel's number inside an error that libraries have wrapped: then the disk failed, and not what is on it.
pub fn of_the_kernel(error: &io::Error) -> Option<i32> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        let inner = error.downcast_ref::<io::Error>();
        if let Some(number) = inner.and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        // An error made of another one shows that one's source as its own, and not itself.
        at = inner.and_then(io::Error::get_ref).map(|inner| inner as _).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_blocks_and_survives_any_depth() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(directory.path().join("file"), vec![1; 100_000]).unwrap();
        std::fs::File::create(directory.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("link")).unwrap();
        let mut here = fs::openat(CWD, directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..3_000 {
            fs::mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = fs::openat(&here, c"d", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        let file = fs::openat(&here, c"deep", OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(file), &vec![1; 100_000]).unwrap();
        let found = usage(directory.path(), NAMES).unwrap();
        assert_eq!((found.files, found.whole), (3_004, true));
        assert!((200_000..40_000_000).contains(&found.bytes), "{found:?}");
        let some = usage(directory.path(), 100).unwrap();
        assert_eq!((some.files, some.whole), (100, false));
        // Too deep for std's own removal on a small stack.
        let discard = crate::discard::Discard::new(directory.path());
        discard.take(&directory.path().join("d")).unwrap();
        discard.empty(&|| true).unwrap();
    }

    #[test]
    fn who_fills_the_disk_is_named() {
        let space = Space { free: 0, total: 7_000_000_000, free_files: 9, files: 0 };
        assert!(space.is_short());
        assert!(!Space { free: 6_000_000_000, ..space }.is_short());
        assert!(Space { free: 6_000_000_000, files: 1_000, ..space }.is_short(), "no more files can be made");
        let usage = Usage { bytes: 6_930_000_000, files: 3, whole: true };
        let shortage = Shortage { space, largest: Some(("applicationInstance-a".into(), usage)) };
        assert_eq!(shortage.words(), "the appliance's disk is full (0 bytes free); applicationInstance-a uses 6.9 GB");
        assert!(shortage.blame("applicationInstance-a").unwrap().contains("it uses 6.9 GB in 3 files, 0 bytes of 7.0 GB"));
        assert_eq!(shortage.blame("applicationInstance-b"), None);
    }

    #[test]
    fn a_full_disk_is_known_through_wrappings() {
        let full = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        assert!(is_full(&full()));
        assert!(is_full(&io::Error::new(io::ErrorKind::Other, full())));
        assert!(!is_full(&io::Error::other("no space left on device")));
        assert_eq!(of_the_kernel(&io::Error::new(io::ErrorKind::InvalidData, "damaged")), None);
    }
}

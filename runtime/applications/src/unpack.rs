//! Unpacks a container's root file system: a gzip-compressed tar archive, as `docker export | gzip` makes it.
//!
//! The archive is hostile. Every path is resolved *inside* the target directory by the kernel (`openat2`,
//! `RESOLVE_IN_ROOT`), so no name and no symbolic link leads out of it; devices are left out; sizes, entries and depth
//! are bounded; users are moved into the container's range.

use crate::disk;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// How much is unpacked at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sum of all files, bytes.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// Directories above a file.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 16 << 30, entries: 1_000_000, depth: 128 }
    }
}

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy)]
pub enum Owners {
    /// The archive's users, each moved up by `first`, of whom there are `count`. Needs root.
    Moved {
        /// Host user of the container's root.
        first: u32,
        /// How many users.
        count: u32,
    },
    /// The process itself; for tests without root.
    Mine,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of files.
    pub bytes: u64,
    /// Entries made.
    pub entries: u64,
    /// Devices and sockets that were left out.
    pub left_out: u64,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not a gzip-compressed tar archive, or damaged.
    #[error("read the archive: {0}")]
    Read(#[source] io::Error),
    /// A name that a root file system cannot have.
    #[error("{path:?} is not a path inside the root file system")]
    Path {
        /// As the archive writes it.
        path: PathBuf,
    },
    /// Larger than the limits allow.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// Such as `bytes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A user outside the container's range.
    #[error("{path:?} belongs to user {user}:{group}, beyond the {count} that a container has")]
    Owner {
        /// As the archive writes it.
        path: PathBuf,
        /// User.
        user: u64,
        /// Group.
        group: u64,
        /// Users that a container has.
        count: u32,
    },
    /// The archive's file could not be read from the disk, or its reader was asked to end.
    #[error("read the archive's file: {0}")]
    Source(#[source] io::Error),
    /// The file system refused.
    #[error("{operation} {path:?}: {source}")]
    Write {
        /// What was tried.
        operation: &'static str,
        /// As the archive writes it.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
}

impl UnpackError {
    /// Reading failed: because of the disk, or of what is on it.
    fn read(error: io::Error) -> UnpackError {
        match disk::of_the_kernel(&error) {
            Some(_) => UnpackError::Source(error),
            None => UnpackError::Read(error),
        }
    }

    /// Whether the same archive may be unpacked well another time: what failed is the machine, and not what the archive
    /// says. The running version must not end because of it.
    pub fn may_pass(&self) -> bool {
        match self {
            UnpackError::Source(_) => true,
            UnpackError::Write { source, .. } => matches!(
                *source,
                Errno::NOSPC
                    | Errno::DQUOT
                    | Errno::IO
                    | Errno::ROFS
                    | Errno::NOMEM
                    | Errno::NFILE
                    | Errno::MFILE
                    | Errno::AGAIN
                    | Errno::INTR
                    | Errno::BUSY
            ),
            _ => false,
        }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, UnpackError::Write { source: Errno::NOSPC | Errno::DQUOT, .. })
    }
}

/// Unpacks `archive` (gzip-compressed tar) into the empty directory `target`.
pub fn unpack(archive: impl Read, target: &Path, owners: Owners, limits: Limits) -> Result<Unpacked, UnpackError> {
    let root = fs::openat(CWD, target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| UnpackError::Write { operation: "open", path: target.into(), source })?;
    let unpacker = Unpacker { root, owners, limits };
    // A container that may not read its root cannot start, whatever the archive says about `.`.
    unpacker.own(Path::new("."), unpacker.root.as_fd(), ".", 0, 0)?;
    // Bounds what a gzip bomb expands to before tar's own headers are even looked at; padding and headers included.
    let raw_limit = limits.bytes.saturating_add(limits.entries.saturating_mul(2_048));
    let stream = flate2::read::MultiGzDecoder::new(archive).take(raw_limit);
    let mut tar = tar::Archive::new(stream);
    tar.set_ignore_zeros(false);
    let mut done = Unpacked::default();
    for entry in tar.entries().map_err(UnpackError::read)? {
        let mut entry = entry.map_err(UnpackError::read)?;
        if done.entries + done.left_out >= limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.entries });
        }
        unpacker.entry(&mut entry, &mut done)?;
    }
    // To the end, so that gzip's checksum is looked at.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(UnpackError::read)?;
    if done.entries == 0 {
        return Err(UnpackError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is empty")));
    }
    Ok(done)
}

struct Unpacker {
    root: OwnedFd,
    owners: Owners,
    limits: Limits,
}

impl Unpacker {
    fn entry<R: Read>(&self, entry: &mut tar::Entry<'_, R>, done: &mut Unpacked) -> Result<(), UnpackError> {
        let path = entry.path().map_err(UnpackError::read)?.into_owned();
        let clean = self.clean(&path)?;
        let fail = |operation: &'static str| {
            let path = path.clone();
            move |source: Errno| UnpackError::Write { operation, path, source }
        };
        let header = entry.header();
        let kind = header.entry_type();
        let mode = header.mode().map_err(UnpackError::read)? & 0o7777;
        let (user, group) = (header.uid().map_err(UnpackError::read)?, header.gid().map_err(UnpackError::read)?);
        let seconds = header.mtime().unwrap_or(0).min(i64::MAX as u64) as i64;
        let Some(name) = clean.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            // The root itself: owner and mode are set already.
            return Ok(());
        };
        let parent = self.parent(&clean).map_err(fail("make the directory of"))?;
        match kind {
            EntryType::Directory => {
                match fs::mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o700)) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        let there =
                            fs::statat(&parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail("look at"))?;
                        if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                            fs::unlinkat(&parent, name.as_str(), AtFlags::empty()).map_err(fail("replace"))?;
                            fs::mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o700)).map_err(fail("make"))?;
                        }
                    }
                    Err(error) => return Err(fail("make")(error)),
                }
                self.own(&path, parent.as_fd(), &name, user, group)?;
                fs::chmodat(&parent, name.as_str(), Mode::from_raw_mode(mode), AtFlags::empty())
                    .map_err(fail("set the mode of"))?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(parent.as_fd(), &name).map_err(fail("replace"))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = fs::openat(&parent, name.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(fail("make"))?;
                let mut file = File::from(file);
                let room = self.limits.bytes - done.bytes;
                if entry.size() > room {
                    return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
                }
                let written = copy(&mut entry.take(room + 1), &mut file, &path)?;
                done.bytes += written;
                if written > room {
                    return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
                }
                self.own(&path, parent.as_fd(), &name, user, group)?;
                fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(fail("set the mode of"))?;
                // Python compares a source's time with what its compiled form remembers.
                let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })
                    .map_err(fail("set the time of"))?;
            }
            EntryType::Symlink => {
                let Some(to) = entry.link_name().map_err(UnpackError::read)? else { return Err(UnpackError::Path { path }) };
                clear(parent.as_fd(), &name).map_err(fail("replace"))?;
                // Where it leads is the container's own business: it is followed inside the container only.
                fs::symlinkat(to.as_ref(), &parent, name.as_str()).map_err(fail("make"))?;
                self.own(&path, parent.as_fd(), &name, user, group)?;
            }
            EntryType::Link => {
                let Some(to) = entry.link_name().map_err(UnpackError::read)? else { return Err(UnpackError::Path { path }) };
                let to = self.clean(&to)?;
                let Some(old) = to.file_name().and_then(|name| name.to_str()) else {
                    return Err(UnpackError::Path { path });
                };
                let from = self.parent(&to).map_err(fail("find what is linked by"))?;
                let there = fs::statat(&from, old, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("find what is linked by"))?;
                if !matches!(FileType::from_raw_mode(there.st_mode), FileType::RegularFile | FileType::Symlink) {
                    return Err(UnpackError::Path { path });
                }
                // A link to itself must not remove it.
                if to != clean {
                    clear(parent.as_fd(), &name).map_err(fail("replace"))?;
                    fs::linkat(&from, old, &parent, name.as_str(), AtFlags::empty()).map_err(fail("link"))?;
                }
            }
            // The container gets its devices from the runtime.
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                done.left_out += 1;
                return Ok(());
            }
            // Extended headers of a kind that the tar crate does not apply by itself: nothing to make.
            _ => {
                done.left_out += 1;
                return Ok(());
            }
        }
        done.entries += 1;
        Ok(())
    }

    /// A relative path of plain names.
    fn clean(&self, path: &Path) -> Result<PathBuf, UnpackError> {
        let refused = || UnpackError::Path { path: path.to_owned() };
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) if name.len() <= 255 && name.to_str().is_some() => clean.push(name),
                _ => return Err(refused()),
            }
        }
        if clean.components().count() > self.limits.depth || clean.as_os_str().len() > 4_095 {
            return Err(refused());
        }
        Ok(clean)
    }

    /// Opens the directory that holds `path`, making what is missing.
    fn parent(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.inside(parent) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        // Archives name directories before what is in them; some leave them out.
        let mut so_far = PathBuf::new();
        for component in parent.components() {
            let above = self.inside(&so_far)?;
            so_far.push(component);
            let Some(name) = component.as_os_str().to_str() else { return Err(Errno::INVAL) };
            match fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    if let Owners::Moved { first, .. } = self.owners {
                        chown(above.as_fd(), name, first, first)?;
                    }
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        self.inside(parent)
    }

    /// Opens a directory, links resolved as if the target were `/`.
    fn inside(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed at the same moment; nobody but us writes here, so try again a few times.
        for _ in 0..8 {
            match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    fn own(&self, path: &Path, directory: BorrowedFd<'_>, name: &str, user: u64, group: u64) -> Result<(), UnpackError> {
        let Owners::Moved { first, count } = self.owners else { return Ok(()) };
        if user >= u64::from(count) || group >= u64::from(count) {
            return Err(UnpackError::Owner { path: path.to_owned(), user, group, count });
        }
        chown(directory, name, first + user as u32, first + group as u32).map_err(|source| UnpackError::Write {
            operation: "set the owner of",
            path: path.to_owned(),
            source,
        })
    }
}

fn chown(directory: BorrowedFd<'_>, name: &str, user: u32, group: u32) -> Result<(), Errno> {
    let (user, group) = (fs::Uid::from_raw(user), fs::Gid::from_raw(group));
    fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}

/// As `io::copy`, but says which of the two failed: a disk that is full is not an archive that is damaged.
fn copy(from: &mut impl Read, to: &mut File, path: &Path) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::read(error)),
        };
        to.write_all(&buffer[..count]).map_err(|error| UnpackError::Write {
            operation: "write",
            path: path.to_owned(),
            source: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error),
        })?;
        written += count as u64;
    }
}

/// Makes room for a file: what an earlier entry of that name made goes away; directories stay.
fn clear(directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    type Item<'a> = (EntryType, &'a str, &'a str, u32);

    fn archive(items: &[Item]) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (kind, path, content, mode) in items {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_600_000_000);
            // Raw, since the library refuses to write what an attacker writes.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let data = if link { "" } else { content };
            if link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(items: &[Item]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir(target.path().join("root")).unwrap();
        let result = unpack(&archive(items)[..], &target.path().join("root"), Owners::Mine, Limits::default());
        (target, result)
    }

    const FILE: EntryType = EntryType::Regular;
    const DIRECTORY: EntryType = EntryType::Directory;
    const SYMLINK: EntryType = EntryType::Symlink;
    const LINK: EntryType = EntryType::Link;

    #[test]
    fn a_root_file_system_is_unpacked() {
        let (target, result) = unpacked(&[
            (DIRECTORY, "usr/", "", 0o755),
            (DIRECTORY, "usr/bin/", "", 0o555),
            (FILE, "./usr/bin/python3", "program", 0o755),
            (SYMLINK, "bin", "usr/bin", 0o777),
            (FILE, "bin/through-a-link", "x", 0o644),
            (LINK, "usr/bin/python", "usr/bin/python3", 0o755),
            (FILE, "missing/parents/made", "x", 0o600),
            (EntryType::Char, "dev/null", "", 0o666),
        ]);
        assert_eq!(result.unwrap(), Unpacked { bytes: 9, entries: 7, left_out: 1 });
        let root = target.path().join("root");
        assert_eq!(std::fs::read(root.join("usr/bin/python")).unwrap(), b"program");
        let program = std::fs::metadata(root.join("usr/bin/python3")).unwrap();
        assert_eq!((program.permissions().mode() & 0o7777, program.mtime(), program.nlink()), (0o755, 1_600_000_000, 2));
        assert!(root.join("usr/bin/through-a-link").exists());
        assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    }

    #[test]
    fn nothing_is_written_outside() {
        for items in [
            &[(FILE, "../escape", "x", 0o644)][..],
            &[(FILE, "a/../../escape", "x", 0o644)],
            &[(LINK, "here", "../escape", 0o644)],
        ] {
            let (target, result) = unpacked(items);
            assert!(matches!(result, Err(UnpackError::Path { .. })), "{result:?}");
            assert!(!target.path().join("escape").exists());
        }
        // Links that lead out are made, and lead nowhere but inside.
        let (target, result) = unpacked(&[
            (SYMLINK, "up", "../..", 0o777),
            (FILE, "up/escape", "x", 0o644),
            (SYMLINK, "etc", "/", 0o777),
            (FILE, "etc/escape2", "x", 0o644),
            (SYMLINK, "file", "/escape3", 0o777),
            (FILE, "file", "x", 0o644),
        ]);
        result.unwrap();
        for name in ["escape", "escape2", "escape3"] {
            assert!(!target.path().join(name).exists() && !Path::new("/").join(name).exists(), "{name}");
        }
        assert!(target.path().join("root/escape").exists(), "`..` of the root is the root");
        assert!(std::fs::symlink_metadata(target.path().join("root/file")).unwrap().is_file(), "the link was replaced");
    }

    #[test]
    fn a_link_to_a_file_outside_is_refused() {
        let (_target, result) = unpacked(&[(SYMLINK, "out", "/etc", 0o777), (LINK, "stolen", "out/hostname", 0o644)]);
        assert!(matches!(result, Err(UnpackError::Write { .. })), "{result:?}");
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let items: &[Item] = &[(FILE, "a", "12345", 0o644), (FILE, "b", "12345", 0o644)];
        let run = |limits: Limits| {
            let target = tempfile::tempdir().unwrap();
            unpack(&archive(items)[..], target.path(), Owners::Mine, limits)
        };
        let base = Limits { bytes: 10, entries: 2, depth: 1 };
        run(base).unwrap();
        assert!(matches!(run(Limits { bytes: 9, ..base }), Err(UnpackError::Limit { what: "bytes", .. })));
        assert!(matches!(run(Limits { entries: 1, ..base }), Err(UnpackError::Limit { what: "entries", .. })));
        assert!(matches!(run(Limits { depth: 0, ..base }), Err(UnpackError::Path { .. })));
    }

    #[test]
    fn damage_is_an_error_and_never_a_half_success() {
        let whole = archive(&[(FILE, "a", &"x".repeat(5_000), 0o644), (FILE, "b", "y", 0o644)]);
        for length in [0, 1, 10, whole.len() / 2, whole.len() - 9] {
            let target = tempfile::tempdir().unwrap();
            assert!(unpack(&whole[..length], target.path(), Owners::Mine, Limits::default()).is_err(), "{length}");
        }
        let target = tempfile::tempdir().unwrap();
        assert!(unpack(&b"not an archive"[..], target.path(), Owners::Mine, Limits::default()).is_err());
        let mut plain = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        plain.write_all(&vec![7; 2_000]).unwrap();
        assert!(unpack(&plain.finish().unwrap()[..], target.path(), Owners::Mine, Limits::default()).is_err());
    }

    #[test]
    fn owners_are_moved_into_the_containers_range() {
        assert!(rustix::process::geteuid().is_root(), "changing owners is root's: run this test as root");
        let target = tempfile::tempdir().unwrap();
        let owners = Owners::Moved { first: 100_000, count: 65_536 };
        unpack(&archive(&[(FILE, "d/a", "x", 0o4755)])[..], target.path(), owners, Limits::default()).unwrap();
        for (path, mode) in [(".", None), ("d", Some(0o755)), ("d/a", Some(0o4755))] {
            let found = std::fs::metadata(target.path().join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()), (100_000, 100_000), "{path}");
            assert!(mode.is_none_or(|mode| found.mode() & 0o7777 == mode), "{path} {:o}", found.mode());
        }
        let one = Owners::Moved { first: 100_000, count: 0 };
        assert!(matches!(
            unpack(&archive(&[(FILE, "a", "x", 0o644)])[..], target.path(), one, Limits::default()),
            Err(UnpackError::Owner { .. })
        ));
    }

    /// Runtime D9: an archive that did not fit on the disk was called damaged, and never tried again.
    #[test]
    fn a_full_disk_is_not_a_damaged_archive() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let many: Vec<(EntryType, String, &str, u32)> =
            (0..200).map(|i| (DIRECTORY, format!("directory-{i}"), "", 0o755)).collect();
        let many: Vec<Item> =
            many.iter().map(|(kind, path, content, mode)| (*kind, path.as_str(), *content, *mode)).collect();
        let large = "x".repeat(300_000);
        // A file that does not fit, and names that do not fit.
        for (size, items) in [("size=100k", vec![(FILE, "a", large.as_str(), 0o644)]), ("nr_inodes=50", many)] {
            let target = tempfile::tempdir().unwrap();
            rustix::mount::mount(
                "none",
                target.path(),
                "tmpfs",
                rustix::mount::MountFlags::empty(),
                Some(std::ffi::CString::new(size).unwrap().as_c_str()),
            )
            .unwrap();
            let result = unpack(&archive(&items)[..], target.path(), Owners::Mine, Limits::default());
            rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
            let error = result.unwrap_err();
            assert!(error.is_full() && error.may_pass(), "{size}: {error}");
        }
        // And what the archive is stays what it is.
        let damaged = unpack(&b"not an archive"[..], tempfile::tempdir().unwrap().path(), Owners::Mine, Limits::default());
        assert!(!damaged.unwrap_err().may_pass());
        let gone = std::io::Error::from_raw_os_error(Errno::IO.raw_os_error());
        assert!(UnpackError::read(std::io::Error::new(std::io::ErrorKind::Other, gone)).may_pass());
    }
}

//! The `data` partition: everything that changes.
//!
//! An ext4 file system on a device: the partition itself, or the LUKS2 volume that was opened on it
//! ([`crypt`](crate::crypt)). A new volume begins and ends with zeros, so it is blank here, and everything below holds for
//! it too.
//!
//! # First formatting, and what a power cut after each step leaves
//!
//! The last [`RESERVED`] bytes of the partition are not the file system's; they hold a record of one sector,
//! in a block of its own.
//! 1. record `formatting` — the next start formats again; nobody can have stored anything yet
//! 2. `mke2fs`, which flushes before it ends — the same
//! 3. record `formatted` — from here on the partition is never formatted again
//! 4. mount
//!
//! A record in a bad block may have been any: nothing is formatted then. One that was torn or lost is read as none: then a
//! blank partition is formatted, which is right when the first step was torn; and an ext4 file system that is ours by its label is checked
//! and gets its record again: it is empty when the third step was torn, and years of work when a bad sector took the
//! record. A label proves no more than a record does, but no less either. Any other ext4 was there before the
//! appliance, and is not taken over with whatever identity is in it.

use crate::partitions::Device;
use crate::program::{Ended, Program, last_line};
use crate::{StorageError, mounts};
use belvedere_durable::{DurableError, read_block, write_block};
use rustix::mount::MountFlags;
use std::path::Path;
use std::time::Duration;

/// Bytes at the end of the partition that are not the file system's.
pub const RESERVED: u64 = 1024 * 1024;
const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const MAGIC: &[u8; 16] = b"belvedere data 1";
/// The file system's label.
const LABEL: &str = "belvedere-data";
/// How much of the start must be zero to be blank; every known file system and volume header begins in it.
const BLANK: usize = 128 * 1024;

/// The record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// None, or a torn one.
    None,
    /// The medium does not give it back: one of the others.
    Unreadable,
    /// Formatting began and did not end.
    Formatting,
    /// Holds the appliance's data.
    Formatted,
}

impl Record {
    /// What is written: a whole block of the encrypted volume. Of a smaller part the kernel would read the rest first, and that
    /// of a bad block fails.
    fn block(self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..SECTOR].copy_from_slice(&self.bytes());
        block
    }

    fn bytes(self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[..16].copy_from_slice(MAGIC);
        let word: &[u8; 16] = match self {
            Record::None | Record::Unreadable => return [0; SECTOR],
            Record::Formatting => b"formatting......",
            Record::Formatted => b"formatted.......",
        };
        sector[16..32].copy_from_slice(word);
        // At the sector's end once more: a torn sector has one of them.
        sector[SECTOR - 16..].copy_from_slice(word);
        sector
    }

    fn parse(sector: &[u8]) -> Record {
        [Record::Formatting, Record::Formatted].into_iter().find(|record| record.bytes() == sector).unwrap_or(Record::None)
    }
}

/// What the start of the partition looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All zero.
    Blank,
    /// An ext4 file system with our label.
    Ext4,
    /// Anything else.
    Unknown,
    /// The medium does not give it back.
    Unreadable,
}

/// Whether there is an ext4 file system, whosever it is: its magic number.
pub fn is_ext4(start: &[u8]) -> bool {
    start.get(0x438..0x43a) == Some(&[0x53, 0xef])
}

impl Content {
    /// Looks at the first bytes (128 KiB, or what there is).
    pub fn of(start: &[u8]) -> Content {
        // The superblock begins at 0x400: magic number at 0x38, label at 0x78, 16 bytes (kernel, ext4/super.rst).
        let ours = start.get(0x478..0x488).and_then(|label| label.strip_prefix(LABEL.as_bytes()));
        if is_ext4(start) && ours.is_some_and(|rest| rest.iter().all(|&byte| byte == 0)) {
            Content::Ext4
        } else if start.iter().all(|&byte| byte == 0) {
            Content::Blank
        } else {
            Content::Unknown
        }
    }
}

/// Whether an ext4 file system wants to be checked before it is mounted, by what `e2fsck -p` itself goes by: its superblock is
/// damaged, the kernel met an error in it, or somebody told it to be checked now and then. A power cut is no reason: the kernel
/// replays the journal when it mounts. So an ordinary start does not wait for a program that finds nothing to do.
pub fn wants_check(start: &[u8]) -> bool {
    // Within the superblock (kernel, ext4/super.rst), little endian: mounts so far 0x34 and at most 0x36, state 0x3a (1: left in
    // good order, 2: errors were met), seconds between checks 0x44, errors so far 0x194.
    let field = |at: usize, length: usize| {
        let bytes = start.get(0x400 + at..0x400 + at + length)?;
        Some(bytes.iter().rev().fold(0u32, |all, &byte| all << 8 | u32::from(byte)))
    };
    const ERRORS: u32 = 2;
    let (Some(mounts), Some(limit), Some(state), Some(interval), Some(errors)) =
        (field(0x34, 2), field(0x36, 2), field(0x3a, 2), field(0x44, 4), field(0x194, 4))
    else {
        return true;
    };
    // The limit is signed: none is 0 or -1.
    let often = (1..0x8000).contains(&limit) && mounts >= limit;
    !is_ext4(start) || state & ERRORS != 0 || errors != 0 || interval != 0 || often
}

/// What to do with the partition before it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Make a file system; there is nothing to lose.
    Format,
    /// Check and use what is there.
    Check,
    /// Leave it alone and say so.
    Foreign,
}

/// Decides without touching anything.
pub fn decide(record: Record, content: Content) -> Decision {
    match (record, content) {
        (Record::Formatting, _) | (Record::None, Content::Blank) => Decision::Format,
        // With the record, even a lost superblock is the repair program's: it finds its copies.
        (Record::Formatted, _) | (Record::None | Record::Unreadable, Content::Ext4) => Decision::Check,
        // It may have said `formatted`, and the zeros may be those of a repair that a power cut ended.
        (Record::Unreadable, Content::Blank) => Decision::Check,
        (Record::None | Record::Unreadable, Content::Unknown | Content::Unreadable) => Decision::Foreign,
    }
}

/// Where the programs are on the root image.
pub const MKE2FS: &str = "/usr/sbin/mke2fs";
/// See [`MKE2FS`].
pub const E2FSCK: &str = "/usr/sbin/e2fsck";

/// How long making the file system may take.
const MAKE_TIME: Duration = Duration::from_secs(10 * 60);
/// How long the careful check may take, which is a full one after some accidents.
const CHECK_TIME: Duration = Duration::from_secs(60 * 60);
/// How long the thorough repair may take: the largest disks with millions of files need hours.
const REPAIR_TIME: Duration = Duration::from_secs(6 * 60 * 60);
/// The longest that [`prepare`] takes, with some minutes for what is around its programs.
pub const LONGEST: Duration = Duration::from_secs(CHECK_TIME.as_secs() + REPAIR_TIME.as_secs() + 5 * 60);

fn record_offset(device: Device<'_>) -> Result<u64, StorageError> {
    device.size.checked_sub(RESERVED).filter(|size| *size >= 16 * RESERVED).ok_or_else(|| StorageError::Io {
        operation: "use",
        object: device.path.display().to_string(),
        source: std::io::Error::other("the partition has less than 17 MiB; write a disk image with a larger one"),
    })
}

/// Makes the file system, or checks it where it [wants to be](wants_check). Returns whether it was made now. `report` gets a
/// line now and then while that takes long.
pub fn prepare<'a>(device: impl Into<Device<'a>>, report: &mut dyn FnMut(&str)) -> Result<bool, StorageError> {
    let device = device.into();
    prepare_reading(device, &|offset, length| read_block(device.path, offset, length), report)
}

type Read<'a> = dyn Fn(u64, usize) -> Result<Vec<u8>, DurableError> + 'a;

/// [`prepare`], with what reads from the device.
fn prepare_reading(device: Device<'_>, read: &Read<'_>, report: &mut dyn FnMut(&str)) -> Result<bool, StorageError> {
    let offset = record_offset(device)?;
    let device = device.path;
    // One bad block is no reason to give up what is in all others.
    let record = read(offset, SECTOR).map_or(Record::Unreadable, |sector| Record::parse(&sector));
    let start = read(0, BLANK);
    let content = start.as_ref().map_or(Content::Unreadable, |start| Content::of(start));
    match (decide(record, content), start) {
        (Decision::Foreign, Err(error)) => Err(error.into()),
        (Decision::Foreign, Ok(_)) => Err(StorageError::Foreign(device.display().to_string())),
        (Decision::Check, start) => {
            match start {
                Ok(start) if wants_check(&start) => check(device, report)?,
                Ok(_) => {}
                Err(error) => {
                    report(&format!("{error}; its bad blocks are written anew, and the file system is repaired"));
                    write_unreadable_anew(device, read, BLANK)?;
                    check(device, report)?;
                }
            }
            // From here on a lost superblock is the repair program's again.
            if record != Record::Formatted
                && let Err(error) = write_block(device, offset, &Record::Formatted.block())
            {
                report(&format!("{error}; the file system is used nevertheless"));
            }
            Ok(false)
        }
        (Decision::Format, _) => {
            write_block(device, offset, &Record::Formatting.block())?;
            // The size is in KiB. Lazy initialisation: the kernel zeroes the inode tables later, in the background.
            let kibibytes = (offset / 1024).to_string();
            let arguments = [
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-m",
                "1",
                "-L",
                LABEL,
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            ];
            let size = format!("{kibibytes}k");
            let make = Program {
                path: MKE2FS,
                name: "mke2fs",
                before: &arguments,
                device,
                behind: &[size.as_str()],
                limit: MAKE_TIME,
            };
            let made = make.run(report)?;
            if made.code != Some(0) {
                return Err(ended("mke2fs", device, &made));
            }
            write_block(device, offset, &Record::Formatted.block())?;
            Ok(true)
        }
    }
}

/// Writes zeros over those blocks of the first `length` bytes that cannot be read: a medium then has others in their place. What
/// lies there in a file system is there more than once, and `e2fsck` looks for it only where something can be read.
fn write_unreadable_anew(device: &Path, read: &Read<'_>, length: usize) -> Result<(), StorageError> {
    for offset in (0..length as u64).step_by(BLOCK) {
        if read(offset, BLOCK).is_err() {
            write_block(device, offset, &[0; BLOCK])?;
        }
    }
    Ok(())
}

/// Checks and repairs what [`prepare`] passed, and [`mount`] then failed on.
pub fn repair<'a>(device: impl Into<Device<'a>>, report: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
    check(device.into().path, report)
}

/// `e2fsck`, first carefully, then thoroughly: nobody is there to answer its questions. `-C 1` makes it print how far
/// it is.
fn check(device: &Path, report: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
    // 0: clean, 1: repaired, 2: repaired and a restart is advised if it is mounted, which it is not.
    let good = |ended: &Ended| ended.code.is_some_and(|code| code < 4);
    let careful =
        Program { path: E2FSCK, name: "e2fsck", before: &["-p", "-C", "1"], device, behind: &[], limit: CHECK_TIME };
    let checked = careful.run(report)?;
    if good(&checked) {
        return Ok(());
    }
    report(&format!("{} needs a thorough repair: {}", device.display(), last_line(&checked.said)));
    let repaired = Program { before: &["-y", "-f", "-C", "1"], limit: REPAIR_TIME, ..careful }.run(report)?;
    if good(&repaired) { Ok(()) } else { Err(ended("e2fsck", device, &repaired)) }
}

fn ended(program: &'static str, device: &Path, ended: &Ended) -> StorageError {
    let code = ended.code.map_or("a signal".to_owned(), |code| code.to_string());
    let outcome = format!("ended with {code}: {}", last_line(&ended.said));
    StorageError::Program { program, device: device.display().to_string(), outcome }
}

/// Who may use the last blocks of the file system, the hundredth that mke2fs keeps (besides holders of CAP_SYS_RESOURCE).
/// Otherwise an application that fills the disk keeps the appliance from writing its own state.
#[derive(Debug, Clone, Copy)]
pub struct Reserve {
    /// A user; ext4 wants one, and takes root where none is named. Containers' own layers are written with root's rights.
    pub user: u32,
    /// A group.
    pub group: u32,
}

/// Mounts the prepared partition. Programs may run from it: the containers' root file systems are there.
pub fn mount<'a>(device: impl Into<Device<'a>>, target: &str, reserve: Reserve) -> Result<(), StorageError> {
    let flags = mounts::PLAIN | MountFlags::NOATIME;
    // A file system with errors must not be written on: the next start repairs it.
    let options = format!("errors=remount-ro,resuid={},resgid={}", reserve.user, reserve.group);
    mounts::mount_new(&device.into().path.display().to_string(), target, "ext4", flags, &options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partitions::Partition;
    use std::process::Command;

    #[test]
    fn only_what_holds_nothing_is_ever_formatted() {
        use {Content::*, Decision::*, Record::None, Record::*};
        assert_eq!(decide(None, Blank), Format);
        assert_eq!(decide(None, Ext4), Check);
        assert_eq!(decide(None, Unknown), Foreign);
        for content in [Blank, Ext4, Unknown, Content::Unreadable] {
            assert_ne!(decide(Record::Unreadable, content), Format);
            assert_eq!(decide(Formatting, content), Format);
            assert_eq!(decide(Formatted, content), Check);
        }
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let whole = Record::Formatted.bytes();
        assert_eq!(Record::parse(&whole), Record::Formatted);
        assert_eq!(Record::parse(&Record::Formatting.bytes()), Record::Formatting);
        assert_eq!(Record::parse(&[0; SECTOR]), Record::None);
        let before = Record::Formatting.bytes();
        for at in 17..SECTOR - 1 {
            let torn: Vec<u8> = whole[..at].iter().chain(&before[at..]).copied().collect();
            let parsed = Record::parse(&torn);
            assert!(parsed != Record::Formatted || torn == whole, "torn at {at}");
        }
    }

    fn partition(size: u64) -> (tempfile::NamedTempFile, Partition) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let device = file.path().to_owned();
        (file, Partition { name: "data".into(), device, size })
    }

    /// With the real programs, where the host has them at the appliance's paths (Debian's e2fsprogs does).
    #[test]
    fn formatting_that_power_cuts_interrupted_is_repeated_and_a_finished_one_never_is() {
        assert!(Path::new(MKE2FS).exists() && Path::new(E2FSCK).exists(), "install e2fsprogs");
        // Large enough for a second group of blocks, which is where the superblock's first copy is. Sparse.
        let size = 256 * 1024 * 1024;
        let (file, partition) = partition(size);
        assert!(prepare(&partition, &mut |_| ()).unwrap());
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
        let start = read_block(file.path(), 0, BLANK).unwrap();
        assert_eq!(Content::of(&start), Content::Ext4);
        // Cut while mke2fs ran: any part of its writes may be missing, such as the superblock.
        write_block(file.path(), size - RESERVED, &Record::Formatting.bytes()).unwrap();
        write_block(file.path(), 1024, &[0x55; 1024]).unwrap();
        assert!(prepare(&partition, &mut |_| ()).unwrap());
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
        // A finished one whose superblock is lost is repaired from a copy, not made anew.
        write_block(file.path(), 1024, &[0; 1024]).unwrap();
        let mut told = Vec::new();
        assert!(!prepare(&partition, &mut |line| told.push(line.to_owned())).unwrap());
        assert!(told.iter().any(|line| line.contains("needs a thorough repair")), "{told:?}");
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
    }

    /// One sector that could not be read kept every slot from starting, for ever: all have the same `data`.
    #[test]
    fn a_bad_block_in_the_record_or_at_the_start_costs_nothing_else() {
        let size = 256 * 1024 * 1024;
        let (file, partition) = partition(size);
        assert!(prepare(&partition, &mut |_| ()).unwrap());
        let told = std::cell::RefCell::new(Vec::new());
        let prepared = |bad: u64| {
            // As long as nothing was written over it.
            let before = read_block(file.path(), bad, BLOCK).unwrap();
            let read = |offset: u64, length: usize| {
                let bytes = read_block(file.path(), offset, length)?;
                let meets = offset <= bad && bad < offset + length as u64;
                if meets && read_block(file.path(), bad, BLOCK)? == before {
                    return Err(DurableError::ReadBack { path: file.path().to_owned() });
                }
                Ok(bytes)
            };
            let mut report = |line: &str| told.borrow_mut().push(line.to_owned());
            prepare_reading(Device::from(&partition), &read, &mut report)
        };
        assert!(!prepared(0).unwrap());
        assert!(told.borrow().iter().any(|line| line.contains("bad blocks")), "{:?}", told.borrow());
        assert_eq!(Content::of(&read_block(file.path(), 0, BLANK).unwrap()), Content::Ext4);
        // Behind the superblock.
        write_block(file.path(), 7 * BLOCK as u64, &[1; BLOCK]).unwrap();
        assert!(!prepared(7 * BLOCK as u64).unwrap());
        // The record reads as it was once it is written again, whole.
        assert!(!prepared(size - RESERVED).unwrap());
        assert_eq!(Record::parse(&read_block(file.path(), size - RESERVED, SECTOR).unwrap()), Record::Formatted);
        // Neither of the two is there.
        write_block(file.path(), size - RESERVED, &[0; SECTOR]).unwrap();
        assert!(prepared(0).is_err());
        assert_eq!(Content::of(&read_block(file.path(), 0, BLANK).unwrap()), Content::Ext4, "touched");
    }

    /// Writes a field of the superblock as the kernel and tune2fs do, its checksum as well.
    fn superblock(file: &tempfile::NamedTempFile, field: &str, value: &str) {
        let request = format!("set_super_value {field} {value}");
        let done = Command::new("/usr/sbin/debugfs").args(["-w", "-R", &request]).arg(file.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    #[test]
    fn a_check_is_wanted_after_errors_and_for_a_lost_superblock_and_not_after_a_power_cut() {
        let (file, partition) = partition(64 * 1024 * 1024);
        assert!(prepare(&partition, &mut |_| ()).unwrap());
        let wants = || wants_check(&read_block(file.path(), 0, BLANK).unwrap());
        assert!(!wants());
        // As it is while it is mounted.
        superblock(&file, "state", "0");
        assert!(!wants());
        for (field, value, back) in
            [("state", "3", "1"), ("error_count", "1", "0"), ("checkinterval", "86400", "0"), ("max_mnt_count", "1", "-1")]
        {
            superblock(&file, "mnt_count", "1");
            superblock(&file, field, value);
            assert!(wants(), "{field} {value}");
            assert!(!prepare(&partition, &mut |_| ()).unwrap());
            superblock(&file, field, back);
            assert!(!wants(), "{field} {back}");
        }
        superblock(&file, "state", "3");
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
        assert!(!wants(), "the check ended it");
        assert!(wants_check(&[0; BLANK]) && wants_check(&[]));
    }

    /// boot L3: the record was never written again, and whatever ext4 was there before the first start was taken over.
    #[test]
    fn a_file_system_whose_record_is_lost_gets_it_again_and_one_that_is_not_ours_is_left_alone() {
        let size = 256 * 1024 * 1024;
        let (file, partition) = partition(size);
        assert!(prepare(&partition, &mut |_| ()).unwrap());
        // Torn between the two records, as by a power cut at step 3.
        let torn: Vec<u8> = [&Record::Formatted.bytes()[..40], &Record::Formatting.bytes()[40..]].concat();
        write_block(file.path(), size - RESERVED, &torn).unwrap();
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
        assert_eq!(Record::parse(&read_block(file.path(), size - RESERVED, SECTOR).unwrap()), Record::Formatted);
        // With its record a lost superblock is no end.
        write_block(file.path(), 1024, &[0; 1024]).unwrap();
        assert!(!prepare(&partition, &mut |_| ()).unwrap());
        // Another system's.
        write_block(file.path(), size - RESERVED, &[0; SECTOR]).unwrap();
        write_block(file.path(), 0x478, b"somebody-else-s\0").unwrap();
        assert!(matches!(prepare(&partition, &mut |_| ()), Err(StorageError::Foreign(_))));
        write_block(file.path(), 0x478, b"belvedere-data-2").unwrap();
        assert!(matches!(prepare(&partition, &mut |_| ()), Err(StorageError::Foreign(_))));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let size = 32 * 1024 * 1024;
        let (file, partition) = partition(size);
        write_block(file.path(), 0, b"LUKS\xba\xbe").unwrap();
        assert!(matches!(prepare(&partition, &mut |_| ()), Err(StorageError::Foreign(_))));
        assert_eq!(read_block(file.path(), 0, 6).unwrap(), b"LUKS\xba\xbe");
        let (_file, small) = self::partition(RESERVED);
        assert!(prepare(&small, &mut |_| ()).is_err());
    }

    /// Tried applications A3: an application filled the disk, and the appliance could not write its own state. With a real
    /// file system, so as root and with a loop device.
    #[test]
    fn the_last_blocks_are_for_the_group_and_not_for_root() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let (file, partition) = partition(64 * 1024 * 1024);
        prepare(&partition, &mut |_| ()).unwrap();
        let losetup = |arguments: &[&str]| {
            let output = Command::new("losetup").args(arguments).output().unwrap();
            assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let device = losetup(&["--find", "--show", file.path().to_str().unwrap()]);
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("data");
        let on = Partition { device: (&device).into(), ..partition };
        mount(&on, target.to_str().unwrap(), Reserve { user: 119, group: 120 }).unwrap();
        // Capabilities and groups are a thread's own.
        let outcome = std::thread::spawn({
            let target = target.clone();
            move || {
                let mut rights = rustix::thread::capabilities(None).unwrap();
                rights.effective.remove(rustix::thread::CapabilitySet::SYS_RESOURCE);
                rustix::thread::set_capabilities(None, rights).unwrap();
                let write = |name: &str, bytes: usize| {
                    let mut file = std::fs::File::create(target.join(name)).unwrap();
                    std::io::Write::write_all(&mut file, &vec![1; bytes]).and_then(|()| file.sync_all())
                };
                // With root's rights, as the kernel writes the layers of containers; then what fits between.
                let filled = (0..64).map(|i| write(&format!("filled-{i}"), 1 << 20)).any(|written| written.is_err());
                let full = (0..64).map(|i| write(&format!("rest-{i}"), 16 << 10)).any(|written| written.is_err());
                let without = write("without", 64 << 10).is_err();
                rustix::thread::set_thread_groups(&[rustix::thread::Gid::from_raw(120)]).unwrap();
                (filled, full, without, write("with", 64 << 10).map_err(|error| error.to_string()))
            }
        })
        .join();
        mounts::unmount(target.to_str().unwrap(), true).unwrap();
        losetup(&["--detach", &device]);
        assert_eq!(outcome.unwrap(), (true, true, true, Ok(())));
    }
}

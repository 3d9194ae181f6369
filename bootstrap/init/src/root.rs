//! Where the root image is: the order in which partitions are tried, and what is done with one.
//!
//! The hash in the signed command line names the image, so wherever it is whole, it is the right one. The same release can
//! be in two places (a required one is kept in `system-minimum` as well), and one of them can be damaged: the partition of
//! the slot that the bootloader started is tried first, the others after it.
//!
//! A proven image is not read whole: dm-verity checks each block when it is read, so the start does not grow with the image.
//! [`Care`] says when it is.

use crate::command_line::CommandLine;
use crate::console::say;
use crate::{PROGRAM, Result, named};
use belvedere_boot_slots::{Reset, Slot};
use belvedere_storage::device_mapper::{self, Corruption};
use belvedere_storage::partitions::Partition;
use belvedere_storage::verity::{self, BLOCK};
use belvedere_storage::{StorageError, mounts};
use rustix::mount::MountFlags;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How much of an image is read before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// What is needed for the start: a proven image.
    Needed,
    /// Every block: an image that is not proven yet, after a wrong block was met while the appliance ran, or when somebody
    /// asked with the buttons for a release to be restored. The fault is found and told before anything of the image runs, and
    /// another partition can make up for it.
    Whole,
}

impl Care {
    /// Decides.
    pub fn of(proven: bool, met_a_wrong_block: bool, reset: Reset) -> Care {
        if proven && !met_a_wrong_block && reset == Reset::None { Care::Needed } else { Care::Whole }
    }
}

/// Where the new root is mounted.
pub const NEW_ROOT: &str = "/root";
/// How much is read at once when the whole image is checked.
const CHUNK_BLOCKS: u64 = 256;

/// The partitions that may hold a root image, in the order in which they are tried: that of the started slot first.
pub fn in_order(found: &[Partition], started: Option<Slot>) -> Vec<Partition> {
    let mut slots: Vec<Slot> = started.into_iter().collect();
    slots.extend(Slot::ALL.into_iter().filter(|slot| Some(*slot) != started));
    // Several of one name: the hash tells them apart, so each is tried.
    let named = slots.iter().flat_map(|slot| found.iter().filter(|partition| partition.name == slot.system()));
    named.cloned().collect()
}

/// The first partition that `open` finds whole, with what it gave; else why each was refused. `lost` is told of each
/// refusal that another partition made up for.
pub fn first_whole<T>(
    candidates: &[Partition],
    mut open: impl FnMut(usize, &Partition) -> Result<T>,
    mut lost: impl FnMut(&str),
) -> Result<(Partition, T)> {
    let mut reasons: Vec<String> = Vec::new();
    for (number, partition) in candidates.iter().enumerate() {
        match open(number, partition) {
            Ok(opened) => {
                reasons.iter().for_each(|reason| lost(reason));
                return Ok((partition.clone(), opened));
            }
            Err(reason) => reasons.push(format!("{}: {reason}", partition.name)),
        }
    }
    Err(reasons.join("; "))
}

/// A verified root image, mounted on [`NEW_ROOT`].
pub struct Opened {
    name: String,
    image: verity::RootImage,
}

/// Opens a partition's image, reads of it what `care` says and mounts it. What is refused leaves nothing behind.
pub fn open(number: usize, partition: &Partition, line: &CommandLine, care: Care) -> Result<Opened> {
    let name = format!("belvedere-root-{number}");
    // While this stage reads, a wrong block is an error that can be told to people.
    let device = verity::open(&name, partition, &line.root, Corruption::Fail).map_err(|error| error.to_string())?;
    let read = match care {
        Care::Needed => Ok(()),
        Care::Whole => read_whole(&device, line.root.data_blocks),
    };
    let opened = read.and_then(|()| mount(&device));
    match opened {
        Ok(()) => Ok(Opened { name, image: line.root.clone() }),
        Err(reason) => {
            if let Err(error) = device_mapper::remove(&name) {
                say(&error.to_string());
            }
            Err(reason)
        }
    }
}

impl Opened {
    /// From here on nobody may run with a wrong block: the machine starts again, and the bootloader counts the start.
    pub fn restart_on_corruption(&self, partition: &Partition) -> std::result::Result<(), StorageError> {
        verity::rearm(&self.name, partition, &self.image, Corruption::Restart)
    }
}

fn mount(device: &Path) -> Result<()> {
    std::fs::create_dir_all(NEW_ROOT).map_err(named("make", NEW_ROOT))?;
    let flags = MountFlags::RDONLY | mounts::PLAIN;
    mounts::mount(&device.display().to_string(), NEW_ROOT, "erofs", flags, "")
        .map_err(|error| format!("mount the verified image: {error}"))?;
    check_programs(Path::new(NEW_ROOT)).map_err(|error| {
        let _ = mounts::unmount(NEW_ROOT, false);
        format!("read the programs: {error}")
    })
}

/// Reads every block through the kernel's check, with all processors: a changed image is refused before any of it
/// runs, with a reason and a light, and not in the middle of the work by a restart.
fn read_whole(device: &Path, blocks: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    let read = || {
        let mut buffer = vec![0u8; CHUNK_BLOCKS as usize * BLOCK as usize];
        let file = File::open(device)?;
        loop {
            let first = next.fetch_add(CHUNK_BLOCKS, Ordering::Relaxed);
            if first >= blocks {
                return Ok(());
            }
            let length = (blocks - first).min(CHUNK_BLOCKS) * BLOCK;
            file.read_exact_at(&mut buffer[..length as usize], first * BLOCK)?;
            // What was checked need not stay in memory; what is used soon is read again through the same check.
            let length = NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&file, first * BLOCK, length, rustix::fs::Advice::DontNeed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err::<(), std::io::Error>(error) = read() {
                    next.store(blocks, Ordering::Relaxed);
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |error| {
        Err(format!("read the image: {}: {error}; the kernel's line above names the block", device.display()))
    })
}

/// Reads what the second stage cannot start without. It will be read anyway, and stays in memory.
fn check_programs(root: &Path) -> Result<()> {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    for path in [PROGRAM, "/usr/lib/belvedere/bin/belvedere-front-panel"] {
        let path = inside(path);
        match File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink())) {
            Ok(_) => {}
            // The second stage decides whether it may be missing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.ends_with("belvedere-init") => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    for directory in ["dev", "proc", "sys", "run", "tmp", "var"] {
        if !root.join(directory).is_dir() {
            return Err(format!("the directory /{directory} is missing"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(names: &[&str]) -> Vec<Partition> {
        let partition = |(number, name): (usize, &&str)| Partition {
            name: (*name).to_owned(),
            device: format!("/dev/vda{number}").into(),
            size: 4096,
        };
        names.iter().enumerate().map(partition).collect()
    }

    fn names(partitions: &[Partition]) -> Vec<&str> {
        partitions.iter().map(|partition| partition.name.as_str()).collect()
    }

    #[test]
    fn only_what_is_proven_and_gave_no_cause_is_not_read_whole() {
        assert_eq!(Care::of(true, false, Reset::None), Care::Needed);
        for (proven, met) in [(false, false), (false, true), (true, true)] {
            assert_eq!(Care::of(proven, met, Reset::None), Care::Whole);
        }
        // A release is restored by comparing all of it with its signature.
        for reset in [Reset::Latest, Reset::Minimum, Reset::Full] {
            assert_eq!(Care::of(true, false, reset), Care::Whole);
        }
    }

    #[test]
    fn the_started_slot_comes_first_and_every_other_one_after_it() {
        let found = partitions(&["esp-a", "system-a", "system-b", "system-minimum", "data", "system-a"]);
        let order = |slot| names(&in_order(&found, slot)).join(" ");
        assert_eq!(order(None), "system-a system-a system-b system-minimum");
        assert_eq!(order(Some(Slot::A)), "system-a system-a system-b system-minimum");
        assert_eq!(order(Some(Slot::B)), "system-b system-a system-a system-minimum");
        assert_eq!(order(Some(Slot::Minimum)), "system-minimum system-a system-a system-b");
        assert_eq!(names(&in_order(&partitions(&["data"]), Some(Slot::A))), Vec::<&str>::new());
    }

    /// boot D5: the first partition that *looked* right was taken, and its damage ended the start, whatever was in the
    /// others.
    #[test]
    fn a_damaged_image_gives_way_to_a_whole_one_and_is_told() {
        let all = partitions(&["system-a", "system-b", "system-minimum"]);
        for whole in 0..3 {
            let mut lost = Vec::new();
            let open = |number, _: &Partition| if number == whole { Ok(number) } else { Err(format!("block {number}")) };
            let (partition, opened) = first_whole(&all, open, |reason| lost.push(reason.to_owned())).unwrap();
            assert_eq!((partition.name.as_str(), opened), (all[whole].name.as_str(), whole));
            assert_eq!(lost.len(), whole);
            assert!(lost.iter().all(|reason| reason.starts_with("system-")), "{lost:?}");
        }
        let reasons = first_whole(&all, |_, _| Err::<(), _>("damaged".to_owned()), |_| unreachable!()).unwrap_err();
        assert_eq!(reasons, "system-a: damaged; system-b: damaged; system-minimum: damaged");
    }
}

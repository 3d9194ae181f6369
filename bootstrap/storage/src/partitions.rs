//! GPT partitions by name, as the kernel lists them in sysfs; there is no udev.

use crate::{StorageError, failed};
use std::path::{Path, PathBuf};

/// One named partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the partition table, such as `system-a`.
    pub name: String,
    /// Its device, such as `/dev/vda3`.
    pub device: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

/// A block device with a size: a partition, or what was opened on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device<'a> {
    /// Its node, such as `/dev/vda3` or `/dev/dm-0`.
    pub path: &'a Path,
    /// Size in bytes.
    pub size: u64,
}

impl<'a> From<&'a Partition> for Device<'a> {
    fn from(partition: &'a Partition) -> Device<'a> {
        Device { path: &partition.device, size: partition.size }
    }
}

/// Where the kernel lists block devices.
pub const SYSFS: &str = "/sys/class/block";

/// Lists the named partitions of the disks that belong to the appliance, in the order of their devices.
///
/// What is attached by USB is left out: a stick whose partition is named `data` must not become the appliance's.
/// Devices that vanish meanwhile are skipped.
pub fn list(sysfs: impl AsRef<Path>) -> Result<Vec<Partition>, StorageError> {
    list_on(sysfs, None)
}

/// The same of one disk alone, whose directory in sysfs is `disk`. `None`: of all disks.
pub fn list_on(sysfs: impl AsRef<Path>, disk: Option<&Path>) -> Result<Vec<Partition>, StorageError> {
    let sysfs = sysfs.as_ref();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(sysfs).map_err(failed("list", sysfs))?.flatten() {
        let Ok(path) = std::fs::canonicalize(entry.path()) else { continue };
        if disk.is_some_and(|disk| path.parent() != Some(disk)) {
            continue;
        }
        let removable = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
        let Ok(event) = std::fs::read_to_string(entry.path().join("uevent")) else { continue };
        let size = std::fs::read_to_string(entry.path().join("size")).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if let (false, Some((name, device)), Some(sectors)) = (removable, parse(&event), size) {
            found.push(Partition { name, device: Path::new("/dev").join(device), size: sectors.saturating_mul(512) });
        }
    }
    found.sort_by(|one, other| one.device.cmp(&other.device));
    Ok(found)
}

/// How many mapped devices may lie over one another: a verified root image lies over an opened volume.
const MAXIMUM_LAYERS: usize = 4;

/// The directory in sysfs of the disk below a device, such as `/sys/dev/block/253:0`: a partition, or what the device mapper
/// made over one, in any number of layers up to a few. `None` for a device that stands on no partition.
pub fn disk_below(device: impl AsRef<Path>) -> Option<PathBuf> {
    let mut device = std::fs::canonicalize(device).ok()?;
    for _ in 0..=MAXIMUM_LAYERS {
        // A partition's directory is in its disk's.
        if device.join("partition").exists() {
            return device.parent().map(Path::to_owned);
        }
        let slaves = std::fs::read_dir(device.join("slaves")).ok()?;
        device = slaves.flatten().find_map(|slave| std::fs::canonicalize(slave.path()).ok())?;
    }
    None
}

/// Name and device name in a `uevent` file.
fn parse(event: &str) -> Option<(String, String)> {
    let value = |key: &str| event.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let device = value("DEVNAME").filter(|device| !device.contains(".."))?;
    Some((value("PARTNAME")?.to_owned(), device.to_owned()))
}

/// The one partition of a name.
pub fn find<'a>(partitions: &'a [Partition], name: &str) -> Result<&'a Partition, StorageError> {
    let mut named = partitions.iter().filter(|partition| partition.name == name);
    let first = named.next().ok_or_else(|| StorageError::NoPartition(name.to_owned()))?;
    match named.next() {
        None => Ok(first),
        Some(second) => Err(StorageError::Ambiguous {
            name: name.to_owned(),
            first: first.device.display().to_string(),
            second: second.device.display().to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(root: &Path, path: &str, event: &str) {
        let device = root.join("devices").join(path);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("uevent"), event).unwrap();
        std::fs::write(device.join("size"), "2048\n").unwrap();
        let class = root.join("class");
        std::fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&device, class.join(device.file_name().unwrap())).unwrap();
    }

    #[test]
    fn partitions_are_found_by_name_and_sticks_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        block(root.path(), "pci/vda", "MAJOR=254\nDEVNAME=vda\nDEVTYPE=disk\n");
        block(root.path(), "pci/vda/vda2", "DEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=system-a\n");
        block(root.path(), "pci/vda/vda7", "DEVNAME=vda7\nPARTNAME=data\n");
        block(root.path(), "pci/usb1/1-1/sda1", "DEVNAME=sda1\nPARTNAME=data\n");
        let found = list(root.path().join("class")).unwrap();
        assert_eq!(found.len(), 2);
        let data = find(&found, "data").unwrap();
        assert_eq!((data.device.to_str(), data.size), (Some("/dev/vda7"), 1024 * 1024));
        assert!(matches!(find(&found, "system-b"), Err(StorageError::NoPartition(_))));
        block(root.path(), "pci/vdb/vdb1", "DEVNAME=vdb1\nPARTNAME=data\n");
        let found = list(root.path().join("class")).unwrap();
        assert!(matches!(find(&found, "data"), Err(StorageError::Ambiguous { .. })));
    }

    /// boot L4: a second disk with a partition of the same name stopped the appliance.
    #[test]
    fn of_two_disks_the_one_below_the_verified_root_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(root.path()).unwrap();
        for disk in ["vda", "vdb"] {
            block(&root, &format!("pci/{disk}"), &format!("DEVNAME={disk}\nDEVTYPE=disk\n"));
            for (number, name) in [(2, "system-a"), (3, "boot-slots"), (7, "data")] {
                block(&root, &format!("pci/{disk}/{disk}{number}"), &format!("DEVNAME={disk}{number}\nPARTNAME={name}\n"));
                std::fs::write(root.join(format!("devices/pci/{disk}/{disk}{number}/partition")), "1").unwrap();
            }
        }
        for disk in ["vda", "vdb"] {
            let verified = root.join(format!("devices/virtual/{disk}-root"));
            std::fs::create_dir_all(verified.join("slaves")).unwrap();
            let below = root.join(format!("devices/pci/{disk}/{disk}2"));
            std::os::unix::fs::symlink(below, verified.join(format!("slaves/{disk}2"))).unwrap();
            let directory = disk_below(&verified);
            // The verified image lies over an opened volume, and that over the partition.
            let over = root.join(format!("devices/virtual/over-{disk}"));
            std::fs::create_dir_all(over.join("slaves")).unwrap();
            std::os::unix::fs::symlink(&verified, over.join("slaves/dm")).unwrap();
            assert_eq!(disk_below(&over), directory);
            assert_eq!(directory, Some(root.join(format!("devices/pci/{disk}"))));
            let found = list_on(root.join("class"), directory.as_deref()).unwrap();
            assert_eq!(found.len(), 3);
            for (name, number) in [("data", 7), ("boot-slots", 3)] {
                assert_eq!(find(&found, name).unwrap().device, Path::new("/dev").join(format!("{disk}{number}")));
            }
        }
        // A whole disk below, or nothing: no disk of ours is known.
        assert_eq!(disk_below(root.join("devices/pci/vda")), None);
        let whole = root.join("devices/virtual/whole");
        std::fs::create_dir_all(whole.join("slaves")).unwrap();
        std::os::unix::fs::symlink(root.join("devices/pci/vda"), whole.join("slaves/vda")).unwrap();
        assert_eq!(disk_below(whole), None);
    }
}

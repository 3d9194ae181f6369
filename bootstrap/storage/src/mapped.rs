//! Devices that the device mapper made, by their names. The first stage opens the volumes; the second one finds them here.

use crate::partitions::Partition;
use crate::{StorageError, failed};
use std::path::Path;

/// What the first stage puts before the name of a partition to name its opened volume.
pub const PREFIX: &str = "belvedere-";

/// The opened volume of the partition `name`, with that name.
pub fn find(sysfs: impl AsRef<Path>, name: &str) -> Result<Partition, StorageError> {
    let sysfs = sysfs.as_ref();
    let wanted = format!("{PREFIX}{name}");
    for entry in std::fs::read_dir(sysfs).map_err(failed("list", sysfs))?.flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
        if read("dm/name").is_none_or(|text| text.trim_end() != wanted) {
            continue;
        }
        if let Some(sectors) = read("size").and_then(|text| text.trim().parse::<u64>().ok()) {
            let device = Path::new("/dev").join(entry.file_name());
            return Ok(Partition { name: name.to_owned(), device, size: sectors.saturating_mul(512) });
        }
    }
    Err(StorageError::NoPartition(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_volume_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        for (device, name) in [("dm-0", "belvedere-system-a\n"), ("dm-1", "belvedere-data\n"), ("dm-2", "data\n")] {
            std::fs::create_dir_all(root.path().join(device).join("dm")).unwrap();
            std::fs::write(root.path().join(device).join("dm/name"), name).unwrap();
            std::fs::write(root.path().join(device).join("size"), "16\n").unwrap();
        }
        std::fs::create_dir(root.path().join("vda")).unwrap();
        let data = find(root.path(), "data").unwrap();
        assert_eq!((data.name.as_str(), data.device.to_str(), data.size), ("data", Some("/dev/dm-1"), 8192));
        assert!(
            matches!(find(root.path(), "system-b"), Err(StorageError::NoPartition(name)) if name == "belvedere-system-b")
        );
    }
}

//! The EFI system partitions: FAT32 with the bootloader and the slots' unified kernel images.

use crate::error::{Error, Result};
use crate::program::{FIXED_TIME, program, run};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Writes the file system, of so many `bytes`. `files` are paths on the partition (as in `EFI/BOOT/BOOTAA64.EFI`) and their sources.
/// Same content, same bytes: serial number and times are fixed.
///
/// # Errors
/// When a file cannot be read or a program fails.
pub fn make(image: &Path, bytes: u64, label: &str, serial: u32, files: &[(&str, &Path)]) -> Result<()> {
    let file = File::create(image).map_err(Error::file("create", image))?;
    file.set_len(bytes).map_err(Error::file("extend", image))?;
    drop(file);
    run(
        program("mkfs.vfat")
            .args(["--invariant", "-F", "32", "-s", "8", "-n", label, "-i"])
            .arg(format!("{serial:08x}"))
            .arg(image),
        "making an EFI system partition",
    )?;
    let mut directories: Vec<String> = Vec::new();
    for (path, _) in files {
        let parts: Vec<&str> = path.split('/').collect();
        for length in 1..parts.len() {
            let directory = format!("::{}", parts[..length].join("/"));
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    run(program("mmd").arg("-i").arg(image).args(&directories), "making directories on an EFI system partition")?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FIXED_TIME);
    for (path, source) in files {
        // mcopy keeps the source's time: give it a copy with ours.
        let copy = image.with_extension("copying");
        fs::copy(source, &copy).map_err(Error::file("copy", source))?;
        File::options()
            .write(true)
            .open(&copy)
            .and_then(|file| file.set_modified(time))
            .map_err(Error::file("set time of", &copy))?;
        run(program("mcopy").args(["-m", "-i"]).arg(image).arg(&copy).arg(format!("::{path}")), &format!("copying {path}"))?;
        fs::remove_file(&copy).map_err(Error::file("remove", &copy))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_partition_that_fsck_and_mtools_read() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::write(&source, vec![7; 100_000]).unwrap();
        let files = [("EFI/BOOT/BOOTAA64.EFI", source.as_path()), ("EFI/belvedere/slot-a.efi", source.as_path())];
        let mut hashes = Vec::new();
        for name in ["one", "two"] {
            let image = directory.path().join(name);
            make(&image, 288 << 20, "ESP-A", 0x1234_5678, &files).unwrap();
            hashes.push(crate::cache::digest_file(&image).unwrap());
            // FAT's times have a grain of 2 s.
            std::thread::sleep(Duration::from_millis(2100));
        }
        assert_eq!(hashes[0], hashes[1]);
        let image = directory.path().join("one");
        run(program("fsck.fat").arg("-n").arg(&image), "checking").unwrap();
        let read = run(program("mtype").arg("-i").arg(&image).arg("::EFI/belvedere/slot-a.efi"), "reading").unwrap();
        assert_eq!(read, fs::read(&source).unwrap());
    }
}

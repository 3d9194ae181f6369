//! USB sticks as files, made and read without root.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fat::Fat;
use crate::process::run;
use crate::{Error, file_error};

/// What an operator may plug in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// FAT32 in the first MBR partition: what a shop sells.
    Fat32Partition,
    /// FAT32 in logical partition 5; the extended partition 1 around it holds no file system.
    Fat32Logical,
    /// A GPT as macOS makes it: an empty EFI system partition first, FAT32 for people second.
    Fat32BehindEfi,
    /// FAT32 over the whole stick.
    Fat32,
    /// ext4 over the whole stick.
    Ext4,
    /// Only the first bytes of exFAT: enough to be recognised as the wrong one.
    ExFat,
    /// Nothing at all.
    Blank,
}

/// Half of it is a FAT32 of more than the 65,525 clusters that make a FAT a FAT32 (mtools goes by that). Holes cost nothing.
const SIZE: u64 = 160 << 20;
const FIRST_SECTOR: u64 = 2048;

/// A stick.
#[derive(Debug, Clone)]
pub struct Stick {
    image: PathBuf,
    offset: u64,
}

impl Stick {
    /// Makes a stick at `image`, replacing what was there. `files` go onto FAT32 ones only; names may have folders.
    ///
    /// # Errors
    /// When a tool is missing or fails, or there are files for a stick that is not FAT32.
    pub fn create(image: impl Into<PathBuf>, format: Format, files: &[(&str, &[u8])]) -> Result<Self, Error> {
        let image = image.into();
        let mut file = File::create(&image).map_err(file_error("create", &image))?;
        file.set_len(SIZE).map_err(file_error("extend", &image))?;
        let mut stick = Self { image, offset: 0 };
        let fat = !matches!(format, Format::Ext4 | Format::ExFat | Format::Blank);
        if !fat && !files.is_empty() {
            return Err(Error::Input(format!("files can be put on a FAT32 stick only, not on {format:?}")));
        }
        match format {
            Format::Blank => {}
            Format::ExFat => file.write_all(b"\xeb\x76\x90EXFAT   ").map_err(file_error("write", &stick.image))?,
            Format::Ext4 => {
                run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&stick.image), "e2fsprogs")?;
            }
            Format::Fat32 => stick.make_fat(0, SIZE)?,
            Format::Fat32Partition => {
                stick.offset = FIRST_SECTOR * 512;
                let table = partition_table(FAT32, FIRST_SECTOR, SIZE / 512 - FIRST_SECTOR);
                file.write_all_at(&table, 446).map_err(file_error("write", &stick.image))?;
                stick.make_fat(stick.offset, SIZE - stick.offset)?;
            }
            Format::Fat32Logical => {
                stick.offset = 2 * FIRST_SECTOR * 512;
                let table = partition_table(EXTENDED, FIRST_SECTOR, SIZE / 512 - FIRST_SECTOR);
                file.write_all_at(&table, 446).map_err(file_error("write", &stick.image))?;
                // The logical partition's own table is where the extended one begins, and counts from there.
                let table = partition_table(FAT32, FIRST_SECTOR, SIZE / 512 - 2 * FIRST_SECTOR);
                file.write_all_at(&table, FIRST_SECTOR * 512 + 446).map_err(file_error("write", &stick.image))?;
                stick.make_fat(stick.offset, SIZE - stick.offset)?;
            }
            Format::Fat32BehindEfi => {
                // Sectors of the first partition, as large as the rest lets it be.
                let middle = SIZE / 512 / 2;
                stick.offset = middle * 512;
                run(
                    Command::new("sgdisk")
                        .args(["--clear", "--new", &format!("1:{FIRST_SECTOR}:{}", middle - 1), "--typecode", "1:ef00"])
                        .args(["--new", &format!("2:{middle}:0"), "--typecode", "2:0700"])
                        .arg(&stick.image),
                    "gdisk",
                )?;
                stick.make_fat(FIRST_SECTOR * 512, (middle - FIRST_SECTOR) * 512)?;
                // The second copy of the table is behind it.
                stick.make_fat(stick.offset, SIZE / 2 - (1 << 20))?;
            }
        }
        for (name, content) in files {
            stick.put(name, content)?;
        }
        Ok(stick)
    }

    /// A stick made earlier by [`Stick::create`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(image: impl Into<PathBuf>) -> Result<Self, Error> {
        let image = image.into();
        let mut start = [0u8; 512];
        File::open(&image).and_then(|file| file.read_exact_at(&mut start, 0)).map_err(file_error("read", &image))?;
        // A FAT boot sector begins with a jump; a partition table of ours with zeros.
        let offset = match (start[0], start[446 + 4]) {
            (0, FAT32) => FIRST_SECTOR * 512,
            (0, EXTENDED) => 2 * FIRST_SECTOR * 512,
            (0, PROTECTIVE) => SIZE / 2,
            _ => 0,
        };
        Ok(Self { image, offset })
    }

    /// The image file, to be plugged in.
    pub fn path(&self) -> &Path {
        &self.image
    }

    /// Writes a file onto a FAT32 stick that is not plugged in, replacing an older one.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.fat().put(name, content)
    }

    /// Reads a file from a FAT32 stick that is not plugged in (any more); nothing when it is not there.
    ///
    /// # Errors
    /// When mtools is missing.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.fat().read(name)
    }

    /// Every file on a FAT32 stick that is not plugged in, with folders, sorted.
    ///
    /// # Errors
    /// When mtools is missing or the stick has no FAT32.
    pub fn files(&self) -> Result<Vec<String>, Error> {
        self.fat().files()
    }

    fn fat(&self) -> Fat {
        Fat::at(&self.image, self.offset)
    }

    fn make_fat(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        run(
            Command::new("mkfs.vfat")
                .args(["-F", "32", "-s", "1", "-n", "BELVEDERE", "--offset"])
                .arg((offset / 512).to_string())
                .arg(&self.image)
                .arg((bytes / 1024).to_string()),
            "dosfstools",
        )
        .map(drop)
    }
}

/// Types of partitions in a master boot record: FAT32 with block addresses, what holds logical ones, what stands for a GPT.
const FAT32: u8 = 0x0c;
const EXTENDED: u8 = 0x0f;
const PROTECTIVE: u8 = 0xee;

/// Bytes 446..512 of a master boot record with one partition.
fn partition_table(kind: u8, first: u64, sectors: u64) -> [u8; 66] {
    let mut table = [0u8; 66];
    // Not bootable; the cylinder fields say "see the block addresses".
    table[..8].copy_from_slice(&[0, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
    table[8..12].copy_from_slice(&(first as u32).to_le_bytes());
    table[12..16].copy_from_slice(&(sectors as u32).to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_onto_a_stick_comes_back() {
        let scratch = tempfile::tempdir().unwrap();
        for (number, format) in
            [Format::Fat32, Format::Fat32Partition, Format::Fat32Logical, Format::Fat32BehindEfi].into_iter().enumerate()
        {
            let image = scratch.path().join(format!("{number}.img"));
            let stick = Stick::create(
                &image,
                format,
                &[("certificates-omni_dev.zip", b"PK"), ("panorama/managed_logs/x.txt", b"yes")],
            )
            .unwrap();
            stick.put("panorama/managed_logs/x.txt", b"again").unwrap();
            let stick = Stick::open(stick.path()).unwrap();
            assert_eq!(stick.read("panorama/managed_logs/x.txt").unwrap().unwrap(), b"again");
            assert_eq!(stick.read("nothing.txt").unwrap(), None);
            assert_eq!(stick.files().unwrap(), ["certificates-omni_dev.zip", "panorama/managed_logs/x.txt"]);
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), number + 1);
        }
    }

    #[test]
    fn wrong_sticks_are_what_they_say() {
        let scratch = tempfile::tempdir().unwrap();
        for (format, place, magic) in [(Format::Ext4, 1080, &b"\x53\xef"[..]), (Format::ExFat, 3, b"EXFAT")] {
            let stick = Stick::create(scratch.path().join("stick"), format, &[]).unwrap();
            let mut found = vec![0; magic.len()];
            File::open(stick.path()).unwrap().read_exact_at(&mut found, place).unwrap();
            assert_eq!(found, magic);
        }
        assert!(Stick::create(scratch.path().join("stick"), Format::Blank, &[("a", b"b")]).is_err());
    }
}

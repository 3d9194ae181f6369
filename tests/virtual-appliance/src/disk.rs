//! Looks into and damages disk images, for tests.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::process::run;
use crate::{Error, file_error};

const SECTOR: u64 = 512;

/// Where a partition lies, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// From the start of the disk.
    pub offset: u64,
    /// Its size.
    pub length: u64,
}

/// A partition as the GPT has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1.
    pub number: u32,
    /// Its own GUID, as it is stored.
    pub guid: [u8; 16],
    /// Where it lies.
    pub extent: Extent,
    /// Where its entry in the table begins, bytes from the start of the disk.
    pub place: u64,
}

/// Finds a partition by its GPT name in a raw image.
///
/// # Errors
/// When the image has no GPT or no such partition.
pub fn partition(image: &Path, name: &str) -> Result<Extent, Error> {
    entry(image, name).map(|entry| entry.extent)
}

/// As [`partition`], with the rest of what the table says.
///
/// # Errors
/// As [`partition`].
pub fn entry(image: &Path, name: &str) -> Result<Entry, Error> {
    let file = File::open(image).map_err(file_error("open", image))?;
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(file_error("read the partition table of", image))?;
        Ok::<_, Error>(bytes)
    };
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    let header = read(SECTOR, 92)?;
    if &header[..8] != b"EFI PART" {
        return Err(Error::Input(format!("{} has no GPT", image.display())));
    }
    let entries = number(&header, 72) * SECTOR;
    for index in 0..128 {
        let place = entries + u64::from(index) * 128;
        let entry = read(place, 128)?;
        let letters: Vec<u16> = entry[56..]
            .chunks(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|&letter| letter != 0)
            .collect();
        if String::from_utf16_lossy(&letters) == name {
            let (first, last) = (number(&entry, 32), number(&entry, 40));
            let extent = Extent { offset: first * SECTOR, length: (last + 1 - first) * SECTOR };
            let guid = std::array::from_fn(|byte| entry[16 + byte]);
            return Ok(Entry { number: index + 1, guid, extent, place });
        }
    }
    Err(Error::Input(format!("{} has no partition {name}", image.display())))
}

/// A qcow2 overlay over a raw image, which itself stays as it is.
///
/// # Errors
/// When `qemu-img` fails.
pub fn overlay(image: &Path, overlay: &Path) -> Result<(), Error> {
    let image = fs::canonicalize(image).map_err(file_error("find", image))?;
    run(
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&image).arg(overlay),
        "qemu-utils",
    )
    .map(drop)
}

/// Reads from an overlay (or any image of that format) that no machine uses.
///
/// # Errors
/// When `qemu-img` fails.
pub fn read(overlay: &Path, extent: Extent) -> Result<Vec<u8>, Error> {
    let scratch = tempfile::tempdir().map_err(file_error("create a directory in", std::env::temp_dir()))?;
    let output = scratch.path().join("part");
    let start = extent.offset / SECTOR;
    let end = (extent.offset + extent.length).div_ceil(SECTOR);
    run(
        Command::new("qemu-img")
            .args(["dd", "-f", "qcow2", "-O", "raw", "bs=512"])
            .arg(format!("skip={start}"))
            .arg(format!("count={end}"))
            .arg(format!("if={}", overlay.display()))
            .arg(format!("of={}", output.display())),
        "qemu-utils",
    )?;
    let bytes = fs::read(&output).map_err(file_error("read", &output))?;
    let from = usize::try_from(extent.offset % SECTOR).unwrap_or(0);
    let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
    Ok(bytes.into_iter().skip(from).take(length).collect())
}

/// Overwrites part of an overlay that no machine uses. `offset` and the length are multiples of 512.
///
/// # Errors
/// When `qemu-io` fails.
pub fn write(overlay: &Path, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let scratch = tempfile::tempdir().map_err(file_error("create a directory in", std::env::temp_dir()))?;
    let source = scratch.path().join("part");
    fs::write(&source, bytes).map_err(file_error("write", &source))?;
    run(
        Command::new("qemu-io")
            .args(["-f", "qcow2", "-c"])
            .arg(format!("write -s {} {offset} {}", source.display(), bytes.len()))
            .arg(overlay),
        "qemu-utils",
    )
    .map(drop)
}

/// Inverts one byte of an overlay that no machine uses.
///
/// # Errors
/// When reading or writing fails.
pub fn invert_byte(overlay: &Path, offset: u64) -> Result<(), Error> {
    let start = offset / SECTOR * SECTOR;
    let mut sector = read(overlay, Extent { offset: start, length: SECTOR })?;
    let place = usize::try_from(offset - start).unwrap_or(0);
    match sector.get_mut(place) {
        Some(byte) => *byte = !*byte,
        None => return Err(Error::Input(format!("offset {offset} is beyond the disk"))),
    }
    write(overlay, start, &sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_an_overlay_is_inverted_and_the_image_below_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (image, above) = (scratch.path().join("disk.img"), scratch.path().join("disk.qcow2"));
        fs::write(&image, vec![0x5a; 8192]).unwrap();
        overlay(&image, &above).unwrap();
        invert_byte(&above, 4097).unwrap();
        let read = read(&above, Extent { offset: 4096, length: 512 }).unwrap();
        assert_eq!((read[0], read[1], read[2], read.len()), (0x5a, 0xa5, 0x5a, 512));
        assert_eq!(fs::read(&image).unwrap(), vec![0x5a; 8192]);
    }
}

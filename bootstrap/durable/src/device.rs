//! Block devices that are worked on for longer than one block, and the same as a trait, so that a model can cut the power
//! (`block_model`).

use crate::{DurableError, failed};
use rustix::fs::{Advice, Mode, OFlags, SeekFrom};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What code that keeps state on a raw device asks of it. Offsets and sizes are bytes.
///
/// Between two flushes a device may bring writes to the medium in any order, wholly, in parts or not at all.
pub trait BlockDevice {
    /// The device in messages.
    fn path(&self) -> &Path;
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Reads all of `bytes`; from the medium what was flushed before, where that can be had.
    ///
    /// # Errors
    /// The device refuses, or the range is not within it.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError>;
    /// Writes all of `bytes`. Not yet on the medium.
    ///
    /// # Errors
    /// As with reading.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError>;
    /// Brings everything that was written to the medium.
    ///
    /// # Errors
    /// The device refuses; then what of the writes is on the medium is not known, and no later flush is believed.
    fn flush(&mut self) -> Result<(), DurableError>;

    /// Writes, flushes, reads back: after `Ok` these bytes are on the medium, as with [`write_block`](crate::write_block).
    ///
    /// # Errors
    /// Those of the three, and [`DurableError::ReadBack`].
    fn write_durably(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        self.write_at(offset, bytes)?;
        self.flush()?;
        self.verify(offset, bytes)
    }

    /// Reads and compares.
    ///
    /// # Errors
    /// Those of reading, and [`DurableError::ReadBack`].
    fn verify(&self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        let mut found = vec![0; bytes.len()];
        self.read_at(offset, &mut found)?;
        if found == bytes { Ok(()) } else { Err(DurableError::ReadBack { path: self.path().to_owned() }) }
    }
}

/// A block device of the kernel, or a file in its place.
#[derive(Debug)]
pub struct DeviceFile {
    file: File,
    path: PathBuf,
    size: u64,
    /// A flush failed: the kernel may have dropped the pages and would call the next flush good.
    broken: bool,
}

impl DeviceFile {
    /// Opens for reading and writing. A block device that is mounted or otherwise claimed is refused (`O_EXCL`), so that
    /// nothing is written below a file system in use.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<DeviceFile, DurableError> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("open", path)(error.into()))?;
        // The end of a block device is its size; its metadata says 0.
        let size = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|error| failed("measure", path)(error.into()))?;
        Ok(DeviceFile { file: file.into(), path: path.to_owned(), size, broken: false })
    }
}

impl BlockDevice for DeviceFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError> {
        self.file.read_exact_at(bytes, offset).map_err(failed("read", &self.path))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        // A file in a device's place would grow.
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(failed("write behind the end of", &self.path)(std::io::ErrorKind::InvalidInput.into()));
        }
        self.file.write_all_at(bytes, offset).map_err(failed("write", &self.path))
    }

    fn flush(&mut self) -> Result<(), DurableError> {
        if self.broken {
            let error = std::io::Error::other("an earlier flush failed");
            return Err(failed("synchronise", &self.path)(error));
        }
        let flushed = rustix::fs::fsync(&self.file);
        self.broken = flushed.is_err();
        flushed.map_err(|error| failed("synchronise", &self.path)(error.into()))?;
        // Best effort: later reads come from the medium, as in `write_block`.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_a_devices_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16384).unwrap();
        let mut device = DeviceFile::open(file.path()).unwrap();
        assert_eq!((device.size(), device.path()), (16384, file.path()));
        device.write_durably(4096, &[7; 512]).unwrap();
        let mut whole = vec![1; 16384];
        device.read_at(0, &mut whole).unwrap();
        assert!(whole.iter().enumerate().all(|(at, &byte)| (byte == 7) == (4096..4608).contains(&at)));
        assert!(device.verify(4096, &[7; 512]).is_ok());
        assert!(matches!(device.verify(4095, &[7; 512]), Err(DurableError::ReadBack { .. })));
        assert!(device.write_at(16000, &[0; 1000]).is_err() && device.write_at(u64::MAX, &[0; 2]).is_err());
        assert!(device.read_at(16000, &mut [0; 1000]).is_err());
        assert_eq!(file.as_file().metadata().unwrap().len(), 16384);
        assert!(DeviceFile::open("/nonexistent/device").is_err());
    }
}

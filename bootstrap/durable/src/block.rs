//! Raw devices: a block written in place. A torn write of one block is possible, so what must never be lost is kept
//! twice with checksums (see `formats/boot-slots`); this only makes sure that `Ok` means "on the medium".

use crate::{DurableError, failed};
use rustix::fs::{Advice, Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes `bytes` at `offset` (both in bytes) of an existing device or file, flushes it and reads it back.
pub fn write_block(device: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
    let path = device.as_ref();
    let open = |flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(std::io::Error::from);
    let file = File::from(open(OFlags::RDWR).map_err(failed("open", path))?);
    file.write_all_at(bytes, offset).map_err(failed("write", path))?;
    rustix::fs::fsync(&file).map_err(|error| failed("synchronise", path)(error.into()))?;
    let _ = rustix::fs::fadvise(&file, offset, None, Advice::DontNeed);
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, offset).map_err(failed("read back", path))?;
    if found == bytes { Ok(()) } else { Err(DurableError::ReadBack { path: path.to_owned() }) }
}

/// Reads exactly `length` bytes at `offset`.
pub fn read_block(device: impl AsRef<Path>, offset: u64, length: usize) -> Result<Vec<u8>, DurableError> {
    let path = device.as_ref();
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open", path)(error.into()))?;
    let mut bytes = vec![0; length];
    File::from(file).read_exact_at(&mut bytes, offset).map_err(failed("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_in_place_and_nothing_else_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16384).unwrap();
        write_block(file.path(), 4096, &[7; 512]).unwrap();
        let whole = read_block(file.path(), 0, 16384).unwrap();
        assert!(whole.iter().enumerate().all(|(at, &byte)| (byte == 7) == (4096..4608).contains(&at)));
        assert!(read_block(file.path(), 16000, 1000).is_err());
        assert!(write_block("/nonexistent/device", 0, &[0]).is_err());
    }
}

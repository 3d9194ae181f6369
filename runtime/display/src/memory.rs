//! An application's picture buffer, as the display reads it.
//!
//! It is read by `pread`, not mapped: a picture has to be copied anyway before the application may write the buffer again,
//! and whatever the application does to its memory meanwhile, a read can only fail or give other pixels. There is no
//! mapping that a shrunk file could turn into SIGBUS.

use rustix::fs::SealFlags;
use std::os::fd::OwnedFd;

/// Why a buffer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not sealed, so not a memfd that keeps its size.
    #[error("a display buffer must be a memfd sealed against shrinking: {0}")]
    NotSealed(&'static str),
    /// Smaller than its message said.
    #[error("a display buffer holds {actual} bytes and {stated} were stated")]
    Size {
        /// In the message.
        stated: u64,
        /// Of the memfd.
        actual: u64,
    },
    /// The system call failed.
    #[error("cannot {operation} a display buffer: {source}")]
    System {
        /// Such as `read`.
        operation: &'static str,
        /// What the system said.
        source: rustix::io::Errno,
    },
    /// Beyond its end.
    #[error("a picture reaches beyond the end of its display buffer")]
    TooShort,
}

/// Memory of an application's with pictures in it.
pub trait Buffer {
    /// Reads exactly `into.len()` bytes from `offset` on.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Error>;
}

/// A memfd.
#[derive(Debug)]
pub struct SealedMemory {
    descriptor: OwnedFd,
}

impl SealedMemory {
    /// Takes a memfd that is sealed against shrinking and at least `bytes` long. Anything else that could be passed
    /// (a pipe, a file on a slow disk) is refused here, so that a read never waits.
    pub fn new(descriptor: OwnedFd, bytes: u64) -> Result<Self, Error> {
        // Files that are no shared memory know no seals: EINVAL.
        let seals = rustix::fs::fcntl_get_seals(&descriptor).map_err(|_| Error::NotSealed("it is no memfd"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::NotSealed("the seal is missing"));
        }
        let status = rustix::fs::fstat(&descriptor).map_err(|source| Error::System { operation: "look at", source })?;
        let actual = u64::try_from(status.st_size).unwrap_or(0);
        if actual < bytes {
            return Err(Error::Size { stated: bytes, actual });
        }
        Ok(Self { descriptor })
    }
}

impl Buffer for SealedMemory {
    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<(), Error> {
        while !into.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(&self.descriptor, &mut *into, offset))
                .map_err(|source| Error::System { operation: "read", source })?;
            if count == 0 {
                return Err(Error::TooShort);
            }
            offset += count as u64;
            into = &mut into[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn memory(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let descriptor = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&descriptor, bytes).unwrap();
        rustix::fs::fcntl_add_seals(&descriptor, seals).unwrap();
        descriptor
    }

    #[test]
    fn sealed_memory_is_read_and_its_end_is_told() {
        let buffer = SealedMemory::new(memory(b"0123456789", SealFlags::SHRINK | SealFlags::GROW), 10).unwrap();
        let mut bytes = [0; 4];
        buffer.read(6, &mut bytes).unwrap();
        assert_eq!(&bytes, b"6789");
        assert!(matches!(buffer.read(7, &mut bytes), Err(Error::TooShort)));
    }

    #[test]
    fn what_could_shrink_or_is_no_memory_is_refused() {
        assert!(matches!(SealedMemory::new(memory(b"0123", SealFlags::GROW), 4), Err(Error::NotSealed(_))));
        assert!(matches!(SealedMemory::new(memory(b"0123", SealFlags::SHRINK), 5), Err(Error::Size { .. })));
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(matches!(SealedMemory::new(reader, 0), Err(Error::NotSealed(_))));
    }
}

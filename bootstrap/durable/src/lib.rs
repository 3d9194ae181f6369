//! The one way to make a write survive a power cut.
//!
//! Everybody who keeps state uses these functions and no others (`clippy.toml` says so): a file, a directory of files
//! that belong together, a block of a raw device. After `Ok` the new content is on the medium and was read back;
//! after an error or a power cut at any moment the old content **or** the new content is there, whole, never neither.
//!
//! # Write order of a file, and what a power cut after each step leaves
//!
//! 1. write `.<name>.tmp`, new and exclusive — the old file; a remnant that the next write removes
//! 2. `fsync` it — the same
//! 3. rename it to `<name>` — old or new, both whole: the new one's bytes are on the medium since 2
//! 4. `fsync` the directory — the new file
//! 5. drop the page cache's copy, read back, compare — the new file
//!
//! A directory of files goes the same way: staged in `.<name>.new`, synchronised whole, then exchanged with the old
//! one by one `renameat2(RENAME_EXCHANGE)` (step 3), and the old one removed last.
//!
//! Not covered: media that acknowledge a flush without doing it; two writers of one name at once (each state has one
//! owner); secrecy of what was removed.

mod block;
#[cfg(any(test, feature = "model"))]
pub mod block_model;
mod device;
mod directory;
mod disk;
mod file;
#[cfg(test)]
mod power_cut;

pub use block::{read_block, write_block};
pub use device::{BlockDevice, DeviceFile};
pub use directory::{StagedDirectory, recover_directory, stage_directory, write_directory};
pub use disk::{Disk, RealDisk};
pub use file::{read_file, remove_file, write_file};

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be made durable. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The kernel refused an operation.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The medium gave back other bytes than were written: it is failing or full of lies.
    #[error("{path} reads back differently from what was written; replace the medium")]
    ReadBack {
        /// The file or device.
        path: PathBuf,
    },
    /// More bytes than the reader is ready to take.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The reader's bound in bytes.
        limit: usize,
    },
    /// Not the name of something directly inside a directory.
    #[error("{0:?} is not a plain file name of at most 200 bytes")]
    Name(String),
}

pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
    let path = path.to_owned();
    move |source| DurableError::Io { operation, path, source }
}

/// A plain name: nothing that leads elsewhere, and short enough for the temporary name.
pub(crate) fn check_name(name: &str) -> Result<(), DurableError> {
    let plain = !name.is_empty() && name.len() <= 200 && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain { Ok(()) } else { Err(DurableError::Name(name.to_owned())) }
}

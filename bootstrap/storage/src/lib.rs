//! The appliance's disk: partitions by name, the verified root image, the `data` partition.
//!
//! The kernel does the work; this crate tells it what to do in the right order and decides what it may do it to.

pub mod crypt;
pub mod data;
pub mod device_mapper;
pub mod encrypt;
pub mod keeper;
pub mod keyring;
pub mod mapped;
pub mod measured;
pub mod mounts;
pub mod partitions;
pub mod patience;
pub mod program;
pub mod secrets;
pub mod verity;
pub mod volume;

use std::io;
use std::path::{Path, PathBuf};

/// Why something of the disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The kernel refused.
    #[error("{operation} {object}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No partition has the name.
    #[error("no partition is named {0}; the disk's partition table is not one of ours")]
    NoPartition(String),
    /// Several have it: perhaps a copy of the disk is attached.
    #[error("more than one partition is named {name}: {first} and {second}; detach one of the disks")]
    Ambiguous {
        /// The name.
        name: String,
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// A partition does not hold the root image that the signed command line names.
    #[error("{device}: {reason}")]
    Verity {
        /// The partition.
        device: String,
        /// What does not fit.
        reason: String,
    },
    /// A program of the root image failed.
    #[error("{program} {device}: {outcome}")]
    Program {
        /// What ran.
        program: &'static str,
        /// On what.
        device: String,
        /// How it ended, and the last line it said.
        outcome: String,
    },
    /// The `data` partition holds something that is not ours; it is not overwritten.
    #[error("{0} holds data that is not ours and is left as it is; write the disk image anew, or erase the partition")]
    Foreign(String),
    /// A partition is not used as an encrypted volume; it was not touched.
    #[error("{device} is left as it is: {refusal}")]
    Volume {
        /// The partition.
        device: String,
        /// Why, and what to do.
        refusal: volume::Refusal,
    },
    /// A write could not be made durable.
    #[error(transparent)]
    Durable(#[from] belvedere_durable::DurableError),
}

pub(crate) fn failed<E: Into<io::Error>>(
    operation: &'static str,
    object: impl AsRef<Path>,
) -> impl FnOnce(E) -> StorageError {
    let object: PathBuf = object.as_ref().to_owned();
    move |error| StorageError::Io { operation, object: object.display().to_string(), source: error.into() }
}

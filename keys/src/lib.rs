//! The key hierarchy of one product: what signs the boot chain, releases and devices, and what logs are encrypted to.
//!
//! For development the hierarchy is a directory of files, made once by [`create`] and read through
//! [`KeyDirectory`]. Other programs take paths from here and never spell a file name themselves.
//!
//! | files | algorithm | purpose |
//! |---|---|---|
//! | `uefi-pk.{key,crt,der}` | RSA-2048, self-signed | UEFI platform key: owns the firmware's key database |
//! | `uefi-kek.{key,crt,der}` | RSA-2048, self-signed | UEFI key exchange key: may change `db` and `dbx` |
//! | `uefi-db.{key,crt,der}` | RSA-2048, self-signed | signs the bootloader and every UKI; the kernel inside carries no signature of its own |
//! | `uefi-db-<n>.{key,crt,der}` | the same, from n = 2 | later ones, once the firmware was told of them |
//! | `updates/<n>-{db,dbx}.auth` | signed by `uefi-kek` | changes of the firmware's key databases, which every release brings along |
//! | `policy.{key,pub}` | RSA-2048 | signs what a release's start looks like to the TPM, which gives storage secrets to nothing else |
//! | `release.{key,pub}` | Ed25519 | signs release metadata |
//! | `device-ca.{key,crt}` | ECDSA P-256, CA | issues claim certificates and device certificates |
//! | `log.{key,pub}` | age X25519 (`AGE-SECRET-KEY-1…`, `age1…`) | appliances encrypt exported logs to it |
//! | `owner-guid` | | the GUID that marks our entries in the firmware's key database |
//! | `jetson-orin-{0,1,2}.{key,pub}` | RSA-3072 | sign a Jetson Orin's boot firmware; their hashes go into its fuses ([`jetson`]) |
//! | `jetson-xavier.{key,pub}` | RSA-2048 | the same for a Jetson Xavier |
//! | `jetson-*-sbk.key`, `jetson-orin-k1.key`, `jetson-xavier-kek2.key` | AES | encrypt that firmware, and wrap the keys of OP-TEE; go into the fuses |
//!
//! The keys of Jetson boards are not there until `belvedere-keys jetson` makes them.
//!
//! Every other `.key` but `log.key` is PKCS#8 PEM, every `.crt` X.509 PEM, every `.pub` but `log.pub` SubjectPublicKeyInfo PEM.
//!
//! RSA-2048 for UEFI because firmware and `sbsign` are certain to take nothing else.

mod create;
mod describe;
mod directory;
pub mod jetson;
mod openssl;

pub use create::{Validity, complete, create, renew_db};
pub use describe::{Description, describe};
pub use directory::{DbKey, KeyDirectory, KeyFile, Purpose, UefiKey};

use std::path::PathBuf;

/// What can go wrong with a key directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory to create holds something already.
    #[error("{} exists and is not empty; keys are never overwritten: choose another directory, or remove that one yourself", .0.display())]
    NotEmpty(PathBuf),
    /// A file of the hierarchy is missing.
    #[error("{} is missing; `belvedere-keys complete <dir>` adds what an earlier version did not make, `belvedere-keys init <dir>` makes a complete hierarchy in a new directory", .0.display())]
    Missing(PathBuf),
    /// A private key can be read by others than its owner.
    #[error("{} can be read by others (mode {mode:03o}); if nobody has, type: chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The private key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The `openssl` program could not be started.
    #[error("cannot start openssl: {0}; install it: apt-get install openssl")]
    OpensslMissing(std::io::Error),
    /// The `openssl` program refused.
    #[error("openssl {command} failed: {message}")]
    Openssl {
        /// Its subcommand.
        command: String,
        /// What it wrote to its standard error, shortened. Never holds key material.
        message: String,
    },
    /// A file does not hold what its name promises.
    #[error("{} does not hold {expected}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
    },
    /// The system's random number generator failed.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Attaches operation and path to an input/output error.
fn file_error(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { operation, path, source }
}

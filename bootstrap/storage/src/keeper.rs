//! Who keeps the appliance's secrets: its TPM, or OP-TEE where the board has none.
//!
//! Both give them out to what was verified alone, below no release that the fuses keep out, and until the phase is closed.
//! What each of them knows of a start differs: see `docs/threat-model.md`.

pub mod secure_world;
pub mod tpm;

pub use secure_world::SecureWorldKeeper;
pub use tpm::TpmKeeper;

use crate::secrets::Secrets;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Takes a line for the log.
pub type Say<'a> = &'a mut dyn FnMut(&str);

/// A keeper of secrets. Errors are for people.
pub trait Keeper {
    /// The secrets; made at the first start. With `renew_data` the one for `data` is written anew first, and everything that
    /// was encrypted with the old one is gone.
    ///
    /// # Errors
    /// When it keeps them from what runs, does not work, or is not ours.
    fn secrets(&mut self, renew_data: bool, say: Say<'_>) -> Result<Secrets, String>;

    /// Moves the rollback fuses to the level that is signed for the running release, which is proven: nothing older is needed
    /// any more. After [`Keeper::secrets`].
    ///
    /// Here and not when the updater commits: in this phase alone the keeper lets anybody set them, and what is set is the
    /// level of what really runs. Whoever breaks into the running system can neither set nor clear them.
    ///
    /// # Errors
    /// When they were not moved.
    fn raise_fuses(&mut self, say: Say<'_>) -> Result<(), String>;

    /// Ends the time in which secrets are given out and fuses raised, until the next start.
    ///
    /// # Errors
    /// When it may not have ended: then nothing that talks to the outside may be started.
    fn close(&mut self) -> Result<(), String>;
}

/// What a keeper is told of the release that runs.
#[derive(Debug, Clone)]
pub struct RunningRelease {
    /// Modulus of the key that signs policies.
    pub policy_key: PathBuf,
    /// The boot policy, as the boot program handed it over (`efivarfs`).
    pub policy: PathBuf,
    /// What the release says should be measured, handed over in the same way.
    pub expected: Option<PathBuf>,
    /// The rollback level, as the signed command line has it.
    pub level: u32,
}

/// Which of two kinds a keeper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TPM 2.0.
    Tpm,
    /// The trusted application in OP-TEE.
    SecureWorld,
}

/// The one that keeps this board's secrets. A TPM goes before OP-TEE: it knows what was measured.
///
/// A TPM that cannot be found at some start is no danger: OP-TEE then gives secrets that open none of the volumes, and volumes
/// that do not open are left as they are.
///
/// # Errors
/// When the board has neither.
pub fn kind(has_tpm: bool, has_op_tee: bool) -> Result<Kind, String> {
    match (has_tpm, has_op_tee) {
        (true, _) => Ok(Kind::Tpm),
        (false, true) => Ok(Kind::SecureWorld),
        (false, false) => Err(format!(
            "there is no TPM ({}) and no OP-TEE ({}); without one of them nothing gives out the volumes' keys",
            belvedere_tpm_device::DEVICE,
            belvedere_secure_world::DEVICE
        )),
    }
}

/// Reads a file that may have so many bytes.
///
/// # Errors
/// When it has more, or cannot be read.
pub fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("read {}: {error}", path.display()))?;
    if bytes.len() > limit { Err(format!("{} is longer than {limit} bytes", path.display())) } else { Ok(bytes) }
}

fn words<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_goes_before_op_tee_and_a_board_with_neither_has_no_secrets() {
        assert_eq!(kind(true, false), Ok(Kind::Tpm));
        assert_eq!(kind(true, true), Ok(Kind::Tpm));
        assert_eq!(kind(false, true), Ok(Kind::SecureWorld));
        let error = kind(false, false).unwrap_err();
        assert!(error.contains("/dev/tpmrm0") && error.contains("/dev/tee0"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10), Ok(vec![7; 10]));
        assert!(read_bounded(&path, 9).unwrap_err().contains("longer than 9"));
        assert!(read_bounded(&directory.path().join("none"), 9).unwrap_err().contains("none"));
    }
}

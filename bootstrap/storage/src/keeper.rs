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

/// What of keepers a board has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Has {
    /// A TPM that the kernel drives.
    pub tpm: bool,
    /// The board's description names a TPM, whether it works or not.
    pub tpm_named: bool,
    /// OP-TEE.
    pub op_tee: bool,
}

/// The one that keeps this board's secrets. A TPM goes before OP-TEE: it knows what was measured.
///
/// # Errors
/// When the board has neither; or a TPM that does not work: what is made without it now, it would not open later.
pub fn kind(has: Has) -> Result<Kind, String> {
    match (has.tpm, has.tpm_named, has.op_tee) {
        (true, ..) => Ok(Kind::Tpm),
        (false, true, _) => Err(format!(
            "this board's TPM does not work: there is no {}; switch the power off and on again",
            belvedere_tpm_device::DEVICE
        )),
        (false, false, true) => Ok(Kind::SecureWorld),
        (false, false, false) => Err(format!(
            "there is no TPM ({}) and no OP-TEE ({}); without one of them nothing gives out the volumes' keys",
            belvedere_tpm_device::DEVICE,
            belvedere_secure_world::DEVICE
        )),
    }
}

/// Whether the board's description, as the kernel took it over, has a device that is a TPM.
pub fn names_tpm(sys: &Path) -> bool {
    ["platform", "spi", "i2c"].iter().any(|bus| {
        let devices = std::fs::read_dir(sys.join("bus").join(bus).join("devices"));
        devices.into_iter().flatten().flatten().any(|device| {
            let compatible = read_bounded(&device.path().join("of_node/compatible"), 4096).unwrap_or_default();
            compatible.split(|&byte| byte == 0).any(|kind| kind.starts_with(b"tcg,"))
        })
    })
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
        let of = |tpm, tpm_named, op_tee| kind(Has { tpm, tpm_named, op_tee });
        for op_tee in [false, true] {
            assert_eq!((of(true, true, op_tee), of(true, false, op_tee)), (Ok(Kind::Tpm), Ok(Kind::Tpm)));
            // One that failed at some start: what OP-TEE made meanwhile would open nothing later, and a full reset not be one.
            assert!(of(false, true, op_tee).unwrap_err().contains("does not work"));
        }
        assert_eq!(of(false, false, true), Ok(Kind::SecureWorld));
        let error = of(false, false, false).unwrap_err();
        assert!(error.contains("/dev/tpmrm0") && error.contains("/dev/tee0"), "{error}");
    }

    #[test]
    fn a_tpm_is_known_by_what_the_board_says_of_its_devices() {
        let sys = tempfile::tempdir().unwrap();
        let device = |bus: &str, name: &str, compatible: Option<&[u8]>| {
            let node = sys.path().join("bus").join(bus).join("devices").join(name).join("of_node");
            std::fs::create_dir_all(&node).unwrap();
            if let Some(compatible) = compatible {
                std::fs::write(node.join("compatible"), compatible).unwrap();
            }
        };
        assert!(!names_tpm(sys.path()));
        device("platform", "uart", Some(b"arm,pl011\0arm,primecell\0"));
        device("platform", "none", None);
        assert!(!names_tpm(sys.path()));
        device("spi", "spi0.0", Some(b"infineon,slb9670\0tcg,tpm_tis-spi\0"));
        assert!(names_tpm(sys.path()));
        std::fs::remove_dir_all(sys.path().join("bus/spi")).unwrap();
        device("platform", "c000000.tpm_tis", Some(b"tcg,tpm-tis-mmio\0"));
        assert!(names_tpm(sys.path()));
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

//! Signs UEFI programs with a `db` key.

use crate::error::{Error, Result};
use crate::program::{program, run};
use belvedere_keys::DbKey;
use std::fs;
use std::path::Path;

/// Signs a PE image (bootloader, UKI) for Secure Boot.
///
/// `sbsign` writes the present time into the signature; under `faketime` it is always the same, so that the same image
/// and key give the same bytes.
///
/// # Errors
/// When `sbsign` refuses the image or the key, or the result does not verify.
pub fn sign(key: &DbKey, image: &Path, output: &Path) -> Result<()> {
    let DbKey { key, certificate, .. } = key;
    run(
        program("faketime")
            .args(["-f", "2026-01-01 00:00:00", "sbsign", "--key"])
            .arg(key)
            .arg("--cert")
            .arg(certificate)
            .arg("--output")
            .arg(output)
            .arg(image),
        &format!("signing {}", image.display()),
    )?;
    run(program("sbverify").arg("--cert").arg(certificate).arg(output), &format!("verifying {}", output.display()))?;
    let length = fs::metadata(output).map_err(Error::file("look at", output))?.len();
    if length == 0 {
        return Err(Error::invalid(output.display().to_string(), "sbsign wrote nothing"));
    }
    Ok(())
}

//! The firmware's variable store, with our keys enrolled and Secure Boot on.

use crate::board::Board;
use crate::error::{Error, Result};
use crate::firmware_variables_check;
use crate::program::{program, run};
use crate::secure_boot_measurement::SecureBootVariables;
use belvedere_keys::{KeyDirectory, UefiKey};
use std::path::Path;

/// What the template brings along and has no place here: Debian's test keys, boot entries of the firmware's menu and
/// its shell, and the keys that call them. [`firmware_variables_check`] looks whether something is left. Without entries the firmware starts `EFI/BOOT/BOOTAA64.EFI` of the disks.
const LEFTOVERS: &[&str] =
    &["PK", "KEK", "db", "dbx", "BootOrder", "Boot0000", "Boot0001", "Boot0002", "Boot0003", "Key0000", "Key0001"];

/// Variables set beside the keys, in the tool's JSON: the firmware waits 0 s for somebody to press a key.
pub fn settings() -> String {
    serde_json::json!({
        "version": 2,
        "variables": [{ "name": "Timeout", "guid": "8be4df61-93ca-11d2-aa0d-00e098032b8c", "attr": 7, "data": "0000" }],
    })
    .to_string()
}

/// Writes the variable store. Gives what of it decides about signatures.
///
/// # Errors
/// When the tool fails, the template is not installed, or the result holds anything but what it must.
pub fn make(tools: &Path, keys: &KeyDirectory, board: &Board, output: &Path) -> Result<SecureBootVariables> {
    let guid = keys.owner_guid()?;
    let tool = tools.join("bin/virt-fw-vars").to_string_lossy().into_owned();
    let mut command = program("faketime");
    // Signed variables carry a time.
    command.args(["-f", "2026-01-01 00:00:00"]).arg(&tool).arg("-i").arg(board.firmware_variables_template);
    for name in LEFTOVERS {
        command.args(["-d", name]);
    }
    command.args(["--set-pk", &guid]).arg(keys.uefi_certificate(UefiKey::Pk));
    command.args(["--add-kek", &guid]).arg(keys.uefi_certificate(UefiKey::Kek));
    command.args(["--add-db", &guid]).arg(keys.uefi_certificate(UefiKey::Db));
    let settings_file = output.with_extension("json");
    std::fs::write(&settings_file, settings()).map_err(Error::file("write", &settings_file))?;
    command.arg("--set-json").arg(&settings_file);
    command.arg("--sb").arg("-o").arg(output);
    run(&mut command, "enrolling the keys in the firmware's variables")?;
    std::fs::remove_file(&settings_file).map_err(Error::file("remove", &settings_file))?;
    firmware_variables_check::check(&tool, keys, output)
}

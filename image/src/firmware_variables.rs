//! The firmware's variable store, with our keys enrolled, Secure Boot on, and the bootloader as what is started.

use crate::board::Board;
use crate::boot_entries;
use crate::disk::boot_partitions;
use crate::error::{Error, Result};
use crate::firmware_variables_check;
use crate::program::{program, run};
use crate::secure_boot_measurement::SecureBootVariables;
use belvedere_keys::{KeyDirectory, UefiKey};
use std::path::Path;

/// EFI_GLOBAL_VARIABLE.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What the template brings along and has no place here: Debian's test keys, boot entries of the firmware's menu and
/// its shell, and the keys that call them. [`firmware_variables_check`] looks whether something is left.
const LEFTOVERS: &[&str] =
    &["PK", "KEK", "db", "dbx", "BootOrder", "Boot0000", "Boot0001", "Boot0002", "Boot0003", "Key0000", "Key0001"];

/// Variables set beside the keys, all of the vendor [`GLOBAL`], name and content: the firmware waits 0 s for somebody to press a
/// key, and knows what to start.
pub fn settings(board: &Board) -> Vec<(&'static str, Vec<u8>)> {
    let mut settings = vec![("Timeout", vec![0, 0])];
    settings.extend(boot_entries::variables(boot_partitions(board.sizes)));
    settings
}

/// [`settings`] in the tool's JSON.
pub fn settings_text(board: &Board) -> String {
    let variable = |(name, data): (&str, Vec<u8>)| serde_json::json!({ "name": name, "guid": GLOBAL, "attr": 7, "data": hex::encode(data) });
    let variables: Vec<_> = settings(board).into_iter().map(variable).collect();
    serde_json::json!({ "version": 2, "variables": variables }).to_string()
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
    std::fs::write(&settings_file, settings_text(board)).map_err(Error::file("write", &settings_file))?;
    command.arg("--set-json").arg(&settings_file);
    command.arg("--sb").arg("-o").arg(output);
    run(&mut command, "enrolling the keys in the firmware's variables")?;
    std::fs::remove_file(&settings_file).map_err(Error::file("remove", &settings_file))?;
    firmware_variables_check::check(&tool, keys, board, output)
}

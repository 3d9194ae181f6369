//! The firmware's variable store, with our keys enrolled and Secure Boot on.

use crate::board::Board;
use crate::error::Result;
use crate::program::{program, run};
use belvedere_keys::{KeyDirectory, UefiKey};
use std::path::Path;

/// Boot entries that the template brings along: the firmware's menu and its shell, which have no place here. Without
/// entries the firmware starts `EFI/BOOT/BOOTAA64.EFI` of the disks.
const LEFTOVERS: &[&str] = &[
    "PK",
    "KEK",
    "db",
    "dbx",
    "BootOrder",
    "Boot0000",
    "Boot0001",
    "Boot0002",
    "Boot0003",
];

/// Writes the variable store.
///
/// # Errors
/// When the tool fails or the template is not installed.
pub fn make(tools: &Path, keys: &KeyDirectory, board: &Board, output: &Path) -> Result<()> {
    let guid = keys.owner_guid()?;
    let tool = tools
        .join("bin/virt-fw-vars")
        .to_string_lossy()
        .into_owned();
    let mut command = program("faketime");
    // Signed variables carry a time.
    command
        .args(["-f", "2026-01-01 00:00:00"])
        .arg(tool)
        .arg("-i")
        .arg(board.firmware_variables_template);
    for name in LEFTOVERS {
        command.args(["-d", name]);
    }
    command
        .args(["--set-pk", &guid])
        .arg(keys.uefi_certificate(UefiKey::Pk));
    command
        .args(["--add-kek", &guid])
        .arg(keys.uefi_certificate(UefiKey::Kek));
    command
        .args(["--add-db", &guid])
        .arg(keys.uefi_certificate(UefiKey::Db));
    command.arg("--sb").arg("-o").arg(output);
    run(
        &mut command,
        "enrolling the keys in the firmware's variables",
    )?;
    Ok(())
}

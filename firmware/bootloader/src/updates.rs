//! Updates of the firmware's key databases (`db`, `dbx`) that a proven release brings along, signed with the key exchange key.
//!
//! Here, and not in the running system: the firmware checks the signature itself, it takes such writes before an operating
//! system runs whatever the board, and nothing that runs later needs a right to write its variables.
//!
//! Order, and what a power cut after each number leaves behind:
//! 1. the release was committed in the slot table by the updater — no update is there; the next start applies them;
//! 2. this start is counted, the release's image is loaded and has passed the firmware — the same;
//! 3. what must start afterwards is looked at — the same;
//! 4. the firmware appends one update after the other, each wholly or not at all — the first ones are there: the next start
//!    applies the rest. A release is signed for each of these states, so its volumes open in all of them;
//! 5. the machine restarts before anything is started: the TPM's register 7 then holds what is in the databases.
//!
//! Whoever is refused stays in the databases for ever, so nothing is applied that would leave the appliance without a
//! bootloader, without this release or without the minimum slot.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use belvedere_boot_slots::Slot;
use belvedere_kernel_stub::{Image, RELEASE, UPDATES, rollback_level};
use belvedere_secure_boot::Database;
use belvedere_secure_boot::lists::{self, Signature};
use belvedere_secure_boot::program::Program;
use belvedere_secure_boot::updates::{Update, decode_section, pending};

use crate::Machine;

/// Files on the disk's ESPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// This program.
    Bootloader,
    /// A slot's image.
    Kernel(Slot),
}

/// Applies what the loaded image of a proven slot brings along and is not there yet. `minimum`: whether the table says that
/// there is something in the minimum slot. Whether the databases changed: then the machine has to restart, for the TPM has
/// seen the change and what is sealed stays closed in this start.
pub fn apply<M: Machine>(machine: &mut M, slot: Slot, image: &M::Image, fuses: u32, minimum: bool) -> bool {
    let Some(section) = machine.updates(image) else { return false };
    let mut changed = false;
    if let Err(reason) = apply_all(machine, slot, &section, fuses, minimum, &mut changed) {
        machine.say(&format!("slot {}: the firmware's key databases are not updated: {reason}", slot.name()));
    }
    changed
}

fn apply_all(
    machine: &mut impl Machine,
    slot: Slot,
    section: &[u8],
    fuses: u32,
    minimum: bool,
    changed: &mut bool,
) -> Result<(), String> {
    let updates = decode_section(section).map_err(|error| format!("{error}"))?;
    let (db, dbx) = (machine.database(Database::Db)?, machine.database(Database::Dbx)?);
    let pending = pending(&updates, &db, &dbx).map_err(|error| format!("{error}"))?;
    if pending.is_empty() {
        return Ok(());
    }
    let mut revoked = Vec::new();
    for update in pending.iter().filter(|update| update.database == Database::Dbx) {
        revoked.extend(lists::signatures(update.lists).map_err(|error| format!("{error}"))?);
    }
    look(machine, File::Bootloader, |file| stays(file, &revoked))?;
    for slot in [Some(slot), minimum.then_some(Slot::Minimum)].into_iter().flatten() {
        look(machine, File::Kernel(slot), |file| {
            let image = Image::parse(file).ok();
            let level = image.map_or(Some(0), |image| image.file_section(RELEASE).map_or(Some(0), rollback_level));
            if level.is_none_or(|level| level < fuses) {
                // It is kept from starting already.
                return Ok(());
            }
            stays(file, &revoked)?;
            // Its boot policy must be signed for what will be measured: it is when its release knows the same updates.
            let own = image.and_then(|image| image.file_section(UPDATES)).unwrap_or_default();
            if knows_all(own, &updates) { Ok(()) } else { Err("its release does not know the update") }
        })?;
    }
    for update in pending {
        let name = update.database.name();
        machine.append(update.database, update.bytes).map_err(|reason| format!("{name}: {reason}"))?;
        *changed = true;
        let after = machine.database(update.database)?;
        if lists::has_all(&after, update.lists) != Ok(true) {
            return Err(format!("{name}: the firmware took the update, and does not have it"));
        }
        machine.say(&format!("slot {}: the firmware's {name} is updated", slot.name()));
    }
    Ok(())
}

fn knows_all(section: &[u8], updates: &[Update<'_>]) -> bool {
    decode_section(section).is_ok_and(|known| known.starts_with(updates))
}

fn stays(file: &[u8], revoked: &[Signature<'_>]) -> Result<(), &'static str> {
    match Program::read(file) {
        Some(program) if program.is_forbidden_by(revoked) => Err("it would not start any more"),
        _ => Ok(()),
    }
}

/// Looks at each place of a file; at one of them there must be one.
fn look(
    machine: &mut impl Machine,
    file: File,
    mut check: impl FnMut(&[u8]) -> Result<(), &'static str>,
) -> Result<(), String> {
    let mut found = false;
    let mut fault = None;
    machine.files(file, &mut |name, content| {
        found = true;
        if let (Err(reason), None) = (check(content), &fault) {
            fault = Some(format!("{name}: {reason}"));
        }
    })?;
    match (fault, found) {
        (Some(fault), _) => Err(fault),
        (None, true) => Ok(()),
        (None, false) => Err(format!("no ESP of this disk has what must start afterwards ({file:?})")),
    }
}

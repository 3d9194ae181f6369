//! The bootloader without its machine: carries out what `boot-slots` decides.
//!
//! The buttons are looked at once, when the power comes on. A reset that they ask for is written to both copies of the
//! table before anything else, and the light shows it from then on; see `boot-slots`' `reset.rs` for its way to the end.
//!
//! Write order of one round, and what a power cut after each number leaves behind:
//! 1. the slot table with one try less, or one start more, for the slot about to start (flushed and read back): that
//!    try or start counts as used;
//! 2. the slot's image is loaded, which verifies it, and its signed rollback level is compared with the fuses: the same;
//!    when a proven release brings updates of the firmware's key databases along that are not there yet, they are applied
//!    and the machine restarts ([`updates`]);
//! 3. the choice is measured into the TPM, and the volatile UEFI variables name it: gone with the power;
//! 4. the slot is started. From here on the slot table belongs to what runs in it.
//!
//! A slot that cannot be loaded is noted in the table where [`belvedere_boot_slots::refused`] says so, and the next round
//! follows. One that was started and comes back is noted, and the machine restarts: its measurements cannot be taken back,
//! and behind them another slot's would be no value that anything is sealed to. Each such start was counted before, so the
//! next slot has its turn soon. There is no end to this: an appliance never just stops.
//!
//! After the last pause of [`BACK_OFF`] (405 s in all), be it for slots that cannot be loaded or for fuses that cannot be read,
//! the machine restarts: some faults of a TPM or a disk only end with that. It is not counted, and writes nothing. A reset that
//! the buttons asked for is in the table by then.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod partition_name;
pub mod pl061;
pub mod updates;
pub mod virtual_buttons;
pub mod watchdog;

pub use partition_name::partition_name;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use belvedere_boot_slots::{
    BACK_OFF, BLOCK, Buttons, Change, Copies, Inputs, Mark, Next, Refusal, Reset, Slot, State, Table, begun, decide, loaded,
    refused,
};
use belvedere_panel::Condition;
use belvedere_secure_boot::Database;

/// Everything the bootloader touches.
pub trait Machine {
    /// A slot's image that the firmware verified and loaded.
    type Image;

    /// Reads one copy (0 or 1) of the slot table. The error says why not, for the console.
    fn read_copy(&mut self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String>;
    /// Writes a block and flushes the disk's cache.
    fn write(&mut self, change: &Change) -> Result<(), String>;
    /// The rollback level in the fuses. The error says in words why they cannot be read.
    fn fuses(&mut self) -> Result<u32, String>;
    /// What the buttons ask for. They are looked at once, when the power comes on: who holds one then lets go of it soon.
    fn buttons(&mut self) -> Buttons;
    /// Sets the status light.
    fn show(&mut self, condition: Condition);
    /// Waits.
    fn wait(&mut self, seconds: u32);
    /// In how many places (ESPs) a slot's image may lie. The error says in words why none can be looked at.
    fn places(&mut self, slot: Slot) -> Result<usize, String>;
    /// Has the firmware verify and load a slot's image from one of them, the slot's own ESP being place 0; gives it with the
    /// rollback level that is signed inside it. The error says in words why not.
    fn load(&mut self, slot: Slot, place: usize) -> Result<(Self::Image, u32), (Refusal, String)>;
    /// Lets go of an image that is not to be started.
    fn unload(&mut self, image: Self::Image);
    /// The section of a loaded image with updates of the firmware's key databases; nothing when it has none.
    fn updates(&mut self, image: &Self::Image) -> Option<Vec<u8>>;
    /// What a key database holds; nothing when there is no such variable. The error says in words why it cannot be read.
    fn database(&mut self, database: Database) -> Result<Vec<u8>, String>;
    /// Has the firmware check a signed update and append it, wholly or not at all. The error says in words why not.
    fn append(&mut self, database: Database, update: &[u8]) -> Result<(), String>;
    /// Gives `look` the name and content of a file on each ESP that has it. The error says in words which cannot be read.
    fn files(&mut self, file: updates::File, look: &mut dyn FnMut(&str, &[u8])) -> Result<(), String>;
    /// Measures the choice. Once in a power-on: what is sealed to it must not depend on what was tried before. The error
    /// says in words why not.
    fn measure(&mut self, slot: Slot) -> Result<(), String>;
    /// Tells the operating system which slot it is, what `measured` gave, and which slot table, so that it finds the same disk.
    fn name(&mut self, slot: Slot, measured: &Result<(), String>, table: Option<Mark>);
    /// Starts an image; comes back only when that failed, with the reason in words.
    fn start(&mut self, slot: Slot, image: Self::Image) -> String;
    /// Restarts the machine as if the power had been off.
    fn restart(&mut self);
    /// Writes a line on the console.
    fn say(&mut self, line: &str);
}

/// What the bootloader remembers from round to round; nothing of it survives a restart.
#[derive(Debug)]
pub struct Rounds {
    buttons: Buttons,
    refused: [bool; 3],
    back_offs: u32,
    /// How often the fuses could not be read.
    unreadable: usize,
}

impl Rounds {
    /// The power came on: looks at the buttons.
    pub fn begin(machine: &mut impl Machine) -> Self {
        Self { buttons: machine.buttons(), refused: [false; 3], back_offs: 0, unreadable: 0 }
    }

    /// Fuses that cannot be read are closed: nothing starts, for what starts may be what they keep out. It may be a passing
    /// fault, so they are asked again, and nothing is written meanwhile but what the buttons ask for. It may also be one that
    /// lasts until a reset: firmware that did not get an answer from the TPM once does not show it before the next start. Nobody
    /// holds a button any more then.
    fn closed(&mut self, machine: &mut impl Machine, copies: &Copies, reason: &str) {
        self.note_wish(machine, copies);
        let seconds = BACK_OFF[self.unreadable.min(BACK_OFF.len() - 1)];
        self.unreadable = self.unreadable.saturating_add(1);
        machine.show(Condition::Error);
        machine.say(&format!("{reason}; nothing is started without them, trying again in {seconds} s"));
        machine.wait(seconds);
        restart_after(machine, self.unreadable);
    }

    /// Notes what the buttons ask for while the fuses cannot be read. Where there is no table, [`decide`] notes it in the one that
    /// is made anew, should they be readable in this power-on yet.
    fn note_wish(&mut self, machine: &mut impl Machine, copies: &Copies) {
        let wish = self.buttons.ask_for();
        match copies.current() {
            None if wish != Reset::None => machine.say("the reset is not begun yet: there is no slot table to note it in"),
            None => {}
            Some(table) => {
                // No level is known, so the lowest: a slot that is preferred by it and below the fuses is passed over later.
                let next = begun(&table, wish, 0);
                if next.reset != table.reset {
                    self.begin_reset(machine, copies, next);
                }
            }
        }
    }

    /// Writes a reset to both copies, and says so. Whether it is begun; otherwise the buttons asked for nothing.
    fn begin_reset(&mut self, machine: &mut impl Machine, copies: &Copies, table: Table) -> bool {
        let begins = write_both(machine, copies, table);
        if begins {
            machine.say(&format!("reset: {:?}, asked for by the buttons", table.reset));
        } else {
            machine.say("the reset cannot be noted and is not begun: a power cut could make half a one of it");
            self.buttons = Buttons::None;
        }
        begins
    }

    /// One round: decide, write, then start or wait.
    pub fn round(&mut self, machine: &mut impl Machine) {
        let copies = read(machine);
        if self.back_offs == 0 && copies.current().is_none() {
            let [first, second] = copies.found();
            machine.say(&format!("no valid slot table (copies: {:?}, {:?})", first.map(|_| ()), second.map(|_| ())));
        }
        let fuses = match machine.fuses() {
            Ok(level) => level,
            Err(reason) => return self.closed(machine, &copies, &reason),
        };
        let decision = decide(Inputs {
            copies: &copies,
            fuses,
            buttons: self.buttons,
            refused: self.refused,
            back_offs: self.back_offs,
        });
        let written = match decision.write {
            Some(table) if decision.begins_reset => {
                if !self.begin_reset(machine, &copies, table) {
                    return;
                }
                true
            }
            Some(table) => write(machine, &copies, table),
            None => true,
        };
        // Not before: what the light says of a reset is on the disk.
        machine.show(decision.shows);
        match decision.next {
            Next::BackOff(seconds) => {
                machine.say(&format!("no slot can be started; trying again in {seconds} s"));
                machine.wait(seconds);
                self.refused = [false; 3];
                self.back_offs += 1;
                restart_after(machine, self.back_offs as usize);
            }
            Next::Start(slot) => {
                if copies.current().is_none() && decision.write.is_none() && self.buttons.ask_for() != Reset::None {
                    machine
                        .say("the reset cannot be noted and is not begun: there is no slot table, and none may be written");
                    self.buttons = Buttons::None;
                }
                if decision.only_counted && !written {
                    machine.say(&format!("slot {}: not started, for its try could not be counted", slot.name()));
                } else {
                    start(machine, slot, fuses, copies.current());
                }
                self.refused[slot as usize] = true;
            }
        }
    }
}

/// Restarts the machine after the last of so many pauses. Not sooner: until then a person can see the light and read why, and
/// a machine that is broken for good restarts every seven minutes and no faster.
fn restart_after(machine: &mut impl Machine, pauses: usize) {
    if pauses >= BACK_OFF.len() {
        machine.say("restarting: the fault may be one that only that mends");
        machine.restart();
    }
}

/// Loads and starts. Comes back when the slot cannot be loaded, and the next one has its turn; restarts the machine when it
/// was started and came back, or when the firmware's key databases were updated.
fn start<M: Machine>(machine: &mut M, slot: Slot, fuses: u32, table: Option<Table>) {
    match load(machine, slot, fuses) {
        Err((why, reason)) => note(machine, slot, why, &reason),
        Ok((image, level)) => {
            let copies = read(machine);
            if let Some(table) = copies.current().and_then(|table| loaded(&table, slot, level)) {
                write(machine, &copies, table);
            }
            let table = table.filter(|table| table.proves(slot));
            if let Some(table) = table {
                let minimum = !matches!(table.record(Slot::Minimum).state, State::Empty | State::Bad);
                if updates::apply(machine, slot, &image, fuses, minimum) {
                    machine.unload(image);
                    machine.say("restarting: the TPM is to measure what the firmware's key databases hold now");
                    machine.restart();
                    return;
                }
            }
            let measured = machine.measure(slot);
            if let Err(reason) = &measured {
                // What is sealed to the slot stays closed: no reason not to start.
                machine.say(&format!("slot {}: the choice is not measured: {reason}", slot.name()));
            }
            let table = read(machine).mark();
            machine.name(slot, &measured, table);
            let reason = machine.start(slot, image);
            note(machine, slot, Refusal::CameBack, &reason);
            machine.show(Condition::Error);
            machine
                .say(&format!("restarting in {} s: another slot's measurements do not fit behind this one's", BACK_OFF[0]));
            machine.wait(BACK_OFF[0]);
            machine.restart();
        }
    }
}

/// Tries every place until one has an image that may run; gives it with the level that is signed in it.
fn load<M: Machine>(machine: &mut M, slot: Slot, fuses: u32) -> Result<(M::Image, u32), (Refusal, String)> {
    let places = machine.places(slot).map_err(|reason| (Refusal::Failed, reason))?;
    let mut refusal: Option<(Refusal, String)> = None;
    for place in 0..places {
        let (why, reason) = match machine.load(slot, place) {
            Ok((image, level)) if level >= fuses => {
                if let Some((_, reason)) = refusal {
                    machine.say(&format!("slot {}: {reason}; another ESP has it whole", slot.name()));
                }
                return Ok((image, level));
            }
            Ok((image, level)) => {
                machine.unload(image);
                let reason = format!(
                    "refused: its release has rollback level {level}, and this machine has run releases of level {fuses}; \
                     write a newer release to it"
                );
                (Refusal::RolledBack { level }, reason)
            }
            Err(refusal) => refusal,
        };
        if refusal.as_ref().is_none_or(|(before, _)| weight(why) > weight(*before)) {
            refusal = Some((why, reason));
        }
    }
    Err(refusal.unwrap_or_else(|| (Refusal::Missing, format!("no ESP of this disk has {}", slot.kernel_path()))))
}

/// Which of two places' refusals is the slot's: one that may pass before one that will not, and what is there before what
/// is not.
fn weight(why: Refusal) -> u8 {
    match why {
        Refusal::Missing => 0,
        Refusal::SecureBoot => 1,
        Refusal::RolledBack { .. } => 2,
        Refusal::Failed | Refusal::CameBack => 3,
    }
}

/// Says why a slot did not start, and notes it in the table.
fn note(machine: &mut impl Machine, slot: Slot, why: Refusal, reason: &str) {
    machine.say(&format!("slot {}: {reason}", slot.name()));
    let copies = read(machine);
    if let Some(table) = copies.current().and_then(|table| refused(&table, slot, why)) {
        write(machine, &copies, table);
    }
}

fn read(machine: &mut impl Machine) -> Copies {
    let mut blocks = [[0u8; BLOCK]; 2];
    let mut lengths = [BLOCK; 2];
    for (copy, (block, length)) in blocks.iter_mut().zip(&mut lengths).enumerate() {
        if let Err(reason) = machine.read_copy(copy, block) {
            machine.say(&format!("slot table, copy {copy}: {reason}"));
            // A half-read block must not look like one that was read.
            *length = 0;
        }
    }
    Copies::read(&blocks[0][..lengths[0]], &blocks[1][..lengths[1]])
}

/// Writes a table to both copies. Whether it holds then, be it in one copy only. Says what went wrong.
fn write_both(machine: &mut impl Machine, copies: &Copies, table: Table) -> bool {
    let mut holds = false;
    for change in copies.durable_changes(table) {
        let written = write_change(machine, &change);
        holds |= written;
        // When the first cannot be written the second still can.
        if !written && !may_go_on(machine, copies, &change) {
            break;
        }
    }
    holds
}

/// Writes a table and reads both copies back: whether it is the one that holds. Says what went wrong. A copy that cannot be
/// written is left, and the other one is changed in place; not so where the attempt left it torn.
fn write(machine: &mut impl Machine, copies: &Copies, table: Table) -> bool {
    let mut changes = copies.changes(table).peekable();
    if changes.peek().is_none() {
        machine.say("slot table: not written, for no copy may be written over");
        return false;
    }
    for change in changes {
        if write_change(machine, &change) {
            return true;
        }
        if !may_go_on(machine, copies, &change) {
            break;
        }
    }
    machine.say("slot table: not written, so this is not counted");
    false
}

/// Whether the next copy may be written after `failed` could not be. Says why not.
fn may_go_on(machine: &mut impl Machine, copies: &Copies, failed: &Change) -> bool {
    let goes_on = copies.may_go_on(failed, &read(machine));
    if !goes_on {
        machine.say(&format!("slot table, copy {}: the attempt changed it, so the other copy is not touched", failed.copy));
    }
    goes_on
}

fn write_change(machine: &mut impl Machine, change: &Change) -> bool {
    let reason = match machine.write(change) {
        Ok(()) if read(machine).hold(change) => return true,
        Ok(()) => String::from("reads back differently"),
        Err(reason) => reason,
    };
    machine.say(&format!("slot table, copy {}: cannot be written: {reason}", change.copy));
    false
}

#[cfg(test)]
mod tests;

//! The bootloader without its machine: carries out what `boot-slots` decides.
//!
//! Write order of one round, and what a power cut after each number leaves behind:
//! 1. the slot table with one try less for the slot about to start (flushed and read back): that try counts as used;
//! 2. the volatile UEFI variable with the slot's name: nothing, it is gone with the power;
//! 3. the slot is started. From here on the slot table belongs to the updater inside it.
//!
//! A slot that does not start is noted in the table where [`belvedere_boot_slots::refused`] says so, and the next
//! round follows. There is no end to the rounds: an appliance never just stops.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod device_tree;
pub mod pl061;

pub use device_tree::root_is_compatible;

use alloc::format;
use alloc::string::String;

use belvedere_boot_slots::{
    BLOCK, Buttons, Change, Copies, Inputs, Light, Next, Refusal, Slot, State, Table, decide, refused,
};

/// Everything the bootloader touches.
pub trait Machine {
    /// Reads one copy (0 or 1) of the slot table. The error says why not, for the console.
    fn read_copy(&mut self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String>;
    /// Writes a block and flushes the disk's cache.
    fn write(&mut self, change: &Change) -> Result<(), String>;
    /// The rollback level in the fuses.
    fn fuses(&mut self) -> u32;
    /// What the buttons ask for.
    fn buttons(&mut self) -> Buttons;
    /// Sets the status light.
    fn show(&mut self, light: Light);
    /// Waits.
    fn wait(&mut self, seconds: u32);
    /// Starts a slot; comes back only when that failed, with the reason in words.
    fn start(&mut self, slot: Slot) -> (Refusal, String);
    /// Writes a line on the console.
    fn say(&mut self, line: &str);
}

/// What the bootloader remembers from round to round; nothing of it survives a restart.
#[derive(Debug, Default)]
pub struct Rounds {
    refused: [bool; 3],
    back_offs: u32,
}

impl Rounds {
    /// One round: decide, write, then start or wait.
    pub fn round(&mut self, machine: &mut impl Machine) {
        let copies = read(machine);
        if self.back_offs == 0 && copies.current().is_none() {
            let [first, second] = copies.found();
            machine.say(&format!("no valid slot table (copies: {:?}, {:?})", first.map(|_| ()), second.map(|_| ())));
        }
        let decision = decide(Inputs {
            copies: &copies,
            fuses: machine.fuses(),
            buttons: machine.buttons(),
            refused: self.refused,
            back_offs: self.back_offs,
        });
        machine.show(decision.light);
        let written = match decision.write {
            Some(table) => write(machine, &copies, table),
            None => true,
        };
        match decision.next {
            Next::BackOff(seconds) => {
                machine.say(&format!("no slot can be started; trying again in {seconds} s"));
                machine.wait(seconds);
                self.refused = [false; 3];
                self.back_offs += 1;
            }
            Next::Start(slot) => {
                let unproven = copies
                    .current()
                    .is_some_and(|table| matches!(table.record(slot).state, State::Written | State::Trying { .. }));
                if unproven && !written && self.back_offs == 0 {
                    // An uncounted try could repeat for ever; after a back-off there is nothing better left.
                    machine.say(&format!("slot {}: not started, for its try could not be counted", slot.name()));
                } else {
                    self.start(machine, slot);
                }
                self.refused[slot as usize] = true;
            }
        }
    }

    fn start(&self, machine: &mut impl Machine, slot: Slot) {
        let (why, reason) = machine.start(slot);
        machine.say(&format!("slot {}: {reason}", slot.name()));
        let copies = read(machine);
        if let Some(table) = copies.current().and_then(|table| refused(&table, slot, why)) {
            write(machine, &copies, table);
        }
    }
}

fn read(machine: &mut impl Machine) -> Copies {
    let mut blocks = [[0u8; BLOCK]; 2];
    for (copy, block) in blocks.iter_mut().enumerate() {
        if let Err(reason) = machine.read_copy(copy, block) {
            machine.say(&format!("slot table, copy {copy}: {reason}"));
            // A half-read block must not look like one that was read.
            block.fill(0);
        }
    }
    Copies::read(&blocks[0], &blocks[1])
}

/// Writes a table and reads it back. Says what went wrong.
fn write(machine: &mut impl Machine, copies: &Copies, table: Table) -> bool {
    let change = copies.change(table);
    let mut back = [0u8; BLOCK];
    let result = machine.write(&change).and_then(|()| machine.read_copy(change.copy, &mut back));
    let reason = match result {
        Ok(()) if back == change.block => return true,
        Ok(()) => String::from("reads back differently"),
        Err(reason) => reason,
    };
    machine.say(&format!("slot table, copy {}: cannot be written: {reason}", change.copy));
    false
}

#[cfg(test)]
mod tests;

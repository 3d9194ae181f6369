//! A slot that operates and fails all the same, again and again.
//!
//! Its starts are forgotten whenever it operates ([`crate::operating`]), so they alone would start it for ever. `init` knows
//! when it gives up one that operated, and counts that here. Nothing else counts: not a power cut, not a restart or power off
//! that somebody asked for. After [`STARTS`] times in a row the slot has had all its turns, as if it had never operated; the order
//! of turns is [`crate::decide`]'s then, and the count begins anew.

use crate::{STARTS, STARTS_BEFORE_A_BAD_ONE, Slot, State, Table};

/// The table after `slot` operated and was given up, or nothing when that is not counted: an unproven slot loses a try with
/// each start anyway.
pub fn failed_again(table: &Table, slot: Slot) -> Option<Table> {
    let record = table.record(slot);
    if record.state != State::Good {
        return None;
    }
    let times = table.failures(slot).saturating_add(1);
    Some(if times < STARTS {
        table.with_failures(slot, times)
    } else {
        table.with_starts(slot, record.starts.max(STARTS_BEFORE_A_BAD_ONE)).with_failures(slot, 0)
    })
}

/// The table after a slot operated for so long that what was before says nothing any more, or nothing when it stays as it is.
/// Every slot's failures are forgotten: those of another one are not in a row with any that may follow.
pub fn works(table: &Table) -> Option<Table> {
    let next = Slot::ALL.into_iter().fold(*table, |next, slot| next.with_failures(slot, 0));
    (next != *table).then_some(next)
}

impl Table {
    /// How often in a row `slot` operated and was given up all the same.
    pub const fn failures(&self, slot: Slot) -> u8 {
        self.failures[slot as usize]
    }
}

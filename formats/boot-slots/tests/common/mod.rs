//! Tables and torn writes.
#![allow(dead_code, reason = "each test uses some of it")]

use belvedere_boot_slots::{
    BLOCK, Buttons, Record, Reset, STARTS, STARTS_BEFORE_A_BAD_ONE, Slot, State, TRIES, Table, failed_again,
};
use proptest::prelude::*;

pub fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Empty),
        Just(State::Written),
        (0u8..=TRIES).prop_map(|left| State::Trying { left }),
        Just(State::Good),
        Just(State::Bad),
    ]
}

pub fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B), Just(Slot::Minimum)]
}

pub fn buttons() -> impl Strategy<Value = Buttons> {
    prop_oneof![Just(Buttons::None), Just(Buttons::ShortReset), Just(Buttons::LongReset), Just(Buttons::FullReset),]
}

pub fn reset() -> impl Strategy<Value = Reset> {
    prop_oneof![3 => Just(Reset::None), 1 => Just(Reset::Latest), 1 => Just(Reset::Minimum), 1 => Just(Reset::Full)]
}

/// Also the mark of the last turn.
pub fn starts() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0..=STARTS, 1 => 0..=STARTS_BEFORE_A_BAD_ONE + 1]
}

prop_compose! {
    pub fn table()(
        // Also around the end of the numbers.
        generation in any::<u64>().prop_map(|number| match number % 4 { 0 => (number / 4 % 8).wrapping_sub(4), _ => number }),
        preferred in slot(),
        last_good in proptest::option::of(slot()),
        reset in reset(),
        records in [(state(), 0u32..4, starts()), (state(), 0u32..4, starts()), (state(), 0u32..4, starts())],
        failures in 0..STARTS,
    ) -> Table {
        let mut table = Table::empty(preferred);
        table.generation = generation;
        table.last_good = last_good;
        table.reset = reset;
        for (slot, (state, rollback_level, starts)) in Slot::ALL.into_iter().zip(records) {
            let starts = if state == State::Good { starts } else { 0 };
            table = table.with(slot, Record { state, rollback_level, starts });
        }
        for _ in 0..failures {
            table = failed_again(&table, Slot::A).unwrap_or(table);
        }
        table
    }
}

/// What a power cut can leave of a block being written: nothing of it, all of it, a prefix over the old content, whole
/// sectors of either in any mixture, or rubbish where the head was.
#[derive(Debug, Clone)]
pub enum Tear {
    Prefix(usize),
    Sectors(u8),
    Rubbish(usize, Vec<u8>),
}

pub fn tear() -> impl Strategy<Value = Tear> {
    prop_oneof![
        (0..=BLOCK).prop_map(Tear::Prefix),
        any::<u8>().prop_map(Tear::Sectors),
        (0..BLOCK, proptest::collection::vec(any::<u8>(), 1..600)).prop_map(|(start, bytes)| Tear::Rubbish(start, bytes)),
    ]
}

pub fn torn(old: &[u8], new: &[u8], tear: &Tear) -> Vec<u8> {
    let mut block = old.to_vec();
    match tear {
        Tear::Prefix(length) => block[..*length].copy_from_slice(&new[..*length]),
        Tear::Sectors(mask) => {
            for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
                block[sector * 512..][..512].copy_from_slice(&new[sector * 512..][..512]);
            }
        }
        Tear::Rubbish(start, bytes) => {
            block.copy_from_slice(new);
            let end = (start + bytes.len()).min(BLOCK);
            block[*start..end].copy_from_slice(&bytes[..end - start]);
        }
    }
    block
}

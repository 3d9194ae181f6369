//! A slot that operates and fails all the same, again and again: `init` notes it, for the count of starts is cleared whenever
//! the slot operates. The counting is `formats/boot-slots/src/failing.rs`.
//!
//! Write order, and what a power cut after each number leaves behind:
//! 1. the slot operated, and the start is given up (`supervision::Action::GiveUp`): the services end — it does not count
//! 2. one block of the table is written ([`slots::write_one`]) — torn: it does not count; whole: it does
//! 3. the machine restarts — the same
//!
//! When the appliance operated for [`crate::supervision::WORKS_TIME`] without a break, the counts of all slots are cleared.
//!
//! For whoever writes an updater: this is a write of the table an hour after the light is green, when an updater may write it,
//! too, and neither waits for the other. It reads, changes and writes within moments, and what was written in between would be
//! lost. Nothing in the tree writes the table from a running appliance yet; what comes has to exclude this one.

use crate::{Result, slots};
use belvedere_boot_slots::{STARTS, Slot, failed_again, works};
use std::path::Path;

/// Notes in the table on `device` that `slot` operated and was given up. Gives what people should be told.
fn note_given_up(device: &Path, slot: Slot) -> Result<Vec<String>> {
    let copies = slots::read(device);
    let table = copies.current().ok_or("the slot table cannot be read")?;
    let Some(after) = failed_again(&table, slot) else { return Ok(Vec::new()) };
    let mut lines = Vec::from_iter(slots::write_one(device, &copies, after)?);
    lines.push(match after.failures(slot) {
        0 => format!("slot {} operated and failed {STARTS} times in a row: another slot has its turn", slot.name()),
        times => format!("slot {} operated and failed, {times} of {STARTS} times", slot.name()),
    });
    Ok(lines)
}

/// Notes in the table on `device` that `slot`, which runs, works. Gives what people should be told.
fn note_works(device: &Path, slot: Slot) -> Result<Vec<String>> {
    let copies = slots::read(device);
    let table = copies.current().ok_or("the slot table cannot be read")?;
    let Some(after) = works(&table) else { return Ok(Vec::new()) };
    let mut lines = Vec::from_iter(slots::write_one(device, &copies, after)?);
    for failed in Slot::ALL.into_iter().filter(|failed| table.failures(*failed) > 0) {
        let (name, times) = (failed.name(), table.failures(failed));
        lines.push(format!("slot {} works: that slot {name} failed {times} times is forgotten", slot.name()));
    }
    Ok(lines)
}

/// On the slot that was started; where no bootloader named one, nothing is noted.
fn report(note: impl FnOnce(&Path, Slot) -> Result<Vec<String>>) -> Result<Vec<String>> {
    slots::started().map_or(Ok(Vec::new()), |slot| note(&slots::partition()?.device, slot))
}

/// The machine is about to restart, for what operated was given up. Gives what people should be told.
pub fn report_given_up() -> Vec<String> {
    report(note_given_up).unwrap_or_else(|error| vec![format!("that this start was given up could not be noted: {error}")])
}

/// The appliance operated for long: notes it, in a thread of its own as [`slots::report_operating`] does.
pub fn report_works(say: impl Fn(&str) + Send + 'static) -> Result<()> {
    slots::in_a_thread("that the appliance works", || report(note_works), say)
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_boot_slots::{Buttons, COPY_OFFSETS, Inputs, Next, PARTITION_SIZE, Table, decide, initial};
    use belvedere_durable::write_block;

    struct Appliance(tempfile::NamedTempFile);

    impl Appliance {
        fn new(table: Table) -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(PARTITION_SIZE).unwrap();
            for (block, offset) in initial(table).iter().zip(COPY_OFFSETS) {
                write_block(file.path(), offset, block).unwrap();
            }
            Self(file)
        }

        fn table(&self) -> Table {
            slots::read(self.0.path()).current().unwrap()
        }

        /// The bootloader's part of a start, which does not fail.
        fn start(&self) -> Slot {
            let mut back_offs = 0;
            loop {
                let copies = slots::read(self.0.path());
                let (buttons, refused) = (Buttons::None, [false; 3]);
                let decision = decide(Inputs { copies: &copies, fuses: 0, buttons, refused, back_offs });
                if let Some(table) = decision.write {
                    slots::write_one(self.0.path(), &copies, table).unwrap();
                }
                match decision.next {
                    Next::Start(slot) => return slot,
                    Next::BackOff(_) => back_offs += 1,
                }
            }
        }

        fn operates(&self) -> Slot {
            let slot = self.start();
            slots::note_operating(self.0.path(), slot).unwrap();
            slot
        }

        fn operates_and_fails(&self) -> Slot {
            let slot = self.operates();
            note_given_up(self.0.path(), slot).unwrap();
            slot
        }
    }

    fn two_proven() -> Table {
        Table::empty(Slot::A).committed(Slot::B).committed(Slot::A)
    }

    #[test]
    fn a_proven_slot_that_operates_and_fails_every_time_gives_way_to_the_other() {
        let appliance = Appliance::new(two_proven());
        let started: Vec<Slot> = (0..STARTS).map(|_| appliance.operates_and_fails()).collect();
        assert_eq!(started, [Slot::A; STARTS as usize]);
        // The other one works, and stays.
        for _ in 0..20 {
            assert_eq!(appliance.operates(), Slot::B);
        }
        let lines = slots::note_operating(appliance.0.path(), Slot::B).unwrap();
        assert!(lines[0].contains("slot a is lost") && lines[0].contains("although it did"), "{lines:?}");
    }

    #[test]
    fn with_both_failing_for_ever_each_has_its_turn_again_and_again() {
        let appliance = Appliance::new(two_proven());
        let started: Vec<Slot> = (0..20 * STARTS).map(|_| appliance.operates_and_fails()).collect();
        for slot in [Slot::A, Slot::B] {
            assert!(started.windows(3 * STARTS as usize).all(|window| window.contains(&slot)), "{slot:?}: {started:?}");
        }
    }

    /// Pulling the plug, a restart and a power off are the owner's business, as often as he likes.
    #[test]
    fn power_cuts_and_restarts_that_were_asked_for_never_count() {
        let appliance = Appliance::new(two_proven());
        for _ in 1..STARTS {
            assert_eq!(appliance.operates_and_fails(), Slot::A);
        }
        for _ in 0..100 {
            assert_eq!(appliance.operates(), Slot::A);
            // Cut before it operates.
            assert_eq!(appliance.start(), Slot::A);
        }
        assert_eq!(appliance.table().failures(Slot::A), STARTS - 1);
    }

    #[test]
    fn what_works_for_long_is_forgiven_and_nothing_is_written_where_nothing_is_to_be_forgiven() {
        let appliance = Appliance::new(two_proven());
        for _ in 0..20 {
            assert_eq!(appliance.operates_and_fails(), Slot::A);
            assert_eq!(appliance.operates(), Slot::A);
            assert!(note_works(appliance.0.path(), Slot::A).unwrap()[0].contains("is forgotten"));
            let before = appliance.table();
            assert_eq!(note_works(appliance.0.path(), Slot::A), Ok(Vec::new()));
            assert_eq!(appliance.table(), before);
        }
        assert!(note_given_up(Path::new("/nonexistent"), Slot::A).is_err());
    }

    #[test]
    fn failures_before_and_after_another_slot_worked_are_not_in_a_row() {
        let appliance = Appliance::new(two_proven());
        for _ in 0..3 {
            for _ in 1..STARTS {
                assert_eq!(appliance.operates_and_fails(), Slot::A);
            }
            let lines = note_works(appliance.0.path(), Slot::B).unwrap();
            assert!(lines[0].contains("slot b works: that slot a failed 4 times is forgotten"), "{lines:?}");
            assert_eq!(appliance.table().failures(Slot::A), 0);
        }
        assert_eq!(appliance.start(), Slot::A);
    }
}

//! Whatever one torn write does, a bootable slot is chosen when one exists.

mod common;

use belvedere_boot_slots::{
    BLOCK, Buttons, Copies, Decision, Inputs, Next, Record, Refusal, Reset, STARTS, STARTS_BEFORE_A_BAD_ONE, Slot, State,
    TRIES, Table, begun, decide, decode, encode, failed_again, initial, operating, refused, works,
};
use belvedere_panel::Condition;
use common::{buttons, slot, table, tear, torn};
use proptest::prelude::*;

fn inputs(copies: &Copies, fuses: u32, buttons: Buttons) -> Inputs<'_> {
    Inputs { copies, fuses, buttons, refused: [false; 3], back_offs: 0 }
}

/// How often a proven slot is started before the bootloader waits: for two rounds while a slot is passed over and none is
/// unproven.
fn turns(table: &Table, fuses: u32) -> u8 {
    let any = |what: &dyn Fn(Record, bool) -> bool| {
        Slot::ALL.into_iter().map(|slot| table.record(slot)).any(|record| what(record, record.rollback_level >= fuses))
    };
    let spent = |state| matches!(state, State::Bad | State::Trying { left: 0 });
    let unproven = |record: Record, allowed| {
        allowed && matches!(record.state, State::Written | State::Trying { .. }) && !spent(record.state)
    };
    let passed_over = |record: Record, allowed: bool| record.state != State::Empty && (!allowed || spent(record.state));
    if any(&passed_over) && !any(&unproven) { STARTS_BEFORE_A_BAD_ONE } else { STARTS }
}

fn bootable(table: &Table, fuses: u32) -> bool {
    Slot::ALL.into_iter().any(|slot| {
        let record = table.record(slot);
        record.rollback_level >= fuses
            && match record.state {
                State::Written => true,
                // Had its turns: it begins again after a back-off.
                State::Good => record.starts < turns(table, fuses),
                State::Trying { left } => left > 0,
                State::Empty | State::Bad => false,
            }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn a_torn_write_leaves_the_table_before_or_the_table_after(
        before in table(), after in table(), tear in tear(), other in proptest::option::of(table()),
    ) {
        // `before` holds; the other copy is older or no table at all.
        let stale = match other {
            Some(mut table) => {
                table.generation = before.generation.wrapping_sub(1);
                encode(&table).to_vec()
            }
            None => vec![0xff; BLOCK],
        };
        let holding = encode(&before).to_vec();
        let copies = Copies::read(&stale, &holding);
        prop_assert_eq!(copies.current(), Some(before));
        let change = copies.change(after).unwrap();
        prop_assert_eq!(change.copy, 0, "the table that holds must never be written over");

        let left = torn(&stale, &change.block, &tear);
        let found = Copies::read(&left, &holding).current().expect("one copy is whole");
        let mut after = after;
        after.generation = before.generation.wrapping_add(1);
        prop_assert!(found == before || found == after, "{:?}", found);
    }

    /// One copy can be read and not written, whatever its write said and left: the other one is changed in place, and holds. A cut
    /// in the middle of that leaves the table as the first copy has it, or the new one.
    #[test]
    fn with_one_copy_that_cannot_be_written_the_other_is_changed_and_a_cut_leaves_a_table(
        before in table(), mut stale in table(), behind in 1u64..1000, after in table(), tear in tear(), reached in any::<bool>(),
    ) {
        stale.generation = before.generation.wrapping_sub(behind);
        prop_assume!(stale.reset != Reset::Full || after.reset == Reset::Full);
        prop_assume!(before.reset != Reset::Full || stale.reset == Reset::Full);
        let mut disk = [encode(&stale).to_vec(), encode(&before).to_vec()];
        let changes: Vec<_> = Copies::read(&disk[0], &disk[1]).changes(after).collect();
        let [first, second] = &changes[..] else { panic!("{} changes", changes.len()) };
        prop_assert_eq!((first.copy, second.copy), (0, 1));
        if reached {
            disk[0] = first.block.to_vec();
        }
        let cut = torn(&disk[1], &second.block, &tear);
        let found = Copies::read(&disk[0], &cut).current().expect("one copy is whole");
        let left = if reached { after } else { stale };
        prop_assert!([before, left, after].iter().any(|table| found.says_the_same(table)), "{:?}", found);
        disk[1] = second.block.to_vec();
        let copies = Copies::read(&disk[0], &disk[1]);
        prop_assert!(copies.hold(second) && copies.current().is_some_and(|table| table.says_the_same(&after)));
    }

    /// boot D16: whatever two copies there were, a cut at any step of a durable change leaves the table before or the
    /// one after, and after its last step the loss of either copy undoes nothing.
    #[test]
    fn a_durable_change_outlives_the_loss_of_either_copy(
        before in table(), other in proptest::option::of(table()), after in table(), tear in tear(), unreadable in any::<bool>(),
    ) {
        let other_block = other.map_or([0xff; BLOCK], |mut other| {
            other.generation = before.generation.wrapping_sub(1);
            encode(&other)
        });
        let mut disk = [other_block.to_vec(), encode(&before).to_vec()];
        let copies = if unreadable { Copies::read(&[], &disk[1]) } else { Copies::read(&disk[0], &disk[1]) };
        let changes: Vec<_> = copies.durable_changes(after).collect();
        prop_assert_eq!(changes.len(), 2);
        for (step, change) in changes.iter().enumerate() {
            let mut cut = disk.clone();
            cut[change.copy] = torn(&disk[change.copy], &change.block, &tear);
            let found = Copies::read(&cut[0], &cut[1]).current().expect("one copy is whole");
            prop_assert!(found.says_the_same(&after) || step == 0 && found.says_the_same(&before), "step {}: {:?}", step, found);
            disk[change.copy] = change.block.to_vec();
            prop_assert!(Copies::read(&disk[0], &disk[1]).hold(change), "step {}", step);
        }
        let copies = Copies::read(&disk[0], &disk[1]);
        prop_assert!(copies.both_hold(after));
        for lost in 0..2 {
            for rubbish in [Vec::new(), vec![0xff; BLOCK]] {
                let mut left = disk.clone();
                left[lost] = rubbish;
                let copies = Copies::read(&left[0], &left[1]);
                prop_assert!(copies.current().expect("one copy is whole").says_the_same(&after));
                prop_assert!(!copies.both_hold(after));
            }
        }
    }

    #[test]
    fn whatever_one_torn_write_does_a_bootable_slot_is_chosen_when_one_exists(
        before in table(), after in table(), tear in tear(), fuses in 0u32..4, buttons in buttons(),
    ) {
        let holding = encode(&before);
        let copies = Copies::read(&holding, &[0xff; BLOCK]);
        let change = copies.change(after).unwrap();
        let left = torn(&[0xff; BLOCK], &change.block, &tear);
        let copies = Copies::read(&holding, &left);
        let table = copies.current().expect("one copy is whole");
        let decision = decide(inputs(&copies, fuses, buttons));
        if bootable(&begun(&table, buttons.ask_for(), fuses), fuses) {
            let Next::Start(slot) = decision.next else { panic!("{decision:?}") };
            prop_assert!(table.record(slot).rollback_level >= fuses);
        } else {
            prop_assert!(matches!(decision.next, Next::BackOff(_)));
            prop_assert_eq!(decision.shows, Condition::Error);
        }
    }

    #[test]
    fn tries_are_written_before_an_unproven_slot_starts_and_only_it_changes(
        table in table(), fuses in 0u32..4, buttons in buttons(),
    ) {
        let block = encode(&table);
        let copies = Copies::read(&block, &[0xff; BLOCK]);
        let decision = decide(inputs(&copies, fuses, buttons));
        if let Next::Start(slot) = decision.next {
            let next = decision.write.unwrap_or(table);
            match (table.record(slot).state, next.record(slot).state) {
                (State::Written, State::Trying { left }) => prop_assert_eq!(left, TRIES - 1),
                (State::Trying { left: before }, State::Trying { left }) => prop_assert_eq!(left, before - 1),
                (State::Good, State::Good) => {
                    let (was, is) = (table.record(slot).starts, next.record(slot).starts);
                    // The last one of a round is marked, and all others have begun again.
                    let others = || Slot::ALL.into_iter().filter(|other| *other != slot && table.record(*other).state == State::Good);
                    let last = was == STARTS - 1
                        && is == STARTS_BEFORE_A_BAD_ONE + 1
                        && others().any(|other| table.record(other).rollback_level >= fuses)
                        && others().all(|other| next.record(other).starts == 0);
                    prop_assert!(is == was + 1 && is <= turns(&next, fuses) || is == 1 && was > 0 || last, "{was} {is}");
                }
                other => prop_assert!(false, "{:?}", other),
            }
            for other in Slot::ALL.into_iter().filter(|other| *other != slot) {
                let (was, is) = (table.record(other), next.record(other));
                let spent = was.state == State::Trying { left: 0 } && is.state == State::Bad;
                let begins_again = was.state == State::Good && is == Record { starts: 0, ..was };
                prop_assert!(was == is || spent || begins_again);
            }
        }
    }

    #[test]
    fn before_a_back_off_no_slot_below_the_fuses_is_chosen_and_in_the_end_every_one_with_content_gets_its_turn(
        table in table(), fuses in 0u32..5, buttons in buttons(),
    ) {
        let mut disk = [encode(&table).to_vec(), vec![0xff; BLOCK]];
        let mut seen = [false; 3];
        let (mut skip, mut back_offs) = ([false; 3], 0);
        for _ in 0..40 {
            let copies = Copies::read(&disk[0], &disk[1]);
            let Decision { write, next, .. } =
                decide(Inputs { copies: &copies, fuses, buttons, refused: skip, back_offs });
            if let Some(table) = write {
                let change = copies.change(table).unwrap();
                disk[change.copy] = change.block.to_vec();
            }
            match next {
                Next::Start(slot) => {
                    prop_assert!(back_offs > 0 || table.record(slot).rollback_level >= fuses);
                    seen[slot as usize] = true;
                    skip[slot as usize] = true;
                    let copies = Copies::read(&disk[0], &disk[1]);
                    let now = copies.current().expect("a table");
                    if let Some(table) = refused(&now, slot, Refusal::SecureBoot) {
                        let change = copies.change(table).unwrap();
                        disk[change.copy] = change.block.to_vec();
                    }
                }
                Next::BackOff(seconds) => {
                    prop_assert!(seconds > 0);
                    skip = [false; 3];
                    back_offs += 1;
                }
            }
        }
        for slot in Slot::ALL {
            prop_assert_eq!(seen[slot as usize], table.record(slot).state != State::Empty, "slot {}", slot.name());
        }
    }

    /// "boot D4": whatever the table says, no slot is started for ever while it never operates and another one could.
    #[test]
    fn a_slot_that_never_operates_gives_way_after_a_bounded_number_of_starts(
        table in table(), dead in slot(), fuses in 0u32..3, broken in proptest::option::of(0usize..2),
    ) {
        let mut disk = [encode(&table).to_vec(), vec![0xff; BLOCK]];
        // `broken` is a copy that can be read and not written.
        let write = |disk: &mut [Vec<u8>; 2], table: Table| {
            let changes = Copies::read(&disk[0], &disk[1]).changes(table);
            let change = changes.into_iter().find(|change| Some(change.copy) != broken).expect("one copy can be written");
            disk[change.copy] = change.block.to_vec();
        };
        let mut in_a_row = 0;
        let others = |table: &Table| Slot::ALL.into_iter().any(|slot| {
            let record = table.record(slot);
            slot != dead && record.state == State::Good && record.rollback_level >= fuses
        });
        for _ in 0..40 {
            let copies = Copies::read(&disk[0], &disk[1]);
            let decision = decide(inputs(&copies, fuses, Buttons::None));
            if let Some(table) = decision.write {
                write(&mut disk, table);
            }
            let Next::Start(slot) = decision.next else { break };
            in_a_row = if slot == dead { in_a_row + 1 } else { 0 };
            prop_assert!(in_a_row <= STARTS_BEFORE_A_BAD_ONE + TRIES || !others(&table), "{in_a_row} starts of slot {}", dead.name());
            if slot != dead {
                let copies = Copies::read(&disk[0], &disk[1]);
                if let Some(table) = operating(&copies.current().unwrap(), slot) {
                    write(&mut disk, table);
                }
            }
        }
    }

    /// "boot L1": a change holds after it was written, whatever the generations are.
    #[test]
    fn a_change_holds_after_it_was_written(first in table(), second in table(), after in table()) {
        let mut disk = [encode(&first), encode(&second)];
        for _ in 0..4 {
            let copies = Copies::read(&disk[0], &disk[1]);
            let change = copies.change(after).unwrap();
            disk[change.copy] = change.block;
            let copies = Copies::read(&disk[0], &disk[1]);
            prop_assert!(copies.hold(&change));
            let mut now = copies.current().unwrap();
            now.generation = after.generation;
            prop_assert_eq!(now, after);
        }
    }

    #[test]
    fn what_is_read_is_written_the_same_and_rubbish_with_a_right_checksum_never_panics(
        table in table(), changes in proptest::collection::vec((0..BLOCK - 4, any::<u8>()), 0..6),
    ) {
        let mut block = encode(&table);
        for (place, value) in changes {
            block[place] = value;
        }
        seal(&mut block);
        if let Ok(table) = decode(&block) {
            // Including what later writers put behind the known part.
            let mut table = table;
            let copies = Copies::read(&block, &[0xff; BLOCK]);
            let change = copies.change(table).unwrap();
            table.generation = table.generation.wrapping_add(1);
            prop_assert_eq!(decode(&change.block), Ok(table));
            prop_assert_eq!(&change.block[129..BLOCK - 4], &block[129..BLOCK - 4]);
        }
    }
}

/// Puts the checksum over the rest, so that a changed block gets past it.
fn seal(block: &mut [u8; BLOCK]) {
    let checksum = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn a_new_release_that_never_comes_up_is_started_three_times_and_then_the_old_one() {
    let table = Table::empty(Slot::A).committed(Slot::A);
    let mut table = table.written(Slot::B, 0);
    table.preferred = Slot::B;
    let mut disk = initial(table);
    let mut started = Vec::new();
    for _ in 0..5 {
        let copies = Copies::read(&disk[0], &disk[1]);
        let decision = decide(inputs(&copies, 0, Buttons::None));
        if let Some(table) = decision.write {
            let change = copies.change(table).unwrap();
            disk[change.copy] = change.block;
        }
        started.push(decision.next);
    }
    let expected = [Slot::B, Slot::B, Slot::B, Slot::A, Slot::A].map(Next::Start);
    assert_eq!(started, expected);
}

/// The copy that cannot be written was left when a full reset was under way: after a torn write it would hold, and what was
/// stored since would be destroyed.
#[test]
fn nothing_is_changed_in_place_while_the_copies_differ_in_a_full_reset() {
    for (stale, now, changes) in [
        (Reset::Full, Reset::Full, 2),
        (Reset::Full, Reset::Minimum, 1),
        (Reset::Full, Reset::None, 1),
        (Reset::Minimum, Reset::None, 2),
        (Reset::None, Reset::None, 2),
        // A full reset under way that only one copy knows of was undone by a cut.
        (Reset::None, Reset::Full, 1),
        (Reset::Minimum, Reset::Full, 1),
        (Reset::None, Reset::Minimum, 2),
    ] {
        let [old, new] = [(stale, 1), (now, 2)].map(|(reset, generation)| {
            let mut table = Table::made_anew(0);
            (table.reset, table.generation) = (reset, generation);
            encode(&table)
        });
        let copies = Copies::read(&old, &new);
        let found: Vec<usize> = copies.changes(copies.current().unwrap()).map(|change| change.copy).collect();
        assert_eq!(found, [0, 1][..changes], "{stale:?} {now:?}");
    }
}

#[test]
fn a_copy_that_is_kept_is_not_what_is_written_instead() {
    let [_, block] = initial(Table::empty(Slot::A));
    let mut newer = encode(&Table::empty(Slot::B));
    newer[8] = 9;
    seal(&mut newer);
    for kept in [&[][..], &newer] {
        let copies = Copies::read(&block, kept);
        assert_eq!(copies.changes(Table::empty(Slot::A)).map(|change| change.copy).collect::<Vec<_>>(), [0]);
    }
    // Rubbish in both: either may be written.
    let copies = Copies::read(&[0xff; BLOCK], &[0; BLOCK]);
    assert_eq!(copies.changes(Table::made_anew(0)).map(|change| change.copy).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(Copies::read(&[], &newer).changes(Table::made_anew(0)).count(), 0);
}

#[test]
fn a_slot_that_operates_and_fails_has_had_its_turns_after_as_many_times_and_a_new_release_begins_anew() {
    let mut table = Table::empty(Slot::A).committed(Slot::B).committed(Slot::A);
    for times in 1..STARTS {
        table = failed_again(&table, Slot::A).unwrap();
        assert_eq!((table.failures(Slot::A), table.record(Slot::A).starts), (times, 0));
        assert_eq!(decode(&encode(&table)), Ok(table));
    }
    for begun in [table.emptied(Slot::A).written(Slot::A, 1), table.committed(Slot::A), works(&table).unwrap()] {
        assert_eq!(begun.failures(Slot::A), 0);
        assert_eq!(works(&begun), None);
    }
    let lost = failed_again(&table, Slot::A).unwrap();
    assert_eq!((lost.failures(Slot::A), lost.record(Slot::A).starts), (0, STARTS_BEFORE_A_BAD_ONE));
    let block = encode(&lost);
    assert_eq!(decide(inputs(&Copies::read(&block, &[]), 0, Buttons::None)).next, Next::Start(Slot::B));
    assert_eq!(failed_again(&table.written(Slot::A, 1), Slot::A), None);
}

#[test]
fn a_proven_slot_keeps_its_proof_when_it_is_refused() {
    let table = Table::empty(Slot::A).committed(Slot::A);
    for why in [Refusal::SecureBoot, Refusal::Missing, Refusal::Failed] {
        assert_eq!(refused(&table, Slot::A, why), None);
    }
    let unproven = table.with(Slot::A, Record { state: State::Trying { left: 2 }, ..table.record(Slot::A) });
    let after = refused(&unproven, Slot::A, Refusal::SecureBoot).unwrap();
    assert_eq!(after.record(Slot::A).state, State::Bad);
}

#[test]
fn what_cannot_be_read_may_be_the_table_still_and_is_not_made_anew() {
    let copies = Copies::read(&[], &[]);
    let mut inputs = inputs(&copies, 0, Buttons::None);
    assert!(matches!(decide(inputs).next, Next::BackOff(_)));
    inputs.back_offs = 1;
    for slot in Slot::ALL {
        let decision = decide(inputs);
        assert_eq!((decision.next, decision.write), (Next::Start(slot), None));
        inputs.refused[slot as usize] = true;
    }
    assert!(matches!(decide(inputs).next, Next::BackOff(_)));
}

#[test]
fn with_one_copy_unreadable_and_one_rubbish_the_table_is_made_anew_over_the_rubbish() {
    let copies = Copies::read(&[], &[0xff; BLOCK]);
    let change = copies.change(Table::made_anew(2)).unwrap();
    assert_eq!(change.copy, 1);
    // Should the other one come back, it holds.
    let mut before = Table::empty(Slot::B);
    before.generation = 9;
    let before = encode(&before);
    assert_eq!(Copies::read(&before, &change.block).current().unwrap().preferred, Slot::B);
}

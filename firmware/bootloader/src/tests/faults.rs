//! A copy of the table that can be read and not written, and faults that only a restart mends.

use super::*;
use belvedere_boot_slots::STARTS_BEFORE_A_BAD_ONE;

/// Both proven, `a` preferred.
fn two_proven() -> Table {
    Table::empty(Slot::A).committed(Slot::B).committed(Slot::A)
}

/// Machines with one copy of the table that refuses every write, or takes it and stays as it is.
fn with_a_broken_copy(table: Table) -> impl Iterator<Item = Fake> {
    (0..4).map(move |number| {
        let mut fake = Fake::new(table);
        let copy = Some(number % 2);
        (fake.fail_copy, fake.lose_copy) = if number < 2 { (copy, None) } else { (None, copy) };
        fake
    })
}

fn starts_of(fake: &Fake, slot: Slot) -> usize {
    fake.started.iter().filter(|(started, _)| *started == slot).count()
}

#[test]
fn a_slot_that_never_operates_gives_way_though_one_copy_cannot_be_written() {
    for mut fake in with_a_broken_copy(two_proven()) {
        for _ in 0..200 {
            fake.boot(1);
        }
        assert_eq!((starts_of(&fake, Slot::A), starts_of(&fake, Slot::B)), (100, 100));
    }
    // Also one that comes back.
    for mut fake in with_a_broken_copy(two_proven()) {
        fake.runs = [false, true, true];
        while starts_of(&fake, Slot::B) == 0 {
            fake.boot(3);
            assert!(fake.restarts < 5, "{:?}", fake.started);
        }
    }
}

#[test]
fn a_new_release_has_its_three_tries_and_no_more_though_one_copy_cannot_be_written() {
    for mut fake in with_a_broken_copy(two_releases()) {
        for _ in 0..5 {
            fake.boot(3);
        }
        let started: Vec<Slot> = fake.started.iter().map(|(slot, _)| *slot).collect();
        assert_eq!(started, [Slot::B, Slot::B, Slot::B, Slot::A, Slot::A]);
        assert!(fake.said.iter().any(|line| line.contains("cannot be written")), "{:?}", fake.said);
    }
}

#[test]
fn a_lost_table_is_made_anew_though_one_copy_cannot_be_written() {
    for mut fake in with_a_broken_copy(two_proven()) {
        fake.disk = [[0xff; BLOCK]; 2];
        fake.boot(4);
        assert_eq!((fake.started.len(), fake.table().record(Slot::A).starts), (1, 1));
    }
}

/// A disk whose power fails while the processor still runs: the second write followed in the same breath, and was torn as well.
#[test]
fn a_write_that_was_torn_and_failed_leaves_the_only_good_copy_alone() {
    for buttons in [Buttons::None, Buttons::FullReset] {
        let mut fake = Fake::new(two_proven());
        let good = fake.disk[1];
        (fake.tear_all, fake.buttons) = (true, buttons);
        fake.boot(1);
        assert_eq!((fake.disk[1] == good, fake.writes), (true, 1));
        assert!(fake.said.iter().any(|line| line.contains("the attempt changed it")), "{:?}", fake.said);
    }
    // One that is torn at each attempt is no table any more, and the other one counts from the next attempt on.
    let mut fake = Fake::new(two_proven());
    fake.tear_copy = Some(0);
    for _ in 0..3 {
        fake.boot(1);
    }
    assert_eq!((fake.started.len(), fake.table().record(Slot::A).starts), (3, 2));
}

#[test]
fn a_start_that_neither_copy_can_count_is_said_and_made_all_the_same() {
    for lost in [false, true] {
        let mut fake = Fake::new(two_proven());
        (fake.fail_writes, fake.lose_writes) = (!lost, lost);
        fake.boot(1);
        assert_eq!((fake.started.as_slice(), fake.writes), (&[(Slot::A, Some(State::Good))][..], 2));
        assert!(fake.said.iter().any(|line| line == "slot table: not written, so this is not counted"), "{:?}", fake.said);
    }
}

/// The firmware asks a TPM once, and does not show it for the rest of the power-on when that failed. Of a disk controller that
/// is stuck the same.
#[test]
fn a_fault_that_only_a_restart_mends_is_over_after_one() {
    for fuses in [false, true] {
        let mut fake = Fake::new(two_proven());
        fake.mended_by_a_restart = true;
        if fuses {
            fake.fuses_unreadable = u32::MAX;
        } else {
            fake.outcome = [Some(Refusal::Failed); 3];
        }
        fake.boot(500);
        assert_eq!((fake.restarts, fake.started.len()), (1, 0));
        // Everything was tried after each pause, and a person had that long to look.
        assert_eq!((fake.waited.as_slice(), fake.waited.iter().sum::<u32>()), (&BACK_OFF[..], 405));
        assert_eq!(fake.lights.last(), Some(&Condition::Error));
        assert!(fake.said.last().unwrap().starts_with("restarting: "), "{:?}", fake.said);
        fake.boot(500);
        // Nobody lost a turn by it for good.
        assert!(!fake.started.is_empty(), "{:?}", fake.said);
    }
}

/// Nothing was noted, and after the restart nobody holds the buttons any more.
#[test]
fn a_reset_that_is_asked_for_while_the_fuses_cannot_be_read_is_in_both_copies_before_the_first_pause() {
    for buttons in [Buttons::ShortReset, Buttons::LongReset, Buttons::FullReset] {
        // An earlier reset made the minimum release the preferred one.
        let mut table = all_good();
        table.preferred = if buttons == Buttons::ShortReset { Slot::Minimum } else { Slot::B };
        let mut fake = Fake::new(table);
        (fake.buttons, fake.fuses_unreadable, fake.mended_by_a_restart) = (buttons, u32::MAX, true);
        fake.boot(1);
        assert_eq!(fake.writes, 2);
        let copies = Copies::read(&fake.disk[0], &fake.disk[1]);
        assert!(copies.found().iter().all(|found| found.unwrap().reset == buttons.ask_for()), "{:?}", fake.said);
        fake.boot(20);
        assert_eq!((fake.writes, fake.restarts, fake.started.len()), (2, 1, 0));
        fake.buttons = Buttons::None;
        fake.boot(1);
        let slot = if buttons == Buttons::ShortReset { Slot::B } else { Slot::Minimum };
        assert_eq!((fake.started[0].0, fake.table().preferred), (slot, slot));
    }
    // Nowhere to note it.
    let mut fake = lost();
    (fake.buttons, fake.fuses_unreadable) = (Buttons::FullReset, u32::MAX);
    fake.boot(1);
    assert!(fake.said.iter().any(|line| line.contains("is not begun yet")), "{:?}", fake.said);
    let mut fake = Fake::new(all_good());
    (fake.buttons, fake.fuses_unreadable, fake.fail_writes) = (Buttons::FullReset, u32::MAX, true);
    fake.boot(20);
    assert_eq!(fake.said.iter().filter(|line| line.contains("is not begun")).count(), 1, "{:?}", fake.said);
}

#[test]
fn fuses_that_can_never_be_read_restart_the_machine_slowly_for_ever_and_wear_nothing() {
    let mut fake = Fake::new(two_proven());
    let before = fake.disk;
    fake.fuses_unreadable = u32::MAX;
    for power_on in 1..=100 {
        fake.boot(500);
        assert_eq!((fake.restarts, fake.waited.iter().sum::<u32>()), (power_on, 405 * power_on));
    }
    assert_eq!((fake.writes, fake.disk == before), (0, true));
}

/// Each time that an image is to be loaded is counted before, as ever; the restarts add nothing to that.
#[test]
fn slots_that_can_never_be_loaded_restart_the_machine_slowly_for_ever_and_keep_what_is_proven() {
    let mut fake = Fake::new(all_good());
    fake.outcome = [Some(Refusal::Failed); 3];
    for power_on in 1..=100 {
        let writes = fake.writes;
        fake.boot(500);
        assert_eq!((fake.restarts, fake.waited.iter().sum::<u32>()), (power_on, 405 * power_on));
        // Three slots in the beginning, and after each pause but the last.
        assert!(fake.writes - writes <= 15, "{}", fake.writes - writes);
    }
    assert!(Slot::ALL.into_iter().all(|slot| fake.table().record(slot).state == State::Good));
    // With a copy that refuses them each is asked for twice.
    for mut fake in with_a_broken_copy(all_good()) {
        fake.outcome = [Some(Refusal::Failed); 3];
        for _ in 0..3 {
            let writes = fake.writes;
            fake.boot(500);
            assert!((15..=30).contains(&(fake.writes - writes)), "{}", fake.writes - writes);
        }
    }
}

/// `a` is proven and had its turns, `b` was tried in vain.
fn one_proven_and_one_bad() -> Table {
    let bad = Record { state: State::Bad, ..Record::EMPTY };
    Table::empty(Slot::A).committed(Slot::A).with_starts(Slot::A, STARTS_BEFORE_A_BAD_ONE).with(Slot::B, bad)
}

#[test]
fn a_bad_slot_is_started_for_once_when_the_proven_one_had_its_turns_and_never_uncounted() {
    let mut fake = Fake::new(one_proven_and_one_bad());
    fake.boot(4);
    assert_eq!((fake.started.as_slice(), fake.waited.as_slice()), (&[(Slot::B, Some(State::Bad))][..], &[5][..]));
    fake.boot(4);
    assert_eq!(fake.started[1].0, Slot::A);
    // A bad slot that cannot be loaded costs the proven one nothing.
    let mut fake = Fake::new(one_proven_and_one_bad());
    fake.outcome[Slot::B as usize] = Some(Refusal::SecureBoot);
    fake.boot(4);
    assert_eq!((fake.refused.as_slice(), fake.started[0].0), (&[Slot::B][..], Slot::A));
    // Nothing would say that it had its turn.
    for lost in [false, true] {
        let mut fake = Fake::new(one_proven_and_one_bad());
        (fake.fail_writes, fake.lose_writes) = (!lost, lost);
        for _ in 0..10 {
            fake.boot(4);
        }
        assert_eq!((starts_of(&fake, Slot::A), starts_of(&fake, Slot::B)), (10, 0));
        assert!(
            fake.said.iter().any(|line| line == "slot b: not started, for its try could not be counted"),
            "{:?}",
            fake.said
        );
    }
}

/// The slot was passed over at every start, and each began with a pause of 5 s.
#[test]
fn a_level_that_the_table_has_too_low_is_put_right_when_the_image_is_loaded() {
    let mut table = Table::empty(Slot::B).committed(Slot::B);
    table = table.with(Slot::B, Record { rollback_level: 2, ..table.record(Slot::B) });
    let mut fake = Fake::new(table);
    (fake.fuses, fake.levels) = (3, [3; 3]);
    for _ in 0..2 {
        fake.boot(4);
    }
    assert_eq!((starts_of(&fake, Slot::B), fake.waited.as_slice()), (2, &[5][..]));
    assert_eq!(fake.table().record(Slot::B).rollback_level, 3);
    // Where that cannot be written the slot starts all the same.
    let mut fake = Fake::new(table);
    (fake.fuses, fake.levels, fake.fail_writes) = (3, [3; 3], true);
    fake.boot(4);
    assert_eq!(starts_of(&fake, Slot::B), 1);
}

#[test]
fn a_reset_that_cannot_be_noted_for_there_is_no_table_and_none_may_be_written_is_said() {
    let says = |fake: &Fake| fake.said.iter().filter(|line| line.contains("is not begun")).count();
    for buttons in [Buttons::None, Buttons::ShortReset, Buttons::FullReset] {
        let mut fake = Fake::new(two_proven());
        (fake.unreadable, fake.buttons, fake.outcome[0]) = ([true; 2], buttons, Some(Refusal::Failed));
        fake.boot(6);
        assert_eq!(fake.started[0].0, Slot::B);
        assert_eq!(says(&fake), usize::from(buttons != Buttons::None), "{:?}", fake.said);
        // A table that can be made anew says what was asked for.
        let mut fake = lost();
        (fake.levels, fake.buttons) = ([3; 3], buttons);
        fake.boot(6);
        assert_eq!((says(&fake), fake.table().reset), (0, buttons.ask_for()));
    }
}

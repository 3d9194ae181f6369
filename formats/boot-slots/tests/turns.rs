//! Slots that are passed over, the bad ones and those that the table says are below the fuses, have their turns, too: when no
//! proven one comes up, and only then.

mod common;

use belvedere_boot_slots::{
    BLOCK, Buttons, Change, Copies, Decision, Inputs, Next, Record, Refusal, Reset, STARTS, STARTS_BEFORE_A_BAD_ONE, Slot,
    State, Table, decide, encode, initial, loaded, operating, refused,
};
use common::{Tear, slot, table, tear, torn};
use proptest::prelude::*;

struct Appliance {
    disk: [Vec<u8>; 2],
    fuses: u32,
    /// What is signed in the images.
    levels: [u32; 3],
    /// Whether a slot that is started operates.
    well: [bool; 3],
    /// The power is cut in the middle of the write with this number.
    cut: Option<(usize, Tear)>,
    /// This copy can be read and not written.
    broken: Option<usize>,
    started: Vec<Slot>,
}

impl Appliance {
    /// Every image has the level that the table gives it.
    fn new(table: Table, fuses: u32, well: &[Slot]) -> Self {
        let disk = initial(table).map(|block| block.to_vec());
        let levels = Slot::ALL.map(|slot| table.record(slot).rollback_level);
        let well = Slot::ALL.map(|slot| well.contains(&slot));
        Self { disk, fuses, levels, well, cut: None, broken: None, started: Vec::new() }
    }

    fn copies(&self) -> Copies {
        Copies::read(&self.disk[0], &self.disk[1])
    }

    fn table(&self) -> Table {
        self.copies().current().expect("one copy is whole")
    }

    /// Nothing when the power is cut.
    fn write(&mut self, table: Option<Table>) -> Option<()> {
        let Some(table) = table else { return Some(()) };
        let mut changes = self.copies().changes(table);
        let change = changes.find(|change| Some(change.copy) != self.broken);
        let Change { copy, block, .. } = change.expect("one copy can be written");
        let cut = match self.cut.take() {
            Some((0, tear)) => Some(tear),
            Some((left, tear)) => {
                self.cut = Some((left - 1, tear));
                None
            }
            None => None,
        };
        self.disk[copy] = cut.as_ref().map_or(block.to_vec(), |tear| torn(&self.disk[copy], &block, tear));
        cut.is_none().then_some(())
    }

    /// The slot that runs, whether it operates or not; nothing when the power is cut before, or nothing starts.
    fn power_on(&mut self) -> Option<Slot> {
        let (mut skip, mut back_offs) = ([false; 3], 0);
        while back_offs < 4 {
            let copies = self.copies();
            let before = self.table();
            let Decision { write, next, .. } =
                decide(Inputs { copies: &copies, fuses: self.fuses, buttons: Buttons::None, refused: skip, back_offs });
            self.write(write)?;
            let Next::Start(slot) = next else {
                (skip, back_offs) = ([false; 3], back_offs + 1);
                continue;
            };
            let bad = matches!(before.record(slot).state, State::Bad | State::Trying { left: 0 });
            let has_turns = |other: &Slot| {
                let Record { state, rollback_level, starts } = before.record(*other);
                state == State::Good
                    && rollback_level >= self.fuses
                    && starts < STARTS_BEFORE_A_BAD_ONE
                    && !skip[*other as usize]
            };
            assert!(!bad || !Slot::ALL.iter().any(has_turns), "slot {} before a proven one: {before:?}", slot.name());
            let level = self.levels[slot as usize];
            if level < self.fuses {
                skip[slot as usize] = true;
                self.write(refused(&self.table(), slot, Refusal::RolledBack { level }))?;
                continue;
            }
            self.write(loaded(&self.table(), slot, level))?;
            self.started.push(slot);
            if self.well[slot as usize] {
                self.write(operating(&self.table(), slot))?;
            }
            return Some(slot);
        }
        None
    }

    /// Which slots so many power-ons start: `a`, `b`, `m`; `-` for none.
    fn starts(&mut self, power_ons: usize) -> String {
        (0..power_ons).map(|_| self.power_on().map_or('-', |slot| ['a', 'b', 'm'][slot as usize])).collect()
    }
}

fn with(table: Table, slot: Slot, state: State, rollback_level: u32) -> Table {
    table.with(slot, Record { state, rollback_level, starts: 0 })
}

/// After an update that was tried in vain: `a` is proven, `b` bad and still the preferred one.
fn after_a_failed_update(minimum: State) -> Table {
    let mut table = with(Table::empty(Slot::A).committed(Slot::A), Slot::B, State::Bad, 0);
    table.preferred = Slot::B;
    with(table, Slot::Minimum, minimum, 0)
}

/// 100 of 100 starts were of `a`.
#[test]
fn a_bad_slot_that_would_operate_is_started_when_no_proven_one_comes_up() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Empty), 0, &[Slot::B]);
    assert_eq!(appliance.starts(17), "aaaaaaaaaabababab");
    assert_eq!(appliance.table().record(Slot::B).state, State::Bad, "nothing is proven by it");
    let mut appliance = Appliance::new(after_a_failed_update(State::Good), 0, &[Slot::B]);
    assert_eq!(appliance.starts(30), "aaaaammmmmaaaaammmmmbambambamb");
}

/// Five cuts, each before it operates, had the sixth power-on start a release that was tried in vain.
#[test]
fn nine_power_cuts_in_a_row_start_no_bad_slot_while_the_proven_one_is_well() {
    let cuts = usize::from(STARTS_BEFORE_A_BAD_ONE) - 1;
    let mut appliance = Appliance::new(after_a_failed_update(State::Empty), 0, &[Slot::B]);
    for _ in 0..3 {
        appliance.well[Slot::A as usize] = false;
        assert_eq!(appliance.starts(cuts), "a".repeat(cuts));
        appliance.well[Slot::A as usize] = true;
        assert_eq!(appliance.starts(1), "a");
        assert_eq!(appliance.table().record(Slot::A).starts, 0);
    }
}

/// It had its turn when the proven one had one round, for the unproven one was taken for the one to wait for.
#[test]
fn a_bad_slot_waits_for_both_rounds_though_an_unproven_one_cannot_be_loaded() {
    let table = after_a_failed_update(State::Bad).written(Slot::B, 0).with_starts(Slot::A, STARTS);
    let copies = Copies::read(&[], &encode(&table));
    let inputs = Inputs { copies: &copies, fuses: 0, buttons: Buttons::None, refused: [false, true, false], back_offs: 0 };
    for back_offs in 0..2 {
        let decision = decide(Inputs { back_offs, ..inputs });
        assert_eq!(decision.next, Next::Start(Slot::A));
        assert_eq!(decision.write.map(|table| table.record(Slot::A).starts), Some(STARTS + 1));
    }
}

#[test]
fn a_proven_slot_that_comes_back_has_had_its_turns_of_the_running_round() {
    let table = after_a_failed_update(State::Empty);
    for (starts, after) in [(0, 5), (1, 5), (5, 5), (6, 10), (10, 10), (11, 11), (u8::MAX, u8::MAX)] {
        let table = table.with_starts(Slot::A, starts);
        let found = refused(&table, Slot::A, Refusal::CameBack).unwrap_or(table);
        assert_eq!(found.record(Slot::A).starts, after, "{starts}");
    }
}

/// A mark of the last turn and a second round's count are never taken for each other, in whatever order slots become bad and
/// are written again.
#[test]
fn counts_of_the_second_round_mark_no_last_turn() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Good), 0, &[]);
    assert_eq!(appliance.starts(13), "aaaaammmmmaaa");
    let table = appliance.table();
    assert_eq!(Slot::ALL.map(|slot| table.record(slot).starts), [8, 0, 5]);
    // Nothing is passed over any more: the turns of one round, and the last one's mark, above every count.
    appliance.disk = initial(table.emptied(Slot::B)).map(|block| block.to_vec());
    assert_eq!(appliance.starts(20), "aaaaammmmmaaaaammmmm");
    // And back, from a marked one.
    let table = Table::empty(Slot::A).committed(Slot::B).committed(Slot::A).with(Slot::Minimum, Record::EMPTY);
    let mut appliance = Appliance::new(table, 0, &[]);
    assert_eq!(appliance.starts(10), "aaaaabbbbb");
    assert_eq!(appliance.table().record(Slot::B).starts, STARTS_BEFORE_A_BAD_ONE + 1);
    let table = with(appliance.table(), Slot::Minimum, State::Bad, 0);
    appliance.disk = initial(table).map(|block| block.to_vec());
    assert_eq!(appliance.starts(21), "aaaaabbbbbaaaaabbbbbm");
}

#[test]
fn a_bad_slot_that_never_operates_has_one_start_when_the_proven_ones_had_all_of_theirs() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Empty), 0, &[]);
    assert_eq!(appliance.starts(33), "aaaaaaaaaab".repeat(3));
    let mut appliance = Appliance::new(after_a_failed_update(State::Good), 0, &[]);
    assert_eq!(appliance.starts(42), "aaaaammmmmaaaaammmmmb".repeat(2));
}

#[test]
fn a_proven_slot_that_lost_its_turns_to_power_cuts_takes_over_from_a_bad_one_and_is_kept() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Empty), 0, &[Slot::B]);
    assert_eq!(appliance.starts(11), "aaaaaaaaaab");
    appliance.well[Slot::A as usize] = true;
    assert_eq!(appliance.starts(50), "a".repeat(50));
    assert_eq!(appliance.table().record(Slot::A).starts, 0);
}

#[test]
fn with_two_bad_slots_each_has_its_turn() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Bad), 0, &[]);
    let starts = appliance.starts(220);
    let count = |name| starts.chars().filter(|start| *start == name).count();
    assert!(count('a') == 200 && count('b') > 4 && count('m') > 4, "{starts}");
}

#[test]
fn a_bad_slot_has_its_turn_though_one_copy_cannot_be_written() {
    for broken in 0..2 {
        let mut appliance = Appliance::new(after_a_failed_update(State::Empty), 0, &[]);
        appliance.broken = Some(broken);
        assert_eq!(appliance.starts(33), "aaaaaaaaaab".repeat(3));
        appliance.well[Slot::B as usize] = true;
        assert_eq!(appliance.starts(17), "aaaaaaaaaabababab");
    }
}

/// With two proven ones that never operate it had none: these took turns for ever.
#[test]
fn an_unproven_slot_that_is_not_preferred_has_its_tries_after_the_proven_ones() {
    let mut appliance = Appliance::new(after_a_failed_update(State::Good).written(Slot::B, 0), 0, &[]);
    let mut table = appliance.table();
    (table.preferred, table.reset) = (Slot::A, Reset::Minimum);
    appliance.disk = initial(table).map(|block| block.to_vec());
    assert_eq!(appliance.starts(24), "mmmmmaaaaabbbmmmmmaaaaab");
}

/// The table says 2 of an image in which 3 is signed.
#[test]
fn a_level_that_the_table_has_too_low_hides_no_slot() {
    let table = with(Table::empty(Slot::A).committed(Slot::B), Slot::B, State::Good, 2);
    for (other, expected) in [(State::Bad, "b"), (State::Good, "aaaaaaaaaabaaaaaaaaaab")] {
        let mut appliance = Appliance::new(with(table, Slot::A, other, 3), 3, &[Slot::B]);
        appliance.levels[Slot::B as usize] = 3;
        let starts = appliance.starts(60);
        let first = starts.find('b').unwrap_or_else(|| panic!("slot b never starts: {starts}"));
        assert!(first <= expected.len(), "{starts}");
        assert!(starts.ends_with(&"b".repeat(20)), "{starts}");
        assert_eq!(appliance.table().record(Slot::B).rollback_level, 3);
    }
    // One that is truly too old is looked at, and another one started.
    let mut appliance = Appliance::new(with(table, Slot::A, State::Good, 3), 3, &[Slot::B]);
    assert_eq!(appliance.starts(30), "a".repeat(30));
}

proptest! {
    // Each case is many power-ons.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(4)))]

    /// Whatever the table says of state and level, one slot that would operate is reached, again and again, and power
    /// cuts in the middle of writes do not change that.
    #[test]
    fn the_only_slot_that_is_well_is_reached_again_and_again_whatever_the_table_says_of_it(
        table in table(), well in slot(), fuses in 0u32..4, levels in [0u32..4, 0u32..4, 0u32..4],
        cuts in proptest::collection::vec((0usize..140, 0usize..4, tear()), 0..5), broken in proptest::option::of(0usize..2),
    ) {
        prop_assume!(table.record(well).state != State::Empty);
        let mut appliance = Appliance::new(table, fuses, &[well]);
        appliance.disk = [vec![0xff; BLOCK], encode(&table).to_vec()];
        appliance.levels = levels;
        appliance.levels[well as usize] = fuses;
        // Not both: where only one copy can be written, a cut may lose the table.
        appliance.broken = broken;
        let cuts = if broken.is_some() { Vec::new() } else { cuts };
        for window in 0..2 {
            for number in 0..140 {
                let cut = cuts.iter().find(|(at, ..)| window == 0 && *at == number);
                appliance.cut = cut.map(|(_, write, tear)| (*write, tear.clone()));
                appliance.power_on();
            }
            prop_assert!(appliance.started.contains(&well), "{:?}", appliance.started);
            appliance.started.clear();
        }
        let after = appliance.table();
        for slot in Slot::ALL {
            let (was, is) = (table.record(slot).state, after.record(slot).state);
            let unproven = matches!(was, State::Written | State::Trying { .. });
            prop_assert!(was == is || unproven, "slot {}: {was:?} is {is:?} now", slot.name());
        }
    }
}

//! A reset that was begun is finished, whatever becomes of the power, and never keeps an appliance from starting.

mod common;

use belvedere_boot_slots::{
    BLOCK, Buttons, Change, Copies, Inputs, Next, Record, Refusal, Reset, STARTS, Slot, State, Table, begun, data_destroyed,
    decide, decode, encode, initial, operating, refused, reset_done,
};
use belvedere_panel::Condition;
use common::{Tear, table, tear, torn};
use proptest::prelude::*;

/// What a slot does when it is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Operates,
    /// Starts, destroys the data when that is to be done, and restarts before it operates.
    Dies,
    Refused(Refusal),
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        Just(Behaviour::Operates),
        Just(Behaviour::Dies),
        Just(Behaviour::Refused(Refusal::SecureBoot)),
        Just(Behaviour::Refused(Refusal::Missing)),
    ]
}

/// What is in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Old,
    /// Half destroyed.
    Half,
    Blank,
    New,
}

/// The power was cut.
struct Cut;

struct Appliance {
    disk: [Vec<u8>; 2],
    behaviours: [Behaviour; 3],
    data: Data,
    /// Cut at these operations (counted from power-on to power-on), each write torn like this.
    cuts: Vec<(usize, Tear)>,
    operations: usize,
    /// The slots that ran, and the light that showed when they were started.
    ran: Vec<(Slot, Condition)>,
    operates: bool,
}

impl Appliance {
    fn new(table: Table, behaviours: [Behaviour; 3], cuts: Vec<(usize, Tear)>) -> Self {
        let disk = initial(table).map(|block| block.to_vec());
        Self { disk, behaviours, data: Data::Old, cuts, operations: 0, ran: Vec::new(), operates: false }
    }

    fn copies(&self) -> Copies {
        Copies::read(&self.disk[0], &self.disk[1])
    }

    fn table(&self) -> Table {
        self.copies().current().expect("one copy is whole")
    }

    fn cut(&mut self) -> Option<Tear> {
        self.operations += 1;
        let at = self.cuts.iter().position(|(operation, _)| *operation == self.operations)?;
        Some(self.cuts.remove(at).1)
    }

    fn write(&mut self, change: &Change) -> Result<(), Cut> {
        if let Some(tear) = self.cut() {
            self.disk[change.copy] = torn(&self.disk[change.copy], &change.block, &tear);
            return Err(Cut);
        }
        self.disk[change.copy] = change.block.to_vec();
        Ok(())
    }

    fn write_both(&mut self, table: Table) -> Result<(), Cut> {
        let changes: Vec<Change> = self.copies().durable_changes(table).collect();
        changes.iter().try_for_each(|change| self.write(change))
    }

    fn write_one(&mut self, table: Table) -> Result<(), Cut> {
        let change = self.copies().change(table).expect("may be written");
        self.write(&change)
    }

    /// What runs from power-on to power-off.
    fn power_on(&mut self, buttons: Buttons) -> Result<(), Cut> {
        let (mut skip, mut back_offs) = ([false; 3], 0);
        loop {
            let copies = self.copies();
            let decision = decide(Inputs { copies: &copies, fuses: 0, buttons, refused: skip, back_offs });
            match decision.write {
                Some(table) if decision.begins_reset => self.write_both(table)?,
                Some(table) => self.write_one(table)?,
                None => {}
            }
            let slot = match decision.next {
                Next::BackOff(_) if back_offs > 3 => return Ok(()),
                Next::BackOff(_) => {
                    (skip, back_offs) = ([false; 3], back_offs + 1);
                    continue;
                }
                Next::Start(slot) => slot,
            };
            match self.behaviours[slot as usize] {
                Behaviour::Refused(why) => {
                    skip[slot as usize] = true;
                    if let Some(table) = refused(&self.table(), slot, why) {
                        self.write_one(table)?;
                    }
                }
                behaviour => {
                    self.ran.push((slot, decision.shows));
                    return self.run(slot, behaviour == Behaviour::Operates);
                }
            }
        }
    }

    /// What `init` does.
    fn run(&mut self, slot: Slot, operates: bool) -> Result<(), Cut> {
        if self.table().reset == Reset::Full {
            assert_ne!(self.data, Data::New, "what was stored after the reset is destroyed");
            self.data = Data::Half;
            if self.cut().is_some() {
                return Err(Cut);
            }
            self.data = Data::Blank;
            self.write_both(data_destroyed(&self.table()).expect("a full reset"))?;
        }
        assert_ne!(self.data, Data::Half, "half a reset");
        // Services run, and store.
        if self.data == Data::Blank {
            self.data = Data::New;
        }
        if operates {
            self.operates = true;
            if let Some(table) = operating(&self.table(), slot) {
                self.write_one(table)?;
            }
            if let Some(table) = reset_done(&self.table()) {
                self.write_both(table)?;
            }
        }
        Ok(())
    }
}

fn quiet(mut table: Table) -> Table {
    table.reset = Reset::None;
    table
}

fn gesture() -> impl Strategy<Value = Buttons> {
    prop_oneof![Just(Buttons::ShortReset), Just(Buttons::LongReset), Just(Buttons::FullReset)]
}

proptest! {
    // Each case is many power-ons.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(4)))]

    #[test]
    fn a_reset_that_was_begun_is_finished_and_one_that_was_not_changes_nothing(
        table in table(), well in common::slot(), behaviours in [behaviour(), behaviour(), behaviour()], buttons in gesture(),
        cuts in proptest::collection::vec((1usize..14, tear()), 0..4),
    ) {
        // At least one slot is well: proven, and operates.
        let good = Record { state: State::Good, ..table.record(well) };
        let before = quiet(table).with(well, good);
        let mut behaviours = behaviours;
        behaviours[well as usize] = Behaviour::Operates;
        let minimum = before.record(Slot::Minimum).state;
        let minimum_is_there = !matches!(minimum, State::Empty | State::Bad | State::Trying { left: 0 });
        let mut appliance = Appliance::new(before, behaviours, cuts);
        // The buttons are held once. A cut before the wish is on the disk loses it, and nothing was done.
        let first = appliance.power_on(buttons);
        let noted = first.is_ok() || appliance.table().reset == buttons.ask_for() || appliance.data != Data::Old;
        for _ in 0..120 {
            if appliance.cuts.is_empty() && appliance.operates && appliance.table().reset == Reset::None {
                break;
            }
            appliance.operations = 0;
            let _ = appliance.power_on(Buttons::None);
        }
        prop_assert!(appliance.operates, "{:?}", appliance.ran);
        let after = appliance.table();
        prop_assert_eq!(after.reset, Reset::None, "the reset is never done: {:?}", appliance.ran);
        if !noted {
            prop_assert_eq!(appliance.data, Data::Old);
            return Ok(());
        }
        prop_assert_eq!(appliance.data, if buttons == Buttons::FullReset { Data::New } else { Data::Old });
        let (ran, _) = appliance.ran.last().copied().unwrap();
        if buttons.ask_for().restores_the_minimum() && minimum_is_there {
            prop_assert_eq!(after.preferred, Slot::Minimum);
            if behaviours[Slot::Minimum as usize] == Behaviour::Operates && minimum == State::Good {
                prop_assert_eq!(ran, Slot::Minimum);
            }
        }
    }

    /// Whatever the table says, a reset starts what an appliance without one would start in the end.
    #[test]
    fn a_reset_keeps_nothing_from_starting(table in table(), buttons in gesture(), behaviours in [behaviour(), behaviour(), behaviour()]) {
        let starts = |buttons| {
            let mut appliance = Appliance::new(quiet(table), behaviours, Vec::new());
            for number in 0..120 {
                let _ = appliance.power_on(if number == 0 { buttons } else { Buttons::None });
                if appliance.operates {
                    break;
                }
            }
            appliance.operates
        };
        prop_assert!(starts(buttons) || !starts(Buttons::None));
    }
}

fn good_everywhere() -> Table {
    let mut table = Table::made_anew(0);
    table.last_good = Some(Slot::B);
    table.preferred = Slot::B;
    table
}

/// The guide's table: "short press reset", "long press reset", "long press power and reset".
#[test]
fn each_gesture_does_what_the_guide_says_and_shows_its_light() {
    for (buttons, slot, light, data) in [
        (Buttons::None, Slot::B, Condition::Booting, Data::Old),
        (Buttons::ShortReset, Slot::B, Condition::RestoringLatest, Data::Old),
        (Buttons::LongReset, Slot::Minimum, Condition::RestoringMinimum, Data::Old),
        (Buttons::FullReset, Slot::Minimum, Condition::RestoringMinimum, Data::New),
    ] {
        let mut appliance = Appliance::new(good_everywhere(), [Behaviour::Operates; 3], Vec::new());
        assert!(appliance.power_on(buttons).is_ok());
        assert_eq!((appliance.ran.clone(), appliance.data), (vec![(slot, light)], data));
        // It is over, and the slot stays the preferred one.
        assert!(appliance.power_on(Buttons::None).is_ok());
        assert_eq!(appliance.ran[1], (slot, Condition::Booting));
        assert_eq!(appliance.table().preferred, slot);
    }
}

#[test]
fn the_latest_release_comes_back_after_the_minimum_one_was_restored() {
    let mut appliance = Appliance::new(good_everywhere(), [Behaviour::Operates; 3], Vec::new());
    for buttons in [Buttons::LongReset, Buttons::ShortReset, Buttons::None] {
        assert!(appliance.power_on(buttons).is_ok());
    }
    assert_eq!(appliance.ran.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [Slot::Minimum, Slot::B, Slot::B]);
}

/// The update in `b` was tried in vain, and `a`, which is well, lost its turns: the starts of `b` were forgotten, and `b` was
/// started first.
#[test]
fn the_latest_release_is_the_last_proven_one_when_the_preferred_one_was_tried_in_vain() {
    for state in [State::Bad, State::Trying { left: 0 }, State::Empty] {
        let mut table = Table::empty(Slot::A).committed(Slot::A).with_starts(Slot::A, 2 * STARTS);
        table = table.with(Slot::B, Record { state, ..Record::EMPTY });
        table.preferred = Slot::B;
        let mut appliance = Appliance::new(table, [Behaviour::Operates; 3], Vec::new());
        assert!(appliance.power_on(Buttons::ShortReset).is_ok());
        assert_eq!(appliance.ran, [(Slot::A, Condition::RestoringLatest)], "{state:?}");
        assert_eq!((appliance.table().preferred, appliance.table().reset), (Slot::A, Reset::None));
    }
}

#[test]
fn an_empty_minimum_slot_is_not_preferred_and_the_reset_ends_all_the_same() {
    let table = good_everywhere().emptied(Slot::Minimum);
    let mut appliance = Appliance::new(table, [Behaviour::Operates; 3], Vec::new());
    assert!(appliance.power_on(Buttons::FullReset).is_ok());
    assert_eq!(appliance.ran, [(Slot::B, Condition::RestoringMinimum)]);
    assert_eq!((appliance.table().reset, appliance.table().preferred, appliance.data), (Reset::None, Slot::B, Data::New));
}

#[test]
fn a_reset_goes_on_at_every_start_until_it_is_done_and_a_larger_one_replaces_a_smaller_one() {
    let mut dying = [Behaviour::Operates; 3];
    dying[Slot::Minimum as usize] = Behaviour::Dies;
    let mut appliance = Appliance::new(good_everywhere(), dying, Vec::new());
    for number in 0..STARTS {
        assert!(appliance.power_on(if number == 0 { Buttons::LongReset } else { Buttons::None }).is_ok());
        assert_eq!(appliance.ran.last(), Some(&(Slot::Minimum, Condition::RestoringMinimum)));
        assert_eq!(appliance.table().reset, Reset::Minimum);
    }
    // It had its turns: another slot ends the reset.
    assert!(appliance.power_on(Buttons::None).is_ok());
    assert_eq!(appliance.ran.last(), Some(&(Slot::B, Condition::RestoringMinimum)));
    assert_eq!(appliance.table().reset, Reset::None);

    let table = begun(&good_everywhere(), Reset::Latest, 0);
    assert_eq!(begun(&table, Reset::Full, 0).reset, Reset::Full);
    let full = begun(&table, Reset::Full, 0);
    assert_eq!(begun(&full, Reset::Latest, 0), full);
    assert_eq!(reset_done(&full), None, "not before the data is destroyed");
    assert_eq!(data_destroyed(&full).map(|table| table.reset), Some(Reset::Minimum));
}

/// Byte 128 is in the room that readers of this version carried along from the first: an older bootloader or updater
/// between the gesture and its end loses nothing.
#[test]
fn an_older_reader_of_this_version_carries_the_reset_along() {
    let block = encode(&begun(&good_everywhere(), Reset::Full, 0));
    assert_eq!(block[128], 3);
    let mut without = block;
    without[128] = 0;
    let checksum = crc32fast::hash(&without[..BLOCK - 4]);
    without[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
    // Everything that an older reader looks at is a table without a reset.
    let older = decode(&without).unwrap();
    assert_eq!((older.reset, older.preferred), (Reset::None, Slot::Minimum));
}

/// Found by the property above: the generation grew by three at every start, and the turn among three was always the same.
#[test]
fn the_last_resort_has_its_turns_also_when_another_slot_is_refused_before_it() {
    let bad = |table: Table, slot: Slot| table.with(slot, Record { state: State::Bad, ..Record::EMPTY });
    for preferred in Slot::ALL {
        for generation in 0..6 {
            let mut table = bad(bad(Table::made_anew(0), Slot::A), Slot::Minimum);
            (table.preferred, table.generation) = (preferred, generation);
            let behaviours = [Behaviour::Operates, Behaviour::Refused(Refusal::SecureBoot), Behaviour::Dies];
            let mut appliance = Appliance::new(table, behaviours, Vec::new());
            appliance.disk = [vec![0xff; BLOCK], encode(&table).to_vec()];
            for _ in 0..40 {
                assert!(appliance.power_on(Buttons::None).is_ok());
            }
            assert!(appliance.operates, "{:?}", appliance.ran);
        }
    }
}

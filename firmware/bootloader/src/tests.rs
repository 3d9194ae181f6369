//! A machine of memory that can fail at any of its operations.

use super::*;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use belvedere_boot_slots::{Record, STARTS, TRIES, encode, initial};
use belvedere_kernel_stub::{RELEASE, UPDATES, release_section};
use belvedere_secure_boot::lists::{self, SHA256, X509};
use belvedere_secure_boot::program::Program;
use belvedere_secure_boot::update;
use belvedere_secure_boot::updates::{Update, encode as encode_updates};

use crate::updates::File;

/// Ends a round in the place in which a kernel takes over.
struct Runs;

mod faults;
mod updates;

struct Fake {
    disk: [[u8; BLOCK]; 2],
    /// What becomes of each slot's image on the slot's own ESP and on the other one: `None` is whole.
    outcome: [Option<Refusal>; 3],
    elsewhere: [Option<Refusal>; 3],
    /// The rollback level that is signed in each slot's image, on the slot's own ESP and on the other one.
    levels: [u32; 3],
    levels_elsewhere: [u32; 3],
    /// Whether a slot that is started runs; the power-on is over then.
    runs: [bool; 3],
    /// The power-on is over: something runs, or the machine restarts.
    over: bool,
    restarts: u32,
    measured: Vec<Slot>,
    /// What the measurement gave, as it was told to the operating system.
    told: Vec<Result<(), String>>,
    fail_measuring: bool,
    fuses: u32,
    /// How many more times they cannot be read.
    fuses_unreadable: u32,
    buttons: Buttons,
    /// How often the buttons were looked at.
    looked: u32,
    fail_writes: bool,
    lose_writes: bool,
    /// This copy cannot be written.
    fail_copy: Option<usize>,
    /// This copy takes every write and stays as it is.
    lose_copy: Option<usize>,
    /// A write to this copy leaves half of it, and fails. Every copy with `tear_all`: the disk loses its power.
    tear_copy: Option<usize>,
    tear_all: bool,
    /// How many writes were asked for.
    writes: u32,
    /// A restart ends what is wrong with the TPM and the images.
    mended_by_a_restart: bool,
    unreadable: [bool; 2],
    started: Vec<(Slot, Option<State>)>,
    /// Slots whose own ESP had no image that could be loaded.
    refused: Vec<Slot>,
    /// How many images are loaded and neither started nor let go.
    loaded: i32,
    waited: Vec<u32>,
    lights: Vec<Condition>,
    said: Vec<String>,
    /// The firmware's databases, `db` and `dbx`.
    databases: [Vec<u8>; 2],
    /// What lies on the ESPs. The image of a slot is also what is loaded of it.
    files: Vec<(File, Vec<u8>)>,
    /// How many more updates the firmware takes before it refuses one.
    takes: usize,
    /// It says that it took one, and did not.
    loses: bool,
}

impl Fake {
    fn new(table: Table) -> Self {
        Self {
            disk: initial(table),
            outcome: [None; 3],
            elsewhere: [Some(Refusal::Missing); 3],
            levels: [0; 3],
            levels_elsewhere: [0; 3],
            runs: [true; 3],
            over: false,
            restarts: 0,
            measured: Vec::new(),
            told: Vec::new(),
            fail_measuring: false,
            fuses: 0,
            fuses_unreadable: 0,
            buttons: Buttons::None,
            looked: 0,
            unreadable: [false; 2],
            loaded: 0,
            fail_writes: false,
            lose_writes: false,
            fail_copy: None,
            lose_copy: None,
            tear_copy: None,
            tear_all: false,
            writes: 0,
            mended_by_a_restart: false,
            started: Vec::new(),
            refused: Vec::new(),
            waited: Vec::new(),
            lights: Vec::new(),
            said: Vec::new(),
            databases: [Vec::new(), Vec::new()],
            files: Vec::new(),
            takes: usize::MAX,
            loses: false,
        }
    }

    fn table(&self) -> Table {
        Copies::read(&self.disk[0], &self.disk[1]).current().unwrap()
    }

    fn note(&mut self, slot: Slot) {
        let state = Copies::read(&self.disk[0], &self.disk[1]).current().map(|table| table.record(slot).state);
        self.started.push((slot, state));
    }

    /// One power-on, at most so many rounds of it.
    fn boot(&mut self, rounds: usize) {
        self.over = false;
        self.measured.clear();
        let mut state = Rounds::begin(self);
        for _ in 0..rounds {
            let round = catch_unwind(AssertUnwindSafe(|| state.round(self)));
            if let Err(cause) = round
                && !cause.is::<Runs>()
            {
                resume_unwind(cause);
            }
            if self.over {
                break;
            }
        }
        assert!(self.measured.len() <= 1, "PCR 12 is extended once in a power-on: {:?}", self.measured);
        assert_eq!(self.loaded, 0, "an image stays in memory");
    }
}

impl Machine for Fake {
    type Image = Slot;

    fn read_copy(&mut self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String> {
        *block = self.disk[copy];
        if self.unreadable[copy] { Err("DEVICE_ERROR".to_string()) } else { Ok(()) }
    }
    fn write(&mut self, change: &Change) -> Result<(), String> {
        self.writes += 1;
        if self.fail_writes {
            return Err("write protected".to_string());
        }
        if self.fail_copy == Some(change.copy) {
            return Err("bad sector".to_string());
        }
        if self.tear_all || self.tear_copy == Some(change.copy) {
            self.disk[change.copy][..BLOCK / 64].copy_from_slice(&change.block[..BLOCK / 64]);
            return Err("no answer".to_string());
        }
        if !self.lose_writes && self.lose_copy != Some(change.copy) {
            self.disk[change.copy] = change.block;
        }
        Ok(())
    }
    fn fuses(&mut self) -> Result<u32, String> {
        if self.fuses_unreadable > 0 {
            self.fuses_unreadable -= 1;
            return Err("rollback fuses: the TPM does not answer".to_string());
        }
        Ok(self.fuses)
    }
    fn buttons(&mut self) -> Buttons {
        self.looked += 1;
        self.buttons
    }
    fn show(&mut self, condition: Condition) {
        self.lights.push(condition);
    }
    fn wait(&mut self, seconds: u32) {
        self.waited.push(seconds);
    }
    fn places(&mut self, _: Slot) -> Result<usize, String> {
        Ok(2)
    }
    fn load(&mut self, slot: Slot, place: usize) -> Result<(Slot, u32), (Refusal, String)> {
        let (outcome, levels) = [(self.outcome, self.levels), (self.elsewhere, self.levels_elsewhere)][place];
        match outcome[slot as usize] {
            Some(why) => {
                if place == 0 {
                    self.refused.push(slot);
                }
                Err((why, format!("{why:?}")))
            }
            None => {
                self.loaded += 1;
                Ok((slot, levels[slot as usize]))
            }
        }
    }
    fn unload(&mut self, _: Slot) {
        self.loaded -= 1;
    }
    fn updates(&mut self, slot: &Slot) -> Option<Vec<u8>> {
        let (_, content) = self.files.iter().find(|(file, _)| *file == File::Kernel(*slot))?;
        belvedere_kernel_stub::Image::parse(content).unwrap().file_section(UPDATES).map(<[u8]>::to_vec)
    }
    fn database(&mut self, database: Database) -> Result<Vec<u8>, String> {
        Ok(self.databases[database as usize].clone())
    }
    fn append(&mut self, database: Database, content: &[u8]) -> Result<(), String> {
        assert!(self.measured.is_empty(), "changed behind the measurement");
        self.takes = self.takes.checked_sub(1).ok_or("SECURITY VIOLATION")?;
        if !self.loses {
            let current = &mut self.databases[database as usize];
            *current = lists::appended(current, update::decode(database, content).unwrap()).unwrap();
        }
        Ok(())
    }
    fn files(&mut self, wanted: File, look: &mut dyn FnMut(&str, &[u8])) -> Result<(), String> {
        for (file, content) in self.files.iter().filter(|(file, _)| *file == wanted) {
            look(&std::format!("{file:?}"), content);
        }
        Ok(())
    }
    fn measure(&mut self, slot: Slot) -> Result<(), String> {
        assert_eq!(self.loaded, 1, "measured before it was loaded");
        self.measured.push(slot);
        if self.fail_measuring { Err("the TPM is broken".to_string()) } else { Ok(()) }
    }
    fn name(&mut self, _: Slot, measured: &Result<(), String>, table: Option<Mark>) {
        // The operating system finds what is on the disk now, and nobody writes to it between here and there.
        assert_eq!(table, read(self).mark(), "another table");
        self.told.push(measured.clone());
    }
    fn restart(&mut self) {
        self.restarts += 1;
        self.over = true;
        if self.mended_by_a_restart {
            (self.fuses_unreadable, self.outcome) = (0, [None; 3]);
        }
    }
    fn start(&mut self, slot: Slot, image: Slot) -> String {
        assert_eq!(slot, image);
        assert!(self.levels[slot as usize].max(self.levels_elsewhere[slot as usize]) >= self.fuses, "below the fuses");
        assert_eq!(self.measured, [slot]);
        self.loaded -= 1;
        self.note(slot);
        if self.runs[slot as usize] {
            self.over = true;
            // What runs never comes back.
            resume_unwind(Box::new(Runs));
        }
        "came back".to_string()
    }
    fn say(&mut self, line: &str) {
        self.said.push(line.to_string());
    }
}

fn two_releases() -> Table {
    let mut table = Table::empty(Slot::A).committed(Slot::A).written(Slot::B, 0);
    table.preferred = Slot::B;
    table
}

#[test]
fn the_try_is_on_disk_before_the_slot_starts() {
    let mut fake = Fake::new(two_releases());
    fake.boot(1);
    let left = TRIES - 1;
    assert_eq!(fake.started, [(Slot::B, Some(State::Trying { left }))]);
}

#[test]
fn a_refused_new_release_is_bad_and_the_proven_one_follows() {
    let mut fake = Fake::new(two_releases());
    fake.outcome[Slot::B as usize] = Some(Refusal::SecureBoot);
    fake.boot(2);
    assert_eq!(fake.table().record(Slot::B).state, State::Bad);
    assert_eq!(fake.started, [(Slot::A, Some(State::Good))]);
    assert!(fake.said.iter().any(|line| line.starts_with("slot b: SecureBoot")), "{:?}", fake.said);
}

#[test]
fn with_every_slot_refused_it_shows_red_waits_longer_and_longer_and_restarts() {
    let mut fake = Fake::new(Table::empty(Slot::A).committed(Slot::A));
    fake.outcome = [Some(Refusal::SecureBoot); 3];
    fake.boot(20);
    assert_eq!((fake.started.len(), fake.refused.len(), fake.restarts), (0, 5, 1));
    assert_eq!(fake.waited, [5, 10, 30, 60, 300]);
    assert_eq!(fake.lights[0], Condition::Booting);
    assert!(fake.lights[1..].iter().all(|light| *light == Condition::Error));
    assert_eq!(fake.table().record(Slot::A).state, State::Good);
}

#[test]
fn a_release_whose_try_cannot_be_counted_gives_way_to_the_proven_one() {
    for lost in [false, true] {
        let mut fake = Fake::new(two_releases());
        (fake.fail_writes, fake.lose_writes) = (!lost, lost);
        fake.boot(2);
        assert_eq!(fake.started, [(Slot::A, Some(State::Good))]);
        assert!(fake.said[0].contains("cannot be written"), "{:?}", fake.said);
    }
}

#[test]
fn a_disk_that_cannot_be_written_at_all_still_starts_its_only_release_after_a_back_off() {
    let mut fake = Fake::new(Table::empty(Slot::A).written(Slot::A, 0));
    fake.fail_writes = true;
    fake.boot(3);
    assert_eq!(fake.waited, [5]);
    assert_eq!(fake.started.len(), 1);
}

#[test]
fn one_damaged_copy_is_rewritten_by_the_next_change() {
    let mut fake = Fake::new(two_releases());
    fake.disk[0] = [0xff; BLOCK];
    fake.boot(1);
    let copies = Copies::read(&fake.disk[0], &fake.disk[1]);
    assert!(copies.found().iter().all(Result::is_ok));
    assert_eq!(fake.disk[0], encode(&fake.table()));
}

/// Both copies erased, as in boot-slots' field case `both-copies-lost`.
fn lost() -> Fake {
    let mut fake = Fake::new(Table::empty(Slot::A));
    fake.disk = [[0xff; BLOCK]; 2];
    fake.fuses = 3;
    fake
}

/// boot D3.
#[test]
fn both_copies_lost_a_slot_starts_whose_signed_level_is_not_below_the_fuses_and_the_table_is_made_anew() {
    for (levels, first) in [([3, 3, 3], Slot::A), ([2, 3, 3], Slot::B), ([0, 2, 4], Slot::Minimum)] {
        let mut fake = lost();
        fake.levels = levels;
        fake.boot(4);
        assert_eq!(fake.started[0].0, first, "{:?}", fake.said);
        assert_eq!(fake.waited, [5]);
        // The slots that were refused are known to be below now.
        let table = fake.table();
        for slot in Slot::ALL {
            assert_eq!(table.record(slot).rollback_level >= 3, levels[slot as usize] >= 3, "slot {}", slot.name());
        }
        // The next power-on does not wait.
        fake.waited.clear();
        fake.boot(1);
        assert_eq!(fake.waited, []);
        assert_eq!(fake.started.last().unwrap().0, first);
    }
    let mut fake = lost();
    fake.levels = [2; 3];
    fake.boot(40);
    assert_eq!(fake.started, []);
    assert!(fake.said.iter().any(|line| line.contains("rollback level 2")), "{:?}", fake.said);
}

/// boot D2: whatever the table says, the level in the signed image decides.
#[test]
fn a_table_that_lies_about_the_level_starts_nothing_below_the_fuses_and_keeps_nothing_from_starting() {
    let level = |table: Table, slot: Slot, level| {
        table.with(slot, belvedere_boot_slots::Record { rollback_level: level, ..table.record(slot) })
    };
    // An old signed image with its old root, and a table that says that it is new.
    let mut fake = Fake::new(level(two_releases(), Slot::B, 9));
    (fake.fuses, fake.levels) = (3, [3, 1, 0]);
    fake.boot(4);
    assert_eq!(fake.started[0], (Slot::A, Some(State::Good)));
    assert_eq!(
        fake.table().record(Slot::B),
        belvedere_boot_slots::Record { state: State::Bad, rollback_level: 1, starts: 0 }
    );
    // A table that says that everything is old.
    let mut fake = Fake::new(level(two_releases(), Slot::A, 0));
    (fake.fuses, fake.levels) = (3, [3, 3, 3]);
    fake.boot(2);
    assert!(!fake.started.is_empty(), "{:?}", fake.said);
}

#[test]
fn without_a_readable_table_nothing_is_written_and_every_slot_is_tried() {
    let mut fake = lost();
    (fake.unreadable, fake.levels) = ([true; 2], [3; 3]);
    fake.outcome = [Some(Refusal::Failed); 3];
    fake.boot(5);
    assert_eq!(fake.refused, Slot::ALL);
    assert_eq!(fake.disk, [[0xff; BLOCK]; 2]);
}

/// boot D4.
#[test]
fn a_start_of_a_proven_slot_is_counted_before_it_starts_and_a_disk_that_cannot_count_starts_it_all_the_same() {
    let mut fake = Fake::new(Table::empty(Slot::A).committed(Slot::A));
    fake.boot(1);
    assert_eq!(fake.table().record(Slot::A).starts, 1);
    let mut fake = Fake::new(Table::empty(Slot::A).committed(Slot::A));
    fake.fail_writes = true;
    fake.boot(1);
    assert_eq!(fake.started, [(Slot::A, Some(State::Good))]);
}

fn all_good() -> Table {
    let mut table = Table::made_anew(0);
    (table.preferred, table.last_good) = (Slot::B, Some(Slot::B));
    table
}

#[test]
fn a_reset_is_on_both_copies_before_the_slot_starts_and_the_buttons_are_looked_at_once() {
    for (buttons, slot, light) in [
        (Buttons::ShortReset, Slot::B, Condition::RestoringLatest),
        (Buttons::LongReset, Slot::Minimum, Condition::RestoringMinimum),
        (Buttons::FullReset, Slot::Minimum, Condition::RestoringMinimum),
    ] {
        let mut fake = Fake::new(all_good());
        fake.buttons = buttons;
        fake.boot(3);
        assert_eq!(fake.looked, 1);
        assert_eq!((fake.started[0].0, fake.lights[0]), (slot, light));
        let copies = Copies::read(&fake.disk[0], &fake.disk[1]);
        for found in copies.found() {
            assert_eq!(found.unwrap().reset, buttons.ask_for());
        }
        // The power comes on again, nothing is held: it goes on.
        fake.buttons = Buttons::None;
        fake.started.clear();
        fake.lights.clear();
        fake.boot(1);
        assert_eq!((fake.started[0].0, fake.lights[0]), (slot, light));
    }
}

#[test]
fn a_reset_that_cannot_be_noted_is_not_begun_and_the_appliance_starts() {
    let mut fake = Fake::new(all_good());
    (fake.buttons, fake.fail_writes) = (Buttons::FullReset, true);
    fake.boot(2);
    assert_eq!(fake.started, [(Slot::B, Some(State::Good))]);
    assert_eq!(fake.lights, [Condition::Booting]);
    assert!(fake.said.iter().any(|line| line.contains("is not begun")), "{:?}", fake.said);
}

#[test]
fn a_reset_is_begun_with_one_copy_that_cannot_be_written() {
    for copy in [0, 1] {
        let mut fake = Fake::new(all_good());
        (fake.buttons, fake.fail_copy) = (Buttons::FullReset, Some(copy));
        fake.boot(1);
        assert_eq!(fake.table().reset, belvedere_boot_slots::Reset::Full);
        assert_eq!(fake.started[0].0, Slot::Minimum);
    }
}

#[test]
fn a_refused_minimum_slot_does_not_keep_a_reset_from_starting_something() {
    let mut fake = Fake::new(all_good());
    fake.buttons = Buttons::LongReset;
    fake.outcome[Slot::Minimum as usize] = Some(Refusal::Missing);
    fake.boot(2);
    assert_eq!((fake.refused.as_slice(), fake.started[0].0), (&[Slot::Minimum][..], Slot::B));
    assert_eq!(fake.lights[1], Condition::RestoringMinimum);
}

/// boot D19.
#[test]
fn a_slot_that_comes_back_restarts_the_machine_and_the_choice_is_measured_once_in_a_power_on() {
    let mut fake = Fake::new(all_good());
    fake.runs = [false, false, true];
    let mut power_ons = 0;
    while fake.started.last().is_none_or(|(slot, _)| !fake.runs[*slot as usize]) {
        fake.boot(10);
        power_ons += 1;
        assert!(power_ons < 10, "{:?}", fake.started);
    }
    // A proven one that came back has had its turns: it is not started again and again.
    assert_eq!(fake.started.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [Slot::B, Slot::A, Slot::Minimum]);
    assert_eq!((fake.restarts, power_ons), (2, 3));
    assert_eq!(fake.table().record(Slot::B).state, State::Good);
    // One that cannot be loaded gives way in the same power-on: nothing of it was measured.
    let mut fake = Fake::new(all_good());
    fake.outcome[Slot::B as usize] = Some(Refusal::Failed);
    fake.boot(10);
    assert_eq!((fake.restarts, fake.measured.as_slice(), fake.started[0].0), (0, &[Slot::A][..], Slot::A));
}

/// boot D19: each restart waits, and is counted; with everything tried there is a longer wait.
#[test]
fn with_every_slot_coming_back_the_machine_restarts_for_ever_and_never_in_a_tight_loop() {
    for table in
        [all_good(), two_releases(), Table::empty(Slot::A).written(Slot::A, 0), Table::empty(Slot::A).committed(Slot::A)]
    {
        let mut fake = Fake::new(table);
        fake.runs = [false; 3];
        let slots = Slot::ALL.into_iter().filter(|slot| table.record(*slot).state != State::Empty).count();
        let mut seen = [0; 3];
        for _ in 0..30 {
            let (waits, starts) = (fake.waited.len(), fake.started.len());
            fake.boot(20);
            assert_eq!(fake.started.len(), starts + 1);
            seen[fake.started[starts].0 as usize] += 1;
            assert!(fake.waited[waits..].contains(&5), "a restart without a wait");
        }
        assert_eq!(fake.restarts, 30);
        assert_eq!(seen.iter().filter(|&&count| count >= 3).count(), slots, "{seen:?}");
        // Besides the one before each restart.
        assert!(fake.waited.len() >= 30 + 30 / 5, "{:?}", fake.waited);
    }
}

#[test]
fn a_measurement_that_fails_is_said_and_told_and_stops_nothing() {
    let mut fake = Fake::new(all_good());
    fake.fail_measuring = true;
    fake.boot(1);
    assert_eq!(fake.started.len(), 1);
    assert_eq!(fake.told, [Err("the TPM is broken".to_string())]);
    assert!(fake.said.iter().any(|line| line.contains("not measured: the TPM is broken")), "{:?}", fake.said);
    fake.fail_measuring = false;
    fake.boot(1);
    assert_eq!(fake.told[1], Ok(()));
}

/// boot D18: whatever is wrong with an image, the one on the other ESP is tried.
#[test]
fn whatever_is_wrong_with_an_image_the_other_esp_is_tried() {
    for why in [Refusal::Missing, Refusal::SecureBoot, Refusal::Failed] {
        let mut fake = Fake::new(two_releases());
        (fake.outcome[Slot::B as usize], fake.elsewhere[Slot::B as usize]) = (Some(why), None);
        fake.boot(1);
        assert_eq!(fake.started, [(Slot::B, Some(State::Trying { left: TRIES - 1 }))], "{why:?}");
    }
    // An older release is left on one of them.
    let mut fake = Fake::new(two_releases());
    (fake.fuses, fake.levels, fake.levels_elsewhere) = (3, [3, 2, 0], [3, 3, 0]);
    fake.elsewhere[Slot::B as usize] = None;
    let table = fake.table().written(Slot::B, 3).committed(Slot::A).written(Slot::A, 3).committed(Slot::A);
    fake.disk = initial(preferring_b(table));
    fake.boot(1);
    assert_eq!(fake.started[0].0, Slot::B, "{:?}", fake.said);
    // What may pass says more than what will not.
    let mut fake = Fake::new(two_releases());
    (fake.outcome[Slot::B as usize], fake.elsewhere[Slot::B as usize]) = (Some(Refusal::Missing), Some(Refusal::Failed));
    fake.boot(2);
    assert_eq!(fake.table().record(Slot::B).state, State::Trying { left: TRIES - 1 });
}

fn preferring_b(mut table: Table) -> Table {
    table.preferred = Slot::B;
    table
}

/// Trust, "unreadable means closed": fuses that could only be read as 0 let everything start.
#[test]
fn fuses_that_cannot_be_read_let_nothing_start_and_change_nothing_until_they_can() {
    let before = Table::made_anew(0);
    let mut fake = Fake::new(before);
    fake.fuses_unreadable = u32::MAX;
    fake.boot(12);
    assert_eq!(fake.started, []);
    assert_eq!(fake.table().generation, Fake::new(before).table().generation);
    assert_eq!(fake.waited.len(), BACK_OFF.len());
    assert!(fake.waited.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", fake.waited);
    assert_eq!(fake.lights.last(), Some(&Condition::Error));
    // A passing fault is over some day.
    fake.fuses_unreadable = 2;
    fake.boot(12);
    assert_eq!(fake.started.len(), 1);
}

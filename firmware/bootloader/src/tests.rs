//! A machine of memory that can fail at any of its operations.

use super::*;
use alloc::string::ToString;
use alloc::vec::Vec;
use belvedere_boot_slots::{TRIES, encode, initial};

struct Fake {
    disk: [[u8; BLOCK]; 2],
    /// What becomes of a slot that is started: `None` runs (and this test's round is over).
    outcome: [Option<Refusal>; 3],
    fail_writes: bool,
    lose_writes: bool,
    started: Vec<(Slot, Option<State>)>,
    waited: Vec<u32>,
    lights: Vec<Light>,
    said: Vec<String>,
}

impl Fake {
    fn new(table: Table) -> Self {
        Self {
            disk: initial(table),
            outcome: [None; 3],
            fail_writes: false,
            lose_writes: false,
            started: Vec::new(),
            waited: Vec::new(),
            lights: Vec::new(),
            said: Vec::new(),
        }
    }

    fn table(&self) -> Table {
        Copies::read(&self.disk[0], &self.disk[1]).current().unwrap()
    }

    fn boot(&mut self, rounds: usize) {
        let mut state = Rounds::default();
        for _ in 0..rounds {
            state.round(self);
        }
    }
}

impl Machine for Fake {
    fn read_copy(&mut self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String> {
        *block = self.disk[copy];
        Ok(())
    }
    fn write(&mut self, change: &Change) -> Result<(), String> {
        if self.fail_writes {
            return Err("write protected".to_string());
        }
        if !self.lose_writes {
            self.disk[change.copy] = change.block;
        }
        Ok(())
    }
    fn fuses(&mut self) -> u32 {
        0
    }
    fn buttons(&mut self) -> Buttons {
        Buttons::None
    }
    fn show(&mut self, light: Light) {
        self.lights.push(light);
    }
    fn wait(&mut self, seconds: u32) {
        self.waited.push(seconds);
    }
    fn start(&mut self, slot: Slot) -> (Refusal, String) {
        let state = Copies::read(&self.disk[0], &self.disk[1]).current().map(|table| table.record(slot).state);
        self.started.push((slot, state));
        let why = self.outcome[slot as usize].unwrap_or(Refusal::Failed);
        (why, format!("{why:?}"))
    }
    fn say(&mut self, line: &str) {
        self.said.push(line.to_string());
    }
}

fn two_releases() -> Table {
    let mut table = Table::empty(Slot::A).committed(Slot::A).with_state(Slot::B, State::Written);
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
    assert_eq!(fake.started[1], (Slot::A, Some(State::Good)));
    assert!(fake.said.iter().any(|line| line.starts_with("slot b: SecureBoot")), "{:?}", fake.said);
}

#[test]
fn with_every_slot_refused_it_shows_red_waits_longer_and_longer_and_never_stops_trying() {
    let mut fake = Fake::new(Table::empty(Slot::A).committed(Slot::A));
    fake.outcome = [Some(Refusal::SecureBoot); 3];
    fake.boot(10);
    assert_eq!(fake.started.len(), 5);
    assert_eq!(fake.waited, [5, 10, 30, 60, 300]);
    assert_eq!(fake.lights[0], Light::FastGreen);
    assert!(fake.lights[1..].iter().all(|light| *light == Light::FastRed));
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
    let mut fake = Fake::new(Table::empty(Slot::A).with_state(Slot::A, State::Written));
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

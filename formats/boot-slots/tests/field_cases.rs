//! Slot tables from the field: whole partitions, in `field-cases/`. Each did something else once.

use belvedere_boot_slots::{
    BLOCK, Buttons, COPY_OFFSETS, Copies, Defect, Inputs, Next, PARTITION_SIZE, Record, Refusal, STARTS, Slot, State, TRIES,
    Table, decide, encode, given_up, operating, refused,
};

/// A partition with the two copies.
struct Disk(Vec<u8>);

impl Disk {
    fn new(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len() as u64, PARTITION_SIZE);
        Self(bytes.to_vec())
    }

    fn copy(&self, copy: usize) -> &[u8] {
        &self.0[COPY_OFFSETS[copy] as usize..][..BLOCK]
    }

    fn copies(&self) -> Copies {
        Copies::read(self.copy(0), self.copy(1))
    }

    fn put(&mut self, copy: usize, block: &[u8; BLOCK]) {
        self.0[COPY_OFFSETS[copy] as usize..][..BLOCK].copy_from_slice(block);
    }

    /// Writes a table; says whether it holds then.
    fn change(&mut self, table: Table) -> bool {
        let Some(change) = self.copies().change(table) else { return false };
        self.put(change.copy, &change.block);
        self.copies().hold(&change)
    }

    /// One power-on with nothing refused: which slot is started?
    fn power_on(&mut self, fuses: u32) -> Slot {
        let mut back_offs = 0;
        loop {
            let copies = self.copies();
            let inputs = Inputs { copies: &copies, fuses, buttons: Buttons::None, refused: [false; 3], back_offs };
            let decision = decide(inputs);
            if let Some(table) = decision.write {
                self.change(table);
            }
            match decision.next {
                Next::Start(slot) => return slot,
                Next::BackOff(_) => back_offs += 1,
            }
            assert!(back_offs < 3, "nothing starts");
        }
    }

    fn operates(&mut self, slot: Slot) {
        if let Some(table) = self.copies().current().and_then(|table| operating(&table, slot)) {
            assert!(self.change(table));
        }
    }
}

fn numbered(mut table: Table, generation: u64) -> Table {
    table.generation = generation;
    table
}

fn preferring(mut table: Table, slot: Slot) -> Table {
    table.preferred = slot;
    table
}

/// Gives a changed block its checksum.
fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    let checksum = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
    block
}

fn of_version(version: u16, generation: u64) -> [u8; BLOCK] {
    let mut block = encode(&numbered(Table::empty(Slot::B), generation));
    block[8..10].copy_from_slice(&version.to_le_bytes());
    block[200] = 77;
    sealed(block)
}

const GOOD_A_GOOD_B: &[u8] = include_bytes!("field-cases/good-a-good-b.slots");
const BOTH_COPIES_LOST: &[u8] = include_bytes!("field-cases/both-copies-lost.slots");
const GENERATION_AT_ITS_END: &[u8] = include_bytes!("field-cases/generation-at-its-end.slots");
const NEWER_VERSION: &[u8] = include_bytes!("field-cases/newer-version.slots");

/// boot D4.
#[test]
fn good_a_good_b_a_proven_slot_that_never_operates_gives_way_and_its_loss_can_be_told() {
    let mut disk = Disk::new(GOOD_A_GOOD_B);
    for _ in 0..STARTS {
        assert_eq!(disk.power_on(3), Slot::A);
    }
    for _ in 0..50 {
        assert_eq!(disk.power_on(3), Slot::B);
        let table = disk.copies().current().unwrap();
        assert_eq!(given_up(&table).collect::<Vec<_>>(), [Slot::A]);
        assert_eq!(table.record(Slot::A).state, State::Good, "the proof stays");
        disk.operates(Slot::B);
    }
    // A new release in a begins with nothing counted.
    let table = disk.copies().current().unwrap();
    assert!(disk.change(table.committed(Slot::A)));
    assert_eq!(disk.power_on(3), Slot::A);
}

#[test]
fn good_a_good_b_with_every_slot_damaged_all_have_their_turns_again_and_again() {
    let mut disk = Disk::new(GOOD_A_GOOD_B);
    let mut started = [0; 3];
    for _ in 0..6 * usize::from(STARTS) {
        started[disk.power_on(3) as usize] += 1;
    }
    assert_eq!(started, [2 * STARTS; 3]);
}

#[test]
fn good_a_good_b_a_slot_that_operates_is_started_for_ever() {
    let mut disk = Disk::new(GOOD_A_GOOD_B);
    for round in 0..100 {
        assert_eq!(disk.power_on(3), Slot::A);
        // Power cuts before it operates, one fewer than would take its turn.
        if round % usize::from(STARTS) == usize::from(STARTS) - 1 {
            disk.operates(Slot::A);
        }
        assert_eq!(given_up(&disk.copies().current().unwrap()).filter(|slot| *slot != Slot::A).count(), 0);
    }
}

/// boot D4 once more: with no slot left that the table believes in, the same one was started for ever as a last resort.
#[test]
fn good_a_good_b_as_a_last_resort_every_slot_has_its_turn() {
    let mut disk = Disk::new(GOOD_A_GOOD_B);
    let mut table = disk.copies().current().unwrap();
    for slot in Slot::ALL {
        table = table.with(slot, Record { state: State::Bad, ..table.record(slot) });
    }
    assert!(disk.change(table));
    let mut started = [0; 3];
    for _ in 0..30 {
        started[disk.power_on(3) as usize] += 1;
    }
    assert!(started.iter().all(|&count| count > 5), "{started:?}");
}

/// boot D3. What a slot's signed image says is the bootloader's to compare; its tests have that half.
#[test]
fn both_copies_lost_the_table_is_made_anew_and_every_slot_gets_its_turns() {
    let mut disk = Disk::new(BOTH_COPIES_LOST);
    for slot in Slot::ALL {
        for _ in 0..STARTS {
            assert_eq!(disk.power_on(3), slot);
        }
    }
    let table = disk.copies().current().expect("a table was made");
    assert_eq!(table.record(Slot::A).rollback_level, 3);
    // The second copy comes with the next change.
    assert!(disk.copies().found().iter().all(Result::is_ok));
}

#[test]
fn both_copies_lost_in_other_ways_the_table_is_made_anew() {
    let torn = {
        let mut block = encode(&Table::empty(Slot::A));
        block[2000..].fill(0xff);
        block
    };
    for (first, second) in [([0; BLOCK], [0; BLOCK]), (torn, torn), ([0xff; BLOCK], torn), ([0x5a; BLOCK], [0xff; BLOCK])] {
        let mut disk = Disk::new(BOTH_COPIES_LOST);
        disk.put(0, &first);
        disk.put(1, &second);
        assert_eq!(disk.power_on(3), Slot::A);
        assert_eq!(disk.copies().current().unwrap().record(Slot::A).starts, 1);
    }
}

/// boot D16: the copy with the newest change could not be read for a moment, and the next count was written over it for
/// good.
#[test]
fn good_a_good_b_a_newer_copy_that_cannot_be_read_is_there_when_it_can_be_read_again() {
    let mut disk = Disk::new(GOOD_A_GOOD_B);
    let table = disk.copies().current().unwrap().written(Slot::B, 7);
    assert!(disk.change(table));
    let newer =
        disk.copies().found().iter().position(|found| found.is_ok_and(|found| found.record(Slot::B).rollback_level == 7));
    let newer = newer.unwrap();
    let kept = disk.copy(newer).to_vec();
    for count in 1..=3 {
        let readable = if newer == 0 { Copies::read(&[], disk.copy(1)) } else { Copies::read(disk.copy(0), &[]) };
        let counted = readable.current().unwrap().with_starts(Slot::A, count);
        let change = readable.change(counted).unwrap();
        assert_eq!(change.copy, 1 - newer);
        disk.put(change.copy, &change.block);
        let again = if newer == 0 { Copies::read(&[], disk.copy(1)) } else { Copies::read(disk.copy(0), &[]) };
        assert!(again.hold(&change));
    }
    assert_eq!(disk.copy(newer), kept);
    assert_eq!(disk.copies().current().unwrap().record(Slot::B).state, State::Written);
    // A commit is another matter: it is newer than whatever could not be read, and goes over it.
    let readable = if newer == 0 { Copies::read(&[], disk.copy(1)) } else { Copies::read(disk.copy(0), &[]) };
    let committed = readable.current().unwrap().committed(Slot::A);
    for change in readable.durable_changes(committed) {
        disk.put(change.copy, &change.block);
    }
    assert!(disk.copies().both_hold(committed));
}

#[test]
fn newer_version_a_durable_change_keeps_the_copy_that_is_not_understood_and_does_not_promise() {
    let mut disk = Disk::new(NEWER_VERSION);
    let newer = disk.copy(1).to_vec();
    let committed = disk.copies().current().unwrap().committed(Slot::B);
    let changes: Vec<_> = disk.copies().durable_changes(committed).collect();
    assert_eq!(changes.len(), 1);
    disk.put(changes[0].copy, &changes[0].block);
    assert_eq!(disk.copy(1), newer);
    assert!(disk.copies().hold(&changes[0]) && !disk.copies().both_hold(committed));
}

/// boot L2: the level of the release that was there before was kept, with which the new one may never start.
#[test]
fn a_new_release_brings_its_own_level_and_an_emptied_slot_has_none() {
    let table = Table::made_anew(3).with_starts(Slot::B, 4);
    let written = table.written(Slot::B, 9).record(Slot::B);
    assert_eq!((written.state, written.rollback_level, written.starts), (State::Written, 9, 0));
    assert_eq!(table.emptied(Slot::B).record(Slot::B).state, State::Empty);
    assert_eq!(table.written(Slot::B, 9).committed(Slot::B).record(Slot::B).rollback_level, 9);
}

/// boot L1.
#[test]
fn generation_at_its_end_a_change_holds_after_it_was_written() {
    for generations in [
        [u64::MAX, u64::MAX - 1],
        [u64::MAX - 1, u64::MAX],
        [u64::MAX, u64::MAX],
        [u64::MAX, 0],
        [0, u64::MAX],
        [0, 0],
        [7, 7],
        [0, 1 << 63],
        [1 << 63, 0],
    ] {
        let mut disk = Disk::new(GENERATION_AT_ITS_END);
        let table = disk.copies().current().unwrap();
        for (copy, generation) in generations.into_iter().enumerate() {
            disk.put(copy, &encode(&numbered(table, generation)));
        }
        for preferred in [Slot::B, Slot::Minimum, Slot::A, Slot::B] {
            assert!(disk.change(preferring(table, preferred)), "{generations:?}");
            assert_eq!(disk.copies().current().unwrap().preferred, preferred, "{generations:?}");
        }
    }
    let mut disk = Disk::new(GENERATION_AT_ITS_END);
    assert_eq!(disk.copies().current().unwrap().generation, u64::MAX);
    let mut table = disk.copies().current().unwrap().written(Slot::B, 3);
    table.preferred = Slot::B;
    assert!(disk.change(table));
    for left in (0..TRIES).rev() {
        assert_eq!(disk.power_on(3), Slot::B);
        assert_eq!(disk.copies().current().unwrap().record(Slot::B).state, State::Trying { left });
    }
    assert_eq!(disk.power_on(3), Slot::A);
}

/// boot D17.
#[test]
fn newer_version_the_copy_that_is_not_understood_is_kept_and_the_other_one_counts() {
    let mut disk = Disk::new(NEWER_VERSION);
    assert_eq!(disk.copies().found()[1], Err(Defect::Version));
    let newer = disk.copy(1).to_vec();
    for slot in [Slot::A, Slot::B, Slot::Minimum] {
        for _ in 0..STARTS {
            assert_eq!(disk.power_on(3), slot);
        }
    }
    assert_eq!(disk.copy(1), newer);
    // For whoever understands it, it is the newer one still.
    assert_eq!(disk.copies().current().unwrap().generation, 8);
}

#[test]
fn newer_version_in_either_place_beside_whatever_is_kept() {
    for place in [0, 1] {
        for (other, version) in [
            (encode(&numbered(Table::made_anew(3), 90)), 2),
            (encode(&numbered(Table::made_anew(3), 90)), u16::MAX),
            ([0xff; BLOCK], 2),
            (of_version(3, 10), 2),
        ] {
            let mut disk = Disk::new(NEWER_VERSION);
            let newer = of_version(version, 9);
            disk.put(place, &newer);
            disk.put(1 - place, &other);
            for _ in 0..2 * STARTS {
                disk.power_on(3);
            }
            assert_eq!(disk.copy(place), newer);
            if other == of_version(3, 10) {
                assert_eq!(disk.copy(1 - place), other);
            }
        }
    }
}

#[test]
fn newer_version_that_was_torn_is_rubbish_and_written_over() {
    let mut disk = Disk::new(NEWER_VERSION);
    let mut torn = of_version(2, 9);
    torn[300] ^= 1;
    disk.put(1, &torn);
    assert_eq!(disk.power_on(3), Slot::A);
    assert_eq!(disk.copies().current().unwrap().generation, 9);
}

#[test]
fn what_a_later_writer_of_this_version_adds_is_carried_along() {
    let mut block = encode(&numbered(Table::made_anew(3), 5));
    block[129] = 1;
    block[BLOCK - 5] = 0xee;
    let block = sealed(block);
    let mut disk = Disk::new(BOTH_COPIES_LOST);
    disk.put(0, &block);
    for _ in 0..3 {
        assert_eq!(disk.power_on(3), Slot::A);
        disk.operates(Slot::A);
    }
    for copy in [0, 1] {
        assert_eq!(disk.copy(copy)[129..BLOCK - 4], block[129..BLOCK - 4]);
    }
}

#[test]
fn a_level_that_the_signed_image_contradicts_is_put_right() {
    let table = Table::made_anew(3);
    let after = refused(&table, Slot::A, Refusal::RolledBack { level: 2 }).unwrap();
    assert_eq!((after.record(Slot::A).state, after.record(Slot::A).rollback_level), (State::Good, 2));
    let written = table.written(Slot::B, 3);
    let after = refused(&written, Slot::B, Refusal::RolledBack { level: 0 }).unwrap();
    assert_eq!((after.record(Slot::B).state, after.record(Slot::B).rollback_level), (State::Bad, 0));
}

/// An unproven release met a table that was made anew, was "good" by it, and moved the fuses past every other slot.
#[test]
fn a_table_that_was_made_anew_proves_no_slot_until_an_update_is_committed() {
    let table = Table::made_anew(3);
    assert!(Slot::ALL.iter().all(|&slot| table.record(slot).state == State::Good && !table.proves(slot)));
    assert_eq!(operating(&table.with_starts(Slot::B, 1), Slot::B).map(|table| table.proves(Slot::B)), Some(false));
    let table = table.committed(Slot::B);
    assert_eq!(Slot::ALL.map(|slot| table.proves(slot)), [false, true, false]);
    let table = table.written(Slot::B, 4);
    assert!(!table.proves(Slot::B), "another release is in it now");
}

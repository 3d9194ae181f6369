//! A disk whose bad blocks cost seconds each: the start that does not need them goes on, and is heard of all the time.

use belvedere_durable::block_model::{ModelDevice, SECTOR, Seeded};
use belvedere_durable::{BlockDevice, DurableError};
use belvedere_luks2::record::{self, BLOCK, VolumeRecord, VolumeState, initial};
use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Passphrase, RECORD_OFFSETS, SLOT_SIZE};
use belvedere_storage::StorageError;
use belvedere_storage::encrypt::{ALIVE, Prepared, Request, Surroundings, prepare};
use belvedere_storage::patience::patience;
use belvedere_storage::volume::{BLANK, Geometry, Purpose};
use std::cell::Cell;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long init hears nothing before it feeds the watchdog no more (`bootstrap/init/src/early.rs`).
const SILENCE: Duration = Duration::from_secs(20);
/// What a bad block costs that the medium tries again and again.
const COST: Duration = Duration::from_secs(7);
const SMALL: Geometry = Geometry { shift: 16 * 1024, chunk: 16 * 1024, blank: 12 * 1024 };

/// A disk on which a read that fails takes its time.
struct Slow<'a> {
    disk: ModelDevice,
    time: &'a Cell<Duration>,
    failed: Cell<usize>,
    /// Where it takes no writes.
    refuses: Range<u64>,
    /// What a read of the data costs that does not fail.
    pace: Duration,
}

impl BlockDevice for Slow<'_> {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError> {
        if offset >= DATA_OFFSET && bytes.len() >= SMALL.chunk as usize {
            self.time.set(self.time.get() + self.pace);
        }
        self.disk.read_at(offset, bytes).inspect_err(|_| {
            self.time.set(self.time.get() + COST);
            self.failed.set(self.failed.get() + 1);
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        if self.refuses.contains(&offset) {
            let source = std::io::Error::other("no spare blocks");
            return Err(DurableError::Io { operation: "write", path: self.path().to_owned(), source });
        }
        self.disk.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), DurableError> {
        self.disk.flush()
    }
}

/// The time that passes, and the longest that nothing was heard.
struct Clock {
    time: Cell<Duration>,
    heard: Cell<Duration>,
    silence: Cell<Duration>,
}

impl Clock {
    fn new() -> Clock {
        let zero = || Cell::new(Duration::ZERO);
        Clock { time: zero(), heard: zero(), silence: zero() }
    }

    fn hear(&self) {
        self.silence.set(self.silence.get().max(self.time.get() - self.heard.get()));
        self.heard.set(self.time.get());
    }
}

/// The disk afterwards, the reads of it that failed, and what became of the volume.
type End = (ModelDevice, usize, Result<Prepared, StorageError>);

fn start(disk: ModelDevice, purpose: Purpose, clock: &Clock) -> End {
    start_refusing(disk, purpose, clock, 0..0)
}

fn start_refusing(disk: ModelDevice, purpose: Purpose, clock: &Clock, refuses: Range<u64>) -> End {
    start_on(disk, purpose, clock, refuses, Duration::ZERO)
}

/// `pace`: what each read costs that does not fail.
fn start_on(disk: ModelDevice, purpose: Purpose, clock: &Clock, refuses: Range<u64>, pace: Duration) -> End {
    let mut random = Seeded::new(1);
    let mut random = |bytes: &mut [u8]| {
        random.fill(bytes);
        Ok(())
    };
    let begun = Instant::now();
    let mut report = |line: &str| {
        let told = ["belvedere-test: key slot", "belvedere-test: a copy of its header or of its record", "encrypting"];
        assert!(line == ALIVE || told.iter().any(|told| line.starts_with(told)), "{line}");
        clock.hear();
    };
    let now = || begun + clock.time.get();
    let mut surroundings = Surroundings { random: &mut random, report: &mut report, now: &now };
    let passphrase = Passphrase::new(vec![0x3c; 32]);
    let request = Request { purpose, label: "belvedere-test", passphrase: &passphrase, geometry: SMALL };
    let mut device = Slow { disk, time: &clock.time, failed: Cell::new(0), refuses, pace };
    let outcome = prepare(&mut device, &request, &mut surroundings);
    clock.hear();
    (device.disk, device.failed.get(), outcome)
}

/// A volume in use.
fn in_use() -> ModelDevice {
    let mut disk = vec![0; BLANK as usize + 96 * 1024];
    for (offset, block) in RECORD_OFFSETS.into_iter().zip(initial(VolumeState::Empty)) {
        disk[offset as usize..offset as usize + block.len()].copy_from_slice(&block);
    }
    let (disk, _, outcome) = start(ModelDevice::new(disk), Purpose::System, &Clock::new());
    outcome.unwrap();
    disk
}

fn with_bad_blocks(disk: &ModelDevice, offsets: impl IntoIterator<Item = usize>) -> ModelDevice {
    offsets.into_iter().fold(disk.clone(), |disk, offset| disk.with_unreadable(offset / SECTOR))
}

/// Every start, whichever slot it was of, opened the three system volumes one after another, and said nothing while the bad
/// blocks of one were read three times over: the watchdog ended each of them at the same place.
#[test]
fn slow_bad_blocks_of_another_slots_volume_do_not_stop_a_start() {
    let whole = in_use();
    let bad = with_bad_blocks(&whole, (0..BLANK as usize).step_by(4096));
    let clock = Clock::new();
    let mut opened = Vec::new();
    // The program's order: the system volumes, then `data`.
    for (disk, purpose) in
        [(&whole, Purpose::System), (&bad, Purpose::System), (&whole, Purpose::System), (&whole, Purpose::Data)]
    {
        let (after, _, outcome) = start(disk.clone(), purpose, &clock);
        assert!(after.medium() == disk.medium(), "it was written to");
        opened.push(outcome.map(|_| ()).map_err(|error| error.to_string()));
    }
    let given_up = "read /model/device: its beginning took longer than 120 s; replace the medium";
    assert_eq!(opened, [Ok(()), Err(given_up.to_owned()), Ok(()), Ok(())]);
    let (silence, time) = (clock.silence.get(), clock.time.get());
    println!("measured: nothing was heard for {silence:?} at most, the whole start lost {time:?}");
    assert!(silence < SILENCE, "{silence:?}");
    assert!(time <= patience(Purpose::System) + COST, "{time:?}");
}

/// What can be opened in that time is opened, and what was written anew costs the next start nothing.
#[test]
fn a_few_slow_bad_blocks_are_waited_for_and_mended() {
    let disk = in_use();
    let slot = 2 * HEADER_SIZE;
    for (purpose, offsets) in [
        (Purpose::System, vec![HEADER_SIZE + 4096, slot + 8192]),
        (Purpose::System, vec![RECORD_OFFSETS[1] as usize, slot + SLOT_SIZE + 8192]),
        // More than a system volume is waited for: without `data` nothing starts.
        (Purpose::Data, (slot..slot + SLOT_SIZE).step_by(4096).collect()),
    ] {
        let clock = Clock::new();
        let bad = with_bad_blocks(&disk, offsets.iter().copied());
        let (mended, failed, outcome) = start(bad, purpose, &clock);
        outcome.unwrap();
        assert!(failed >= 2 * offsets.len().min(4) && clock.silence.get() < SILENCE, "{:?}", clock.silence.get());
        let (_, failed, outcome) = start(mended, purpose, &Clock::new());
        outcome.unwrap();
        assert_eq!(failed, 0, "{offsets:?} were not written anew");
    }
}

/// The loss of two blocks in the data is not that of the volume, and they are read once.
#[test]
fn bad_blocks_behind_the_header_cost_two_reads_each() {
    let bad = with_bad_blocks(&in_use(), [DATA_OFFSET as usize, DATA_OFFSET as usize + (128 << 10)]);
    let (_, failed, outcome) = start(bad, Purpose::System, &Clock::new());
    outcome.unwrap();
    assert_eq!(failed, 4);
}

/// What opens is used, also where the medium has no block left for what was lost.
#[test]
fn a_key_slot_that_cannot_be_written_anew_does_not_close_the_volume() {
    let disk = in_use();
    for number in 0..2 {
        let slot = 2 * HEADER_SIZE + number * SLOT_SIZE;
        let refuses = slot as u64..(slot + SLOT_SIZE) as u64;
        let bad = with_bad_blocks(&disk, [slot + 4096]);
        let (after, failed, outcome) = start_refusing(bad, Purpose::Data, &Clock::new(), refuses);
        outcome.unwrap();
        // Nothing was written, so nothing is read again.
        assert_eq!(failed, 2);
        assert!(after.medium() == disk.medium(), "something else was written");
    }
}

/// The first start reads a whole image, at whatever pace the medium has: that is no fault of it.
#[test]
fn a_slow_medium_without_bad_blocks_is_encrypted_and_opened_in_one_start() {
    const IMAGE: usize = 128 * SMALL.chunk as usize;
    let mut disk = vec![7; DATA_OFFSET as usize + SMALL.shift as usize + IMAGE];
    disk[..DATA_OFFSET as usize].fill(0);
    for (offset, block) in RECORD_OFFSETS.into_iter().zip(initial(VolumeState::Factory { bytes: IMAGE as u64 })) {
        disk[offset as usize..offset as usize + block.len()].copy_from_slice(&block);
    }
    let clock = Clock::new();
    let (_, _, outcome) = start_on(ModelDevice::new(disk), Purpose::System, &clock, 0..0, Duration::from_millis(1200));
    outcome.unwrap();
    assert!(clock.time.get() > patience(Purpose::System) && clock.silence.get() < SILENCE, "{:?}", clock.time.get());
}

/// One block that takes no write must not close what its twin opens; `data` would be lost with it.
#[test]
fn a_copy_of_header_or_record_that_cannot_be_written_anew_does_not_close_the_volume() {
    let disk = in_use();
    let [first, second] = RECORD_OFFSETS;
    for (offset, length) in [(0, HEADER_SIZE), (HEADER_SIZE, HEADER_SIZE), (first as usize, BLOCK), (second as usize, BLOCK)]
    {
        for purpose in [Purpose::System, Purpose::Data] {
            let refuses = offset as u64..(offset + length) as u64;
            let bad = with_bad_blocks(&disk, [offset]);
            let (after, _, outcome) = start_refusing(bad, purpose, &Clock::new(), refuses);
            outcome.unwrap();
            assert!(after.medium() == disk.medium(), "something else was written");
        }
    }
}

/// The copy that cannot be written says that encryption goes on: would the other be lost, it would, over what is encrypted.
#[test]
fn a_volume_is_not_used_while_an_older_state_stands_in_a_copy_that_cannot_be_written() {
    let disk = in_use();
    let older = record::encode(&VolumeRecord { generation: 0, state: VolumeState::Creating });
    let mut bytes = disk.medium().to_vec();
    bytes[RECORD_OFFSETS[0] as usize..][..older.len()].copy_from_slice(&older);
    let refuses = RECORD_OFFSETS[0]..RECORD_OFFSETS[0] + 1;
    let (_, _, outcome) = start_refusing(ModelDevice::new(bytes), Purpose::Data, &Clock::new(), refuses);
    assert!(outcome.unwrap_err().to_string().contains("no spare blocks"));
}

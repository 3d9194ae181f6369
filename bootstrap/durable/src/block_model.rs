//! A block device in memory whose power goes off at any write or flush: for tests of whatever keeps state on a raw
//! device. The feature `model` makes it public to other crates' tests.
//!
//! What it takes from a medium that lost its power, and code must stand:
//! - of the writes since the last flush, the one in progress too, each landed or did not, and in any order: of two to the
//!   same place the *earlier* may be what is found;
//! - a write may be torn: any of its sectors of 512 bytes landed, the others not;
//! - one sector may have been in the middle of being written: it holds a part of the new bytes and rubbish, or it cannot
//!   be read at all until it is written again.
//!
//! What was flushed stays. Not modelled: media that acknowledge a flush without doing it, that lose other blocks than
//! those being written, or that give back rubbish without an error later on.

use crate::{BlockDevice, DurableError, failed};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What reaches the medium whole or not at all, bytes.
pub const SECTOR: usize = 512;

/// Random numbers that are the same for the same seed in every run (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// From a seed.
    pub fn new(seed: u64) -> Seeded {
        Seeded(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % (end.max(1) as u64)) as usize
    }

    /// Fills with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// What becomes of the writes since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of them are gone.
    Lost,
    /// All of them landed.
    Kept,
    /// The last one landed and those before it did not.
    LastAlone,
    /// Each has its own fate, torn and half-written sectors among them, chosen by this seed.
    Chosen(u64),
}

impl Fate {
    /// The three plain ones, then one for each seed.
    pub fn numbered(number: u64) -> Fate {
        match number {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 => Fate::LastAlone,
            seed => Fate::Chosen(seed),
        }
    }
}

#[derive(Debug, Clone)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

/// The device. A clone is a copy of medium and cache.
#[derive(Debug, Clone)]
pub struct ModelDevice {
    path: PathBuf,
    medium: Vec<u8>,
    /// Sectors of the medium, by number, that give an error when read.
    unreadable: BTreeSet<usize>,
    /// Since the last flush, in order.
    pending: Vec<Write>,
    operations: usize,
    cut: Option<usize>,
    off: bool,
}

impl ModelDevice {
    /// A device with this content, all of it on the medium. The size must be a multiple of [`SECTOR`].
    pub fn new(content: Vec<u8>) -> ModelDevice {
        assert!(content.len().is_multiple_of(SECTOR), "a device has whole sectors");
        let (unreadable, pending) = (BTreeSet::new(), Vec::new());
        let path = "/model/device".into();
        ModelDevice { path, medium: content, unreadable, pending, operations: 0, cut: None, off: false }
    }

    /// From now on counts anew, and the power goes off in the middle of write or flush number `operation` (from 0).
    pub fn cut_at(&mut self, operation: usize) {
        self.operations = 0;
        self.cut = Some(operation);
    }

    /// Writes and flushes since the device was made, powered on, or told where to cut.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Whether the power went off.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// What the medium holds for certain: what was flushed.
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// The next start: what the medium made of the writes since the last flush.
    pub fn power_on(&self, fate: Fate) -> ModelDevice {
        let mut next = ModelDevice { pending: Vec::new(), operations: 0, cut: None, off: false, ..self.clone() };
        match fate {
            Fate::Lost => {}
            Fate::Kept => self.pending.iter().for_each(|write| next.land(write)),
            Fate::LastAlone => self.pending.last().iter().for_each(|write| next.land(write)),
            Fate::Chosen(seed) => next.choose(&self.pending, &mut Seeded::new(seed)),
        }
        next
    }

    /// A copy of the device with one sector, by number, that cannot be read until it is written.
    #[must_use]
    pub fn with_unreadable(&self, sector: usize) -> ModelDevice {
        let mut next = self.clone();
        next.unreadable.insert(sector);
        next
    }

    fn land(&mut self, write: &Write) {
        self.medium[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
        let (first, end) = (write.offset.div_ceil(SECTOR), (write.offset + write.bytes.len()) / SECTOR);
        for sector in first..end {
            self.unreadable.remove(&sector);
        }
    }

    fn choose(&mut self, pending: &[Write], random: &mut Seeded) {
        let mut order: Vec<usize> = (0..pending.len()).collect();
        // Half of the time in order, which is what most media do.
        if random.below(2) == 0 {
            for place in (1..order.len()).rev() {
                order.swap(place, random.below(place + 1));
            }
        }
        for write in order.into_iter().filter_map(|number| pending.get(number)) {
            match random.below(4) {
                0 => {}
                1 => self.land(write),
                _ => self.tear(write, random),
            }
        }
        // The head is over one sector at most when the power goes.
        if let Some(write) = pending.get(random.below(pending.len())).filter(|_| random.below(2) == 0) {
            let sectors = write.bytes.len() / SECTOR;
            let at = write.offset + random.below(sectors) * SECTOR;
            let Some(new) = write.bytes.get(at - write.offset..at - write.offset + SECTOR) else { return };
            if random.below(4) == 0 {
                self.unreadable.insert(at / SECTOR);
            } else {
                self.unreadable.remove(&(at / SECTOR));
                let written = random.below(SECTOR);
                self.medium[at..at + written].copy_from_slice(&new[..written]);
                random.fill(&mut self.medium[at + written..at + SECTOR]);
            }
        }
    }

    /// Some sectors of the write: a beginning, an end, or any of them.
    fn tear(&mut self, write: &Write, random: &mut Seeded) {
        let sectors = write.bytes.len().div_ceil(SECTOR);
        let (how, border) = (random.below(3), random.below(sectors + 1));
        for (number, bytes) in write.bytes.chunks(SECTOR).enumerate() {
            let landed = match how {
                0 => number < border,
                1 => number >= border,
                _ => random.below(2) == 0,
            };
            if landed {
                self.land(&Write { offset: write.offset + number * SECTOR, bytes: bytes.to_vec() });
            }
        }
    }

    /// Counts a write or flush; whether the power goes off in the middle of it.
    fn goes_off(&mut self) -> bool {
        self.off = self.off || self.cut == Some(self.operations);
        self.operations += 1;
        self.off
    }

    fn error(&self, operation: &'static str, words: &str) -> DurableError {
        failed(operation, &self.path)(std::io::Error::other(words))
    }

    fn range(&self, operation: &'static str, offset: u64, length: usize) -> Result<usize, DurableError> {
        let start = usize::try_from(offset).ok();
        let start = start.filter(|start| start.checked_add(length).is_some_and(|end| end <= self.medium.len()));
        start.ok_or_else(|| self.error(operation, "behind the end"))
    }
}

impl BlockDevice for ModelDevice {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.medium.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError> {
        if self.off {
            return Err(self.error("read", "power cut"));
        }
        let start = self.range("read", offset, bytes.len())?;
        let end = start + bytes.len();
        let bad = |sector: &usize| {
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            let written = |write: &Write| write.offset <= from && to <= write.offset + write.bytes.len();
            !self.pending.iter().any(written)
        };
        if self.unreadable.range(start / SECTOR..end.div_ceil(SECTOR)).any(bad) {
            return Err(self.error("read", "a sector cannot be read"));
        }
        bytes.copy_from_slice(&self.medium[start..end]);
        for write in &self.pending {
            let (from, to) = (write.offset.max(start), (write.offset + write.bytes.len()).min(end));
            if from < to {
                bytes[from - start..to - start].copy_from_slice(&write.bytes[from - write.offset..to - write.offset]);
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        let start = self.range("write", offset, bytes.len())?;
        assert!(start.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR), "a write of parts of sectors");
        let was_off = self.off;
        let goes_off = self.goes_off();
        if !was_off {
            self.pending.push(Write { offset: start, bytes: bytes.to_vec() });
        }
        if goes_off { Err(self.error("write", "power cut")) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DurableError> {
        if self.goes_off() {
            return Err(self.error("flush", "power cut"));
        }
        for write in std::mem::take(&mut self.pending) {
            self.land(&write);
        }
        Ok(())
    }
}

/// Runs `work` on copies of `start` with the power going off at every write and flush in turn, and gives every next start
/// to `check`, once for each of `fates`, with whether `work` had succeeded before the power went and words that say
/// where that was. The last round is one whose power goes off after the end. Returns the number of next starts.
///
/// # Panics
/// `work` fails although the power is on.
pub fn cut_everywhere<E: std::fmt::Debug>(
    start: &ModelDevice,
    fates: impl Fn(usize) -> Vec<Fate>,
    mut work: impl FnMut(&mut ModelDevice) -> Result<(), E>,
    mut check: impl FnMut(ModelDevice, bool, &str),
) -> usize {
    let mut count = 0;
    for cut in 0.. {
        let mut device = start.clone();
        device.cut_at(cut);
        let outcome = work(&mut device);
        let finished = !device.is_off();
        match &outcome {
            Err(error) if finished => panic!("failed with the power on, before operation {cut}: {error:?}"),
            Ok(()) if !finished => panic!("did not notice the power cut at operation {cut}"),
            _ => {}
        }
        for fate in fates(cut) {
            count += 1;
            check(device.power_on(fate), finished, &format!("cut at operation {cut}, {fate:?}"));
        }
        if finished {
            break;
        }
    }
    count
}

/// Goes on after a cut until `work` succeeds: `cuts` more times with the power going off at an operation that `random`
/// chooses (among the first `within`) and a fate that it chooses, then undisturbed. Returns the device and how many more
/// cuts there were; what `work` did meanwhile is described in `when`.
///
/// # Panics
/// `work` fails although the power is on.
pub fn finish_through_cuts<E: std::fmt::Debug>(
    mut device: ModelDevice,
    cuts: usize,
    within: usize,
    random: &mut Seeded,
    when: &mut String,
    mut work: impl FnMut(&mut ModelDevice) -> Result<(), E>,
) -> (ModelDevice, usize) {
    use std::fmt::Write as _;
    let mut count = 0;
    for _ in 0..cuts {
        let (cut, fate) = (random.below(within), Fate::numbered(random.number() >> 1));
        device.cut_at(cut);
        let outcome = work(&mut device);
        if !device.is_off() {
            outcome.unwrap_or_else(|error| panic!("{when}, then failed with the power on: {error:?}"));
            return (device, count);
        }
        let _ = write!(when, "; cut at operation {cut}, {fate:?}");
        count += 1;
        device = device.power_on(fate);
    }
    work(&mut device).unwrap_or_else(|error| panic!("{when}, then failed with the power on: {error:?}"));
    (device, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of [`LENGTH`] equal bytes in one of two areas, and a record in two copies that says in which: generation,
    /// value, area, and the sum of these.
    const LENGTH: usize = 4 * SECTOR;
    const AREAS: [u64; 2] = [4096, 8192];
    const RECORDS: [u64; 2] = [0, 2048];

    fn record(generation: u8, value: u8, area: u8) -> Vec<u8> {
        let mut bytes = [generation, value, area, 0];
        bytes[3] = generation.wrapping_add(value).wrapping_add(area).wrapping_add(77);
        // Over several sectors, so that it can be torn.
        bytes.repeat(2 * SECTOR / 4)
    }

    fn current(device: &ModelDevice) -> Option<(usize, u8, u8, u8)> {
        let found = RECORDS.iter().enumerate().filter_map(|(copy, offset)| {
            let mut bytes = vec![0; 2 * SECTOR];
            device.read_at(*offset, &mut bytes).ok()?;
            (bytes == record(bytes[0], bytes[1], bytes[2])).then_some((copy, bytes[0], bytes[1], bytes[2]))
        });
        found.max_by_key(|(_, generation, ..)| *generation)
    }

    /// What is kept, if it is whole.
    fn value(device: &ModelDevice) -> Option<u8> {
        let (_, _, value, area) = current(device)?;
        let mut bytes = vec![0; LENGTH];
        device.read_at(AREAS[usize::from(area)], &mut bytes).ok()?;
        bytes.iter().all(|&byte| byte == value).then_some(value)
    }

    fn device() -> ModelDevice {
        let mut device = ModelDevice::new(vec![0; 16384]);
        device.write_durably(AREAS[0], &[1; LENGTH]).unwrap();
        device.write_durably(RECORDS[0], &record(1, 1, 0)).unwrap();
        device.power_on(Fate::Lost)
    }

    fn fates(_: usize) -> Vec<Fate> {
        (0..60).map(Fate::numbered).collect()
    }

    /// How often the value is neither the old one nor the new one, or not the new one after success.
    fn wrong(work: fn(&mut ModelDevice) -> Result<(), DurableError>) -> usize {
        let mut wrong = 0;
        cut_everywhere(&device(), fates, work, |device, finished, _| match value(&device) {
            Some(2) => {}
            Some(1) if !finished => {}
            _ => wrong += 1,
        });
        wrong
    }

    #[test]
    fn data_then_flush_then_record_then_flush_stands_every_cut() {
        let right = |device: &mut ModelDevice| {
            device.write_at(AREAS[1], &[2; LENGTH])?;
            device.flush()?;
            device.write_at(RECORDS[1], &record(2, 2, 1))?;
            device.flush()
        };
        assert_eq!(wrong(right), 0);
        let mut olds_and_news = [0, 0];
        let count = cut_everywhere(&device(), fates, right, |device, _, when| {
            let found = value(&device).unwrap_or_else(|| panic!("{when}"));
            olds_and_news[usize::from(found) - 1] += 1;
        });
        assert!(count == 5 * 60 && olds_and_news.iter().all(|&number| number > 20), "{count} {olds_and_news:?}");
    }

    #[test]
    fn the_model_catches_the_usual_mistakes() {
        let flush_forgotten = wrong(|device| {
            device.write_at(AREAS[1], &[2; LENGTH])?;
            device.write_at(RECORDS[1], &record(2, 2, 1))?;
            device.flush()
        });
        let last_flush_forgotten = wrong(|device| {
            device.write_durably(AREAS[1], &[2; LENGTH])?;
            device.write_at(RECORDS[1], &record(2, 2, 1))
        });
        let record_before_data = wrong(|device| {
            device.write_durably(RECORDS[1], &record(2, 2, 1))?;
            device.write_durably(AREAS[1], &[2; LENGTH])
        });
        let data_in_place = wrong(|device| {
            device.write_durably(AREAS[0], &[2; LENGTH])?;
            device.write_durably(RECORDS[1], &record(2, 2, 0))
        });
        let record_in_place = wrong(|device| {
            device.write_durably(AREAS[1], &[2; LENGTH])?;
            device.write_durably(RECORDS[0], &record(2, 2, 1))
        });
        // Of two writes to one place without a flush between them, the earlier may be what is found.
        let twice_to_one_place = wrong(|device| {
            device.write_at(AREAS[1], &[9; LENGTH])?;
            device.write_at(AREAS[1], &[2; LENGTH])?;
            device.write_at(RECORDS[1], &record(2, 2, 1))?;
            device.flush()
        });
        let caught =
            [flush_forgotten, last_flush_forgotten, record_before_data, data_in_place, record_in_place, twice_to_one_place];
        assert!(caught.iter().all(|&wrong| wrong > 0), "{caught:?}");
    }

    #[test]
    fn every_kind_of_fate_comes_about_and_a_seed_has_always_the_same() {
        let mut device = ModelDevice::new(vec![1; 8 * SECTOR]);
        device.write_at(0, &[2; 4 * SECTOR]).unwrap();
        device.write_at(0, &[3; 4 * SECTOR]).unwrap();
        device.cut_at(0);
        assert!(device.flush().is_err() && device.is_off());
        assert!(device.read_at(0, &mut [0; SECTOR]).is_err() && device.write_at(0, &[9; SECTOR]).is_err());
        let (mut torn, mut rubbish, mut unreadable, mut earlier) = (0, 0, 0, 0);
        for seed in 3..500 {
            let next = device.power_on(Fate::numbered(seed));
            let again = device.power_on(Fate::numbered(seed));
            assert_eq!((&next.medium, &next.unreadable), (&again.medium, &again.unreadable));
            assert!(next.medium[4 * SECTOR..].iter().all(|&byte| byte == 1), "what was not written has changed");
            let sectors: Vec<&[u8]> = next.medium.chunks(SECTOR).take(4).collect();
            let whole = |sector: &&[u8]| sector.iter().all(|byte| byte == &sector[0]) && (1..=3).contains(&sector[0]);
            unreadable += usize::from(!next.unreadable.is_empty());
            rubbish += usize::from(!sectors.iter().all(whole));
            torn += usize::from(sectors.iter().all(whole) && sectors.iter().any(|sector| sector != &sectors[0]));
            earlier += usize::from(sectors.iter().all(|sector| sector[0] == 2));
        }
        let plain = |fate| device.power_on(fate).medium[0];
        assert_eq!((plain(Fate::Lost), plain(Fate::Kept), plain(Fate::LastAlone)), (1, 3, 3));
        assert!(torn > 50 && rubbish > 50 && unreadable > 10 && earlier > 10, "{torn} {rubbish} {unreadable} {earlier}");
    }

    #[test]
    fn what_cannot_be_read_can_be_written_and_then_read() {
        let mut device = ModelDevice::new(vec![1; 8 * SECTOR]).with_unreadable(2);
        let mut two = [0; 2 * SECTOR];
        device.read_at(0, &mut two).unwrap();
        assert!(device.read_at(SECTOR as u64, &mut two).is_err());
        device.write_at(2 * SECTOR as u64, &[5; SECTOR]).unwrap();
        device.read_at(SECTOR as u64, &mut two).unwrap();
        assert_eq!((two[0], two[SECTOR]), (1, 5));
        assert!(device.power_on(Fate::Lost).read_at(SECTOR as u64, &mut two).is_err());
        device.flush().unwrap();
        assert!(device.power_on(Fate::Lost).read_at(SECTOR as u64, &mut two).is_ok());
    }
}

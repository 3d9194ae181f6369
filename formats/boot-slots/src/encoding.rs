//! The table on disk.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 0..8 | magic `BVSLOTS` and a NUL |
//! | 8..10 | version, 1 |
//! | 16..24 | generation; [`Copies::current`] says which of two is newer |
//! | 24 | preferred slot |
//! | 25 | last good slot, 255 for none |
//! | 32 + 16 × slot | state: 0 empty, 1 written, 2 trying, 3 good, 4 bad |
//! | 33 + 16 × slot | tries left when trying, else 0 |
//! | 34 + 16 × slot | starts without operating when good, else 0 |
//! | 36 + 16 × slot, 4 bytes | rollback level |
//! | 128 | the reset that is under way: 0 none, 1 latest, 2 minimum, 3 full |
//! | 129 + slot | how often in a row it operated and was given up all the same, see [`crate::failed_again`] |
//! | 132..4092 | room for later writers of this version: whoever changes the table carries it along as it is |
//! | 4092..4096 | CRC-32 (IEEE 802.3) of bytes 0..4092 |
//!
//! Byte 128 came later than the rest: a reader of this version that does not know it carries it along like everything
//! behind it, so a reset that was asked for waits for one that does. Bytes 129 to 131 came later still, and mean something for a
//! good slot only: who does not know them leaves them to whatever the slot becomes, so any value is taken.
//!
//! All other bytes are zero, and a reader insists on it. A later version may change everything but magic, version,
//! generation and CRC: by these an older reader knows that it does not understand the copy, and keeps it.
//!
//! A CRC and not a hash: it finds torn writes, and nothing in here is trusted. Who can write the table can choose
//! between *signed* slots; the rollback level that bounds this choice is in the signed kernel images, not here.

use crate::{COPY_OFFSETS, Record, Reset, Slot, State, Table};

/// Size of one copy, bytes.
pub const BLOCK: usize = 4096;

const MAGIC: [u8; 8] = *b"BVSLOTS\0";
const VERSION: u16 = 1;
const CHECKSUM: usize = BLOCK - 4;
const RECORDS: usize = 32;
const RECORD: usize = 16;
/// Where the first readers' room for later writers began: what is before it must be known.
const TAIL: usize = 128;
const RESET: usize = 128;
const FAILURES: usize = 129;
const NONE: u8 = 255;

/// Why a block is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Shorter than [`BLOCK`]: it could not be read.
    Short,
    /// Another magic number: never written, or something else.
    Magic,
    /// The checksum is wrong: torn or damaged.
    Checksum,
    /// Written by a newer bootloader or updater.
    Version,
    /// The checksum is right and the content impossible.
    Content,
}

impl Defect {
    /// Whether a routine change must not be written over the copy.
    fn is_kept(self) -> bool {
        matches!(self, Self::Short | Self::Version | Self::Content)
    }
}

/// One copy as it goes to disk, with nothing in the room for later writers.
pub fn encode(table: &Table) -> [u8; BLOCK] {
    encode_over(&[0; BLOCK], table)
}

/// One copy as it goes to disk, with `before`'s room for later writers.
fn encode_over(before: &[u8; BLOCK], table: &Table) -> [u8; BLOCK] {
    let mut block = *before;
    block[..TAIL].fill(0);
    block[..8].copy_from_slice(&MAGIC);
    block[8..10].copy_from_slice(&VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&table.generation.to_le_bytes());
    block[24] = table.preferred as u8;
    block[25] = table.last_good.map_or(NONE, |slot| slot as u8);
    block[RESET] = table.reset as u8;
    for slot in Slot::ALL {
        let at = RECORDS + RECORD * slot as usize;
        let record = table.record(slot);
        (block[at], block[at + 1], block[at + 2]) = match record.state {
            State::Empty => (0, 0, 0),
            State::Written => (1, 0, 0),
            State::Trying { left } => (2, left, 0),
            State::Good => (3, 0, record.starts),
            State::Bad => (4, 0, 0),
        };
        block[at + 4..at + 8].copy_from_slice(&record.rollback_level.to_le_bytes());
        block[FAILURES + slot as usize] = table.failures[slot as usize];
    }
    let checksum = crc32(&block[..CHECKSUM]);
    block[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Reads one copy.
///
/// # Errors
/// See [`Defect`].
pub fn decode(bytes: &[u8]) -> Result<Table, Defect> {
    let block: &[u8; BLOCK] = bytes.get(..BLOCK).and_then(|block| block.try_into().ok()).ok_or(Defect::Short)?;
    if block[..8] != MAGIC {
        return Err(Defect::Magic);
    }
    let [.., a, b, c, d] = *block;
    if crc32(&block[..CHECKSUM]) != u32::from_le_bytes([a, b, c, d]) {
        return Err(Defect::Checksum);
    }
    if u16::from_le_bytes([block[8], block[9]]) != VERSION {
        return Err(Defect::Version);
    }
    let mut generation = [0u8; 8];
    generation.copy_from_slice(&block[16..24]);
    let mut table = Table::empty(slot_at(block[24])?);
    table.generation = u64::from_le_bytes(generation);
    for slot in Slot::ALL {
        let at = RECORDS + RECORD * slot as usize;
        let state = match (block[at], block[at + 1]) {
            (0, 0) => State::Empty,
            (1, 0) => State::Written,
            (2, left) => State::Trying { left },
            (3, 0) => State::Good,
            (4, 0) => State::Bad,
            _ => return Err(Defect::Content),
        };
        let mut level = [0u8; 4];
        level.copy_from_slice(&block[at + 4..at + 8]);
        table = table.with(slot, Record { state, rollback_level: u32::from_le_bytes(level), starts: block[at + 2] });
    }
    table.last_good = match block[25] {
        NONE => None,
        number => Some(slot_at(number)?),
    };
    table.failures.copy_from_slice(&block[FAILURES..FAILURES + Slot::ALL.len()]);
    table.reset = Reset::from_number(block[RESET]).ok_or(Defect::Content)?;
    // What this version does not know must not be there: rewriting the table would silently drop it.
    if encode_over(block, &table) != *block {
        return Err(Defect::Content);
    }
    Ok(table)
}

fn slot_at(number: u8) -> Result<Slot, Defect> {
    Slot::ALL.into_iter().find(|slot| *slot as u8 == number).ok_or(Defect::Content)
}

/// Both copies for a new disk: copy 0 with generation 1, copy 1 with generation 2. To be written at
/// [`COPY_OFFSETS`].
pub fn initial(mut table: Table) -> [[u8; BLOCK]; 2] {
    table.generation = 1;
    let first = encode(&table);
    table.generation = 2;
    [first, encode(&table)]
}

/// Which table this is: the generation of the copy that holds, and its checksum. A start changes it, so that two disks have the
/// same only when they were copied and neither was started since.
pub type Mark = [u8; 12];

/// The two copies as found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    found: [Result<Table, Defect>; 2],
    blocks: [[u8; BLOCK]; 2],
}

/// A block to write, to flush and to read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which copy: 0 or 1.
    pub copy: usize,
    /// Bytes from the start of the partition.
    pub offset: u64,
    /// What to write there.
    pub block: [u8; BLOCK],
}

impl Copies {
    /// Reads both; a copy that could not be read from disk is given as an empty slice.
    pub fn read(first: &[u8], second: &[u8]) -> Self {
        let block = |bytes: &[u8]| bytes.get(..BLOCK).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; BLOCK]);
        Self { found: [decode(first), decode(second)], blocks: [block(first), block(second)] }
    }

    /// What was found in each place.
    pub const fn found(&self) -> &[Result<Table, Defect>; 2] {
        &self.found
    }

    /// The table that holds: the valid copy with the newer generation. Nothing when no copy is valid.
    ///
    /// Newer is the one that the other leads to by counting on, over the end of the numbers too (RFC 1982): a change
    /// after generation 2^64 − 1 has generation 0, and holds.
    pub fn current(&self) -> Option<Table> {
        self.current_copy().and_then(|copy| self.found[copy].ok())
    }

    /// Tells this table from that of another disk. Nothing when no copy is valid.
    pub fn mark(&self) -> Option<Mark> {
        self.current_copy().and_then(|copy| self.marks()[copy])
    }

    /// The same of each copy, the older one, too.
    pub fn marks(&self) -> [Option<Mark>; 2] {
        core::array::from_fn(|copy| {
            let table = self.found[copy].ok()?;
            let mut mark = [0; 12];
            mark[..8].copy_from_slice(&table.generation.to_le_bytes());
            mark[8..].copy_from_slice(&self.blocks[copy][CHECKSUM..]);
            Some(mark)
        })
    }

    /// The block that makes `table` the one that holds, for a routine change: one whose loss costs a try or a start.
    /// Whatever part of the write reaches the disk, either the present table holds afterwards or the new one. `None` when
    /// nothing may be written.
    ///
    /// 1. It goes over the copy that does not hold now, with the next generation.
    /// 2. Two kinds of copies are kept: one with a right checksum that is not understood is a newer release's, and
    ///    whoever understands it must find it as it was; one that cannot be read may be the newer one, and come back.
    ///    Then the copy that holds is changed in place and keeps its generation, so that it does not become newer than
    ///    the other. This is the one write that a power cut can turn into the loss of the copy; what follows is rule 3.
    /// 3. With no valid copy it goes where there is rubbish, with generation 0. What could not be read may be the table
    ///    still, and is not written over either.
    pub fn change(&self, table: Table) -> Option<Change> {
        let Some(current) = self.current_copy() else {
            let rubbish = |found: &Result<Table, Defect>| matches!(found, Err(Defect::Magic | Defect::Checksum));
            return Some(self.block(self.found.iter().position(rubbish)?, &[0; BLOCK], table, 0));
        };
        let other = 1 - current;
        let (kept, generation) = (self.found[other].is_err_and(Defect::is_kept), self.generation(current));
        Some(if kept {
            self.block(current, &self.blocks[current], table, generation)
        } else {
            self.block(other, &self.blocks[current], table, generation.wrapping_add(1))
        })
    }

    /// The blocks of a routine change, to be tried one after the other until one holds: that of [`Copies::change`] and, when it
    /// cannot be written or reads back as it was, the copy that holds, in place. A copy that can be read and not written must
    /// not end all counting. [`Copies::may_go_on`] says whether the second may be tried.
    ///
    /// The second has the generation after the first one's, of which any part may have reached the disk. Torn, the other copy
    /// holds as it was read: as old as its last good write. Where it was no table before, this is the write of rule 2 above.
    /// There is no second where the other copy still asks for a full reset that is done, nor where it does not know of one that
    /// is under way: the data must not be destroyed again for the sake of a count, and not be kept either. A smaller reset may
    /// be undone by such a cut: without any count its slot could be started for ever.
    pub fn changes(&self, table: Table) -> impl Iterator<Item = Change> + use<> {
        let first = self.change(table);
        let under_way = self.current().map_or(Reset::None, |current| current.reset);
        let destroys = |copy: usize| self.found[copy].is_ok_and(|found| found.reset == Reset::Full);
        let undoes = |copy: usize| under_way == Reset::Full && self.found[copy].is_ok_and(|found| found.reset < under_way);
        let second = first.as_ref().and_then(|first| {
            let in_place = self.durable_changes(table).nth(1).filter(|second| second.copy != first.copy)?;
            ((table.reset == Reset::Full || !destroys(first.copy)) && !undoes(first.copy)).then_some(in_place)
        });
        first.into_iter().chain(second)
    }

    /// The blocks that make `table` the one that holds, whichever one copy is lost afterwards: for changes that must not
    /// be undone, such as a commit before the fuses move. In this order, each flushed and read back before the next.
    ///
    /// 1. over the copy that does not hold, with the next generation: torn, the table before holds; whole, the new one
    /// 2. over the other copy, with the generation after that: torn, the new one holds from step 1
    ///
    /// A copy that cannot be read is written over: the new table is newer than anything that it can hold. A newer
    /// release's copy is kept, as in [`Copies::change`]; then there is one block, and no such promise. When the first block
    /// cannot be written, [`Copies::may_go_on`] says whether the second may be tried.
    pub fn durable_changes(&self, table: Table) -> impl Iterator<Item = Change> + use<> {
        let (first, second) = match self.current_copy() {
            Some(current) if matches!(self.found[1 - current], Err(Defect::Version | Defect::Content)) => {
                (self.change(table), None)
            }
            Some(current) => {
                let (before, generation) = (&self.blocks[current], self.generation(current));
                let first = self.block(1 - current, before, table, generation.wrapping_add(1));
                (Some(first), Some(self.block(current, before, table, generation.wrapping_add(2))))
            }
            None => {
                let first = self.change(table);
                let other = first.as_ref().map_or(0, |first| 1 - first.copy);
                let rubbish = matches!(self.found[other], Err(Defect::Magic | Defect::Checksum));
                (first, rubbish.then(|| self.block(other, &[0; BLOCK], table, 1)))
            }
        };
        first.into_iter().chain(second)
    }

    /// Whether the next block may be written after `failed` could not be; `again` are the copies, read again. Not where the
    /// attempt left another thing in that copy than the table that was there: what tore this write, such as a disk whose power
    /// fails while the processor still runs, would tear the next one as well, and that one goes over the only good copy.
    pub fn may_go_on(&self, failed: &Change, again: &Self) -> bool {
        let before = self.found[failed.copy];
        before.is_err() || again.found[failed.copy] == before
    }

    /// Whether these copies, read after a change was written, say that it holds.
    pub fn hold(&self, change: &Change) -> bool {
        self.current_copy() == Some(change.copy) && self.blocks[change.copy] == change.block
    }

    /// Whether both copies say the same as `table`, whatever their generations are: it outlives the loss of either.
    pub fn both_hold(&self, table: Table) -> bool {
        self.found.iter().all(|found| found.is_ok_and(|found| found.says_the_same(&table)))
    }

    fn block(&self, copy: usize, before: &[u8; BLOCK], mut table: Table, generation: u64) -> Change {
        table.generation = generation;
        Change { copy, offset: COPY_OFFSETS[copy], block: encode_over(before, &table) }
    }

    fn generation(&self, copy: usize) -> u64 {
        self.found[copy].map_or(0, |table| table.generation)
    }

    fn current_copy(&self) -> Option<usize> {
        match self.found {
            [Ok(first), Ok(second)] => {
                let ahead = second.generation.wrapping_sub(first.generation);
                Some(usize::from(ahead != 0 && ahead < 1 << 63))
            }
            [Ok(_), Err(_)] => Some(0),
            [Err(_), Ok(_)] => Some(1),
            [Err(_), Err(_)] => None,
        }
    }
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, &byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let table = Table::empty(Slot::B).with(Slot::A, Record { state: State::Good, rollback_level: 7, starts: 3 });
        let block = encode(&table);
        assert_eq!(decode(&block), Ok(table));
        assert_eq!(decode(&block[..BLOCK - 1]), Err(Defect::Short));
        for place in (0..BLOCK).step_by(7) {
            let mut damaged = block;
            damaged[place] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_valid_checksum_over_impossible_content_is_not_believed() {
        for (place, value) in [(8, 2), (24, 3), (25, 3), (32, 5), (33, 1), (34, 1), (35, 1), (100, 1), (26, 1), (128, 4)] {
            let mut block = encode(&Table::empty(Slot::A));
            block[place] = value;
            let checksum = crc32(&block[..CHECKSUM]);
            block[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
            assert!(matches!(decode(&block), Err(Defect::Content | Defect::Version)), "byte {place}");
        }
    }

    #[test]
    fn a_new_disk_has_two_valid_copies() {
        let [first, second] = initial(Table::empty(Slot::A));
        let copies = Copies::read(&first, &second);
        assert_eq!(copies.current().map(|table| table.generation), Some(2));
        assert_eq!(copies.change(Table::empty(Slot::A)).unwrap().copy, 0);
    }
}

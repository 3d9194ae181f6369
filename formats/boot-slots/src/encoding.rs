//! The table on disk.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 0..8 | magic `BVSLOTS` and a NUL |
//! | 8..10 | version, 1 |
//! | 16..24 | generation |
//! | 24 | preferred slot |
//! | 25 | last good slot, 255 for none |
//! | 32 + 16 × slot | state: 0 empty, 1 written, 2 trying, 3 good, 4 bad |
//! | 33 + 16 × slot | tries left when trying, else 0 |
//! | 36 + 16 × slot, 4 bytes | rollback level |
//! | 4092..4096 | CRC-32 (IEEE 802.3) of bytes 0..4092 |
//!
//! All other bytes are zero, and a reader insists on it. A CRC and not a hash: it finds torn writes; nothing in here
//! is trusted (who can write it can choose between *signed* slots at most, and the fuses bound that choice).

use crate::{COPY_OFFSETS, Record, Slot, State, Table};

/// Size of one copy, bytes.
pub const BLOCK: usize = 4096;

const MAGIC: [u8; 8] = *b"BVSLOTS\0";
const VERSION: u16 = 1;
const CHECKSUM: usize = BLOCK - 4;
const RECORDS: usize = 32;
const RECORD: usize = 16;
const NONE: u8 = 255;

/// Why a block is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Shorter than [`BLOCK`].
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

/// One copy as it goes to disk.
pub fn encode(table: &Table) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    block[..8].copy_from_slice(&MAGIC);
    block[8..10].copy_from_slice(&VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&table.generation.to_le_bytes());
    block[24] = table.preferred as u8;
    block[25] = table.last_good.map_or(NONE, |slot| slot as u8);
    for slot in Slot::ALL {
        let at = RECORDS + RECORD * slot as usize;
        let record = table.record(slot);
        (block[at], block[at + 1]) = match record.state {
            State::Empty => (0, 0),
            State::Written => (1, 0),
            State::Trying { left } => (2, left),
            State::Good => (3, 0),
            State::Bad => (4, 0),
        };
        block[at + 4..at + 8].copy_from_slice(&record.rollback_level.to_le_bytes());
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
        table = table.with(slot, Record { state, rollback_level: u32::from_le_bytes(level) });
    }
    table.last_good = match block[25] {
        NONE => None,
        number => Some(slot_at(number)?),
    };
    // What this version does not know must not be there: rewriting the table would silently drop it.
    if encode(&table) != *block {
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

/// The two copies as found on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies([Result<Table, Defect>; 2]);

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
        Self([decode(first), decode(second)])
    }

    /// What was found in each place.
    pub const fn found(&self) -> &[Result<Table, Defect>; 2] {
        &self.0
    }

    /// The table that holds: the valid copy with the higher generation. Nothing when no copy is valid.
    pub fn current(&self) -> Option<Table> {
        self.current_copy().and_then(|copy| self.0[copy].ok())
    }

    /// The block that makes `table` the one that holds, over the copy that does not hold now. Whatever part of the
    /// write reaches the disk, either the present table holds afterwards or the new one.
    pub fn change(&self, mut table: Table) -> Change {
        let copy = self.current_copy().map_or(0, |current| 1 - current);
        let generation = self.current().map_or(0, |current| current.generation);
        table.generation = generation.saturating_add(1);
        Change { copy, offset: COPY_OFFSETS[copy], block: encode(&table) }
    }

    fn current_copy(&self) -> Option<usize> {
        match self.0 {
            [Ok(first), Ok(second)] => Some(usize::from(second.generation > first.generation)),
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
        let table = Table::empty(Slot::B).with(Slot::A, Record { state: State::Good, rollback_level: 7 });
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
        for (place, value) in [(8, 2), (24, 3), (25, 3), (32, 5), (33, 1), (100, 1), (26, 1)] {
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
        assert_eq!(copies.change(Table::empty(Slot::A)).copy, 0);
    }
}

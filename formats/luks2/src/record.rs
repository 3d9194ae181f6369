//! What a partition holds besides its LUKS2 header says it: how far its encryption went.
//!
//! Two copies of one block at [`RECORD_OFFSETS`](crate::RECORD_OFFSETS), the valid one with the newer generation holds,
//! and a change is written over the *other* one: whatever a power cut does to the block being written, the record before
//! the change is still there.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 0..8 | magic `BVVOLUME` |
//! | 8..10 | version, 1 |
//! | 10 | state: 0 empty, 1 factory, 2 creating, 3 encrypting, 4 encrypted, 5 destroying |
//! | 16..24 | generation |
//! | 24..32 | bytes of the image (factory, encrypting) |
//! | 32..40 | bytes of it that are encrypted (encrypting) |
//! | 40..56 | UUID of the LUKS2 header (encrypting, encrypted) |
//! | 4064..4096 | SHA-256 of bytes 0..4064 |
//!
//! All other bytes are zero, and a reader insists on it. Nothing in here is secret or trusted: the checksum finds torn
//! writes, not attackers. What a false record can do is what someone with the disk in hand can do anyway, destroy it.
//! The content of a system partition is trusted for its dm-verity root hash, that of `data` for opening with the sealed
//! key; so for `data` no record ever leads to plain content being used.

use crate::{DATA_OFFSET, RECORD_OFFSETS, SECTOR};
use sha2::{Digest, Sha256};

/// Size of one copy, bytes.
pub const BLOCK: usize = 4096;
/// Where the plain image of a system partition begins that left the factory (state [`Factory`](VolumeState::Factory)):
/// one [`SHIFT`] behind where its encrypted form begins.
pub const FACTORY_OFFSET: u64 = DATA_OFFSET + SHIFT;
/// How far encryption in place moves an image forward, and the most it encrypts at once, bytes.
pub const SHIFT: u64 = 4 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"BVVOLUME";
const VERSION: u16 = 1;
const CHECKSUM: usize = BLOCK - 32;

/// What a partition holds. The numbers are on disk: never reuse or reorder them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// Nothing.
    Empty,
    /// A plain image, as the image tool wrote it, at [`FACTORY_OFFSET`].
    Factory {
        /// Its length, a multiple of [`SECTOR`].
        bytes: u64,
    },
    /// A new LUKS2 header is being written; nobody can have stored anything yet.
    Creating,
    /// The plain image is being encrypted in place.
    Encrypting {
        /// UUID of the header whose key is used.
        volume: [u8; 16],
        /// The image's length, a multiple of [`SECTOR`].
        bytes: u64,
        /// How much of it is encrypted and on the medium, a multiple of [`SECTOR`].
        done: u64,
    },
    /// A LUKS2 volume, and nothing plain.
    Encrypted {
        /// UUID of its header.
        volume: [u8; 16],
    },
    /// The header and its key slots are being destroyed.
    Destroying,
}

/// The record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Grows by one with every change, and begins at 0 again after its end.
    pub generation: u64,
    /// What the partition holds.
    pub state: VolumeState,
}

/// Why a block is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Shorter than [`BLOCK`]: it could not be read.
    Short,
    /// Another magic number: never written, or something else.
    Magic,
    /// The checksum is wrong: torn or damaged.
    Checksum,
    /// The checksum is right and the version a later one.
    Version,
    /// The checksum is right and the content impossible.
    Content,
}

/// One copy as it goes to disk.
pub fn encode(record: &VolumeRecord) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(&MAGIC);
    block[8..10].copy_from_slice(&VERSION.to_le_bytes());
    let (number, bytes, done, volume) = match record.state {
        VolumeState::Empty => (0, 0, 0, [0; 16]),
        VolumeState::Factory { bytes } => (1, bytes, 0, [0; 16]),
        VolumeState::Creating => (2, 0, 0, [0; 16]),
        VolumeState::Encrypting { volume, bytes, done } => (3, bytes, done, volume),
        VolumeState::Encrypted { volume } => (4, 0, 0, volume),
        VolumeState::Destroying => (5, 0, 0, [0; 16]),
    };
    block[10] = number;
    block[16..24].copy_from_slice(&record.generation.to_le_bytes());
    block[24..32].copy_from_slice(&bytes.to_le_bytes());
    block[32..40].copy_from_slice(&done.to_le_bytes());
    block[40..56].copy_from_slice(&volume);
    let checksum = Sha256::digest(&block[..CHECKSUM]);
    block[CHECKSUM..].copy_from_slice(&checksum);
    block
}

/// Reads one copy.
///
/// # Errors
/// See [`Defect`].
pub fn decode(bytes: &[u8]) -> Result<VolumeRecord, Defect> {
    let block: &[u8; BLOCK] = bytes.first_chunk().ok_or(Defect::Short)?;
    if block[..8] != MAGIC {
        return Err(Defect::Magic);
    }
    if block[CHECKSUM..] != *Sha256::digest(&block[..CHECKSUM]) {
        return Err(Defect::Checksum);
    }
    if u16::from_le_bytes([block[8], block[9]]) != VERSION {
        return Err(Defect::Version);
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&block[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut volume = [0; 16];
    volume.copy_from_slice(&block[40..56]);
    let (generation, bytes, done) = (number(16), number(24), number(32));
    let state = match block[10] {
        0 => VolumeState::Empty,
        1 => VolumeState::Factory { bytes },
        2 => VolumeState::Creating,
        3 => VolumeState::Encrypting { volume, bytes, done },
        4 => VolumeState::Encrypted { volume },
        5 => VolumeState::Destroying,
        _ => return Err(Defect::Content),
    };
    let whole = |length: u64| length.is_multiple_of(SECTOR as u64);
    let possible = match state {
        VolumeState::Factory { bytes } => bytes > 0 && whole(bytes),
        VolumeState::Encrypting { bytes, done, .. } => bytes > 0 && whole(bytes) && whole(done) && done <= bytes,
        _ => true,
    };
    let record = VolumeRecord { generation, state };
    // What this version does not know must not be there: a change would silently drop it.
    if !possible || encode(&record) != *block {
        return Err(Defect::Content);
    }
    Ok(record)
}

/// Both copies for a new partition, to be written at [`RECORD_OFFSETS`](crate::RECORD_OFFSETS).
pub fn initial(state: VolumeState) -> [[u8; BLOCK]; 2] {
    [1, 2].map(|generation| encode(&VolumeRecord { generation, state }))
}

/// The two copies as found on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordCopies {
    found: [Result<VolumeRecord, Defect>; 2],
}

/// A block to write, to flush and to read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// Bytes from the start of the partition.
    pub offset: u64,
    /// What to write there.
    pub block: [u8; BLOCK],
}

impl RecordCopies {
    /// Reads both; a copy that could not be read from disk is given as an empty slice.
    pub fn read(first: &[u8], second: &[u8]) -> RecordCopies {
        RecordCopies { found: [decode(first), decode(second)] }
    }

    /// The record that holds; nothing when no copy is valid.
    pub fn current(&self) -> Option<VolumeRecord> {
        self.current_copy().and_then(|copy| self.found[copy].ok())
    }

    /// Whether a copy is intact and not understood: a later release wrote it. Then the partition is that release's, and
    /// nothing in it may be changed.
    pub fn newer(&self) -> bool {
        self.found.iter().any(|found| matches!(found, Err(Defect::Version | Defect::Content)))
    }

    /// Whether both copies are valid and say the same. Until they do, the loss of one block can bring an older state
    /// back; so a volume is not used before, unless the other copy can be no older state: see
    /// [`contradicted`](Self::contradicted).
    pub fn settled(&self) -> bool {
        matches!(self.found, [Ok(first), Ok(second)] if first.state == second.state)
    }

    /// Whether both copies are valid and say different things: the one that does not hold would, if the other were lost.
    pub fn contradicted(&self) -> bool {
        matches!(self.found, [Ok(first), Ok(second)] if first.state != second.state)
    }

    /// The block that makes `state` the one that holds. It goes over the copy that does not hold now.
    pub fn change(&self, state: VolumeState) -> RecordChange {
        let copy = self.current_copy().map_or(0, |current| 1 - current);
        let generation = self.current().map_or(1, |record| record.generation.wrapping_add(1));
        RecordChange { offset: RECORD_OFFSETS[copy], block: encode(&VolumeRecord { generation, state }) }
    }

    fn current_copy(&self) -> Option<usize> {
        match self.found {
            // Newer is the one that the other leads to by counting on, over the end of the numbers too (RFC 1982).
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn states() -> impl Strategy<Value = VolumeState> {
        let volume = any::<[u8; 16]>();
        let blocks = || 1..1u64 << 40;
        prop_oneof![
            Just(VolumeState::Empty),
            Just(VolumeState::Creating),
            Just(VolumeState::Destroying),
            blocks().prop_map(|blocks| VolumeState::Factory { bytes: blocks * 4096 }),
            volume.prop_map(|volume| VolumeState::Encrypted { volume }),
            (any::<[u8; 16]>(), blocks(), any::<u64>()).prop_map(|(volume, blocks, done)| {
                VolumeState::Encrypting { volume, bytes: blocks * 4096, done: done % (blocks + 1) * 4096 }
            }),
        ]
    }

    proptest! {
        // Each case tries every byte.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_written_is_read_and_every_altered_byte_is_noticed(state in states(), generation: u64, bit in 0..8u32) {
            let record = VolumeRecord { generation, state };
            let block = encode(&record);
            prop_assert_eq!(decode(&block), Ok(record));
            prop_assert_eq!(decode(&block[..BLOCK - 1]), Err(Defect::Short));
            for place in 0..BLOCK {
                let mut damaged = block;
                damaged[place] ^= 1u8 << bit;
                prop_assert!(decode(&damaged).is_err(), "byte {}", place);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_torn_write_leaves_the_record_before_or_after_it_holds(
            before in states(), after in states(), sectors in any::<[bool; 8]>(), rubbish in any::<Option<(usize, u8)>>(),
        ) {
            let mut blocks = initial(before);
            let old = RecordCopies::read(&blocks[0], &blocks[1]);
            prop_assert!(old.settled());
            let change = old.change(after);
            let copy = RECORD_OFFSETS.iter().position(|offset| *offset == change.offset).unwrap();
            for (sector, landed) in sectors.into_iter().enumerate() {
                if landed {
                    blocks[copy][sector * 512..][..512].copy_from_slice(&change.block[sector * 512..][..512]);
                }
            }
            if let Some((place, value)) = rubbish {
                blocks[copy][place % BLOCK] = value;
            }
            let found = RecordCopies::read(&blocks[0], &blocks[1]).current().map(|record| record.state);
            let whole = blocks[copy] == change.block;
            prop_assert_eq!(found, Some(if whole { after } else { before }));
        }
    }

    #[test]
    fn a_valid_checksum_over_impossible_content_is_not_believed() {
        let encrypting = VolumeState::Encrypting { volume: [7; 16], bytes: 8192, done: 4096 };
        for (place, value, defect) in [
            (8, 2, Defect::Version),
            (10, 6, Defect::Content),
            (11, 1, Defect::Content),
            (24, 1, Defect::Content),
            (33, 0x40, Defect::Content),
            (60, 1, Defect::Content),
            (4063, 1, Defect::Content),
        ] {
            let mut block = encode(&VolumeRecord { generation: 3, state: encrypting });
            block[place] = value;
            let checksum = Sha256::digest(&block[..CHECKSUM]);
            block[CHECKSUM..].copy_from_slice(&checksum);
            assert_eq!(decode(&block), Err(defect), "byte {place}");
            assert!(RecordCopies::read(&block, &[]).newer());
        }
    }

    #[test]
    fn a_partition_with_one_lost_copy_is_not_settled() {
        let [first, second] = initial(VolumeState::Creating);
        assert!(RecordCopies::read(&first, &second).settled());
        let one = RecordCopies::read(&[], &second);
        assert!(!one.settled() && !one.newer());
        assert_eq!(one.current().map(|record| record.generation), Some(2));
        assert_eq!(one.change(VolumeState::Creating).offset, RECORD_OFFSETS[0]);
        assert_eq!(RecordCopies::read(&[], &[]).current(), None);
    }

    #[test]
    fn a_change_holds_after_the_last_generation_too() {
        let record = |generation, state| encode(&VolumeRecord { generation, state });
        let first = record(u64::MAX, VolumeState::Creating);
        let copies = RecordCopies::read(&first, &record(u64::MAX - 1, VolumeState::Empty));
        assert_eq!(copies.current().map(|record| record.state), Some(VolumeState::Creating));
        let change = copies.change(VolumeState::Destroying);
        assert_eq!(change.offset, RECORD_OFFSETS[1]);
        let after = RecordCopies::read(&first, &change.block).current();
        assert_eq!(after, Some(VolumeRecord { generation: 0, state: VolumeState::Destroying }));
    }
}

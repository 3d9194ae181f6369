//! A LUKS2 header and a volume record as they come from a disk that anybody may have written.
#![no_main]

use belvedere_luks2::record::{self, RecordCopies};
use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Header, Passphrase, RECORD_OFFSETS, Randomness, VolumeKey};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const BINARY: usize = 4096;

/// Both copies of a good header.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let fill = |bytes: &mut [u8]| {
            bytes.fill(0x5a);
            Ok::<(), std::convert::Infallible>(())
        };
        let (Ok(key), Ok(random)) = (VolumeKey::fill(fill), Randomness::fill(fill));
        let mut bytes = Header::create("fuzz", &Passphrase::new(vec![1; 32]), &key, &random);
        bytes.truncate(2 * HEADER_SIZE);
        bytes
    })
}

fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let checksum = Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&checksum);
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    let mut bytes = good().to_vec();
    match mode % 4 {
        // Anything at all.
        0 => bytes = rest.to_vec(),
        // Another JSON text in both copies.
        1 => {
            for start in [0, HEADER_SIZE] {
                let room = &mut bytes[start + BINARY..start + HEADER_SIZE];
                room.fill(0);
                let length = rest.len().min(room.len());
                room[..length].copy_from_slice(&rest[..length]);
            }
        }
        // Some bytes changed: place (two bytes), value (one byte).
        2 => {
            for change in rest.chunks_exact(3) {
                let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
                bytes[place] = change[2];
            }
        }
        // The two copies of the volume record.
        _ => {
            let (first, second) = rest.split_at(rest.len() / 2);
            let copies = [first, second].map(|bytes| {
                let mut block = [0; record::BLOCK];
                let length = bytes.len().min(record::BLOCK);
                block[..length].copy_from_slice(&bytes[..length]);
                if mode & 4 != 0 {
                    let checksum = Sha256::digest(&block[..record::BLOCK - 32]);
                    block[record::BLOCK - 32..].copy_from_slice(&checksum);
                }
                block
            });
            let found = RecordCopies::read(&copies[0], &copies[1]);
            for block in &copies {
                if let Ok(read) = record::decode(block) {
                    assert_eq!(record::encode(&read), *block, "what was read is written the same way");
                }
            }
            if let Some(current) = found.current() {
                let change = found.change(current.state);
                let mut after = copies;
                after[usize::from(change.offset == RECORD_OFFSETS[1])] = change.block;
                let after = RecordCopies::read(&after[0], &after[1]).current().expect("a record");
                assert_eq!((after.state, after.generation), (current.state, current.generation.wrapping_add(1)));
            }
            return;
        }
    }
    // With right checksums, but for one bit: they would otherwise keep the fuzzer from ever reaching what is behind them.
    if bytes.len() >= 2 * HEADER_SIZE && mode & 0x40 == 0 {
        seal(&mut bytes[..HEADER_SIZE]);
        seal(&mut bytes[HEADER_SIZE..2 * HEADER_SIZE]);
    }
    let Ok(header) = Header::decode(&bytes) else { return };
    for slot in header.slots() {
        assert!(slot.start >= 2 * HEADER_SIZE as u64 && slot.end <= RECORD_OFFSETS[0], "a key slot in the wrong place");
    }
    if let Some(repair) = header.repair() {
        bytes.resize(DATA_OFFSET as usize, 0);
        bytes[repair.offset as usize..][..HEADER_SIZE].copy_from_slice(&repair.bytes);
        let repaired = Header::decode(&bytes).expect("a repaired header is read");
        assert_eq!((repaired.repair(), repaired.uuid()), (None, header.uuid()), "the repair holds");
    }
});

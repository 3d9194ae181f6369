//! The slot table as it comes from the disk, and the decision made from it.
#![no_main]

use belvedere_boot_slots::{BLOCK, Buttons, Copies, Inputs, Next, decide, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[fuses, refused, buttons, back_offs], rest)) = data.split_first_chunk::<4>() else { return };
    // Two blocks as they are or, half of the time, with the right checksum: it would otherwise keep the fuzzer from ever
    // reaching what is behind it.
    let half = rest.len() / 2;
    let mut blocks = [[0u8; BLOCK]; 2];
    for (block, bytes) in blocks.iter_mut().zip([&rest[..half], &rest[half..]]) {
        let length = bytes.len().min(BLOCK);
        block[..length].copy_from_slice(&bytes[..length]);
        if refused & 8 != 0 {
            let checksum = crc32fast::hash(&block[..BLOCK - 4]);
            block[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
        }
    }
    for block in &blocks {
        if let Ok(table) = decode(block) {
            assert_eq!(decode(&encode(&table)), Ok(table), "what was read is written the same way");
        }
    }
    let copies = Copies::read(&blocks[0], &blocks[1]);
    let decision = decide(Inputs {
        copies: &copies,
        fuses: u32::from(fuses),
        buttons: [Buttons::None, Buttons::ShortReset, Buttons::LongReset, Buttons::FullReset][usize::from(buttons) % 4],
        refused: [refused & 1 != 0, refused & 2 != 0, refused & 4 != 0],
        back_offs: u32::from(back_offs),
    });
    // The second is for a first one that did not reach the disk.
    for change in decision.write.into_iter().flat_map(|table| copies.changes(table)) {
        let mut after = blocks;
        after[change.copy] = change.block;
        assert!(Copies::read(&after[0], &after[1]).hold(&change), "a change does not hold");
    }
    let mut after = blocks;
    for change in decision.write.into_iter().flat_map(|table| copies.durable_changes(table)) {
        after[change.copy] = change.block;
        assert!(Copies::read(&after[0], &after[1]).hold(&change), "a durable change does not hold");
    }
    // After a back-off everything is tried: the signed images' levels decide, not the table.
    if let (Next::Start(slot), Some(table), 0) = (decision.next, copies.current(), back_offs) {
        assert!(table.record(slot).rollback_level >= u32::from(fuses), "a slot below the fuses was chosen");
    }
});

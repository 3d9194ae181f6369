//! dm-verity's hash tree, appended to the file system it protects.
//!
//! Layout of the image, in blocks of 4,096 bytes (cryptsetup's on-disk format, version 1, hash type 1, SHA-256):
//!
//! ```text
//! 0 … n-1     file system
//! n           superblock (512 bytes, then zeros)
//! n+1 …       tree: the top level (one block) first, the level of the data blocks' hashes last
//! ```
//! The kernel's table therefore names `n` data blocks and `n+1` as the first hash block. The salt is fixed per product
//! so that unchanged blocks have unchanged hashes from release to release: the tree is the index of an update.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of a data block and of a hash block.
pub const BLOCK: usize = 4096;
/// Hashes in one block of the tree.
const HASHES_PER_BLOCK: usize = BLOCK / 32;

/// The salt of every root image of this product. Not a secret.
pub const SALT: [u8; 32] = *b"Belvedere root image, verity v1.";

/// What the kernel must know to open the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Blocks of the file system.
    pub data_blocks: u64,
    /// Hash of the tree's top.
    pub root_hash: [u8; 32],
    /// Precedes every block when it is hashed.
    pub salt: [u8; 32],
}

fn hash_block(salt: &[u8], block: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(block);
    hash.finalize().into()
}

/// Hashes of one level, packed into blocks; the last block is filled with zeros.
fn pack(hashes: &[[u8; 32]]) -> Vec<u8> {
    let mut level = hashes.concat();
    level.resize(level.len().next_multiple_of(BLOCK), 0);
    level
}

/// The tree above the hashes of the data blocks, top level first, and the root hash. A single data block has no tree:
/// its hash is the root hash.
fn tree(salt: &[u8], leaves: Vec<[u8; 32]>) -> (Vec<u8>, [u8; 32]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut hashes = leaves;
    while hashes.len() > 1 {
        let level = pack(&hashes);
        hashes = level.chunks_exact(BLOCK).map(|block| hash_block(salt, block)).collect();
        levels.push(level);
    }
    levels.reverse();
    (levels.concat(), hashes.first().copied().unwrap_or_default())
}

/// The superblock, filled up to a block.
fn superblock(data_blocks: u64, salt: &[u8; 32], uuid: &[u8; 16]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    block.extend_from_slice(b"verity\0\0");
    block.extend_from_slice(&1u32.to_le_bytes()); // version of the superblock
    block.extend_from_slice(&1u32.to_le_bytes()); // hash type: the salt comes first
    block.extend_from_slice(uuid);
    block.extend_from_slice(b"sha256");
    block.resize(64, 0);
    block.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    block.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    block.extend_from_slice(&data_blocks.to_le_bytes());
    block.extend_from_slice(&(salt.len() as u16).to_le_bytes());
    block.resize(88, 0);
    block.extend_from_slice(salt);
    block.resize(BLOCK, 0);
    block
}

/// Fills the file up to a whole block and appends superblock and tree.
///
/// # Errors
/// When the file is empty or cannot be read or written.
pub fn append(image: &Path, salt: [u8; 32], uuid: [u8; 16]) -> Result<Verity> {
    debug_assert_eq!(HASHES_PER_BLOCK, 128);
    let mut file = OpenOptions::new().read(true).write(true).open(image).map_err(Error::file("open", image))?;
    let bytes = file.metadata().map_err(Error::file("look at", image))?.len();
    if bytes == 0 {
        return Err(Error::invalid(image.display().to_string(), "an empty file system cannot be protected"));
    }
    let data_blocks = bytes.div_ceil(BLOCK as u64);
    file.set_len(data_blocks * BLOCK as u64).map_err(Error::file("extend", image))?;
    let (levels, root_hash) = tree(&salt, leaves(&mut file, image, &salt)?);
    file.seek(SeekFrom::Start(data_blocks * BLOCK as u64)).map_err(Error::file("seek in", image))?;
    file.write_all(&superblock(data_blocks, &salt, &uuid)).map_err(Error::file("write", image))?;
    file.write_all(&levels).map_err(Error::file("write", image))?;
    Ok(Verity { data_blocks, root_hash, salt })
}

fn leaves(file: &mut File, image: &Path, salt: &[u8; 32]) -> Result<Vec<[u8; 32]>> {
    let mut hashes = Vec::new();
    let mut buffer = vec![0; 256 * BLOCK];
    file.rewind().map_err(Error::file("seek in", image))?;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(Error::file("read", image))? {
                0 => break,
                length => filled += length,
            }
        }
        hashes.extend(buffer[..filled].chunks_exact(BLOCK).map(|block| hash_block(salt, block)));
        if filled < buffer.len() {
            return Ok(hashes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Asks the reference implementation.
    fn veritysetup_verify(image: &Path, verity: &Verity) -> bool {
        Command::new("veritysetup")
            .args(["verify", &format!("--hash-offset={}", verity.data_blocks * BLOCK as u64)])
            .args([image, image])
            .arg(hex::encode(verity.root_hash))
            .output()
            .expect("veritysetup (package cryptsetup-bin) is installed")
            .status
            .success()
    }

    fn image_of(blocks: usize) -> (tempfile::TempDir, std::path::PathBuf, Verity) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        // Ends in the middle of a block, to see it filled up; every block differs.
        let content: Vec<u8> = (0..blocks * BLOCK - 100).map(|i| (i / BLOCK * 31 + i % 251) as u8).collect();
        std::fs::write(&path, content).unwrap();
        let verity = append(&path, SALT, *b"belvedere-verity").unwrap();
        assert_eq!(verity.data_blocks, blocks as u64);
        (directory, path, verity)
    }

    #[test]
    fn veritysetup_accepts_our_trees_of_every_depth() {
        for blocks in [2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let (_directory, path, verity) = image_of(blocks);
            assert!(veritysetup_verify(&path, &verity), "{blocks} blocks");
        }
    }

    #[test]
    fn veritysetup_refuses_one_flipped_bit_in_data_or_tree() {
        let blocks = 300;
        let (_directory, path, verity) = image_of(blocks);
        assert!(veritysetup_verify(&path, &verity));
        let whole = std::fs::read(&path).unwrap();
        for position in [5, blocks * BLOCK / 2, blocks * BLOCK - 1, (blocks + 1) * BLOCK + 40, whole.len() - BLOCK + 40] {
            let mut changed = whole.clone();
            changed[position] ^= 0x10;
            std::fs::write(&path, changed).unwrap();
            assert!(!veritysetup_verify(&path, &verity), "a change at byte {position} was accepted");
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, "").unwrap();
        assert!(append(&path, SALT, [0; 16]).is_err());
    }
}

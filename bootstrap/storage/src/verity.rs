//! The root image's dm-verity tree.
//!
//! Everything that decides trust comes from the signed command line: hash, number of blocks, salt. The superblock on
//! the disk (layout: cryptsetup's `verity_sb`) only helps to tell early, and in words, which partition holds the image.
//!
//! Layout of a system partition, in blocks of 4096 bytes: `data_blocks` of EROFS, one block with the superblock, the
//! tree from its top block downwards.

use crate::device_mapper::{self, Corruption};
use crate::partitions::Device;
use crate::{StorageError, failed};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Data and hash block size in bytes; the only one.
pub const BLOCK: u64 = 4096;
/// Longest salt in bytes that the superblock holds.
pub const MAXIMUM_SALT: usize = 256;

/// What the signed command line says of the root image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootImage {
    /// SHA-256 of the tree's top block.
    pub root_hash: [u8; 32],
    /// Blocks of the file system.
    pub data_blocks: u64,
    /// Salt of every hash, at most [`MAXIMUM_SALT`] bytes.
    pub salt: Vec<u8>,
}

/// Checks a superblock (its first 512 bytes) against the command line; says in words what does not fit.
pub fn check_superblock(superblock: &[u8; 512], image: &RootImage) -> Result<(), String> {
    let number = |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().unwrap_or_default());
    if &superblock[..8] != b"verity\0\0" {
        return Err("there is no verity superblock behind the image".into());
    }
    if (number(8), number(12)) != (1, 1) {
        return Err(format!("the verity superblock has version {} and hash type {}, not 1 and 1", number(8), number(12)));
    }
    let algorithm = &superblock[32..64];
    if !algorithm.starts_with(b"sha256\0") {
        return Err("the verity tree is not of SHA-256".into());
    }
    if (u64::from(number(64)), u64::from(number(68))) != (BLOCK, BLOCK) {
        return Err(format!("the verity blocks are {} and {} bytes, not {BLOCK}", number(64), number(68)));
    }
    let blocks = u64::from_le_bytes(superblock[72..80].try_into().unwrap_or_default());
    if blocks != image.data_blocks {
        return Err(format!("the image has {blocks} blocks, the signed command line says {}", image.data_blocks));
    }
    let length = usize::from(u16::from_le_bytes([superblock[80], superblock[81]]));
    if length > MAXIMUM_SALT || superblock[88..88 + length] != image.salt {
        return Err("the salt is not that of the signed command line".into());
    }
    Ok(())
}

/// Reads a device's superblock and the tree's top block and checks both: whether this is the signed image. The
/// blocks below are the kernel's to check when they are read.
pub fn check<'a>(device: impl Into<Device<'a>>, image: &RootImage) -> Result<(), StorageError> {
    let Device { path, size } = device.into();
    let refused = |reason: String| StorageError::Verity { device: path.display().to_string(), reason };
    let start = image.data_blocks.checked_mul(BLOCK).filter(|start| start.saturating_add(2 * BLOCK) <= size);
    let start = start.ok_or_else(|| refused("the partition is smaller than the image".into()))?;
    let file = File::open(path).map_err(failed("open", path))?;
    let mut superblock = [0; 512];
    file.read_exact_at(&mut superblock, start).map_err(failed("read", path))?;
    check_superblock(&superblock, image).map_err(refused)?;
    let mut top = [0; BLOCK as usize];
    file.read_exact_at(&mut top, start + BLOCK).map_err(failed("read", path))?;
    if Sha256::new().chain_update(&image.salt).chain_update(top).finalize().as_slice() != image.root_hash {
        return Err(refused("the root hash is not that of the signed command line".into()));
    }
    Ok(())
}

/// The kernel's table line for an image on a device, and its length in sectors of 512 bytes.
pub fn table(device: &str, image: &RootImage, corruption: Corruption) -> (u64, String) {
    let salt = if image.salt.is_empty() { "-".to_owned() } else { hex::encode(&image.salt) };
    let option = match corruption {
        Corruption::Fail => "",
        Corruption::Restart => " 1 restart_on_corruption",
        Corruption::Panic => " 1 panic_on_corruption",
    };
    let blocks = image.data_blocks;
    let line = format!(
        "1 {device} {device} {BLOCK} {BLOCK} {blocks} {} sha256 {} {salt}{option}",
        blocks + 1,
        hex::encode(image.root_hash),
    );
    (blocks * (BLOCK / 512), line)
}

/// Makes the verified device `name`; every block that is read from it was checked by the kernel.
pub fn open<'a>(
    name: &str,
    device: impl Into<Device<'a>>,
    image: &RootImage,
    corruption: Corruption,
) -> Result<PathBuf, StorageError> {
    let (sectors, line) = table(&device.into().path.display().to_string(), image, corruption);
    device_mapper::create(name, "verity", sectors, &line)
}

/// Says anew what happens when a block of the running device is corrupted.
pub fn rearm<'a>(
    name: &str,
    device: impl Into<Device<'a>>,
    image: &RootImage,
    corruption: Corruption,
) -> Result<(), StorageError> {
    let (sectors, line) = table(&device.into().path.display().to_string(), image, corruption);
    device_mapper::replace(name, "verity", sectors, &line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partitions::Partition;

    /// An image of one data block, whose tree is one block: made by hand as `veritysetup format` makes it.
    fn image() -> (tempfile::NamedTempFile, RootImage, Partition) {
        let salt = vec![0xab; 32];
        let data = [7u8; BLOCK as usize];
        let mut top = [0u8; BLOCK as usize];
        top[..32].copy_from_slice(&Sha256::new().chain_update(&salt).chain_update(data).finalize());
        let root_hash = Sha256::new().chain_update(&salt).chain_update(top).finalize().into();
        let mut superblock = [0u8; 512];
        superblock[..8].copy_from_slice(b"verity\0\0");
        superblock[8] = 1;
        superblock[12] = 1;
        superblock[32..38].copy_from_slice(b"sha256");
        superblock[64..68].copy_from_slice(&4096u32.to_le_bytes());
        superblock[68..72].copy_from_slice(&4096u32.to_le_bytes());
        superblock[72] = 1;
        superblock[80] = 32;
        superblock[88..120].copy_from_slice(&salt);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * BLOCK).unwrap();
        file.as_file().write_all_at(&data, 0).unwrap();
        file.as_file().write_all_at(&superblock, BLOCK).unwrap();
        file.as_file().write_all_at(&top, 2 * BLOCK).unwrap();
        let partition = Partition { name: "system-a".into(), device: file.path().to_owned(), size: 4 * BLOCK };
        (file, RootImage { root_hash, data_blocks: 1, salt }, partition)
    }

    #[test]
    fn the_signed_image_is_recognised_and_every_change_is_refused_in_words() {
        let (file, image, partition) = image();
        check(&partition, &image).unwrap();
        for at in [0, 8, 12, 32, 64, 68, 72, 80, 100, 4096, 5000] {
            let offset = BLOCK + at;
            let mut byte = [0];
            file.as_file().read_exact_at(&mut byte, offset).unwrap();
            file.as_file().write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
            let error = check(&partition, &image).unwrap_err();
            assert!(matches!(error, StorageError::Verity { .. }), "byte {at}: {error}");
            file.as_file().write_all_at(&byte, offset).unwrap();
        }
        check(&partition, &image).unwrap();
        let other = RootImage { root_hash: [1; 32], ..image.clone() };
        assert!(check(&partition, &other).unwrap_err().to_string().contains("root hash"));
        for data_blocks in [0, 2, 3, u64::MAX, u64::MAX / BLOCK] {
            assert!(check(&partition, &RootImage { data_blocks, ..image.clone() }).is_err());
        }
    }

    #[test]
    fn the_table_is_the_kernels() {
        let image = RootImage { root_hash: [0x11; 32], data_blocks: 100, salt: vec![0xab, 0xcd] };
        let hash = "11".repeat(32);
        let (sectors, line) = table("/dev/vda2", &image, Corruption::Restart);
        assert_eq!(sectors, 800);
        assert_eq!(line, format!("1 /dev/vda2 /dev/vda2 4096 4096 100 101 sha256 {hash} abcd 1 restart_on_corruption"));
        let (_, line) = table("/dev/vda2", &RootImage { salt: vec![], ..image }, Corruption::Fail);
        assert_eq!(line, format!("1 /dev/vda2 /dev/vda2 4096 4096 100 101 sha256 {hash} -"));
    }
}

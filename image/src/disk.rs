//! The disk: a GPT with the appliance's partitions, as a sparse file.

use crate::board::Sizes;
use crate::boot_entries;
use crate::error::{Error, Result};
use belvedere_luks2::RECORD_OFFSETS;
use belvedere_luks2::record::{self, VolumeState};
use gpt::GptConfig;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{EFI, LINUX_FS};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
const MEGABYTE: u64 = 1 << 20;
/// The slot table's partition.
pub const BOOT_SLOTS_BYTES: u64 = MEGABYTE;
/// What OP-TEE keeps, encrypted and authenticated by itself, where the board has one ([`belvedere_tee::STORE`]).
const SECURE_WORLD_BYTES: u64 = 2 * MEGABYTE;

/// How much is zero at either end of a [`Content::Blank`] partition: the headers that `init` looks for, and its record.
const BLANK: u64 = MEGABYTE;

/// What a partition begins with.
pub enum Content {
    /// A file's bytes.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A root image, plain as it leaves the factory; the appliance encrypts it in place at its first start.
    Factory(PathBuf),
    /// Nothing, for the updater to write a root image into; encrypted at the first start.
    Volume,
    /// Nothing.
    Empty,
    /// Zeros at the start and at the end, written and not left as holes, and nothing between: `init` makes the file system at
    /// the first start. A tool that writes the image over an older appliance and skips holes must not leave it its identity.
    Blank,
}

/// A partition.
pub struct Slice {
    /// By which everything finds it.
    pub name: &'static str,
    /// Size, a multiple of 1 MiB.
    pub bytes: u64,
    /// Whether the firmware looks for boot programs in it.
    pub efi: bool,
    /// What it begins with.
    pub content: Content,
}

/// The appliance's partitions, in the order on the disk.
pub fn layout(sizes: Sizes, esp_a: PathBuf, esp_b: PathBuf, boot_slots: Vec<u8>, root_image: PathBuf) -> Vec<Slice> {
    let slice = |name, bytes, efi, content| Slice { name, bytes, efi, content };
    vec![
        slice("esp-a", sizes.esp, true, Content::File(esp_a)),
        slice("esp-b", sizes.esp, true, Content::File(esp_b)),
        slice("boot-slots", BOOT_SLOTS_BYTES, false, Content::Bytes(boot_slots)),
        slice(belvedere_tee::STORE, SECURE_WORLD_BYTES, false, Content::Blank),
        slice("system-a", sizes.system, false, Content::Factory(root_image)),
        slice("system-b", sizes.system, false, Content::Volume),
        // Filled by the updater when a required release is committed.
        slice("system-minimum", sizes.system, false, Content::Volume),
        slice("data", sizes.data, false, Content::Blank),
    ]
}

/// The EFI system partitions, for the firmware's boot entries. They are at the same places and have the same GUIDs in every
/// release: the entries are in the board's flash, and whoever writes a newer image over the disk leaves them there.
pub fn boot_partitions(sizes: Sizes) -> [boot_entries::Partition; 2] {
    [(1, "esp-a", MEGABYTE), (2, "esp-b", MEGABYTE + sizes.esp)].map(|(number, name, start)| boot_entries::Partition {
        number,
        first_block: start / SECTOR,
        blocks: sizes.esp / SECTOR,
        guid: boot_guid(name).to_bytes_le(),
    })
}

fn boot_guid(name: &str) -> uuid::Uuid {
    derived_guid(&[b"boot partition", name.as_bytes()])
}

/// A GUID that follows from names alone, so that the same inputs give the same disk.
fn derived_guid(parts: &[&[u8]]) -> uuid::Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Writes the disk. `identity` (the release's root hash, say) goes into its GUIDs.
///
/// # Errors
/// When a content is larger than its partition, or a file cannot be read or written.
pub fn make(path: &Path, slices: &[Slice], identity: &[u8]) -> Result<()> {
    let total = MEGABYTE + slices.iter().map(|slice| slice.bytes).sum::<u64>() + MEGABYTE;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.set_len(total).map_err(Error::file("extend", path))?;

    let mut partitions = BTreeMap::new();
    let mut start = MEGABYTE;
    for (number, slice) in (1..).zip(slices) {
        partitions.insert(
            number,
            Partition {
                part_type_guid: if slice.efi { EFI } else { LINUX_FS },
                part_guid: match slice.efi {
                    true => boot_guid(slice.name),
                    false => derived_guid(&[b"partition", slice.name.as_bytes(), identity]),
                },
                first_lba: start / SECTOR,
                last_lba: (start + slice.bytes) / SECTOR - 1,
                flags: 0,
                name: slice.name.into(),
            },
        );
        start += slice.bytes;
    }
    let mut file =
        write_table(file, partitions, total, identity).map_err(|error| Error::invalid(path.display().to_string(), error))?;

    let mut start = MEGABYTE;
    for slice in slices {
        match &slice.content {
            Content::Empty => {}
            Content::Bytes(bytes) => copy(&mut bytes.as_slice(), &mut file, path, (start, 0), slice)?,
            Content::Blank => {
                for place in [start, start + slice.bytes - BLANK] {
                    file.seek(SeekFrom::Start(place)).map_err(Error::file("seek in", path))?;
                    file.write_all(&vec![0; BLANK as usize]).map_err(Error::file("write", path))?;
                }
            }
            Content::File(source) => {
                let mut from = File::open(source).map_err(Error::file("open", source))?;
                copy(&mut from, &mut file, path, (start, 0), slice)?;
            }
            Content::Volume => write_record(VolumeState::Empty, &mut file, path, start, slice)?,
            Content::Factory(source) => {
                let mut from = File::open(source).map_err(Error::file("open", source))?;
                let bytes = from.metadata().map_err(Error::file("look at", source))?.len();
                write_record(VolumeState::Factory { bytes }, &mut file, path, start, slice)?;
                copy(&mut from, &mut file, path, (start, record::FACTORY_OFFSET), slice)?;
            }
        }
        start += slice.bytes;
    }
    Ok(())
}

/// What a partition holds, for the storage program.
fn write_record(state: VolumeState, file: &mut File, path: &Path, start: u64, slice: &Slice) -> Result<()> {
    for (record, at) in record::initial(state).iter().zip(RECORD_OFFSETS) {
        copy(&mut record.as_slice(), file, path, (start, at), slice)?;
    }
    Ok(())
}

fn write_table(
    mut file: File,
    partitions: BTreeMap<u32, Partition>,
    total: u64,
    identity: &[u8],
) -> std::result::Result<File, String> {
    let sectors = u32::try_from(total / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut file).map_err(|error| error.to_string())?;
    let config = GptConfig::new().writable(true).change_partition_count(true);
    let mut disk =
        config.create_from_device(file, Some(derived_guid(&[b"disk", identity]))).map_err(|error| error.to_string())?;
    disk.update_partitions(partitions).map_err(|error| error.to_string())?;
    disk.write().map_err(|error| error.to_string())
}

/// Copies to a place in a partition that begins at `start`, leaving holes where the source has only zeros.
fn copy(from: &mut impl Read, to: &mut File, path: &Path, (start, at): (u64, u64), slice: &Slice) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut position = at;
    loop {
        let length = from.read(&mut buffer).map_err(Error::file("read the content of a partition of", path))?;
        if length == 0 {
            return Ok(());
        }
        if position + length as u64 > slice.bytes {
            return Err(Error::invalid(
                format!("partition {}", slice.name),
                format!("its content is larger than its {} bytes", slice.bytes),
            ));
        }
        if buffer[..length].iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(start + position)).map_err(Error::file("seek in", path))?;
            to.write_all(&buffer[..length]).map_err(Error::file("write", path))?;
        }
        position += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{program, run};
    use std::os::unix::fs::MetadataExt;

    fn slices(content: &[u8]) -> Vec<Slice> {
        vec![
            Slice { name: "esp-a", bytes: 2 * MEGABYTE, efi: true, content: Content::Bytes(content.to_vec()) },
            Slice { name: "data", bytes: 3 * MEGABYTE, efi: false, content: Content::Empty },
        ]
    }

    #[test]
    fn sgdisk_finds_no_fault_and_our_partitions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        make(&path, &slices(b"hello"), b"identity").unwrap();
        let verdict = String::from_utf8(run(program("sgdisk").arg("-v").arg(&path), "checking").unwrap()).unwrap();
        assert!(verdict.contains("No problems found"), "{verdict}");
        let table = String::from_utf8(run(program("sgdisk").arg("-p").arg(&path), "listing").unwrap()).unwrap();
        assert!(table.lines().any(|line| line.contains(" EF00 ") && line.ends_with("esp-a")), "{table}");
        assert!(table.lines().any(|line| line.contains(" 8300 ") && line.ends_with("data")), "{table}");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[MEGABYTE as usize..MEGABYTE as usize + 5], b"hello");
    }

    /// boot L3: an image written over an older appliance by a tool that skips holes kept the older one's data.
    #[test]
    fn a_blank_partition_is_written_with_zeros_at_both_ends() {
        let directory = tempfile::tempdir().unwrap();
        let written = |content| {
            let path = directory.path().join("disk.img");
            let slice = Slice { name: "data", bytes: 8 * MEGABYTE, efi: false, content };
            make(&path, &[slice], b"identity").unwrap();
            // What is no hole, in sectors.
            std::fs::metadata(&path).unwrap().blocks()
        };
        let more = written(Content::Blank) - written(Content::Empty);
        assert!((2 * BLANK / SECTOR..4 * BLANK / SECTOR).contains(&more), "{more}");
    }

    #[test]
    fn a_factory_image_lies_where_its_record_says() {
        let directory = tempfile::tempdir().unwrap();
        let (path, root) = (directory.path().join("disk.img"), directory.path().join("root"));
        std::fs::write(&root, vec![7; 8192]).unwrap();
        let slices = |bytes| vec![Slice { name: "system-a", bytes, efi: false, content: Content::Factory(root.clone()) }];
        make(&path, &slices(6 * MEGABYTE), b"identity").unwrap();
        let disk = std::fs::read(&path).unwrap();
        let partition = &disk[MEGABYTE as usize..];
        let [first, second] = RECORD_OFFSETS.map(|offset| &partition[offset as usize..][..record::BLOCK]);
        let copies = record::RecordCopies::read(first, second);
        assert!(copies.settled());
        assert_eq!(copies.current().unwrap().state, VolumeState::Factory { bytes: 8192 });
        let image = &partition[record::FACTORY_OFFSET as usize..][..8193];
        assert!(image[..8192].iter().all(|&byte| byte == 7) && image[8192] == 0);
        assert!(make(&path, &slices(5 * MEGABYTE), b"identity").is_err());
    }

    /// The sizes are the board's: a second, larger one has them where its own table says.
    #[test]
    fn the_partitions_of_another_board_are_as_large_as_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let (esp, root) = (directory.path().join("esp"), directory.path().join("root"));
        std::fs::write(&esp, b"esp").unwrap();
        std::fs::write(&root, b"root").unwrap();
        let sizes = Sizes { esp: 640 * MEGABYTE, system: 6144 * MEGABYTE, data: 20_480 * MEGABYTE };
        let slices = layout(sizes, esp.clone(), esp, vec![1], root);
        let path = directory.path().join("disk.img");
        make(&path, &slices, b"identity").unwrap();
        let listed = String::from_utf8(run(program("sgdisk").arg("-p").arg(&path), "listing").unwrap()).unwrap();
        let sectors = |name: &str| {
            let line = listed.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
            let numbers: Vec<u64> = line.split_whitespace().take(3).map(|word| word.parse().unwrap()).collect();
            (numbers[2] - numbers[1] + 1) * SECTOR
        };
        let found = ["esp-a", "esp-b", "system-a", "system-b", "system-minimum", "data"].map(sectors);
        assert_eq!(found, [sizes.esp, sizes.esp, sizes.system, sizes.system, sizes.system, sizes.data]);
        let table = GptConfig::new().open(&path).unwrap();
        let boot = [1, 2].map(|number| {
            let partition = &table.partitions()[&number];
            boot_entries::Partition {
                number,
                first_block: partition.first_lba,
                blocks: partition.last_lba - partition.first_lba + 1,
                guid: partition.part_guid.to_bytes_le(),
            }
        });
        assert_eq!(boot, boot_partitions(sizes));
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            slices.iter().map(|slice| slice.bytes).sum::<u64>() + 2 * MEGABYTE
        );
    }

    #[test]
    fn same_content_same_disk_and_too_large_content_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let disk = |name: &str, content: &[u8], identity: &[u8]| {
            let path = directory.path().join(name);
            make(&path, &slices(content), identity).map(|()| std::fs::read(path).unwrap())
        };
        let first = disk("a", b"x", b"1").unwrap();
        assert!(first == disk("b", b"x", b"1").unwrap());
        assert!(first != disk("c", b"x", b"2").unwrap());
        assert!(disk("d", &vec![1; 2 * MEGABYTE as usize], b"1").is_ok());
        assert!(disk("e", &vec![1; 2 * MEGABYTE as usize + 1], b"1").is_err());
    }
}

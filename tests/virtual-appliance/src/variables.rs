//! Adds variables to the firmware's store, as somebody does who can write them: from a running system or the flash itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Error, file_error};

/// EFI_GLOBAL_VARIABLE as it is stored: boot entries and their order.
pub const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// Non-volatile, for boot services and run time.
const ATTRIBUTES: u32 = 7;
/// EDK2's volume header and store header come first.
const FIRST: u64 = 0x64;
const HEADER: usize = 60;
const LIMIT: u64 = 0x4_0000;

/// Adds a variable behind those that are there (EDK2's authenticated variable format). Not while a machine uses the store.
///
/// # Errors
/// When the store cannot be read or written, or is full.
pub fn add(store: &Path, name: &str, vendor: [u8; 16], data: &[u8]) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(store).map_err(file_error("open", store))?;
    let mut place = FIRST;
    loop {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, place).map_err(file_error("read", store))?;
        if header[..2] != [0xaa, 0x55] {
            break;
        }
        let size = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|index| header[at + index])));
        place = (place + HEADER as u64 + size(36) + size(40)).next_multiple_of(4);
        if place >= LIMIT {
            return Err(Error::Input(format!("{} is full or no store of variables", store.display())));
        }
    }
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    // Start mark, "added", attributes; counter, time and key are those of variables that nobody signs.
    let mut variable = vec![0xaa, 0x55, 0x3f, 0];
    variable.extend(ATTRIBUTES.to_le_bytes());
    variable.resize(36, 0);
    variable.extend(length(&name));
    variable.extend(length(data));
    variable.extend(vendor);
    variable.extend(name);
    variable.extend(data);
    file.write_all_at(&variable, place).map_err(file_error("write", store))
}

/// Where the variables end, bytes from the start of the store.
///
/// # Errors
/// When the store cannot be read.
pub fn end(store: &Path) -> Result<u64, Error> {
    let file = File::open(store).map_err(file_error("open", store))?;
    let mut place = FIRST;
    while place < LIMIT {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, place).map_err(file_error("read", store))?;
        if header[..2] != [0xaa, 0x55] {
            break;
        }
        let size = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|index| header[at + index])));
        place = (place + HEADER as u64 + size(36) + size(40)).next_multiple_of(4);
    }
    Ok(place)
}

/// Changes the first byte of each variable of this name. Not while a machine uses the store.
///
/// # Errors
/// When the store cannot be read or written, or has no such variable.
pub fn set_byte(store: &Path, name: &str, value: u8) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(store).map_err(file_error("open", store))?;
    let wanted: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let (mut place, mut changed) = (FIRST, 0);
    while place < LIMIT {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, place).map_err(file_error("read", store))?;
        if header[..2] != [0xaa, 0x55] {
            break;
        }
        let size = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|index| header[at + index])));
        let (name_size, data_size) = (size(36), size(40));
        let mut found = vec![0; usize::try_from(name_size).unwrap_or(0).min(1024)];
        file.read_exact_at(&mut found, place + HEADER as u64).map_err(file_error("read", store))?;
        if found == wanted {
            file.write_all_at(&[value], place + HEADER as u64 + name_size).map_err(file_error("write", store))?;
            changed += 1;
        }
        place = (place + HEADER as u64 + name_size + data_size).next_multiple_of(4);
    }
    if changed > 0 { Ok(()) } else { Err(Error::Input(format!("{} has no variable {name}", store.display()))) }
}

/// A boot entry (EFI_LOAD_OPTION) for a file on a GPT partition, with these load options.
pub fn boot_entry(partition: &crate::disk::Entry, file: &str, options: &str) -> Vec<u8> {
    let wide = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut path = vec![4, 1, 42, 0];
    path.extend(partition.number.to_le_bytes());
    path.extend((partition.extent.offset / 512).to_le_bytes());
    path.extend((partition.extent.length / 512).to_le_bytes());
    path.extend(partition.guid);
    path.extend([2, 2]);
    let name = wide(file);
    path.extend([4, 4]);
    path.extend(u16::try_from(name.len() + 4).unwrap_or(u16::MAX).to_le_bytes());
    path.extend(name);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut entry = 1u32.to_le_bytes().to_vec();
    entry.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    entry.extend(wide("entry"));
    entry.extend(path);
    entry.extend(wide(options));
    entry
}

//! Sets variables in the firmware's store, as somebody does who can write them: from a running system or the flash itself.

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

/// Starts a variable's header.
const START: [u8; 2] = [0xaa, 0x55];
/// State of a variable that holds, and where it stands in the header.
const ADDED: u8 = 0x3f;
const STATE: u64 = 2;
/// What is left of [`ADDED`] in one that does not hold any more.
const DELETED: u8 = 0x3d;

/// A variable in the store.
struct Found {
    /// Where its header begins, bytes from the start of the store.
    place: u64,
    /// UTF-16 with the zero at its end.
    name: Vec<u8>,
    /// Where its content begins.
    data: u64,
}

/// All variables, those that do not hold any more as well, and where they end.
fn walk(file: &File, store: &Path) -> Result<(Vec<Found>, u64), Error> {
    let (mut all, mut place) = (Vec::new(), FIRST);
    while place < LIMIT {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, place).map_err(file_error("read", store))?;
        if header[..2] != START {
            break;
        }
        let size = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|index| header[at + index])));
        let (name_size, data_size) = (size(36), size(40));
        let mut name = vec![0; usize::try_from(name_size).unwrap_or(0).min(1024)];
        file.read_exact_at(&mut name, place + HEADER as u64).map_err(file_error("read", store))?;
        all.push(Found { place, name, data: place + HEADER as u64 + name_size });
        place = (place + HEADER as u64 + name_size + data_size).next_multiple_of(4);
    }
    Ok((all, place))
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Sets a variable (EDK2's authenticated variable format). Not while a machine uses the store.
///
/// # Errors
/// When the store cannot be read or written, or is full.
pub fn set(store: &Path, name: &str, vendor: [u8; 16], data: &[u8]) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(store).map_err(file_error("open", store))?;
    let (all, end) = walk(&file, store)?;
    let name = wide(name);
    if end + (HEADER + name.len() + data.len()) as u64 > LIMIT {
        return Err(Error::Input(format!("{} is full or no store of variables", store.display())));
    }
    for before in all.iter().filter(|found| found.name == name) {
        file.write_all_at(&[DELETED], before.place + STATE).map_err(file_error("write", store))?;
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    // Attributes; counter, time and key are those of variables that nobody signs.
    let mut variable = vec![START[0], START[1], ADDED, 0];
    variable.extend(ATTRIBUTES.to_le_bytes());
    variable.resize(36, 0);
    variable.extend(length(&name));
    variable.extend(length(data));
    variable.extend(vendor);
    variable.extend(name);
    variable.extend(data);
    file.write_all_at(&variable, end).map_err(file_error("write", store))
}

/// Where the variables end, bytes from the start of the store.
///
/// # Errors
/// When the store cannot be read.
pub fn end(store: &Path) -> Result<u64, Error> {
    let file = File::open(store).map_err(file_error("open", store))?;
    walk(&file, store).map(|(_, end)| end)
}

/// Changes the first byte of each variable of this name. Not while a machine uses the store.
///
/// # Errors
/// When the store cannot be read or written, or has no such variable.
pub fn set_byte(store: &Path, name: &str, value: u8) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(store).map_err(file_error("open", store))?;
    let (all, _) = walk(&file, store)?;
    let mut places = all.iter().filter(|found| found.name == wide(name)).map(|found| found.data).peekable();
    if places.peek().is_none() {
        return Err(Error::Input(format!("{} has no variable {name}", store.display())));
    }
    places.try_for_each(|place| file.write_all_at(&[value], place).map_err(file_error("write", store)))
}

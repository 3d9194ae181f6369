//! The four device-mapper ioctls that are needed, without libdevmapper (LGPL, and two hundred functions more).
//!
//! `struct dm_ioctl` and `struct dm_target_spec` are the kernel's (`include/uapi/linux/dm-ioctl.h`), version 4.

use crate::{StorageError, failed};
use rustix::fs::{Mode, OFlags};
use std::path::PathBuf;

/// What the kernel does when it reads a block whose hash is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// The read fails with `EIO`.
    Fail,
    /// The machine restarts at once, so that the bootloader's tries count.
    Restart,
    /// The kernel panics, which keeps its last words where the board has a place for them.
    Panic,
}

const CONTROL: &str = "/dev/mapper/control";
const SIZE: usize = 4096;
const HEADER: usize = 312;
const TARGET: usize = 40;
const READ_ONLY: u32 = 1;

const CREATE: u32 = 3;
const REMOVE: u32 = 4;
const SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;

/// Whether a device may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only, whoever asks.
    ReadOnly,
    /// Reading and writing.
    Writable,
}

/// `struct dm_ioctl` and what follows it. No table holds a key ([`crate::keyring`]).
#[repr(C, align(8))]
struct Buffer([u8; SIZE]);

impl Buffer {
    fn new(name: &str, flags: u32) -> Buffer {
        let mut buffer = Buffer([0; SIZE]);
        buffer.put(0, &4u32.to_ne_bytes());
        buffer.put(12, &(SIZE as u32).to_ne_bytes());
        buffer.put(16, &(HEADER as u32).to_ne_bytes());
        buffer.put(28, &flags.to_ne_bytes());
        // 128 bytes, ended by NUL; longer names do not exist here, and are cut.
        buffer.put(48, &name.as_bytes()[..name.len().min(127)]);
        buffer
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Minor number of the device that the kernel filled in (`huge_encode_dev`).
    fn minor(&self) -> u64 {
        let device = u64::from_ne_bytes(self.0[40..48].try_into().unwrap_or_default());
        (device & 0xff) | ((device >> 12) & 0xf_ff00)
    }
}

fn run<const COMMAND: u32>(buffer: &mut Buffer) -> std::io::Result<()> {
    let control = rustix::fs::open(CONTROL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: all device-mapper commands are `_IOWR(0xfd, n, struct dm_ioctl)`: the kernel reads and writes at most
    // `data_size` bytes, which `Buffer::new` sets to the buffer's size; the buffer is aligned as the struct is.
    unsafe {
        let call = rustix::ioctl::Updater::<COMMAND, Buffer>::new(buffer);
        rustix::ioctl::ioctl(control, call)?;
    }
    Ok(())
}

const fn command(number: u32) -> rustix::ioctl::Opcode {
    rustix::ioctl::opcode::read_write::<[u8; HEADER]>(0xfd, number as u8)
}

/// The request that loads a table of one target.
fn table(name: &str, flags: u32, target: &str, sectors: u64, parameters: &str) -> Result<Buffer, StorageError> {
    let mut buffer = Buffer::new(name, flags);
    if HEADER + TARGET + parameters.len() + 8 > SIZE || target.len() > 15 {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the table line is too long");
        return Err(failed::<std::io::Error>("load the table of", name)(error));
    }
    buffer.put(20, &1u32.to_ne_bytes());
    buffer.put(HEADER + 8, &sectors.to_ne_bytes());
    buffer.put(HEADER + 24, target.as_bytes());
    buffer.put(HEADER + TARGET, parameters.as_bytes());
    Ok(buffer)
}

fn load(name: &str, flags: u32, target: &str, sectors: u64, parameters: &str) -> Result<(), StorageError> {
    let mut buffer = table(name, flags, target, sectors, parameters)?;
    run::<{ command(TABLE_LOAD) }>(&mut buffer).map_err(failed::<std::io::Error>("load the table of", name))
}

fn resume(name: &str) -> Result<(), StorageError> {
    // "Suspend" without the suspend flag is the kernel's way to say resume; it puts the loaded table in force.
    run::<{ command(SUSPEND) }>(&mut Buffer::new(name, 0)).map_err(failed::<std::io::Error>("start", name))
}

/// Makes a device whose table is loaded by `load`, and returns its node, which devtmpfs makes.
fn create_with(name: &str, load: impl FnOnce() -> Result<(), StorageError>) -> Result<PathBuf, StorageError> {
    let mut buffer = Buffer::new(name, 0);
    run::<{ command(CREATE) }>(&mut buffer).map_err(failed::<std::io::Error>("make the device", name))?;
    let node = PathBuf::from(format!("/dev/dm-{}", buffer.minor()));
    load().and_then(|()| resume(name)).inspect_err(|_| {
        // Without a table it is good for nothing, and it would stand in the way of the next try.
        let _ = remove(name);
    })?;
    Ok(node)
}

/// Makes a read-only device of one target and returns its node, which devtmpfs makes.
pub fn create(name: &str, target: &str, sectors: u64, parameters: &str) -> Result<PathBuf, StorageError> {
    create_with(name, || load(name, READ_ONLY, target, sectors, parameters))
}

/// Makes a device of the `crypt` target and returns its node. `parameters` name the key
/// ([`belvedere_luks2::dm_crypt_table`]).
pub fn create_crypt(name: &str, sectors: u64, parameters: &str, access: Access) -> Result<PathBuf, StorageError> {
    create_with(name, || load(name, crypt_flags(access), "crypt", sectors, parameters))
}

const fn crypt_flags(access: Access) -> u32 {
    match access {
        Access::ReadOnly => READ_ONLY,
        Access::Writable => 0,
    }
}

/// Puts another table of the same size in force on a device in use.
pub fn replace(name: &str, target: &str, sectors: u64, parameters: &str) -> Result<(), StorageError> {
    load(name, READ_ONLY, target, sectors, parameters)?;
    resume(name)
}

/// Removes a device that nobody uses any more.
pub fn remove(name: &str) -> Result<(), StorageError> {
    run::<{ command(REMOVE) }>(&mut Buffer::new(name, 0)).map_err(failed::<std::io::Error>("remove the device", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_numbers_and_the_layout_are_the_kernels() {
        assert_eq!(command(CREATE), 0xC138_FD03);
        assert_eq!(command(REMOVE), 0xC138_FD04);
        assert_eq!(command(TABLE_LOAD), 0xC138_FD09);
        assert_eq!(command(SUSPEND), 0xC138_FD06);
        let mut buffer = Buffer::new("root", READ_ONLY);
        assert_eq!(&buffer.0[48..53], b"root\0");
        buffer.put(40, &(0xfe00u64 | 5).to_ne_bytes());
        assert_eq!(buffer.minor(), 5);
    }

    #[test]
    fn an_encrypted_volumes_table_is_writable_where_asked() {
        let parameters = "aes-xts-plain64 :64:logon:belvedere:data 0 /dev/vda7 2048 1 sector_size:4096";
        let buffer = table("data", crypt_flags(Access::Writable), "crypt", 64, parameters).unwrap();
        let number = |at: usize| u32::from_ne_bytes(buffer.0[at..at + 4].try_into().unwrap());
        // flags, target_count; sector_start, length, target_type, the text and its NUL.
        assert_eq!((number(28), number(20)), (0, 1));
        assert_eq!((number(HEADER), number(HEADER + 8)), (0, 64));
        assert_eq!(&buffer.0[HEADER + 24..HEADER + 30], b"crypt\0");
        let text = &buffer.0[HEADER + TARGET..];
        assert!(text.starts_with(parameters.as_bytes()) && text[parameters.len()] == 0);
        assert_eq!(crypt_flags(Access::ReadOnly), READ_ONLY);
        assert!(table("data", 0, "crypt", 64, &"x".repeat(SIZE - HEADER - TARGET - 7)).is_err());
        assert!(table("data", 0, "crypt", 64, &"x".repeat(SIZE - HEADER - TARGET - 8)).is_ok());
    }
}

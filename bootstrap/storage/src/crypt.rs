//! A prepared volume as a device of the kernel's.

use crate::StorageError;
use crate::device_mapper::{self, Access};
use crate::encrypt::Prepared;
use crate::keyring::Key;
use crate::partitions::Device;
use belvedere_luks2::{DATA_OFFSET, dm_crypt_length, dm_crypt_table};
use std::path::PathBuf;

/// An opened volume. It stays open when this is dropped; [`device_mapper::remove`] closes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedVolume {
    /// Its node, such as `/dev/dm-0`.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

impl<'a> From<&'a OpenedVolume> for Device<'a> {
    fn from(volume: &'a OpenedVolume) -> Device<'a> {
        Device { path: &volume.path, size: volume.size }
    }
}

/// Makes the device `name` of what is encrypted on `device`, a partition that [`prepare`](crate::encrypt::prepare) went
/// over. Whoever prepared it has closed it before: the kernel wants it for itself.
///
/// # Errors
/// The kernel refuses.
pub fn open<'a>(
    name: &str,
    device: impl Into<Device<'a>>,
    prepared: &Prepared,
    access: Access,
) -> Result<OpenedVolume, StorageError> {
    let Device { path, size } = device.into();
    let sectors = dm_crypt_length(size);
    // Never in the table: the kernel prints that to whoever may ask for it, for as long as the volume is open.
    let key = Key::add(name, prepared.key.bytes())?;
    let table = dm_crypt_table(&path.display().to_string(), DATA_OFFSET / 512, key.description());
    let made = device_mapper::create_crypt(name, sectors, &table, access);
    // Loading the table copied the key.
    drop(key);
    let path = made?;
    Ok(OpenedVolume { path, size: sectors * 512 })
}

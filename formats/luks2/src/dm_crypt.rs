//! What the kernel's `crypt` target is told.

use crate::{DATA_OFFSET, SECTOR, VolumeKey};
use std::fmt::Write;
use zeroize::Zeroizing;

/// The table text of the `crypt` target, key included, in memory that is wiped. `offset` is in units of 512 bytes:
/// [`DATA_OFFSET`] / 512.
///
/// Without `iv_large_sectors`: so LUKS2 counts (see [`Xts::encrypt`](crate::Xts::encrypt)). Without `allow_discards`:
/// discards would show on the medium which blocks are in use and how they change over time; a full reset destroys the
/// key and needs none.
pub fn dm_crypt_table(device: &str, offset: u64, key: &VolumeKey) -> Zeroizing<String> {
    // Room for all of it at once: a string that grew would leave its former bytes behind.
    let mut text = Zeroizing::new(String::with_capacity(device.len() + 256));
    let _ = write!(text, "aes-xts-plain64 ");
    for byte in key.bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, " 0 {device} {offset} 1 sector_size:{SECTOR}");
    text
}

/// Length of the opened device in units of 512 bytes, for a partition of `size` bytes: what follows the header, in whole
/// sectors. 0 when nothing does.
pub const fn dm_crypt_length(size: u64) -> u64 {
    size.saturating_sub(DATA_OFFSET) / SECTOR as u64 * (SECTOR as u64 / 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_kernels() {
        let key = VolumeKey::fill(|bytes| {
            bytes.fill(0xa5);
            Ok::<(), ()>(())
        });
        let text = dm_crypt_table("/dev/vda7", DATA_OFFSET / 512, &key.unwrap());
        let hex = "a5".repeat(64);
        assert_eq!(*text, format!("aes-xts-plain64 {hex} 0 /dev/vda7 2048 1 sector_size:4096"));
        assert!(text.capacity() >= text.len() && text.capacity() < 1024);
        assert_eq!(dm_crypt_length(DATA_OFFSET + 8192 + 512), 16);
        assert_eq!(dm_crypt_length(5), 0);
    }
}

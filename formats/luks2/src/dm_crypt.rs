//! What the kernel's `crypt` target is told.

use crate::{DATA_OFFSET, KEY_SIZE, SECTOR};

/// The table text of the `crypt` target. `key` is the description of a key of type `logon` in a keyring of whoever loads
/// the table; the kernel copies the key then, and shows this text, key description and not the key, to whoever asks for the
/// table. `offset` is in units of 512 bytes: [`DATA_OFFSET`] / 512.
///
/// Without `iv_large_sectors`: so LUKS2 counts (see [`Xts::encrypt`](crate::Xts::encrypt)). Without `allow_discards`:
/// discards would show on the medium which blocks are in use and how they change over time; a full reset destroys the
/// key and needs none.
pub fn dm_crypt_table(device: &str, offset: u64, key: &str) -> String {
    format!("aes-xts-plain64 :{KEY_SIZE}:logon:{key} 0 {device} {offset} 1 sector_size:{SECTOR}")
}

/// Length of the opened device in units of 512 bytes, for a partition of `size` bytes: what follows the header, in whole
/// sectors. 0 when nothing does.
pub const fn dm_crypt_length(size: u64) -> u64 {
    size.saturating_sub(DATA_OFFSET) / SECTOR as u64 * (SECTOR as u64 / 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table held the key, and the kernel printed it to everybody who may ask for the table.
    #[test]
    fn the_table_is_the_kernels_and_names_the_key_only() {
        let text = dm_crypt_table("/dev/vda7", DATA_OFFSET / 512, "belvedere:data");
        assert_eq!(text, "aes-xts-plain64 :64:logon:belvedere:data 0 /dev/vda7 2048 1 sector_size:4096");
        assert_eq!(dm_crypt_length(DATA_OFFSET + 8192 + 512), 16);
        assert_eq!(dm_crypt_length(5), 0);
    }
}

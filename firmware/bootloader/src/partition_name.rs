//! Names in the partition table: UTF-16 as it should be, any numbers as it may be.

use alloc::string::String;

/// The name up to its first NUL; what is no letter becomes `\u{fffd}`.
pub fn partition_name(letters: impl IntoIterator<Item = u16>) -> String {
    char::decode_utf16(letters.into_iter().take_while(|&letter| letter != 0))
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::partition_name;

    /// boot D12: a surrogate in a partition's name once made the bootloader panic at every power-on.
    #[test]
    fn any_numbers_make_a_name() {
        assert_eq!(partition_name("esp-a\0rest".encode_utf16()), "esp-a");
        assert_eq!(partition_name("😀".encode_utf16()), "😀");
        assert_eq!(partition_name([0xd800]), "\u{fffd}");
        assert_eq!(partition_name([0xdc00, 0xd83d, 0x61]), "\u{fffd}\u{fffd}a");
        for letter in 0..=u16::MAX {
            let _ = partition_name([letter; 36]);
        }
    }
}

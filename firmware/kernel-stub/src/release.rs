//! The section `.belvrel`: what the bootloader must know of a release, inside the signed image.
//!
//! Lines of UTF-8, `key=value`. A reader passes over keys that it does not know: a later release may say more.
//!
//! | key | value |
//! |---|---|
//! | `rollback_level` | decimal number below 2^32; below the fuses the release is never started |

use alloc::format;
use alloc::string::String;

const ROLLBACK_LEVEL: &str = "rollback_level";
/// More is not ours.
const LIMIT: usize = 4096;

/// The section's content.
pub fn release_section(rollback_level: u32) -> String {
    format!("{ROLLBACK_LEVEL}={rollback_level}\n")
}

/// The rollback level that a section names; nothing when it names none, or two, or no number.
pub fn rollback_level(section: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(section.get(..section.len().min(LIMIT + 1))?).ok()?;
    if text.len() > LIMIT {
        return None;
    }
    let text = text.trim_end_matches('\0');
    let mut levels = text.lines().filter_map(|line| line.strip_prefix(ROLLBACK_LEVEL)?.strip_prefix('='));
    let level = levels.next().filter(|level| level.bytes().all(|byte| byte.is_ascii_digit()))?;
    // Two answers are none.
    if levels.next().is_some() { None } else { level.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for level in [0, 1, 7, u32::MAX] {
            assert_eq!(rollback_level(release_section(level).as_bytes()), Some(level));
        }
        assert_eq!(rollback_level(b"board=x\nrollback_level=3\nmore=\n\0\0"), Some(3));
    }

    #[test]
    fn nonsense_names_no_level() {
        for text in [
            "",
            "\0",
            "rollback_level",
            "rollback_level=",
            "rollback_level=-1",
            "rollback_level=+1",
            "rollback_level= 1",
            "rollback_level=4294967296",
            "rollback_level=1\nrollback_level=1",
            "xrollback_level=1",
            "rollback_level=1\0\n2",
        ] {
            assert_eq!(rollback_level(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(rollback_level(b"\xff"), None);
        assert_eq!(rollback_level(&[b'\n'; LIMIT + 1]), None);
    }
}

//! Which files `mkfs.erofs` is told not to compress.
//!
//! Its LZ4-HC tries a stretch of a file anew behind each block of 4 KiB that does not become smaller: a file of such blocks
//! alone (an encrypted model, an archive) takes 0.6 s of CPU time a megabyte, 10 minutes a gigabyte, and is stored as it is in
//! the end. What has nothing that LZ4 could find is said beforehand, and stored at once; the image is the same.

use crate::cache::sorted_entries;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Smaller files are compressed whatever is in them: that takes a second.
const LARGE: u64 = 1 << 20;
/// How much of a large file is looked at, and how far apart, bytes.
const PIECE: usize = 32 << 10;
const DISTANCE: u64 = 256 << 10;
/// One in so many places of a piece must begin with four bytes that were there before, or it has nothing to compress. In
/// random bytes it is one in 100,000.
const ENOUGH: usize = 1000;

/// The hints for a tree, a line for each large file that does not become smaller; nothing when there is none.
///
/// # Errors
/// When a file cannot be read.
pub fn hints(tree: &Path) -> Result<Option<String>> {
    let mut lines = String::new();
    collect(tree, "", &mut lines)?;
    Ok((!lines.is_empty()).then_some(lines))
}

fn collect(directory: &Path, inside: &str, lines: &mut String) -> Result<()> {
    for entry in sorted_entries(directory)? {
        // What no regular expression in a line can name is compressed.
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
        let path = format!("{inside}{name}");
        let metadata = fs::symlink_metadata(&entry).map_err(Error::file("look at", &entry))?;
        if metadata.is_dir() {
            collect(&entry, &format!("{path}/"), lines)?;
        } else if metadata.is_file()
            && metadata.len() >= LARGE
            && let Some(expression) = expression(&path)
            && !becomes_smaller(&entry, metadata.len())?
        {
            // Clusters of 0 bytes: not compressed.
            *lines += &format!("0 {expression}\n");
        }
    }
    Ok(())
}

/// The POSIX regular expression for one path, in a line.
fn expression(path: &str) -> Option<String> {
    let mut text = String::from("^");
    for letter in path.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '-' | '_' => text.push(letter),
            '.' | '+' => text.extend(['[', letter, ']']),
            _ => return None,
        }
    }
    Some(text + "$")
}

/// Whether any of the pieces has something that occurs twice.
fn becomes_smaller(path: &Path, length: u64) -> Result<bool> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut piece = vec![0; PIECE];
    let mut places = vec![u32::MAX; 1 << 14];
    let mut at = 0;
    while at + PIECE as u64 <= length {
        file.read_exact_at(&mut piece, at).map_err(Error::file("read", path))?;
        if repeats(&piece, &mut places) >= PIECE / ENOUGH {
            return Ok(true);
        }
        at += DISTANCE;
    }
    Ok(false)
}

/// In how many places four bytes begin that were there before, as far as a small table remembers.
fn repeats(piece: &[u8], places: &mut [u32]) -> usize {
    places.fill(u32::MAX);
    let mut found = 0;
    for (at, four) in piece.windows(4).enumerate() {
        let value = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let place = &mut places[(value.wrapping_mul(0x9e37_79b1) >> 18) as usize];
        let before = std::mem::replace(place, at as u32) as usize;
        found += usize::from(piece.get(before..before + 4).is_some_and(|earlier| earlier == four));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in which nothing occurs twice (xorshift64).
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(length).collect()
    }

    #[test]
    fn large_files_of_noise_are_named_and_no_others() {
        let tree = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let large = LARGE as usize;
        let text = "all of it occurs again and again; ".repeat(large / 30);
        write("usr/model", text.as_bytes());
        write("usr/small", &noise(large - 1));
        assert_eq!(hints(tree.path()).unwrap(), None);
        write("usr/lib/a+b.bin", &noise(large));
        write("usr/with space", &noise(large));
        // A little at its end is enough.
        write("usr/mixed", &[noise(large), text.into_bytes()].concat());
        std::os::unix::fs::symlink("a+b.bin", tree.path().join("usr/lib/link")).unwrap();
        assert_eq!(hints(tree.path()).unwrap().unwrap(), "0 ^usr/lib/a[+]b[.]bin$\n");
    }

    /// Machine code repeats itself least of all that is worth it.
    #[test]
    fn a_program_becomes_smaller() {
        let program = std::env::current_exe().unwrap();
        let length = fs::metadata(&program).unwrap().len();
        assert!(length >= LARGE && becomes_smaller(&program, length).unwrap());
    }
}

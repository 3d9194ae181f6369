//! The console log, as plain lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// At most this much of the end of a log is looked at.
const LIMIT: u64 = 4 << 20;

/// The log from byte `start` on, without the terminal's control sequences. Empty when there is no log yet.
pub fn read(path: &Path, start: u64) -> String {
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let start = start.max(length.saturating_sub(LIMIT));
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(start)).is_err() || file.take(LIMIT).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    plain(&String::from_utf8_lossy(&bytes))
}

/// The last `count` lines that have something in them.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// UEFI's terminal draws with escape sequences; what remains is text.
fn plain(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                if characters.peek() == Some(&'[') {
                    characters.next();
                    while let Some(&next) = characters.peek() {
                        characters.next();
                        if next.is_ascii_alphabetic() {
                            // A cursor movement begins a new place on the screen.
                            if next == 'H' && !output.ends_with('\n') {
                                output.push('\n');
                            }
                            break;
                        }
                    }
                } else {
                    characters.next();
                }
            }
            '\r' | '\0' => {}
            other => output.push(other),
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_vanish_and_words_stay() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01H\u{1b}[0mBdsDxe: x\r\ny\u{1b}[K"), "\nBdsDxe: x\ny");
        assert_eq!(tail("a\n\nb\n c\n\n", 2), "b\n c");
    }
}

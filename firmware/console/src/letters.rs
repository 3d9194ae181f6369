//! Text as the firmware's console wants it: UTF-16 without surrogates, NUL-terminated, in short pieces, no allocation.

use core::fmt;

const LENGTH: usize = 128;
/// What the console cannot show: letters beyond the basic plane, control characters.
const REPLACEMENT: u16 = 0xfffd;

/// Collects letters and hands them on as pieces that end with a NUL.
pub struct Letters<Show: FnMut(&[u16])> {
    piece: [u16; LENGTH],
    used: usize,
    show: Show,
}

impl<Show: FnMut(&[u16])> Letters<Show> {
    /// `show` is given each piece.
    pub const fn new(show: Show) -> Self {
        Self { piece: [0; LENGTH], used: 0, show }
    }

    /// Ends the line and hands on what is left.
    pub fn end_line(mut self) {
        self.add('\n');
        self.flush();
    }

    fn add(&mut self, letter: char) {
        // A line end is two letters; one place is for the NUL.
        if self.used + 3 > LENGTH {
            self.flush();
        }
        let mut put = |letter| {
            self.piece[self.used] = letter;
            self.used += 1;
        };
        match letter {
            '\n' => {
                put(u16::from(b'\r'));
                put(u16::from(b'\n'));
            }
            letter if letter.is_control() => put(REPLACEMENT),
            letter => put(u16::try_from(u32::from(letter)).unwrap_or(REPLACEMENT)),
        }
    }

    fn flush(&mut self) {
        self.piece[self.used] = 0;
        (self.show)(&self.piece[..=self.used]);
        self.used = 0;
    }
}

impl<Show: FnMut(&[u16])> fmt::Write for Letters<Show> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().for_each(|letter| self.add(letter));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::string::String;
    use std::vec::Vec;

    fn shown(text: &str) -> Vec<Vec<u16>> {
        let mut pieces = Vec::new();
        let mut letters = Letters::new(|piece: &[u16]| pieces.push(piece.to_vec()));
        letters.write_str(text).unwrap();
        letters.end_line();
        pieces
    }

    #[test]
    fn every_piece_is_short_ends_with_one_nul_and_all_letters_arrive() {
        for length in [0, 1, 124, 125, 126, 127, 128, 129, 1000] {
            let text: String = "x".repeat(length);
            let pieces = shown(&text);
            for piece in &pieces {
                assert!(piece.len() <= LENGTH);
                assert_eq!(piece.iter().position(|&letter| letter == 0), Some(piece.len() - 1));
            }
            let all: Vec<u16> = pieces.concat().into_iter().filter(|&letter| letter != 0).collect();
            assert_eq!(String::from_utf16(&all).unwrap(), text + "\r\n");
        }
    }

    /// boot D12.
    #[test]
    fn what_the_console_cannot_show_is_replaced() {
        let pieces = shown("a\u{1f600}\0\u{1b}[2Jé\nb");
        assert_eq!(String::from_utf16(&pieces[0]).unwrap(), "a\u{fffd}\u{fffd}\u{fffd}[2Jé\r\nb\r\n\0");
    }
}

//! Access units on their way to the decoder: bounded, and never in the way of the camera's connection.
//!
//! When the decoder is slower than the camera, or away, the backlog grows to its bound; from then on access units are
//! dropped up to a key picture, with which the backlog begins anew. So what the decoder gets can always be decoded and
//! is never older than the bound.

use std::collections::VecDeque;

/// Access units that may wait.
pub const MAXIMUM_UNITS: usize = 60;
/// Bytes that may wait.
pub const MAXIMUM_BYTES: usize = 8 << 20;

/// One coded picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Unit {
    /// H.264, byte stream format.
    pub bytes: Vec<u8>,
    /// Decoding can begin here.
    pub key: bool,
    /// Something before it was lost.
    pub gap: bool,
    /// Microseconds since 1970 at which it arrived.
    pub timestamp_us: i64,
}

/// What waits.
#[derive(Default)]
pub struct Backlog {
    units: VecDeque<Unit>,
    bytes: usize,
    /// Up to the next key picture nothing is taken.
    dropping: bool,
    dropped: u64,
}

impl Backlog {
    /// Takes an access unit, or drops it (and perhaps what waits before it).
    pub fn push(&mut self, mut unit: Unit) {
        let fits = self.units.len() < MAXIMUM_UNITS && self.bytes + unit.bytes.len() <= MAXIMUM_BYTES;
        if unit.key && (self.dropping || !fits) {
            // What waits is older than this and no longer needed to decode it.
            self.dropped += self.units.len() as u64;
            self.units.clear();
            self.bytes = 0;
            unit.gap = true;
            self.dropping = false;
        } else if self.dropping || !fits {
            self.dropping = true;
            self.dropped += 1;
            return;
        }
        self.bytes += unit.bytes.len();
        self.units.push_back(unit);
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<Unit> {
        let unit = self.units.pop_front()?;
        self.bytes -= unit.bytes.len();
        Some(unit)
    }

    /// A new decoder begins: it needs the last key picture and what follows it.
    pub fn restart(&mut self) {
        let keep = self.units.iter().rposition(|unit| unit.key).unwrap_or(self.units.len());
        self.dropped += keep as u64;
        self.units.drain(..keep);
        self.bytes = self.units.iter().map(|unit| unit.bytes.len()).sum();
        self.dropping |= self.units.is_empty();
    }

    /// How many were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(number: i64, key: bool, bytes: usize) -> Unit {
        Unit { bytes: vec![0; bytes], key, gap: false, timestamp_us: number }
    }

    fn content(backlog: &mut Backlog) -> Vec<(i64, bool)> {
        std::iter::from_fn(|| backlog.pop()).map(|unit| (unit.timestamp_us, unit.gap)).collect()
    }

    #[test]
    fn in_time_nothing_is_dropped() {
        let mut backlog = Backlog::default();
        for number in 0..1000 {
            backlog.push(unit(number, number % 30 == 0, 100));
            assert_eq!(backlog.pop().map(|unit| (unit.timestamp_us, unit.gap)), Some((number, false)));
        }
        assert_eq!((backlog.dropped(), backlog.bytes), (0, 0));
    }

    #[test]
    fn a_slow_decoder_goes_on_at_a_key_picture() {
        let mut backlog = Backlog::default();
        // One key picture in front, and then none for longer than the bound.
        for number in 0..MAXIMUM_UNITS as i64 + 10 {
            backlog.push(unit(number, number == 0, 100));
        }
        assert_eq!(backlog.dropped(), 10);
        // Although there is room again, nothing that cannot be decoded is taken …
        backlog.pop();
        backlog.push(unit(100, false, 100));
        assert_eq!(backlog.dropped(), 11);
        // … before a key picture, with which it begins anew.
        backlog.push(unit(101, true, 100));
        backlog.push(unit(102, false, 100));
        assert_eq!(backlog.dropped(), 11 + MAXIMUM_UNITS as u64 - 1);
        assert_eq!(content(&mut backlog), [(101, true), (102, false)]);
        assert_eq!(backlog.bytes, 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut backlog = Backlog::default();
        for number in 0..5 {
            backlog.push(unit(number, number == 0, MAXIMUM_BYTES / 4));
        }
        assert_eq!((backlog.units.len(), backlog.bytes, backlog.dropped()), (4, MAXIMUM_BYTES, 1));
    }

    #[test]
    fn a_new_decoder_begins_at_the_last_key_picture() {
        let mut backlog = Backlog::default();
        for number in 0..10 {
            backlog.push(unit(number, number == 2 || number == 7, 100));
        }
        backlog.restart();
        assert_eq!(content(&mut backlog), [(7, false), (8, false), (9, false)]);
        backlog.push(unit(10, false, 100));
        backlog.restart();
        backlog.push(unit(11, false, 100));
        backlog.push(unit(12, true, 100));
        assert_eq!(content(&mut backlog), [(12, true)]);
    }
}

//! Access units on their way to the decoder: bounded, and never in the way of the camera's connection.
//!
//! When the decoder is slower than the camera, or away, the backlog grows to its bound; from then on access units are
//! dropped up to a key picture, with which the backlog begins anew, or until nothing waits any more. So what the decoder
//! gets is never older than the bound, and it knows where something is missing.
//!
//! What is said about the stream's state waits among them, in order: a decoder that hears first that the camera is gone
//! and then gets its last pictures would say that it plays.

use belvedere_interfaces::access_units::MAXIMUM_ACCESS_UNIT;
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
    /// It refers to no other picture.
    pub intra: bool,
    /// Something before it was lost.
    pub gap: bool,
    /// Microseconds since 1970 at which it arrived.
    pub timestamp_us: i64,
}

/// How the stream is: whether it plays, and a line for people.
pub type State = (bool, String);

/// What goes to the decoder.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    /// A coded picture.
    Unit(Unit),
    /// How the stream is from here on.
    State(State),
}

/// What waits.
#[derive(Default)]
pub struct Backlog {
    /// Never two states in a row, so there are at most [`MAXIMUM_UNITS`] + 1 of them.
    items: VecDeque<Item>,
    units: usize,
    bytes: usize,
    /// Up to the next key picture, or until nothing waits any more, nothing is taken.
    dropping: bool,
    dropped: u64,
    /// The last that was said; said again to every new decoder.
    state: Option<State>,
}

impl Backlog {
    /// Takes an access unit, or drops it (and perhaps what waits before it).
    pub fn push(&mut self, mut unit: Unit) {
        if unit.bytes.is_empty() || unit.bytes.len() > MAXIMUM_ACCESS_UNIT {
            // The decoder would not take it, and what follows refers to it.
            self.dropping = true;
            self.dropped += 1;
            return;
        }
        let fits = self.units < MAXIMUM_UNITS && self.bytes + unit.bytes.len() <= MAXIMUM_BYTES;
        if self.dropping && self.units == 0 {
            // The decoder keeps up again. It knows that something is missing, and where a stream without key pictures can
            // be begun with.
            unit.gap = true;
            self.dropping = false;
        } else if unit.key && (self.dropping || !fits) {
            // What waits is older than this and no longer needed to decode it.
            self.clear();
            unit.gap = true;
            self.dropping = false;
        } else if self.dropping || !fits {
            self.dropping = true;
            self.dropped += 1;
            return;
        }
        self.units += 1;
        self.bytes += unit.bytes.len();
        self.items.push_back(Item::Unit(unit));
    }

    /// How the stream is from now on, behind what waits. Whether that is news.
    pub fn state(&mut self, state: State) -> bool {
        if self.state.as_ref() == Some(&state) {
            return false;
        }
        self.state = Some(state.clone());
        if matches!(self.items.back(), Some(Item::State(_))) {
            self.items.pop_back();
        }
        self.items.push_back(Item::State(state));
        true
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Unit(unit) = &item {
            self.units -= 1;
            self.bytes -= unit.bytes.len();
        }
        Some(item)
    }

    /// A new decoder begins: it needs the last key picture and what follows it, and must know how the stream is.
    pub fn restart(&mut self) {
        let key = |item: &Item| matches!(item, Item::Unit(unit) if unit.key);
        let keep = self.items.iter().rposition(key).unwrap_or(self.items.len());
        let rest = self.items.split_off(keep);
        self.clear();
        for item in &rest {
            if let Item::Unit(unit) = item {
                self.units += 1;
                self.bytes += unit.bytes.len();
            }
        }
        self.items = rest;
        self.dropping |= self.units == 0;
        if let Some(state) = &self.state
            && !self.items.iter().any(|item| matches!(item, Item::State(_)))
        {
            self.items.push_back(Item::State(state.clone()));
        }
    }

    /// Drops all access units; what was said last about the stream stays.
    fn clear(&mut self) {
        self.dropped += self.units as u64;
        let state = self.items.iter().rev().find(|item| matches!(item, Item::State(_))).cloned();
        self.items.clear();
        self.items.extend(state);
        (self.units, self.bytes) = (0, 0);
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
        Unit { bytes: vec![0; bytes], key, intra: false, gap: false, timestamp_us: number }
    }

    fn content(backlog: &mut Backlog) -> Vec<(i64, bool)> {
        units(backlog).collect()
    }

    fn units(backlog: &mut Backlog) -> impl Iterator<Item = (i64, bool)> {
        std::iter::from_fn(|| backlog.pop()).filter_map(|item| match item {
            Item::Unit(unit) => Some((unit.timestamp_us, unit.gap)),
            Item::State(_) => None,
        })
    }

    /// Units by their numbers, states as they are.
    fn said(backlog: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.pop())
            .map(|item| match item {
                Item::Unit(unit) => unit.timestamp_us.to_string(),
                Item::State((playing, detail)) => format!("{playing} {detail}"),
            })
            .collect()
    }

    #[test]
    fn in_time_nothing_is_dropped() {
        let mut backlog = Backlog::default();
        for number in 0..1000 {
            backlog.push(unit(number, number % 30 == 0, 100));
            assert_eq!(units(&mut backlog).next(), Some((number, false)));
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
        assert_eq!((backlog.units, backlog.bytes, backlog.dropped()), (4, MAXIMUM_BYTES, 1));
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
        // There was no key picture, and perhaps there never is one: the decoder decides.
        backlog.push(unit(11, false, 100));
        backlog.push(unit(12, true, 100));
        assert_eq!(content(&mut backlog), [(11, true), (12, false)]);
    }

    /// runtime D21.
    #[test]
    fn what_the_decoder_would_not_take_is_a_loss_up_to_the_next_key_picture() {
        for bytes in [0, MAXIMUM_ACCESS_UNIT + 1] {
            let mut backlog = Backlog::default();
            backlog.push(unit(1, true, MAXIMUM_ACCESS_UNIT));
            backlog.push(unit(2, false, bytes));
            backlog.push(unit(3, false, 100));
            assert_eq!((content(&mut backlog), backlog.dropped()), (vec![(1, false)], 2));
            backlog.push(unit(4, true, 100));
            backlog.push(unit(5, false, 100));
            assert_eq!(content(&mut backlog), [(4, true), (5, false)]);
        }
    }

    /// runtime D22.
    #[test]
    fn what_is_said_about_the_stream_comes_in_its_place() {
        let mut backlog = Backlog::default();
        let playing = || (true, String::new());
        let gone = || (false, "gone".to_owned());
        backlog.push(unit(1, true, 100));
        assert!(backlog.state(playing()));
        assert!(!backlog.state(playing()));
        backlog.push(unit(2, false, 100));
        assert!(backlog.state((false, "going".into())) && backlog.state(gone()));
        assert_eq!(said(&mut backlog), ["1", "true ", "2", "false gone"]);
        // A new decoder hears it too, behind the pictures before it.
        backlog.restart();
        assert_eq!(said(&mut backlog), ["false gone"]);
        backlog.state(playing());
        backlog.push(unit(3, true, 100));
        backlog.push(unit(4, false, 100));
        backlog.state(gone());
        backlog.restart();
        assert_eq!(said(&mut backlog), ["3", "4", "false gone"]);
        // And what is dropped takes no state with it.
        backlog.state(playing());
        for number in 0..2 * MAXIMUM_UNITS as i64 {
            backlog.push(unit(number, false, 100));
            backlog.state((number % 2 == 0, String::new()));
        }
        assert!(backlog.items.len() <= 2 * MAXIMUM_UNITS + 1);
        backlog.push(unit(500, true, 100));
        assert_eq!(said(&mut backlog), ["false ", "500"]);
    }
}

//! Time stamps of pictures that are shown in another order than they were sent in.
//!
//! An access unit's time stamp says when it arrived. Where there are B pictures, pictures leave the decoder in another
//! order, and its own time stamps would go back and forth. Pictures that leave in the order of display then get the
//! arrival times in their order: the picture that leaves as the nth gets the nth time. Where nothing is reordered, each
//! picture keeps its own.

use std::collections::VecDeque;

/// H.264 holds at most 16 pictures back. What left no picture after so many later ones will never leave one.
const DEPTH: u64 = 17;
/// A clock that goes back by more was set.
const SET_BACK_US: i64 = 1_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Access units so far.
    units: u64,
    /// Arrivals whose picture did not come yet, with the access units' numbers.
    waiting: VecDeque<(u64, i64)>,
    /// Arrivals that were not given to a picture yet: as many.
    free: VecDeque<i64>,
    reordered: bool,
    /// The latest arrival whose picture came.
    latest: Option<i64>,
    /// What was given last.
    given: Option<i64>,
}

impl Timeline {
    /// Decoding begins anew: nothing comes any more of what went in.
    pub fn restart(&mut self) {
        *self = Timeline { given: self.given, ..Timeline::default() };
    }

    /// An access unit goes into the decoder.
    pub fn unit(&mut self, arrived: i64) {
        let last = self.waiting.back().map(|(_, last)| *last).or(self.latest);
        if last.is_some_and(|last| arrived < last.saturating_sub(SET_BACK_US)) {
            *self = Timeline::default();
        }
        self.units += 1;
        self.waiting.push_back((self.units, arrived));
        self.free.push_back(arrived);
        while self.waiting.front().is_some_and(|(number, _)| number + DEPTH < self.units) {
            self.waiting.pop_front();
            self.free.pop_front();
        }
    }

    /// The picture of the access unit that arrived then leaves the decoder: its time stamp.
    pub fn picture(&mut self, arrived: i64) -> i64 {
        let mut stamp = arrived;
        // One that is not known is a second picture of its access unit.
        if let Some(at) = self.waiting.iter().position(|(_, waiting)| *waiting == arrived) {
            self.waiting.remove(at);
            let first = self.free.pop_front();
            self.reordered |= self.latest.is_some_and(|latest| arrived < latest);
            self.latest = self.latest.max(Some(arrived));
            if self.reordered {
                stamp = first.unwrap_or(arrived);
            }
        }
        if let Some(given) = self.given
            && stamp <= given
            && given - stamp < SET_BACK_US
        {
            stamp = given + 1;
        }
        self.given = Some(stamp);
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(timeline: &mut Timeline, steps: &[(i64, &[i64])]) -> Vec<i64> {
        let mut stamps = Vec::new();
        for (arrived, pictures) in steps {
            timeline.unit(arrived * 1000);
            stamps.extend(pictures.iter().map(|picture| timeline.picture(picture * 1000)));
        }
        stamps
    }

    #[test]
    fn where_nothing_is_reordered_each_picture_keeps_its_own() {
        let mut timeline = Timeline::default();
        // The second gave no picture, the fourth two.
        assert_eq!(
            play(&mut timeline, &[(1, &[1]), (2, &[]), (3, &[3]), (4, &[4, 4]), (5, &[5])]),
            [1000, 3000, 4000, 4001, 5000]
        );
        for number in 6..1000 {
            let pictures: &[i64] = if number % 3 == 0 { &[] } else { &[number] };
            assert_eq!(play(&mut timeline, &[(number, pictures)]), pictures.iter().map(|p| p * 1000).collect::<Vec<_>>());
        }
    }

    /// Field case b-pyramid: I0 P4 B2 B1 B3, again and again.
    #[test]
    fn pictures_in_the_order_of_display_get_times_that_rise() {
        let mut timeline = Timeline::default();
        let mut stamps = play(&mut timeline, &[(0, &[]), (1, &[]), (2, &[0]), (3, &[3]), (4, &[2])]);
        for group in 1..40 {
            let first = group * 4;
            let steps: [(i64, &[i64]); 4] =
                [(first + 1, &[first]), (first + 2, &[first - 3]), (first + 3, &[first + 3]), (first + 4, &[first + 2])];
            stamps.extend(play(&mut timeline, &steps));
        }
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
        let late = &stamps[20..];
        assert!(late.windows(2).all(|pair| pair[1] - pair[0] == 1000), "evenly: {late:?}");
    }

    #[test]
    fn what_never_comes_out_does_not_make_times_late_for_ever() {
        let mut timeline = Timeline::default();
        play(&mut timeline, &[(0, &[0]), (1, &[]), (2, &[2]), (3, &[1])]);
        for number in 4..14 {
            play(&mut timeline, &[(number, &[])]);
        }
        let mut last = 0;
        for number in 14..100 {
            last = play(&mut timeline, &[(number, &[number])])[0];
        }
        assert_eq!(last, 99_000);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let mut timeline = Timeline::default();
        assert_eq!(play(&mut timeline, &[(900_000, &[900_000]), (900_001, &[900_001])]), [900_000_000, 900_001_000]);
        assert_eq!(play(&mut timeline, &[(5, &[5]), (6, &[6])]), [5000, 6000]);
        timeline.restart();
        assert_eq!(play(&mut timeline, &[(6, &[6])]), [6001]);
    }
}

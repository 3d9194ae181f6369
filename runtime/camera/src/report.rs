//! What a stream's status says: the truth about pictures, not about packets.
//!
//! The state machine follows what the camera sends. Whether pictures come of it is known by the decoder alone, so a
//! stream plays when the decoder says that it does:
//!
//! | the camera | the decoder | the status |
//! |---|---|---|
//! | does not send | – | as [`Machine`] says |
//! | sends | gave pictures lately | `Playing`, their size and rate |
//! | sends | gave none yet in this session | `Connecting`, for a while |
//! | sends | gave none for a while | `Stalled`, and why |

use crate::feed::Delivered;
use crate::machine::Machine;
use belvedere_interfaces::camera::StreamState;
use std::time::Duration;
use tokio::time::Instant;

/// How often the rate in the status is computed anew.
const RATE: Duration = Duration::from_secs(5);

/// Follows one session.
#[derive(Debug)]
pub struct Report {
    /// The longest time without a picture.
    patience: Duration,
    /// Since when the camera sends.
    since: Option<Instant>,
    /// Pictures before it, and what was delivered when the rate was computed.
    before: u64,
    measured: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Report {
    /// `patience`: how long a camera may send without a picture coming of it.
    pub fn new(patience: Duration) -> Self {
        Report { patience, since: None, before: 0, measured: None, rate: None }
    }

    /// State and detail at `now`.
    pub fn state(&mut self, now: Instant, machine: &Machine, delivered: &Delivered) -> (StreamState, String) {
        let state = machine.state();
        if state != StreamState::Playing {
            if state != StreamState::Stalled {
                *self = Report::new(self.patience);
                self.before = delivered.pictures;
            }
            return (state, machine.detail().to_owned());
        }
        let since = *self.since.get_or_insert(now);
        let last = delivered.at.filter(|_| delivered.pictures > self.before);
        let blind = now.saturating_duration_since(last.map_or(since, |last| last.max(since)));
        if blind >= self.patience {
            let why = if delivered.decoder {
                "the camera sends H.264, but no picture comes of it: there is no key picture, or it is of a kind that cannot be decoded"
            } else {
                "the camera sends pictures, but the decoder is away; it is started again by itself"
            };
            return (StreamState::Stalled, why.into());
        }
        let Some(last) = last else {
            return (StreamState::Connecting, "connected: waiting for the first picture".into());
        };
        let (measured, pictures) = *self.measured.get_or_insert((last, delivered.pictures));
        let elapsed = last.saturating_duration_since(measured);
        if elapsed >= RATE {
            self.rate = Some(delivered.pictures.saturating_sub(pictures) as f64 / elapsed.as_secs_f64());
            self.measured = Some((last, delivered.pictures));
        }
        let size = format!("{}×{}", delivered.size.0, delivered.size.1);
        match self.rate {
            Some(rate) => (StreamState::Playing, format!("{size}, {rate:.1} pictures a second")),
            None => (StreamState::Playing, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Event, Failure, Policy};

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A camera that sends 15 access units a second from second 0 on, and a decoder that gives `pictures(second)`.
    fn play(seconds: u64, pictures: impl Fn(u64) -> u64, decoder: bool) -> (StreamState, String) {
        let begin = Instant::now();
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        let mut report = Report::new(PATIENCE);
        let mut delivered = Delivered { decoder, pictures: 7, at: Some(begin), size: (0, 0) };
        let mut state = report.state(begin, &machine, &delivered);
        assert_eq!(state, (StreamState::Connecting, "connecting".into()));
        for number in 0..seconds * 15 {
            let now = Duration::from_secs(number) / 15;
            machine.step(now, Event::Picture, 0.5);
            let second = number / 15;
            let total = 7 + (0..second).map(&pictures).sum::<u64>();
            if delivered.pictures != total {
                delivered = Delivered { pictures: total, at: Some(begin + now), size: (318, 244), ..delivered };
            }
            state = report.state(begin + now, &machine, &delivered);
        }
        state
    }

    /// Field case recovery-points-only: the state said 15 pictures a second when none came.
    #[test]
    fn a_camera_whose_access_units_give_no_picture_does_not_play() {
        assert_eq!(play(4, |_| 0, true).0, StreamState::Connecting);
        let (state, detail) = play(6, |_| 0, true);
        assert!(state == StreamState::Stalled && detail.contains("key picture"), "{state:?} {detail}");
        let (state, detail) = play(6, |_| 0, false);
        assert!(state == StreamState::Stalled && detail.contains("decoder is away"), "{state:?} {detail}");
        let (state, _) = play(30, |second| if second < 10 { 15 } else { 0 }, true);
        assert_eq!(state, StreamState::Stalled);
    }

    #[test]
    fn the_rate_is_that_of_pictures() {
        assert_eq!(play(3, |_| 15, true), (StreamState::Playing, "318×244".into()));
        assert_eq!(play(12, |_| 15, true), (StreamState::Playing, "318×244, 15.0 pictures a second".into()));
        assert_eq!(play(12, |_| 5, true), (StreamState::Playing, "318×244, 5.0 pictures a second".into()));
    }

    #[test]
    fn what_the_machine_says_of_a_camera_that_does_not_send_counts() {
        let begin = Instant::now();
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        let mut report = Report::new(PATIENCE);
        machine.step(Duration::ZERO, Event::Ended(Failure::Other("gone".into())), 0.5);
        let delivered = Delivered { decoder: true, pictures: 9, at: Some(begin), size: (2, 2) };
        assert_eq!(report.state(begin, &machine, &delivered), (StreamState::Backoff, "gone".into()));
    }
}

//! Reads the two lights as a person does: by looking for a while.
//!
//! The board has them on its PL061: line 0 status green, 1 status red, 2 status blue, 4 network green, 5 network red.
//! Red and green together are orange. Fast is once a second, slow once in three seconds.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Which light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Light {
    /// The status light.
    Status,
    /// The network light.
    Network,
}

/// What a light looks like while it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Green.
    Green,
    /// Red.
    Red,
    /// Blue.
    Blue,
    /// Red and green.
    Orange,
    /// Any other mixture: no board should show it.
    Other,
}

/// What a light does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Dark.
    Off,
    /// On all the time.
    Solid(Colour),
    /// On and off once in three seconds.
    Slow(Colour),
    /// On and off once a second.
    Fast(Colour),
    /// Not looked at for long enough since it last changed.
    Unclear,
}

/// Both lights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lights {
    /// The status light.
    pub status: Pattern,
    /// The network light.
    pub network: Pattern,
}

impl Lights {
    /// One of the two.
    pub fn of(&self, light: Light) -> Pattern {
        match light {
            Light::Status => self.status,
            Light::Network => self.network,
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Green => "green",
            Self::Red => "red",
            Self::Blue => "blue",
            Self::Orange => "orange",
            Self::Other => "mixed",
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (speed, colour) = match self {
            Self::Off => return formatter.write_str("off"),
            Self::Unclear => return formatter.write_str("unclear"),
            Self::Solid(colour) => ("solid", colour),
            Self::Slow(colour) => ("slow", colour),
            Self::Fast(colour) => ("fast", colour),
        };
        write!(formatter, "{speed} {colour}")
    }
}

impl fmt::Display for Lights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "status {}, network {}", self.status, self.network)
    }
}

/// How long one looks.
pub const WINDOW: Duration = Duration::from_secs(4);
/// How often one looks within that time.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// How many changes are kept for who wonders why a light was not seen: some 20 s of fast blinking of both.
const HISTORY: usize = 80;

/// What was seen in the last [`WINDOW`].
#[derive(Debug, Default)]
pub struct Samples {
    looks: VecDeque<(Duration, u8)>,
    changes: VecDeque<(Duration, u8)>,
}

impl Samples {
    /// Adds the PL061's lines as read at `time` (since any fixed start).
    pub fn add(&mut self, time: Duration, lines: u8) {
        self.looks.push_back((time, lines));
        while self.looks.front().is_some_and(|&(oldest, _)| time.saturating_sub(oldest) > WINDOW) {
            self.looks.pop_front();
        }
        if self.changes.back().is_none_or(|&(_, before)| before != lines) {
            self.changes.push_back((time, lines));
            if self.changes.len() > HISTORY {
                self.changes.pop_front();
            }
        }
    }

    /// Forgets everything: the power was cut.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The newest look.
    pub fn newest(&self) -> Option<u8> {
        self.looks.back().map(|&(_, lines)| lines)
    }

    /// What the lights do.
    pub fn lights(&self) -> Lights {
        Lights { status: self.classify(status_colour), network: self.classify(network_colour) }
    }

    /// The last changes of the lines, for a person who wonders why a light was not seen: seconds since power-on, status light,
    /// network light.
    pub fn history(&self) -> String {
        let name = |colour: Option<Colour>| colour.map_or("-".to_owned(), |colour| colour.to_string());
        let change = |&(time, lines): &(Duration, u8)| {
            format!("{:.1} {}/{}", time.as_secs_f32(), name(status_colour(lines)), name(network_colour(lines)))
        };
        self.changes.iter().map(change).collect::<Vec<_>>().join(", ")
    }

    fn classify(&self, colour_of: fn(u8) -> Option<Colour>) -> Pattern {
        let seen: Vec<(Duration, Option<Colour>)> =
            self.looks.iter().map(|&(time, lines)| (time, colour_of(lines))).collect();
        let seen = without_glitches(&seen);
        let Some(&(last_time, last)) = seen.last() else {
            return Pattern::Unclear;
        };
        // Only what came after the last change from one colour to another says something about now.
        let colour = seen.iter().rev().find_map(|&(_, colour)| colour);
        let start = seen.iter().rposition(|&(_, other)| other.is_some() && other != colour).map_or(0, |place| place + 1);
        let seen = &seen[start..];
        let first_time = seen.first().map_or(last_time, |&(time, _)| time);
        let watched = last_time.saturating_sub(first_time);
        let changes: Vec<Duration> = seen.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect();
        let still_for = last_time.saturating_sub(changes.last().copied().unwrap_or(first_time));
        // Half a slow blink lasts 1.5 s: twice that without a change is no blinking, also where the machine is busy.
        if still_for >= Duration::from_secs(3) {
            return last.map_or(Pattern::Off, Pattern::Solid);
        }
        let (Some(colour), [first, .., end]) = (colour, changes.as_slice()) else {
            return Pattern::Unclear;
        };
        if watched < Duration::from_millis(1400) {
            return Pattern::Unclear;
        }
        // Between changes: half a period, so 0.5 s or 1.5 s; their geometric middle divides them.
        let half = end.saturating_sub(*first) / u32::try_from(changes.len() - 1).unwrap_or(u32::MAX);
        if half < Duration::from_millis(870) {
            // Three changes can still be a light that was switched on, off and on for good.
            if changes.len() < 3 {
                return Pattern::Unclear;
            }
            Pattern::Fast(colour)
        } else {
            Pattern::Slow(colour)
        }
    }
}

/// A single look that differs from two equal neighbours is the moment between two writes of a two-colour light.
fn without_glitches(seen: &[(Duration, Option<Colour>)]) -> Vec<(Duration, Option<Colour>)> {
    let mut smooth = seen.to_vec();
    // The newest look counts once another one has confirmed it.
    if let [.., before, last] = seen
        && before.1 != last.1
    {
        smooth.pop();
    }
    for place in 1..smooth.len().saturating_sub(1) {
        let (before, here, after) = (seen[place - 1].1, seen[place].1, seen[place + 1].1);
        // Seen at the edge of a blink, a half-lit orange takes the value that follows.
        if here.is_some() && here != before && here != after {
            smooth[place].1 = after;
        }
    }
    smooth
}

fn status_colour(lines: u8) -> Option<Colour> {
    match lines & 0b111 {
        0 => None,
        0b001 => Some(Colour::Green),
        0b010 => Some(Colour::Red),
        0b100 => Some(Colour::Blue),
        0b011 => Some(Colour::Orange),
        _ => Some(Colour::Other),
    }
}

fn network_colour(lines: u8) -> Option<Colour> {
    match lines >> 4 & 0b11 {
        0 => None,
        0b01 => Some(Colour::Green),
        0b10 => Some(Colour::Red),
        _ => Some(Colour::Orange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms for `seconds` at a light that shows `lines(milliseconds)`.
    fn look(seconds: u64, lines: impl Fn(u64) -> u8) -> Lights {
        let mut samples = Samples::default();
        for time in (0..=seconds * 1000).step_by(100) {
            samples.add(Duration::from_millis(time), lines(time));
        }
        samples.lights()
    }

    #[test]
    fn the_patterns_of_the_guide_are_told_apart() {
        for phase in (0..3000).step_by(100) {
            let fast = |time: u64| (time + phase) % 1000 < 500;
            let slow = |time: u64| (time + phase) % 3000 < 1500;
            assert_eq!(look(5, |time| u8::from(fast(time))).status, Pattern::Fast(Colour::Green));
            assert_eq!(look(5, |time| 2 * u8::from(fast(time))).status, Pattern::Fast(Colour::Red));
            assert_eq!(look(5, |time| 4 * u8::from(slow(time))).status, Pattern::Slow(Colour::Blue), "{phase}");
            assert_eq!(look(5, |time| 3 * u8::from(slow(time))).status, Pattern::Slow(Colour::Orange));
            let both = look(5, |time| 1 + 0x20 * u8::from(fast(time)));
            assert_eq!(both.status, Pattern::Solid(Colour::Green));
            assert_eq!(both.network, Pattern::Fast(Colour::Red));
        }
        assert_eq!(look(5, |_| 0).status, Pattern::Off);
        assert_eq!(look(5, |_| 0x10).network, Pattern::Solid(Colour::Green));
    }

    #[test]
    fn a_change_is_believed_only_after_a_while() {
        let turned = |at: u64| move |time: u64| if time < at { 2 } else { 1 };
        assert_eq!(look(8, turned(7500)).status, Pattern::Unclear);
        assert_eq!(look(8, turned(6000)).status, Pattern::Unclear);
        assert_eq!(look(8, turned(5000)).status, Pattern::Solid(Colour::Green));
        let stopped = |time: u64| u8::from(time > 4500 || time % 1000 < 500);
        assert_eq!(look(8, stopped).status, Pattern::Solid(Colour::Green));
    }

    #[test]
    fn the_moment_between_two_writes_of_an_orange_light_does_not_count() {
        let orange = |time: u64| match time % 3000 {
            0 => 1,
            1..1500 => 3,
            1500 => 2,
            _ => 0,
        };
        assert_eq!(look(6, orange).status, Pattern::Slow(Colour::Orange));
    }
}

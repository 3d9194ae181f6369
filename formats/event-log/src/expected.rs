//! The section `.belvexp` of a release's image: what should be measured when it starts. UTF-8, a line each:
//!
//! ```text
//! belvedere expected 1
//! release
//! 11 .linux <SHA-256, 64 hexadecimal digits>
//! start of 1 of 2 updates, db key 1
//! 7 SecureBoot <SHA-256>
//! ```
//!
//! Events of the release come first; each `start` begins one of the ways in which the firmware may start it, of which
//! `name` says which one. The document is not measured and nobody trusts it: it is there to say what differs.

use crate::{Digest, REGISTERS, extend, hex};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The section of the release's image.
pub const SECTION: &str = ".belvexp";
/// The longest document, bytes: a UEFI variable has room for it.
pub const LIMIT: usize = 8000;
/// The most ways of a start.
pub const MAXIMUM_STARTS: usize = 6;
/// The most events of each.
pub const MAXIMUM_EVENTS: usize = 32;
const TITLE: &str = "belvedere expected 1";
const RELEASE: &str = "release";

/// An event that should be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Into which register.
    pub register: u32,
    /// As [`crate::log::Event::name`] names it, without spaces.
    pub name: String,
    /// The event's digest.
    pub digest: Digest,
}

/// Events under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// For people: printable ASCII, at most 80 letters.
    pub name: String,
    /// In their order.
    pub events: Vec<Event>,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What is measured of the release itself.
    pub release: Vec<Event>,
    /// What the firmware measures; one of them.
    pub starts: Vec<Start>,
}

/// What a register holds after these events.
pub fn register(events: &[Event], number: u32) -> Digest {
    events.iter().filter(|event| event.register == number).fold([0; 32], |value, event| extend(&value, &event.digest))
}

impl Expected {
    /// The section's content; nothing when it could not be read again.
    pub fn encode(&self) -> Option<String> {
        let mut text = format!("{TITLE}\n{RELEASE}\n");
        let add = |text: &mut String, events: &[Event]| {
            for Event { register, name, digest } in events {
                text.push_str(&format!("{register} {name} {}\n", hex(digest)));
            }
        };
        add(&mut text, &self.release);
        for start in &self.starts {
            text.push_str(&format!("start {}\n", start.name));
            add(&mut text, &start.events);
        }
        (Self::decode_section(text.as_bytes()).as_ref() == Some(self)).then_some(text)
    }

    /// Reads a section, which may have been filled up with zeros; nothing when it is not exactly one document.
    pub fn decode_section(section: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(section.get(..section.len().min(LIMIT + 1))?).ok()?.trim_end_matches('\0');
        if text.len() > LIMIT {
            return None;
        }
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != TITLE || lines.next()? != RELEASE {
            return None;
        }
        let (mut release, mut starts): (Vec<Event>, Vec<Start>) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(name) = line.strip_prefix("start ") {
                let right = (1..=80).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                if !right || starts.len() >= MAXIMUM_STARTS {
                    return None;
                }
                starts.push(Start { name: name.to_string(), events: Vec::new() });
                continue;
            }
            let events = starts.last_mut().map_or(&mut release, |start| &mut start.events);
            if events.len() >= MAXIMUM_EVENTS {
                return None;
            }
            events.push(event(line)?);
        }
        Some(Self { release, starts })
    }
}

fn event(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let (register, name, digits) = (words.next()?, words.next()?, words.next()?);
    let register = REGISTERS.into_iter().find(|known| known.to_string() == register)?;
    let right = (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    (right && words.next().is_none() && digits.len() == 64).then_some(())?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |letter: u8| match letter {
            b'0'..=b'9' => Some(letter - b'0'),
            b'a'..=b'f' => Some(letter - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Event { register, name: name.to_string(), digest })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;

    pub fn make(register: u32, name: &str, byte: u8) -> Event {
        Event { register, name: name.to_string(), digest: [byte; 32] }
    }

    pub fn sample() -> Expected {
        let start = |name: &str, dbx| Start {
            name: name.to_string(),
            events: vec![make(7, "SecureBoot", 1), make(7, "db", 2), make(7, "dbx", dbx), make(7, "separator", 4)],
        };
        Expected {
            release: vec![make(11, ".linux", 10), make(11, ".initrd", 11)],
            starts: vec![start("before", 3), start("after", 30)],
        }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let text = sample().encode().unwrap();
        assert_eq!(Expected::decode_section(text.as_bytes()), Some(sample()));
        let filled = [text.as_bytes(), &[0; 50]].concat();
        assert_eq!(Expected::decode_section(&filled), Some(sample()));
        for wrong in [
            text.replace("expected 1", "expected 2"),
            text.replace("release\n", ""),
            text.replace("start before", "start be\x1bfore"),
            text.replace("7 db ", "8 db "),
            text.replace("7 db ", "7 d b "),
            text.replacen(&"02".repeat(32), &format!("{} x", "02".repeat(32)), 1),
            text.replace("0a0a", "0A0a"),
            text.replacen("0a", "", 1),
            text.trim_end().to_string(),
            format!("{text}\n"),
            format!("{text}{}", "start x\n".repeat(5)),
            format!("{text}{}", "x".repeat(LIMIT)),
        ] {
            assert_eq!(Expected::decode_section(wrong.as_bytes()), None, "{wrong}");
        }
        let mut long = sample();
        long.release = vec![make(11, ".linux", 1); MAXIMUM_EVENTS + 1];
        assert_eq!(long.encode(), None);
    }
}

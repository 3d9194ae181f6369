//! What was measured beside what was expected.

use crate::expected::{self, Expected, Start};
use crate::log::Event;
use crate::{Digest, REGISTERS, extend, hex};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The register.
    pub register: u32,
    /// The event, or that it is the register's value.
    pub name: String,
    /// What was measured; nothing when it was expected and did not come.
    pub measured: Option<Digest>,
    /// What was expected; nothing when it came and was not.
    pub expected: Option<Digest>,
}

impl Row {
    /// Whether both are there and the same.
    pub fn is_same(&self) -> bool {
        self.measured.is_some() && self.measured == self.expected
    }
}

/// The way of a start that is nearest to what was measured: it has the most events in common.
fn nearest<'e>(expected: &'e Expected, events: &[Event<'_>]) -> Option<&'e Start> {
    let measured = events.iter().filter(|event| event.register == 7).take(MEASURED);
    let measured: Vec<Digest> = measured.map(|event| event.digest).collect();
    let common = |start: &Start| {
        let expected: Vec<Digest> = start.events.iter().take(MEASURED).map(|event| event.digest).collect();
        pairs(&measured, &expected).len()
    };
    // The first of the nearest: without updates there is one.
    expected.starts.iter().rev().max_by_key(|start| common(start))
}

/// Places of what both have, in the order of both: a longest common subsequence. Bounded: a release has few events, and a log
/// is cut to `MEASURED` for each register.
fn pairs(measured: &[Digest], expected: &[Digest]) -> Vec<(usize, usize)> {
    let width = expected.len() + 1;
    let mut lengths = alloc::vec![0u32; (measured.len() + 1) * width];
    let at = |lengths: &[u32], m: usize, e: usize| lengths.get(m * width + e).copied().unwrap_or(0);
    for (m, digest) in measured.iter().enumerate().rev() {
        for (e, other) in expected.iter().enumerate().rev() {
            let longest = if digest == other {
                at(&lengths, m + 1, e + 1) + 1
            } else {
                at(&lengths, m + 1, e).max(at(&lengths, m, e + 1))
            };
            if let Some(place) = lengths.get_mut(m * width + e) {
                *place = longest;
            }
        }
    }
    let (mut m, mut e, mut found) = (0, 0, Vec::new());
    while let (Some(digest), Some(other)) = (measured.get(m), expected.get(e)) {
        if digest == other {
            found.push((m, e));
            (m, e) = (m + 1, e + 1);
        } else if at(&lengths, m + 1, e) >= at(&lengths, m, e + 1) {
            m += 1;
        } else {
            e += 1;
        }
    }
    found
}

/// How many events of one register are compared.
const MEASURED: usize = 64;

/// Compares, register by register of [`REGISTERS`]. `values` are what the TPM's registers hold now. Gives the name of the
/// start that was taken for the expected one, and the rows.
pub fn compare(events: &[Event<'_>], expected: &Expected, values: &[(u32, Digest)]) -> (String, Vec<Row>) {
    let start = nearest(expected, events);
    let name = start.map_or("no start", |start| start.name.as_str()).to_string();
    let mut rows = Vec::new();
    for register in REGISTERS {
        let wanted = start.into_iter().flat_map(|start| &start.events).chain(&expected.release);
        let wanted: Vec<&expected::Event> = wanted.filter(|event| event.register == register).take(MEASURED).collect();
        let measured: Vec<&Event<'_>> = events.iter().filter(|event| event.register == register).take(MEASURED).collect();
        let digests = (
            measured.iter().map(|event| event.digest).collect::<Vec<_>>(),
            wanted.iter().map(|event| event.digest).collect::<Vec<_>>(),
        );
        let same = pairs(&digests.0, &digests.1);
        let (mut m, mut e) = (0, 0);
        for (until_m, until_e) in same.iter().copied().chain([(measured.len(), wanted.len())]) {
            between(
                &mut rows,
                register,
                measured.get(m..until_m).unwrap_or_default(),
                wanted.get(e..until_e).unwrap_or_default(),
            );
            if let (Some(event), Some(_)) = (measured.get(until_m), wanted.get(until_e)) {
                let digest = Some(event.digest);
                rows.push(Row { register, name: event.name(), measured: digest, expected: digest });
            }
            (m, e) = (until_m + 1, until_e + 1);
        }
        let value = values.iter().find(|(number, _)| *number == register).map(|(_, value)| *value);
        let all: Vec<expected::Event> = wanted.into_iter().cloned().collect();
        let expected = Some(expected::register(&all, register));
        rows.push(Row { register, name: "value of the register".to_string(), measured: value, expected });
        let replayed = events.iter().filter(|event| event.register == register);
        let replayed = replayed.fold([0; 32], |value, event| extend(&value, &event.digest));
        if value.is_some_and(|value| value != replayed) {
            let name = "the log does not lead to this value: it is not whole".to_string();
            rows.push(Row { register, name, measured: value, expected: Some(replayed) });
        }
    }
    (name, rows)
}

/// What lies between two events that both have: events of one name belong together.
fn between(rows: &mut Vec<Row>, register: u32, measured: &[&Event<'_>], wanted: &[&expected::Event]) {
    let mut left: Vec<&expected::Event> = wanted.to_vec();
    for event in measured {
        let name = event.name();
        let place = left.iter().position(|wanted| wanted.name == name);
        let expected = place.map(|place| left.remove(place).digest);
        rows.push(Row { register, name, measured: Some(event.digest), expected });
    }
    for event in left {
        rows.push(Row { register, name: event.name.clone(), measured: None, expected: Some(event.digest) });
    }
}

/// The table for people, a line for each row.
pub fn table(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let Row { register, name, measured, expected } = row;
            let text = |digest: &Digest| hex(digest);
            let verdict = match (measured, expected) {
                (Some(measured), Some(_)) if row.is_same() => format!("same       {}", text(measured)),
                (Some(measured), Some(expected)) => format!("DIFFERENT  {}, expected {}", text(measured), text(expected)),
                (Some(measured), None) => format!("UNEXPECTED {}", text(measured)),
                (None, Some(expected)) => format!("MISSING    expected {}", text(expected)),
                (None, None) => "unknown".to_string(),
            };
            format!("register {register:2}  {name:22} {verdict}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected::tests::sample;
    use crate::log::{self, tests as logs};

    fn log_of(events: &[(u32, &str, u8)]) -> Vec<u8> {
        let data: Vec<(u32, u32, Vec<u8>, u8)> = events
            .iter()
            .map(|&(register, name, byte)| match (register, name) {
                (_, "separator") => (register, 4, alloc::vec![0; 4], byte),
                (7, _) => (register, 0x8000_0001, logs::variable(name), byte),
                _ => (register, 0x0d, format!("belvedere section {name} sha256 00").into_bytes(), byte),
            })
            .collect();
        let entries: Vec<_> =
            data.iter().map(|(register, kind, data, byte)| (*register, *kind, [*byte; 32], data.as_slice())).collect();
        logs::sample(&entries)
    }

    fn values(events: &[Event<'_>]) -> Vec<(u32, Digest)> {
        let value = |register| {
            let of_it = events.iter().filter(|event| event.register == register);
            (register, of_it.fold([0; 32], |value, event| extend(&value, &event.digest)))
        };
        REGISTERS.map(value).to_vec()
    }

    fn compared(events: &[(u32, &str, u8)]) -> (String, Vec<Row>) {
        let bytes = log_of(events);
        let events = log::read(&bytes).unwrap();
        compare(&events, &sample(), &values(&events))
    }

    const GOOD: [(u32, &str, u8); 6] =
        [(7, "SecureBoot", 1), (7, "db", 2), (7, "dbx", 3), (7, "separator", 4), (11, ".linux", 10), (11, ".initrd", 11)];

    #[test]
    fn all_is_the_same_in_either_way_of_a_start() {
        let (name, rows) = compared(&GOOD);
        assert!(name == "before" && rows.len() == 8 && rows.iter().all(Row::is_same), "{name} {rows:?}");
        let mut after = GOOD;
        after[2].2 = 30;
        let (name, rows) = compared(&after);
        assert!(name == "after" && rows.iter().all(Row::is_same), "{name} {rows:?}");
    }

    #[test]
    fn the_event_that_is_the_reason_is_named() {
        let different = |events: &[(u32, &str, u8)]| {
            let (_, rows) = compared(events);
            let wrong: Vec<Row> = rows.into_iter().filter(|row| !row.is_same()).collect();
            table(&wrong)
        };
        // Other keys in db.
        let mut other = GOOD;
        other[1].2 = 99;
        let lines = different(&other);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("register  7  db ") && lines[0].contains("DIFFERENT  6363"), "{lines:?}");
        assert!(lines[0].ends_with(&format!("expected {}", "02".repeat(32))) && lines[1].contains("value of the register"));
        // Something that nobody expects, and something that did not come.
        let more = [&GOOD[..3], &[(7, "authority2", 77)], &GOOD[3..]].concat();
        let lines = different(&more);
        assert!(lines[0].contains("authority2") && lines[0].contains("UNEXPECTED"), "{lines:?}");
        let less = [&GOOD[..4], &GOOD[5..]].concat();
        let lines = different(&less);
        assert!(lines[0].starts_with("register 11  .linux") && lines[0].contains("MISSING"), "{lines:?}");
    }

    #[test]
    fn a_log_that_does_not_lead_to_the_value_is_told() {
        let bytes = log_of(&GOOD);
        let events = log::read(&bytes).unwrap();
        let mut values = values(&events);
        values[0].1 = [0xee; 32];
        let lines = table(&compare(&events, &sample(), &values).1);
        assert!(lines.iter().any(|line| line.contains("does not lead to this value")), "{lines:?}");
    }
}

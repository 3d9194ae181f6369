//! The firmware's event log, and the section with the events that a release expects: read when volumes stay closed.
//! Input: two bytes with the length of the section, then the section, then the log.
#![no_main]

use belvedere_event_log::comparison::{compare, table};
use belvedere_event_log::expected::Expected;
use belvedere_event_log::log;
use belvedere_storage::measured;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (section, bytes) = rest.split_at(length);
    let expected = Expected::decode_section(section);
    if let Some(expected) = &expected {
        let again = expected.encode().expect("what was read can be written");
        assert!(section.starts_with(again.as_bytes()));
    }
    let events = log::read(bytes).unwrap_or_default();
    let nothing = Expected { release: Vec::new(), starts: Vec::new() };
    let (_, rows) = compare(&events, expected.as_ref().unwrap_or(&nothing), &[(7, [0; 32])]);
    for line in table(&rows).into_iter().chain(measured::lines(bytes, section, &[(7, [0; 32]), (11, [1; 32])])) {
        assert!(!line.chars().any(char::is_control) && line.len() < 1200, "{line:?}");
    }
});

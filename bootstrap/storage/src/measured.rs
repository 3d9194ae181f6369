//! Which event is the reason when the TPM keeps the secrets from what runs: lines for the console and the log. Asked for only
//! then; a start in which all fits does nothing of it.

use belvedere_event_log::comparison::{Row, compare, table};
use belvedere_event_log::expected::Expected;
use belvedere_event_log::{Digest, hex, log};

/// How each line begins, so that `init` tells it from the others and keeps it for the next start.
pub const PREFIX: &str = "measured: ";

/// The table: what the firmware's event log says beside what the release expects. `values`: number and content of registers
/// of the TPM.
pub fn lines(event_log: &[u8], expected: &[u8], values: &[(u32, Digest)]) -> Vec<String> {
    let told = |text: String| vec![format!("{PREFIX}{text}")];
    let Some(expected) = Expected::decode_section(expected) else {
        return told("the release does not say what it expects, so no event can be compared".to_owned());
    };
    let events = match log::read(event_log) {
        Ok(events) => events,
        Err(error) => return told(format!("no event can be compared: {error}")),
    };
    let (start, rows) = compare(&events, &expected, values);
    let wrong = rows.iter().filter(|row| !row.is_same()).count();
    let mut lines = told(format!("{} events compared with a start {start}; {wrong} lines do not fit:", events.len()));
    lines.extend(table(&rows).into_iter().map(|line| format!("{PREFIX}{line}")));
    lines.extend(reason(&rows).map(|reason| format!("{PREFIX}the reason is {reason}")));
    lines
}

/// The first event that does not fit, in one sentence.
fn reason(rows: &[Row]) -> Option<String> {
    let row = rows.iter().find(|row| !row.is_same())?;
    let Row { register, name, .. } = row;
    let how = match (&row.measured, &row.expected) {
        (Some(measured), Some(_)) => format!("is not what it should be: {}", hex(measured)),
        (Some(_), None) => "should not be there".to_owned(),
        (None, _) => "is missing".to_owned(),
    };
    Some(format!("{name} in register {register}, which {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_event_log::expected::{Event, Start};
    use belvedere_event_log::extend;

    /// A log with one event of register 7, a separator.
    fn log_of(digest: Digest) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, 3, 0, 0, 0];
        bytes.extend([0; 20]);
        let head = [&b"Spec ID Event03\0"[..], &[0; 8], &[1, 0, 0, 0, 0x0b, 0, 32, 0, 0]].concat();
        bytes.extend((head.len() as u32).to_le_bytes());
        bytes.extend(head);
        bytes.extend([7, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0]);
        bytes.extend(digest);
        bytes.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_lines_name_the_event_and_the_register() {
        let event = Event { register: 7, name: "separator".into(), digest: [1; 32] };
        let start = Start { name: "with 0 of 0 updates".into(), events: vec![event] };
        let expected = Expected { release: Vec::new(), starts: vec![start] }.encode().unwrap();
        let values = |digest| [(7, extend(&[0; 32], &digest)), (11, [0; 32])];
        let good = lines(&log_of([1; 32]), expected.as_bytes(), &values([1; 32]));
        assert!(good[0].contains("1 events compared with a start with 0 of 0 updates; 0 lines"), "{good:?}");
        let bad = lines(&log_of([2; 32]), expected.as_bytes(), &values([2; 32]));
        assert!(bad.iter().all(|line| line.starts_with(PREFIX)), "{bad:?}");
        let last = bad.last().unwrap();
        assert!(last.contains("the reason is separator in register 7") && last.contains(&"02".repeat(32)), "{bad:?}");
        assert!(lines(b"x", expected.as_bytes(), &[])[0].contains("ends too early"));
        assert!(lines(&log_of([1; 32]), b"", &[])[0].contains("does not say what it expects"));
    }
}

//! What a start of a unified kernel image measures, as a table for people: `belvedere-image measured`.

use crate::error::{Error, Result};
use belvedere_event_log::expected::{Event, Expected, register};
use belvedere_kernel_stub::{EXPECTED, Image, POLICY};
use belvedere_tpm::boot_policy::BootPolicy;
use std::fs;
use std::path::Path;

/// The table, line by line: each event of register 11, its value, and the same of register 7 for each way of a start, with the
/// values that the TPM gives its secrets out to beside them.
///
/// # Errors
/// When the file is no such image.
pub fn describe(path: &Path) -> Result<Vec<String>> {
    let file = fs::read(path).map_err(Error::file("read", path))?;
    let invalid = |what: &str| Error::invalid(path.display().to_string(), what.to_owned());
    let image = Image::parse(&file).map_err(|error| invalid(&error.to_string()))?;
    let section = |name: &str| image.file_section(name).ok_or_else(|| invalid(&format!("has no section {name}")));
    let expected = Expected::decode_section(section(EXPECTED)?).ok_or_else(|| invalid("has malformed expected events"))?;
    let policy = BootPolicy::decode_section(section(POLICY)?).map_err(|error| invalid(&error.to_string()))?;
    Ok(lines(&expected, &policy))
}

fn lines(expected: &Expected, policy: &BootPolicy) -> Vec<String> {
    let event = |event: &Event| format!("register {:2}  {:22} {}", event.register, event.name, hex::encode(event.digest));
    let mut lines = vec!["release:".to_owned()];
    lines.extend(expected.release.iter().map(event));
    let release = register(&expected.release, 11);
    lines.push(format!("register 11  {:22} {}", "value", hex::encode(release)));
    for start in &expected.starts {
        let value = register(&start.events, 7);
        lines.push(format!("a start {}:", start.name));
        lines.extend(start.events.iter().map(event));
        let signed = match policy.entry(&value, &release) {
            Some(entry) => format!("signed, rollback level {}", entry.level),
            None => "NOT SIGNED: its volumes stay closed".to_owned(),
        };
        lines.push(format!("register  7  {:22} {} ({signed})", "value", hex::encode(value)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_event_log::expected::Start;
    use belvedere_tpm::boot_policy::Entry;
    use belvedere_tpm::{PolicyKey, PolicySignature};

    #[test]
    fn each_way_of_a_start_is_there_and_whether_it_is_signed() {
        let event = |register, byte| Event { register, name: "db".into(), digest: [byte; 32] };
        let start = |name: &str, byte| Start { name: name.into(), events: vec![event(7, byte)] };
        let expected = Expected { release: vec![event(11, 9)], starts: vec![start("before", 1), start("after", 2)] };
        let none = PolicySignature([0; 256]);
        let pcr7 = register(&expected.starts[0].events, 7);
        let pcr11 = register(&expected.release, 11);
        let entry = Entry { pcr7, pcr11, level: 3, storage: none, fuses: none };
        let lines = lines(&expected, &BootPolicy { key: PolicyKey([0; 256]), entries: vec![entry] });
        assert_eq!(lines.len(), 9);
        assert!(lines[2].ends_with(&hex::encode(pcr11)), "{lines:?}");
        assert!(lines[5].contains(&hex::encode(pcr7)) && lines[5].ends_with("(signed, rollback level 3)"), "{lines:?}");
        assert!(lines[8].contains("NOT SIGNED"), "{lines:?}");
    }
}

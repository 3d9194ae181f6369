//! What people find on the stick afterwards.

use belvedere_interfaces::logs::LogEntry;

/// In the folder `panorama` of the stick.
pub const RESULT_FILE: &str = "provisioning-result.txt";
/// Of each log file, at most; the newest lines are kept.
const LOG_BYTES: usize = 1 << 20;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the appliance has the identity of this stick.
    pub succeeded: bool,
    /// `provisioned`, or why not.
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// More lines.
    pub details: Vec<String>,
}

impl Outcome {
    /// The text of [`RESULT_FILE`]: the first line says it all.
    pub fn text(&self, now: i64) -> String {
        let word = if self.succeeded { "SUCCEEDED" } else { "FAILED" };
        let mut text = format!("{word} ({}): {}\r\n\r\n", self.reason, self.message);
        text.push_str(&format!("Time: {} UTC\r\n", time_text(now)));
        for line in &self.details {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text
    }
}

/// `2026-11-22 12:00:00`, from seconds since 1970.
pub fn time_text(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    // Howard Hinnant's "civil from days": eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The log files of the guide and what is in them. Lines of other services are the system's.
pub fn log_files(entries: &[LogEntry]) -> [(&'static str, String); 4] {
    let mut files = [
        ("occ.log", String::new()),
        ("ota_agent.log", String::new()),
        ("syslog.log", String::new()),
        ("kern.log", String::new()),
    ];
    for entry in entries {
        let index = match entry.stream.as_str() {
            "occ_log" | "provisioning" => 0,
            "ota_log" | "updater" => 1,
            "kern_log" | "kernel" => 3,
            _ => 2,
        };
        let time = time_text(entry.timestamp_ms.div_euclid(1000));
        let milliseconds = entry.timestamp_ms.rem_euclid(1000);
        files[index].1.push_str(&format!("{time}.{milliseconds:03} {}: {}\n", entry.stream, entry.message));
    }
    for (_, text) in &mut files {
        if text.len() > LOG_BYTES {
            let from = text.len() - LOG_BYTES;
            let from = text.as_bytes()[from..].iter().position(|b| *b == b'\n').map_or(text.len(), |at| from + at + 1);
            text.drain(..from);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00");
        assert_eq!(time_text(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(time_text(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(time_text(1_795_348_800), "2026-11-22 12:00:00");
        assert_eq!(time_text(4_107_542_399), "2100-02-28 23:59:59");
        assert_eq!(time_text(4_107_542_400), "2100-03-01 00:00:00");
    }

    #[test]
    fn lines_go_to_the_files_that_the_guide_names() {
        let entry = |stream: &str| LogEntry {
            sequence: 1,
            application_instance_id: None,
            stream: stream.into(),
            timestamp_ms: 1500,
            message: format!("line of {stream}"),
        };
        let files = log_files(&[entry("occ_log"), entry("kern_log"), entry("display")]);
        assert_eq!(files[0], ("occ.log", "1970-01-01 00:00:01.500 occ_log: line of occ_log\n".into()));
        assert!(files[1].1.is_empty());
        assert!(files[2].1.contains("line of display"));
        assert!(files[3].1.contains("line of kern_log"));
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let entries: Vec<_> = (0..200u64)
            .map(|i| LogEntry {
                sequence: i,
                application_instance_id: None,
                stream: "x".into(),
                timestamp_ms: 0,
                message: format!("{i:04}{}", "é".repeat(4000)),
            })
            .collect();
        let files = log_files(&entries);
        assert!(files[2].1.len() <= LOG_BYTES);
        assert!(files[2].1.contains("0199") && !files[2].1.contains(" 0000"));
    }
}

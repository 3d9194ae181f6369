//! Last words in the kernel's log, which outlive a restart where memory does (ramoops).

use crate::output::printable;
use std::io::Write;

/// The kernel refuses lines of more than 976 bytes; the rest is for its own prefix.
const LONGEST: usize = 800;

/// Writes one line of priority 2 (critical: also a quiet console and its copy in ramoops show it) to the kernel's log.
/// As far as that goes: who says this has something more important to do next, and nobody to tell.
pub fn critical(text: &str) {
    write_to("/dev/kmsg", 2, text);
}

/// What [`reached`] says before it says where.
pub const REACHED: &str = "belvedere: reached ";

/// Says how far this start has come, with priority 4 (warning: the least that the copy in ramoops gets). Should nothing be
/// heard of it any more, that is what the next start can tell of it.
pub fn reached(place: &str) {
    write_to("/dev/kmsg", 4, &format!("reached {place}"));
}

fn write_to(path: &str, priority: u8, text: &str) {
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open(path) {
        // One write is one line.
        let _ = log.write_all(line(priority, text).as_bytes());
    }
}

fn line(priority: u8, text: &str) -> String {
    let mut text = printable(text.as_bytes());
    text.truncate(text.floor_char_boundary(LONGEST));
    format!("<{priority}>belvedere: {text}\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As the kernel's log has it.
    pub fn critical_line(text: &str) -> String {
        line(2, text)
    }

    #[test]
    fn one_line_whatever_the_text_and_never_too_long() {
        assert_eq!(line(2, "agent is silent"), "<2>belvedere: agent is silent\n");
        assert_eq!(line(2, "two\nlines\x1b[0m"), "<2>belvedere: two\u{fffd}lines\u{fffd}[0m\n");
        for text in ["x".repeat(5000), "é".repeat(5000), format!("x{}", "\u{10ffff}".repeat(2000))] {
            let line = line(2, &text);
            assert!((LONGEST..976).contains(&line.len()), "{}", line.len());
        }
        assert_eq!(line(2, ""), "<2>belvedere: \n");
    }

    #[test]
    fn it_is_written_at_once_and_a_kernel_without_the_log_is_no_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_to(&file.path().display().to_string(), 4, "agent is silent");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "<4>belvedere: agent is silent\n");
        write_to("/nonexistent/kmsg", 2, "agent is silent");
    }
}

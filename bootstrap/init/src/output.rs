//! What services print, cut into lines.

use crate::spool::MAXIMUM_LINE;
use std::os::fd::OwnedFd;

/// Collects bytes until a line is whole.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes and returns the lines that are now whole, made printable. A line without end is cut at
    /// [`MAXIMUM_LINE`] bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.extend(self.finish());
            } else {
                self.pending.push(byte);
                if self.pending.len() == MAXIMUM_LINE {
                    lines.extend(self.finish());
                }
            }
        }
        lines
    }

    /// The rest, when the service is gone.
    pub fn finish(&mut self) -> Option<String> {
        let line = printable(&std::mem::take(&mut self.pending));
        (!line.is_empty()).then_some(line)
    }
}

/// What was read from a service.
#[derive(Debug, Default)]
pub struct Read {
    /// The lines that are now whole.
    pub lines: Vec<String>,
    /// Nobody can write any more.
    pub ended: bool,
}

/// Reads what lies in a pipe that does not block, at most `rounds` times `bytes`: a writer that never stops must not
/// hold its reader.
pub fn read_rounds(pipe: &OwnedFd, lines: &mut Lines, rounds: usize, bytes: usize) -> Read {
    let mut read = Read::default();
    let mut buffer = vec![0u8; bytes];
    for _ in 0..rounds {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => {
                read.ended = true;
                return read;
            }
            Ok(count) => read.lines.extend(lines.take(&buffer[..count])),
            // Empty; or interrupted, and the next turn reads on.
            Err(_) => return read,
        }
    }
    read
}

/// Valid UTF-8 without control characters: what a service prints must not drive the terminal of whoever reads it.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        let replaced = if character == '\t' {
            ' '
        } else if character.is_control() {
            '\u{fffd}'
        } else {
            character
        };
        line.push(replaced);
    }
    line
}

/// A record of `/dev/kmsg` (`priority,sequence,µs,flags;text` and further lines): the text and its priority (0 to 7),
/// when it is the kernel's own.
pub fn kernel_line(record: &[u8]) -> Option<(u8, String)> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds: u64 = fields.nth(1)?.parse().ok()?;
    // Facility 0 is the kernel; others wrote to /dev/kmsg from outside.
    if priority >> 3 != 0 {
        return None;
    }
    let line = printable(text.lines().next()?.as_bytes());
    let line = format!("[{:5}.{:06}] {line}", microseconds / 1_000_000, microseconds % 1_000_000);
    Some(((priority & 7) as u8, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\ntw"), ["one"]);
        assert_eq!(lines.take(b"o\r\n\n\nthree"), ["two"]);
        assert_eq!(lines.finish().as_deref(), Some("three"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn lines_are_bounded_and_printable() {
        let mut lines = Lines::default();
        let found = lines.take(&vec![b'a'; 2 * MAXIMUM_LINE + 3]);
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [MAXIMUM_LINE, MAXIMUM_LINE]);
        assert_eq!(lines.finish().map(|line| line.len()), Some(3));
        assert_eq!(printable(b"\x1b[31mred\xff\tend"), "\u{fffd}[31mred\u{fffd} end");
    }

    /// boot D15: eight orphans of a service that held its pipe and wrote without end held PID 1 for half a minute.
    #[test]
    fn writers_that_never_stop_do_not_hold_the_reader() {
        use std::time::{Duration, Instant};
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut writers: Vec<_> =
            (0..8).map(|_| std::process::Command::new("yes").stdout(writer.try_clone().unwrap()).spawn().unwrap()).collect();
        let began = Instant::now();
        let mut found = 0;
        // As long as they live there is always more; what one turn takes is bounded all the same.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            let read = read_rounds(&reader, &mut Lines::default(), 4, 32 * 1024);
            assert!(read.lines.len() <= 4 * 32 * 1024 / 2, "{} lines in one turn", read.lines.len());
            found += read.lines.len();
        }
        let took = began.elapsed();
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        assert!(found > 0 && took < Duration::from_secs(10), "{found} lines in {took:?}");
        drop(writer);
        let mut lines = Lines::default();
        let rest = read_rounds(&reader, &mut lines, 4, 32 * 1024);
        assert!(rest.ended, "what was left fits a pipe, and then it is over");
    }

    #[test]
    fn kernel_records_are_read() {
        let record = b"6,339,5140900,-;verity: 254:2: data block 0 is corrupted\n SUBSYSTEM=block\n";
        let (priority, line) = kernel_line(record).unwrap();
        assert_eq!((priority, line.as_str()), (6, "[    5.140900] verity: 254:2: data block 0 is corrupted"));
        assert_eq!(kernel_line(b"30,1,1,-;from a program\n"), None);
        for broken in [b"".as_slice(), b";", b"6,1;x", b"x,1,1,-;y", b"6,1,1,-;"] {
            assert_eq!(kernel_line(broken), None);
        }
    }
}

//! Lines of applications that wait to be sent to the service. In memory: after a power cut the lines of the last
//! moments are lost; they are the application's own files that keep them.

use belvedere_interfaces::logs::{LogBatch, LogEntry};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries that wait at most.
pub const ENTRIES: usize = 20_000;
/// Bytes that wait at most.
pub const BYTES: usize = 4 << 20;
/// Bytes of one line.
pub const LINE: usize = 8_192;
/// Bytes of one batch, well below a Varlink message even when every byte is escaped.
const BATCH: usize = 128 << 10;

/// The spool.
#[derive(Debug, Default)]
pub struct Spool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    last: u64,
    dropped: u64,
    /// What was dropped of each application and is not said yet.
    lost: BTreeMap<String, Lost>,
}

/// Dropped lines of one application, to be said in its own log.
#[derive(Debug)]
struct Lost {
    lines: u64,
    /// Of the last of them: the place in the order where it is said.
    sequence: u64,
    timestamp_ms: i64,
    /// What was given to the reader and is not confirmed: sequence and number of lines.
    told: Option<(u64, u64)>,
}

impl Spool {
    /// Adds a line; the oldest are dropped when there is no room.
    pub fn push(&self, application_instance_id: &str, stream: &str, line: &[u8]) {
        let timestamp_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let message = readable(line);
        let Ok(mut inner) = self.inner.lock() else { return };
        inner.last += 1;
        let entry = LogEntry {
            sequence: inner.last,
            application_instance_id: Some(application_instance_id.to_owned()),
            stream: stream.to_owned(),
            timestamp_ms,
            message,
        };
        inner.bytes += size(&entry);
        inner.entries.push_back(entry);
        while inner.entries.len() > ENTRIES || inner.bytes > BYTES {
            let Some(old) = inner.entries.pop_front() else { break };
            inner.bytes -= size(&old);
            inner.dropped += 1;
            inner.lose(&old);
        }
    }

    /// Forgets entries up to `after` and gives the oldest of the others.
    pub fn read(&self, after: u64, limit: u32) -> LogBatch {
        let Ok(mut inner) = self.inner.lock() else { return LogBatch::default() };
        // A number we never gave is a reader's memory of an earlier run: nothing of this run was stored.
        let after = if after > inner.last { 0 } else { after };
        while inner.entries.front().is_some_and(|entry| entry.sequence <= after) {
            if let Some(old) = inner.entries.pop_front() {
                inner.bytes -= size(&old);
            }
        }
        inner.confirm(after);
        let mut bytes = 0;
        let mut said: Vec<LogEntry> = inner.say();
        said.sort_by_key(|entry| entry.sequence);
        let entries = said
            .iter()
            .chain(&inner.entries)
            .take(limit.clamp(1, 1_000) as usize)
            .take_while(|entry| {
                bytes += size(entry);
                bytes <= BATCH
            })
            .cloned()
            .collect();
        LogBatch { entries, dropped: inner.dropped }
    }
}

impl Inner {
    fn lose(&mut self, old: &LogEntry) {
        let Some(id) = &old.application_instance_id else { return };
        let lost = self.lost.entry(id.clone()).or_insert(Lost {
            lines: 0,
            sequence: 0,
            timestamp_ms: old.timestamp_ms,
            told: None,
        });
        lost.lines += 1;
        lost.sequence = old.sequence;
        lost.timestamp_ms = old.timestamp_ms;
    }

    fn confirm(&mut self, after: u64) {
        self.lost.retain(|_, lost| {
            // They had been read before they were dropped.
            if after >= lost.sequence {
                return false;
            }
            if let Some((sequence, lines)) = lost.told
                && after >= sequence
            {
                lost.lines -= lines;
                lost.told = None;
            }
            lost.lines > 0
        });
    }

    /// A line for each application that lost some. All of them stand before the entries that are left.
    fn say(&mut self) -> Vec<LogEntry> {
        let entry = |(id, lost): (&String, &mut Lost)| {
            lost.told = Some((lost.sequence, lost.lines));
            LogEntry {
                sequence: lost.sequence,
                application_instance_id: Some(id.clone()),
                stream: crate::supervisor::CONSOLE.to_owned(),
                timestamp_ms: lost.timestamp_ms,
                message: format!("{} lines lost: more was written than could be sent to the service", lost.lines),
            }
        };
        self.lost.iter_mut().map(entry).collect()
    }
}

fn size(entry: &LogEntry) -> usize {
    entry.message.len() + entry.stream.len() + 96
}

/// Valid UTF-8 without line ends, of at most [`LINE`] bytes.
fn readable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(LINE)];
    let mut text = String::from_utf8_lossy(cut).replace(['\n', '\r'], " ");
    // Replacement characters are longer than what they replace.
    while text.len() > LINE {
        text.pop();
    }
    text.truncate(text.trim_end().len());
    text
}

/// Splits a stream of bytes into lines for [`Spool::push`]; an endless line is cut at [`LINE`].
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes, gives whole lines to `line`.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            for piece in text.chunks(LINE) {
                let room = LINE - self.rest.len().min(LINE);
                let (now, later) = piece.split_at(piece.len().min(room));
                self.rest.extend_from_slice(now);
                if !later.is_empty() {
                    line(&self.rest);
                    self.rest = later.to_vec();
                }
            }
            if ended {
                if !self.rest.is_empty() {
                    line(&self.rest);
                }
                self.rest.clear();
            }
        }
    }

    /// The last line, which has no end.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            line(&self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_pieces() {
        let text = b"one\ntwo\n\nthree";
        for piece in 1..text.len() {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for bytes in text.chunks(piece) {
                lines.feed(bytes, |line| out.push(String::from_utf8(line.to_vec()).unwrap()));
            }
            lines.finish(|line| out.push(String::from_utf8(line.to_vec()).unwrap()));
            assert_eq!(out, ["one", "two", "three"], "pieces of {piece}");
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::default();
        let mut sizes = Vec::new();
        lines.feed(&vec![b'x'; LINE * 2 + 5], |line| sizes.push(line.len()));
        lines.finish(|line| sizes.push(line.len()));
        assert_eq!(sizes, [LINE, LINE, 5]);
    }

    #[test]
    fn what_was_read_is_forgotten_when_it_is_confirmed() {
        let spool = Spool::default();
        for i in 0..5 {
            spool.push("a", "code_node", format!("line {i}").as_bytes());
        }
        let batch = spool.read(0, 2);
        assert_eq!(batch.entries.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["line 0", "line 1"]);
        assert_eq!(spool.read(0, 2), batch, "not confirmed, so it comes again");
        assert_eq!(spool.read(2, 10).entries.len(), 3);
        assert_eq!(spool.read(5, 10).entries.len(), 0);
    }

    #[test]
    fn the_spool_is_bounded_and_counts_what_it_drops() {
        let spool = Spool::default();
        for _ in 0..ENTRIES + 10 {
            spool.push("a", "s", b"x");
        }
        assert_eq!(spool.read(0, 1).dropped, 10);
        let long = vec![b'y'; 20_000];
        for _ in 0..1_000 {
            spool.push("a", "s", &long);
        }
        let batch = spool.read(0, 1_000);
        assert!(batch.entries.iter().map(|e| e.message.len()).sum::<usize>() <= BATCH);
        assert!(spool.inner.lock().unwrap().bytes <= BYTES);
    }

    /// Runtime D29, tried applications A2: dropped lines were counted and nobody was told.
    #[test]
    fn whoever_lost_lines_is_told_how_many_once() {
        let spool = Spool::default();
        for _ in 0..10 {
            spool.push("quiet", "code_node", b"x");
        }
        for _ in 0..ENTRIES + 5 {
            spool.push("chatty", "code_node", b"y");
        }
        let batch = spool.read(0, 3);
        let said: Vec<_> =
            batch.entries.iter().map(|e| (e.application_instance_id.as_deref().unwrap(), &*e.message)).collect();
        assert_eq!(said[0], ("quiet", "10 lines lost: more was written than could be sent to the service"));
        assert_eq!(said[1], ("chatty", "5 lines lost: more was written than could be sent to the service"));
        assert_eq!(said[2], ("chatty", "y"));
        assert!(batch.entries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        // What was dropped after it was read is not lost.
        spool.push("chatty", "code_node", b"y");
        let batch = spool.read(batch.entries[2].sequence, 1);
        assert_eq!(batch.entries[0].message, "y", "{batch:?}");
        for _ in 0..3 {
            spool.push("chatty", "code_node", b"y");
        }
        assert!(spool.read(batch.entries[0].sequence - 1, 1).entries[0].message.starts_with("3 lines lost"));
    }

    #[test]
    fn anything_becomes_a_readable_line() {
        assert_eq!(readable(b"a\xff\nb \r\n"), "a\u{fffd} b");
        assert!(readable(&[0xff; 20_000]).len() <= LINE);
    }
}

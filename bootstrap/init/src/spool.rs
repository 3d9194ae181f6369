//! Lines that wait until the agent has stored them with the service: bounded, oldest dropped first.

use belvedere_interfaces::logs::{LogBatch, LogEntry};
use std::collections::VecDeque;

/// Most entries kept.
pub const MAXIMUM_ENTRIES: usize = 8192;
/// Most bytes of text kept.
pub const MAXIMUM_BYTES: usize = 4 * 1024 * 1024;
/// Longest line in bytes.
pub const MAXIMUM_LINE: usize = 8192;
/// Most bytes of text in one answer: with JSON's escapes at most six times as much, under the transport's limit.
const BATCH_BYTES: usize = 160 * 1024;

/// The lines.
#[derive(Debug, Default)]
pub struct Spool {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    last: u64,
    dropped: u64,
}

impl Spool {
    /// Adds a line of a stream of the device's own log group.
    pub fn add(&mut self, stream: &str, timestamp_ms: i64, message: &str) {
        self.last += 1;
        let mut end = message.len().min(MAXIMUM_LINE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = message[..end].to_owned();
        self.bytes += message.len();
        self.entries.push_back(LogEntry {
            sequence: self.last,
            application_instance_id: None,
            stream: stream.to_owned(),
            timestamp_ms,
            message,
        });
        while self.entries.len() > MAXIMUM_ENTRIES || self.bytes > MAXIMUM_BYTES {
            self.forget_first();
            self.dropped += 1;
        }
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.message.len();
        }
    }

    /// Forgets the lines up to a sequence number: somebody has stored them safely.
    pub fn forget(&mut self, up_to: u64) {
        while self.entries.front().is_some_and(|entry| entry.sequence <= up_to) {
            self.forget_first();
        }
    }

    /// The lines after a sequence number, oldest first, at most `limit` (1 to 1,000).
    pub fn read(&self, after: u64, limit: u32) -> LogBatch {
        let limit = limit.clamp(1, 1000) as usize;
        let mut bytes = 0;
        let entries = self
            .entries
            .iter()
            .filter(|entry| entry.sequence > after)
            .take(limit)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.message.len() + 1;
                first || bytes <= BATCH_BYTES
            })
            .cloned()
            .collect();
        LogBatch { entries, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_order_and_forgotten_when_told() {
        let mut spool = Spool::default();
        for number in 1..=10 {
            spool.add("syslog", number, &format!("line {number}"));
        }
        let batch = spool.read(3, 4);
        let numbers: Vec<u64> = batch.entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(numbers, [4, 5, 6, 7]);
        assert_eq!(spool.read(0, 1000).entries.len(), 10);
        spool.forget(7);
        assert_eq!(spool.read(0, 1000).entries.len(), 3);
        assert_eq!(spool.read(0, 0).entries.len(), 1);
        assert_eq!(spool.read(100, 10), LogBatch { entries: vec![], dropped: 0 });
    }

    #[test]
    fn number_and_size_are_bounded_and_drops_are_counted() {
        let mut spool = Spool::default();
        for _ in 0..MAXIMUM_ENTRIES + 5 {
            spool.add("syslog", 0, "x");
        }
        assert_eq!((spool.entries.len(), spool.dropped), (MAXIMUM_ENTRIES, 5));
        let line = "y".repeat(MAXIMUM_LINE);
        for _ in 0..2 * MAXIMUM_BYTES / MAXIMUM_LINE {
            spool.add("syslog", 0, &line);
        }
        assert!(spool.bytes <= MAXIMUM_BYTES);
        assert_eq!(spool.bytes, spool.entries.iter().map(|entry| entry.message.len()).sum::<usize>());
        let batch = spool.read(0, 1000);
        assert!(batch.dropped > 5 && serde_json_size(&batch) < 1024 * 1024);
    }

    /// Six bytes for each of text is the worst that JSON makes of a character.
    fn serde_json_size(batch: &LogBatch) -> usize {
        batch.entries.iter().map(|entry| 6 * entry.message.len() + 200).sum()
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let mut spool = Spool::default();
        spool.add("syslog", 0, &"ä".repeat(MAXIMUM_LINE));
        spool.add("syslog", 0, &format!("x{}", "ä".repeat(MAXIMUM_LINE)));
        let lengths: Vec<usize> = spool.entries.iter().map(|entry| entry.message.len()).collect();
        assert_eq!(lengths, [MAXIMUM_LINE, MAXIMUM_LINE - 1]);
    }
}

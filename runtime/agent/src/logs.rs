//! From log lines to batches of log events.

use belvedere_interfaces::logs::LogEntry;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// CloudWatch Logs counts so many bytes for each event besides its message.
const EVENT_OVERHEAD: usize = 26;

/// Bounds of one `PutLogEvents`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages and overhead.
    pub bytes: usize,
    /// Events.
    pub events: usize,
    /// From the first event to the last, milliseconds.
    pub span_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1_048_576, events: 10_000, span_ms: 24 * 3600 * 1000 }
    }
}

/// The events of one `PutLogEvents`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Log group.
    pub group: String,
    /// Log stream.
    pub stream: String,
    /// (milliseconds since 1970, message), in the order of time.
    pub events: Vec<(i64, String)>,
    /// The sequence numbers of the lines in it.
    pub sequences: Vec<u64>,
}

impl Batch {
    /// The body of the request.
    pub fn body(&self) -> Value {
        let events: Vec<Value> =
            self.events.iter().map(|(time, message)| json!({ "timestamp": time, "message": message })).collect();
        json!({ "logGroupName": self.group, "logStreamName": self.stream, "logEvents": events })
    }
}

/// The log group of the appliance or of one of its application instances.
pub fn group(device_id: &str, application_instance_id: Option<&str>) -> String {
    match application_instance_id {
        None => format!("/aws/panorama/devices/{device_id}"),
        Some(id) => format!("/aws/panorama/devices/{device_id}/applications/{id}"),
    }
}

/// Sorts lines into batches: by group and stream, in the order of time, each within the limits. No line is lost; an empty
/// one becomes a space, because CloudWatch Logs refuses empty messages.
pub fn batches(device_id: &str, entries: &[LogEntry], limits: &Limits) -> Vec<Batch> {
    let mut streams: BTreeMap<(String, String), Vec<(i64, String, u64)>> = BTreeMap::new();
    for entry in entries {
        let group = group(device_id, entry.application_instance_id.as_deref());
        let message = if entry.message.is_empty() { " ".to_owned() } else { entry.message.clone() };
        streams.entry((group, stream_name(&entry.stream))).or_default().push((
            entry.timestamp_ms.max(0),
            message,
            entry.sequence,
        ));
    }
    let mut batches = Vec::new();
    for ((group, stream), mut events) in streams {
        // Stable: lines of one millisecond stay in their order.
        events.sort_by_key(|(time, _, _)| *time);
        let empty = || Batch { group: group.clone(), stream: stream.clone(), events: Vec::new(), sequences: Vec::new() };
        let mut current = empty();
        let mut bytes = 0;
        for (time, message, sequence) in events {
            let size = message.len() + EVENT_OVERHEAD;
            let first = current.events.first().map_or(time, |(first, _)| *first);
            let full =
                bytes + size > limits.bytes || current.events.len() >= limits.events || time - first >= limits.span_ms;
            if full && !current.events.is_empty() {
                batches.push(std::mem::replace(&mut current, empty()));
                bytes = 0;
            }
            bytes += size;
            current.events.push((time, message));
            current.sequences.push(sequence);
        }
        batches.push(current);
    }
    batches
}

/// A name that CloudWatch Logs takes: no `:` and `*`, 1 to 512 characters.
fn stream_name(name: &str) -> String {
    let name: String =
        name.chars().take(500).map(|c| if c == ':' || c == '*' || c.is_control() { '_' } else { c }).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

/// How far a server's lines have been sent.
///
/// Sequence numbers begin again with the server, so a position is worth something only for the same server process of
/// the same boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Of the kernel.
    pub boot_id: String,
    /// Of the server.
    pub pid: i32,
    /// The last one up to which everything was sent, or is lost.
    pub sequence: u64,
    /// Those behind it that were sent too, while others could not be: they are not sent again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ahead: BTreeSet<u64>,
    /// How many lines the server had dropped when that was last said.
    #[serde(default)]
    pub dropped: u64,
}

impl Position {
    /// What to ask the server for.
    pub fn after(&self, boot_id: &str, pid: i32) -> u64 {
        if self.boot_id == boot_id && self.pid == pid { self.sequence } else { 0 }
    }

    /// Begins anew when it is about another process than before.
    pub fn of(&mut self, boot_id: &str, pid: i32) {
        if self.boot_id != boot_id || self.pid != pid {
            *self = Position { boot_id: boot_id.to_owned(), pid, ..Position::default() };
        }
    }

    /// What is left to send of lines that came.
    pub fn left(&self, entries: Vec<LogEntry>) -> Vec<LogEntry> {
        entries.into_iter().filter(|entry| entry.sequence > self.sequence && !self.ahead.contains(&entry.sequence)).collect()
    }

    /// Everything up to there was sent, or is lost.
    pub fn advance(&mut self, to: u64) {
        self.sequence = self.sequence.max(to);
        let sequence = self.sequence;
        self.ahead.retain(|ahead| *ahead > sequence);
    }

    /// How many more lines the server has dropped than it had when this was asked last.
    pub fn newly_dropped(&mut self, dropped: u64) -> u64 {
        let more = dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        more
    }
}

/// What a refused batch means for its lines, and for those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service cannot be asked now, or not so often: all lines wait.
    Wait,
    /// These lines are not taken, now or later: they are lost, and others go on.
    Lost,
    /// These are not taken for a reason that may be ours or theirs: should others be taken, they are lost.
    Doubtful,
}

/// Judges a refusal, by its HTTP status and the error that the service names.
pub fn verdict(status: u16, problem: &str) -> Verdict {
    let busy =
        ["Throttling", "ThrottledException", "TooManyRequests", "OperationAborted", "ServiceUnavailable", "Unavailable"];
    match status {
        408 | 425 | 429 | 500..=599 => Verdict::Wait,
        _ if busy.iter().any(|word| problem.contains(word)) => Verdict::Wait,
        401 | 403 => Verdict::Doubtful,
        _ => Verdict::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(stream: &str, time: i64, message: &str) -> LogEntry {
        LogEntry {
            sequence: 1,
            application_instance_id: (stream == "code_node").then(|| "applicationInstance-a".into()),
            stream: stream.into(),
            timestamp_ms: time,
            message: message.into(),
        }
    }

    #[test]
    fn lines_go_to_the_groups_that_the_guide_names() {
        let batches = batches("device-a", &[entry("code_node", 1, "x"), entry("occ_log", 1, "")], &Limits::default());
        assert_eq!(batches[0].group, "/aws/panorama/devices/device-a");
        assert_eq!(batches[0].body()["logEvents"][0]["message"], " ");
        assert_eq!(batches[1].group, "/aws/panorama/devices/device-a/applications/applicationInstance-a");
        assert_eq!(batches[1].stream, "code_node");
    }

    #[test]
    fn a_restarted_server_is_read_from_its_beginning() {
        let position = Position { boot_id: "b".into(), pid: 7, sequence: 99, ..Position::default() };
        assert_eq!((position.after("b", 7), position.after("b", 8), position.after("c", 7)), (99, 0, 0));
    }

    #[test]
    fn lines_that_were_sent_before_others_failed_are_not_sent_again() {
        let lines: Vec<LogEntry> = (1..=4).map(|sequence| LogEntry { sequence, ..entry("s", 0, "x") }).collect();
        let mut position = Position::default();
        position.of("b", 7);
        position.ahead.extend([2, 4]);
        let left: Vec<u64> = position.left(lines.clone()).iter().map(|entry| entry.sequence).collect();
        assert_eq!(left, [1, 3]);
        position.advance(3);
        assert_eq!((position.left(lines.clone()).len(), position.ahead.len()), (0, 1));
        position.of("b", 7);
        assert_eq!(position.sequence, 3);
        position.of("b", 8);
        assert_eq!(position.left(lines).len(), 4);
    }

    #[test]
    fn dropped_lines_are_said_once() {
        let mut position = Position::default();
        assert_eq!([7, 7, 9].map(|dropped| position.newly_dropped(dropped)), [7, 0, 2]);
    }

    #[test]
    fn refusals_that_come_again_for_ever_cost_their_lines_alone() {
        for (status, problem, expected) in [
            (400, "InvalidParameterException too new", Verdict::Lost),
            (400, "ResourceNotFoundException", Verdict::Lost),
            (400, "LimitExceededException", Verdict::Lost),
            (413, "", Verdict::Lost),
            (400, "ThrottlingException", Verdict::Wait),
            (503, "ServiceUnavailableException", Verdict::Wait),
            (429, "", Verdict::Wait),
            (403, "AccessDeniedException", Verdict::Doubtful),
        ] {
            assert_eq!(verdict(status, problem), expected, "{status} {problem}");
        }
    }

    #[test]
    fn a_batch_is_filled_exactly_to_the_limit() {
        let limits = Limits { bytes: 3 * (EVENT_OVERHEAD + 1), ..Limits::default() };
        let lines: Vec<_> = (0..4).map(|i| entry("s", i, "x")).collect();
        let sizes: Vec<_> = batches("d", &lines, &limits).iter().map(|batch| batch.events.len()).collect();
        assert_eq!(sizes, [3, 1]);
    }

    proptest! {
        #[test]
        fn every_line_is_in_exactly_one_batch_within_the_limits(
            lines in proptest::collection::vec(("[ab]", 0i64..100_000, "[x-z]{0,30}"), 0..200)
        ) {
            let entries: Vec<_> = lines.iter().map(|(s, t, m)| entry(s, *t, m)).collect();
            let limits = Limits { bytes: 500, events: 7, span_ms: 20_000 };
            let batches = batches("d", &entries, &limits);
            prop_assert_eq!(batches.iter().map(|b| b.events.len()).sum::<usize>(), entries.len());
            for batch in &batches {
                prop_assert!(!batch.events.is_empty() && batch.events.len() <= limits.events);
                prop_assert!(batch.events.iter().map(|(_, m)| m.len() + EVENT_OVERHEAD).sum::<usize>() <= limits.bytes);
                prop_assert!(batch.events.windows(2).all(|pair| pair[0].0 <= pair[1].0));
                prop_assert!(batch.events.last().unwrap().0 - batch.events[0].0 < limits.span_ms);
            }
        }
    }
}

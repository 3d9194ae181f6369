//! `org.belvedere.Logs`: lines waiting to be sent to the service. Served by `applications` (lines of applications)
//! and by `init` (lines of services); read by the agent. Each server keeps a bounded spool and counts what it drops.

use crate::Method;
use serde::{Deserialize, Serialize};

/// Reads entries with a sequence number greater than `after`, oldest first; those up to `after` may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLogs {
    /// The last sequence number that was stored safely; 0 at first.
    pub after: u64,
    /// At most so many entries, 1 to 1,000.
    pub limit: u32,
}
impl Method for ReadLogs {
    const NAME: &'static str = "org.belvedere.Logs.ReadLogs";
    type Reply = LogBatch;
}

/// Some lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogBatch {
    /// Oldest first.
    pub entries: Vec<LogEntry>,
    /// How many were dropped since the start because the spool was full.
    pub dropped: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Grows by at least one with every entry of this server; restarts at 1 with the server.
    pub sequence: u64,
    /// `None` for the device's own log group; else the application instance whose group it goes to.
    pub application_instance_id: Option<String>,
    /// `code_node` (the node's name), `console_output`, `occ_log`, `syslog`, `kern_log`, …
    pub stream: String,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// At most 8,192 bytes, valid UTF-8, no line end.
    pub message: String,
}

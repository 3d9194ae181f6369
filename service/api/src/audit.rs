//! The audit log: who called what. One task writes it, as many entries in one transaction as are waiting.
//!
//! A call that changes something, and one that gives out a secret, is answered only when its entry is on the disk; what
//! only reads is written within a second. Of appliances the allowed calls that they make all day (log events, metrics,
//! their own objects) are left out: they would push everything else out. Refused signatures are entered too, at most
//! [`MAX_UNVERIFIED`] a minute, so that nobody without a key can fill the log.

use crate::caller::Caller;
use belvedere_store::audit::AuditEntry;
use belvedere_store::{Store, now_ms};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// How long entries are kept, and how many at most.
pub const KEPT_DAYS: i64 = 90;
/// How many entries are kept at most.
pub const KEPT_ROWS: i64 = 1_000_000;
/// Refused signatures that are entered in a minute.
pub const MAX_UNVERIFIED: u32 = 100;
/// Entries that wait to be written; more make their calls wait.
const QUEUE: usize = 4096;
const BATCH: usize = 500;
const DELAY: Duration = Duration::from_secs(1);
const PRUNE: Duration = Duration::from_secs(3600);
/// Longest text of an entry, characters.
const MAX_TEXT: usize = 1024;

/// What is known of a call while it is answered.
#[derive(Debug, Default)]
pub struct Record {
    /// Who; `None` until the signature is verified.
    pub caller: Option<Caller>,
    /// As the request bears it.
    pub access_key_id: String,
    /// Where the connection came from.
    pub source: String,
    /// `panorama:ListDevices`; empty if it is not known.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
}

enum Message {
    Entry(Box<AuditEntry>, Option<oneshot::Sender<()>>),
    Flush(oneshot::Sender<()>),
}

/// The way into the log. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    sender: mpsc::Sender<Message>,
    unverified: std::sync::Arc<Mutex<(i64, u32)>>,
}

impl Audit {
    /// A log in `store`. Its task ends when the last clone is gone.
    pub fn start(store: Store) -> Audit {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(write(store, receiver));
        Audit { sender, unverified: Default::default() }
    }

    /// Enters a call that was answered with `status`.
    pub async fn enter(&self, account: &str, record: Record, request_id: &str, status: u16) {
        let refused = status == 401 || status == 403;
        let caller = match &record.caller {
            Some(Caller::Device { .. }) if !refused && is_routine(&record.action) => return,
            Some(caller) => caller.arn(account),
            None if !self.may_enter_unverified() => return,
            None => "unverified".to_owned(),
        };
        let entry = AuditEntry {
            time_ms: now_ms(),
            request_id: request_id.to_owned(),
            caller,
            access_key_id: bounded(&record.access_key_id),
            source: record.source,
            action: bounded(&record.action),
            resource: bounded(&record.resource),
            status: i64::from(status),
        };
        let (done, written) = oneshot::channel();
        let waits = record.caller.is_some() && !refused && !only_reads(&entry.action);
        let message = Message::Entry(Box::new(entry), waits.then_some(done));
        if self.sender.send(message).await.is_err() {
            tracing::error!("the audit log is closed");
        } else if waits {
            let _ = written.await;
        }
    }

    /// Waits until everything entered so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    fn may_enter_unverified(&self) -> bool {
        let minute = now_ms() / 60_000;
        let mut window = self.unverified.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0 != minute {
            *window = (minute, 0);
        }
        window.1 += 1;
        window.1 <= MAX_UNVERIFIED
    }
}

/// What an appliance does all day.
fn is_routine(action: &str) -> bool {
    matches!(action, "logs:PutLogEvents" | "cloudwatch:PutMetricData" | "s3:GetObject")
}

/// Whether an action changes nothing and gives out no secret.
fn only_reads(action: &str) -> bool {
    let name = action.split_once(':').map_or(action, |(_, name)| name);
    let reads = ["Get", "List", "Describe", "Filter", "BatchGet", "Validate"].iter().any(|p| name.starts_with(p));
    reads && name != "GetSecretValue"
}

/// One line, not too long.
fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

async fn write(store: Store, mut receiver: mpsc::Receiver<Message>) {
    let mut pruned: Option<Instant> = None;
    loop {
        let Some(first) = receiver.recv().await else { return };
        let (mut entries, mut waiting, mut open) = (Vec::new(), Vec::new(), true);
        take(first, &mut entries, &mut waiting);
        let end = Instant::now() + DELAY;
        // As long as nobody waits there is time to gather more.
        while entries.len() < BATCH {
            let next = match waiting.is_empty() {
                true => timeout_at(end, receiver.recv()).await.ok(),
                false => receiver.try_recv().ok().map(Some),
            };
            match next {
                Some(Some(message)) => take(message, &mut entries, &mut waiting),
                Some(None) => {
                    open = false;
                    break;
                }
                None => break,
            }
        }
        if let Err(e) = store.add_audit_entries(&entries).await {
            // Better in the program's log than nowhere.
            tracing::error!("cannot write the audit log: {e}");
            for entry in &entries {
                tracing::error!(?entry, "not in the audit log");
            }
        }
        for done in waiting {
            // Whoever does not wait any more does not mind.
            let _ = done.send(());
        }
        if !open {
            return;
        }
        if pruned.is_none_or(|at| at.elapsed() > PRUNE) {
            pruned = Some(Instant::now());
            let oldest = now_ms() - KEPT_DAYS * 24 * 3600 * 1000;
            if let Err(e) = store.prune_audit(oldest, KEPT_ROWS).await {
                tracing::error!("{e}");
            }
        }
    }
}

fn take(message: Message, entries: &mut Vec<AuditEntry>, waiting: &mut Vec<oneshot::Sender<()>>) {
    match message {
        Message::Entry(entry, done) => {
            entries.push(*entry);
            waiting.extend(done);
        }
        Message::Flush(done) => waiting.push(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn audit() -> (tempfile::TempDir, Store, Audit) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        let audit = Audit::start(store.clone());
        (folder, store, audit)
    }

    fn record(caller: Option<Caller>, action: &str) -> Record {
        Record {
            caller,
            access_key_id: "AKIA".into(),
            source: "127.0.0.1:1".into(),
            action: action.into(),
            resource: "*\n".into(),
        }
    }

    #[tokio::test]
    async fn a_change_is_on_the_disk_before_its_answer_and_a_read_soon() {
        let (_folder, store, audit) = audit().await;
        let administrator = || Some(Caller::Administrator { access_key_id: "AKIA".into() });
        audit.enter("1", record(administrator(), "iam:CreateRole"), "a", 200).await;
        assert_eq!(store.audit_entries(0, 9).await.unwrap().len(), 1);
        audit.enter("1", record(administrator(), "iam:GetRole"), "b", 200).await;
        audit.flush().await;
        let entries = store.audit_entries(0, 9).await.unwrap();
        assert_eq!((entries.len(), entries[1].caller.as_str()), (2, "arn:aws:iam::1:user/administrator"));
        assert_eq!(entries[1].resource, "*\u{fffd}", "one line is one line");
    }

    #[tokio::test]
    async fn nobody_without_a_key_and_no_appliance_fills_the_log() {
        let (_folder, store, audit) = audit().await;
        for _ in 0..MAX_UNVERIFIED * 2 {
            audit.enter("1", record(None, "s3:unverified"), "a", 403).await;
        }
        let device = || Some(Caller::Device { device_id: "d".into(), access_key_id: "ASIA".into() });
        audit.enter("1", record(device(), "logs:PutLogEvents"), "b", 200).await;
        audit.enter("1", record(device(), "logs:PutLogEvents"), "c", 403).await;
        audit.flush().await;
        let entries = store.audit_entries(0, 1000).await.unwrap();
        let of_devices: Vec<&str> =
            entries.iter().filter(|e| e.caller != "unverified").map(|e| e.request_id.as_str()).collect();
        assert_eq!(of_devices, ["c"], "only the refused one");
        // The minute may turn once meanwhile.
        let unverified = entries.len() - 1;
        assert!((MAX_UNVERIFIED as usize..MAX_UNVERIFIED as usize * 2).contains(&unverified), "{unverified}");
    }
}

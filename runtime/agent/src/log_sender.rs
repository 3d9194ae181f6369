//! The thread that sends lines of the appliance's logs.

use crate::asked::Asked;
use crate::logs::{Batch, Limits, Position, Verdict, batches, verdict};
use crate::service::{Event, Options, boot_id, now_seconds};
use crate::web::{Web, WebError};
use belvedere_interfaces::logs::ReadLogs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How often lines are looked for; doubled up to [`LAST_LOG_WAIT`] while the service does not take them.
const LOG_PERIOD: Duration = Duration::from_secs(5);
const LAST_LOG_WAIT: Duration = Duration::from_secs(60);
/// Lines of one look.
const LOG_LINES: u32 = 500;
/// Positions are written at most so often: losing one costs a few lines sent twice.
const POSITION_PERIOD: Duration = Duration::from_secs(60);
pub(crate) const POSITIONS: &str = "log-positions.json";

/// The thread that sends lines. Lines are forgotten by their servers only after the service took them.
pub(crate) fn send_logs(options: &Options, device_id: &str, mut web: Web, stop: &AtomicBool, heard: &SyncSender<Event>) {
    let boot_id = boot_id(options);
    let mut positions: BTreeMap<String, Position> = belvedere_durable::read_file(&options.state, POSITIONS, 64 << 10)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut sources = [("applications", Asked::new(&options.applications)), ("init", Asked::new(&options.init))];
    let (mut wait, mut written, mut said) = (LOG_PERIOD, Instant::now(), String::new());
    while !stop.load(Ordering::Acquire) {
        let (mut more, mut failed, mut changed) = (false, false, false);
        for (name, source) in &mut sources {
            match send_lines(name, source, positions.entry((*name).to_owned()).or_default(), &boot_id, device_id, &mut web) {
                Ok(count) => {
                    changed |= count > 0;
                    more |= count >= LOG_LINES as usize;
                }
                Err(_) if web.heard_of_release() => {
                    // An appliance that still is connected, by a broker that has not heard, hears it here within the hour.
                    let _ = heard.send(Event::Released(true));
                    return;
                }
                Err(message) => {
                    // Said once: this line becomes one of those that wait.
                    let text = format!("lines of {name}: {message}");
                    if text != said {
                        log::warn!("{text}; they wait");
                        said = text;
                    }
                    failed = true;
                }
            }
        }
        if changed && written.elapsed() >= POSITION_PERIOD {
            written = Instant::now();
            let bytes = serde_json::to_vec(&positions).unwrap_or_default();
            if let Err(error) = belvedere_durable::write_file(&options.state, POSITIONS, &bytes, 0o600) {
                log::warn!("{error}");
            }
        }
        wait = if failed { (wait * 2).min(LAST_LOG_WAIT) } else { LOG_PERIOD };
        if !more || failed {
            std::thread::sleep(wait);
        }
    }
}

fn send_lines(
    name: &str,
    source: &mut Asked,
    position: &mut Position,
    boot_id: &str,
    device_id: &str,
    web: &mut Web,
) -> Result<usize, String> {
    let after = position.after(boot_id, source.pid());
    let (mut batch, mut restarted) = source.ask(&ReadLogs { after, limit: LOG_LINES }).map_err(|e| e.to_string())?;
    // The first answer of a server that we did not know by its process: its numbers may have begun again.
    let right = position.after(boot_id, source.pid());
    if restarted || right != after {
        (batch, restarted) = source.ask(&ReadLogs { after: right, limit: LOG_LINES }).map_err(|e| e.to_string())?;
        if restarted {
            return Ok(0);
        }
    }
    position.of(boot_id, source.pid());
    let dropped = position.newly_dropped(batch.dropped);
    if dropped > 0 {
        // Becomes a line of the device's own log.
        log::warn!("{dropped} lines lost: {name} had no room for more while they waited to be sent");
    }
    let (count, Some(last)) = (batch.entries.len(), batch.entries.last().map(|entry| entry.sequence)) else { return Ok(0) };
    let parts = batches(device_id, &position.left(batch.entries), &Limits::default());
    send_parts(&parts, position, &mut |part| web.put_log_events(part, now_seconds()))?;
    position.advance(last);
    Ok(count)
}

/// Sends parts, each for itself: what one stream's lines meet does not hold up those of others. What was sent is
/// remembered in `position` at once; an error means that the rest is to be tried again.
fn send_parts(
    parts: &[Batch],
    position: &mut Position,
    put: &mut dyn FnMut(&Batch) -> Result<(), WebError>,
) -> Result<(), String> {
    let lost = |part: &Batch, error: &WebError| {
        log::warn!("{} lines lost, of {} {}: {error}", part.events.len(), part.group, part.stream);
    };
    let (mut sent, mut doubtful) = (0, Vec::new());
    for part in parts {
        let mut result = put(part);
        if matches!(&result, Err(WebError::Refused { status: 401 | 403, .. })) {
            // The keys were thrown away; perhaps new ones are better.
            result = put(part);
        }
        match result {
            Ok(()) => sent += 1,
            Err(error) => match &error {
                WebError::Refused { status, problem, .. } => match verdict(*status, problem) {
                    Verdict::Wait => return Err(error.to_string()),
                    Verdict::Lost => lost(part, &error),
                    Verdict::Doubtful => {
                        doubtful.push((part, error));
                        continue;
                    }
                },
                _ => return Err(error.to_string()),
            },
        }
        position.ahead.extend(&part.sequences);
    }
    match doubtful.first() {
        // Nothing is taken at all: that is not these lines' fault.
        Some((_, error)) if sent == 0 => return Err(error.to_string()),
        _ => doubtful.iter().for_each(|(part, error)| lost(part, error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_interfaces::logs::LogEntry;
    use std::collections::BTreeSet;

    fn parts() -> Vec<Batch> {
        let entry = |sequence: u64, stream: &str| LogEntry {
            sequence,
            application_instance_id: Some(format!("applicationInstance-{stream}")),
            stream: stream.into(),
            timestamp_ms: 1,
            message: "x".into(),
        };
        batches("device-a", &[entry(1, "a"), entry(2, "b"), entry(3, "c"), entry(4, "a")], &Limits::default())
    }

    fn refused(status: u16, problem: &str) -> WebError {
        WebError::Refused { what: "PutLogEvents".into(), status, problem: problem.into() }
    }

    /// Runtime D29: every answer but one held up all lines behind it, and those before it were sent again.
    #[test]
    fn one_refused_answer_holds_nobody_up_and_nothing_is_sent_twice() {
        for problem in ["AccessDeniedException", "LimitExceededException"] {
            let status = if problem.starts_with("Access") { 403 } else { 400 };
            let (mut position, mut sent) = (Position::default(), Vec::new());
            let mut put = |part: &Batch| match part.stream.as_str() {
                "b" => Err(refused(status, problem)),
                other => {
                    sent.push(other.to_owned());
                    Ok(())
                }
            };
            send_parts(&parts(), &mut position, &mut put).unwrap();
            assert_eq!(sent, ["a", "c"]);
        }
        // The service goes away in the middle: what it took is not sent again.
        let mut position = Position::default();
        let mut put = |part: &Batch| if part.stream == "b" { Err(refused(503, "")) } else { Ok(()) };
        send_parts(&parts(), &mut position, &mut put).unwrap_err();
        assert_eq!(position.ahead, BTreeSet::from([1, 4]));
        // Keys that are good for nothing cost no line.
        let mut position = Position::default();
        send_parts(&parts(), &mut position, &mut |_| Err(refused(403, "InvalidClientTokenId"))).unwrap_err();
        assert!(position.ahead.is_empty());
    }
}

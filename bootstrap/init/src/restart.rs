//! `org.belvedere.Machine` at `init`'s socket: others ask for a restart, the loop of PID 1 does it.

use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::{Done, Failure};
use belvedere_varlink::Server;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Longest reason on the console, in characters.
const MAXIMUM_REASON: usize = 200;

/// Reasons of requests that wait for the loop; one is enough to restart.
pub fn requests() -> (SyncSender<String>, Receiver<String>) {
    sync_channel(1)
}

/// One bounded line: the console shows no control characters of others.
fn reason(why: &str) -> String {
    let line: String = why.chars().filter(|c| !c.is_control()).take(MAXIMUM_REASON).collect();
    if line.trim().is_empty() { "without a reason".into() } else { line }
}

/// Notes a request.
fn ask(requests: &SyncSender<String>, why: &str) -> Result<Done, Failure> {
    match requests.try_send(reason(why)) {
        // Full: a restart is about to begin.
        Ok(()) | Err(TrySendError::Full(_)) => Ok(Done {}),
        Err(TrySendError::Disconnected(_)) => {
            let message = "the machine is ending already".into();
            Err(Failure { reason: "ending".into(), message })
        }
    }
}

/// Answers requests, which then arrive at the receiver. Who may make them is in the table of rights.
pub fn route(server: Server, requests: SyncSender<String>) -> Server {
    server.route(move |call: Restart, _| ask(&requests, &call.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_does_not_wait_and_is_not_a_second_restart() {
        let (sender, receiver) = requests();
        assert_eq!(ask(&sender, "one"), Ok(Done {}));
        assert_eq!(ask(&sender, "two"), Ok(Done {}));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["one"]);
        drop(receiver);
        assert_eq!(ask(&sender, "three").unwrap_err().reason, "ending");
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        assert_eq!(reason("job 1\n\u{1b}[2Jfaked"), "job 1[2Jfaked");
        assert_eq!(reason(" \n"), "without a reason");
        assert_eq!(reason(&"ä".repeat(1000)).chars().count(), MAXIMUM_REASON);
    }
}

//! `org.belvedere.Machine` at `init`'s socket: others ask for a restart, the loop of PID 1 does it.

use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::{Done, Failure, users};
use belvedere_varlink::Server;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Longest reason on the console, in characters.
const MAXIMUM_REASON: usize = 200;

/// Reasons of requests that wait for the loop; one is enough to restart.
pub fn requests() -> (SyncSender<String>, Receiver<String>) {
    sync_channel(1)
}

/// The agent, whose service asks for it, and root.
fn may_restart(uid: u32) -> bool {
    uid == 0 || users::id_of("agent") == Some(uid)
}

/// One bounded line: the console shows no control characters of others.
fn reason(why: &str) -> String {
    let line: String = why.chars().filter(|c| !c.is_control()).take(MAXIMUM_REASON).collect();
    if line.trim().is_empty() { "without a reason".into() } else { line }
}

/// Notes the request of a user, or says why not.
fn ask(requests: &SyncSender<String>, why: &str, uid: u32) -> Result<Done, Failure> {
    if !may_restart(uid) {
        let message = format!("user {uid} may not restart the machine");
        return Err(Failure { reason: "permission_denied".into(), message });
    }
    match requests.try_send(reason(why)) {
        // Full: a restart is about to begin.
        Ok(()) | Err(TrySendError::Full(_)) => Ok(Done {}),
        Err(TrySendError::Disconnected(_)) => {
            let message = "the machine is ending already".into();
            Err(Failure { reason: "ending".into(), message })
        }
    }
}

/// Answers requests; what is granted arrives at the receiver.
pub fn route(server: Server, requests: SyncSender<String>) -> Server {
    server.route(move |call: Restart, peer| ask(&requests, &call.why, peer.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agent_and_root_restart_the_machine() {
        let (sender, receiver) = requests();
        for user in users::USERS.iter().filter(|user| user.name != "agent") {
            assert_eq!(ask(&sender, "x", user.id).unwrap_err().reason, "permission_denied", "{}", user.name);
        }
        assert_eq!(ask(&sender, "x", users::CONTAINER_FIRST_ID).unwrap_err().reason, "permission_denied");
        assert!(receiver.try_recv().is_err(), "what is refused is not done");
        assert_eq!(ask(&sender, "job 1", users::id_of("agent").unwrap()), Ok(Done {}));
        assert_eq!(receiver.try_recv().unwrap(), "job 1");
        assert_eq!(ask(&sender, "job 2", 0), Ok(Done {}));
        assert_eq!(receiver.try_recv().unwrap(), "job 2");
    }

    #[test]
    fn a_second_request_does_not_wait_and_is_not_a_second_restart() {
        let (sender, receiver) = requests();
        assert_eq!(ask(&sender, "one", 0), Ok(Done {}));
        assert_eq!(ask(&sender, "two", 0), Ok(Done {}));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["one"]);
        drop(receiver);
        assert_eq!(ask(&sender, "three", 0).unwrap_err().reason, "ending");
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        assert_eq!(reason("job 1\n\u{1b}[2Jfaked"), "job 1[2Jfaked");
        assert_eq!(reason(" \n"), "without a reason");
        assert_eq!(reason(&"ä".repeat(1000)).chars().count(), MAXIMUM_REASON);
    }
}

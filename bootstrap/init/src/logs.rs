//! `org.belvedere.Logs` at `init`'s socket: what services and the kernel printed.

use crate::spool::Spool;
use belvedere_interfaces::logs::ReadLogs;
use belvedere_interfaces::{Failure, users};
use belvedere_varlink::Server;
use std::sync::{Arc, Mutex, PoisonError};

/// What a peer may do with the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// Reads, and what it has stored is forgotten.
    Store,
    /// Reads only.
    Read,
    /// Nothing.
    None,
}

/// Only the agent stores lines; provisioning reads them for the stick. Lines are nobody else's business: they may say
/// what another service was sent.
fn right_of(uid: u32) -> Right {
    if users::id_of("agent") == Some(uid) {
        Right::Store
    } else if uid == 0 || users::id_of("provisioning") == Some(uid) {
        Right::Read
    } else {
        Right::None
    }
}

/// Answers for the spool.
pub fn route(server: Server, spool: &Arc<Mutex<Spool>>) -> Server {
    let spool = Arc::clone(spool);
    server.route(move |call: ReadLogs, peer| {
        let right = right_of(peer.uid);
        if right == Right::None {
            let message = format!("user {} may not read the appliance's log", peer.uid);
            return Err(Failure { reason: "permission_denied".into(), message });
        }
        let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        if right == Right::Store {
            spool.forget(call.after);
        }
        Ok(spool.read(call.after, call.limit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agent_makes_lines_be_forgotten() {
        assert_eq!(right_of(users::id_of("agent").unwrap()), Right::Store);
        assert_eq!(right_of(users::id_of("provisioning").unwrap()), Right::Read);
        assert_eq!(right_of(0), Right::Read);
        assert_eq!(right_of(users::id_of("camera").unwrap()), Right::None);
        assert_eq!(right_of(users::CONTAINER_FIRST_ID), Right::None);
    }
}

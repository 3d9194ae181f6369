//! `org.belvedere.Logs` at `init`'s socket: what services and the kernel printed.

use crate::spool::Spool;
use belvedere_interfaces::logs::ReadLogs;
use belvedere_interfaces::rights::Caller;
use belvedere_varlink::Server;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether what a caller has read is forgotten, because it stores it: the agent does. Others read only.
fn stores(caller: Option<Caller>) -> bool {
    caller == Some(Caller::Service("agent"))
}

/// Answers for the spool. Who may read is in the table of rights.
pub fn route(server: Server, spool: &Arc<Mutex<Spool>>) -> Server {
    let spool = Arc::clone(spool);
    server.route(move |call: ReadLogs, peer| {
        let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        if stores(peer.caller) {
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
        assert!(stores(Some(Caller::Service("agent"))));
        for caller in [None, Some(Caller::Service("provisioning")), Some(Caller::Init), Some(Caller::Developer)] {
            assert!(!stores(caller), "{caller:?}");
        }
    }
}

//! Asking the table of rights for a connection that is here.

use crate::Peer;
use belvedere_interfaces::rights::{self, Host};
use std::os::fd::AsFd;

/// Where this process runs.
pub(crate) fn host() -> Host {
    let told = std::env::var_os(rights::SERVICE_VARIABLE).is_some();
    Host::of(std::process::id(), told, rustix::process::getuid().as_raw())
}

/// Whether the other side of a channel's connection may have it; for servers of channels, whose methods are not Varlink's.
/// Says so in the log when it may not.
pub fn may_connect(connection: impl AsFd, server: &str) -> bool {
    let peer = match Peer::of(connection) {
        Ok(peer) => peer,
        Err(error) => {
            log::warn!("a connection to {server} is refused: read the credentials of its peer: {error}");
            return false;
        }
    };
    let caller = rights::caller(peer.uid, peer.pid, host());
    let may = caller.is_some_and(|caller| rights::may_connect(server, caller));
    if !may {
        log::warn!("a connection to {server} is refused: user {} (process {}) has no right to it", peer.uid, peer.pid);
    }
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_connection_has_no_right() {
        assert!(!may_connect(std::fs::File::open("/dev/null").unwrap(), "frames"));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(may_connect(one, "frames"), "the developer who runs this test");
    }
}

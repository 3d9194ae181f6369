//! Telling `init` that a service is ready, and after that, again and again, that it lives.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The environment variable in which `init` names the descriptor (a pipe) that it waits on.
///
/// A descriptor and not a socket's path, because a process that has put on its seccomp filter can still write to it.
/// The first bytes in it are `READY=1` and a line feed; each byte after that is a sign of life.
pub const READY_VARIABLE: &str = "BELVEDERE_READY_FD";

/// Kept open after the process was ready.
static PIPE: OnceLock<File> = OnceLock::new();

/// Tells `init` that the service does its work: its socket answers, its state is read. Call it once, at that moment.
/// From then on `init` expects signs of life ([`crate::Pulse`]).
///
/// Does nothing when `init` did not start the process, and from the second call on.
pub fn notify_ready() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::AcqRel) {
        return;
    }
    let Some(number) = std::env::var(READY_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok()) else { return };
    if number < 3 {
        return;
    }
    // SAFETY: init opened this descriptor for nothing but these messages and nothing else in the process knows of it;
    // `SAID` lets this line run once, so the descriptor has one owner.
    let mut pipe = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    // What the service starts must not speak for it, and nobody waits for a full pipe.
    let prepared = rustix::io::fcntl_setfd(&pipe, rustix::io::FdFlags::CLOEXEC)
        .and_then(|()| rustix::io::ioctl_fionbio(&pipe, true))
        .map_err(std::io::Error::from);
    match prepared.and_then(|()| pipe.write_all(b"READY=1\n")) {
        Ok(()) => drop(PIPE.set(pipe)),
        Err(error) => log::warn!("tell init that the service is ready: {error}"),
    }
}

/// One sign of life. A full pipe is none too few: `init` has signs enough to read. Without `init` there is no pipe.
pub(crate) fn sign_of_life() {
    if let Some(mut pipe) = PIPE.get() {
        let _ = pipe.write(b".");
    }
}

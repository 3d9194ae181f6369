//! Telling `init` that a service is ready.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The environment variable in which `init` names the descriptor (a pipe) that it waits on.
///
/// A descriptor and not a socket's path, because a process that has put on its seccomp filter can still write to it.
pub const READY_VARIABLE: &str = "BELVEDERE_READY_FD";

/// Tells `init` that the service does its work: its socket answers, its state is read. Call it once, at that moment.
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
    // SAFETY: init opened this descriptor for nothing but this message and nothing else in the process knows of it;
    // `SAID` lets this line run once, so the descriptor has one owner.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if let Err(error) = File::from(descriptor).write_all(b"READY=1\n") {
        log::warn!("tell init that the service is ready: {error}");
    }
}

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

/// The environment variable that `init` sets, to 1, when the release that runs has proven itself in an earlier start.
pub const PROVEN_VARIABLE: &str = "BELVEDERE_RELEASE_PROVEN";

/// The environment variable that `init` sets, to 1, when this start restores the minimum release.
pub const RESTORED_VARIABLE: &str = "BELVEDERE_MINIMUM_RESTORED";

/// Whether this start restores the minimum release: by a long press reset, or by a full one, perhaps in an earlier start that a
/// power cut ended. An appliance that has no owner then is ready for one.
#[must_use]
pub fn restores_the_minimum() -> bool {
    std::env::var_os(RESTORED_VARIABLE).is_some_and(|value| value == "1")
}

/// Whether the release that runs has proven itself in an earlier start. One that has not should show all that it can do before
/// it calls itself ready, for that is what it is proven by; one that has may do what takes long afterwards.
#[must_use]
pub fn release_is_proven() -> bool {
    std::env::var_os(PROVEN_VARIABLE).is_some_and(|value| value == "1")
}

/// The process's end, once it is claimed; none when `init` did not start the process.
static PIPE: OnceLock<Option<File>> = OnceLock::new();
/// That the first message has been written.
static READY: AtomicBool = AtomicBool::new(false);

fn pipe() -> Option<&'static File> {
    let claim = || {
        let number = std::env::var(READY_VARIABLE).ok()?.parse::<i32>().ok().filter(|number| *number > 2)?;
        // SAFETY: init opened this descriptor for nothing but these messages and nothing else in the process knows of it;
        // this runs once, so the descriptor has one owner.
        let pipe = File::from(unsafe { OwnedFd::from_raw_fd(number) });
        let prepared = rustix::io::fcntl_setfd(&pipe, rustix::io::FdFlags::CLOEXEC)
            // Nobody waits for a full pipe.
            .and_then(|()| rustix::io::ioctl_fionbio(&pipe, true));
        prepared.map_err(|error| log::warn!("prepare the pipe to init: {error}")).ok().map(|()| pipe)
    };
    PIPE.get_or_init(claim).as_ref()
}

/// Keeps the descriptor from programs that this process starts, which must not speak for it. For services that start some
/// before they are ready; [`notify_ready`] does the same.
pub fn claim_ready_pipe() {
    pipe();
}

/// Tells `init` that the service does its work: its socket answers, its state is read. Call it once, at that moment.
/// From then on `init` expects signs of life ([`crate::Pulse`]).
///
/// Does nothing when `init` did not start the process, and from the second call on.
pub fn notify_ready() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::AcqRel) {
        return;
    }
    let Some(mut pipe) = pipe() else { return };
    match pipe.write_all(b"READY=1\n") {
        Ok(()) => READY.store(true, Ordering::Release),
        Err(error) => log::warn!("tell init that the service is ready: {error}"),
    }
}

/// One sign of life, after the first message. A full pipe is none too few: `init` has signs enough to read.
pub(crate) fn sign_of_life() {
    if READY.load(Ordering::Acquire)
        && let Some(mut pipe) = pipe()
    {
        let _ = pipe.write(b".");
    }
}

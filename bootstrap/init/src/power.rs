//! The end: off, or start again.

use crate::console;
use belvedere_storage::mounts;
use rustix::system::{RebootCommand, reboot};

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off.
    Off,
    /// Start again.
    Restart,
}

/// Flushes and starts the machine again at once.
pub fn restart_now() -> ! {
    end_now(End::Restart)
}

/// Flushes, unmounts the data and ends. All services are gone by now, or as good as.
pub fn end_now(end: End) -> ! {
    rustix::fs::sync();
    if let Err(error) = mounts::unmount(belvedere_interfaces::paths::DATA, false) {
        // Not mounted (first stage), or still in use: what is written is on the medium since `sync`, and the journal
        // keeps the rest consistent.
        if std::path::Path::new(belvedere_interfaces::paths::DATA).exists() {
            console::say(&format!("{error}"));
        }
    }
    rustix::fs::sync();
    console::say_when(match end {
        End::Off => "power off",
        End::Restart => "restart",
    });
    let command = match end {
        End::Off => RebootCommand::PowerOff,
        End::Restart => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        console::say(&format!("{end:?} is not possible: {error}; waiting for the watchdog"));
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

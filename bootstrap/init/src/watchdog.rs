//! The hardware watchdog: when PID 1 hangs, the machine starts again.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// How long the machine may go without a sign of life. Generous: a busy virtual machine must not be shot.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a sign is given.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// An armed watchdog. Closing it leaves it armed, on purpose: between the two stages, and when PID 1 dies.
pub struct Watchdog(File);

impl Watchdog {
    /// Opens and arms it; `None` when the board has none.
    pub fn arm() -> Option<Watchdog> {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/watchdog0").ok()?;
        let mut seconds = i32::try_from(PATIENCE.as_secs()).unwrap_or(60);
        const SET_TIMEOUT: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<i32>(b'W', 6);
        // SAFETY: WDIOC_SETTIMEOUT is `_IOWR('W', 6, int)`: reads and writes one int.
        let set = unsafe {
            let call = rustix::ioctl::Updater::<SET_TIMEOUT, i32>::new(&mut seconds);
            rustix::ioctl::ioctl(&file, call)
        };
        // Some drivers have a fixed time, which is then what holds; they are still fed often enough.
        let _ = set;
        let mut watchdog = Watchdog(file);
        watchdog.feed();
        Some(watchdog)
    }

    /// Gives the sign.
    pub fn feed(&mut self) {
        // Any byte but 'V', which would say goodbye.
        let _ = self.0.write_all(b"\0");
    }
}

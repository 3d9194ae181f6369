//! Reading from a medium that fails: each read takes seconds then, whoever watches over the start has to hear that it goes on,
//! and it must end some day.

use crate::encrypt::ALIVE;
use crate::volume::Purpose;
use belvedere_durable::{BlockDevice, DurableError};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// A read that takes this long is as good as one that fails: the medium tried again and again.
const SLOW: Duration = Duration::from_secs(1);

/// How long reads that fail or are slow may take in all before a volume is given up for this start. A system volume may be one
/// that this start does not need: it must not stop it. Without `data` nothing starts, so nothing is won by giving it up early.
pub const fn patience(purpose: Purpose) -> Duration {
    match purpose {
        Purpose::System => Duration::from_secs(2 * 60),
        Purpose::Data => Duration::from_secs(15 * 60),
    }
}

/// A device that says [`ALIVE`] after each read that failed or was slow, and knows what time they took.
pub(crate) struct Watched<'a, D> {
    device: &'a mut D,
    tell: &'a dyn Fn(&str),
    now: &'a dyn Fn() -> Instant,
    lost: Cell<Duration>,
}

impl<'a, D: BlockDevice> Watched<'a, D> {
    pub(crate) fn new(device: &'a mut D, tell: &'a dyn Fn(&str), now: &'a dyn Fn() -> Instant) -> Watched<'a, D> {
        Watched { device, tell, now, lost: Cell::new(Duration::ZERO) }
    }

    /// The time that reads took that failed or were slow.
    pub(crate) fn lost(&self) -> Duration {
        self.lost.get()
    }
}

impl<D: BlockDevice> BlockDevice for Watched<'_, D> {
    fn path(&self) -> &Path {
        self.device.path()
    }

    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError> {
        let begun = (self.now)();
        let outcome = self.device.read_at(offset, bytes);
        let took = (self.now)().saturating_duration_since(begun);
        if outcome.is_err() || took >= SLOW {
            self.lost.set(self.lost.get() + took);
            (self.tell)(ALIVE);
        }
        outcome
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DurableError> {
        self.device.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), DurableError> {
        self.device.flush()
    }
}

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

/// How long those reads with which a volume is looked at may take in all, where they fail or are slow, before it is given up for
/// this start. A system volume may be one
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
    /// What the read before took, where it failed or was slow.
    last: Cell<Duration>,
}

impl<'a, D: BlockDevice> Watched<'a, D> {
    pub(crate) fn new(device: &'a mut D, tell: &'a dyn Fn(&str), now: &'a dyn Fn() -> Instant) -> Watched<'a, D> {
        Watched { device, tell, now, lost: Cell::new(Duration::ZERO), last: Cell::new(Duration::ZERO) }
    }

    /// A read that counts. Those of somebody who gets on do not: the first start reads and writes a whole image, on a slow
    /// medium as well.
    pub(crate) fn read_counted(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DurableError> {
        let outcome = self.read_at(offset, bytes);
        self.lost.set(self.lost.get() + self.last.get());
        outcome
    }

    /// The time that reads took that count, and failed or were slow.
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
        self.last.set(Duration::ZERO);
        let begun = (self.now)();
        let outcome = self.device.read_at(offset, bytes);
        let took = (self.now)().saturating_duration_since(begun);
        if outcome.is_err() || took >= SLOW {
            self.last.set(took);
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

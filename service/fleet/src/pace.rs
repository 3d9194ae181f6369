//! How fast something may go on: so many a second, and as many at once after a rest. What comes faster waits.

use std::time::Duration;
use tokio::time::Instant;

/// The pace of one client.
pub(crate) struct Pace {
    step: Duration,
    burst: Duration,
    /// Until when the pace is used up; a time in the past is a rest.
    used_up: Instant,
}

impl Pace {
    pub(crate) fn new(a_second: u32) -> Pace {
        Pace { step: Duration::from_secs(1) / a_second.max(1), burst: Duration::from_secs(1), used_up: Instant::now() }
    }

    /// How long the next one has to wait at `now`.
    fn next(&mut self, now: Instant) -> Duration {
        self.used_up = self.used_up.max(now) + self.step;
        self.used_up.duration_since(now).saturating_sub(self.burst)
    }

    pub(crate) async fn take(&mut self) {
        let wait = self.next(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_each_waits_its_turn() {
        let mut pace = Pace::new(10);
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(pace.next(start), Duration::ZERO);
        }
        assert_eq!(pace.next(start), Duration::from_millis(100));
        assert_eq!(pace.next(start), Duration::from_millis(200));
        assert_eq!(pace.next(start + Duration::from_secs(5)), Duration::ZERO);
    }
}

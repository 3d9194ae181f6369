//! How fast something may go on: so many a second, and as many as in the `burst` at once after a rest. What comes faster
//! waits, or is refused.

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
        Pace::with_burst(a_second, Duration::from_secs(1))
    }

    /// `burst`: how long a rest lets everything of that time through at once.
    pub(crate) fn with_burst(a_second: u32, burst: Duration) -> Pace {
        Pace { step: Duration::from_secs(1) / a_second.max(1), burst, used_up: Instant::now() }
    }

    /// Whether one more may go on at `now`; one that may not does not count.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let before = self.used_up;
        let allowed = self.next(now).is_zero();
        if !allowed {
            self.used_up = before;
        }
        allowed
    }

    /// Whether it has been at rest for so long that nothing of it needs to be remembered.
    pub(crate) fn rested(&self, now: Instant) -> bool {
        self.used_up <= now
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

    #[test]
    fn what_is_refused_does_not_count() {
        let mut pace = Pace::with_burst(1, Duration::from_secs(2));
        let start = Instant::now();
        assert_eq!([(); 4].map(|()| pace.allows(start)), [true, true, false, false]);
        assert!(!pace.rested(start));
        assert!(pace.allows(start + Duration::from_secs(1)) && !pace.allows(start + Duration::from_secs(1)));
        assert!(pace.rested(start + Duration::from_secs(3)));
    }
}

//! How often a caller may ask: token buckets, one pair for each one who stands behind requests, in memory. New keys of the
//! same one, and whatever else a request says, are no new bucket.
//!
//! Of several copies of the service each admits its share, so that all together admit no more than one would.

use crate::limits::{Limit, Limits};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers that are remembered; beyond that the idle ones are forgotten.
const MOST_CALLERS: usize = 4096;

/// Tokens of one rate. Pure: time is handed in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    tokens: f64,
    filled: Duration,
}

/// A rate and what may be saved up of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    per_second: f64,
    most: f64,
}

impl Rate {
    fn of(limit: Limit, burst_seconds: u64) -> Option<Rate> {
        let Limit::AtMost(per_second) = limit else { return None };
        let per_second = per_second as f64;
        Some(Rate { per_second, most: (per_second * burst_seconds as f64).max(per_second) })
    }
}

impl Rate {
    /// One copy's part. A burst is at least one request, or there would never be any; a rate of nothing stays one.
    fn share(self, copies: u64) -> Rate {
        let copies = copies.max(1) as f64;
        Rate { per_second: self.per_second / copies, most: (self.most / copies).max(self.most.min(1.0)) }
    }
}

impl Bucket {
    fn full(rate: Rate, now: Duration) -> Bucket {
        Bucket { tokens: rate.most, filled: now }
    }

    /// At a full rate, or the share of it.
    fn fill(&mut self, rate: Rate, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.most);
        self.filled = now;
    }
}

/// The two buckets of a caller.
#[derive(Debug, Clone, Copy)]
struct Caller {
    requests: Option<Bucket>,
    changes: Option<Bucket>,
}

/// The rates and everybody's buckets.
#[derive(Debug)]
pub struct Rates {
    requests: Option<Rate>,
    changes: Option<Rate>,
    since: Instant,
    callers: Mutex<HashMap<String, Caller>>,
}

impl Rates {
    /// Rates with everything saved up.
    pub fn new(limits: &Limits) -> Rates {
        Rates {
            requests: Rate::of(limits.requests_per_second, limits.burst_seconds),
            changes: Rate::of(limits.changes_per_second, limits.burst_seconds),
            since: Instant::now(),
            callers: Mutex::default(),
        }
    }

    /// Whether a caller may ask one of so many copies now; a request that is refused costs nothing.
    pub fn admit(&self, caller: &str, changes: bool, copies: u64) -> bool {
        self.admit_at(caller, changes, copies, self.since.elapsed())
    }

    fn admit_at(&self, caller: &str, changes: bool, copies: u64, now: Duration) -> bool {
        if self.requests.is_none() && self.changes.is_none() {
            return true;
        }
        let requests = self.requests.map(|rate| rate.share(copies));
        let changing = self.changes.map(|rate| rate.share(copies));
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MOST_CALLERS && !callers.contains_key(caller) {
            self.forget_idle(&mut callers, now);
        }
        let caller = callers.entry(caller.to_owned()).or_insert_with(|| Caller {
            requests: requests.map(|rate| Bucket::full(rate, now)),
            changes: changing.map(|rate| Bucket::full(rate, now)),
        });
        let mut asked: Vec<&mut Bucket> = Vec::new();
        for (rate, bucket, needed) in [(requests, &mut caller.requests, true), (changing, &mut caller.changes, changes)] {
            if let (Some(rate), Some(bucket), true) = (rate, bucket.as_mut(), needed) {
                bucket.fill(rate, now);
                asked.push(bucket);
            }
        }
        let admitted = asked.iter().all(|bucket| bucket.tokens >= 1.0);
        if admitted {
            asked.into_iter().for_each(|bucket| bucket.tokens -= 1.0);
        }
        admitted
    }

    /// Whose buckets are full again loses nothing by being forgotten. If all are busy, all begin anew: too generous is
    /// better than growing without end.
    fn forget_idle(&self, callers: &mut HashMap<String, Caller>, now: Duration) {
        let full = |bucket: Option<Bucket>, rate: Option<Rate>| match (bucket, rate) {
            (Some(mut bucket), Some(rate)) => {
                bucket.fill(rate, now);
                bucket.tokens >= rate.most
            }
            _ => true,
        };
        callers.retain(|_, c| !(full(c.requests, self.requests) && full(c.changes, self.changes)));
        if callers.len() >= MOST_CALLERS {
            callers.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests: Limit, changes: Limit, burst_seconds: u64) -> Rates {
        Rates::new(&Limits {
            requests_per_second: requests,
            changes_per_second: changes,
            burst_seconds,
            ..Limits::default()
        })
    }

    fn admitted(rates: &Rates, key: &str, changes: bool, times: usize, now_ms: u64) -> usize {
        (0..times).filter(|_| rates.admit_at(key, changes, 1, Duration::from_millis(now_ms))).count()
    }

    #[test]
    fn after_the_burst_the_rate_holds() {
        let rates = rates(Limit::AtMost(5), Limit::AtMost(1), 4);
        assert_eq!(admitted(&rates, "a", false, 100, 0), 20);
        assert_eq!(admitted(&rates, "a", false, 100, 1_000), 5);
        assert_eq!(admitted(&rates, "a", false, 100, 1_199), 0);
        assert_eq!(admitted(&rates, "a", false, 100, 1_200), 1);
        assert_eq!(admitted(&rates, "a", false, 100, 900_000), 20, "no more is saved up than the burst");
    }

    #[test]
    fn changes_count_twice_and_callers_apart() {
        let rates = rates(Limit::AtMost(5), Limit::AtMost(1), 4);
        assert_eq!(admitted(&rates, "a", true, 100, 0), 4);
        assert_eq!(admitted(&rates, "a", false, 100, 0), 16, "what was refused cost nothing");
        assert_eq!(admitted(&rates, "b", true, 100, 0), 4);
    }

    #[test]
    fn no_burst_is_one_second_and_unlimited_is_unlimited() {
        assert_eq!(admitted(&rates(Limit::AtMost(5), Limit::Unlimited, 0), "a", true, 100, 0), 5);
        assert_eq!(admitted(&rates(Limit::Unlimited, Limit::AtMost(1), 0), "a", false, 100, 0), 100);
        assert_eq!(admitted(&rates(Limit::AtMost(0), Limit::Unlimited, 9), "a", false, 100, 0), 0);
        let unlimited = Rates::new(&Limits::unlimited());
        assert_eq!(admitted(&unlimited, "a", true, 10_000, 0), 10_000);
        assert!(unlimited.callers.lock().unwrap().is_empty());
    }

    #[test]
    fn copies_share_a_rate() {
        let rates = rates(Limit::AtMost(5), Limit::AtMost(0), 4);
        let of_two = |times: usize, now_ms: u64| {
            (0..times).filter(|_| rates.admit_at("a", false, 2, Duration::from_millis(now_ms))).count()
        };
        assert_eq!(of_two(100, 0), 10, "half of the burst");
        assert_eq!(of_two(100, 2_000), 5, "half of the rate");
        assert_eq!(admitted(&rates, "a", false, 100, 3_000), 5, "the whole rate once it is alone");
        assert_eq!(Rate { per_second: 1.0, most: 1.0 }.share(4).most, 1.0);
        assert!(!rates.admit_at("a", true, 2, Duration::from_secs(900)), "nothing shared is nothing");
    }

    #[test]
    fn callers_are_bounded() {
        let rates = rates(Limit::AtMost(5), Limit::AtMost(1), 4);
        for n in 0..MOST_CALLERS * 3 {
            assert!(rates.admit_at(&n.to_string(), true, 1, Duration::from_millis(n as u64)));
        }
        assert!(rates.callers.lock().unwrap().len() <= MOST_CALLERS);
    }
}

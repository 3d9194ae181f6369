//! Who may have how much of something that all applications share: connections, or bytes in flight.
//!
//! Three numbers decide, so that who takes much takes it from itself:
//!
//! 1. Never more than `in_all` is given out.
//! 2. As long as not more than half of it is given out, an owner may have `burst`.
//! 3. Of the other half an owner gets only as much as makes its part `assured`.
//!
//! Hence whatever others do, `in_all / 2 / assured` owners beyond the greedy ones still get `assured` each.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// The three numbers; of whatever is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All owners together.
    pub in_all: u64,
    /// One owner, while at most half is given out.
    pub burst: u64,
    /// One owner, always (as far as `in_all` goes).
    pub assured: u64,
}

impl Limits {
    /// Whether an owner who has `has` may take `wants` more when `taken` is given out in all. Pure.
    pub fn admit(&self, has: u64, taken: u64, wants: u64) -> bool {
        let (Some(has), Some(taken)) = (has.checked_add(wants), taken.checked_add(wants)) else { return false };
        let allowed = if taken <= self.in_all / 2 { self.burst } else { self.assured };
        taken <= self.in_all && has <= allowed
    }
}

#[derive(Default)]
struct Given {
    taken: u64,
    owners: HashMap<String, u64>,
}

/// What is shared.
pub struct Shares {
    limits: Limits,
    given: Mutex<Given>,
    returned: Condvar,
}

impl Shares {
    /// Nothing is given out yet.
    pub fn new(limits: Limits) -> Arc<Shares> {
        Arc::new(Shares { limits, given: Mutex::default(), returned: Condvar::new() })
    }

    /// The numbers.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the numbers can be had at this moment.
    pub fn is_free(&self) -> bool {
        !matches!(self.given.try_lock(), Err(TryLockError::WouldBlock))
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        // Numbers are changed one after the other without a way to panic between them.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(self: &Arc<Self>, given: &mut Given, owner: &str, wants: u64) -> Option<Share> {
        let has = given.owners.get(owner).copied().unwrap_or(0);
        if !self.limits.admit(has, given.taken, wants) {
            return None;
        }
        given.taken += wants;
        *given.owners.entry(owner.to_owned()).or_default() += wants;
        Some(Share { of: self.clone(), owner: owner.to_owned(), amount: wants })
    }

    /// Takes `wants` for an owner; `None` when that is too much now. What is taken returns when the share is dropped.
    pub fn take(self: &Arc<Self>, owner: &str, wants: u64) -> Option<Share> {
        self.try_take(&mut self.lock(), owner, wants)
    }

    /// As [`Shares::take`], but waits for up to `patience` for others to return theirs.
    pub fn take_within(self: &Arc<Self>, owner: &str, wants: u64, patience: Duration) -> Option<Share> {
        let end = Instant::now() + patience;
        let mut given = self.lock();
        loop {
            if let Some(share) = self.try_take(&mut given, owner, wants) {
                return Some(share);
            }
            // More than an owner may ever have: nothing to wait for.
            if wants > self.limits.burst.max(self.limits.assured) {
                return None;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            given = self.returned.wait_timeout(given, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How much an owner has, and how much is given out in all.
    pub fn taken(&self, owner: &str) -> (u64, u64) {
        let given = self.lock();
        (given.owners.get(owner).copied().unwrap_or(0), given.taken)
    }
}

/// What an owner has; returns when dropped.
pub struct Share {
    of: Arc<Shares>,
    owner: String,
    amount: u64,
}

impl Share {
    /// Whose it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Counts more that is there already and cannot be refused any more (results of a call that ran): others wait for
    /// it to be returned.
    pub fn grow(&mut self, more: u64) {
        let mut given = self.of.lock();
        let more = more.min(u64::MAX - given.taken);
        given.taken += more;
        *given.owners.entry(self.owner.clone()).or_default() += more;
        self.amount += more;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut given = self.of.lock();
        given.taken = given.taken.saturating_sub(self.amount);
        if let Some(has) = given.owners.get_mut(&self.owner) {
            *has = has.saturating_sub(self.amount);
            if *has == 0 {
                given.owners.remove(&self.owner);
            }
        }
        drop(given);
        self.of.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { in_all: 64, burst: 8, assured: 2 };

    #[test]
    fn runtime_d3_greedy_owners_leave_the_assured_part_to_the_others() {
        let shares = Shares::new(LIMITS);
        let mut held = Vec::new();
        for owner in 0..8 {
            let owner = format!("greedy {owner}");
            while let Some(share) = shares.take(&owner, 1) {
                held.push(share);
            }
        }
        for owner in 0..12 {
            let owner = format!("modest {owner}");
            held.push(shares.take(&owner, 1).expect("the first"));
            held.push(shares.take(&owner, 1).expect("the second"));
            assert!(shares.take(&owner, 1).is_none());
        }
        assert_eq!(shares.taken("").1, 64);
        drop(held);
        assert_eq!(shares.taken("greedy 0"), (0, 0));
        assert!(shares.lock().owners.is_empty(), "owners that have nothing are forgotten");
    }

    #[test]
    fn who_waits_is_served_when_something_returns_and_not_for_ever() {
        let shares = Shares::new(Limits { in_all: 10, burst: 10, assured: 5 });
        let share = shares.take("a", 5).unwrap();
        let mut grown = shares.take("b", 5).unwrap();
        grown.grow(100);
        assert!(shares.take_within("c", 1, Duration::from_millis(20)).is_none());
        assert!(shares.take_within("c", 11, Duration::from_secs(600)).is_none(), "never possible: told at once");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shares.take_within("c", 1, Duration::from_secs(20)).is_some());
            std::thread::sleep(Duration::from_millis(20));
            drop(grown);
            assert!(waiting.join().unwrap());
        });
        drop(share);
        assert_eq!(shares.taken("c"), (0, 0));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_three_rules_give(steps in prop::collection::vec((0_u8..12, any::<bool>()), 1..300)) {
            let shares = Shares::new(LIMITS);
            let mut held: Vec<(u8, Share)> = Vec::new();
            for (owner, take) in steps {
                let has = held.iter().filter(|(other, _)| *other == owner).count() as u64;
                if !take {
                    if let Some(at) = held.iter().position(|(other, _)| *other == owner) {
                        held.swap_remove(at);
                    }
                    continue;
                }
                let taken = held.len() as u64;
                let share = shares.take(&owner.to_string(), 1);
                prop_assert_eq!(share.is_some(), taken < 64 && (has < 2 || (has < 8 && taken < 32)));
                held.extend(share.map(|share| (owner, share)));
            }
            prop_assert_eq!(shares.taken("").1, held.len() as u64);
        }
    }
}

//! Requests that were taken already: overheard, and sent again.
//!
//! A signature is good for a quarter of an hour, but tools sign every attempt anew, with the second in which they do it: the
//! same signature comes twice only from a caller who asks the same twice within a second, and then at once. One that comes
//! later is refused; one that covers a name of its own (`amz-sdk-invocation-id`), as some SDKs' do, is taken once.

use belvedere_signature::claims::MAX_SKEW_S;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long after the first of several same requests the others may come, seconds.
const TOGETHER_S: i64 = 15;
/// Most signatures of a generation. Only verified requests get here, so that a stranger fills nothing.
const MAX_GENERATION: usize = 1_000_000;
/// A signature may be dated this far ahead and is good this long after: in a generation or the one before it, it is
/// known for as long as it could be used.
const GENERATION_S: i64 = 2 * MAX_SKEW_S;

/// The signatures of the last half hour or more.
pub struct Seen {
    most: usize,
    generations: Mutex<Generations>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { most: MAX_GENERATION, generations: Mutex::default() }
    }
}

/// Signatures, and when each came first.
#[derive(Default)]
struct Generations {
    began: i64,
    now: HashMap<[u8; 16], i64>,
    before: HashMap<[u8; 16], i64>,
}

impl Seen {
    /// Whether a request with this signature is taken at `now` (seconds since 1970); it is remembered. `unique`: no two
    /// rightly have the same.
    pub fn admits(&self, signature: [u8; 16], unique: bool, now: i64) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if now - generations.began > GENERATION_S || generations.now.len() >= self.most {
            generations.before = std::mem::take(&mut generations.now);
            generations.began = now;
        }
        let known = generations.before.get(&signature).copied();
        match known.or_else(|| generations.now.get(&signature).copied()) {
            None => {
                generations.now.insert(signature, now);
                true
            }
            Some(first) => !unique && now - first <= TOGETHER_S,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_000_000;

    #[test]
    fn the_same_may_be_asked_twice_at_once_and_not_again_later() {
        let seen = Seen::default();
        for (after, taken) in [(0, true), (0, true), (TOGETHER_S, true), (TOGETHER_S + 1, false), (2 * TOGETHER_S, false)] {
            assert_eq!(seen.admits([1; 16], false, START + after), taken, "{after} s after the first");
        }
        assert!(seen.admits([2; 16], true, START) && !seen.admits([2; 16], true, START));
    }

    #[test]
    fn a_signature_is_known_for_as_long_as_it_could_be_used() {
        let seen = Seen::default();
        assert!(seen.admits([1; 16], true, START));
        assert!(seen.admits([2; 16], true, START + GENERATION_S));
        // Generations change; what came at the end of one is known for all of the next.
        assert!(seen.admits([3; 16], true, START + GENERATION_S + 1));
        assert!(!seen.admits([2; 16], true, START + GENERATION_S + 2 * MAX_SKEW_S));
        assert!(!seen.admits([1; 16], true, START + GENERATION_S + 1));
        assert!(seen.admits([4; 16], true, START + 2 * GENERATION_S + 2));
        assert!(seen.admits([1; 16], true, START + 2 * GENERATION_S + 2), "forgotten: its time is over long ago");
    }

    #[test]
    fn memory_is_bounded() {
        let seen = Seen { most: 100, ..Seen::default() };
        for n in 0..1000_u128 {
            assert!(seen.admits(n.to_be_bytes(), true, START));
        }
        let generations = seen.generations.lock().unwrap();
        assert!(generations.now.len() + generations.before.len() <= 200);
    }
}

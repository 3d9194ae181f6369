//! Chance without a generator: every `RandomState` has keys of its own, from the system.

use std::hash::{BuildHasher, Hasher};

/// 64 random bits.
pub fn bits() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A number from 0 to 1.
pub fn part() -> f64 {
    (bits() >> 11) as f64 / (1u64 << 53) as f64
}

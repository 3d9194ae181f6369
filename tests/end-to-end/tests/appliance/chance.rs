//! What is drawn by lot needs to be repeatable, not unpredictable.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (xorshift).
pub struct Chance(u64);

impl Chance {
    /// Begins with `BELVEDERE_SEED`, or with the time, and says with what.
    pub fn begin() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        let seed = number("BELVEDERE_SEED", now).max(1);
        println!("BELVEDERE_SEED={seed}");
        Self(seed)
    }

    /// From 0 up to 1.
    pub fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

//! Which devices are active, and which applications have errors: once a minute each, as long as it is so.

use belvedere_fleet::Fleet;
use belvedere_fleet::metrics::{application_errors, device_active};
use belvedere_store::StoreError;
use belvedere_store::metrics::{Meeting, Taken};
use std::collections::HashSet;

/// What was said about the current minute already.
#[derive(Debug, Default)]
pub struct Said {
    minute: i64,
    about: HashSet<String>,
}

impl Said {
    /// Whether something is to be said about an identifier in the minute of a time; only once.
    fn first(&mut self, now_ms: i64, id: &str) -> bool {
        let minute = now_ms.div_euclid(60_000);
        if minute != self.minute {
            self.minute = minute;
            self.about.clear();
        }
        self.about.insert(id.to_owned())
    }
}

/// Writes what is new in this minute. How many samples there were.
pub async fn write(fleet: &Fleet, said: &mut Said, now_ms: i64) -> Result<usize, StoreError> {
    let mut samples = Vec::new();
    for (id, name) in fleet.store.connected_devices().await? {
        if said.first(now_ms, &id) {
            samples.push(device_active(&id, &name, now_ms));
        }
    }
    for (id, name, health) in fleet.store.known_healths().await? {
        // Another health in the same minute is news again: the worse one remains.
        if said.first(now_ms, &format!("{id} {health}")) {
            samples.push(application_errors(name.as_deref(), &id, health == "ERROR", now_ms));
        }
    }
    for batch in samples.chunks(1000) {
        if fleet.store.put_samples(batch, Meeting::Greatest).await? == Taken::TooManyMetrics {
            tracing::warn!("there are too many metrics: the fleet's own are not written");
        }
    }
    Ok(samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_a_minute_for_each() {
        let mut said = Said::default();
        assert!(said.first(120_000, "a") && said.first(120_000, "b"));
        assert!(!said.first(179_999, "a"));
        assert!(said.first(180_000, "a") && said.first(180_000, "b"));
    }
}

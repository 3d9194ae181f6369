//! History ages: what ended long ago is forgotten.

use belvedere_store::ageing::Horizon;
use belvedere_store::{Store, now_ms};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(3600);
/// Deployments of a day are counted, so removed instances stay at least so long.
const LEAST_INSTANCE_DAYS: u32 = 2;

/// How long what has ended is remembered; the `history` section of `service.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Removed application instances, days; at least two.
    pub removed_applications_days: u32,
    /// Ended jobs of devices, from templates and imports, days.
    pub ended_jobs_days: u32,
}

impl Default for History {
    fn default() -> History {
        History { removed_applications_days: 30, ended_jobs_days: 90 }
    }
}

impl History {
    /// What ended before this is forgotten.
    pub fn horizon(&self, now: i64) -> Horizon {
        let days = |days: u32| now - i64::from(days) * DAY_MS;
        Horizon {
            instances_ms: days(self.removed_applications_days.max(LEAST_INSTANCE_DAYS)),
            jobs_ms: days(self.ended_jobs_days),
        }
    }
}

/// Forgets, at the start and every hour, until `stop` turns true. Several copies may do so beside each other.
pub async fn forget(store: Store, history: History, mut stop: watch::Receiver<bool>) {
    loop {
        match store.forget_history(history.horizon(now_ms())).await {
            Ok(done) if done != Default::default() => {
                tracing::info!(instances = done.instances, jobs = done.jobs, "history forgotten");
            }
            Ok(_) => {}
            Err(e) => tracing::warn!("cannot forget history: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            ended = stop.wait_for(|stop| *stop) => {
                drop(ended);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployments_of_a_day_stay_countable() {
        let now = 100 * DAY_MS;
        let horizon = History { removed_applications_days: 0, ended_jobs_days: 0 }.horizon(now);
        assert_eq!(horizon, Horizon { instances_ms: 98 * DAY_MS, jobs_ms: now });
        let horizon = History::default().horizon(now);
        assert_eq!(horizon, Horizon { instances_ms: 70 * DAY_MS, jobs_ms: 10 * DAY_MS });
    }
}

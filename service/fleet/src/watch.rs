//! What must be looked at again and again: connections whose certificate was revoked (by this program, by another copy
//! of it, or on the command line), sessions whose time is over, and jobs that take too long.

use crate::accept::stopped;
use crate::{Fleet, FleetError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often certificates are looked at: a revoked one ends its connection within five seconds.
const CERTIFICATES: Duration = Duration::from_secs(2);
/// Sessions are looked at every so many times.
const SESSIONS: u32 = 30;

impl Fleet {
    /// Runs until `stop` turns true.
    pub async fn keep_watch(&self, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(CERTIFICATES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0_u32.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => return,
            }
            if let Err(e) = self.look(count % SESSIONS == 0).await {
                tracing::error!("cannot look after connections: {e}");
            }
        }
    }

    async fn look(&self, sessions: bool) -> Result<(), FleetError> {
        if self.hub().connections() > 0 {
            let standing = self.store.standing_certificates().await?;
            self.hub().keep_only(|certificate| standing.contains(certificate));
        }
        self.time_out_jobs().await?;
        if sessions {
            let ended = self.store.keep_mqtt_sessions(&self.hub().durable_clients()).await?;
            if ended > 0 {
                tracing::info!(ended, "sessions ended whose clients did not come back");
            }
        }
        Ok(())
    }
}

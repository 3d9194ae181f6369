//! The loops. Each turn is short, and what it does is safe to do again; a turn that fails is told and made again. Of
//! several copies of the service the first writes metrics and looks at alarms; all deliver, each what it has claimed.

use crate::alarms::{look, newest_end};
use crate::delivery::Ways;
use crate::own_metrics::Said;
use crate::{alarms, delivery, export, own_metrics};
use belvedere_fleet::Fleet;
use belvedere_fleet::metrics::NAMESPACE;
use belvedere_fleet::panics::caught;
use belvedere_store::metrics::Retention;
use belvedere_store::{StoreError, now_ms};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;

/// How often each loop turns.
const OWN_METRICS: Duration = Duration::from_secs(10);
const ALARMS: Duration = Duration::from_secs(3);
const DELIVERIES: Duration = Duration::from_millis(500);
const EXPORTS: Duration = Duration::from_secs(2);
const AGEING: Duration = Duration::from_secs(3600);
/// After the start the fleet reconnects; so long nothing follows from devices that are silent.
const PATIENCE_MS: i64 = 150_000;

/// What the loops need to know.
#[derive(Clone)]
pub struct Settings {
    /// How long metrics are kept.
    pub retention: Retention,
    /// How messages go out.
    pub ways: Ways,
}

/// Runs until `stop` turns true.
pub async fn run(fleet: Fleet, settings: Settings, stop: watch::Receiver<bool>) {
    let started_ms = now_ms();
    let mut said = Said::default();
    let mut seen = HashMap::new();
    tokio::join!(
        turning("write the fleet's metrics", OWN_METRICS, stop.clone(), async || {
            if !fleet.store.is_first_copy().await? {
                return Ok(());
            }
            own_metrics::write(&fleet, &mut said, now_ms()).await.map(drop)
        }),
        turning("look at alarms", ALARMS, stop.clone(), async || {
            if !fleet.store.is_first_copy().await? {
                // Whatever the first one decides meanwhile, this one decides anew when it is the first.
                seen.clear();
                return Ok(());
            }
            look_at_all(&fleet, &mut seen, started_ms).await
        }),
        turning("deliver messages", DELIVERIES, stop.clone(), async || {
            while delivery::deliver_due(&fleet.store, &settings.ways).await? > 0 {}
            Ok(())
        }),
        turning("export logs", EXPORTS, stop.clone(), async || {
            while export::next(&fleet.store).await? {}
            Ok(())
        }),
        turning("let old things go", AGEING, stop, async || age(&fleet, settings.retention).await),
    );
}

/// One turn after the other, until `stop` turns true. A turn is never cut.
async fn turning(
    what: &'static str,
    every: Duration,
    mut stop: watch::Receiver<bool>,
    mut turn: impl AsyncFnMut() -> Result<(), StoreError>,
) {
    loop {
        match caught(turn()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("cannot {what}: {e}"),
            // The next turn is another one.
            Err(panicked) => tracing::error!("cannot {what}: {panicked}"),
        }
        let stopped = async { stop.wait_for(|s| *s).await.map(drop) };
        if tokio::time::timeout(every, stopped).await.is_ok() {
            return;
        }
    }
}

/// Each alarm once a minute, and at once when it is new or changed.
async fn look_at_all(fleet: &Fleet, seen: &mut HashMap<String, (i64, i64)>, started_ms: i64) -> Result<(), StoreError> {
    let (now, end) = (now_ms(), newest_end(now_ms()));
    let alarms = fleet.store.list_alarms().await?;
    seen.retain(|name, _| alarms.binary_search_by(|a| a.name.as_str().cmp(name)).is_ok());
    for alarm in alarms {
        if seen.get(&alarm.name) == Some(&(alarm.version, end)) {
            continue;
        }
        // Silence of the fleet while the service was away, or just came back, is the service's own.
        let reconnecting = now < started_ms + PATIENCE_MS && alarm.configured_ms < started_ms;
        if reconnecting && alarms::definition(&alarm).is_ok_and(|d| d.namespace == NAMESPACE) {
            continue;
        }
        // One damaged alarm must not keep the others from being looked at.
        match caught(look(&fleet.store, &fleet.settings.account, &alarm, end)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e @ StoreError::Damaged { .. })) => tracing::error!(alarm = alarm.name, "cannot look at an alarm: {e}"),
            Ok(Err(e)) => return Err(e),
            Err(panicked) => tracing::error!(alarm = alarm.name, "cannot look at an alarm: {panicked}"),
        }
        seen.insert(alarm.name, (alarm.version, end));
    }
    Ok(())
}

async fn age(fleet: &Fleet, retention: Retention) -> Result<(), StoreError> {
    let now = now_ms();
    let datapoints = fleet.store.age_metrics(now, retention).await?;
    let history = fleet.store.age_alarm_history(now).await? + fleet.store.age_log_exports(now).await?;
    let log_events = fleet.store.age_logs(now).await?;
    if datapoints + history + log_events > 0 {
        tracing::info!(datapoints, history, log_events, "old things deleted");
    }
    Ok(())
}

//! Alarms are put, looked at, and change.
//!
//! A decision is made for a version of the alarm, and its change is one transaction that asks for that version: should two
//! copies of the service look at once, one changes the state, and subscribers are told once.

use crate::definition::{Definition, topic_of};
use crate::evaluation::{EXTRA, State, Verdict, evaluate};
use crate::message::{Transition, reason, reason_data};
use crate::statistics::merged;
use belvedere_store::alarms::{Alarm, Change, NewHistory, Put};
use belvedere_store::notifications::Message;
use belvedere_store::{Store, StoreError, now_ms};
use serde_json::json;

/// How long after its end a period is looked at: samples are on their way.
const DELAY_MS: i64 = 5_000;

/// Why an alarm was not put.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It is not a possible one.
    #[error("{0}")]
    Invalid(String),
    /// There are too many.
    #[error("the limit of {} alarms is reached", belvedere_store::alarms::MAX_ALARMS)]
    TooMany,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes or changes an alarm; it is looked at within seconds.
pub async fn put(store: &Store, account: &str, region: &str, definition: &Definition) -> Result<(), PutError> {
    if let Some(fault) = definition.fault(account) {
        return Err(PutError::Invalid(fault));
    }
    let text = json!(definition).to_string();
    let kind = if store.alarm(&definition.alarm_name).await?.is_some() { "Update" } else { "Create" };
    let history = NewHistory {
        kind: "ConfigurationUpdate",
        summary: format!("Alarm \"{}\" {}d", definition.alarm_name, kind.to_lowercase()).chars().take(255).collect(),
        data: json!({ "version": "1.0", "type": kind, "updatedAlarm": definition }).to_string(),
    };
    match store.put_alarm(&definition.alarm_name, region, &text, history).await? {
        Put::New | Put::Changed => Ok(()),
        Put::TooMany => Err(PutError::TooMany),
    }
}

/// What an alarm watches.
pub fn definition(alarm: &Alarm) -> Result<Definition, StoreError> {
    serde_json::from_str(&alarm.definition)
        .map_err(|e| StoreError::Damaged { what: "an alarm's definition", detail: e.to_string() })
}

/// End of the newest period that can be looked at: whole minutes.
pub fn newest_end(now_ms: i64) -> i64 {
    let at = now_ms - DELAY_MS;
    at - at.rem_euclid(60_000)
}

/// Looks at an alarm and changes its state if there is something new. Whether there was.
pub async fn look(store: &Store, account: &str, alarm: &Alarm, end_ms: i64) -> Result<bool, StoreError> {
    let definition = definition(alarm)?;
    let period_ms = definition.period * 1000;
    let start_ms = end_ms - (definition.evaluation_periods + EXTRA) * period_ms;
    let points = store.datapoints(&definition.metric(), start_ms, end_ms).await?;
    let sums = merged(&points, definition.unit.as_deref(), start_ms, definition.period);
    let starts = (0..).map(|n| start_ms + n * period_ms).take_while(|start| *start < end_ms);
    let window: Vec<(i64, Option<f64>)> =
        starts.map(|start| (start, sums.get(&start).map(|sum| definition.statistic.of(sum)))).collect();
    let values: Vec<Option<f64>> = window.iter().map(|(_, value)| *value).collect();
    let state = match evaluate(&definition.rule(), &values) {
        Verdict::State(state) if state.name() != alarm.state => state,
        _ => return Ok(false),
    };
    let now = now_ms();
    let (reason, data) = (reason(&definition, &window, state), reason_data(&definition, &window, now));
    let transition =
        Transition { alarm, definition: &definition, state, reason: &reason, reason_data: Some(&data), at_ms: now };
    change(store, account, &transition).await
}

/// Somebody says what the state is. `false` if the alarm changed meanwhile.
pub async fn set_state(
    store: &Store,
    account: &str,
    alarm: &Alarm,
    state: State,
    reason: &str,
    reason_data: Option<&str>,
) -> Result<bool, StoreError> {
    let definition = definition(alarm)?;
    change(store, account, &Transition { alarm, definition: &definition, state, reason, reason_data, at_ms: now_ms() }).await
}

async fn change(store: &Store, account: &str, transition: &Transition<'_>) -> Result<bool, StoreError> {
    let mut history = vec![transition.history()];
    let mut messages = Vec::new();
    // Setting a state that it has already tells nobody.
    let actions = if transition.state.name() == transition.alarm.state { &[] } else { transition.actions() };
    for action in actions {
        let topic = topic_of(action, account);
        let told = match topic {
            Some(topic) => store.topic_exists(topic).await?,
            None => false,
        };
        history.push(transition.action_history(action, told));
        if let (Some(topic), true) = (topic, told) {
            messages.push(Message {
                topic: topic.to_owned(),
                topic_arn: action.clone(),
                subject: transition.subject(),
                message: transition.message(account),
            });
        }
    }
    let change = Change {
        name: &transition.alarm.name,
        version: transition.alarm.version,
        state: transition.state.name(),
        reason: transition.reason,
        reason_data: transition.reason_data,
        at_ms: transition.at_ms,
        history,
        messages,
    };
    let changed = store.change_alarm(&change).await?;
    if changed {
        tracing::info!(alarm = change.name, from = transition.alarm.state, to = change.state, "alarm changed its state");
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::definition as defined;
    use belvedere_store::metrics::{Meeting, Sample, Sum};
    use belvedere_store::notifications::NewSubscription;

    const ACCOUNT: &str = "123456789012";
    const END: i64 = 1_795_326_600_000;

    #[tokio::test]
    async fn an_alarm_rises_and_ends_with_its_metric_and_tells_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        store.create_topic("people").await.unwrap();
        let to = NewSubscription { topic: "people", protocol: "http", endpoint: "http://h/", raw: false };
        store.subscribe(to).await.unwrap();
        let topic = "arn:aws:sns:us-east-1:123456789012:people";
        let nobody = "arn:aws:sns:us-east-1:123456789012:nobody";
        let d = defined(json!({ "EvaluationPeriods": 1, "OKActions": [topic, nobody], "InsufficientDataActions": [topic] }));
        put(&store, ACCOUNT, "us-east-1", &d).await.unwrap();
        let look_at = async |end| {
            let alarm = store.alarm("silent").await.unwrap().unwrap();
            look(&store, ACCOUNT, &alarm, end).await.unwrap();
            store.alarm("silent").await.unwrap().unwrap().state
        };
        assert_eq!(look_at(END).await, "ALARM", "nothing was ever heard");
        assert_eq!(look_at(END).await, "ALARM");
        let sample = Sample { metric: d.metric(), unit: "Count".into(), time_ms: END - 60_000, sum: Sum::one(1.0) };
        store.put_samples(&[sample], Meeting::Add).await.unwrap();
        assert_eq!(look_at(END).await, "OK");
        assert_eq!(look_at(END + 120_000).await, "OK", "one real datapoint of the three periods that are looked at");
        assert_eq!(look_at(END + 180_000).await, "ALARM");
        let told: Vec<String> =
            store.claim_deliveries(i64::MAX - 1, 1, 10).await.unwrap().into_iter().map(|d| d.subject).collect();
        let expected = ["ALARM", "OK", "ALARM"].map(|s| format!("{s}: \"silent\" in us-east-1"));
        assert_eq!(told, expected);
        let history = store.alarm_history(Some("silent"), Some("Action"), 0, i64::MAX, i64::MAX, 10).await.unwrap();
        assert_eq!(history.iter().filter(|h| h.summary.starts_with("Failed") && h.summary.ends_with("nobody")).count(), 1);
    }

    #[tokio::test]
    async fn an_impossible_alarm_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        let result = put(&store, ACCOUNT, "us-east-1", &defined(json!({ "Period": 10 }))).await;
        assert!(matches!(result, Err(PutError::Invalid(_))));
        assert!(store.list_alarms().await.unwrap().is_empty());
    }

    #[test]
    fn a_minute_is_looked_at_some_seconds_after_its_end() {
        assert_eq!(newest_end(END + 4_999), END - 60_000);
        assert_eq!(newest_end(END + 5_000), END);
    }
}

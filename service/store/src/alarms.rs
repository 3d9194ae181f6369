//! Alarms, what happened to them, and the messages that tell of it: a change of state, its history and its messages
//! are one transaction, so that none is told without having happened, nor happens without being told.

use crate::notifications::{Message, enqueue};
use crate::{Store, StoreError, now_ms};

/// Most alarms of a service.
pub const MAX_ALARMS: i64 = 5000;
/// How long history is kept.
pub const HISTORY_MS: i64 = 30 * 24 * 3600 * 1000;

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Unique.
    pub name: String,
    /// Region of its ARN.
    pub region: String,
    /// What it watches, as JSON: belongs to who writes it.
    pub definition: String,
    /// `OK`, `ALARM`, `INSUFFICIENT_DATA`.
    pub state: String,
    /// Why, for people.
    pub reason: String,
    /// Why, for programs.
    pub reason_data: Option<String>,
    /// When it came into this state.
    pub state_updated_ms: i64,
    /// When it was last put.
    pub configured_ms: i64,
    /// Grows with each change.
    pub version: i64,
}

type AlarmRow = (String, String, String, String, String, Option<String>, i64, i64, i64);

fn alarm(row: AlarmRow) -> Alarm {
    let (name, region, definition, state, reason, reason_data, state_updated_ms, configured_ms, version) = row;
    Alarm { name, region, definition, state, reason, reason_data, state_updated_ms, configured_ms, version }
}

/// Something that happened to an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Order of events.
    pub sequence: i64,
    /// Which alarm.
    pub alarm: String,
    /// `ConfigurationUpdate`, `StateUpdate`, `Action`.
    pub kind: String,
    /// For people.
    pub summary: String,
    /// For programs: JSON.
    pub data: String,
    /// When.
    pub created_ms: i64,
}

/// Something to remember of an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHistory {
    /// `ConfigurationUpdate`, `StateUpdate`, `Action`.
    pub kind: &'static str,
    /// For people.
    pub summary: String,
    /// For programs: JSON.
    pub data: String,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which alarm.
    pub name: &'a str,
    /// The version that the decision was made for: if it is another by now, nothing happens.
    pub version: i64,
    /// The new state.
    pub state: &'a str,
    /// Why, for people.
    pub reason: &'a str,
    /// Why, for programs.
    pub reason_data: Option<&'a str>,
    /// When.
    pub at_ms: i64,
    /// What to remember.
    pub history: Vec<NewHistory>,
    /// Whom to tell.
    pub messages: Vec<Message>,
}

/// What came of putting an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    New,
    /// It had been there: its state stays.
    Changed,
    /// There are [`MAX_ALARMS`] already.
    TooMany,
}

const COLUMNS: &str = "name, region, definition, state, reason, reason_data, state_updated_ms, configured_ms, version";

async fn remember(transaction: &mut Connection, alarm: &str, history: &[NewHistory], at_ms: i64) -> Result<(), sqlx::Error> {
    for item in history {
        sqlx::query("INSERT INTO alarm_history (alarm, kind, summary, data, created_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(alarm)
            .bind(item.kind)
            .bind(&item.summary)
            .bind(&item.data)
            .bind(at_ms)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

impl Store {
    /// Makes an alarm in `INSUFFICIENT_DATA`, or changes what it watches.
    pub async fn put_alarm(
        &self,
        name: &str,
        region: &str,
        definition: &str,
        history: NewHistory,
    ) -> Result<Put, StoreError> {
        let error = |e| StoreError::database("store an alarm", e);
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM alarm WHERE name <> $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .map_err(error)?;
        if count >= MAX_ALARMS {
            return Ok(Put::TooMany);
        }
        let now = now_ms();
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let version: i64 = sqlx::query_scalar(
            "INSERT INTO alarm (name, region, definition, state, reason, state_updated_ms, configured_ms, version) \
             VALUES ($1, $2, $3, 'INSUFFICIENT_DATA', 'Unchecked: Initial alarm creation', $4, $4, 1) \
             ON CONFLICT (name) DO UPDATE SET region = excluded.region, definition = excluded.definition, \
             configured_ms = excluded.configured_ms, version = alarm.version + 1 RETURNING version",
        )
        .bind(name)
        .bind(region)
        .bind(definition)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await
        .map_err(error)?;
        remember(&mut transaction, name, &[history], now).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(if version == 1 { Put::New } else { Put::Changed })
    }

    /// By name.
    pub async fn alarm(&self, name: &str) -> Result<Option<Alarm>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM alarm WHERE name = $1");
        let row: Option<AlarmRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up an alarm", e))?;
        Ok(row.map(alarm))
    }

    /// All of them, by name.
    pub async fn list_alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM alarm ORDER BY name");
        let rows: Vec<AlarmRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list alarms", e))?;
        Ok(rows.into_iter().map(alarm).collect())
    }

    /// Deletes alarms, all or none: `false` if one of them does not exist.
    pub async fn delete_alarms(&self, names: &[String], history: &NewHistory) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("delete alarms", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        for name in names {
            let done = sqlx::query("DELETE FROM alarm WHERE name = $1")
                .bind(name)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
            if done.rows_affected() == 0 {
                return Ok(false); // the transaction is rolled back
            }
            remember(&mut transaction, name, std::slice::from_ref(history), now_ms()).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(true)
    }

    /// Changes an alarm's state with everything that belongs to it; `false` if it is not that version any more.
    pub async fn change_alarm(&self, change: &Change<'_>) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("change an alarm's state", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let done = sqlx::query(
            "UPDATE alarm SET state = $1, reason = $2, reason_data = $3, state_updated_ms = $4, version = version + 1 \
             WHERE name = $5 AND version = $6",
        )
        .bind(change.state)
        .bind(change.reason)
        .bind(change.reason_data)
        .bind(change.at_ms)
        .bind(change.name)
        .bind(change.version)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        remember(&mut transaction, change.name, &change.history, change.at_ms).await.map_err(error)?;
        for message in &change.messages {
            enqueue(&mut transaction, message, change.at_ms).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(true)
    }

    /// What happened in `[from_ms, to_ms]`, newest first, before a sequence number.
    pub async fn alarm_history(
        &self,
        alarm: Option<&str>,
        kind: Option<&str>,
        from_ms: i64,
        to_ms: i64,
        before: i64,
        limit: usize,
    ) -> Result<Vec<History>, StoreError> {
        let rows: Vec<(i64, String, String, String, String, i64)> = sqlx::query_as(
            "SELECT sequence, alarm, kind, summary, data, created_ms FROM alarm_history WHERE ($1 = '' OR alarm = $1) \
             AND ($2 = '' OR kind = $2) AND created_ms >= $3 AND created_ms <= $4 AND sequence < $5 \
             ORDER BY sequence DESC LIMIT $6",
        )
        .bind(alarm.unwrap_or(""))
        .bind(kind.unwrap_or(""))
        .bind(from_ms)
        .bind(to_ms)
        .bind(before)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("read an alarm's history", e))?;
        let history = |(sequence, alarm, kind, summary, data, created_ms)| History {
            sequence,
            alarm,
            kind,
            summary,
            data,
            created_ms,
        };
        Ok(rows.into_iter().map(history).collect())
    }

    /// Forgets history older than [`HISTORY_MS`].
    pub async fn age_alarm_history(&self, now_ms: i64) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM alarm_history WHERE created_ms < $1")
            .bind(now_ms - HISTORY_MS)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(|e| StoreError::database("delete old history of alarms", e))
    }
}

/// What a transaction runs on.
pub(crate) type Connection = sqlx::AnyConnection;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifications::NewSubscription;
    use crate::testing::places;

    fn history() -> NewHistory {
        NewHistory { kind: "StateUpdate", summary: "s".into(), data: "{}".into() }
    }

    fn change<'a>(version: i64) -> Change<'a> {
        let message = Message { topic: "t".into(), topic_arn: "arn:t".into(), subject: "S".into(), message: "M".into() };
        Change {
            name: "a",
            version,
            state: "ALARM",
            reason: "r",
            reason_data: None,
            at_ms: 5,
            history: vec![history()],
            messages: vec![message],
        }
    }

    #[tokio::test]
    async fn a_decision_about_an_older_version_changes_and_tells_nothing() {
        for place in places().await {
            let store = place.create().await;
            store.create_topic("t").await.unwrap();
            let subscription = NewSubscription { topic: "t", protocol: "http", endpoint: "http://u:p@h/", raw: false };
            store.subscribe(subscription).await.unwrap();
            assert_eq!(store.put_alarm("a", "r", "{}", history()).await.unwrap(), Put::New);
            assert!(store.change_alarm(&change(1)).await.unwrap());
            assert!(!store.change_alarm(&change(1)).await.unwrap(), "version 1 is gone");
            let messages = store.claim_deliveries(i64::MAX - 1, 1, 10).await.unwrap();
            assert_eq!(messages.len(), 1, "told once");
            let known = store.alarm("a").await.unwrap().unwrap();
            assert_eq!((known.state.as_str(), known.version, known.state_updated_ms), ("ALARM", 2, 5));
            assert_eq!(store.put_alarm("a", "r", "{\"x\":1}", history()).await.unwrap(), Put::Changed);
            assert_eq!(store.alarm("a").await.unwrap().unwrap().state, "ALARM", "putting again keeps the state");
            assert_eq!(store.alarm_history(Some("a"), None, 0, i64::MAX, i64::MAX, 10).await.unwrap().len(), 3);
            assert_eq!(store.alarm_history(None, Some("Action"), 0, i64::MAX, i64::MAX, 10).await.unwrap().len(), 0);
            assert!(!store.delete_alarms(&["a".into(), "b".into()], &history()).await.unwrap());
            assert!(store.alarm("a").await.unwrap().is_some(), "all or none");
            assert!(store.delete_alarms(&["a".into()], &history()).await.unwrap());
            assert!(store.alarm("a").await.unwrap().is_none());
        }
    }
}

//! What waits for an external broker that cannot be reached now: messages of the service to devices, in their order. The
//! broker itself keeps them once it has them.

use crate::{Store, StoreError, now_ms};
use sqlx::Row;

/// Messages that wait; more are dropped. What devices must not miss is in their shadows and jobs.
pub const MAX_WAITING: i64 = 50_000;
/// How long one waits at most, as in a session.
const MAX_AGE_MS: i64 = 7 * 24 * 3600 * 1000;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the order; of no meaning before it waits.
    pub sequence: i64,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// As it is to be published.
    pub quality: u8,
    /// Whether the broker is to retain it.
    pub retain: bool,
    /// When it is of no use any more, if the publisher said so.
    pub expires_ms: Option<i64>,
}

impl Store {
    /// Lets a message wait; false if too many do.
    pub async fn add_broker_message(&self, message: &Waiting) -> Result<bool, StoreError> {
        let now = now_ms();
        sqlx::query(
            "INSERT INTO broker_message (topic, payload, quality, retain, publisher_expires_ms, expires_ms) \
             SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM broker_message) < $7",
        )
        .bind(&message.topic)
        .bind(&message.payload)
        .bind(i64::from(message.quality))
        .bind(i64::from(message.retain))
        .bind(message.expires_ms)
        .bind(message.expires_ms.unwrap_or(i64::MAX).min(now + MAX_AGE_MS))
        .bind(MAX_WAITING)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(|e| StoreError::database("let a message wait for the broker", e))
    }

    /// The messages that have waited longest, in their order; those that are of no use any more are forgotten.
    pub async fn broker_messages(&self, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let error = |e| StoreError::database("read messages for the broker", e);
        sqlx::query("DELETE FROM broker_message WHERE expires_ms <= $1")
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map_err(error)?;
        let rows = sqlx::query(
            "SELECT sequence, topic, payload, quality, retain, publisher_expires_ms FROM broker_message \
             ORDER BY sequence LIMIT $1",
        )
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    sequence: row.try_get("sequence").map_err(error)?,
                    topic: row.try_get("topic").map_err(error)?,
                    payload: row.try_get("payload").map_err(error)?,
                    quality: u8::from(row.try_get::<i64, _>("quality").map_err(error)? > 0),
                    expires_ms: row.try_get("publisher_expires_ms").map_err(error)?,
                    retain: row.try_get::<i64, _>("retain").map_err(error)? != 0,
                })
            })
            .collect()
    }

    /// The broker has a message.
    pub async fn remove_broker_message(&self, sequence: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM broker_message WHERE sequence = $1")
            .bind(sequence)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("remove a message for the broker", e))
    }

    /// Whether this copy of the service is the one that listens to the broker: the newest, which is alive for sure when it
    /// says so. (The oldest may be one that was killed a moment ago.) For a moment there may be two, or none.
    pub async fn listens_to_broker(&self) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(true);
        }
        let newest = "SELECT copy_id FROM service_copy ORDER BY started_ms DESC, copy_id DESC LIMIT 1";
        let newest: Option<String> = sqlx::query_scalar(newest)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("ask which copy listens to the broker", e))?;
        Ok(newest.as_deref() == Some(&*self.copy))
    }

    /// Thing names of all devices whose certificate may be used now: whom the broker must know.
    pub async fn standing_things(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT DISTINCT common_name FROM certificate WHERE kind = 'device' AND status = 'active' AND expires_ms > $1",
        )
        .bind(now_ms())
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list devices that may connect", e))
    }

    /// No device counts as connected any more: the broker's connection is lost, and nobody knows.
    pub async fn forget_device_connections(&self) -> Result<(), StoreError> {
        let error = |e| StoreError::database("forget the devices' connections", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        for sql in [
            "UPDATE device SET connected = 0, updated_ms = $1 WHERE connected = 1",
            "DELETE FROM mqtt_connection WHERE is_device = 1 AND since_ms <= $1",
        ] {
            sqlx::query(sql).bind(now_ms()).execute(&mut *transaction).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn messages_wait_in_their_order_and_old_ones_go() {
        for place in places().await {
            let store = place.create().await;
            let message = |topic: &str, expires_ms| Waiting {
                sequence: 0,
                topic: topic.into(),
                payload: b"x".to_vec(),
                quality: 1,
                retain: topic == "b",
                expires_ms,
            };
            for (topic, expires_ms) in [("a", None), ("old", Some(now_ms() - 1)), ("b", Some(now_ms() + 60_000))] {
                assert!(store.add_broker_message(&message(topic, expires_ms)).await.unwrap());
            }
            let waiting = store.broker_messages(10).await.unwrap();
            let topics: Vec<_> = waiting.iter().map(|w| (w.topic.as_str(), w.retain)).collect();
            assert_eq!(topics, [("a", false), ("b", true)]);
            assert_eq!(waiting[0], Waiting { sequence: waiting[0].sequence, ..message("a", None) });
            store.remove_broker_message(waiting[0].sequence).await.unwrap();
            assert_eq!(store.broker_messages(10).await.unwrap().len(), 1);
        }
    }
}

//! Retained MQTT messages: the last message of a topic that was published to be kept.

use crate::{Store, StoreError, now_ms};
use sqlx::Row;

/// Retained messages of one client.
pub const MAX_RETAINED: i64 = 100;

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Of MQTT 5, as on the wire.
    pub properties: Vec<u8>,
    /// As it was published.
    pub quality: u8,
    /// When it is of no use any more.
    pub expires_ms: Option<i64>,
}

impl Store {
    /// Keeps a message in place of the earlier one of its topic; false if the client has too many.
    pub async fn retain_mqtt_message(&self, client: &str, message: &Retained) -> Result<bool, StoreError> {
        sqlx::query(
            "INSERT INTO mqtt_retained (topic, client, payload, properties, quality, expires_ms, modified_ms) \
             SELECT $1, $2, $3, $4, $5, $6, $7 FROM device WHERE thing_name = $2 \
             AND (EXISTS (SELECT 1 FROM mqtt_retained WHERE topic = $1) \
                  OR (SELECT count(*) FROM mqtt_retained WHERE client = $2) < $8) \
             ON CONFLICT (topic) DO UPDATE SET payload = $3, properties = $4, quality = $5, expires_ms = $6, modified_ms = $7",
        )
        .bind(&message.topic)
        .bind(client)
        .bind(&message.payload)
        .bind(&message.properties)
        .bind(i64::from(message.quality))
        .bind(message.expires_ms)
        .bind(now_ms())
        .bind(MAX_RETAINED)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(|e| StoreError::database("retain an MQTT message", e))
    }

    /// Forgets the retained message of a topic.
    pub async fn forget_retained_mqtt_message(&self, topic: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM mqtt_retained WHERE topic = $1")
            .bind(topic)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("forget a retained MQTT message", e))
    }

    /// A client's retained messages, by topic.
    pub async fn retained_mqtt_messages(&self, client: &str) -> Result<Vec<Retained>, StoreError> {
        let error = |e| StoreError::database("read retained MQTT messages", e);
        let rows = sqlx::query(
            "SELECT topic, payload, properties, quality, expires_ms FROM mqtt_retained \
             WHERE client = $1 AND (expires_ms IS NULL OR expires_ms > $2) ORDER BY topic",
        )
        .bind(client)
        .bind(now_ms())
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(Retained {
                    topic: row.try_get("topic").map_err(error)?,
                    payload: row.try_get("payload").map_err(error)?,
                    properties: row.try_get("properties").map_err(error)?,
                    quality: u8::from(row.try_get::<i64, _>("quality").map_err(error)? > 0),
                    expires_ms: row.try_get("expires_ms").map_err(error)?,
                })
            })
            .collect()
    }
}

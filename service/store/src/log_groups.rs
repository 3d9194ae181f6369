//! Log groups as a whole: how long their events are kept, their tags, and their end.

use crate::devices::Tags;
use crate::error::{stored, text};
use crate::logs::OVERHEAD;
use crate::{Store, StoreError};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Events that are deleted in one transaction.
const BATCH: i64 = 5000;

impl Store {
    /// How many days events are kept; `None`: for ever. `false` if there is no such group.
    pub async fn set_log_retention(&self, group: &str, days: Option<i64>) -> Result<bool, StoreError> {
        sqlx::query("UPDATE log_group SET retention_days = $1 WHERE name = $2")
            .bind(days)
            .bind(group)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("set how long logs are kept", e))
    }

    /// Tags of a group; `None` if there is no such group.
    pub async fn log_group_tags(&self, group: &str) -> Result<Option<Tags>, StoreError> {
        let row: Option<String> = sqlx::query_scalar("SELECT tags FROM log_group WHERE name = $1")
            .bind(group)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("read a log group's tags", e))?;
        row.map(|tags| stored("a log group's tags", &tags)).transpose()
    }

    /// Replaces the tags of a group; `false` if there is no such group.
    pub async fn set_log_group_tags(&self, group: &str, tags: &Tags) -> Result<bool, StoreError> {
        sqlx::query("UPDATE log_group SET tags = $1 WHERE name = $2")
            .bind(text(tags))
            .bind(group)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("set a log group's tags", e))
    }

    /// Deletes a group with everything in it; `false` if there was none.
    pub async fn delete_log_group(&self, group: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM log_group WHERE name = $1")
            .bind(group)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("delete a log group", e))
    }

    /// Deletes a stream with its events; `false` if there was none.
    pub async fn delete_log_stream(&self, group: &str, stream: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM log_stream WHERE log_group = $1 AND name = $2")
            .bind(group)
            .bind(stream)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("delete a log stream", e))
    }

    /// Deletes events that are older than their group wants them. How many.
    pub async fn age_logs(&self, now_ms: i64) -> Result<u64, StoreError> {
        let streams: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT s.sequence, g.retention_days FROM log_stream s JOIN log_group g ON g.name = s.log_group \
             WHERE g.retention_days IS NOT NULL AND s.first_event_ms < $1 - g.retention_days * 86400000",
        )
        .bind(now_ms)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list streams with old events", e))?;
        let mut gone = 0;
        for (stream, days) in streams {
            let before_ms = now_ms - days * DAY_MS;
            while let batch @ 1.. = self.age_log_stream(stream, before_ms).await? {
                gone += batch;
            }
        }
        Ok(gone)
    }

    async fn age_log_stream(&self, stream: i64, before_ms: i64) -> Result<u64, StoreError> {
        let error = |e| StoreError::database("delete old events", e);
        // The stream's row is held by whoever adds events too: sizes stay right.
        let mut transaction = self.begin_exclusive(&format!("log_stream {stream}")).await.map_err(error)?;
        let (count, size, last): (i64, i64, Option<i64>) = sqlx::query_as(
            "SELECT count(*), CAST(coalesce(sum(length(e.message) + $1), 0) AS BIGINT), max(e.timestamp_ms) FROM \
             (SELECT message, timestamp_ms FROM log_event WHERE stream = $2 AND timestamp_ms < $3 \
             ORDER BY timestamp_ms, sequence LIMIT $4) e",
        )
        .bind(OVERHEAD as i64)
        .bind(stream)
        .bind(before_ms)
        .bind(BATCH)
        .fetch_one(&mut *transaction)
        .await
        .map_err(error)?;
        if last.is_none() {
            return Ok(0);
        }
        sqlx::query(
            "DELETE FROM log_event WHERE sequence IN (SELECT sequence FROM log_event WHERE stream = $1 \
             AND timestamp_ms < $2 ORDER BY timestamp_ms, sequence LIMIT $3)",
        )
        .bind(stream)
        .bind(before_ms)
        .bind(BATCH)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        sqlx::query(
            "UPDATE log_stream SET stored_bytes = stored_bytes - $1, \
             first_event_ms = (SELECT min(e.timestamp_ms) FROM log_event e WHERE e.stream = $2) WHERE sequence = $2",
        )
        .bind(size)
        .bind(stream)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(count.unsigned_abs())
    }
}

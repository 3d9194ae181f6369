//! Exports of log groups: asked for here, carried out by whoever claims them, and claimed again if that one dies.

use crate::{Store, StoreError, identifiers, now_ms};

/// Exports that wait at once.
pub const MAX_WAITING: i64 = 100;
/// How long ended ones are remembered.
const REMEMBERED_MS: i64 = 30 * 24 * 3600 * 1000;

/// An export to be.
#[derive(Debug, Clone, Copy)]
pub struct NewExport<'a> {
    /// For people.
    pub name: Option<&'a str>,
    /// Which group.
    pub group: &'a str,
    /// Streams whose names begin so.
    pub stream_prefix: &'a str,
    /// Events from then on.
    pub from_ms: i64,
    /// Until then.
    pub to_ms: i64,
    /// Where to.
    pub bucket: &'a str,
    /// What keys begin with.
    pub prefix: &'a str,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its identifier.
    pub task_id: String,
    /// For people.
    pub name: Option<String>,
    /// Which group.
    pub group: String,
    /// Streams whose names begin so.
    pub stream_prefix: String,
    /// Events from then on.
    pub from_ms: i64,
    /// Until then.
    pub to_ms: i64,
    /// Where to.
    pub bucket: String,
    /// What keys begin with.
    pub prefix: String,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `CANCELLED`, `FAILED`.
    pub status: String,
    /// For people.
    pub message: String,
    /// When it was asked for.
    pub created_ms: i64,
    /// When it ended.
    pub completed_ms: Option<i64>,
}

type Row = (String, Option<String>, String, String, i64, i64, String, String, String, String, i64, Option<i64>);

const COLUMNS: &str =
    "task_id, name, log_group, stream_prefix, from_ms, to_ms, bucket, prefix, status, message, created_ms, completed_ms";

fn export(row: Row) -> Export {
    let (task_id, name, group, stream_prefix, from_ms, to_ms, bucket, prefix, status, message, created_ms, completed_ms) =
        row;
    Export { task_id, name, group, stream_prefix, from_ms, to_ms, bucket, prefix, status, message, created_ms, completed_ms }
}

impl Store {
    /// Asks for an export; its identifier, or `None` if [`MAX_WAITING`] wait already.
    pub async fn create_log_export(&self, new: NewExport<'_>) -> Result<Option<String>, StoreError> {
        let error = |e| StoreError::database("store an export", e);
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM log_export WHERE status IN ('PENDING', 'RUNNING')")
            .fetch_one(&self.pool)
            .await
            .map_err(error)?;
        if waiting >= MAX_WAITING {
            return Ok(None);
        }
        let id = identifiers::uuid();
        sqlx::query(
            "INSERT INTO log_export (task_id, name, log_group, stream_prefix, from_ms, to_ms, bucket, prefix, status, \
             message, created_ms, claimed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'PENDING', '', $9, 0)",
        )
        .bind(&id)
        .bind(new.name)
        .bind(new.group)
        .bind(new.stream_prefix)
        .bind(new.from_ms)
        .bind(new.to_ms)
        .bind(new.bucket)
        .bind(new.prefix)
        .bind(now_ms())
        .execute(&self.pool)
        .await
        .map_err(error)?;
        Ok(Some(id))
    }

    /// All of them, newest first.
    pub async fn list_log_exports(&self) -> Result<Vec<Export>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM log_export ORDER BY sequence DESC");
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list exports", e))?;
        Ok(rows.into_iter().map(export).collect())
    }

    /// Takes an export that waits, or whose bearer was not heard of any more; for `lease_ms`.
    pub async fn claim_log_export(&self, now_ms: i64, lease_ms: i64) -> Result<Option<Export>, StoreError> {
        let sql = format!(
            "UPDATE log_export SET status = 'RUNNING', claimed_ms = $1 WHERE claimed_ms <= $2 AND sequence = \
             (SELECT min(e.sequence) FROM log_export e WHERE e.status IN ('PENDING', 'RUNNING') AND e.claimed_ms <= $2) \
             RETURNING {COLUMNS}"
        );
        let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(now_ms + lease_ms)
            .bind(now_ms)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("claim an export", e))?;
        Ok(row.map(export))
    }

    /// Keeps an export for longer.
    pub async fn keep_log_export(&self, task_id: &str, until_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE log_export SET claimed_ms = $1 WHERE task_id = $2")
            .bind(until_ms)
            .bind(task_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("keep an export", e))
    }

    /// An export has ended.
    pub async fn end_log_export(&self, task_id: &str, status: &str, message: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE log_export SET status = $1, message = $2, completed_ms = $3 WHERE task_id = $4")
            .bind(status)
            .bind(message)
            .bind(now_ms())
            .bind(task_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("end an export", e))
    }

    /// Takes back an export that has not begun; `false` if there is none such.
    pub async fn cancel_log_export(&self, task_id: &str) -> Result<bool, StoreError> {
        sqlx::query(
            "UPDATE log_export SET status = 'CANCELLED', completed_ms = $1 WHERE task_id = $2 AND status = 'PENDING'",
        )
        .bind(now_ms())
        .bind(task_id)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| StoreError::database("cancel an export", e))
    }

    /// Forgets exports that ended long ago.
    pub async fn age_log_exports(&self, now_ms: i64) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM log_export WHERE completed_ms < $1")
            .bind(now_ms - REMEMBERED_MS)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(|e| StoreError::database("forget old exports", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_is_carried_out_by_one_and_taken_over_when_that_one_dies() {
        for place in crate::testing::places().await {
            let store = place.create().await;
            let new =
                NewExport { name: None, group: "g", stream_prefix: "", from_ms: 0, to_ms: 1, bucket: "b", prefix: "p" };
            let id = store.create_log_export(new).await.unwrap().unwrap();
            assert_eq!(store.claim_log_export(10, 5).await.unwrap().unwrap().task_id, id);
            assert_eq!(store.claim_log_export(14, 5).await.unwrap(), None);
            store.keep_log_export(&id, 20).await.unwrap();
            assert_eq!(store.claim_log_export(19, 5).await.unwrap(), None);
            assert_eq!(store.claim_log_export(20, 5).await.unwrap().unwrap().status, "RUNNING");
            assert!(!store.cancel_log_export(&id).await.unwrap(), "it has begun");
            store.end_log_export(&id, "COMPLETED", "done").await.unwrap();
            assert_eq!(store.claim_log_export(i64::MAX - 9, 5).await.unwrap(), None);
            assert_eq!(store.list_log_exports().await.unwrap()[0].message, "done");
            assert_eq!(store.age_log_exports(i64::MAX).await.unwrap(), 1);
            let id = store.create_log_export(new).await.unwrap().unwrap();
            assert!(store.cancel_log_export(&id).await.unwrap());
            assert_eq!(store.claim_log_export(i64::MAX - 9, 5).await.unwrap(), None);
        }
    }
}

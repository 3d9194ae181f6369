//! The audit log: rows that are only added, and pruned by age and number.

use crate::database::DatabaseRow;
use crate::{Store, StoreError};
use sqlx::{AnyConnection, Row};
use std::sync::LazyLock;

/// Entries of one statement.
const TOGETHER: usize = 32;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it was answered, milliseconds since 1970.
    pub time_ms: i64,
    /// As its answer bears it.
    pub request_id: String,
    /// An ARN; `unverified` if its signature was refused.
    pub caller: String,
    /// As the request bears it.
    pub access_key_id: String,
    /// Where the connection came from.
    pub source: String,
    /// `panorama:ListDevices`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    /// HTTP status of the answer.
    pub status: i64,
}

fn entry(row: &DatabaseRow) -> Result<AuditEntry, StoreError> {
    let error = |e| StoreError::database("read the audit log", e);
    Ok(AuditEntry {
        time_ms: row.try_get("time_ms").map_err(error)?,
        request_id: row.try_get("request_id").map_err(error)?,
        caller: row.try_get("caller").map_err(error)?,
        access_key_id: row.try_get("access_key_id").map_err(error)?,
        source: row.try_get("source").map_err(error)?,
        action: row.try_get("action").map_err(error)?,
        resource: row.try_get("resource").map_err(error)?,
        status: row.try_get("status").map_err(error)?,
    })
}

/// A statement that adds so many entries.
fn insertion(rows: usize) -> String {
    let row = |n: usize| {
        format!("(${}, ${}, ${}, ${}, ${}, ${}, ${}, ${})", n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8)
    };
    let rows: Vec<String> = (0..rows).map(|n| row(n * 8)).collect();
    let into = "INSERT INTO audit (time_ms, request_id, caller, access_key_id, source, action, resource, status) VALUES ";
    into.to_owned() + &rows.join(", ")
}

/// Two statements, so that both stay prepared.
static ONE: LazyLock<String> = LazyLock::new(|| insertion(1));
static MANY: LazyLock<String> = LazyLock::new(|| insertion(TOGETHER));

async fn insert(connection: &mut AnyConnection, statement: &'static str, entries: &[AuditEntry]) -> sqlx::Result<()> {
    let mut query = sqlx::query(statement);
    for entry in entries {
        query = query.bind(entry.time_ms).bind(&entry.request_id).bind(&entry.caller).bind(&entry.access_key_id);
        query = query.bind(&entry.source).bind(&entry.action).bind(&entry.resource).bind(entry.status);
    }
    query.execute(connection).await.map(drop)
}

impl Store {
    /// Adds entries; they are on the disk when this returns.
    pub async fn add_audit_entries(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let error = |e| StoreError::database("write the audit log", e);
        let entries = entries.to_vec();
        let added = self.change(None, move |connection| {
            Box::pin(async move {
                let (many, few) = entries.as_chunks::<TOGETHER>();
                for entries in many {
                    insert(connection, &MANY, entries).await?;
                }
                for entry in few.chunks(1) {
                    insert(connection, &ONE, entry).await?;
                }
                Ok(())
            })
        });
        added.await.map_err(error)
    }

    /// The newest entries since a time, at most `limit`, oldest first.
    pub async fn audit_entries(&self, since_ms: i64, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit WHERE time_ms >= $1 ORDER BY sequence DESC LIMIT $2")
            .bind(since_ms)
            .bind(limit)
            .fetch_all(&self.pool)
            .await;
        let mut entries: Vec<AuditEntry> =
            rows.map_err(|e| StoreError::database("read the audit log", e))?.iter().map(entry).collect::<Result<_, _>>()?;
        entries.reverse();
        Ok(entries)
    }

    /// Forgets what is older than a time, and all but the newest `rows`. Gives how many were forgotten.
    pub async fn prune_audit(&self, before_ms: i64, rows: i64) -> Result<u64, StoreError> {
        let error = |e| StoreError::database("prune the audit log", e);
        let pruned = sqlx::query(
            "DELETE FROM audit WHERE time_ms < $1 OR sequence <= (SELECT coalesce(max(sequence), 0) FROM audit) - $2",
        )
        .bind(before_ms)
        .bind(rows)
        .execute(&self.pool)
        .await;
        pruned.map(|done| done.rows_affected()).map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn the_log_keeps_its_order_and_its_bounds() {
        for place in places().await {
            let store = place.create().await;
            let entry = |n: i64| AuditEntry {
                time_ms: n,
                request_id: format!("r{n}"),
                caller: "c".into(),
                access_key_id: "AKIA".into(),
                source: "127.0.0.1:1".into(),
                action: "s3:GetObject".into(),
                resource: "*".into(),
                status: 200,
            };
            let all: Vec<AuditEntry> = (1..=2 * TOGETHER as i64 + 10).map(entry).collect();
            store.add_audit_entries(&all).await.unwrap();
            assert_eq!(store.audit_entries(0, 100).await.unwrap(), all);
            assert_eq!(store.audit_entries(4, 3).await.unwrap(), all[all.len() - 3..]);
            assert_eq!(store.prune_audit(3, 100).await.unwrap(), 2);
            assert_eq!(store.prune_audit(0, 5).await.unwrap() as usize, all.len() - 2 - 5);
            assert_eq!(store.audit_entries(0, 100).await.unwrap(), all[all.len() - 5..]);
        }
    }
}

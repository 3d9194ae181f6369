//! Named shadows as rows: a version and a document. What a document means is the fleet's business.

use crate::{Store, StoreError};

/// A shadow as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredShadow {
    /// Grows with every change, and is kept when the shadow is deleted.
    pub version: u64,
    /// JSON; `None` when there is no shadow now.
    pub document: Option<String>,
}

impl Store {
    /// The shadow, or version 0 without a document if there never was one.
    pub async fn shadow(&self, thing_name: &str, name: &str) -> Result<StoredShadow, StoreError> {
        let row: Option<(i64, Option<String>)> =
            sqlx::query_as("SELECT version, document FROM shadow WHERE thing_name = $1 AND name = $2")
                .bind(thing_name)
                .bind(name)
                .fetch_optional(&self.pool)
                .await
                .map_err(|e| StoreError::database("read a shadow", e))?;
        let (version, document) = row.unwrap_or((0, None));
        Ok(StoredShadow { version: version as u64, document })
    }

    /// Writes version `expected + 1`; false if another writer was faster.
    pub async fn replace_shadow(
        &self,
        thing_name: &str,
        name: &str,
        expected: u64,
        document: Option<&str>,
    ) -> Result<bool, StoreError> {
        let (thing_name, name, document) = (thing_name.to_owned(), name.to_owned(), document.map(str::to_owned));
        let replaced = self.change(None, move |connection| {
            Box::pin(async move {
                let replaced = sqlx::query(
                    "INSERT INTO shadow (thing_name, name, version, document) VALUES ($1, $2, $3 + 1, $4) \
                     ON CONFLICT (thing_name, name) DO UPDATE SET version = $3 + 1, document = $4 WHERE shadow.version = $3",
                );
                let replaced = replaced.bind(thing_name).bind(name).bind(expected as i64).bind(document);
                Ok(replaced.execute(connection).await?.rows_affected() == 1)
            })
        });
        replaced.await.map_err(|e| StoreError::database("write a shadow", e))
    }
}

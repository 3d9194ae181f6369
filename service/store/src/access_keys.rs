//! Access keys of administrators. Devices have none: theirs are short-lived and kept by nobody.

use crate::{Store, StoreError, identifiers, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use sqlx::Row;

pub(crate) const PURPOSE: &str = "access key";

/// A key without its secret.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// `AKIA…`.
    pub access_key_id: String,
    /// For people.
    pub description: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When it stopped working.
    pub revoked_ms: Option<i64>,
    /// When it stops working by itself.
    pub expires_ms: Option<i64>,
}

impl Store {
    /// Makes a key that works until it is revoked. The secret is given out this once.
    pub async fn create_access_key(&self, description: &str) -> Result<(String, String), StoreError> {
        self.create_access_key_until(description, None).await
    }

    /// Makes a key that ends by itself.
    pub async fn create_access_key_until(
        &self,
        description: &str,
        expires_ms: Option<i64>,
    ) -> Result<(String, String), StoreError> {
        let id = identifiers::access_key("AKIA");
        let secret = BASE64_STANDARD.encode(identifiers::random::<30>());
        sqlx::query("INSERT INTO access_key (access_key_id, secret, description, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(&id)
            .bind(self.secrets.seal(PURPOSE, secret.as_bytes()))
            .bind(description)
            .bind(now_ms())
            .bind(expires_ms)
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("store an access key", e))?;
        Ok((id, secret))
    }

    /// The secret of a key that is neither revoked nor at its end.
    pub async fn access_key_secret(&self, id: &str) -> Result<Option<String>, StoreError> {
        let sealed: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT secret FROM access_key WHERE access_key_id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)")
                .bind(id)
                .bind(now_ms())
                .fetch_optional(&self.pool)
                .await
                .map_err(|e| StoreError::database("look up an access key", e))?;
        sealed.map(|s| String::from_utf8(self.secrets.unseal(PURPOSE, &s)?).map_err(|_| StoreError::Sealed)).transpose()
    }

    /// All keys, oldest first.
    pub async fn list_access_keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        let error = |e| StoreError::database("list access keys", e);
        sqlx::query(
            "SELECT access_key_id, description, created_ms, revoked_ms, expires_ms FROM access_key ORDER BY created_ms",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(error)?
        .iter()
        .map(|row| {
            Ok(AccessKey {
                access_key_id: row.try_get("access_key_id").map_err(error)?,
                description: row.try_get("description").map_err(error)?,
                created_ms: row.try_get("created_ms").map_err(error)?,
                revoked_ms: row.try_get("revoked_ms").map_err(error)?,
                expires_ms: row.try_get("expires_ms").map_err(error)?,
            })
        })
        .collect()
    }

    /// Ends a key at once; false if there is no such working key.
    pub async fn revoke_access_key(&self, id: &str) -> Result<bool, StoreError> {
        sqlx::query("UPDATE access_key SET revoked_ms = $1 WHERE access_key_id = $2 AND revoked_ms IS NULL")
            .bind(now_ms())
            .bind(id)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("revoke an access key", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn a_key_ends_when_it_is_revoked_and_when_its_time_is_over() {
        for place in places().await {
            let store = place.create().await;
            let (forever, secret) = store.create_access_key("forever").await.unwrap();
            let (over, _) = store.create_access_key_until("over", Some(now_ms())).await.unwrap();
            let (later, _) = store.create_access_key_until("later", Some(now_ms() + 60_000)).await.unwrap();
            assert_eq!(store.access_key_secret(&forever).await.unwrap().as_deref(), Some(secret.as_str()));
            assert_eq!(store.access_key_secret(&over).await.unwrap(), None);
            assert!(store.access_key_secret(&later).await.unwrap().is_some());
            assert!(store.revoke_access_key(&later).await.unwrap());
            assert!(!store.revoke_access_key(&later).await.unwrap());
            assert_eq!(store.access_key_secret(&later).await.unwrap(), None);
            assert_eq!(store.list_access_keys().await.unwrap().len(), 3);
        }
    }
}

//! Secrets that people and applications keep here (Secrets Manager). Values are sealed, each for its own ARN.
//!
//! Of a secret two versions are kept: the current one and the one before it.

use crate::database::DatabaseRow;
use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};
use sqlx::Row;
use std::collections::BTreeMap;

/// The stage of the newest version.
pub const CURRENT: &str = "AWSCURRENT";
/// The stage of the version before it.
pub const PREVIOUS: &str = "AWSPREVIOUS";

/// A secret, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedSecret {
    /// Unique.
    pub arn: String,
    /// Unique.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When its value or description changed.
    pub changed_ms: i64,
    /// When its value was last given out, to the day.
    pub accessed_ms: Option<i64>,
    /// When it will be gone for good, if it is to be deleted.
    pub deletion_ms: Option<i64>,
}

/// A version's name, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion {
    /// Opaque.
    pub version_id: String,
    /// [`CURRENT`] or [`PREVIOUS`].
    pub stage: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A value. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// `SecretString`.
    Text(String),
    /// `SecretBinary`.
    Binary(Vec<u8>),
}

impl SecretValue {
    fn parts(&self) -> (&'static str, &[u8]) {
        match self {
            SecretValue::Text(text) => ("string", text.as_bytes()),
            SecretValue::Binary(bytes) => ("binary", bytes),
        }
    }
}

const DAY_MS: i64 = 24 * 3600 * 1000;

pub(crate) fn purpose(arn: &str) -> String {
    format!("managed secret {arn}")
}

fn secret(row: &DatabaseRow) -> Result<ManagedSecret, StoreError> {
    let error = |e| StoreError::database("read a secret's row", e);
    let tags: String = row.try_get("tags").map_err(error)?;
    Ok(ManagedSecret {
        arn: row.try_get("arn").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        tags: stored("a secret's tags", &tags)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
        changed_ms: row.try_get("changed_ms").map_err(error)?,
        accessed_ms: row.try_get("accessed_ms").map_err(error)?,
        deletion_ms: row.try_get("deletion_ms").map_err(error)?,
    })
}

impl Store {
    /// Makes a secret; [`StoreError::Exists`] if its name is taken (also by one that is to be deleted).
    pub async fn create_managed_secret(
        &self,
        arn: &str,
        name: &str,
        description: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        self.purge_managed_secrets().await?;
        let now = now_ms();
        sqlx::query("INSERT INTO secret (arn, name, description, tags, created_ms, changed_ms) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(arn)
            .bind(name)
            .bind(description)
            .bind(text(tags))
            .bind(now)
            .bind(now)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::insert("store a secret", &format!("the secret {name}"), e))
    }

    /// A secret by its name, its ARN, or its ARN without the last seven characters.
    pub async fn managed_secret(&self, id: &str) -> Result<Option<ManagedSecret>, StoreError> {
        self.purge_managed_secrets().await?;
        let name = id.split_once(":secret:").map_or(id, |(_, name)| name);
        let row = sqlx::query("SELECT * FROM secret WHERE arn = $1 OR name = $2 ORDER BY CASE WHEN arn = $1 THEN 0 ELSE 1 END")
            .bind(id)
            .bind(name)
            .fetch_optional(&self.pool)
            .await;
        row.map_err(|e| StoreError::database("look up a secret", e))?.as_ref().map(secret).transpose()
    }

    /// All secrets, by name.
    pub async fn list_managed_secrets(&self) -> Result<Vec<ManagedSecret>, StoreError> {
        self.purge_managed_secrets().await?;
        let rows = sqlx::query("SELECT * FROM secret ORDER BY name").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list secrets", e))?.iter().map(secret).collect()
    }

    /// Gives a secret a new current version. The same version with the same value again changes nothing and is true;
    /// with another value it is false.
    pub async fn put_secret_value(&self, arn: &str, version_id: &str, value: &SecretValue) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("store a secret's value", e);
        if let Some((_, known)) = self.secret_value(arn, Some(version_id), None).await? {
            return Ok(known == *value);
        }
        let (kind, bytes) = value.parts();
        let sealed = self.secrets.seal(&purpose(arn), bytes);
        let mut transaction = self.begin_exclusive("secret").await.map_err(error)?;
        for (statement, stage) in [
            ("DELETE FROM secret_version WHERE arn = $1 AND stage = $2", PREVIOUS),
            ("UPDATE secret_version SET stage = 'AWSPREVIOUS' WHERE arn = $1 AND stage = $2", CURRENT),
        ] {
            sqlx::query(statement).bind(arn).bind(stage).execute(&mut *transaction).await.map_err(error)?;
        }
        let now = now_ms();
        sqlx::query("INSERT INTO secret_version (arn, version_id, stage, kind, value, created_ms) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(arn)
            .bind(version_id)
            .bind(CURRENT)
            .bind(kind)
            .bind(sealed)
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query("UPDATE secret SET changed_ms = $1 WHERE arn = $2").bind(now).bind(arn).execute(&mut *transaction).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(true)
    }

    /// A version of a secret with its value; the current one if neither version nor stage is named.
    pub async fn secret_value(
        &self,
        arn: &str,
        version_id: Option<&str>,
        stage: Option<&str>,
    ) -> Result<Option<(SecretVersion, SecretValue)>, StoreError> {
        let error = |e| StoreError::database("read a secret's value", e);
        let stage = stage.or(if version_id.is_none() { Some(CURRENT) } else { None });
        let rows = sqlx::query("SELECT version_id, stage, kind, value, created_ms FROM secret_version WHERE arn = $1")
            .bind(arn)
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        for row in &rows {
            let version = SecretVersion {
                version_id: row.try_get("version_id").map_err(error)?,
                stage: row.try_get("stage").map_err(error)?,
                created_ms: row.try_get("created_ms").map_err(error)?,
            };
            if version_id.is_some_and(|v| v != version.version_id) || stage.is_some_and(|s| s != version.stage) {
                continue;
            }
            let kind: String = row.try_get("kind").map_err(error)?;
            let sealed: Vec<u8> = row.try_get("value").map_err(error)?;
            let bytes = self.secrets.unseal(&purpose(arn), &sealed)?;
            let value = match kind.as_str() {
                "string" => SecretValue::Text(String::from_utf8(bytes).map_err(|_| StoreError::Sealed)?),
                _ => SecretValue::Binary(bytes),
            };
            return Ok(Some((version, value)));
        }
        Ok(None)
    }

    /// The versions of a secret, without their values.
    pub async fn secret_versions(&self, arn: &str) -> Result<Vec<SecretVersion>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT version_id, stage, created_ms FROM secret_version WHERE arn = $1 ORDER BY stage")
                .bind(arn)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("list a secret's versions", e))?;
        Ok(rows.into_iter().map(|(version_id, stage, created_ms)| SecretVersion { version_id, stage, created_ms }).collect())
    }

    /// Notes that a secret's value was given out today.
    pub async fn note_secret_access(&self, secret: &ManagedSecret) -> Result<(), StoreError> {
        let today = now_ms() / DAY_MS * DAY_MS;
        if secret.accessed_ms == Some(today) {
            return Ok(());
        }
        sqlx::query("UPDATE secret SET accessed_ms = $1 WHERE arn = $2")
            .bind(today)
            .bind(&secret.arn)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("note a secret's use", e))
    }

    /// Changes a secret's description.
    pub async fn describe_managed_secret(&self, arn: &str, description: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE secret SET description = $1, changed_ms = $2 WHERE arn = $3")
            .bind(description)
            .bind(now_ms())
            .bind(arn)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("change a secret", e))
    }

    /// Sets when a secret will be gone for good; `None` takes that back.
    pub async fn schedule_secret_deletion(&self, arn: &str, deletion_ms: Option<i64>) -> Result<(), StoreError> {
        sqlx::query("UPDATE secret SET deletion_ms = $1 WHERE arn = $2")
            .bind(deletion_ms)
            .bind(arn)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("schedule a secret's deletion", e))?;
        self.purge_managed_secrets().await
    }

    /// Deletes the secrets whose time has come.
    async fn purge_managed_secrets(&self) -> Result<(), StoreError> {
        let due: i64 = sqlx::query_scalar("SELECT count(*) FROM secret WHERE deletion_ms <= $1")
            .bind(now_ms())
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("look for secrets to delete", e))?;
        if due == 0 {
            return Ok(());
        }
        sqlx::query("DELETE FROM secret WHERE deletion_ms <= $1")
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("delete secrets", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn the_current_and_the_previous_value_are_kept_sealed() {
        for place in places().await {
            let store = place.create().await;
            let arn = "arn:aws:secretsmanager:r:1:secret:camera-abcdef";
            store.create_managed_secret(arn, "camera", None, &BTreeMap::new()).await.unwrap();
            let exists = store.create_managed_secret("arn:other", "camera", None, &BTreeMap::new()).await;
            assert!(matches!(exists, Err(StoreError::Exists { .. })));
            let value = |text: &str| SecretValue::Text(text.into());
            for (version, text) in [("1", "hunter1"), ("2", "hunter2"), ("3", "hunter3")] {
                assert!(store.put_secret_value(arn, version, &value(text)).await.unwrap());
            }
            assert!(store.put_secret_value(arn, "3", &value("hunter3")).await.unwrap(), "again is nothing new");
            assert!(!store.put_secret_value(arn, "3", &value("other")).await.unwrap());
            let read = async |version, stage| store.secret_value(arn, version, stage).await.unwrap().map(|(v, s)| (v.version_id, s));
            assert!(read(None, None).await == Some(("3".into(), value("hunter3"))));
            assert!(read(None, Some(PREVIOUS)).await == Some(("2".into(), value("hunter2"))));
            assert!(read(Some("1"), None).await.is_none());
            assert_eq!(store.managed_secret("camera").await.unwrap().unwrap().arn, arn);
            assert_eq!(store.managed_secret("arn:aws:secretsmanager:r:1:secret:camera").await.unwrap().unwrap().arn, arn);
            let values: Vec<Vec<u8>> = sqlx::query_scalar("SELECT value FROM secret_version").fetch_all(&store.pool).await.unwrap();
            assert!(!values.is_empty() && !values.iter().any(|v| v.windows(6).any(|w| w == b"hunter")));
            store.schedule_secret_deletion(arn, Some(now_ms() + 60_000)).await.unwrap();
            assert!(store.managed_secret(arn).await.unwrap().unwrap().deletion_ms.is_some());
            store.schedule_secret_deletion(arn, Some(now_ms())).await.unwrap();
            assert!(store.managed_secret(arn).await.unwrap().is_none() && read(None, None).await.is_none());
            store.close().await;
            for file in std::fs::read_dir(place.folder.path()).unwrap().flatten().filter(|f| f.path().is_file()) {
                let bytes = std::fs::read(file.path()).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"hunter"), "{:?}", file.path());
            }
        }
    }
}

//! Secrets that people and applications keep here (Secrets Manager). Values are sealed, each for its own ARN.
//!
//! Of a secret two versions are kept: the current one and the one before it.

use crate::database::DatabaseRow;
use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};
use sqlx::{AnyConnection, Row};
use std::collections::{BTreeMap, HashMap};

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
const PURGE: &str = "DELETE FROM secret WHERE deletion_ms <= $1";

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

/// What is needed for a new secret.
pub struct NewSecret<'a> {
    /// Unique.
    pub arn: &'a str,
    /// Unique.
    pub name: &'a str,
    /// For people.
    pub description: Option<&'a str>,
    /// Tags.
    pub tags: &'a BTreeMap<String, String>,
    /// The first version's name, and its value.
    pub first: Option<(&'a str, &'a SecretValue)>,
}

impl Store {
    /// Makes a secret, with its first version if there is one; [`StoreError::Exists`] if its name is taken (also by one
    /// that is to be deleted).
    pub async fn create_managed_secret(&self, new: NewSecret<'_>) -> Result<(), StoreError> {
        let (what, now) = (format!("the secret {}", new.name), now_ms());
        let (arn, name, tags) = (new.arn.to_owned(), new.name.to_owned(), text(new.tags));
        let description = new.description.map(str::to_owned);
        let first = new.first.map(|(version_id, value)| {
            let (kind, bytes) = value.parts();
            (version_id.to_owned(), kind, self.secrets.seal(&purpose(new.arn), bytes))
        });
        let made = self.change(None, move |connection| {
            Box::pin(async move {
                sqlx::query(PURGE).bind(now).execute(&mut *connection).await?;
                sqlx::query("INSERT INTO secret (arn, name, description, tags, created_ms, changed_ms) VALUES ($1, $2, $3, $4, $5, $5)")
                    .bind(&arn)
                    .bind(name)
                    .bind(description)
                    .bind(tags)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                match first {
                    Some((version_id, kind, sealed)) => add_version(connection, &arn, &version_id, kind, sealed, now).await,
                    None => Ok(()),
                }
            })
        });
        made.await.map_err(|e| StoreError::insert("store a secret", &what, e))
    }

    /// A secret by its name, its ARN, or its ARN without the last seven characters.
    pub async fn managed_secret(&self, id: &str) -> Result<Option<ManagedSecret>, StoreError> {
        let name = id.split_once(":secret:").map_or(id, |(_, name)| name);
        let row = sqlx::query(
            "SELECT * FROM secret WHERE (arn = $1 OR name = $2) AND (deletion_ms IS NULL OR deletion_ms > $3) \
             ORDER BY CASE WHEN arn = $1 THEN 0 ELSE 1 END",
        );
        let row = row.bind(id).bind(name).bind(now_ms()).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a secret", e))?.as_ref().map(secret).transpose()
    }

    /// All secrets, by name.
    pub async fn list_managed_secrets(&self) -> Result<Vec<ManagedSecret>, StoreError> {
        let rows = sqlx::query("SELECT * FROM secret WHERE deletion_ms IS NULL OR deletion_ms > $1 ORDER BY name");
        let rows = rows.bind(now_ms()).fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list secrets", e))?.iter().map(secret).collect()
    }

    /// How many there are.
    pub async fn count_managed_secrets(&self) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM secret").fetch_one(&self.pool).await;
        count.map_err(|e| StoreError::database("count secrets", e))
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
        add_version(&mut transaction, arn, version_id, kind, sealed, now).await.map_err(error)?;
        sqlx::query("UPDATE secret SET changed_ms = $1 WHERE arn = $2")
            .bind(now)
            .bind(arn)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
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

    /// The versions of all secrets whose names are in a range, its ends included, without their values; by ARN.
    pub async fn secret_versions_between(
        &self,
        first: &str,
        last: &str,
    ) -> Result<HashMap<String, Vec<SecretVersion>>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT arn, version_id, stage, secret_version.created_ms FROM secret_version JOIN secret USING (arn) \
             WHERE name >= $1 AND name <= $2 ORDER BY stage",
        )
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list versions of secrets", e))?;
        let mut versions: HashMap<String, Vec<SecretVersion>> = HashMap::new();
        for (arn, version_id, stage, created_ms) in rows {
            versions.entry(arn).or_default().push(SecretVersion { version_id, stage, created_ms });
        }
        Ok(versions)
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

    /// Deletes the secrets whose time has come. Nobody sees them since then.
    pub(crate) async fn purge_managed_secrets(&self) -> Result<(), StoreError> {
        let purged = sqlx::query(PURGE).bind(now_ms()).execute(&self.pool).await;
        purged.map(drop).map_err(|e| StoreError::database("delete secrets", e))
    }
}

async fn add_version(
    connection: &mut AnyConnection,
    arn: &str,
    version_id: &str,
    kind: &str,
    sealed: Vec<u8>,
    now: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO secret_version (arn, version_id, stage, kind, value, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(arn)
    .bind(version_id)
    .bind(CURRENT)
    .bind(kind)
    .bind(sealed)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
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
            let value = |text: &str| SecretValue::Text(text.into());
            let (tags, first) = (BTreeMap::new(), value("hunter1"));
            let new = |arn| NewSecret { arn, name: "camera", description: None, tags: &tags, first: Some(("1", &first)) };
            store.create_managed_secret(new(arn)).await.unwrap();
            assert!(matches!(store.create_managed_secret(new("arn:other")).await, Err(StoreError::Exists { .. })));
            assert!(store.secret_versions("arn:other").await.unwrap().is_empty());
            for (version, text) in [("1", "hunter1"), ("2", "hunter2"), ("3", "hunter3")] {
                assert!(store.put_secret_value(arn, version, &value(text)).await.unwrap());
            }
            assert!(store.put_secret_value(arn, "3", &value("hunter3")).await.unwrap(), "again is nothing new");
            assert!(!store.put_secret_value(arn, "3", &value("other")).await.unwrap());
            let read = async |version, stage| {
                store.secret_value(arn, version, stage).await.unwrap().map(|(v, s)| (v.version_id, s))
            };
            assert!(read(None, None).await == Some(("3".into(), value("hunter3"))));
            assert!(read(None, Some(PREVIOUS)).await == Some(("2".into(), value("hunter2"))));
            assert!(read(Some("1"), None).await.is_none());
            let listed = store.secret_versions_between("camera", "camera").await.unwrap();
            assert_eq!(listed[arn], store.secret_versions(arn).await.unwrap());
            assert!(store.secret_versions_between("camera2", "z").await.unwrap().is_empty());
            assert_eq!(store.managed_secret("camera").await.unwrap().unwrap().arn, arn);
            assert_eq!(store.managed_secret("arn:aws:secretsmanager:r:1:secret:camera").await.unwrap().unwrap().arn, arn);
            let values: Vec<Vec<u8>> =
                sqlx::query_scalar("SELECT value FROM secret_version").fetch_all(&store.pool).await.unwrap();
            assert!(!values.is_empty() && !values.iter().any(|v| v.windows(6).any(|w| w == b"hunter")));
            store.schedule_secret_deletion(arn, Some(now_ms() + 60_000)).await.unwrap();
            assert!(store.managed_secret(arn).await.unwrap().unwrap().deletion_ms.is_some());
            // Its time comes while nobody looks: it is not seen any more, and its name is free.
            sqlx::query("UPDATE secret SET deletion_ms = $1").bind(now_ms()).execute(&store.pool).await.unwrap();
            assert!(
                store.managed_secret(arn).await.unwrap().is_none() && store.list_managed_secrets().await.unwrap().is_empty()
            );
            store.create_managed_secret(new("arn:other")).await.unwrap();
            assert_eq!(store.count_managed_secrets().await.unwrap(), 1);
            store.schedule_secret_deletion("arn:other", Some(now_ms())).await.unwrap();
            assert_eq!(store.count_managed_secrets().await.unwrap(), 0);
            assert!(store.managed_secret(arn).await.unwrap().is_none() && read(None, None).await.is_none());
            store.close().await;
            for file in std::fs::read_dir(place.folder.path()).unwrap().flatten().filter(|f| f.path().is_file()) {
                let bytes = std::fs::read(file.path()).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"hunter"), "{:?}", file.path());
            }
        }
    }
}

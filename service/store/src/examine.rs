//! Is everything there? What `doctor` asks the store. Nothing here changes anything.

use crate::{Store, StoreError, database, schema};

/// What a sealed value is bound to.
enum Purpose {
    /// All of the column.
    Column(&'static str),
    /// The row, by its ARN.
    Arn(fn(&str) -> String),
}
use Purpose::{Arn, Column};

/// Columns that hold sealed values: table, column, purpose.
const SEALED: &[(&str, &str, Purpose)] = &[
    ("access_key", "secret", Column(crate::access_keys::PURPOSE)),
    ("package_version", "camera", Column(crate::packages::CAMERA)),
    ("application_instance", "document", Column(crate::application_instances::DOCUMENT)),
    ("service_owner", "sealed", Column(crate::owner::PURPOSE)),
    ("subscription", "endpoint", Column(crate::notifications::PURPOSE)),
    ("secret_version", "value", Arn(crate::managed_secrets::purpose)),
];

/// Columns of bytes that hold what was sent, as it was sent.
#[cfg(test)]
const PLAIN: &[(&str, &str)] = &[
    ("broker_message", "payload"),
    ("mqtt_message", "payload"),
    ("mqtt_message", "properties"),
    ("mqtt_retained", "payload"),
    ("mqtt_retained", "properties"),
];

/// Sealed values of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `access_key.secret`.
    pub what: String,
    /// How many there are.
    pub values: u64,
    /// How many of them do not open with this key file.
    pub closed: u64,
}

impl Store {
    /// The schema's version, and the one that this program works with.
    pub async fn schema_version(&self) -> Result<(usize, usize), StoreError> {
        Ok((schema::version(&self.pool, self.kind).await?, schema::NEWEST))
    }

    /// What the database itself finds wrong with its pages and references; empty: nothing.
    pub async fn database_faults(&self) -> Result<Vec<String>, StoreError> {
        database::faults(&self.pool, self.kind).await.map_err(|e| StoreError::database("check the database", e))
    }

    /// Whether the sealed values open with this store's key.
    pub async fn sealed_values(&self) -> Result<Vec<Sealed>, StoreError> {
        let known = schema::tables(schema::version(&self.pool, self.kind).await?);
        let mut found = Vec::new();
        for (table, column, purpose) in SEALED.iter().filter(|(t, ..)| known.iter().any(|k| k == t)) {
            let arn = if matches!(purpose, Arn(_)) { "arn" } else { "''" };
            let sql = format!("SELECT {column}, {arn} FROM {table} WHERE {column} IS NOT NULL");
            let values: Vec<(Vec<u8>, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("read sealed values", e))?;
            let opens = |(value, arn): &&(Vec<u8>, String)| match purpose {
                Column(purpose) => self.secrets.unseal(purpose, value).is_ok(),
                Arn(purpose) => self.secrets.unseal(&purpose(arn), value).is_ok(),
            };
            let closed = (values.len() - values.iter().filter(opens).count()) as u64;
            found.push(Sealed { what: format!("{table}.{column}"), values: values.len() as u64, closed });
        }
        Ok(found)
    }

    /// When the newest row was written, as far as rows say.
    pub async fn newest_ms(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT CAST(coalesce(max(at), 0) AS BIGINT) FROM (SELECT max(updated_ms) AS at FROM device \
             UNION ALL SELECT max(last_ingestion_ms) AS at FROM log_stream UNION ALL SELECT max(modified_ms) AS at FROM object \
             UNION ALL SELECT max(created_ms) AS at FROM access_key) AS times",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|e| StoreError::database("look for the newest row", e))
    }

    /// How many devices' certificates end before a time.
    pub async fn device_certificates_ending_before(&self, ms: i64) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT count(*) FROM certificate WHERE kind = 'device' AND status = 'active' AND expires_ms < $1",
        )
        .bind(ms)
        .fetch_one(&self.pool)
        .await
        .map_err(|e| StoreError::database("count certificates", e))
    }

    /// How many devices are connected to any copy of the service, and how many there are.
    pub async fn device_counts(&self) -> Result<(i64, i64), StoreError> {
        sqlx::query_as("SELECT CAST(coalesce(sum(connected), 0) AS BIGINT), count(*) FROM device")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("count devices", e))
    }

    /// Application instances that are not removed, by their health.
    pub async fn health_counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        sqlx::query_as("SELECT health, count(*) FROM application_instance WHERE removed = 0 GROUP BY health")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("count application instances", e))
    }

    /// Bytes of objects, and of the parts of uploads under way.
    pub async fn object_bytes(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM (SELECT size FROM object UNION ALL SELECT size FROM upload_part) AS sizes",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|e| StoreError::database("count objects", e))
    }

    /// Bytes of the database.
    pub async fn database_bytes(&self) -> Result<i64, StoreError> {
        database::bytes(&self.pool, self.kind).await.map_err(|e| StoreError::database("ask for the database's size", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn sealed_values_of_another_key_are_counted() {
        for place in places().await {
            let store = place.create().await;
            store.create_access_key("x").await.unwrap();
            let tags = Default::default();
            let new =
                crate::managed_secrets::NewSecret { arn: "arn:a", name: "a", description: None, tags: &tags, first: None };
            store.create_managed_secret(new).await.unwrap();
            let value = crate::managed_secrets::SecretValue::Text("hunter2".into());
            assert!(store.put_secret_value("arn:a", "1", &value).await.unwrap());
            let of = |what: &str, sealed: &[Sealed]| {
                let found = sealed.iter().find(|s| s.what == what).unwrap();
                (found.values, found.closed)
            };
            let found = store.sealed_values().await.unwrap();
            assert_eq!((of("access_key.secret", &found), of("secret_version.value", &found)), ((1, 0), (1, 0)));
            store.close().await;
            std::fs::write(place.folder.path().join("secrets.key"), "11".repeat(32)).unwrap();
            let found = Store::attach_in(place.folder.path(), &place.places).await.unwrap().sealed_values().await.unwrap();
            assert_eq!((of("access_key.secret", &found), of("secret_version.value", &found)), ((1, 1), (1, 1)));
        }
    }

    /// A column of bytes is a sealed one: whoever adds one names its purpose here, or says why it is none.
    #[tokio::test]
    async fn every_column_of_bytes_is_known_here() {
        for place in places().await {
            let store = place.create().await;
            let mut text = Vec::new();
            store.snapshot().await.unwrap().dump(&mut text).await.unwrap();
            for line in String::from_utf8(text).unwrap().lines().filter(|l| l.starts_with('{')) {
                let table: crate::dump::Table = serde_json::from_str(line).unwrap();
                for (column, kind) in table.columns {
                    let known = SEALED.iter().map(|(t, c, _)| (t, c)).chain(PLAIN.iter().map(|(t, c)| (t, c)));
                    let known = known.into_iter().any(|(t, c)| *t == table.table && *c == column);
                    assert_eq!(known, kind == crate::dump::Kind::Bytes, "{}.{column}", table.table);
                }
            }
        }
    }

    #[tokio::test]
    async fn the_database_itself_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        assert!(store.database_faults().await.unwrap().is_empty());
        let mut connection = store.pool.acquire().await.unwrap();
        let broken =
            "PRAGMA foreign_keys = OFF; INSERT INTO log_stream (log_group, name, created_ms) VALUES ('none', 's', 0)";
        sqlx::raw_sql(broken).execute(&mut *connection).await.unwrap();
        let faults = store.database_faults().await.unwrap();
        assert_eq!(faults, ["a row of log_stream refers to one that is not there"]);
    }
}

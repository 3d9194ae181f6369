//! What the service remembers: rows in SQLite, objects in a directory, secrets sealed with a key file.
//!
//! One module per kind of thing. Every change that must hold together is one transaction; the bytes of an object are
//! on the disk before its row is, so a crash leaves at worst a file that nobody names ([`objects`] sweeps those).
//! Nothing here knows HTTP, MQTT or who may do what.

pub mod access_keys;
pub mod application_instances;
pub mod certificates;
pub mod device_jobs;
pub mod devices;
mod error;
pub mod identifiers;
pub mod logs;
pub mod multipart;
pub mod objects;
pub mod packages;
mod schema;
pub mod secrets;
pub mod shadows;
pub mod template_jobs;

pub use error::StoreError;

use secrets::SecretBox;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The open store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: sqlx::SqlitePool,
    objects: PathBuf,
    secrets: std::sync::Arc<SecretBox>,
}

impl Store {
    /// Creates the database, the object directory and the key file in `data`, which must exist.
    pub async fn create(data: &Path) -> Result<Store, StoreError> {
        SecretBox::create(&data.join("secrets.key"))?;
        let objects = data.join("objects");
        std::fs::create_dir_all(&objects).map_err(|e| StoreError::io("create", &objects, e))?;
        Store::connect(data, true).await
    }

    /// Opens what [`Store::create`] made, and brings its schema up to date.
    pub async fn open(data: &Path) -> Result<Store, StoreError> {
        Store::connect(data, false).await
    }

    async fn connect(data: &Path, create: bool) -> Result<Store, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(data.join("service.sqlite"))
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await
            .map_err(|e| StoreError::database("open the database", e))?;
        schema::migrate(&pool).await?;
        let secrets = SecretBox::open(&data.join("secrets.key"))?;
        Ok(Store { pool, objects: data.join("objects"), secrets: std::sync::Arc::new(secrets) })
    }

    /// Seals and opens secrets with this store's key.
    pub fn secrets(&self) -> &SecretBox {
        &self.secrets
    }

    /// Waits for what is under way and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

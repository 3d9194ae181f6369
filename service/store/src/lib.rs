//! What the service remembers: rows in SQLite or PostgreSQL, objects in a directory, secrets sealed with a key file.
//!
//! One module per kind of thing. Every change that must hold together is one transaction; the bytes of an object are
//! on the disk before its row is, so a crash leaves at worst a file that nobody names ([`objects`] sweeps those).
//! Nothing here knows HTTP, MQTT or who may do what.

pub mod access_keys;
pub mod application_instances;
pub mod certificates;
pub mod database;
pub mod device_jobs;
pub mod devices;
mod error;
pub mod identifiers;
pub mod logs;
pub mod mqtt_retained;
pub mod mqtt_sessions;
pub mod multipart;
pub mod objects;
pub mod packages;
mod schema;
pub mod secrets;
pub mod shadows;
pub mod template_jobs;
#[cfg(test)]
mod testing;

pub use error::StoreError;

use database::Kind;
use secrets::SecretBox;
use sqlx::AnyPool;
use std::path::{Path, PathBuf};

/// The open store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    kind: Kind,
    objects: PathBuf,
    secrets: std::sync::Arc<SecretBox>,
}

impl Store {
    /// Creates the database, the object directory and the key file in `data`, which must exist.
    pub async fn create(data: &Path) -> Result<Store, StoreError> {
        Store::prepare(data)?;
        Store::connect(data, true).await
    }

    fn prepare(data: &Path) -> Result<(), StoreError> {
        SecretBox::create(&data.join("secrets.key"))?;
        let objects = data.join("objects");
        std::fs::create_dir_all(&objects).map_err(|e| StoreError::io("create", &objects, e))
    }

    /// Opens what [`Store::create`] made, and brings its schema up to date.
    pub async fn open(data: &Path) -> Result<Store, StoreError> {
        Store::connect(data, false).await
    }

    async fn connect(data: &Path, create: bool) -> Result<Store, StoreError> {
        let pool = database::open_file(data, create).await?;
        Store::over(data, pool, Kind::Sqlite).await
    }

    async fn over(data: &Path, pool: AnyPool, kind: Kind) -> Result<Store, StoreError> {
        schema::migrate(&pool, kind).await?;
        let secrets = SecretBox::open(&data.join("secrets.key"))?;
        Ok(Store { pool, kind, objects: data.join("objects"), secrets: std::sync::Arc::new(secrets) })
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

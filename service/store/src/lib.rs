//! What the service remembers: rows in SQLite or PostgreSQL, objects in a directory or a bucket, secrets sealed with a key file.
//!
//! One module per kind of thing. Every change that must hold together is one transaction; the bytes of an object are
//! on the disk before its row is, so a crash leaves at worst a file that nobody names ([`objects`] sweeps those).
//! Nothing here knows HTTP, MQTT or who may do what.

pub mod access_keys;
pub mod ageing;
pub mod alarms;
pub mod application_instances;
pub mod audit;
mod blobs;
pub mod broker_messages;
pub mod certificates;
pub mod connections;
pub mod copies;
mod counts;
pub mod database;
pub mod device_jobs;
pub mod devices;
pub mod dump;
mod error;
pub mod examine;
pub mod files;
pub mod identifiers;
pub mod import_jobs;
pub mod log_exports;
pub mod log_groups;
pub mod logs;
pub mod managed_secrets;
pub mod metadata;
pub mod metrics;
pub mod mqtt_retained;
pub mod mqtt_sessions;
pub mod multipart;
mod node_signals;
mod nodes;
pub mod notifications;
pub mod objects;
mod owner;
pub mod packages;
pub mod place;
pub mod places;
pub mod releases;
pub mod roles;
mod schema;
pub mod secrets;
pub mod shadows;
pub mod stacks;
pub mod sweep;
pub mod tags;
pub mod template_jobs;
#[cfg(test)]
mod testing;
mod together;
pub mod uploads;

pub use blobs::ObjectReader;
pub use error::StoreError;

use blobs::Blobs;
use blobs::bucket::Bucket;
use blobs::directory::Directory;
use database::Kind;
use places::{DatabaseUrl, Places};
use secrets::SecretBox;
use sqlx::AnyPool;
use std::path::Path;
use std::sync::Arc;
use together::Together;

/// The open store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    /// For what is written often, or reads before it writes. With PostgreSQL the same pool.
    writer: AnyPool,
    together: Arc<Together>,
    kind: Kind,
    blobs: Blobs,
    secrets: Arc<SecretBox>,
    /// This copy's name among all that run.
    copy: Arc<str>,
    database: Option<DatabaseUrl>,
}

impl Store {
    /// Creates the database, the object directory and the key file in `data`, which must exist.
    pub async fn create(data: &Path) -> Result<Store, StoreError> {
        Store::create_in(data, &Places::default()).await
    }

    /// Creates the key file in `data`, which must exist, and the store in its places.
    pub async fn create_in(data: &Path, places: &Places) -> Result<Store, StoreError> {
        let key = data.join(secrets::FILE);
        SecretBox::create(&key)?;
        let created = Store::connect(data, places, true).await;
        if created.is_err() {
            // Nothing was sealed with it; the next attempt makes its own.
            let _ = std::fs::remove_file(&key);
        }
        created
    }

    /// Opens what [`Store::create`] made, and brings its schema up to date.
    pub async fn open(data: &Path) -> Result<Store, StoreError> {
        Store::open_in(data, &Places::default()).await
    }

    /// Opens what [`Store::create_in`] made, and brings its schema up to date.
    pub async fn open_in(data: &Path, places: &Places) -> Result<Store, StoreError> {
        Store::connect(data, places, false).await
    }

    /// Opens it beside a service that may be running, maybe one of an earlier version: the schema is left as it is.
    pub async fn attach(data: &Path) -> Result<Store, StoreError> {
        Store::attach_in(data, &Places::default()).await
    }

    /// The same, in its places.
    pub async fn attach_in(data: &Path, places: &Places) -> Result<Store, StoreError> {
        let store = Store::unprepared(data, places, false).await?;
        store.holds_a_service(false).await?;
        schema::version(&store.pool, store.kind).await?;
        Ok(store)
    }

    /// An empty database is nobody's: only who makes a new service makes its tables.
    async fn holds_a_service(&self, create: bool) -> Result<(), StoreError> {
        if create || !schema::is_empty(&self.pool, self.kind).await? {
            return Ok(());
        }
        let database = self.database.as_ref().map_or_else(|| database::FILE.to_owned(), ToString::to_string);
        Err(StoreError::NoService { database })
    }

    /// An empty store with the schema of an earlier version, around a key file that is there already. Once a dump is
    /// taken in, [`Store::upgrade`] brings it up to date. Refused where a service is already.
    pub async fn create_at(data: &Path, places: &Places, version: usize) -> Result<Store, StoreError> {
        let store = Store::unprepared(data, places, true).await?;
        schema::clear(&store.pool, store.kind).await?;
        schema::migrate_to(&store.pool, store.kind, version).await?;
        Ok(store)
    }

    /// Takes back [`Store::create_at`]: its tables go, with all rows.
    pub async fn discard(&self) -> Result<(), StoreError> {
        self.blobs.remove_note().await?;
        schema::drop_all(&self.pool, self.kind).await
    }

    /// Brings the schema up to date.
    pub async fn upgrade(&self) -> Result<(), StoreError> {
        schema::migrate(&self.pool, self.kind).await?;
        self.belongs_to_this_key(false).await
    }

    async fn connect(data: &Path, places: &Places, create: bool) -> Result<Store, StoreError> {
        let store = Store::unprepared(data, places, create).await?;
        store.holds_a_service(create).await?;
        schema::migrate(&store.pool, store.kind).await?;
        store.belongs_to_this_key(create).await?;
        if create {
            store.take_objects_place().await?;
        }
        Ok(store)
    }

    async fn unprepared(data: &Path, places: &Places, create: bool) -> Result<Store, StoreError> {
        let secrets = SecretBox::open(&data.join(secrets::FILE))?;
        let blobs = match &places.objects {
            Some(place) => {
                let bucket = Bucket::open(place).await?;
                if create && !bucket.is_empty().await? {
                    return Err(StoreError::Exists { what: format!("something in {}", bucket.place()) });
                }
                Blobs::Bucket(Arc::new(bucket))
            }
            None => {
                let directory = Directory::at(&data.join("objects"), create)?;
                if create && !directory.is_empty()? {
                    return Err(StoreError::Exists { what: format!("something in {}", directory.0.display()) });
                }
                Blobs::Directory(directory)
            }
        };
        let (pool, kind) = match &places.database {
            Some(url) => (database::open_server(url).await?, Kind::Postgres),
            None => (database::open_file(data, create).await?, Kind::Sqlite),
        };
        let writer = match kind {
            Kind::Postgres => pool.clone(),
            Kind::Sqlite => database::open_writer(data).await?,
        };
        let copy = identifiers::token::<16>().into();
        let (together, secrets) = (Arc::default(), Arc::new(secrets));
        Ok(Store { pool, writer, together, kind, blobs, secrets, copy, database: places.database.clone() })
    }

    /// Whether other copies of the service may write objects, too.
    pub fn objects_are_shared(&self) -> bool {
        matches!(self.blobs, Blobs::Bucket(_))
    }

    /// Seals and opens secrets with this store's key.
    pub fn secrets(&self) -> &SecretBox {
        &self.secrets
    }

    /// Waits for what is under way and closes the database.
    pub async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

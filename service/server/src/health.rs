//! `/healthz`: can this copy of the service do its work? It reads a row of the database and asks whether objects can be
//! written. Anybody may ask, so the answer says no more than one word, and is kept for a second: asking costs nothing.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

const KEPT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// Less room than this, bytes, and writes will fail soon.
const LEAST_SPACE: u64 = 16 * 1024 * 1024;

/// Cheap to clone.
#[derive(Clone)]
pub struct Health {
    store: Store,
    data: Arc<Path>,
    last: Arc<Mutex<Option<(Instant, Result<(), &'static str>)>>>,
}

impl Health {
    /// Of a store in a data directory.
    pub fn new(store: Store, data: &Path) -> Health {
        Health { store, data: data.into(), last: Arc::default() }
    }

    /// What is wrong, if anything is.
    pub async fn check(&self) -> Result<(), &'static str> {
        // Who comes while somebody looks waits for what he sees.
        let mut last = self.last.lock().await;
        if let Some((at, known)) = *last
            && at.elapsed() < KEPT
        {
            return known;
        }
        let found = self.look().await;
        if let Err(what) = found {
            tracing::error!(what, "not healthy");
        }
        *last = Some((Instant::now(), found));
        found
    }

    async fn look(&self) -> Result<(), &'static str> {
        match timeout(PATIENCE, self.store.schema_version()).await {
            Ok(Ok((found, newest))) if found == newest => {}
            Ok(Ok(_)) => return Err("schema"),
            Ok(Err(e)) => {
                tracing::error!("the database does not answer: {e}");
                return Err("database");
            }
            Err(_) => return Err("database"),
        }
        match rustix::fs::statvfs(&*self.data) {
            Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_SPACE => Err("disk space"),
            Ok(_) => Ok(()),
            Err(_) => Err("data directory"),
        }
    }

    /// The answer.
    pub async fn answer(&self) -> Response {
        let plain = [(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")];
        match self.check().await {
            Ok(()) => (StatusCode::OK, plain, "ok\n".to_owned()).into_response(),
            Err(what) => (StatusCode::SERVICE_UNAVAILABLE, plain, format!("{what}\n")).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_is_gone_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        let health = Health::new(store.clone(), folder.path());
        assert_eq!(health.check().await, Ok(()));
        store.close().await;
        assert_eq!(health.check().await, Ok(()), "kept for a second");
        assert_eq!(Health::new(store, folder.path()).check().await, Err("database"));
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        assert_eq!(Health::new(store, &folder.path().join("none")).check().await, Err("data directory"));
    }
}

//! How much there is of what is counted against a quota.

use crate::{Store, StoreError};

impl Store {
    async fn count(&self, statement: &'static str, of: &[&str], since_ms: Option<i64>) -> Result<u64, StoreError> {
        let mut query = sqlx::query_scalar::<_, i64>(statement);
        for value in of {
            query = query.bind((*value).to_owned());
        }
        if let Some(since_ms) = since_ms {
            query = query.bind(since_ms);
        }
        let count = query.fetch_one(&self.pool).await.map_err(|e| StoreError::database("count against a quota", e))?;
        Ok(count.unsigned_abs())
    }

    /// Devices.
    pub async fn count_devices(&self) -> Result<u64, StoreError> {
        self.count("SELECT count(*) FROM device", &[], None).await
    }

    /// Packages, cameras among them.
    pub async fn count_packages(&self) -> Result<u64, StoreError> {
        self.count("SELECT count(*) FROM package", &[], None).await
    }

    /// Registered patches of a package, one apart: that is the one which is registered again.
    pub async fn count_package_versions(&self, package_id: &str, version: &str, patch: &str) -> Result<u64, StoreError> {
        let statement = "SELECT count(*) FROM package_version WHERE package_id = $1 AND NOT (version = $2 AND patch = $3)";
        self.count(statement, &[package_id, version, patch], None).await
    }

    /// Application instances of a device whose removal nobody asked for.
    pub async fn count_application_instances(&self, device_id: &str) -> Result<u64, StoreError> {
        let statement = "SELECT count(*) FROM application_instance WHERE device_id = $1 AND removed = 0";
        self.count(statement, &[device_id], None).await
    }

    /// Deployments to a device since a time.
    pub async fn count_deployments(&self, device_id: &str, since_ms: i64) -> Result<u64, StoreError> {
        let statement = "SELECT count(*) FROM application_instance WHERE device_id = $1 AND created_ms >= $2";
        self.count(statement, &[device_id], Some(since_ms)).await
    }
}

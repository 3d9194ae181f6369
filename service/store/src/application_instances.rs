//! Application instances: what was asked, and what their device says about them.

use crate::database::{DatabaseRow, flag};
use crate::devices::Tags;
use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};
use belvedere_device_protocol::ApplicationReport;
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// A node of an instance's overridden graph that comes from a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name in the graph: the API's `NodeInstanceId`.
    pub instance: String,
    /// `<package>-<version>-<8 of the patch>-<interface>`.
    pub node_id: String,
    /// Interface.
    pub node_name: String,
    /// Package, without its owner.
    pub package_name: String,
    /// Package version.
    pub package_version: String,
    /// Patch version.
    pub patch: String,
    /// `RUNNING`, `ERROR`, `NOT_AVAILABLE`, `PAUSED`.
    pub status: String,
    /// What a camera does when its application starts; `None` for other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<CameraStart>,
}

/// What a camera does when its application starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CameraStart {
    /// Is watched (`onAppStart`).
    Watched,
    /// Waits for a signal (`onSignal`).
    Paused,
}

/// An application instance.
#[derive(Debug, Clone)]
pub struct ApplicationInstance {
    /// `applicationInstance-…`.
    pub id: String,
    /// Where it runs.
    pub device_id: String,
    /// That device's name.
    pub device_name: String,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// The graph as given.
    pub manifest: String,
    /// The overrides as given.
    pub overrides: Option<String>,
    /// As given.
    pub role_arn: Option<String>,
    /// Tags.
    pub tags: Tags,
    /// The instance whose place this one takes.
    pub replaces: Option<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When anything about it changed.
    pub updated_ms: i64,
    /// Whether its removal was asked for.
    pub removed: bool,
    /// `ApplicationInstanceStatus`.
    pub status: String,
    /// For people.
    pub status_description: String,
    /// `ApplicationInstanceHealthStatus`.
    pub health: String,
    /// `DeviceReportedStatus`.
    pub device_reported_status: Option<String>,
    /// When it was reported.
    pub device_reported_ms: Option<i64>,
    /// SHA-256 of the deployment document.
    pub document_sha256: String,
    /// Its nodes.
    pub nodes: Vec<NodeRecord>,
}

fn instance(row: &DatabaseRow) -> Result<ApplicationInstance, StoreError> {
    let error = |e| StoreError::database("read an application instance", e);
    Ok(ApplicationInstance {
        id: row.try_get("application_instance_id").map_err(error)?,
        device_id: row.try_get("device_id").map_err(error)?,
        device_name: row.try_get("device_name").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        manifest: row.try_get("manifest").map_err(error)?,
        overrides: row.try_get("overrides").map_err(error)?,
        role_arn: row.try_get("role_arn").map_err(error)?,
        tags: stored("an instance's tags", row.try_get("tags").map_err(error)?)?,
        replaces: row.try_get("replaces").map_err(error)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
        removed: flag(row, "removed").map_err(error)?,
        status: row.try_get("status").map_err(error)?,
        status_description: row.try_get("status_description").map_err(error)?,
        health: row.try_get("health").map_err(error)?,
        device_reported_status: row.try_get("device_reported_status").map_err(error)?,
        device_reported_ms: row.try_get("device_reported_ms").map_err(error)?,
        document_sha256: row.try_get("document_sha256").map_err(error)?,
        nodes: stored("an instance's nodes", row.try_get("nodes").map_err(error)?)?,
    })
}

pub(crate) const DOCUMENT: &str = "deployment document";

/// Whether a status belongs to the removal of an instance.
fn of_removal(status: &str) -> bool {
    status.starts_with("REMOVAL_")
}

impl Store {
    /// Adds an instance with its deployment document (sealed here) and the objects that its device may read for it.
    pub async fn add_application_instance(
        &self,
        new: &ApplicationInstance,
        document: &[u8],
        objects: &[(String, String)],
    ) -> Result<(), StoreError> {
        let error = |e| StoreError::insert("store an application instance", "the application instance", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        sqlx::query(
            "INSERT INTO application_instance (application_instance_id, device_id, device_name, name, description, \
             manifest, overrides, role_arn, tags, replaces, created_ms, updated_ms, status, status_description, health, \
             document, document_sha256, nodes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        )
        .bind(&new.id)
        .bind(&new.device_id)
        .bind(&new.device_name)
        .bind(&new.name)
        .bind(&new.description)
        .bind(&new.manifest)
        .bind(&new.overrides)
        .bind(&new.role_arn)
        .bind(text(&new.tags))
        .bind(&new.replaces)
        .bind(new.created_ms)
        .bind(new.updated_ms)
        .bind(&new.status)
        .bind(&new.status_description)
        .bind(&new.health)
        .bind(self.secrets.seal(DOCUMENT, document))
        .bind(&new.document_sha256)
        .bind(text(&new.nodes))
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        for (bucket, key) in objects {
            sqlx::query(
                "INSERT INTO deployment_object (application_instance_id, device_id, bucket, key) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(&new.id)
            .bind(&new.device_id)
            .bind(bucket)
            .bind(key)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// By identifier.
    pub async fn application_instance(&self, id: &str) -> Result<Option<ApplicationInstance>, StoreError> {
        sqlx::query("SELECT * FROM application_instance WHERE application_instance_id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up an application instance", e))?
            .as_ref()
            .map(instance)
            .transpose()
    }

    /// The deployment document of a device's instance, unless its removal was asked for.
    pub async fn deployment_document(&self, device_id: &str, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "SELECT document FROM application_instance WHERE application_instance_id = $1 AND device_id = $2",
        )
        .bind(id)
        .bind(device_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| StoreError::database("look up a deployment document", e))?;
        sealed.flatten().map(|s| self.secrets.unseal(DOCUMENT, &s)).transpose()
    }

    /// All that are, or should be, on a device: those whose removal has not ended.
    pub async fn living_application_instances(&self) -> Result<Vec<ApplicationInstance>, StoreError> {
        let rows = sqlx::query("SELECT * FROM application_instance WHERE status <> 'REMOVAL_SUCCEEDED' ORDER BY sequence")
            .fetch_all(&self.pool)
            .await;
        rows.map_err(|e| StoreError::database("list living application instances", e))?.iter().map(instance).collect()
    }

    /// Newest first; of one device, or of all.
    pub async fn list_application_instances(&self, device_id: Option<&str>) -> Result<Vec<ApplicationInstance>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM application_instance WHERE $1 IS NULL OR device_id = $1 ORDER BY sequence DESC LIMIT 1000",
        )
        .bind(device_id)
        .fetch_all(&self.pool)
        .await;
        rows.map_err(|e| StoreError::database("list application instances", e))?.iter().map(instance).collect()
    }

    /// Notes that an instance is to go, and how far that is.
    pub async fn remove_application_instance(&self, id: &str, status: &str, description: &str) -> Result<(), StoreError> {
        let error = |e| StoreError::database("remove an application instance", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        sqlx::query(
            "UPDATE application_instance SET removed = 1, document = NULL, status = $1, status_description = $2, health = 'NOT_AVAILABLE', \
             updated_ms = $3 WHERE application_instance_id = $4",
        )
        .bind(status)
        .bind(description)
        .bind(now_ms())
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        sqlx::query("DELETE FROM deployment_object WHERE application_instance_id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        transaction.commit().await.map_err(error)
    }

    /// What a device says about one of its instances. Ignored: instances of other devices, reports about an earlier
    /// document, and news of a deployment whose removal was asked for.
    pub async fn apply_report(&self, device_id: &str, report: &ApplicationReport) -> Result<(), StoreError> {
        let Some(mut known) = self.application_instance(&report.application_instance_id).await? else { return Ok(()) };
        let removal = of_removal(&report.status);
        if known.device_id != device_id || known.removed != removal {
            return Ok(());
        }
        if !removal && known.document_sha256 != report.sha256 {
            return Ok(());
        }
        for node in &mut known.nodes {
            let status = report.nodes.iter().find(|n| n.node == node.instance).map(|n| n.status.as_str());
            node.status = if removal { "NOT_AVAILABLE" } else { status.unwrap_or("NOT_AVAILABLE") }.to_owned();
        }
        let description: String = report.status_description.chars().take(255).collect();
        let now = now_ms();
        sqlx::query(
            "UPDATE application_instance SET status = $1, status_description = $2, health = $3, device_reported_status = $4, \
             device_reported_ms = $5, nodes = $6, updated_ms = $7 WHERE application_instance_id = $8",
        )
        .bind(&report.status)
        .bind(description)
        .bind(&report.health)
        .bind(&report.device_reported_status)
        .bind(now)
        .bind(text(&known.nodes))
        .bind(now)
        .bind(&report.application_instance_id)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| StoreError::database("store a report", e))
    }

    /// Whether one of a device's deployments names an object.
    pub async fn deployment_names(&self, device_id: &str, bucket: &str, key: &str) -> Result<bool, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM deployment_object WHERE device_id = $1 AND bucket = $2 AND key = $3")
                .bind(device_id)
                .bind(bucket)
                .bind(key)
                .fetch_one(&self.pool)
                .await
                .map_err(|e| StoreError::database("look up a deployment's objects", e))?;
        Ok(count > 0)
    }
}

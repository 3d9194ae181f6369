//! One node, and the end of a package with all its nodes.

use crate::error::stored;
use crate::packages::{ListedNode, Node};
use crate::{Store, StoreError};

type Columns = (String, String, String, String, Option<String>, String, i64, String, String, String, String);

impl Store {
    /// A node of a good version.
    pub async fn node(&self, node_id: &str) -> Result<Option<ListedNode>, StoreError> {
        let row: Option<Columns> = sqlx::query_as(
            "SELECT n.node_id, n.name, n.category, n.description, n.asset, n.interface, n.created_ms, \
             v.package_id, p.name, v.version, v.patch FROM node n \
             JOIN package_version v ON v.sequence = n.version_sequence JOIN package p USING (package_id) \
             WHERE n.node_id = $1 AND v.status = 'REGISTER_COMPLETED'",
        )
        .bind(node_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| StoreError::database("look up a node", e))?;
        let Some((
            node_id,
            name,
            category,
            description,
            asset,
            interface,
            created_ms,
            package_id,
            package_name,
            version,
            patch,
        )) = row
        else {
            return Ok(None);
        };
        let latest: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM package_version WHERE package_id = $1 AND version = $2 AND patch = $3 AND latest = 1",
        )
        .bind(&package_id)
        .bind(&version)
        .bind(&patch)
        .fetch_one(&self.pool)
        .await
        .map_err(|e| StoreError::database("look up a node's version", e))?;
        let interface = stored("a node's interface", &interface)?;
        let node = Node { node_id, name, category, description, asset, interface };
        Ok(Some(ListedNode { node, package_id, package_name, version, patch, latest: latest > 0, created_ms }))
    }

    /// Removes a package with its versions and nodes, unless an application instance that runs names one of its objects
    /// (those whose keys begin with `prefix`). False: it is used, or has gone.
    pub async fn delete_package(&self, package_id: &str, bucket: &str, prefix: &str) -> Result<bool, StoreError> {
        sqlx::query(
            "DELETE FROM package WHERE package_id = $1 AND NOT EXISTS (SELECT 1 FROM deployment_object \
             WHERE bucket = $2 AND substr(key, 1, length($3)) = $3)",
        )
        .bind(package_id)
        .bind(bucket)
        .bind(prefix)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(|e| StoreError::database("delete a package", e))
    }
}

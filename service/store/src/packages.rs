//! Packages, their versions (patches), and the nodes that their interfaces make possible.

use crate::database::{DatabaseRow, flag};
use crate::devices::Tags;
use crate::error::{stored, text};
use crate::{Store, StoreError, identifiers, now_ms};
use serde_json::Value;
use sqlx::Row;

pub(crate) const CAMERA: &str = "camera";

/// A package.
#[derive(Debug, Clone)]
pub struct Package {
    /// `package-…`.
    pub package_id: String,
    /// Unique.
    pub name: String,
    /// Tags.
    pub tags: Tags,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A registered patch of a version.
#[derive(Debug, Clone)]
pub struct PackageVersion {
    /// Its package.
    pub package_id: String,
    /// That package's name.
    pub package_name: String,
    /// `1.0`.
    pub version: String,
    /// Hexadecimal digits.
    pub patch: String,
    /// `REGISTER_COMPLETED`, `FAILED`.
    pub status: String,
    /// Why it failed.
    pub status_description: Option<String>,
    /// Whether it is what its version means.
    pub latest: bool,
    /// Milliseconds since 1970.
    pub registered_ms: i64,
    /// `package.json`.
    pub manifest: String,
}

/// A node that can be made of a package's interface.
#[derive(Debug, Clone)]
pub struct Node {
    /// `<package>-<version>-<8 of the patch>-<interface>`.
    pub node_id: String,
    /// Interface.
    pub name: String,
    /// `NodeCategory`.
    pub category: String,
    /// For people.
    pub description: String,
    /// Asset behind it.
    pub asset: Option<String>,
    /// `NodeInterface`.
    pub interface: Value,
}

/// A node and the version that has it.
#[derive(Debug, Clone)]
pub struct ListedNode {
    /// The node.
    pub node: Node,
    /// Package.
    pub package_id: String,
    /// Package.
    pub package_name: String,
    /// Version.
    pub version: String,
    /// Patch.
    pub patch: String,
    /// Whether it is what its version means.
    pub latest: bool,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// What is registered.
pub struct NewVersion<'a> {
    /// Its package.
    pub package_id: &'a str,
    /// `1.0`.
    pub version: &'a str,
    /// Hexadecimal digits.
    pub patch: &'a str,
    /// `REGISTER_COMPLETED`, `FAILED`.
    pub status: &'a str,
    /// Why it failed.
    pub status_description: Option<&'a str>,
    /// Whether it becomes what its version means.
    pub mark_latest: bool,
    /// `package.json`.
    pub manifest: &'a str,
    /// Parameters of a camera; sealed here.
    pub camera: Option<&'a Tags>,
    /// What its interfaces make possible.
    pub nodes: &'a [Node],
}

fn package(row: &DatabaseRow) -> Result<Package, StoreError> {
    let error = |e| StoreError::database("read a package", e);
    Ok(Package {
        package_id: row.try_get("package_id").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        tags: stored("a package's tags", row.try_get("tags").map_err(error)?)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
    })
}

fn version(row: &DatabaseRow) -> Result<PackageVersion, StoreError> {
    let error = |e| StoreError::database("read a package version", e);
    Ok(PackageVersion {
        package_id: row.try_get("package_id").map_err(error)?,
        package_name: row.try_get("package_name").map_err(error)?,
        version: row.try_get("version").map_err(error)?,
        patch: row.try_get("patch").map_err(error)?,
        status: row.try_get("status").map_err(error)?,
        status_description: row.try_get("status_description").map_err(error)?,
        latest: flag(row, "latest").map_err(error)?,
        registered_ms: row.try_get("registered_ms").map_err(error)?,
        manifest: row.try_get("manifest").map_err(error)?,
    })
}

impl Store {
    /// Makes a package; [`StoreError::Exists`] if the name is taken.
    pub async fn create_package(&self, name: &str, tags: &Tags) -> Result<Package, StoreError> {
        let made = Package {
            package_id: identifiers::resource("package"),
            name: name.to_owned(),
            tags: tags.clone(),
            created_ms: now_ms(),
        };
        sqlx::query("INSERT INTO package (package_id, name, tags, created_ms) VALUES ($1, $2, $3, $4)")
            .bind(&made.package_id)
            .bind(name)
            .bind(text(tags))
            .bind(made.created_ms)
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::insert("store a package", name, e))?;
        Ok(made)
    }

    /// By identifier.
    pub async fn package(&self, package_id: &str) -> Result<Option<Package>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM package WHERE package_id = $1").bind(package_id).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a package", e))?.as_ref().map(package).transpose()
    }

    /// By name.
    pub async fn package_of_name(&self, name: &str) -> Result<Option<Package>, StoreError> {
        let row = sqlx::query("SELECT * FROM package WHERE name = $1").bind(name).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a package", e))?.as_ref().map(package).transpose()
    }

    /// Newest first.
    pub async fn list_packages(&self) -> Result<Vec<Package>, StoreError> {
        let rows = sqlx::query("SELECT * FROM package ORDER BY sequence DESC LIMIT 5000").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list packages", e))?.iter().map(package).collect()
    }

    /// Registers a patch, again if need be. The first good patch of a version is its latest whatever was asked.
    pub async fn register_package_version(&self, new: NewVersion<'_>) -> Result<(), StoreError> {
        let error = |e| StoreError::database("register a package version", e);
        let good = new.status == "REGISTER_COMPLETED";
        let now = now_ms();
        let mut transaction = self.begin_exclusive("package_version").await.map_err(error)?;
        let was_latest: Option<i64> = sqlx::query_scalar(
            "DELETE FROM package_version WHERE package_id = $1 AND version = $2 AND patch = $3 RETURNING latest",
        )
        .bind(new.package_id)
        .bind(new.version)
        .bind(new.patch)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        let others_latest: i64 =
            sqlx::query_scalar("SELECT count(*) FROM package_version WHERE package_id = $1 AND version = $2 AND latest = 1")
                .bind(new.package_id)
                .bind(new.version)
                .fetch_one(&mut *transaction)
                .await
                .map_err(error)?;
        let latest = (good && new.mark_latest) || others_latest == 0 || was_latest == Some(1);
        if latest {
            sqlx::query("UPDATE package_version SET latest = 0 WHERE package_id = $1 AND version = $2")
                .bind(new.package_id)
                .bind(new.version)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        let sealed = new.camera.map(|c| self.secrets.seal(CAMERA, text(c).as_bytes()));
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO package_version (package_id, version, patch, status, status_description, latest, registered_ms, \
             manifest, camera) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING sequence",
        )
        .bind(new.package_id)
        .bind(new.version)
        .bind(new.patch)
        .bind(new.status)
        .bind(new.status_description)
        .bind(i64::from(latest))
        .bind(now)
        .bind(new.manifest)
        .bind(sealed)
        .fetch_one(&mut *transaction)
        .await
        .map_err(error)?;
        for node in new.nodes {
            sqlx::query(
                "INSERT INTO node (node_id, version_sequence, name, category, description, asset, interface, \
                 created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node_id) DO UPDATE SET version_sequence = $2, \
                 name = $3, category = $4, description = $5, asset = $6, interface = $7, created_ms = $8",
            )
            .bind(&node.node_id)
            .bind(sequence)
            .bind(&node.name)
            .bind(&node.category)
            .bind(&node.description)
            .bind(&node.asset)
            .bind(text(&node.interface))
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// All patches of all versions, newest first.
    pub async fn list_package_versions(&self) -> Result<Vec<PackageVersion>, StoreError> {
        sqlx::query(
            "SELECT v.*, p.name AS package_name FROM package_version v JOIN package p USING (package_id) \
             ORDER BY v.sequence DESC LIMIT 5000",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list package versions", e))?
        .iter()
        .map(version)
        .collect()
    }

    /// A certain patch, or the latest of a version.
    pub async fn package_version(
        &self,
        package_id: &str,
        wanted: &str,
        patch: Option<&str>,
    ) -> Result<Option<PackageVersion>, StoreError> {
        sqlx::query(
            "SELECT v.*, p.name AS package_name FROM package_version v JOIN package p USING (package_id) \
             WHERE package_id = $1 AND version = $2 AND (patch = $3 OR ($3 IS NULL AND latest = 1))",
        )
        .bind(package_id)
        .bind(wanted)
        .bind(patch)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| StoreError::database("look up a package version", e))?
        .as_ref()
        .map(version)
        .transpose()
    }

    /// The parameters of a camera's package version, with their secrets.
    pub async fn camera_parameters(&self, package_id: &str, wanted: &str, patch: &str) -> Result<Option<Tags>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT camera FROM package_version WHERE package_id = $1 AND version = $2 AND patch = $3")
                .bind(package_id)
                .bind(wanted)
                .bind(patch)
                .fetch_optional(&self.pool)
                .await
                .map_err(|e| StoreError::database("look up a camera", e))?;
        let Some(sealed) = sealed.flatten() else { return Ok(None) };
        let plain = String::from_utf8(self.secrets.unseal(CAMERA, &sealed)?).map_err(|_| StoreError::Sealed)?;
        stored("a camera's parameters", &plain).map(Some)
    }

    /// Removes a patch. If it was its version's latest, `successor` is now, or else the one registered last. False if
    /// there was none.
    pub async fn deregister_package_version(
        &self,
        package_id: &str,
        wanted: &str,
        patch: &str,
        successor: Option<&str>,
    ) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("deregister a package version", e);
        let mut transaction = self.begin_exclusive("package_version").await.map_err(error)?;
        let latest: Option<i64> = sqlx::query_scalar(
            "DELETE FROM package_version WHERE package_id = $1 AND version = $2 AND patch = $3 RETURNING latest",
        )
        .bind(package_id)
        .bind(wanted)
        .bind(patch)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        if latest == Some(1) {
            sqlx::query(
                "UPDATE package_version SET latest = 1 WHERE sequence = (SELECT sequence FROM package_version \
                 WHERE package_id = $1 AND version = $2 AND ($3 IS NULL OR patch = $3) ORDER BY sequence DESC LIMIT 1)",
            )
            .bind(package_id)
            .bind(wanted)
            .bind(successor)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(latest.is_some())
    }

    /// All nodes of good versions, newest first.
    pub async fn list_nodes(&self) -> Result<Vec<ListedNode>, StoreError> {
        let error = |e| StoreError::database("list nodes", e);
        let rows = sqlx::query(
            "SELECT n.*, v.package_id, v.version, v.patch, v.latest, p.name AS package_name FROM node n \
             JOIN package_version v ON v.sequence = n.version_sequence JOIN package p USING (package_id) \
             WHERE v.status = 'REGISTER_COMPLETED' ORDER BY v.sequence DESC, n.node_id LIMIT 5000",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(ListedNode {
                    node: Node {
                        node_id: row.try_get("node_id").map_err(error)?,
                        name: row.try_get("name").map_err(error)?,
                        category: row.try_get("category").map_err(error)?,
                        description: row.try_get("description").map_err(error)?,
                        asset: row.try_get("asset").map_err(error)?,
                        interface: stored("a node's interface", row.try_get("interface").map_err(error)?)?,
                    },
                    package_id: row.try_get("package_id").map_err(error)?,
                    package_name: row.try_get("package_name").map_err(error)?,
                    version: row.try_get("version").map_err(error)?,
                    patch: row.try_get("patch").map_err(error)?,
                    latest: flag(row, "latest").map_err(error)?,
                    created_ms: row.try_get("created_ms").map_err(error)?,
                })
            })
            .collect()
    }
}

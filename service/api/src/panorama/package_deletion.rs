//! Deleting a package: not while an appliance may still need its files, and not with its files unless that was said.

use super::Context;
use super::errors::ApiError;
use super::locations::repository;
use super::packages::{Empty, find};
use crate::Api;
use belvedere_store::packages::Package;
use serde::Deserialize;

/// Objects that are looked up at a time.
const BATCH: usize = 500;

/// `DeletePackageRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeletePackage {
    package_id: String,
    #[serde(default)]
    force_delete: bool,
}

fn refuse(package: &Package, why: &str) -> ApiError {
    ApiError::conflict("PACKAGE", &package.package_id, format!("package {} {why}", package.name))
}

/// Deletes a package and, if it is forced, everything in it.
pub async fn delete_package(api: &Api, context: &Context, input: DeletePackage) -> Result<Empty, ApiError> {
    let package = find(api, &input.package_id).await?;
    let (store, bucket) = (&api.fleet.store, &api.fleet.settings.bucket);
    let prefix = format!("{}/", repository(&context.account, &package.name));
    let has_artifacts = !store.list_objects(bucket, &prefix, "", 1).await?.is_empty();
    if has_artifacts && !input.force_delete {
        return Err(refuse(&package, "still has artifacts; ForceDelete deletes them too"));
    }
    // The row first: what a power cut leaves of the rest are objects that the next package of this name finds harmless.
    if !store.delete_package(&package.package_id, bucket, &prefix).await? {
        return Err(refuse(&package, "is used by an application instance; remove that first"));
    }
    loop {
        let objects = store.list_objects(bucket, &prefix, "", BATCH).await?;
        for object in &objects {
            store.delete_object(bucket, &object.key).await?;
        }
        if objects.len() < BATCH {
            break;
        }
    }
    tracing::info!(package = package.name, forced = input.force_delete, "package deleted");
    Ok(Empty {})
}

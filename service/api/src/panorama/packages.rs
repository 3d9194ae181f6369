//! Packages and their versions.

use super::Context;
use super::errors::ApiError;
use super::locations::{StorageLocation, storage_location};
use super::nodes::built_in_packages;
use super::paging::page;
use super::quotas;
use super::registration::examine;
use super::timestamp::Timestamp;
use crate::Api;
use belvedere_manifest::BUILT_IN_OWNER;
use belvedere_store::StoreError;
use belvedere_store::devices::Tags;
use belvedere_store::packages::{NewVersion, Package};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `package-…`, or `packageName/<name>`.
pub(super) async fn find(api: &Api, package_id: &str) -> Result<Package, ApiError> {
    let found = match package_id.strip_prefix("packageName/") {
        Some(name) => api.fleet.store.package_of_name(name).await?,
        None => api.fleet.store.package(package_id).await?,
    };
    found.ok_or_else(|| ApiError::not_found("PACKAGE", package_id))
}

fn location(api: &Api, package: &str) -> StorageLocation {
    storage_location(&api.fleet.settings.bucket, &api.fleet.settings.account, package)
}

fn name_is_taken(name: &str) -> ApiError {
    ApiError::conflict("PACKAGE", name, format!("a package with the name {name} exists already"))
}

/// `CreatePackageRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePackage {
    package_name: String,
    #[serde(default)]
    tags: Tags,
}

/// `CreatePackageResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PackageCreated {
    arn: String,
    package_id: String,
    storage_location: StorageLocation,
}

/// Makes a package without versions.
pub async fn create_package(api: &Api, context: &Context, input: CreatePackage) -> Result<PackageCreated, ApiError> {
    let name = &input.package_name;
    if api.fleet.store.package_of_name(name).await?.is_some() {
        return Err(name_is_taken(name));
    }
    let _place = quotas::package(api, name).await?;
    let made = api.fleet.store.create_package(name, &input.tags).await.map_err(|e| match e {
        StoreError::Exists { .. } => name_is_taken(name),
        other => other.into(),
    })?;
    Ok(PackageCreated {
        arn: context.arn("package", &made.package_id),
        storage_location: location(api, name),
        package_id: made.package_id,
    })
}

/// The package of a name, made if there is none.
pub(super) async fn ensure(api: &Api, name: &str, tags: &Tags) -> Result<Package, ApiError> {
    let store = &api.fleet.store;
    if let Some(known) = store.package_of_name(name).await? {
        return Ok(known);
    }
    let _place = quotas::package(api, name).await?;
    match store.create_package(name, tags).await {
        Err(StoreError::Exists { .. }) => {
            store.package_of_name(name).await?.ok_or_else(|| ApiError::not_found("PACKAGE", name))
        }
        made => Ok(made?),
    }
}

/// Which package.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OnePackage {
    package_id: String,
}

/// `DescribePackageResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PackageDescribed {
    arn: String,
    created_time: Timestamp,
    package_id: String,
    package_name: String,
    read_access_principal_arns: Vec<String>,
    storage_location: StorageLocation,
    tags: Tags,
    write_access_principal_arns: Vec<String>,
}

/// Everything about a package.
pub async fn describe_package(api: &Api, context: &Context, input: OnePackage) -> Result<PackageDescribed, ApiError> {
    let package = find(api, &input.package_id).await?;
    Ok(PackageDescribed {
        arn: context.arn("package", &package.package_id),
        created_time: Timestamp(package.created_ms),
        storage_location: location(api, &package.name),
        package_id: package.package_id,
        package_name: package.name,
        read_access_principal_arns: Vec::new(),
        tags: package.tags,
        write_access_principal_arns: Vec::new(),
    })
}

/// `ListPackagesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPackages {
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// `ListPackagesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PackagesListed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    packages: Vec<Value>,
}

/// Packages, newest first.
pub async fn list_packages(api: &Api, context: &Context, input: ListPackages) -> Result<PackagesListed, ApiError> {
    let packages = api.fleet.store.list_packages().await?;
    let (packages, next_token) = page(packages, |p| p.package_id.clone(), input.max_results, input.next_token.as_deref())?;
    let packages = packages
        .into_iter()
        .map(|p| {
            json!({
                "Arn": context.arn("package", &p.package_id),
                "CreatedTime": Timestamp(p.created_ms),
                "PackageId": p.package_id,
                "PackageName": p.name,
                "Tags": p.tags,
            })
        })
        .collect();
    Ok(PackagesListed { next_token, packages })
}

/// Which version.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneVersion {
    package_id: String,
    package_version: String,
    patch_version: Option<String>,
    owner_account: Option<String>,
}

/// Packages of others are not known here.
fn own(context: &Context, owner: Option<&str>, package_id: &str) -> Result<(), ApiError> {
    match owner {
        Some(owner) if owner != context.account => Err(ApiError::not_found("PACKAGE", package_id)),
        _ => Ok(()),
    }
}

/// `DescribePackageVersionResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionDescribed {
    is_latest_patch: bool,
    owner_account: String,
    package_arn: String,
    package_id: String,
    package_name: String,
    package_version: String,
    patch_version: String,
    registered_time: Timestamp,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
}

/// A patch of a version; the latest if none is named.
pub async fn describe_package_version(
    api: &Api,
    context: &Context,
    input: OneVersion,
) -> Result<VersionDescribed, ApiError> {
    if input.owner_account.as_deref() == Some(BUILT_IN_OWNER) {
        return built_in_version(context, input);
    }
    own(context, input.owner_account.as_deref(), &input.package_id)?;
    let package = find(api, &input.package_id).await?;
    let patch = input.patch_version.as_deref();
    let found = api.fleet.store.package_version(&package.package_id, &input.package_version, patch).await?;
    let version = found.ok_or_else(|| {
        let id = format!("{}/versions/{}", package.name, input.package_version);
        ApiError::not_found("PACKAGE_VERSION", &id)
    })?;
    Ok(VersionDescribed {
        is_latest_patch: version.latest,
        owner_account: context.account.clone(),
        package_arn: context.arn("package", &version.package_id),
        package_id: version.package_id,
        package_name: version.package_name,
        package_version: version.version,
        patch_version: version.patch,
        registered_time: Timestamp(version.registered_ms),
        status: version.status,
        status_description: version.status_description,
    })
}

/// A version of a package that every appliance has.
fn built_in_version(context: &Context, input: OneVersion) -> Result<VersionDescribed, ApiError> {
    let given = input.package_id.strip_prefix("packageName/").unwrap_or(&input.package_id);
    let found = built_in_packages().into_iter().find(|p| {
        (p.name == given || p.package_id == given)
            && p.version == input.package_version
            && input.patch_version.as_ref().is_none_or(|patch| *patch == p.patch)
    });
    let found = found.ok_or_else(|| ApiError::not_found("PACKAGE_VERSION", &input.package_id))?;
    Ok(VersionDescribed {
        is_latest_patch: true,
        owner_account: BUILT_IN_OWNER.to_owned(),
        package_arn: context.arn("package", &found.package_id),
        package_id: found.package_id,
        package_name: found.name.to_owned(),
        package_version: found.version.to_owned(),
        patch_version: found.patch,
        registered_time: Timestamp(0),
        status: "REGISTER_COMPLETED".to_owned(),
        status_description: None,
    })
}

/// `RegisterPackageVersionRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterPackageVersion {
    package_id: String,
    package_version: String,
    patch_version: String,
    mark_latest: Option<bool>,
    owner_account: Option<String>,
}

/// Nothing.
#[derive(Serialize)]
pub struct Empty {}

/// Registers a patch, at once. What is wrong with the package is its status, not an error of the call.
pub async fn register_package_version(
    api: &Api,
    context: &Context,
    input: RegisterPackageVersion,
) -> Result<Empty, ApiError> {
    own(context, input.owner_account.as_deref(), &input.package_id)?;
    let package = find(api, &input.package_id).await?;
    let (version, patch) = (&input.package_version, &input.patch_version);
    let _place = quotas::version(api, &package, version, patch).await?;
    let examined = examine(api, &package.name, version, patch).await?;
    let (status, description, nodes) = match examined.outcome {
        Ok(nodes) => ("REGISTER_COMPLETED", None, nodes),
        Err(fault) => ("FAILED", Some(fault.chars().take(255).collect::<String>()), Vec::new()),
    };
    tracing::info!(package = package.name, version, patch, status, description, "package version registered");
    let new = NewVersion {
        package_id: &package.package_id,
        version,
        patch,
        status,
        status_description: description.as_deref(),
        mark_latest: input.mark_latest.unwrap_or(false),
        manifest: &examined.manifest,
        camera: None,
        nodes: &nodes,
    };
    api.fleet.store.register_package_version(new).await?;
    Ok(Empty {})
}

/// `DeregisterPackageVersionRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeregisterPackageVersion {
    package_id: String,
    package_version: String,
    patch_version: String,
    owner_account: Option<String>,
    updated_latest_patch_version: Option<String>,
}

/// Forgets a patch. Its files stay in the bucket: application instances that run it are not touched.
pub async fn deregister_package_version(
    api: &Api,
    context: &Context,
    input: DeregisterPackageVersion,
) -> Result<Empty, ApiError> {
    own(context, input.owner_account.as_deref(), &input.package_id)?;
    let package = find(api, &input.package_id).await?;
    let store = &api.fleet.store;
    let successor = input.updated_latest_patch_version.as_deref();
    if let Some(successor) = successor
        && store.package_version(&package.package_id, &input.package_version, Some(successor)).await?.is_none()
    {
        return Err(ApiError::not_found("PACKAGE_VERSION", successor));
    }
    let (version, patch) = (&input.package_version, &input.patch_version);
    match store.deregister_package_version(&package.package_id, version, patch, successor).await? {
        true => Ok(Empty {}),
        false => Err(ApiError::not_found("PACKAGE_VERSION", patch)),
    }
}

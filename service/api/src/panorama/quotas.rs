//! Quotas: counted just before something is made. Where the model of an operation has no
//! `ServiceQuotaExceededException`, its caller gets the same text as a conflict (see [`ApiError::as_modelled`]).

use super::errors::ApiError;
use crate::Api;
use crate::limits::{Limit, Place};
use belvedere_store::devices::Device;
use belvedere_store::packages::Package;
use belvedere_store::{StoreError, now_ms};

const DAY_MS: i64 = 24 * 3600 * 1000;

fn exceeded(code: &'static str, resource_type: &'static str, id: &str, what: &str, instead: &str) -> ApiError {
    let message = format!("You've reached the maximum number of {what}. {instead} and try again.");
    ApiError::Quota { message, code, resource_id: id.to_owned(), resource_type }
}

/// Whether one more fits; nothing is counted where nothing is limited.
async fn admits(limit: Limit, count: impl Future<Output = Result<u64, StoreError>>) -> Result<bool, StoreError> {
    match limit {
        Limit::Unlimited => Ok(true),
        limit => Ok(limit.admits(count.await?)),
    }
}

/// A place for one more device.
pub async fn device(api: &Api, name: &str) -> Result<Place, ApiError> {
    let limit = api.limits.devices;
    let place = api.counter.turn(&api.fleet.store, &[limit]).await?;
    if admits(limit, api.fleet.store.count_devices()).await? {
        return Ok(place);
    }
    // A name that is taken is what the caller should hear of first.
    if api.fleet.store.list_devices().await?.iter().any(|d| d.name == name) {
        return Ok(place);
    }
    Err(exceeded("devices", "DEVICE", name, "devices", "Delete unused devices"))
}

/// A place for one more package.
pub async fn package(api: &Api, name: &str) -> Result<Place, ApiError> {
    let limit = api.limits.packages;
    let place = api.counter.turn(&api.fleet.store, &[limit]).await?;
    if admits(limit, api.fleet.store.count_packages()).await? {
        return Ok(place);
    }
    Err(exceeded("packages", "PACKAGE", name, "packages", "Delete unused packages"))
}

/// A place for a patch version, unless it is there already. The text is the original's.
pub async fn version(api: &Api, package: &Package, version: &str, patch: &str) -> Result<Place, ApiError> {
    let limit = api.limits.versions_per_package;
    let place = api.counter.turn(&api.fleet.store, &[limit]).await?;
    if admits(limit, api.fleet.store.count_package_versions(&package.package_id, version, patch)).await? {
        return Ok(place);
    }
    let what = format!("versions for package {}", package.name);
    Err(exceeded("versions_per_package", "PACKAGE", &package.package_id, &what, "Deregister unused package versions"))
}

/// A place for a deployment to a device; what it replaces makes room. One that opens ports waits for its turn even where
/// nothing is limited, so that no two take the same port in the same instant.
pub async fn deployment(api: &Api, device: &Device, replaces: bool, opens_ports: bool) -> Result<Place, ApiError> {
    let (limit, daily) = (api.limits.applications_per_device, api.limits.deployments_per_device_per_day);
    let place = match opens_ports {
        true => api.counter.alone(&api.fleet.store).await?,
        false => api.counter.turn(&api.fleet.store, &[limit, daily]).await?,
    };
    let (store, id) = (&api.fleet.store, &device.device_id);
    let beside = async { Ok(store.count_application_instances(id).await?.saturating_sub(u64::from(replaces))) };
    if !admits(limit, beside).await? {
        let what = format!("applications for device {}", device.name);
        return Err(exceeded("applications_per_device", "DEVICE", id, &what, "Remove unused applications"));
    }
    if !admits(daily, store.count_deployments(id, now_ms() - DAY_MS)).await? {
        let what = format!("deployments per day for device {}", device.name);
        return Err(exceeded("deployments_per_device_per_day", "DEVICE", id, &what, "Wait"));
    }
    Ok(place)
}

/// Whether an application may watch so many cameras at a time.
pub fn cameras(api: &Api, id: &str, watched: u64) -> Result<(), ApiError> {
    match watched {
        0 => Ok(()),
        count if api.limits.cameras_per_application.admits(count - 1) => Ok(()),
        _ => Err(too_many_cameras(id)),
    }
}

/// An application watches too many cameras.
pub fn too_many_cameras(id: &str) -> ApiError {
    let what = "camera streams for an application";
    exceeded("cameras_per_application", "APPLICATION_INSTANCE", id, what, "Pause cameras or let them wait for a signal")
}

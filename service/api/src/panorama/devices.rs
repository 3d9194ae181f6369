//! Devices.

use super::Context;
use super::errors::ApiError;
use super::jobs::{LatestDeviceJob, reboots};
use super::paging::page;
use super::quotas;
use super::timestamp::Timestamp;
use crate::Api;
use belvedere_device_protocol::{ConnectionType, NetworkConfiguration};
use belvedere_fleet::FleetError;
use belvedere_fleet::authority::CLAIM_VALIDITY_MS;
use belvedere_fleet::provisioning::NewAppliance;
use belvedere_store::device_jobs::DeviceJob;
use belvedere_store::devices::{Device, LEASE_MS, Tags};
use belvedere_store::{StoreError, now_ms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a device that never said anything runs.
const NOT_AVAILABLE: &str = "NOT_AVAILABLE";

/// `ProvisionDeviceRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProvisionDevice {
    name: String,
    description: Option<String>,
    networking_configuration: Option<Value>,
    #[serde(default)]
    tags: Tags,
}

/// `ProvisionDeviceResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceProvisioned {
    arn: String,
    certificates: String,
    device_id: String,
    iot_thing_name: String,
    status: &'static str,
}

/// Makes a device and gives out its archive, once.
pub async fn provision_device(api: &Api, context: &Context, input: ProvisionDevice) -> Result<DeviceProvisioned, ApiError> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let network = network(input.networking_configuration.as_ref())?;
    let new = NewAppliance {
        name: &input.name,
        description: input.description.as_deref(),
        tags: &input.tags,
        networking: input.networking_configuration.as_ref(),
        network,
    };
    let _place = quotas::device(api, &input.name).await?;
    let made = match api.fleet.provision_device(new).await {
        Err(FleetError::Store(StoreError::Exists { .. })) => return Err(taken(api, &input.name).await?),
        other => other?,
    };
    Ok(DeviceProvisioned {
        arn: context.arn("device", &made.device_id),
        certificates: BASE64_STANDARD.encode(&made.archive),
        device_id: made.device_id,
        iot_thing_name: made.thing_name,
        status: "AWAITING_PROVISIONING",
    })
}

/// What to say when a name is taken: by a device whose archive is worth nothing any more, perhaps.
async fn taken(api: &Api, name: &str) -> Result<ApiError, ApiError> {
    let there = api.fleet.store.list_devices().await?.into_iter().find(|d| d.name == name);
    let text = match there.filter(|d| provisioning_status(d, now_ms()) == "FAILED") {
        Some(device) => format!(
            "a device with the name {name} exists already; its provisioning archive expired unused: delete the device \
             (delete-device --device-id {}) and provision it again",
            device.device_id
        ),
        None => format!("a device with the name {name} exists already; choose another name, or delete that device first"),
    };
    Ok(ApiError::conflict("DEVICE", name, text))
}

fn network(given: Option<&Value>) -> Result<NetworkConfiguration, ApiError> {
    let Some(given) = given else { return Ok(NetworkConfiguration::default()) };
    let network: NetworkConfiguration =
        serde_json::from_value(given.clone()).map_err(|e| ApiError::field("NetworkingConfiguration", e.to_string()))?;
    for (name, port) in [("Ethernet0", &network.ethernet0), ("Ethernet1", &network.ethernet1)] {
        let Some(port) = port else { continue };
        let complete = port.static_ip_connection_info.is_some() || port.connection_type == ConnectionType::Dhcp;
        if !complete {
            let field = format!("NetworkingConfiguration.{name}.StaticIpConnectionInfo");
            return Err(ApiError::field(&field, "STATIC_IP needs StaticIpConnectionInfo"));
        }
    }
    Ok(network)
}

/// `ProvisioningStatus` at a time: whoever waits for an archive's claim that ended waits in vain. (A registration that was
/// under way when it ended has a minute.)
pub fn provisioning_status(device: &Device, now: i64) -> &str {
    let ended = now > device.created_ms + CLAIM_VALIDITY_MS + 60_000;
    match device.provisioning_status.as_str() {
        "AWAITING_PROVISIONING" | "PENDING" if ended => "FAILED",
        status => status,
    }
}

/// `DeviceAggregatedStatus` of a device and its newest job at a time. A device that does not come back from a restart
/// is `REBOOTING` until its lease has expired.
pub fn aggregated_status<'a>(device: &'a Device, job: Option<&DeviceJob>, now: i64) -> &'a str {
    let in_touch = device.connected || device.lease_expires_ms.is_none_or(|t| t > now);
    match provisioning_status(device, now) {
        "SUCCEEDED" if !in_touch => "LEASE_EXPIRED",
        "SUCCEEDED" if job.is_some_and(reboots) => "REBOOTING",
        "SUCCEEDED" if device.connected => "ONLINE",
        "SUCCEEDED" => "OFFLINE",
        other => other,
    }
}

fn connection_status(device: &Device, now: i64) -> &'static str {
    match (provisioning_status(device, now), device.connected) {
        ("SUCCEEDED", true) => "ONLINE",
        ("SUCCEEDED", false) => "OFFLINE",
        ("AWAITING_PROVISIONING" | "PENDING", _) => "AWAITING_CREDENTIALS",
        _ => "ERROR",
    }
}

fn lease(device: &Device) -> Timestamp {
    Timestamp(device.lease_expires_ms.unwrap_or(device.created_ms + LEASE_MS))
}

fn software(device: &Device) -> &str {
    device.software_version.as_deref().unwrap_or(NOT_AVAILABLE)
}

/// Which device.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneDevice {
    device_id: String,
}

/// `DescribeDeviceResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceDescribed {
    arn: String,
    brand: &'static str,
    created_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_networking_status: Option<Value>,
    current_software: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    device_aggregated_status: String,
    device_connection_status: &'static str,
    device_id: String,
    latest_device_job: LatestDeviceJob,
    latest_software: String,
    lease_expiration_time: Timestamp,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    networking_configuration: Option<Value>,
    provisioning_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    tags: Tags,
    r#type: &'static str,
}

/// The model's `DeviceSerialNumber` is 1 to 20 digits: a serial number with letters in it is not shown.
fn serial_number(device: &Device) -> Option<String> {
    device.serial_number.clone().filter(|s| (1..=20).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit()))
}

/// Everything about one device.
pub async fn describe_device(api: &Api, context: &Context, input: OneDevice) -> Result<DeviceDescribed, ApiError> {
    let found = api.fleet.store.device(&input.device_id).await?;
    let device = found.ok_or_else(|| ApiError::not_found("DEVICE", &input.device_id))?;
    let jobs = api.fleet.store.latest_device_jobs(Some(&device.device_id)).await?;
    let job = jobs.get(&device.device_id);
    let mut network = device.network_status.clone();
    if let (Some(Value::Object(map)), Some(at)) = (&mut network, device.network_status_ms) {
        map.insert("LastUpdatedTime".into(), json!(Timestamp(at)));
    }
    Ok(DeviceDescribed {
        arn: context.arn("device", &device.device_id),
        brand: "AWS_PANORAMA",
        created_time: Timestamp(device.created_ms),
        current_networking_status: network,
        current_software: software(&device).to_owned(),
        device_aggregated_status: aggregated_status(&device, job, now_ms()).to_owned(),
        device_connection_status: connection_status(&device, now_ms()),
        latest_device_job: LatestDeviceJob::of(job),
        // Releases are not known to the service yet: what a device runs is its latest.
        latest_software: device.software_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        lease_expiration_time: lease(&device),
        serial_number: serial_number(&device),
        provisioning_status: provisioning_status(&device, now_ms()).to_owned(),
        description: device.description,
        device_id: device.device_id,
        name: device.name,
        networking_configuration: device.networking,
        tags: device.tags,
        r#type: "PANORAMA_APPLIANCE",
    })
}

/// `DeleteDeviceResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceDeleted {
    device_id: String,
}

/// Deletes a device; its certificates are worth nothing from now on but to hear that the appliance is free.
pub async fn delete_device(api: &Api, _: &Context, input: OneDevice) -> Result<DeviceDeleted, ApiError> {
    match api.fleet.delete_device(&input.device_id).await? {
        true => Ok(DeviceDeleted { device_id: input.device_id }),
        false => Err(ApiError::not_found("DEVICE", &input.device_id)),
    }
}

/// `UpdateDeviceMetadataRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateDeviceMetadata {
    device_id: String,
    description: Option<String>,
}

/// `UpdateDeviceMetadataResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceUpdated {
    device_id: String,
}

/// Describes a device anew. Without a description nothing changes.
pub async fn update_device_metadata(api: &Api, _: &Context, input: UpdateDeviceMetadata) -> Result<DeviceUpdated, ApiError> {
    let there = match &input.description {
        Some(description) => api.fleet.store.describe_device_anew(&input.device_id, description).await?,
        None => api.fleet.store.device(&input.device_id).await?.is_some(),
    };
    match there {
        true => Ok(DeviceUpdated { device_id: input.device_id }),
        false => Err(ApiError::not_found("DEVICE", &input.device_id)),
    }
}

/// `ListDevicesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListDevices {
    device_aggregated_status_filter: Option<String>,
    max_results: Option<usize>,
    name_filter: Option<String>,
    next_token: Option<String>,
    sort_by: Option<String>,
    sort_order: Option<String>,
}

/// `ListDevicesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DevicesListed {
    devices: Vec<DeviceItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// `Device`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceItem {
    brand: &'static str,
    created_time: Timestamp,
    current_software: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    device_aggregated_status: String,
    device_id: String,
    last_updated_time: Timestamp,
    latest_device_job: LatestDeviceJob,
    lease_expiration_time: Timestamp,
    name: String,
    provisioning_status: String,
    tags: Tags,
    r#type: &'static str,
}

/// Devices, newest first unless asked otherwise.
pub async fn list_devices(api: &Api, _: &Context, input: ListDevices) -> Result<DevicesListed, ApiError> {
    let now = now_ms();
    let mut devices = api.fleet.store.list_devices().await?;
    let jobs = api.fleet.store.latest_device_jobs(None).await?;
    let status = |device: &Device| aggregated_status(device, jobs.get(&device.device_id), now).to_owned();
    devices.retain(|d| {
        input.name_filter.as_ref().is_none_or(|prefix| d.name.starts_with(prefix))
            && input.device_aggregated_status_filter.as_ref().is_none_or(|s| status(d) == *s)
    });
    // The list comes newest first. A sort without an order goes upward.
    match input.sort_by.as_deref() {
        Some("DEVICE_ID") => devices.sort_by(|a, b| a.device_id.cmp(&b.device_id)),
        Some("NAME") => devices.sort_by(|a, b| a.name.cmp(&b.name)),
        Some("DEVICE_AGGREGATED_STATUS") => {
            devices.sort_by_cached_key(|d| (status(d), d.sequence));
        }
        _ => devices.sort_by_key(|d| d.sequence),
    }
    let downward = match input.sort_order.as_deref() {
        None => input.sort_by.is_none(),
        Some(order) => order == "DESCENDING",
    };
    if downward {
        devices.reverse();
    }
    let (devices, next_token) = page(devices, |d| d.device_id.clone(), input.max_results, input.next_token.as_deref())?;
    let devices = devices
        .into_iter()
        .map(|d| DeviceItem {
            brand: "AWS_PANORAMA",
            created_time: Timestamp(d.created_ms),
            current_software: software(&d).to_owned(),
            device_aggregated_status: status(&d),
            last_updated_time: Timestamp(d.updated_ms),
            latest_device_job: LatestDeviceJob::of(jobs.get(&d.device_id)),
            lease_expiration_time: lease(&d),
            provisioning_status: provisioning_status(&d, now).to_owned(),
            description: d.description,
            device_id: d.device_id,
            name: d.name,
            tags: d.tags,
            r#type: "PANORAMA_APPLIANCE",
        })
        .collect();
    Ok(DevicesListed { devices, next_token })
}

#[cfg(test)]
mod tests {
    use super::super::jobs::tests::reboot;
    use super::*;
    use belvedere_device_protocol::jobs::Status;

    #[test]
    fn a_device_is_rebooting_while_its_job_says_so_and_its_lease_lasts() {
        let device = |connected, lease_expires_ms| Device {
            sequence: 1,
            device_id: "device-a".into(),
            name: "a".into(),
            thing_name: "a".into(),
            description: None,
            tags: Tags::new(),
            networking: None,
            provisioning_status: "SUCCEEDED".into(),
            created_ms: 0,
            updated_ms: 0,
            serial_number: None,
            software_version: None,
            network_status: None,
            network_status_ms: None,
            lease_expires_ms,
            connected,
        };
        let rebooting = reboot(Status::InProgress, Some("REBOOTING"));
        let begun = reboot(Status::InProgress, None);
        let done = reboot(Status::Succeeded, Some("REBOOTING"));
        for (connected, lease, job, expected) in [
            (true, 9, None, "ONLINE"),
            (true, 9, Some(&begun), "ONLINE"),
            (true, 9, Some(&rebooting), "REBOOTING"),
            (false, 9, Some(&rebooting), "REBOOTING"),
            (false, 5, Some(&rebooting), "LEASE_EXPIRED"),
            (false, 9, Some(&done), "OFFLINE"),
            (false, 5, None, "LEASE_EXPIRED"),
            (true, 5, Some(&done), "ONLINE"),
        ] {
            assert_eq!(aggregated_status(&device(connected, Some(lease)), job, 5), expected, "{connected} {lease} {job:?}");
        }
        let waiting = Device { provisioning_status: "AWAITING_PROVISIONING".into(), ..device(false, None) };
        assert_eq!(aggregated_status(&waiting, None, 5), "AWAITING_PROVISIONING");
        // Its archive is good for five minutes, and then nobody comes with it any more.
        let ended = CLAIM_VALIDITY_MS + 60_000;
        assert_eq!(provisioning_status(&waiting, ended), "AWAITING_PROVISIONING");
        assert_eq!(provisioning_status(&waiting, ended + 1), "FAILED");
        assert_eq!(aggregated_status(&waiting, None, ended + 1), "FAILED");
        assert_eq!(connection_status(&waiting, ended + 1), "ERROR");
        assert_eq!(provisioning_status(&device(true, Some(9)), i64::MAX / 2), "SUCCEEDED");
    }
}

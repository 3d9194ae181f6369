//! What the page shows, gathered from the store.

use belvedere_api::panorama::devices::aggregated_status;
use belvedere_fleet::Fleet;
use belvedere_store::StoreError;
use belvedere_store::application_instances::ApplicationInstance;
use belvedere_store::devices::Device;
use belvedere_store::packages::PackageVersion;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most rows of a kind.
const MOST: usize = 500;

/// A device.
pub struct DeviceRow {
    /// Its row.
    pub device: Device,
    /// `ONLINE`, …
    pub status: String,
    /// One line a port.
    pub network: Vec<String>,
}

/// Everything.
pub struct Overview {
    /// Account and region.
    pub account: String,
    /// Region.
    pub region: String,
    /// When, milliseconds since 1970.
    pub now: i64,
    /// Devices, newest first.
    pub devices: Vec<DeviceRow>,
    /// Applications that were not removed, newest first.
    pub applications: Vec<ApplicationInstance>,
    /// Packages, newest first.
    pub packages: Vec<PackageVersion>,
    /// Software that devices run, and how many run it.
    pub software: BTreeMap<String, usize>,
}

impl Overview {
    /// As it is now.
    pub async fn of(fleet: &Fleet, now: i64) -> Result<Overview, StoreError> {
        let store = &fleet.store;
        let jobs = store.latest_device_jobs(None).await?;
        let mut devices = store.list_devices().await?;
        let mut software = BTreeMap::new();
        for version in devices.iter().filter_map(|d| d.software_version.clone()) {
            *software.entry(version).or_insert(0) += 1;
        }
        devices.truncate(MOST);
        let devices = devices.into_iter().map(|device| DeviceRow {
            status: aggregated_status(&device, jobs.get(&device.device_id), now).to_owned(),
            network: device.network_status.as_ref().map(network).unwrap_or_default(),
            device,
        });
        let mut applications = store.list_application_instances(None).await?;
        applications.retain(|a| a.status != "REMOVAL_SUCCEEDED");
        applications.truncate(MOST);
        let mut packages = store.list_package_versions().await?;
        packages.truncate(MOST);
        Ok(Overview {
            account: fleet.settings.account.clone(),
            region: fleet.settings.region.clone(),
            now,
            devices: devices.collect(),
            applications,
            packages,
            software,
        })
    }
}

/// `Ethernet0 10.0.2.15/24` of a port that is connected and `Ethernet1 not connected` of one that is not, out of a `NetworkStatus`.
fn network(status: &Value) -> Vec<String> {
    let Value::Object(ports) = status else { return Vec::new() };
    let lines = ports.iter().filter_map(|(name, port)| {
        let state = port.get("ConnectionStatus")?.as_str()?;
        let address = port.get("IpAddress").and_then(Value::as_str).unwrap_or("");
        let name = name.trim_end_matches("Status");
        Some(match (state, address) {
            ("CONNECTED", address) if !address.is_empty() => format!("{name} {address}"),
            (state, _) => format!("{name} {}", state.replace('_', " ").to_lowercase()),
        })
    });
    lines.take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_lines() {
        let status = json!({
            "Ethernet0Status": {"ConnectionStatus": "CONNECTED", "IpAddress": "10.0.2.15/24"},
            "Ethernet1Status": {"ConnectionStatus": "NOT_CONNECTED"},
            "LastUpdatedTime": 5,
        });
        assert_eq!(network(&status), ["Ethernet0 10.0.2.15/24", "Ethernet1 not connected"]);
        assert!(network(&json!("text")).is_empty());
    }
}

//! Who calls, and what a device may do. Administrators may do everything; a device may read what its own deployments
//! name and write its own logs, and nothing else.

use crate::Api;
use belvedere_fleet::FleetError;

/// Who signed a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Someone with an access key of this service.
    Administrator {
        /// `AKIA…`.
        access_key_id: String,
    },
    /// An appliance with short-lived keys.
    Device {
        /// `device-…`.
        device_id: String,
        /// `ASIA…`.
        access_key_id: String,
    },
}

impl Caller {
    /// The key that the request was signed with.
    pub fn access_key_id(&self) -> &str {
        match self {
            Caller::Administrator { access_key_id } | Caller::Device { access_key_id, .. } => access_key_id,
        }
    }

    /// Whether everything is allowed.
    pub fn is_administrator(&self) -> bool {
        matches!(self, Caller::Administrator { .. })
    }

    /// Whether a log group is the caller's: a device has its own group and those of its application instances.
    pub fn may_use_log_group(&self, group: &str) -> bool {
        match self {
            Caller::Administrator { .. } => true,
            Caller::Device { device_id, .. } => {
                let own = format!("/aws/panorama/devices/{device_id}");
                group == own
                    || group.strip_prefix(&format!("{own}/applications/")).is_some_and(|id| !id.is_empty() && !id.contains('/'))
            }
        }
    }

    /// Whether an object may be read.
    pub async fn may_read(&self, api: &Api, bucket: &str, key: &str) -> Result<bool, FleetError> {
        match self {
            Caller::Administrator { .. } => Ok(true),
            Caller::Device { device_id, .. } => Ok(api.fleet.store.deployment_names(device_id, bucket, key).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_writes_only_its_own_log_groups() {
        let device = Caller::Device { device_id: "device-a".into(), access_key_id: "ASIA".into() };
        assert!(device.may_use_log_group("/aws/panorama/devices/device-a"));
        assert!(device.may_use_log_group("/aws/panorama/devices/device-a/applications/applicationInstance-x"));
        for foreign in [
            "/aws/panorama/devices/device-b",
            "/aws/panorama/devices/device-ab",
            "/aws/panorama/devices/device-a/applications/",
            "/aws/panorama/devices/device-a/applications/x/y",
            "/aws/panorama/devices/device-a/other",
        ] {
            assert!(!device.may_use_log_group(foreign), "{foreign}");
        }
    }
}

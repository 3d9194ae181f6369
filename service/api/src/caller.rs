//! Who calls, and what a device may do. Administrators may do everything; a device may read what its own deployments
//! name and write its own logs, and nothing else.

use crate::Api;
use belvedere_fleet::FleetError;
use belvedere_fleet::metrics::NAMESPACE;
use belvedere_store::metrics::MetricName;

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

    /// Whether samples may be put into a metric: a device writes about itself only, in its own namespace.
    pub fn may_put_metric(&self, metric: &MetricName) -> bool {
        match self {
            Caller::Administrator { .. } => true,
            Caller::Device { device_id, .. } => {
                let named: Vec<&String> = metric.dimensions.iter().filter(|(n, _)| n == "DeviceId").map(|(_, v)| v).collect();
                // What the service itself says about applications is not for devices to say.
                let about_applications = metric.dimensions.iter().any(|(n, _)| n.starts_with("ApplicationInstance"));
                metric.namespace == NAMESPACE && !about_applications && named == [device_id]
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

    #[test]
    fn a_device_puts_samples_about_itself_only() {
        let device = Caller::Device { device_id: "device-a".into(), access_key_id: "ASIA".into() };
        let metric = |namespace: &str, dimensions: &[(&str, &str)]| {
            MetricName::new(namespace, "m", dimensions.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
        };
        assert!(device.may_put_metric(&metric(NAMESPACE, &[("DeviceId", "device-a"), ("Disk", "data")])));
        for (namespace, dimensions) in [
            ("Other", &[("DeviceId", "device-a")][..]),
            (NAMESPACE, &[]),
            (NAMESPACE, &[("DeviceId", "device-b")]),
            (NAMESPACE, &[("DeviceId", "device-a"), ("DeviceId", "device-b")]),
            (NAMESPACE, &[("DeviceId", "device-a"), ("ApplicationInstanceId", "x")]),
        ] {
            assert!(!device.may_put_metric(&metric(namespace, dimensions)), "{namespace} {dimensions:?}");
        }
    }
}

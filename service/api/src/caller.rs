//! Who calls.

use crate::access::policy::Policy;
use belvedere_fleet::credentials::Origin;
use belvedere_fleet::metrics::NAMESPACE;
use belvedere_store::metrics::MetricName;
use std::sync::Arc;

/// Who signed a request. What they may do is decided in [`crate::access`].
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
    /// A session of a role: an application, or someone who assumed it.
    Role {
        /// Name of the role.
        role: String,
        /// `AROA…`.
        role_id: String,
        /// Chosen by whoever assumed it; an application's is its application instance.
        session_name: String,
        /// The role's ARN, with its path.
        role_arn: String,
        /// Who assumed it; what that one loses, the session loses.
        origin: Origin,
        /// `ASIA…`.
        access_key_id: String,
        /// What the role's policies say now.
        policies: Arc<Vec<Policy>>,
    },
}

impl Caller {
    /// Whether everything is allowed.
    pub fn is_administrator(&self) -> bool {
        matches!(self, Caller::Administrator { .. })
    }

    /// Whether it is an appliance itself, not an application on one.
    pub fn is_device(&self) -> bool {
        matches!(self, Caller::Device { .. })
    }

    /// The access key of the request.
    pub fn access_key_id(&self) -> &str {
        match self {
            Caller::Administrator { access_key_id }
            | Caller::Device { access_key_id, .. }
            | Caller::Role { access_key_id, .. } => access_key_id,
        }
    }

    /// Who stands behind it, however often keys are made anew: what one may do only so often is counted by this.
    pub fn origin(&self) -> String {
        match self {
            Caller::Administrator { access_key_id } => access_key_id.clone(),
            Caller::Device { device_id, .. } => device_id.clone(),
            Caller::Role { origin: Origin::AccessKey(id), .. } => id.clone(),
            Caller::Role { origin: Origin::ApplicationInstance { device_id, application_instance_id, .. }, .. } => {
                format!("{device_id}/{application_instance_id}")
            }
        }
    }

    /// Whether samples may be put into a metric: a device writes about itself only, in its own namespace.
    pub fn may_put_metric(&self, metric: &MetricName) -> bool {
        match self {
            // Administrators may put all; what a role may put was decided before.
            Caller::Administrator { .. } | Caller::Role { .. } => true,
            Caller::Device { device_id, .. } => {
                let named: Vec<&String> =
                    metric.dimensions.iter().filter(|(n, _)| n == "DeviceId").map(|(_, v)| v).collect();
                // What the service itself says about applications is not for devices to say.
                let about_applications = metric.dimensions.iter().any(|(n, _)| n.starts_with("ApplicationInstance"));
                metric.namespace == NAMESPACE && !about_applications && named == [device_id]
            }
        }
    }

    /// `Arn` of GetCallerIdentity.
    pub fn arn(&self, account: &str) -> String {
        match self {
            Caller::Administrator { .. } => format!("arn:aws:iam::{account}:user/administrator"),
            Caller::Device { device_id, .. } => {
                format!("arn:aws:sts::{account}:assumed-role/belvedere-appliance/{device_id}")
            }
            Caller::Role { role, session_name, .. } => format!("arn:aws:sts::{account}:assumed-role/{role}/{session_name}"),
        }
    }

    /// `UserId` of GetCallerIdentity.
    pub fn user_id(&self) -> String {
        match self {
            Caller::Role { role_id, session_name, .. } => format!("{role_id}:{session_name}"),
            other => other.access_key_id().to_owned(),
        }
    }

    /// Whether a log group is the caller's: a device has its own group and those of its application instances.
    pub fn may_use_log_group(&self, group: &str) -> bool {
        match self {
            // Administrators may use all; what a role may use was decided before.
            Caller::Administrator { .. } | Caller::Role { .. } => true,
            Caller::Device { device_id, .. } => device_log_group(device_id, group),
        }
    }
}

/// Whether a log group is a device's own, or one of its application instances'.
pub fn device_log_group(device_id: &str, group: &str) -> bool {
    let own = format!("/aws/panorama/devices/{device_id}");
    group == own || group.strip_prefix(&format!("{own}/applications/")).is_some_and(|id| !id.is_empty() && !id.contains('/'))
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

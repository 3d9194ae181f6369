//! The fleet's own metrics, under the names that the developer guide gives them. They are what the service sees: a
//! device need not send them, and cannot forge another's.

use belvedere_store::metrics::{MetricName, Sample, Sum};

/// Namespace of what concerns devices.
pub const NAMESPACE: &str = "PanoramaDeviceMetrics";

/// `DeviceActive`: 1 for each minute in which the device was connected; nothing for the others.
pub fn device_active(device_id: &str, device_name: &str, time_ms: i64) -> Sample {
    let dimensions = vec![("DeviceId".to_owned(), device_id.to_owned()), ("DeviceName".to_owned(), device_name.to_owned())];
    let metric = MetricName::new(NAMESPACE, "DeviceActive", dimensions);
    Sample { metric, unit: "Count".into(), time_ms, sum: Sum::one(1.0) }
}

/// `ApplicationErrors`: 1 for each minute in which the device reported an error of the application, 0 for each in which
/// it ran without one; nothing while nobody knows. An alarm can thus tell "errors" from "silent".
pub fn application_errors(name: Option<&str>, id: &str, error: bool, time_ms: i64) -> Sample {
    let name = name.filter(|n| !n.is_empty()).unwrap_or(id);
    let dimensions =
        vec![("ApplicationInstanceName".to_owned(), name.to_owned()), ("ApplicationInstanceId".to_owned(), id.to_owned())];
    let metric = MetricName::new(NAMESPACE, "ApplicationErrors", dimensions);
    Sample { metric, unit: "Count".into(), time_ms, sum: Sum::one(f64::from(u8::from(error))) }
}

//! What devices report (the `reported` halves of their shadows) becomes what the API shows.

use crate::metrics::application_errors;
use crate::{Fleet, FleetError};
use belvedere_device_protocol::ApplicationReport;
use belvedere_device_protocol::shadow::{APPLICATIONS, DEVICE, DeviceState};
use belvedere_store::devices::{Device, LEASE_MS};
use belvedere_store::metrics::Meeting;
use belvedere_store::now_ms;
use serde_json::{Value, json};

/// How often a device that has nothing new to say renews its lease.
const RENEWAL_MS: i64 = 60_000;
/// Statuses after which an instance is gone from the device.
const REMOVED: &str = "REMOVAL_SUCCEEDED";

/// What a status means, for a device that has nothing to add: the API always says something.
fn in_words(status: &str) -> &'static str {
    match status {
        "DEPLOYMENT_SUCCEEDED" => "The application runs.",
        "DEPLOYMENT_ERROR" | "DEPLOYMENT_FAILED" => "The appliance could not deploy the application.",
        "REMOVAL_SUCCEEDED" => "The application was removed from the appliance.",
        "REMOVAL_FAILED" => "The appliance could not remove the application.",
        "REMOVAL_PENDING" | "REMOVAL_REQUESTED" | "REMOVAL_IN_PROGRESS" => "The appliance removes the application.",
        _ => "The appliance deploys the application.",
    }
}

/// Whether a report is to be written into the device's row: when it says something new, and once a minute because the
/// device was in touch. Its words are in the shadow in any case.
fn is_news(device: &Device, version: &str, network: &Value, now: i64) -> bool {
    let known = device.software_version.as_deref() == Some(version) && device.network_status.as_ref() == Some(network);
    let in_touch_ms = device.lease_expires_ms.map(|expires| expires - LEASE_MS);
    !known || in_touch_ms.is_none_or(|at| now - at >= RENEWAL_MS)
}

impl Fleet {
    /// A thing changed the reported half of one of its shadows.
    pub(crate) async fn reported(&self, thing: &str, shadow: &str) -> Result<(), FleetError> {
        match shadow {
            DEVICE => self.device_reported(thing).await,
            APPLICATIONS => self.applications_reported(thing).await,
            _ => Ok(()),
        }
    }

    async fn device_reported(&self, thing: &str) -> Result<(), FleetError> {
        let reported = self.shadow_half(thing, DEVICE, "reported").await?;
        let state: DeviceState = match serde_json::from_value(Value::Object(reported)) {
            Ok(state) => state,
            Err(e) => {
                tracing::warn!(thing, "the reported device state is not understood: {e}");
                return Ok(());
            }
        };
        let Some(device) = self.store.device_of_thing(thing).await? else { return Ok(()) };
        let mut version: String = state.software_version.chars().take(255).collect();
        if version.is_empty() {
            version = "NOT_AVAILABLE".into();
        }
        let network = serde_json::to_value(&state.network).unwrap_or_default();
        if !is_news(&device, &version, &network, now_ms()) {
            return Ok(());
        }
        Ok(self.store.set_device_state(&device.device_id, &version, &network).await?)
    }

    async fn applications_reported(&self, thing: &str) -> Result<(), FleetError> {
        let Some(device) = self.store.device_of_thing(thing).await? else { return Ok(()) };
        let reported = self.shadow_half(thing, APPLICATIONS, "reported").await?;
        let Some(Value::Object(instances)) = reported.get("instances") else { return Ok(()) };
        let mut gone = serde_json::Map::new();
        for (id, value) in instances {
            let mut report: ApplicationReport = match serde_json::from_value(value.clone()) {
                Ok(report) => report,
                Err(e) => {
                    tracing::warn!(thing, application_instance_id = id, "the report is not understood: {e}");
                    continue;
                }
            };
            if report.application_instance_id != *id {
                tracing::warn!(thing, application_instance_id = id, "the report is about another instance");
                continue;
            }
            if let Some(word) = report.unknown_word() {
                tracing::warn!(
                    thing,
                    application_instance_id = id,
                    "the report says {:?}, which means nothing",
                    word.get(..40).unwrap_or(word)
                );
                continue;
            }
            if report.status_description.trim().is_empty() {
                report.status_description = in_words(&report.status).to_owned();
            }
            self.store.apply_report(&device.device_id, &report).await?;
            self.note_error(&device.device_id, &report).await?;
            if report.status == REMOVED {
                gone.insert(id.clone(), Value::Null);
            }
        }
        // Reported once is enough: what is gone would stay in the shadow for ever.
        if !gone.is_empty() {
            self.update_shadow(thing, APPLICATIONS, json!({ "reported": { "instances": gone } })).await?;
        }
        Ok(())
    }

    /// An error that a device reports counts at once: by the next look at the application it may be over.
    async fn note_error(&self, device_id: &str, report: &ApplicationReport) -> Result<(), FleetError> {
        if report.health != "ERROR" {
            return Ok(());
        }
        let known = self.store.application_instance(&report.application_instance_id).await?;
        if let Some(known) = known.filter(|k| k.device_id == device_id && k.health == "ERROR") {
            let sample = application_errors(known.name.as_deref(), &known.id, true, now_ms());
            self.store.put_samples(&[sample], Meeting::Greatest).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_report_is_written_once_a_minute_and_a_new_one_at_once() {
        let device = |version: Option<&str>, lease_expires_ms| Device {
            sequence: 1,
            device_id: "device-a".into(),
            name: "a".into(),
            thing_name: "a".into(),
            description: None,
            tags: Default::default(),
            networking: None,
            provisioning_status: "SUCCEEDED".into(),
            created_ms: 0,
            updated_ms: 0,
            serial_number: None,
            software_version: version.map(str::to_owned),
            network_status: Some(json!({})),
            network_status_ms: Some(0),
            lease_expires_ms,
            connected: true,
        };
        let now = 10_000_000;
        let news = |version, in_touch_ms: i64, network| {
            is_news(&device(version, Some(in_touch_ms + LEASE_MS)), "1.0.0", &network, now)
        };
        assert!(!news(Some("1.0.0"), now - RENEWAL_MS + 1, json!({})));
        assert!(news(Some("1.0.0"), now - RENEWAL_MS, json!({})));
        assert!(news(Some("0.9.0"), now, json!({})) && news(None, now, json!({})));
        assert!(news(Some("1.0.0"), now, json!({ "NtpStatus": {} })));
        assert!(is_news(&device(Some("1.0.0"), None), "1.0.0", &json!({}), now));
    }
}

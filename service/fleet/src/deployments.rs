//! Which application instances a device should run: the `desired` half of its applications' shadow.

use crate::{Fleet, FleetError};
use belvedere_device_protocol::shadow::{APPLICATIONS, DeploymentReference};
use belvedere_device_protocol::{NodeSignal, objects};
use belvedere_store::application_instances::ApplicationInstance;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Fleet {
    /// What a device is told about an instance.
    pub fn reference(&self, instance: &ApplicationInstance, signals: BTreeMap<String, NodeSignal>) -> DeploymentReference {
        DeploymentReference {
            bucket: self.settings.bucket.clone(),
            key: objects::deployment_key(&self.settings.account, &instance.device_id, &instance.id),
            sha256: instance.document_sha256.clone(),
            signals,
        }
    }

    /// Asks a thing to run and to remove instances, in one update.
    pub async fn desire(
        &self,
        thing: &str,
        run: &[(String, DeploymentReference)],
        remove: &[String],
    ) -> Result<(), FleetError> {
        let mut instances = Map::new();
        for (id, reference) in run {
            instances.insert(id.clone(), serde_json::to_value(reference).unwrap_or_default());
        }
        for id in remove {
            instances.insert(id.clone(), Value::Null);
        }
        self.update_shadow(thing, APPLICATIONS, json!({ "desired": { "instances": instances } })).await
    }

    /// Asks again for what a request had stored but could not ask for before the service was ended. At the start; how
    /// many devices it concerned.
    pub async fn ask_again(&self) -> Result<usize, FleetError> {
        let mut of_devices: BTreeMap<String, Vec<ApplicationInstance>> = BTreeMap::new();
        for instance in self.store.living_application_instances().await? {
            of_devices.entry(instance.device_id.clone()).or_default().push(instance);
        }
        let mut concerned = 0;
        for (device_id, instances) in of_devices {
            let Some(device) = self.store.device(&device_id).await? else { continue };
            let desired = self.shadow_half(&device.thing_name, APPLICATIONS, "desired").await?;
            let desired = desired.get("instances").cloned().unwrap_or_default();
            let (mut run, mut remove) = (Vec::new(), Vec::new());
            for instance in instances {
                match (instance.removed, desired.get(&instance.id)) {
                    (true, Some(_)) => remove.push(instance.id),
                    (true, None) => {}
                    (false, known) => {
                        let reference = self.reference(&instance, self.store.node_signals(&instance.id).await?);
                        if known != serde_json::to_value(&reference).ok().as_ref() {
                            run.push((instance.id, reference));
                        }
                    }
                }
            }
            if !run.is_empty() || !remove.is_empty() {
                self.desire(&device.thing_name, &run, &remove).await?;
                concerned += 1;
            }
        }
        Ok(concerned)
    }
}

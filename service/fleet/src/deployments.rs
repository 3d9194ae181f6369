//! Which application instances a device should run: the `desired` half of its applications' shadow.

use crate::{Fleet, FleetError};
use belvedere_device_protocol::shadow::{APPLICATIONS, DeploymentReference};
use serde_json::{Map, Value, json};

impl Fleet {
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
}

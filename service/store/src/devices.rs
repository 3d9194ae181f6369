//! Devices of the fleet.

use crate::certificates::{Certificate, add_claim};
use crate::database::{DatabaseRow, flag};
use crate::error::{stored, text};
use crate::releases::Releases;
use crate::{Store, StoreError, now_ms};
use serde_json::Value;
use sqlx::Row;
use std::collections::BTreeMap;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

/// How long a contact keeps a device's lease.
pub const LEASE_MS: i64 = 5 * 24 * 3600 * 1000;

/// A device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Grows with creation: the tie-break of lists.
    pub sequence: i64,
    /// `device-…`.
    pub device_id: String,
    /// Unique among living devices.
    pub name: String,
    /// Its name on MQTT.
    pub thing_name: String,
    /// For people.
    pub description: Option<String>,
    /// Tags.
    pub tags: Tags,
    /// `NetworkPayload` as given.
    pub networking: Option<Value>,
    /// `AWAITING_PROVISIONING`, `PENDING`, `SUCCEEDED`, ….
    pub provisioning_status: String,
    /// When it was made.
    pub created_ms: i64,
    /// When anything about it changed.
    pub updated_ms: i64,
    /// As the device gave it.
    pub serial_number: Option<String>,
    /// As the device reported it.
    pub software_version: Option<String>,
    /// `NetworkStatus` as reported.
    pub network_status: Option<Value>,
    /// When it was reported.
    pub network_status_ms: Option<i64>,
    /// Until when it counts as in touch.
    pub lease_expires_ms: Option<i64>,
    /// Whether its MQTT connection stands.
    pub connected: bool,
}

/// What is needed for a new device.
pub struct NewDevice<'a> {
    /// `device-…`.
    pub device_id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its name on MQTT.
    pub thing_name: &'a str,
    /// For people.
    pub description: Option<&'a str>,
    /// Tags.
    pub tags: &'a Tags,
    /// `NetworkPayload` as given.
    pub networking: Option<&'a Value>,
}

fn device(row: &DatabaseRow) -> Result<Device, StoreError> {
    let error = |e| StoreError::database("read a device", e);
    let json = |column: &str| -> Result<Option<Value>, StoreError> {
        row.try_get::<Option<String>, _>(column).map_err(error)?.map(|t| stored("a device", &t)).transpose()
    };
    Ok(Device {
        sequence: row.try_get("sequence").map_err(error)?,
        device_id: row.try_get("device_id").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        thing_name: row.try_get("thing_name").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        tags: stored("a device's tags", row.try_get("tags").map_err(error)?)?,
        networking: json("networking")?,
        provisioning_status: row.try_get("provisioning_status").map_err(error)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
        serial_number: row.try_get("serial_number").map_err(error)?,
        software_version: row.try_get("software_version").map_err(error)?,
        network_status: json("network_status")?,
        network_status_ms: row.try_get("network_status_ms").map_err(error)?,
        lease_expires_ms: row.try_get("lease_expires_ms").map_err(error)?,
        connected: flag(row, "connected").map_err(error)?,
    })
}

impl Store {
    /// Adds a device in `AWAITING_PROVISIONING`; [`StoreError::Exists`] if the name is taken.
    pub async fn create_device(&self, new: NewDevice<'_>) -> Result<(), StoreError> {
        self.add_device(new, None).await
    }

    /// Adds a device together with the claim with which it comes.
    pub async fn create_device_with_claim(&self, new: NewDevice<'_>, claim: Certificate) -> Result<(), StoreError> {
        self.add_device(new, Some(claim)).await
    }

    async fn add_device(&self, new: NewDevice<'_>, claim: Option<Certificate>) -> Result<(), StoreError> {
        let (device_id, name, thing_name) = (new.device_id.to_owned(), new.name.to_owned(), new.thing_name.to_owned());
        let (description, tags, networking) = (new.description.map(str::to_owned), text(new.tags), new.networking.map(text));
        let now = now_ms();
        let created = self.change(None, move |connection| {
            Box::pin(async move {
                let device = sqlx::query(
                    "INSERT INTO device (device_id, name, thing_name, description, tags, networking, provisioning_status, \
                     created_ms, updated_ms) VALUES ($1, $2, $3, $4, $5, $6, 'AWAITING_PROVISIONING', $7, $7)",
                );
                let device =
                    device.bind(device_id).bind(name).bind(thing_name).bind(description).bind(tags).bind(networking);
                device.bind(now).execute(&mut *connection).await?;
                match claim {
                    Some(claim) => add_claim(connection, &claim, now).await,
                    None => Ok(()),
                }
            })
        });
        created.await.map_err(|e| StoreError::insert("store a device", new.name, e))
    }

    /// By identifier.
    pub async fn device(&self, device_id: &str) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query("SELECT * FROM device WHERE device_id = $1").bind(device_id).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a device", e))?.as_ref().map(device).transpose()
    }

    /// By its name on MQTT.
    pub async fn device_of_thing(&self, thing_name: &str) -> Result<Option<Device>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM device WHERE thing_name = $1").bind(thing_name).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a thing", e))?.as_ref().map(device).transpose()
    }

    /// All of them, newest first.
    pub async fn list_devices(&self) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query("SELECT * FROM device ORDER BY sequence DESC").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list devices", e))?.iter().map(device).collect()
    }

    /// Removes a device with its certificates and shadows, which releases its appliance; false if there was none.
    pub async fn delete_device(&self, device_id: &str) -> Result<bool, StoreError> {
        self.release_device(device_id, Releases::Standing).await
    }

    /// No connection survives a backup, and no copy of the service that had one.
    pub async fn forget_connections(&self) -> Result<(), StoreError> {
        let error = |e| StoreError::database("forget connections", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        for sql in ["UPDATE device SET connected = 0 WHERE connected = 1", "DELETE FROM service_copy"] {
            sqlx::query(sql).execute(&mut *transaction).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// What the device says about itself; renews its lease.
    pub async fn set_device_state(
        &self,
        device_id: &str,
        software_version: &str,
        network_status: &Value,
    ) -> Result<(), StoreError> {
        let (device_id, version, network) = (device_id.to_owned(), software_version.to_owned(), text(network_status));
        let now = now_ms();
        let stored = self.change(None, move |connection| {
            Box::pin(async move {
                let stored = sqlx::query(
                    "UPDATE device SET software_version = $1, network_status = $2, network_status_ms = $3, \
                     lease_expires_ms = $4, updated_ms = $5 WHERE device_id = $6",
                );
                let stored = stored.bind(version).bind(network).bind(now).bind(now + LEASE_MS).bind(now).bind(device_id);
                stored.execute(connection).await.map(drop)
            })
        });
        stored.await.map_err(|e| StoreError::database("store a device's state", e))
    }
}

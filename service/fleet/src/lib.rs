//! The fleet: which devices there are, how they prove who they are, and what they are told.
//!
//! | module | one idea |
//! |---|---|
//! | [`accept`] | the accept loop of every port |
//! | [`authority`] | the device certificate authority signs servers, claims and devices |
//! | [`identity`] | a client certificate becomes a device, or nothing |
//! | [`topics`] | what an identity may publish and subscribe to (pure) |
//! | [`shadow`] | what an update does to a shadow document (pure) |
//! | [`shadows`] | shadows on topics: get, update, delete, and who hears of it |
//! | [`provisioning`] | a claim becomes a device certificate |
//! | [`reports`] | what devices report becomes what the API shows |
//! | [`deployments`] | which application instances a device should run |
//! | [`job`] | what an update does to a job (pure) |
//! | [`jobs`] | jobs on topics: next, update, and when the device is told |
//! | [`credentials`] | short-lived keys of a device |
//! | [`hub`], [`broker`] | MQTT: who is connected, one task per connection |
//! | [`tls`] | TLS settings |

pub mod accept;
pub mod authority;
pub mod broker;
pub mod credentials;
pub mod deployments;
mod error;
pub mod hub;
pub mod identity;
pub mod job;
pub mod jobs;
pub mod provisioning;
pub mod reports;
pub mod shadow;
pub mod shadows;
pub mod tls;
pub mod topics;

pub use error::FleetError;

use authority::Authority;
use belvedere_device_protocol::{Endpoint, Endpoints};
use belvedere_store::Store;
use hub::Hub;
use std::sync::Arc;

/// What a service is: one account in one region, with one bucket.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Twelve digits.
    pub account: String,
    /// `us-east-1`.
    pub region: String,
    /// Where packages and deployments are.
    pub bucket: String,
    /// How appliances reach the service.
    pub endpoints: Endpoints,
}

/// A host and a port at which appliances reach the service.
pub fn endpoint(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

/// How appliances reach the service.
pub fn endpoints(mqtt: Endpoint, https: Endpoint, region: &str) -> Endpoints {
    Endpoints { mqtt, https, region: region.to_owned() }
}

/// The fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    /// What is remembered.
    pub store: Store,
    /// What the service is.
    pub settings: Arc<Settings>,
    authority: Arc<Authority>,
    hub: Arc<Hub>,
}

impl Fleet {
    /// A fleet with nobody connected.
    pub fn new(store: Store, settings: Settings, authority: Arc<Authority>) -> Fleet {
        Fleet { store, settings: Arc::new(settings), authority, hub: Arc::new(Hub::default()) }
    }

    /// Who is connected.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Deletes a device and cuts its connections; false if there was none.
    pub async fn delete_device(&self, device_id: &str) -> Result<bool, FleetError> {
        let Some(device) = self.store.device(device_id).await? else { return Ok(false) };
        let deleted = self.store.delete_device(device_id).await?;
        self.hub.disconnect(&device.thing_name);
        self.hub.disconnect(&identity::claim_name(device_id));
        Ok(deleted)
    }
}

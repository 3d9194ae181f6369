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
//! | [`job`] | what a device may ask of a job, and what that does (pure) |
//! | [`jobs`] | jobs on topics: what is asked, what is answered, when the device is told |
//! | [`metrics`] | the fleet's own metrics |
//! | `copies` | several copies of the service tell each other of their clients |
//! | [`credentials`] | short-lived keys of a device |
//! | [`broker`] | MQTT: one task per connection, and the rules |
//! | [`link`] | a connection's bytes become packets |
//! | [`message`] | a message in either version of MQTT (pure) |
//! | `delivery` | who hears a message, and where it waits |
//! | `outbox` | what one connection sends, and what it waits for |
//! | [`hub`] | who is connected |
//! | [`external`] | an external broker instead of our own: mosquitto with its dynamic-security plug-in |
//! | `requests` | what a client asks by publishing, whichever broker it came through |
//! | `watch` | what is looked at again and again: revoked certificates, ended sessions, overdue jobs |
//! | [`panics`] | a panic ends the work that it was met in, and nothing else |
//! | [`tls`] | TLS settings |

pub mod accept;
pub mod authority;
pub mod broker;
mod copies;
pub mod credentials;
mod delivery;
pub mod deployments;
mod error;
pub mod external;
pub mod hub;
pub mod identity;
pub mod job;
pub mod jobs;
pub mod link;
pub mod message;
pub mod metrics;
mod outbox;
mod pace;
pub mod panics;
pub mod provisioning;
pub mod reports;
mod requests;
pub mod shadow;
pub mod shadows;
pub mod tls;
pub mod topics;
mod watch;
mod wills;

pub use error::FleetError;

use authority::Authority;
use belvedere_device_protocol::{Endpoint, Endpoints};
use belvedere_store::Store;
use external::External;
use hub::Hub;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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
    writers: Arc<delivery::Writers>,
    asking: Arc<credentials::Asking>,
    copies: Arc<AtomicU64>,
    external: Option<Arc<External>>,
    wills: Arc<wills::Wills>,
}

impl Fleet {
    /// A fleet with nobody connected.
    pub fn new(store: Store, settings: Settings, authority: Arc<Authority>) -> Fleet {
        Fleet {
            store,
            settings: Arc::new(settings),
            authority,
            hub: Arc::default(),
            writers: Arc::default(),
            asking: Arc::default(),
            copies: Arc::new(AtomicU64::new(1)),
            external: None,
            wills: Arc::default(),
        }
    }

    /// The same fleet, its devices at an external broker.
    pub fn with_broker(self, external: External) -> Fleet {
        Fleet { external: Some(Arc::new(external)), ..self }
    }

    /// Who is connected.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Locks a device out: its certificates are revoked and its connection is cut. False if none stood.
    pub async fn revoke_device(&self, device_id: &str) -> Result<bool, FleetError> {
        let Some(device) = self.store.device(device_id).await? else { return Ok(false) };
        let revoked = self.store.revoke_certificates(device_id).await?;
        self.hub.disconnect(&device.thing_name);
        self.hub.disconnect(&identity::claim_name(device_id));
        self.dismiss_from_broker(&device.thing_name).await;
        Ok(revoked)
    }

    /// Deletes a device and cuts its connections; false if there was none. Its appliance, which then asks over HTTPS what
    /// became of it, hears that it is free ([`Fleet::released`]).
    pub async fn delete_device(&self, device_id: &str) -> Result<bool, FleetError> {
        let Some(device) = self.store.device(device_id).await? else { return Ok(false) };
        self.cancel_jobs(&device).await?;
        let deleted = self.store.delete_device(device_id).await?;
        self.hub.disconnect(&device.thing_name);
        self.hub.disconnect(&identity::claim_name(device_id));
        self.dismiss_from_broker(&device.thing_name).await;
        Ok(deleted)
    }
}

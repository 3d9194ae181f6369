//! What an appliance and its service say to each other.
//!
//! The topics and envelopes are those that AWS IoT Core documents (fleet provisioning by claim, named shadows), so
//! that an appliance can be attached to AWS IoT Core as well; what is inside the shadows is ours.
//!
//! - MQTT 3.1.1 over TLS 1.3 with a client certificate; the certificate's common name is the thing name (a claim
//!   certificate's is `claim-<device id>`), and the client identifier must equal it. A service with a broker of its own
//!   beside it names that one when the device is registered ([`provisioning::Broker`]).
//! - HTTPS on the service's device port: `GET /role-aliases/belvedere-appliance/credentials` with the device
//!   certificate (and the header `x-amzn-iot-thingname`) answers [`credentials::CredentialsReply`]; with those keys the
//!   appliance reads objects (S3, path style) and puts log events (CloudWatch Logs) at the same port, signed with SigV4.
//!   `GET /role-aliases/<application instance>/credentials` answers keys of that application's own role.
//! - Object keys of one device: [`objects`].

pub mod credentials;
pub mod deployment;
pub mod jobs;
pub mod network;
pub mod provisioning;
pub mod shadow;

pub use deployment::*;
pub use network::*;

use serde::{Deserialize, Serialize};

/// Where the service is, as the appliance reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// MQTT over TLS.
    pub mqtt: Endpoint,
    /// HTTPS: credentials, objects, logs.
    pub https: Endpoint,
    /// Signing region.
    pub region: String,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name or address; must be among the certificate's alternative names.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where a device's own objects are in the service's bucket.
pub mod objects {
    /// The key of the deployment document of an application instance.
    pub fn deployment_key(account: &str, device_id: &str, application_instance_id: &str) -> String {
        format!("{account}/devices/{device_id}/deployments/{application_instance_id}.json")
    }
}

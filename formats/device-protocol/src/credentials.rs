//! AWS IoT Core's credentials provider.
//!
//! Two kinds of aliases: [`APPLIANCE_ROLE_ALIAS`] gives the appliance its own keys; the identifier of an application
//! instance gives keys of the role that the instance was created with (`RuntimeRoleArn`), as long as the service wants
//! that instance on that appliance and the role trusts `panorama.amazonaws.com`. Anything else is 403: the appliance
//! answers its application's request for credentials with an error then.
//!
//! Ours alone: a device that was deleted is answered 410 with [`ReleasedReply`], over a connection that both certificates
//! vouch for. Its appliance then gives its identity up, and takes the stick of any service.

use serde::{Deserialize, Serialize};

/// The role alias of the appliance itself.
pub const APPLIANCE_ROLE_ALIAS: &str = "belvedere-appliance";

/// The alias of an application instance's role: its identifier.
pub fn application_role_alias(application_instance_id: &str) -> &str {
    application_instance_id
}

/// The path of the credentials of an alias.
pub fn credentials_path(alias: &str) -> String {
    format!("/role-aliases/{alias}/credentials")
}

/// `GET /role-aliases/<alias>/credentials` over mutual TLS.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsReply {
    /// The keys.
    pub credentials: Credentials,
}

/// Short-lived keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Access key.
    pub access_key_id: String,
    /// Never logged.
    pub secret_access_key: String,
    /// Session token.
    pub session_token: String,
    /// `2026-11-22T12:00:00Z`.
    pub expiration: String,
}

/// The status of [`ReleasedReply`].
pub const RELEASED_STATUS: u16 = 410;

/// The service deleted this device, and its appliance is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedReply {
    /// For people.
    pub message: String,
    /// What is released.
    pub release: Release,
}

/// Which identity is released: that of the certificate that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The thing.
    pub thing_name: String,
    /// The device.
    pub device_id: String,
}

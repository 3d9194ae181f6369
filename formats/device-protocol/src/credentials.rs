//! AWS IoT Core's credentials provider.
//!
//! Two kinds of aliases: [`APPLIANCE_ROLE_ALIAS`] gives the appliance its own keys; the identifier of an application
//! instance gives keys of the role that the instance was created with (`RuntimeRoleArn`), as long as the service wants
//! that instance on that appliance and the role trusts `panorama.amazonaws.com`. Anything else is 403: the appliance
//! answers its application's request for credentials with an error then.

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

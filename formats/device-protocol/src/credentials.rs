//! AWS IoT Core's credentials provider.

use serde::{Deserialize, Serialize};

/// The role alias of the appliance itself.
pub const APPLIANCE_ROLE_ALIAS: &str = "belvedere-appliance";

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

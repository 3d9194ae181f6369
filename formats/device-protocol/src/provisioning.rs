//! Fleet provisioning by claim: AWS IoT Core's "CreateCertificateFromCsr" and "RegisterThing" over MQTT.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the one provisioning template.
pub const TEMPLATE: &str = "belvedere-appliance";
/// Publish [`CreateFromCsr`] here; the answer comes at this topic and `/accepted` or `/rejected`.
pub const CREATE_FROM_CSR: &str = "$aws/certificates/create-from-csr/json";

/// Publish [`RegisterThing`] here; likewise.
pub fn register_thing_topic(template: &str) -> String {
    format!("$aws/provisioning-templates/{template}/provision/json")
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateFromCsr {
    /// PEM, PKCS#10.
    pub certificate_signing_request: String,
}

/// Accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateCreated {
    /// Proves the ownership in [`RegisterThing`]; good for a few minutes.
    pub certificate_ownership_token: String,
    /// Identifier.
    pub certificate_id: String,
    /// The device certificate, PEM. Not active before the thing is registered.
    pub certificate_pem: String,
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterThing {
    /// From [`CertificateCreated`].
    pub certificate_ownership_token: String,
    /// `SerialNumber`, `SoftwareVersion`.
    pub parameters: BTreeMap<String, String>,
}

/// Accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThingRegistered {
    /// Must be the certificate's common name.
    pub thing_name: String,
    /// Nothing yet.
    #[serde(default)]
    pub device_configuration: BTreeMap<String, String>,
}

/// Rejected, for both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// HTTP-like.
    pub status_code: u16,
    /// Word.
    pub error_code: String,
    /// For people.
    pub error_message: String,
}

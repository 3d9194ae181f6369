//! The provisioning archive: `certificates-omni_<name>.zip`, made by the service in `ProvisionDevice`, carried by a
//! person on a USB stick, read by the appliance.
//!
//! # Format, version 1
//!
//! A ZIP file (stored or deflated, no encryption, no comment) with exactly four entries:
//!
//! | entry | content |
//! |---|---|
//! | `configuration.json` | [`Configuration`] |
//! | `claim.certificate.pem` | one X.509 certificate whose common name is the claim client identifier |
//! | `claim.private-key.pem` | its private key, PKCS#8 |
//! | `service-ca.pem` | the authorities (1 to 8 certificates) that the service's certificate must come from |
//!
//! Somebody may have packed it anew, because a browser had unpacked it: the four may be in a folder, with the litter of their
//! system beside them, and text may begin with a byte order mark. ZIP64 and data descriptors are read, too.
//!
//! The appliance believes nothing about a stick: [`parse`] is strict and bounded by [`Limits`]. It is pure, and it
//! never panics (there is a property test and a fuzz target). What goes wrong is an [`ArchiveError`] with a stable
//! reason code and one line that tells the operator what to do.

mod choose;
mod configuration;
mod directory;
mod error;
mod layout;
mod parse;
mod text;
mod unpack;
mod write;

pub use choose::{Listed, choose, is_archive_name};
pub use error::ArchiveError;
pub use parse::{Limits, parse};
pub use write::write;

use belvedere_device_protocol::{Endpoints, NetworkConfiguration};
use serde::{Deserialize, Serialize};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What the archive's file name begins with.
pub const FILE_NAME_PREFIX: &str = "certificates-omni_";
/// What the archive's file name ends with.
pub const FILE_NAME_SUFFIX: &str = ".zip";

/// Entry names.
pub mod entries {
    /// [`super::Configuration`] as JSON.
    pub const CONFIGURATION: &str = "configuration.json";
    /// Certificate of the claim.
    pub const CLAIM_CERTIFICATE: &str = "claim.certificate.pem";
    /// Private key of the claim.
    pub const CLAIM_PRIVATE_KEY: &str = "claim.private-key.pem";
    /// Authorities of the service.
    pub const SERVICE_CA: &str = "service-ca.pem";
    /// All of them, in the order in which they are written.
    pub const ALL: [&str; 4] = [CONFIGURATION, CLAIM_CERTIFICATE, CLAIM_PRIVATE_KEY, SERVICE_CA];
}

/// The name of the archive for a device name: characters other than letters, digits, `-` and `_` become `_`.
pub fn file_name(device_name: &str) -> String {
    let name: String = device_name
        .chars()
        .take(200)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
        .collect();
    format!("{FILE_NAME_PREFIX}{name}{FILE_NAME_SUFFIX}")
}

/// Everything an appliance needs to find its service and ask for an identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Archive {
    /// What is not a certificate or a key.
    pub configuration: Configuration,
    /// PEM; the claim is good for a few minutes.
    pub claim_certificate_pem: String,
    /// PEM, PKCS#8; never logged.
    pub claim_private_key_pem: String,
    /// PEM, one or more certificates.
    pub service_ca_pem: String,
}

impl Archive {
    /// Whether the claim has ended at `now` (seconds since 1970).
    pub fn claim_expired(&self, now: i64) -> bool {
        now >= self.configuration.claim_expires
    }
}

impl core::fmt::Debug for Archive {
    // The key never reaches a log line.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Archive").field("configuration", &self.configuration).finish_non_exhaustive()
    }
}

/// `configuration.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// `device-…`.
    pub device_id: String,
    /// As given to `ProvisionDevice`.
    pub device_name: String,
    /// MQTT client identifier of the claim, and the common name of its certificate: `claim-<device id>`.
    pub claim_client_id: String,
    /// Where the service is.
    #[serde(deserialize_with = "configuration::strict_endpoints")]
    pub endpoints: Endpoints,
    /// As given to `ProvisionDevice`; a missing port is DHCP.
    pub network: NetworkConfiguration,
    /// Provisioning template to register with.
    pub provisioning_template: String,
    /// When the claim ends, seconds since 1970.
    pub claim_expires: i64,
    /// When the archive was made, seconds since 1970; an appliance whose clock is behind sets it to this.
    pub issued: i64,
}

#[cfg(test)]
mod field_cases;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

//! `org.belvedere.Provisioning`: the appliance's identity. Served by `provisioning`.

use crate::{Done, Method};
use belvedere_device_protocol::Endpoints;
use serde::{Deserialize, Serialize};

/// The identity, for the agent alone ([`crate::rights`]). Fails with `not_provisioned` before that, and with
/// [`RELEASED`] between [`Release`] and [`FinishRelease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetIdentity {}
impl Method for GetIdentity {
    const NAME: &'static str = "org.belvedere.Provisioning.GetIdentity";
    type Reply = Identity;
}

/// Reason of [`GetIdentity`]'s failure: the appliance was released, and the earlier owner's applications are to be removed.
pub const RELEASED: &str = "released";

/// The service has released the appliance: its identity is given up, durably, when the answer comes. For the agent alone,
/// which heard it from the service that the identity names. Done again it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Whose release it is; another one is refused.
    pub thing_name: String,
    /// Likewise.
    pub generation: u64,
}
impl Method for Release {
    const NAME: &'static str = "org.belvedere.Provisioning.Release";
    type Reply = Done;
}

/// Nothing of the earlier owner is left: from now on any service's stick is taken. For the agent alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRelease {}
impl Method for FinishRelease {
    const NAME: &'static str = "org.belvedere.Provisioning.FinishRelease";
    type Reply = Done;
}

/// Who this appliance is, and where its service is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `device-…`.
    pub device_id: String,
    /// `panorama_<device name>_Thing_<8 hexadecimal digits>`.
    pub thing_name: String,
    /// Where the service is.
    pub endpoints: Endpoints,
    /// The authority that the service's certificate must come from, PEM.
    pub service_ca_pem: String,
    /// Device certificate and its chain, PEM.
    pub certificate_pem: String,
    /// Its key, PKCS#8 PEM. In the TPM in a later release.
    pub private_key_pem: String,
    /// What the broker asks for beside the certificate, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt_password: Option<String>,
    /// Counts provisionings; a change means: start over with the new identity.
    pub generation: u64,
}

impl core::fmt::Debug for Identity {
    // Neither the key nor the password reaches a log line.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identity")
            .field("device_id", &self.device_id)
            .field("thing_name", &self.thing_name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

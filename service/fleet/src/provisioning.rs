//! From nothing to a device certificate: fleet provisioning by claim, as AWS IoT Core documents it.
//!
//! 1. `ProvisionDevice` makes a device and a claim certificate (five minutes, one use) in an archive.
//! 2. With the claim, the appliance sends a request for a certificate; the certificate comes back *pending*, with a
//!    token.
//! 3. With the claim and the token, it registers: in one transaction the certificate becomes the device's only active
//!    one and the claim is consumed. A power cut before this leaves the claim as good as before.

use crate::authority::CLAIM_VALIDITY_MS;
use crate::identity::{Identity, claim_name};
use crate::message::Message;
use crate::{Fleet, FleetError};
use belvedere_device_protocol::NetworkConfiguration;
use belvedere_device_protocol::provisioning::{
    CREATE_FROM_CSR, CertificateCreated, CreateFromCsr, RegisterThing, Rejected, TEMPLATE, ThingRegistered,
    register_thing_topic,
};
use belvedere_provisioning_archive::{Archive, Configuration, FORMAT_VERSION};
use belvedere_store::certificates::{Certificate, CertificateKind};
use belvedere_store::devices::{NewDevice, Tags};
use belvedere_store::{identifiers, now_ms};
use serde::Serialize;

/// How long an ownership token is good, milliseconds.
const TOKEN_MS: i64 = 5 * 60 * 1000;

/// What `ProvisionDevice` is given, validated.
pub struct NewAppliance<'a> {
    /// Unique.
    pub name: &'a str,
    /// For people.
    pub description: Option<&'a str>,
    /// Tags.
    pub tags: &'a Tags,
    /// As given.
    pub networking: Option<&'a serde_json::Value>,
    /// The same, typed.
    pub network: NetworkConfiguration,
}

/// Longest name on MQTT that the API's model allows, characters.
const MAX_THING_NAME: usize = 255;

/// What `ProvisionDevice` gives.
pub struct Provisioned {
    /// `device-…`.
    pub device_id: String,
    /// Its name on MQTT.
    pub thing_name: String,
    /// The ZIP file. Holds a private key; kept nowhere.
    pub archive: Vec<u8>,
}

/// A device's name on MQTT: `panorama_<name>_Thing_<8 digits>`, as AWS names them. Of a name that leaves no place for the
/// rest the beginning is taken; what is behind it tells it from others.
fn thing_name(device: &str) -> String {
    let (before, behind) = ("panorama_", format!("_Thing_{}", identifiers::token::<4>()));
    let place = MAX_THING_NAME - before.len() - behind.len();
    let begins: String = device.chars().take(place).collect();
    format!("{before}{begins}{behind}")
}

impl Fleet {
    /// Makes a device and its provisioning archive. [`belvedere_store::StoreError::Exists`] if the name is taken.
    pub async fn provision_device(&self, new: NewAppliance<'_>) -> Result<Provisioned, FleetError> {
        let device_id = identifiers::resource("device");
        let thing_name = thing_name(new.name);
        let claim_client_id = claim_name(&device_id);
        let claim = self.authority.claim(&claim_client_id)?;
        let device = NewDevice {
            device_id: &device_id,
            name: new.name,
            thing_name: &thing_name,
            description: new.description,
            tags: new.tags,
            networking: new.networking,
        };
        let row = Certificate {
            fingerprint: claim.issued.fingerprint,
            common_name: claim_client_id.clone(),
            device_id: device_id.clone(),
            kind: CertificateKind::Claim,
            expires_ms: claim.issued.expires_ms,
        };
        self.store.create_device_with_claim(device, row).await?;
        let archive = belvedere_provisioning_archive::write(&Archive {
            configuration: Configuration {
                format_version: FORMAT_VERSION,
                device_id: device_id.clone(),
                device_name: new.name.to_owned(),
                claim_client_id,
                endpoints: self.settings.endpoints.clone(),
                network: new.network,
                provisioning_template: TEMPLATE.to_owned(),
                claim_expires: claim.issued.expires_ms / 1000,
                issued: (claim.issued.expires_ms - CLAIM_VALIDITY_MS) / 1000,
            },
            claim_certificate_pem: claim.issued.certificate_pem,
            claim_private_key_pem: claim.private_key_pem,
            service_ca_pem: self.authority.certificate_pem().to_owned(),
        });
        tracing::info!(device_id, thing_name, name = new.name, "device made; its claim is good for five minutes");
        Ok(Provisioned { device_id, thing_name, archive })
    }

    /// CreateCertificateFromCsr. Answers to the claim alone.
    pub(crate) async fn create_from_csr(&self, claim: &Identity, payload: &[u8]) -> Result<(), FleetError> {
        let answer = self.certificate_for(claim, payload).await?;
        self.answer(claim, CREATE_FROM_CSR, answer);
        Ok(())
    }

    async fn certificate_for(
        &self,
        claim: &Identity,
        payload: &[u8],
    ) -> Result<Result<CertificateCreated, Rejected>, FleetError> {
        let Ok(request) = serde_json::from_slice::<CreateFromCsr>(payload) else {
            return Ok(Err(rejected(
                400,
                "InvalidPayload",
                "the payload must be {\"certificateSigningRequest\": \"<PEM>\"}",
            )));
        };
        if self.store.usable_certificate(&claim.fingerprint).await?.is_none() {
            return Ok(Err(spent()));
        }
        let Some(device) = self.store.device(&claim.device_id).await? else { return Ok(Err(spent())) };
        let issued = match self.authority.device(&device.thing_name, &request.certificate_signing_request) {
            Ok(issued) => issued,
            Err(e) => {
                tracing::warn!(device_id = claim.device_id, "certificate request refused: {e}");
                return Ok(Err(rejected(400, "InvalidCertificateSigningRequest", &e.to_string())));
            }
        };
        let token = identifiers::token::<32>();
        let pending = Certificate {
            fingerprint: issued.fingerprint.clone(),
            common_name: device.thing_name,
            device_id: device.device_id,
            kind: CertificateKind::Device,
            expires_ms: issued.expires_ms,
        };
        self.store.add_pending_certificate(&pending, &claim.fingerprint, &hash(&token), now_ms() + TOKEN_MS).await?;
        Ok(Ok(CertificateCreated {
            certificate_ownership_token: token,
            certificate_id: issued.fingerprint,
            certificate_pem: issued.certificate_pem,
        }))
    }

    /// RegisterThing. Answers to the claim alone.
    pub(crate) async fn register_thing(&self, claim: &Identity, payload: &[u8]) -> Result<(), FleetError> {
        let answer = self.register(claim, payload).await?;
        self.answer(claim, &register_thing_topic(TEMPLATE), answer);
        Ok(())
    }

    async fn register(&self, claim: &Identity, payload: &[u8]) -> Result<Result<ThingRegistered, Rejected>, FleetError> {
        let Ok(request) = serde_json::from_slice::<RegisterThing>(payload) else {
            let form = "the payload must be {\"certificateOwnershipToken\": …, \"parameters\": {…}}";
            return Ok(Err(rejected(400, "InvalidPayload", form)));
        };
        let parameter = |name: &str| request.parameters.get(name).map(|v| v.chars().take(255).collect::<String>());
        let serial = parameter("SerialNumber");
        let software = parameter("SoftwareVersion");
        let token = hash(&request.certificate_ownership_token);
        // Before the claim is consumed, which ends its connection: there is time for it, and without its password, which
        // only the answer has, nobody gets anywhere at the broker.
        let broker = match self.store.device(&claim.device_id).await? {
            Some(device) => self.admit_to_broker(&device.thing_name).await,
            None => None,
        };
        let active =
            self.store.activate_certificate(&claim.fingerprint, &token, serial.as_deref(), software.as_deref()).await?;
        let Some(certificate) = active else {
            let text = "the ownership token is not of this claim, is too old, or the claim was used before";
            return Ok(Err(rejected(403, "InvalidCertificateOwnershipToken", text)));
        };
        tracing::info!(device_id = certificate.device_id, thing = certificate.common_name, "device provisioned");
        let device_configuration = broker.map(|broker| broker.members()).unwrap_or_default();
        Ok(Ok(ThingRegistered { thing_name: certificate.common_name, device_configuration }))
    }

    fn answer<T: Serialize>(&self, claim: &Identity, topic: &str, answer: Result<T, Rejected>) {
        let (word, body) = match &answer {
            Ok(accepted) => ("accepted", serde_json::to_vec(accepted)),
            Err(rejected) => {
                tracing::warn!(claim = claim.name, topic, code = rejected.error_code, "provisioning request rejected");
                ("rejected", serde_json::to_vec(rejected))
            }
        };
        self.publish_to(&claim.name, Message::new(format!("{topic}/{word}"), body.unwrap_or_default()));
    }
}

fn rejected(status_code: u16, error_code: &str, error_message: &str) -> Rejected {
    Rejected { status_code, error_code: error_code.into(), error_message: error_message.into() }
}

fn spent() -> Rejected {
    rejected(403, "ClaimNotValid", "this claim was used or has ended: call ProvisionDevice for a new archive")
}

fn hash(token: &str) -> String {
    crate::identity::fingerprint(token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_x01_a_device_of_any_name_has_a_name_on_mqtt() {
        assert!(thing_name("porch").starts_with("panorama_porch_Thing_"));
        for length in [1, 231, 232, 255] {
            let name = thing_name(&"n".repeat(length));
            assert_eq!(name.len(), (length + 24).min(MAX_THING_NAME), "{length}");
            assert!(name.contains("n_Thing_"), "{name}");
        }
    }
}

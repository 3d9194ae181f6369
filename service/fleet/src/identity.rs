//! A client certificate becomes an identity: its common name, as far as the fleet still stands by that certificate.
//!
//! That it comes from our authority and is in date was checked by TLS. Here: known, active, and of the device whose
//! name it bears. What a client says about itself (client identifier, user name) never makes an identity.

use crate::{Fleet, FleetError};
use belvedere_store::certificates::CertificateKind;
use belvedere_store::releases::ReleasedCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's common name: the thing name, or `claim-<device id>`.
    pub name: String,
    /// Whose.
    pub device_id: String,
    /// Of the certificate.
    pub fingerprint: String,
    /// Claim or device.
    pub kind: CertificateKind,
}

/// The common name of a device's claim.
pub fn claim_name(device_id: &str) -> String {
    format!("claim-{device_id}")
}

/// SHA-256, hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, der))
}

/// The one common name of a certificate.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

impl Fleet {
    /// What is left of a device that was deleted: its appliance is free, if the certificate (DER) is that device's.
    pub async fn released(&self, der: &[u8]) -> Result<Option<ReleasedCertificate>, FleetError> {
        let released = self.store.released_certificate(&fingerprint(der)).await?;
        let released = released.filter(|released| common_name(der).as_deref() == Some(&released.thing_name));
        if let Some(ReleasedCertificate { thing_name, device_id, told_ms: None }) = &released {
            tracing::info!(device_id, thing_name, "the appliance of a deleted device hears that it is free");
        }
        Ok(released)
    }

    /// The identity of a certificate (DER), or `None` if the fleet does not stand by it.
    pub async fn identify(&self, der: &[u8]) -> Result<Option<Identity>, FleetError> {
        let fingerprint = fingerprint(der);
        let Some(known) = self.store.usable_certificate(&fingerprint).await? else { return Ok(None) };
        if common_name(der).as_deref() != Some(&known.common_name) {
            return Ok(None);
        }
        Ok(Some(Identity { name: known.common_name, device_id: known.device_id, fingerprint, kind: known.kind }))
    }
}

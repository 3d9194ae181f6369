//! Whose appliance it is.
//!
//! An appliance belongs to the service whose identity it has, until that service releases it. Another one's stick is
//! refused. Names, addresses and the certificates that a stick brings prove nothing: anybody can write them. Two things
//! cannot be made without the owner's private keys, and both are needed:
//!
//! 1. The archive's claim certificate was signed by one of the authorities *of the stored identity*. This is decided here,
//!    before anything is tried, so that a stranger's stick changes nothing, not even the network for a moment.
//! 2. The server that takes the claim shows a certificate of those authorities, not of the stick's, and takes the claim.
//!    A used or expired claim, or the certificate of another device of the same service, gets past 1 and ends here.
//!
//! The new identity keeps the stored authorities: a stick that was changed on its way cannot add one.

use belvedere_provisioning_archive::Archive;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::sync::Arc;
use std::time::Duration;

/// Who owns the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The authorities of its service, PEM.
    pub authorities_pem: &'a str,
    /// Where that is, and what the appliance is called there; for people.
    pub service: &'a str,
    /// Likewise.
    pub device_id: &'a str,
}

impl Owner<'_> {
    /// Whether the claim in an archive was signed by the owner.
    pub fn signed(&self, archive: &Archive) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.authorities_pem.as_bytes()) {
            if !authority.is_ok_and(|authority| roots.add(authority).is_ok()) {
                return false;
            }
        }
        let Ok(claim) = CertificateDer::from_pem_slice(archive.claim_certificate_pem.as_bytes()) else { return false };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
            return false;
        };
        // Whether it still is good is the service's to judge.
        let issued = Duration::from_secs(u64::try_from(archive.configuration.issued).unwrap_or(0));
        verifier.verify_client_cert(&claim, &[], UnixTime::since_unix_epoch(issued)).is_ok()
    }

    /// Why another's stick is refused, and what to do.
    pub fn refusal(&self) -> String {
        format!(
            "this appliance belongs to the service at {} as {}, and the archive is another service's: to free the appliance, delete that device in its service while the appliance is connected, then plug the stick in again with a new archive",
            self.service, self.device_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{archive, strangers_archive};

    fn owner(authorities_pem: &str) -> Owner<'_> {
        Owner { authorities_pem, service: "x:1", device_id: "device-abc" }
    }

    #[test]
    fn boot_d8_the_owner_is_who_signed_the_claim() {
        let (own, foreign) = (archive(), strangers_archive());
        assert!(owner(&own.service_ca_pem).signed(&own));
        assert!(!owner(&own.service_ca_pem).signed(&foreign));
        assert!(!owner("").signed(&own), "no authority signs nothing");
        assert!(!owner("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").signed(&own));
    }

    #[test]
    fn boot_d8_nothing_that_a_stick_says_of_itself_makes_it_the_owners() {
        let own = archive();
        let mut fake = strangers_archive();
        fake.configuration = own.configuration.clone();
        // The owner's authority is no secret: a stranger can put it on his stick, beside his own or alone.
        fake.service_ca_pem = own.service_ca_pem.clone();
        assert!(!owner(&own.service_ca_pem).signed(&fake));
        fake.service_ca_pem.push_str(&strangers_archive().service_ca_pem);
        assert!(!owner(&own.service_ca_pem).signed(&fake));
        // The authority's own certificate is signed by the authority.
        fake.claim_certificate_pem = own.service_ca_pem.clone();
        assert!(!owner(&own.service_ca_pem).signed(&fake));
    }
}

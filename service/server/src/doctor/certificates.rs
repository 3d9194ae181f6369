//! The device authority, and a certificate's end.

use super::{Finding, error, good, warning};
use crate::configuration::Configuration;
use belvedere_fleet::authority::Authority;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// When a certificate begins and ends, milliseconds since 1970.
pub fn validity(pem: &[u8]) -> Option<(i64, i64)> {
    of_der(&CertificateDer::from_pem_slice(pem).ok()?)
}

/// The same of the certificate itself.
pub fn of_der(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp() * 1000, validity.not_after.timestamp() * 1000))
}

/// What to say of a certificate's validity.
pub fn judge(about: &'static str, name: &str, (begins, ends): (i64, i64), now: i64, next: &str) -> Finding {
    let until = crate::time::date(ends);
    if now < begins {
        return error(
            about,
            format!("{name} is not valid before {}", crate::time::date(begins)),
            "set this machine's clock",
        );
    }
    match ends - now {
        ..=0 => error(about, format!("{name} ended on {until}"), next),
        left if left < 30 * DAY_MS => warning(about, format!("{name} ends on {until}"), next),
        _ => good(about, format!("{name} is valid until {until}")),
    }
}

/// The authority's certificate and key, and the copy for people's tools.
pub fn authority(data: &Path, configuration: &Configuration) -> Vec<Finding> {
    let (certificate, key) = configuration.authority();
    let mut findings = Vec::new();
    let authority = match Authority::open(&certificate, &key) {
        Ok(authority) => authority,
        Err(e) => {
            let next = "put the key directory back; without it no device can be provisioned and the service does not start";
            return vec![error("authority", e.to_string(), next)];
        }
    };
    let pem = authority.certificate_pem().as_bytes();
    match validity(pem) {
        Some(validity) => findings.push(judge(
            "authority",
            "the device authority's certificate",
            validity,
            belvedere_store::now_ms(),
            "make new keys with `belvedere-keys` and provision all devices anew",
        )),
        None => findings.push(error(
            "authority",
            format!("{} cannot be read", certificate.display()),
            "put the key directory back",
        )),
    }
    // A key that does not belong to the certificate signs what nobody accepts.
    let signed = authority.server(&["localhost".to_owned()]).ok().map(|s| s.issued.certificate_pem);
    if !signed.is_some_and(|signed| belongs(signed.as_bytes(), pem)) {
        let found = format!("{} is not the key of {}", key.display(), certificate.display());
        findings.push(error("authority", found, "put the key directory back as it was"));
    }
    if std::fs::read(data.join("ca.pem")).ok().as_deref() != Some(pem) {
        findings.push(warning(
            "authority",
            "ca.pem is not the device authority's certificate",
            format!("cp {} {}; tools check the service with it", certificate.display(), data.join("ca.pem").display()),
        ));
    }
    findings
}

/// Whether a certificate was signed by another's key.
fn belongs(leaf: &[u8], issuer: &[u8]) -> bool {
    let (Ok(leaf), Ok(issuer)) = (CertificateDer::from_pem_slice(leaf), CertificateDer::from_pem_slice(issuer)) else {
        return false;
    };
    let (Ok((_, leaf)), Ok((_, issuer))) = (X509Certificate::from_der(&leaf), X509Certificate::from_der(&issuer)) else {
        return false;
    };
    leaf.verify_signature(Some(issuer.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_said_in_time() {
        let level = |now| judge("a", "b", (1000, 100 * DAY_MS), now, "renew").level;
        assert_eq!(level(999), Level::Error);
        assert_eq!(level(1000), Level::Good);
        assert_eq!(level(70 * DAY_MS), Level::Good);
        assert_eq!(level(70 * DAY_MS + 1), Level::Warning);
        assert_eq!(level(100 * DAY_MS), Level::Error);
    }

    #[test]
    fn a_key_of_another_authority_is_noticed() {
        let (one, other) = (Authority::for_tests(), Authority::for_tests());
        let signed = one.server(&["localhost".into()]).unwrap().issued.certificate_pem;
        assert!(belongs(signed.as_bytes(), one.certificate_pem().as_bytes()));
        assert!(!belongs(signed.as_bytes(), other.certificate_pem().as_bytes()));
    }
}

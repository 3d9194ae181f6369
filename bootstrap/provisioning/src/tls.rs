//! TLS 1.3 to the fleet's own service: its authority, our client certificate, and nothing from any public list.
//!
//! Sessions are not resumed: what resumes one (a pre-shared key, kept in memory for up to a day) would stand for the device
//! without its key, and for a certificate that the service has locked out meanwhile. So each connection is one signature.

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why credentials cannot be used for a connection.
#[derive(Debug, thiserror::Error)]
#[error("prepare TLS with {what}: {problem}")]
pub struct TlsError {
    /// Which of the three.
    pub what: &'static str,
    /// Parser's or library's complaint.
    pub problem: String,
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError { what, problem: "no PEM certificate".into() }),
        Err(error) => Err(TlsError { what, problem: error.to_string() }),
    }
}

/// A clock that began at a given time.
#[derive(Debug)]
struct Since {
    time: Duration,
    began: Instant,
}

impl TimeProvider for Since {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.time.saturating_add(self.began.elapsed())))
    }
}

/// A configuration for clients. Both are PEM; the certificate may bring its chain.
pub fn client_config(ca_pem: &str, certificate_pem: &str, key: Arc<dyn SigningKey>) -> Result<Arc<ClientConfig>, TlsError> {
    with_clock(ca_pem, certificate_pem, key, Arc::new(DefaultTimeProvider))
}

/// The same with another idea of the present than the machine's clock has, seconds since 1970.
pub fn client_config_at(
    ca_pem: &str,
    certificate_pem: &str,
    key: Arc<dyn SigningKey>,
    now: i64,
) -> Result<Arc<ClientConfig>, TlsError> {
    let time = Duration::from_secs(u64::try_from(now).unwrap_or(0));
    with_clock(ca_pem, certificate_pem, key, Arc::new(Since { time, began: Instant::now() }))
}

/// A key that is here, PEM.
pub fn software_key(key_pem: &str) -> Result<Arc<dyn SigningKey>, TlsError> {
    let failed = |problem: String| TlsError { what: "the private key", problem };
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| failed(error.to_string()))?;
    rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| failed(error.to_string()))
}

fn with_clock(
    ca_pem: &str,
    certificate_pem: &str,
    key: Arc<dyn SigningKey>,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("the service's authority", ca_pem)? {
        let add = roots.add(authority);
        add.map_err(|error| TlsError { what: "the service's authority", problem: error.to_string() })?;
    }
    let failed = |error: rustls::Error| TlsError { what: "the client certificate", problem: error.to_string() };
    let certified = CertifiedKey::new(certificates("the client certificate", certificate_pem)?, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(failed(error)),
    }
    let mut config = ClientConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    /// A certificate for `service.example` that is good in 2040 only, with its authority and its key.
    fn of_2040() -> (String, String, String) {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["service.example".into()]).unwrap();
        (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(2040, 1, 1), rcgen::date_time_ymd(2041, 1, 1));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &rcgen::Issuer::from_params(&ca, &ca_key)).unwrap();
        (ca.self_signed(&ca_key).unwrap().pem(), certificate.pem(), key.serialize_pem())
    }

    fn shakes_hands(client: Arc<ClientConfig>, certificate: &str, key: &str) -> bool {
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                certificates("x", certificate).unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut client = ClientConnection::new(client, "service.example".try_into().unwrap()).unwrap();
        for _ in 0..4 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            let _ = server.process_new_packets();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        !client.is_handshaking()
    }

    #[test]
    fn field_case_a_clock_that_is_wrong_is_not_in_the_way_of_a_claim() {
        let (ca, certificate, key) = of_2040();
        let signing = || software_key(&key).unwrap();
        let at = |time| client_config_at(&ca, &certificate, signing(), time).unwrap();
        // Seconds since 1970 of the middle of 2040; this machine's own clock is elsewhere.
        assert!(shakes_hands(at(2_224_000_000), &certificate, &key));
        assert!(!shakes_hands(client_config(&ca, &certificate, signing()).unwrap(), &certificate, &key));
        assert!(!shakes_hands(at(0), &certificate, &key));
        let (other, _, _) = of_2040();
        let elsewhere = client_config_at(&other, &certificate, signing(), 2_224_000_000).unwrap();
        assert!(!shakes_hands(elsewhere, &certificate, &key), "another authority");
    }

    #[test]
    fn a_certificate_for_another_key_is_said_before_anything_is_connected() {
        let ((ca, certificate, _), (_, _, other)) = (of_2040(), of_2040());
        let error = client_config(&ca, &certificate, software_key(&other).unwrap()).unwrap_err();
        assert_eq!(error.what, "the client certificate");
        assert_eq!(software_key("no key").unwrap_err().what, "the private key");
    }
}

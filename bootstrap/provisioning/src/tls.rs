//! TLS 1.3 to the fleet's own service: its authority, our client certificate, and nothing from any public list.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::sync::Arc;

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

/// A configuration for clients. All three are PEM; the certificate may bring its chain.
pub fn client_config(ca_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("the service's authority", ca_pem)? {
        let add = roots.add(authority);
        add.map_err(|error| TlsError { what: "the service's authority", problem: error.to_string() })?;
    }
    let chain = certificates("the client certificate", certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| TlsError { what: "the private key", problem: error.to_string() })?;
    let failed = |error: rustls::Error| TlsError { what: "the client certificate", problem: error.to_string() };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(failed)?;
    Ok(Arc::new(config))
}

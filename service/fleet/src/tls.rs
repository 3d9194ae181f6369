//! TLS of the two ports that devices use. TLS 1.3 alone for MQTT, which only our appliances speak; for HTTPS also 1.2,
//! which people's tools speak. Both are on one port for networks that let nothing but 443 through: the client says by
//! ALPN which one it means. Client certificates are the device authority's.

use crate::FleetError;
use crate::authority::{Authority, IssuedPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// The protocol that devices ask for when they speak MQTT on the port of HTTPS (AWS IoT Core's name for it).
pub const MQTT: &[u8] = b"x-amzn-mqtt-ca";
/// That of HTTPS; also of clients that ask for nothing.
const HTTP: &[u8] = b"http/1.1";

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// MQTT.
    Required,
    /// HTTPS, and MQTT beside it: requests signed with access keys come without.
    Optional,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> FleetError {
    move |e| FleetError::Tls { operation, detail: e.to_string() }
}

/// Settings of one port.
pub fn server_config(
    authority: &Authority,
    server: &IssuedPair,
    client: ClientCertificate,
) -> Result<Arc<ServerConfig>, FleetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority_der = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes())
        .map_err(failed("read the device authority's certificate"))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority_der.clone()).map_err(failed("trust the device authority"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (verifier, versions) = match client {
        ClientCertificate::Required => (verifier, &[&rustls::version::TLS13][..]),
        ClientCertificate::Optional => (verifier.allow_unauthenticated(), rustls::ALL_VERSIONS),
    };
    let verifier = verifier.build().map_err(failed("set up client certificates"))?;
    let certificate = CertificateDer::from_pem_slice(server.issued.certificate_pem.as_bytes())
        .map_err(failed("read the service's certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(server.private_key_pem.as_bytes()).map_err(failed("read the service's key"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(failed("choose TLS versions"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate, authority_der], key)
        .map_err(failed("use the service's certificate"))?;
    if client == ClientCertificate::Optional {
        config.alpn_protocols = vec![MQTT.to_vec(), HTTP.to_vec()];
    }
    Ok(Arc::new(config))
}

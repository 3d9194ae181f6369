//! The device's key in TLS: the service asks for a signature in each handshake, and `provisioning` makes it
//! (`org.belvedere.Provisioning.Sign`). Where the identity brings its key along, it is used as it is.

use belvedere_interfaces::provisioning::{BUSY, DeviceKeyReference, Identity, KeyAlgorithm, Sign, Signed};
use belvedere_provisioning::tls::{TlsError, client_config, software_key};
use belvedere_varlink::{CallError, Client};
use rustls::sign::{Signer, SigningKey};
use rustls::{ClientConfig, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a handshake waits for its signature. A TPM takes up to a second for one, and three connections may begin at once.
const SIGN_TIME: Duration = Duration::from_secs(5);
/// Before the one other attempt when too many asked: what is served in a second has then begun anew.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// TLS to the identity's service, for MQTT and HTTPS alike. `provisioning` is the socket.
pub fn tls(identity: &Identity, provisioning: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let key: Arc<dyn SigningKey> = match &identity.key {
        DeviceKeyReference::Software { private_key_pem } => software_key(private_key_pem)?,
        DeviceKeyReference::Provisioning { algorithm: KeyAlgorithm::EcdsaP256Sha256, public_key } => Arc::new(RemoteKey {
            socket: provisioning.to_owned(),
            generation: identity.generation,
            public_key: public_key.clone(),
        }),
    };
    client_config(&identity.service_ca_pem, &identity.certificate_pem, key)
}

/// A key that signs in `provisioning`: ECDSA on P-256 over SHA-256.
#[derive(Debug, Clone)]
struct RemoteKey {
    socket: PathBuf,
    /// Of the identity: after a provisioning, this one signs no more.
    generation: u64,
    public_key: Vec<u8>,
}

impl RemoteKey {
    fn ask(&self, digest: [u8; 32]) -> Result<Signed, CallError> {
        Client::connect(&self.socket)?.call_within(&Sign { generation: self.generation, digest }, SIGN_TIME)
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public_key.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for RemoteKey {
    /// Blocks the thread of the connection, within its deadlines.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let digest = Sha256::digest(message).into();
        let mut answer = self.ask(digest);
        if matches!(&answer, Err(CallError::Failure(failure)) if failure.reason == BUSY) {
            std::thread::sleep(BUSY_WAIT);
            answer = self.ask(digest);
        }
        answer.map(|signed| signed.signature).map_err(|error| {
            log::error!("sign with the device's key: {error}");
            rustls::Error::General(format!("sign with the device's key: {error}"))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use belvedere_interfaces::Failure;
    use belvedere_interfaces::provisioning::ANOTHER_KEY;
    use belvedere_varlink::Server;
    use rcgen::PublicKeyData;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An appliance's identity with a key in the hands of a played `provisioning`, and a service of its authority that answers
    /// every HTTPS request with its number and closes after `requests`.
    pub(crate) struct Played {
        pub identity: Identity,
        pub socket: PathBuf,
        /// Signatures asked for, and connections whose client certificate the service took.
        pub signed: Arc<AtomicUsize>,
        pub taken: Arc<AtomicUsize>,
        /// Failures with which `provisioning` answers first.
        pub failures: Arc<std::sync::Mutex<Vec<&'static str>>>,
        _directory: tempfile::TempDir,
    }

    pub(crate) fn play(requests: usize) -> Played {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
        let leaf = |name: &str, key: &rcgen::KeyPair| {
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(key, &issuer).unwrap()
        };
        let (server_key, device_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let (server, device) = (leaf("127.0.0.1", &server_key), leaf("device", &device_key));

        let mut roots = RootCertStore::empty();
        roots.add(authority_certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(AtomicUsize::new(0));
        let (config, count) = (Arc::new(config), Arc::clone(&taken));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
                for request in 0..requests {
                    let mut bytes = [0; 4096];
                    if !matches!(tls.read(&mut bytes), Ok(got) if got > 0) {
                        break;
                    }
                    if request == 0 {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });

        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("provisioning.sock");
        let (signed, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (count, fail) = (Arc::clone(&signed), Arc::clone(&failures));
        let public_key = device_key.subject_public_key_info();
        let pair = ring::signature::EcdsaKeyPair::from_pkcs8(
            &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &device_key.serialize_der(),
            &ring::rand::SystemRandom::new(),
        )
        .unwrap();
        drop(pair);
        let device_key = DigestSigner::new(&device_key);
        Server::bind(&socket)
            .unwrap()
            .route(move |call: Sign, _| {
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(reason) = fail.lock().unwrap().pop() {
                    return Err(Failure { reason: reason.into(), message: "played".into() });
                }
                if call.generation != 1 {
                    return Err(Failure { reason: ANOTHER_KEY.into(), message: "played".into() });
                }
                Ok(Signed { signature: device_key.sign(&call.digest) })
            })
            .spawn();
        let endpoint = || belvedere_device_protocol::Endpoint { host: "127.0.0.1".into(), port };
        let identity = Identity {
            device_id: "device-a".into(),
            thing_name: "thing".into(),
            endpoints: belvedere_device_protocol::Endpoints { mqtt: endpoint(), https: endpoint(), region: "us-east-1".into() },
            service_ca_pem: authority_certificate.pem(),
            certificate_pem: device.pem(),
            key: DeviceKeyReference::Provisioning { algorithm: KeyAlgorithm::EcdsaP256Sha256, public_key },
            mqtt_password: None,
            generation: 1,
        };
        Played { identity, socket, signed, taken, failures, _directory: directory }
    }
}

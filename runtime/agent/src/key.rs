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

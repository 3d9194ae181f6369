//! A certificate that the owner of the service brought, and that is renewed under it: read again on SIGHUP and when one of
//! its files changes. A pair that does not work is refused and logged, and the one in use stays.
//!
//! It is shown on a port of its own (`--https`), to people's tools. Devices check the service against its own authority,
//! which was put on them when they were provisioned: their ports never show anything else, so renewing or replacing this
//! certificate cuts no device off.

use crate::ServerError;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(30);
const MAX_FILE: u64 = 1024 * 1024;

/// The pair in use.
#[derive(Debug)]
pub struct Given {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

fn read(path: &Path) -> Result<Vec<u8>, ServerError> {
    let error = |source| ServerError::File { operation: "read", path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(error)?.len() > MAX_FILE {
        return Err(ServerError::Argument(format!("{} is too large for a certificate or a key", path.display())));
    }
    std::fs::read(path).map_err(error)
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, ServerError> {
    let wrong = |path: &Path, detail: String| ServerError::Argument(format!("{}: {detail}", path.display()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.map_err(|e| wrong(certificate, format!("not a certificate in PEM: {e}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "holds no certificate in PEM".into()));
    }
    let der =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| wrong(key, format!("not a private key in PEM: {e}")))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&der).map_err(|e| wrong(key, e.to_string()))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        // Some kinds of keys do not tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(_) => Err(wrong(key, format!("is not the key of {}", certificate.display()))),
    }
}

impl Given {
    /// Reads the pair.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Given>, ServerError> {
        let current = RwLock::new(Arc::new(load(certificate, key)?));
        Ok(Arc::new(Given { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Reads the pair again.
    pub fn reload(&self) -> Result<(), ServerError> {
        let pair = load(&self.certificate, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        Ok(())
    }

    /// TLS settings that always show the pair in use.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, ServerError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| ServerError::Argument(format!("TLS: {e}")))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn written(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
    }

    /// Keeps the pair fresh until `stop` turns true.
    pub async fn watch(self: Arc<Self>, mut reload: watch::Receiver<()>, mut stop: watch::Receiver<bool>) {
        let mut seen = self.written();
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                changed = reload.changed() => changed.is_ok(),
                _ = stop.wait_for(|s| *s) => return,
            };
            let written = self.written();
            if !asked && written == seen {
                continue;
            }
            seen = written;
            match self.reload() {
                Ok(()) => tracing::info!(certificate = %self.certificate.display(), "certificate read again"),
                Err(e) => tracing::error!("the certificate in use stays: {e}"),
            }
        }
    }
}

impl ResolvesServerCert for Given {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_fleet::authority::Authority;

    #[test]
    fn a_pair_is_taken_only_if_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let pair = || Authority::for_tests().server(&["service.example".into()]).unwrap();
        let (one, other) = (pair(), pair());
        std::fs::write(&certificate, &one.issued.certificate_pem).unwrap();
        std::fs::write(&key, &one.private_key_pem).unwrap();
        let given = Given::open(&certificate, &key).unwrap();
        let shown = |given: &Given| given.current.read().unwrap().cert[0].to_vec();
        let first = shown(&given);
        // Half of a renewal: the key is still the old one.
        std::fs::write(&certificate, &other.issued.certificate_pem).unwrap();
        assert!(given.reload().unwrap_err().to_string().contains("is not the key of"));
        std::fs::write(&certificate, "no certificate").unwrap();
        assert!(given.reload().is_err());
        assert_eq!(shown(&given), first, "the one in use stays");
        std::fs::write(&certificate, &other.issued.certificate_pem).unwrap();
        std::fs::write(&key, &other.private_key_pem).unwrap();
        given.reload().unwrap();
        assert_ne!(shown(&given), first);
    }
}

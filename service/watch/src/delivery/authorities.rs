//! Whose certificates mail servers and webhooks may have.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// Certificates of a PEM file (DER). The error is for people.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let found: Result<Vec<Vec<u8>>, String> =
        certificates.map(|c| c.map(|c| c.to_vec()).map_err(|e| format!("{}: {e}", path.display()))).collect();
    found.and_then(
        |found| if found.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(found) },
    )
}

/// Those that this machine trusts.
pub fn machine() -> Vec<Vec<u8>> {
    let found = rustls_native_certs::load_native_certs();
    for e in &found.errors {
        tracing::warn!("an authority of this machine cannot be read: {e}");
    }
    found.certs.into_iter().map(|c| c.to_vec()).collect()
}

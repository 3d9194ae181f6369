//! The device's key.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A key that was made on this device. In software now; a later implementation keeps the private half in the TPM and
/// hands out a reference instead of [`DeviceKey::private_key_pem`].
pub trait DeviceKey {
    /// A PKCS#10 request, PEM, with this common name.
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String>;
    /// SubjectPublicKeyInfo, DER; what the certificate must carry.
    fn public_key_der(&self) -> Vec<u8>;
    /// PKCS#8, PEM; never logged.
    fn private_key_pem(&self) -> String;
}

/// ECDSA P-256 from the kernel's random numbers, in memory and in the identity's file.
pub struct SoftwareKey(KeyPair);

impl SoftwareKey {
    /// A new key.
    pub fn generate() -> Result<Self, String> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(|error| format!("make the device's key: {error}"))
    }
}

impl DeviceKey for SoftwareKey {
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String> {
        let failed = |error: rcgen::Error| format!("make the certificate request: {error}");
        let mut parameters = CertificateParams::new(Vec::new()).map_err(failed)?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.serialize_request(&self.0).and_then(|request| request.pem()).map_err(failed)
    }

    fn public_key_der(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.0.subject_public_key_info()
    }

    fn private_key_pem(&self) -> String {
        self.0.serialize_pem()
    }
}

//! The device's key: in the TPM ([`crate::tpm_key`]), or in software where there is none.

use belvedere_interfaces::provisioning::DeviceKeyReference;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use serde::{Deserialize, Serialize};

/// A key that was made on this device.
pub trait DeviceKey {
    /// A PKCS#10 request, PEM, with this common name.
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String>;
    /// SubjectPublicKeyInfo, DER; what the certificate must carry.
    fn public_key_der(&self) -> Vec<u8>;
    /// How the agent signs with it.
    fn reference(&self) -> DeviceKeyReference;
    /// What must be kept to sign with it, where that is not in the reference.
    fn wrapped(&self) -> Option<WrappedKey>;
}

/// A key that only the TPM that made it can use: without that TPM these bytes are no key.
///
/// It is no secret then, but whoever reads it *and* may use the TPM can sign. It is kept on the encrypted data partition.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// `TPM2B_PRIVATE` without its length: encrypted and authenticated by the TPM.
    #[serde(with = "hex::serde")]
    pub private: Vec<u8>,
    /// `TPMT_PUBLIC`.
    #[serde(with = "hex::serde")]
    pub public_area: Vec<u8>,
    /// The key's authorisation value.
    #[serde(with = "hex::serde")]
    pub authorization: [u8; 32],
}

impl core::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WrappedKey").finish_non_exhaustive()
    }
}

/// A PKCS#10 request with this common name and nothing else.
pub(crate) fn certificate_request_pem(key: &impl SigningKey, common_name: &str) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.serialize_request(key)?.pem()
}

/// ECDSA P-256 from the kernel's random numbers, in memory and in the identity's file: for development hosts and boards
/// without a TPM.
pub struct SoftwareKey(KeyPair);

impl SoftwareKey {
    /// A new key.
    pub fn generate() -> Result<Self, String> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(|error| format!("make the device's key: {error}"))
    }

    /// PKCS#8, PEM; never logged.
    pub fn private_key_pem(&self) -> String {
        self.0.serialize_pem()
    }
}

impl DeviceKey for SoftwareKey {
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String> {
        certificate_request_pem(&self.0, common_name).map_err(|error| format!("make the certificate request: {error}"))
    }

    fn public_key_der(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.0.subject_public_key_info()
    }

    fn reference(&self) -> DeviceKeyReference {
        DeviceKeyReference::Software { private_key_pem: self.private_key_pem() }
    }

    fn wrapped(&self) -> Option<WrappedKey> {
        None
    }
}

//! The device's key: in the TPM ([`crate::tpm_key`]), in OP-TEE ([`crate::secure_world_key`]), or in software where there is
//! neither.

use belvedere_interfaces::provisioning::{DeviceKeyReference, KeyAlgorithm};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cell::RefCell;

/// A key that was made on this device.
pub trait DeviceKey {
    /// A PKCS#10 request, PEM, with this common name.
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String>;
    /// SubjectPublicKeyInfo, DER; what the certificate must carry.
    fn public_key_der(&self) -> Vec<u8>;
    /// How the agent signs with it.
    fn reference(&self) -> DeviceKeyReference;
    /// What must be kept to sign with it, where that is not in the reference.
    fn kept(&self) -> Option<KeptKey>;
}

/// A key that one keeper alone can use. Kept on the encrypted data partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeptKey {
    /// The TPM.
    Tpm(WrappedKey),
    /// The trusted application in OP-TEE.
    SecureWorld(SealedKey),
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

/// A key that only OP-TEE's keeper can use, on this board and until the next full reset: without it these bytes are no key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The private key, encrypted and authenticated there.
    #[serde(with = "hex::serde")]
    pub sealed: Vec<u8>,
}

impl core::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealedKey").finish_non_exhaustive()
    }
}

/// A PKCS#10 request with this common name and nothing else.
pub(crate) fn certificate_request_pem(key: &impl SigningKey, common_name: &str) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.serialize_request(key)?.pem()
}

/// A new key in a keeper that signs and gives nothing else out.
pub struct RemoteKey {
    kept: KeptKey,
    /// Uncompressed point (SEC 1, 2.3.3).
    point: [u8; 65],
    sign: Box<SignWith>,
    /// rcgen's errors carry no reason.
    problem: RefCell<Option<String>>,
}

/// Signs a SHA-256 digest with a key: `Ecdsa-Sig-Value`, DER. One line of error.
pub type SignWith = dyn Fn(&KeptKey, &[u8; 32]) -> Result<Vec<u8>, String>;

impl RemoteKey {
    /// A key that was just made, with the coordinates of its point.
    pub fn new(kept: KeptKey, x: &[u8; 32], y: &[u8; 32], sign: Box<SignWith>) -> Self {
        let mut point = [4; 65];
        point[1..33].copy_from_slice(x);
        point[33..].copy_from_slice(y);
        Self { kept, point, sign, problem: RefCell::default() }
    }
}

impl PublicKeyData for RemoteKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for RemoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        (self.sign)(&self.kept, &Sha256::digest(message).into()).map_err(|problem| {
            self.problem.replace(Some(problem));
            rcgen::Error::RemoteKeyError
        })
    }
}

impl DeviceKey for RemoteKey {
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String> {
        certificate_request_pem(self, common_name).map_err(|error| {
            let problem = self.problem.take().unwrap_or_else(|| error.to_string());
            format!("make the certificate request: {problem}")
        })
    }

    fn public_key_der(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    fn reference(&self) -> DeviceKeyReference {
        let algorithm = KeyAlgorithm::EcdsaP256Sha256;
        DeviceKeyReference::Provisioning { algorithm, public_key: self.public_key_der() }
    }

    fn kept(&self) -> Option<KeptKey> {
        Some(self.kept.clone())
    }
}

/// `Ecdsa-Sig-Value` (RFC 3279, 2.2.3): a SEQUENCE of two INTEGERs, at most 72 bytes.
pub(crate) fn der(r: &[u8; 32], s: &[u8; 32]) -> Vec<u8> {
    let integer = |number: &[u8; 32]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(31);
        let digits = &number[zeros..];
        // A number whose first bit is set would be negative.
        let sign = usize::from(digits[0] >= 0x80);
        let mut bytes = vec![2, (digits.len() + sign) as u8];
        bytes.extend(std::iter::repeat_n(0, sign));
        bytes.extend_from_slice(digits);
        bytes
    };
    let numbers = [integer(r), integer(s)].concat();
    [vec![0x30, numbers.len() as u8], numbers].concat()
}

/// ECDSA P-256 from the kernel's random numbers, in memory and in the identity's file: for development hosts and boards
/// with neither TPM nor OP-TEE.
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
        self.0.subject_public_key_info()
    }

    fn reference(&self) -> DeviceKeyReference {
        DeviceKeyReference::Software { private_key_pem: self.private_key_pem() }
    }

    fn kept(&self) -> Option<KeptKey> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be_and_never_negative() {
        let number = |digits: &[u8]| {
            let mut number = [0; 32];
            number[32 - digits.len()..].copy_from_slice(digits);
            number
        };
        let cases: [(&[u8], &[u8]); 5] = [
            (&[], &[2, 1, 0]),
            (&[0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[1, 0], &[2, 2, 1, 0]),
            (&[0xff, 0, 0], &[2, 4, 0, 0xff, 0, 0]),
        ];
        for (digits, expected) in cases {
            let one = [2, 1, 1];
            assert_eq!(
                der(&number(digits), &number(&[1])),
                [&[0x30, expected.len() as u8 + 3][..], expected, &one].concat()
            );
        }
        let longest = der(&[0xff; 32], &[0xff; 32]);
        assert_eq!((longest.len(), longest[1]), (72, 70));
    }
}

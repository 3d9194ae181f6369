//! The device's key in the TPM.
//!
//! # Where it is
//!
//! The TPM makes it (`TPM2_Create`, ECDSA on P-256, `fixedTPM`, `sensitiveDataOrigin`) under a primary key of the endorsement
//! hierarchy, and gives it out encrypted for itself. That [`WrappedKey`] is kept in `identity.json`; for each signature it
//! is loaded and unloaded again. Nothing stays in the TPM: no persistent handle, no slot to run out of, nothing to clean
//! up after a power cut or a release. A key that no stored identity holds is nothing.
//!
//! # Why that is enough
//!
//! - **The private key is never in this machine's memory or on its disk**, so it cannot be copied: not by who takes the
//!   disk, not by who takes over a service, not by who is root. Who takes over `agent` or `provisioning` can sign while he
//!   is there; a restart of a release without his hole ends it.
//! - **The endorsement hierarchy, with its empty authorisation value**, because the owner's is random after the first start
//!   and the running system does not know it. The hierarchy's value protects nothing here: the parent alone opens nothing
//!   without the wrapped key, and that is on the data partition, whose key is sealed to the same TPM and to what was started.
//!   Another operating system on this machine has the TPM but not the file.
//! - **The key's own authorisation value** (32 random bytes beside it) keeps it from whoever has the wrapped key from
//!   elsewhere than the file. It passes to the TPM in the clear, as everything does (see `formats/tpm`).
//! - **A policy on what was started** is not on the key: it would have to be renewed with each update, and the partition's
//!   encryption has the same one already.
//!
//! A TPM that is cleared keeps its endorsement hierarchy's seed, but the data partition's key goes: a new stick makes a new key.

use crate::key::{DeviceKey, WrappedKey, certificate_request_pem};
use crate::tpm::Open;
use belvedere_interfaces::provisioning::{DeviceKeyReference, KeyAlgorithm};
use belvedere_tpm::commands::{self, CreatedKey, Hierarchy, LoadedObject};
use belvedere_tpm::{Authorization, P256Key, P256Signature, Tpm, TpmError};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::time::Duration;

/// To make a key; a chip of its own may take seconds for each of the two.
pub const CREATE_TIME: Duration = Duration::from_secs(60);
/// To sign. Who asks waits five seconds.
pub const SIGN_TIME: Duration = Duration::from_secs(4);

/// Makes a key. One line of error.
pub fn create(tpm: &mut (impl Tpm + ?Sized)) -> Result<WrappedKey, String> {
    let mut authorization = [0; 32];
    getrandom::fill(&mut authorization).map_err(|error| format!("make the device's key: {error}"))?;
    let made = with_parent(tpm, |tpm, parent| commands::create_signing_key(tpm, parent, &authorization));
    let CreatedKey { private, public_area } = made.map_err(|error| format!("make the device's key: {error}"))?;
    Ok(WrappedKey { private, public_area, authorization })
}

/// Signs a SHA-256 digest: `Ecdsa-Sig-Value`, DER. One line of error.
pub fn sign(tpm: &mut (impl Tpm + ?Sized), key: &WrappedKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
    let created = CreatedKey { private: key.private.clone(), public_area: key.public_area.clone() };
    let signature = with_parent(tpm, |tpm, parent| {
        let loaded = commands::load(tpm, parent, &created)?;
        let signature = commands::sign(tpm, loaded, Authorization::Password(&key.authorization), digest);
        unload(tpm, loaded, signature)
    });
    signature.map(|signature| der(&signature)).map_err(|error| format!("sign with the device's key: {error}"))
}

/// With the parent loaded, which is the same one each time.
fn with_parent<T: Tpm + ?Sized, R>(
    tpm: &mut T,
    work: impl FnOnce(&mut T, LoadedObject) -> Result<R, TpmError>,
) -> Result<R, TpmError> {
    let parent = commands::create_storage_key(tpm, Hierarchy::Endorsement, Authorization::Password(&[]))?;
    let result = work(tpm, parent);
    unload(tpm, parent, result)
}

/// Unloads whether or not the work was done; the work's error comes first.
fn unload<R>(tpm: &mut (impl Tpm + ?Sized), object: LoadedObject, result: Result<R, TpmError>) -> Result<R, TpmError> {
    let unloaded = commands::flush(tpm, object.0);
    result.and_then(|result| unloaded.map(|()| result))
}

/// `Ecdsa-Sig-Value` (RFC 3279, 2.2.3): a SEQUENCE of two INTEGERs, at most 72 bytes.
fn der(signature: &P256Signature) -> Vec<u8> {
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
    let numbers = [integer(&signature.r), integer(&signature.s)].concat();
    [vec![0x30, numbers.len() as u8], numbers].concat()
}

/// A new key in the TPM.
pub struct TpmKey {
    open: Box<Open>,
    wrapped: WrappedKey,
    /// Uncompressed point (SEC 1, 2.3.3).
    point: [u8; 65],
    /// rcgen's errors carry no reason.
    problem: RefCell<Option<String>>,
}

impl TpmKey {
    /// Makes one.
    ///
    /// # Errors
    /// One line; the TPM's own reason is in it.
    pub fn create(open: Box<Open>) -> Result<Self, String> {
        let wrapped = create(&mut *open(CREATE_TIME)?)?;
        let key = P256Key::of_public_area(&wrapped.public_area)
            .ok_or("make the device's key: the TPM gave a key of another kind than asked for")?;
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&key.x);
        point[33..].copy_from_slice(&key.y);
        Ok(Self { open, wrapped, point, problem: RefCell::default() })
    }
}

impl PublicKeyData for TpmKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TpmKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let digest = Sha256::digest(message).into();
        let signature = (self.open)(CREATE_TIME).and_then(|mut tpm| sign(&mut *tpm, &self.wrapped, &digest));
        signature.map_err(|problem| {
            self.problem.replace(Some(problem));
            rcgen::Error::RemoteKeyError
        })
    }
}

impl DeviceKey for TpmKey {
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

    fn wrapped(&self) -> Option<WrappedKey> {
        Some(self.wrapped.clone())
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
            let signature = P256Signature { r: number(digits), s: number(&[1]) };
            let one = [2, 1, 1];
            assert_eq!(der(&signature), [&[0x30, expected.len() as u8 + 3][..], expected, &one].concat());
        }
        let longest = der(&P256Signature { r: [0xff; 32], s: [0xff; 32] });
        assert_eq!((longest.len(), longest[1]), (72, 70));
    }
}

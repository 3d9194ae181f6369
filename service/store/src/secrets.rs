//! Secrets at rest: AES-256-GCM with a key that lives in its own file (mode 0600) beside the database, so that a copy
//! of the database alone tells nothing. The purpose of a value is bound into it: a sealed camera password pasted into
//! the row of an access key does not open.

use crate::StoreError;
use crate::identifiers::random;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The key file in the data directory. Copies of one service have the same.
pub const FILE: &str = "secrets.key";

const NONCE: usize = 12;

/// Seals and opens small values.
pub struct SecretBox {
    key: LessSafeKey,
    derive: hmac::Key,
}

impl SecretBox {
    /// Makes a key file; refuses to overwrite one.
    pub fn create(path: &Path) -> Result<(), StoreError> {
        let error = |e| StoreError::io("create", path, e);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(error)?;
        file.write_all(hex::encode(random::<32>()).as_bytes()).and_then(|()| file.sync_all()).map_err(error)
    }

    /// Reads a key file.
    pub fn open(path: &Path) -> Result<SecretBox, StoreError> {
        SecretBox::of(&std::fs::read(path).map_err(|e| StoreError::io("read", path, e))?)
    }

    /// From a key file's content.
    pub fn of(content: &[u8]) -> Result<SecretBox, StoreError> {
        let bytes = hex::decode(content.trim_ascii()).map_err(|_| StoreError::Sealed)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| StoreError::Sealed)?;
        // Two algorithms do not share a key: this one is made from it.
        let derive = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"belvedere: derived secrets");
        let derive = hmac::Key::new(hmac::HMAC_SHA256, derive.as_ref());
        Ok(SecretBox { key: LessSafeKey::new(key), derive })
    }

    /// A secret that follows from the key file and its purpose: the same in every copy of the service and after a
    /// restore, and stored nowhere. Hexadecimal, 256 bits.
    pub fn derived(&self, purpose: &str) -> String {
        hex::encode(hmac::sign(&self.derive, purpose.as_bytes()))
    }

    /// Nonce, then cipher text and tag.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE>();
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut sealed)
            .expect("small values are always within AES-GCM's limits");
        [&nonce[..], &sealed].concat()
    }

    /// The plain value, or [`StoreError::Sealed`] if it was changed or sealed for another purpose.
    pub fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (nonce, body) = sealed.split_at_checked(NONCE).ok_or(StoreError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Sealed)?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(purpose), &mut body).map_err(|_| StoreError::Sealed)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_whole_and_for_its_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        SecretBox::create(&path).unwrap();
        assert!(SecretBox::create(&path).is_err(), "a key file is never overwritten");
        let secrets = SecretBox::open(&path).unwrap();
        let mut sealed = secrets.seal("camera", b"hunter2");
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(secrets.unseal("camera", &sealed).unwrap(), b"hunter2");
        assert!(secrets.unseal("access key", &sealed).is_err());
        *sealed.last_mut().unwrap() ^= 1;
        assert!(secrets.unseal("camera", &sealed).is_err());
        assert!(secrets.unseal("camera", b"short").is_err());
    }

    #[test]
    fn a_derived_secret_follows_from_the_key_and_the_purpose_alone() {
        let (a, b) = (SecretBox::of(&[b'1'; 64]).unwrap(), SecretBox::of(&[b'2'; 64]).unwrap());
        assert_eq!(a.derived("x"), SecretBox::of(&[b'1'; 64]).unwrap().derived("x"));
        assert!(a.derived("x") != a.derived("y") && a.derived("x") != b.derived("x"));
        assert_eq!(a.derived("x").len(), 64);
    }
}

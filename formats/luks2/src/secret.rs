//! What must not be left in memory or shown.

use crate::KEY_SIZE;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// What opens a key slot: 32 random bytes that a TPM keeps. Wiped when dropped, never shown.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes; what `bytes` was copied from is the caller's to wipe.
    pub fn new(bytes: Vec<u8>) -> Passphrase {
        Passphrase(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passphrase(hidden)")
    }
}

/// The key of the data segment: two AES-256 keys for XTS. Boxed, so that moving it leaves no copy behind; wiped when
/// dropped, never shown.
#[derive(Clone)]
pub struct VolumeKey(Box<[u8; KEY_SIZE]>);

impl VolumeKey {
    /// A key whose bytes `fill` writes, such as with the kernel's random numbers.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<VolumeKey, E> {
        let mut key = VolumeKey(Box::new([0; KEY_SIZE]));
        fill(&mut key.0[..])?;
        Ok(key)
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY_SIZE] {
        &mut self.0
    }

    pub(crate) fn empty() -> VolumeKey {
        VolumeKey(Box::new([0; KEY_SIZE]))
    }
}

impl Drop for VolumeKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("VolumeKey(hidden)")
    }
}

/// Wipes bytes that are no longer needed.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let key = VolumeKey::fill(|bytes| {
            bytes.fill(0x41);
            Ok::<(), ()>(())
        });
        let shown = format!("{:?} {:?}", key.unwrap(), Passphrase::new(vec![0x41; 32]));
        assert_eq!(shown, "VolumeKey(hidden) Passphrase(hidden)");
    }
}

//! Signs policies as a release does.

use crate::Machine;
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::layout::{Purpose, approved, fuses_name};
use belvedere_tpm::policy::to_be_signed;
use belvedere_tpm::{Digest, P256Key, P256Signature};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

/// A policy key with its private half.
pub struct PolicySigner(EcdsaKeyPair);

impl PolicySigner {
    /// A new key.
    ///
    /// # Panics
    /// When the library makes none.
    #[expect(clippy::new_without_default, reason = "each one is another key")]
    pub fn new() -> PolicySigner {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        PolicySigner(key.expect("the key that was made"))
    }

    /// The public half.
    ///
    /// # Panics
    /// Never: the library's point is an uncompressed one.
    pub fn key(&self) -> P256Key {
        let point = self.0.public_key().as_ref();
        assert_eq!((point.len(), point[0]), (65, 4));
        P256Key { x: point[1..33].try_into().expect("32 bytes"), y: point[33..].try_into().expect("32 bytes") }
    }

    /// Signs a policy for a text.
    ///
    /// # Panics
    /// When the library does not sign.
    pub fn sign(&self, approved: &Digest, policy_ref: &[u8]) -> P256Signature {
        let signed = self.0.sign(&SystemRandom::new(), &to_be_signed(approved, policy_ref)).expect("a signature");
        let (r, s) = signed.as_ref().split_at(32);
        P256Signature { r: r.try_into().expect("32 bytes"), s: s.try_into().expect("32 bytes") }
    }

    /// The entry of a release with a level, on a machine.
    pub fn entry(&self, machine: &Machine, level: u32) -> Entry {
        let (pcr7, pcr11) = (machine.pcr7(), machine.pcr11());
        let fuses = fuses_name(&self.key().policy_name());
        let sign = |purpose: Purpose| self.sign(&approved(purpose, &pcr7, &pcr11, level, &fuses), purpose.policy_ref());
        Entry { pcr7, pcr11, level, storage: sign(Purpose::Storage), fuses: sign(Purpose::Fuses) }
    }

    /// A document with these entries.
    pub fn policy(&self, entries: impl IntoIterator<Item = Entry>) -> BootPolicy {
        BootPolicy { key: self.key(), entries: entries.into_iter().collect() }
    }
}

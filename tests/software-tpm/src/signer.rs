//! Signs policies as a release does.

use crate::Machine;
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::layout::{Purpose, approved, fuses_name};
use belvedere_tpm::policy::to_be_signed;
use belvedere_tpm::{Digest, PolicyKey, PolicySignature};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use std::process::Command;

/// A policy key with its private half.
pub struct PolicySigner(KeyPair);

impl PolicySigner {
    /// A new key.
    ///
    /// # Panics
    /// When openssl makes none.
    #[expect(clippy::new_without_default, reason = "each one is another key")]
    pub fn new() -> PolicySigner {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"])
            .output()
            .expect("openssl");
        PolicySigner(KeyPair::from_der(&made.stdout).expect("the key that was made"))
    }

    /// The public half.
    ///
    /// # Panics
    /// When the key has another length than asked for.
    pub fn key(&self) -> PolicyKey {
        let PublicKeyComponents { n, .. } = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        PolicyKey(n.try_into().expect("256 bytes"))
    }

    /// Signs a policy for a text.
    ///
    /// # Panics
    /// When the library does not sign.
    pub fn sign(&self, approved: &Digest, policy_ref: &[u8]) -> PolicySignature {
        let mut signature = [0; 256];
        let text = to_be_signed(approved, policy_ref);
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &text, &mut signature).expect("a signature");
        PolicySignature(signature)
    }

    /// The entry of a release with a level, on a machine.
    pub fn entry(&self, machine: &Machine, level: u32) -> Entry {
        let (pcr7, pcr11) = (machine.pcr7(), machine.pcr11());
        let fuses = fuses_name(&self.key().name());
        let sign = |purpose: Purpose| self.sign(&approved(purpose, &pcr7, &pcr11, level, &fuses), purpose.policy_ref());
        Entry { pcr7, pcr11, level, storage: sign(Purpose::Storage), fuses: sign(Purpose::Fuses) }
    }

    /// A document with these entries.
    pub fn policy(&self, entries: impl IntoIterator<Item = Entry>) -> BootPolicy {
        BootPolicy { key: self.key(), entries: entries.into_iter().collect() }
    }
}

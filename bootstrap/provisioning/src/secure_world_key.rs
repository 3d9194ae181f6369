//! The device's key in OP-TEE, on boards without a TPM.
//!
//! Our trusted application there makes it (ECDSA on P-256) and gives it out encrypted for itself; that [`SealedKey`] is kept in
//! `identity.json`, as the TPM's is, and given back for each signature. Nothing stays there. The private key is never in this
//! machine's normal memory or on its disk in the clear. A full reset makes the application forget what the key was encrypted
//! with. For each signature a session is opened and closed again.

use crate::key::{KeptKey, RemoteKey, SealedKey, der};
use belvedere_secure_world::SecureWorld;
use belvedere_secure_world::keeper::{Keeper, MadeKey};
use std::path::Path;

/// Whether there is an OP-TEE. One that the kernel has found is there also while its node is not.
///
/// # Errors
/// It cannot be told.
pub fn is_there(node: &Path, sys: &Path) -> Result<bool, String> {
    belvedere_tpm_device::is_there_in(node, sys, "class/tee")
}

/// Makes a new key.
///
/// # Errors
/// One line with the reason.
pub fn make<W: SecureWorld + 'static>(open: impl Fn() -> Result<W, String> + 'static) -> Result<RemoteKey, String> {
    let failed = |error| format!("make the device's key: {error}");
    let mut keeper = Keeper::open(&open()?).map_err(|error| failed(error.to_string()))?;
    let MadeKey { wrapped, point } = keeper.make_key().map_err(|error| failed(error.to_string()))?;
    let (mut x, mut y) = ([0; 32], [0; 32]);
    x.copy_from_slice(&point[..32]);
    y.copy_from_slice(&point[32..]);
    let sign = move |key: &KeptKey, digest: &[u8; 32]| match key {
        KeptKey::SecureWorld(key) => sign(&open()?, key, digest),
        KeptKey::Tpm(_) => Err("the key is not in OP-TEE".into()),
    };
    Ok(RemoteKey::new(KeptKey::SecureWorld(SealedKey { sealed: wrapped }), &x, &y, Box::new(sign)))
}

/// Signs a SHA-256 digest: `Ecdsa-Sig-Value`, DER.
///
/// # Errors
/// One line with the reason.
pub fn sign(world: &impl SecureWorld, key: &SealedKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
    let signature = Keeper::open(world).and_then(|mut keeper| keeper.sign(&key.sealed, digest));
    let signature = signature.map_err(|error| format!("sign with the device's key: {error}"))?;
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    Ok(der(&r, &s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceKey;
    use belvedere_secure_world::fake::World;
    use rcgen::SigningKey;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    fn open_world() -> World {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        keeper.secrets(0).unwrap();
        // As after the first stage.
        keeper.close().unwrap();
        world
    }

    fn kept(key: &RemoteKey) -> SealedKey {
        match key.kept() {
            Some(KeptKey::SecureWorld(key)) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_key_signs_requests_and_digests_and_is_nowhere_else() {
        let world = open_world();
        let opened = world.clone();
        let key = make(move || Ok(opened.clone())).unwrap();
        let public = key.public_key_der();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public[public.len() - 65..]);
        public.verify(b"request", &SigningKey::sign(&key, b"request").unwrap()).unwrap();
        assert!(key.certificate_request_pem("thing").unwrap().contains("BEGIN CERTIFICATE REQUEST"));
        let kept = kept(&key);
        let digest = ring::digest::digest(&ring::digest::SHA256, b"later");
        let signature = sign(&world, &kept, digest.as_ref().try_into().unwrap()).unwrap();
        public.verify(b"later", &signature).unwrap();
        // What is kept reads as what it is, beside keys of the TPM.
        let text = serde_json::to_string(&KeptKey::SecureWorld(kept.clone())).unwrap();
        assert_eq!(serde_json::from_str::<KeptKey>(&text).unwrap(), KeptKey::SecureWorld(kept));
        let tpm = crate::executor::tests::wrapped();
        assert_eq!(serde_json::from_str::<KeptKey>(&serde_json::to_string(&tpm).unwrap()).unwrap(), tpm);
    }

    #[test]
    fn a_key_of_before_a_full_reset_or_of_another_board_signs_nothing_and_says_so() {
        let (world, other) = (open_world(), open_world());
        let opened = world.clone();
        let kept = kept(&make(move || Ok(opened.clone())).unwrap());
        assert!(sign(&other, &kept, &[7; 32]).unwrap_err().contains("no device key of this appliance"));
        world.restart();
        Keeper::open(&world).unwrap().renew_data(0).unwrap();
        assert!(sign(&world, &kept, &[7; 32]).unwrap_err().contains("no device key of this appliance"));
        let error = make(|| Err::<World, _>("played: no device".to_owned())).err().unwrap();
        assert!(error.contains("no device"), "{error}");
    }
}

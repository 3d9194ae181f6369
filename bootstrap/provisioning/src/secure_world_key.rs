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
    crate::tpm::is_there_in(node, sys, "class/tee")
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

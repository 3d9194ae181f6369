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

use crate::key::{KeptKey, RemoteKey, WrappedKey, der};
use belvedere_tpm::commands::{self, CreatedKey, Hierarchy, LoadedObject};
use belvedere_tpm::{Authorization, P256Key, Tpm, TpmError};
use belvedere_tpm_device::Open;
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
    signature
        .map(|signature| der(&signature.r, &signature.s))
        .map_err(|error| format!("sign with the device's key: {error}"))
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

/// Makes a new key in the TPM.
///
/// # Errors
/// One line; the TPM's own reason is in it.
pub fn make(open: Box<Open>) -> Result<RemoteKey, String> {
    let wrapped = create(&mut *open(CREATE_TIME)?)?;
    let P256Key { x, y } = P256Key::of_public_area(&wrapped.public_area)
        .ok_or("make the device's key: the TPM gave a key of another kind than asked for")?;
    let sign = move |key: &KeptKey, digest: &[u8; 32]| match key {
        KeptKey::Tpm(key) => sign(&mut *open(CREATE_TIME)?, key, digest),
        KeptKey::SecureWorld(_) => Err("the key is not in the TPM".into()),
    };
    Ok(RemoteKey::new(KeptKey::Tpm(wrapped), &x, &y, Box::new(sign)))
}

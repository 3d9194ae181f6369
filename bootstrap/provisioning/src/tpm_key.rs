//! The device's key in the TPM.
//!
//! # Where it is
//!
//! The TPM makes it (`TPM2_Create`, ECDSA on P-256, `fixedTPM`, `sensitiveDataOrigin`) under the owner's storage key, and gives
//! it out encrypted for itself. That [`WrappedKey`] is kept in `identity.json`; for each signature it is loaded and unloaded
//! again. Nothing of it stays in the TPM: no slot to run out of, nothing to clean up after a power cut or a release. A key that
//! no stored identity holds is nothing.
//!
//! # Why that is enough
//!
//! - **The private key is never in this machine's memory or on its disk**, so it cannot be copied: not by who takes the
//!   disk, not by who takes over a service, not by who is root. Who takes over `agent` or `provisioning` can sign while he
//!   is there; a restart of a release without his hole ends it.
//! - **The parent is a persistent object** ([`KEYS_PARENT`]), which the initial RAM file system makes while it knows the owner's
//!   authorisation, and makes again if it is gone. To use it takes its own authorisation value, which is empty and can never be
//!   changed, and no hierarchy's. So nothing that a service could change in the TPM takes the key away: to remove the parent
//!   takes the owner, whom the running system does not know; and neither it nor the key counts wrong guesses, so a TPM in
//!   lockout signs on. The empty value protects nothing here: the parent alone opens nothing without the wrapped key, and that
//!   is on the data partition, whose key is sealed to the same TPM and to what was started. Another operating system on this
//!   machine has the TPM but not the file.
//! - **The key's own authorisation value** (32 random bytes beside it) keeps it from whoever has the wrapped key from
//!   elsewhere than the file. It passes to the TPM in the clear, as everything does (see `formats/tpm`).
//! - **A policy on what was started** is not on the key: it would have to be renewed with each update, and the partition's
//!   encryption has the same one already.
//!
//! A TPM that is cleared has another owner's seed and cannot load the key any more, but then the data partition's key is gone as
//! well: a new stick makes a new key.

use crate::key::{KeptKey, RemoteKey, WrappedKey, der};
use belvedere_tpm::commands::{self, CreatedKey, LoadedObject};
use belvedere_tpm::layout::KEYS_PARENT;
use belvedere_tpm::{Authorization, P256Key, ResponseCode, Tpm, TpmError};
use belvedere_tpm_device::Open;
use std::time::Duration;

/// To make a key; a chip of its own may take seconds for each of the two.
pub const CREATE_TIME: Duration = Duration::from_secs(60);
/// To sign. Who asks waits five seconds.
pub const SIGN_TIME: Duration = Duration::from_secs(4);
/// Persistent: always loaded, never to be unloaded.
const PARENT: LoadedObject = LoadedObject(KEYS_PARENT);

/// Makes a key. One line of error.
pub fn create(tpm: &mut (impl Tpm + ?Sized)) -> Result<WrappedKey, String> {
    let mut authorization = [0; 32];
    getrandom::fill(&mut authorization).map_err(|error| format!("make the device's key: {error}"))?;
    let made = commands::create_signing_key(tpm, PARENT, &authorization);
    let CreatedKey { private, public_area } = made.map_err(|error| failed("make", &error))?;
    Ok(WrappedKey { private, public_area, authorization })
}

/// Signs a SHA-256 digest: `Ecdsa-Sig-Value`, DER. One line of error.
pub fn sign(tpm: &mut (impl Tpm + ?Sized), key: &WrappedKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
    let created = CreatedKey { private: key.private.clone(), public_area: key.public_area.clone() };
    let loaded = commands::load(tpm, PARENT, &created).map_err(|error| failed("sign with", &error))?;
    let signature = commands::sign(tpm, loaded, Authorization::Password(&key.authorization), digest);
    // Whether or not it signed; the first error counts.
    let unloaded = commands::flush(tpm, loaded.0);
    let signature = signature.and_then(|signature| unloaded.map(|()| signature));
    signature.map(|signature| der(&signature.r, &signature.s)).map_err(|error| failed("sign with", &error))
}

fn failed(what: &str, error: &TpmError) -> String {
    // Of Create and Load: their one handle is the parent's.
    let advice = if error.is(ResponseCode::HANDLE) {
        "; the key's parent is gone, and a restart makes it again; if it says that it cannot, clear the TPM in the firmware's \
         setup and write the disk image anew"
    } else if error.is(ResponseCode::INTEGRITY) {
        "; the key was made under another parent: a full reset and a new provisioning make a new one"
    } else {
        ""
    };
    format!("{what} the device's key: {error}{advice}")
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

//! From a passphrase to a volume key: PBKDF2, the encrypted area, the anti-forensic splitter (spec 3.2, LUKS1 spec 2.4).

use crate::{KEY_SIZE, Passphrase, SLOT_SIZE, VolumeKey, Xts};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Stripes of the anti-forensic splitter.
pub(crate) const STRIPES: usize = 4000;
/// Bytes of split key material, which begin the key slot's area.
pub(crate) const MATERIAL: usize = STRIPES * KEY_SIZE;
/// The key slots' areas have sectors of 512 bytes, numbered from 0 in each.
const AREA_SECTOR: usize = 512;

const _: () = assert!(MATERIAL <= SLOT_SIZE && MATERIAL.is_multiple_of(AREA_SECTOR));

/// PBKDF2 with HMAC-SHA-256.
pub(crate) fn derive(secret: &[u8], salt: &[u8], iterations: u32, into: &mut [u8]) {
    pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, iterations, into);
}

fn area_cipher(passphrase: &Passphrase, salt: &[u8], iterations: u32) -> Xts {
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    derive(passphrase.bytes(), salt, iterations, &mut key[..]);
    Xts::new(&key)
}

/// Splits and encrypts. `area` holds the random bytes of all stripes but the last and has [`MATERIAL`] bytes.
pub(crate) fn seal(area: &mut [u8], key: &VolumeKey, passphrase: &Passphrase, salt: &[u8], iterations: u32) {
    split(area, key);
    // A whole number of sectors from offset 0: it cannot be unaligned.
    let _ = area_cipher(passphrase, salt, iterations).encrypt(0, AREA_SECTOR, area);
}

/// Decrypts and merges: some key, which only the digest can tell to be the right one.
pub(crate) fn open(area: &[u8; MATERIAL], passphrase: &Passphrase, salt: &[u8], iterations: u32) -> VolumeKey {
    let mut material = Zeroizing::new(area.to_vec());
    let _ = area_cipher(passphrase, salt, iterations).decrypt(0, AREA_SECTOR, &mut material);
    merge(&material)
}

/// All stripes but the last, each mixed into the next.
fn mixed(material: &[u8]) -> Zeroizing<[u8; KEY_SIZE]> {
    let mut buffer = Zeroizing::new([0; KEY_SIZE]);
    for stripe in material.chunks_exact(KEY_SIZE).take(STRIPES - 1) {
        combine(&mut buffer[..], stripe);
        diffuse(&mut buffer);
    }
    buffer
}

fn split(material: &mut [u8], key: &VolumeKey) {
    let mut last = mixed(material);
    combine(&mut last[..], key.bytes());
    if let Some(place) = material.chunks_exact_mut(KEY_SIZE).nth(STRIPES - 1) {
        place.copy_from_slice(&last[..]);
    }
}

fn merge(material: &[u8]) -> VolumeKey {
    let mut key = VolumeKey::empty();
    key.bytes_mut().copy_from_slice(&mixed(material)[..]);
    if let Some(last) = material.chunks_exact(KEY_SIZE).nth(STRIPES - 1) {
        combine(key.bytes_mut(), last);
    }
    key
}

fn combine(into: &mut [u8], with: &[u8]) {
    for (byte, with) in into.iter_mut().zip(with) {
        *byte ^= with;
    }
}

/// Each digest-sized part becomes the hash of its number and itself. 64 is a multiple of 32: no part is cut.
fn diffuse(buffer: &mut [u8; KEY_SIZE]) {
    for (number, part) in buffer.chunks_exact_mut(32).enumerate() {
        let hash = Sha256::new().chain_update((number as u32).to_be_bytes()).chain_update(&*part).finalize();
        part.copy_from_slice(&hash);
    }
}

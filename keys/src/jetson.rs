//! What a Jetson board's boot ROM asks for: the keys that sign its firmware, and the secrets in its fuses.
//!
//! One set for a product, not for a board: the firmware is signed and encrypted once. The files of the secrets are as
//! NVIDIA's tools take them: 32-bit words, big-endian, `0x12345678 0x9abcdef0 …` on one line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::create::{generate, put};
use crate::directory::rsa_modulus;
use crate::{Error, KeyDirectory, file_error, openssl};

/// A generation of Jetson boards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jetson {
    /// T234.
    Orin,
    /// T194.
    Xavier,
}

/// A secret that is burned into the fuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FuseSecret {
    /// SBK: decrypts the boot firmware.
    SecureBoot,
    /// What OP-TEE's keys on the disk are wrapped with (EKB): `OemK1` of Orin, `Kek2` of Xavier.
    Oem,
}

impl Jetson {
    /// By its name on command lines: `orin` or `xavier`.
    pub fn named(name: &str) -> Option<Jetson> {
        match name {
            "orin" => Some(Jetson::Orin),
            "xavier" => Some(Jetson::Xavier),
            _ => None,
        }
    }

    /// Names of the firmware signing keys, without `.key` and `.pub`. Orin has three, of which the first two can be
    /// revoked one day; that works only where all three were burned in the factory.
    pub fn signing_keys(self) -> &'static [&'static str] {
        match self {
            Jetson::Orin => &["jetson-orin-0", "jetson-orin-1", "jetson-orin-2"],
            Jetson::Xavier => &["jetson-xavier"],
        }
    }

    /// RSA, bits. Orin's boot ROM takes 3072 and no less. Xavier's would take 3072 as well, but the hash of such a key
    /// goes over values that only NVIDIA's program computes, so nobody could check what is burned for ever.
    pub fn signing_key_bits(self) -> usize {
        match self {
            Jetson::Orin => 3072,
            Jetson::Xavier => 2048,
        }
    }

    /// File name of a secret.
    pub fn secret_file(self, secret: FuseSecret) -> &'static str {
        match (self, secret) {
            (Jetson::Orin, FuseSecret::SecureBoot) => "jetson-orin-sbk.key",
            (Jetson::Orin, FuseSecret::Oem) => "jetson-orin-k1.key",
            (Jetson::Xavier, FuseSecret::SecureBoot) => "jetson-xavier-sbk.key",
            (Jetson::Xavier, FuseSecret::Oem) => "jetson-xavier-kek2.key",
        }
    }

    /// Bytes of either secret.
    pub fn secret_size(self) -> usize {
        match self {
            Jetson::Orin => 32,
            Jetson::Xavier => 16,
        }
    }
}

/// Makes those of a generation's keys that are not there yet; gives the names of the files it made.
///
/// Each file is written under another name, synced and renamed, a private key before its public half, which the next call
/// makes of it if the power was cut between them.
///
/// # Errors
/// When a file cannot be written or `openssl` refuses.
pub fn create(keys: &KeyDirectory, jetson: Jetson) -> Result<Vec<String>, Error> {
    let mut made = Vec::new();
    for stem in jetson.signing_keys() {
        let (private, public) = (format!("{stem}.key"), format!("{stem}.pub"));
        if !keys.path().join(&private).exists() {
            let bits = format!("rsa_keygen_bits:{}", jetson.signing_key_bits());
            put(keys.path(), &private, &Zeroizing::new(generate(&["RSA", "-pkeyopt", &bits])?))?;
            made.push(private.clone());
        }
        if !keys.path().join(&public).exists() {
            let path = keys.path().join(&private);
            let key = Zeroizing::new(fs::read(&path).map_err(file_error("read", &path))?);
            put(keys.path(), &public, &openssl::run(&["pkey", "-pubout"], &key)?)?;
            made.push(public);
        }
    }
    for secret in [FuseSecret::SecureBoot, FuseSecret::Oem] {
        let name = jetson.secret_file(secret);
        if !keys.path().join(name).exists() {
            let mut bytes = Zeroizing::new(vec![0; jetson.secret_size()]);
            getrandom::fill(&mut bytes).map_err(Error::Random)?;
            put(keys.path(), name, words(&bytes).as_bytes())?;
            made.push(name.to_owned());
        }
    }
    Ok(made)
}

fn words(bytes: &[u8]) -> Zeroizing<String> {
    // Long enough from the start: a string that grows leaves its old copies behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 3 + 8));
    for word in bytes.chunks(4) {
        let between = if text.is_empty() { "0x" } else { " 0x" };
        text.push_str(between);
        for byte in word {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
    }
    text.push('\n');
    text
}

fn secret_of(text: &str, size: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for word in text.split_ascii_whitespace() {
        let digits = word.strip_prefix("0x").unwrap_or(word).as_bytes();
        if digits.len() % 8 != 0 || bytes.len() + digits.len() / 2 > size {
            return None;
        }
        for pair in digits.chunks(2) {
            let [high, low] = pair else { return None };
            let digit = |letter: &u8| char::from(*letter).to_digit(16);
            bytes.push((digit(high)? << 4 | digit(low)?) as u8);
        }
    }
    (bytes.len() == size && bytes.iter().any(|byte| *byte != 0)).then_some(bytes)
}

impl KeyDirectory {
    /// A private firmware signing key, PKCS#8 PEM; the name is one of [`Jetson::signing_keys`].
    pub fn jetson_signing_key(&self, stem: &str) -> PathBuf {
        self.path().join(format!("{stem}.key"))
    }

    /// The modulus of a firmware signing key, big-endian, [`Jetson::signing_key_bits`] long. Its exponent is 65537.
    ///
    /// # Errors
    /// When the public half is missing or something else.
    pub fn jetson_modulus(&self, jetson: Jetson, stem: &str) -> Result<Vec<u8>, Error> {
        let path = self.path().join(format!("{stem}.pub"));
        let modulus = rsa_modulus(&path)?;
        if modulus.len() * 8 == jetson.signing_key_bits() {
            Ok(modulus)
        } else {
            Err(Error::Malformed { path, expected: "an RSA key of the size that this generation takes" })
        }
    }

    /// Where a secret lies.
    pub fn jetson_secret_file(&self, jetson: Jetson, secret: FuseSecret) -> PathBuf {
        self.path().join(jetson.secret_file(secret))
    }

    /// A secret of the fuses, [`Jetson::secret_size`] bytes, the first byte first as in its file.
    ///
    /// # Errors
    /// When it is missing, can be read by others, or is no such secret; one of zeros alone is none.
    pub fn jetson_secret(&self, jetson: Jetson, secret: FuseSecret) -> Result<Zeroizing<Vec<u8>>, Error> {
        let path = self.jetson_secret_file(jetson, secret);
        let metadata = fs::metadata(&path).map_err(file_error("look at", &path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path, mode });
        }
        if metadata.len() > 1024 {
            return Err(Error::Malformed { path, expected: "a secret in words of 32 bits" });
        }
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(file_error("read", &path))?);
        secret_of(&text, jetson.secret_size())
            .ok_or(Error::Malformed { path, expected: "a secret in words of 32 bits, of the right length" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_and_read_in_words_with_the_first_byte_first() {
        let bytes: Vec<u8> = (1..=16).collect();
        let text = words(&bytes);
        assert_eq!(text.as_str(), "0x01020304 0x05060708 0x090a0b0c 0x0d0e0f10\n");
        assert_eq!(secret_of(&text, 16).unwrap().as_slice(), bytes);
        assert_eq!(secret_of("0102030405060708090a0b0c0d0e0f10", 16).unwrap().as_slice(), bytes);
        for wrong in ["", "0x01020304", "0x0102030", &"00 ".repeat(16), &"0x00000000 ".repeat(4), &"0x1234567g ".repeat(4)] {
            assert!(secret_of(wrong, 16).is_none(), "{wrong}");
        }
        assert!(secret_of(&text, 12).is_none() && secret_of(&text, 20).is_none());
    }
}

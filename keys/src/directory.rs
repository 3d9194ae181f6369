//! Where each key of a hierarchy lies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, file_error};

/// One of the three UEFI keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UefiKey {
    /// Platform key.
    Pk,
    /// Key exchange key.
    Kek,
    /// Signature database: signs what the firmware may start.
    Db,
}

impl UefiKey {
    /// All three, from the root down.
    pub const ALL: [Self; 3] = [Self::Pk, Self::Kek, Self::Db];

    pub(crate) fn stem(self) -> &'static str {
        match self {
            Self::Pk => "uefi-pk",
            Self::Kek => "uefi-kek",
            Self::Db => "uefi-db",
        }
    }
}

/// A key whose signatures the firmware takes, or took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbKey {
    /// Counted from 1, the factory's.
    pub number: u32,
    /// Private key, PKCS#8 PEM.
    pub key: PathBuf,
    /// Certificate, PEM.
    pub certificate: PathBuf,
    /// Certificate, DER.
    pub certificate_der: PathBuf,
}

impl DbKey {
    pub(crate) fn stem(number: u32) -> String {
        if number == 1 { UefiKey::Db.stem().to_owned() } else { format!("{}-{number}", UefiKey::Db.stem()) }
    }
}

/// What a file of the hierarchy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// Must be readable by its owner only.
    Private,
    /// May be handed out.
    Public,
}

/// Every file of a complete hierarchy.
pub(crate) const FILES: [(&str, KeyFile); 18] = [
    ("uefi-pk.key", KeyFile::Private),
    ("uefi-pk.crt", KeyFile::Public),
    ("uefi-pk.der", KeyFile::Public),
    ("uefi-kek.key", KeyFile::Private),
    ("uefi-kek.crt", KeyFile::Public),
    ("uefi-kek.der", KeyFile::Public),
    ("uefi-db.key", KeyFile::Private),
    ("uefi-db.crt", KeyFile::Public),
    ("uefi-db.der", KeyFile::Public),
    ("policy.key", KeyFile::Private),
    ("policy.pub", KeyFile::Public),
    ("release.key", KeyFile::Private),
    ("release.pub", KeyFile::Public),
    ("device-ca.key", KeyFile::Private),
    ("device-ca.crt", KeyFile::Public),
    ("log.key", KeyFile::Private),
    ("log.pub", KeyFile::Public),
    ("owner-guid", KeyFile::Public),
];

/// What a hierarchy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Made on a developer's machine, with private keys in plain files: nobody may be asked to trust it.
    Development,
    /// For appliances that are handed out.
    Production,
}

/// The file that says what a hierarchy is for: one word and a line feed.
pub(crate) const PURPOSE: &str = "purpose";

/// A complete hierarchy on disk.
#[derive(Debug, Clone)]
pub struct KeyDirectory {
    directory: PathBuf,
}

impl KeyDirectory {
    /// Opens a hierarchy.
    ///
    /// # Errors
    /// When a file is missing, or a private key can be read by others than its owner. Writes nothing.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        for (name, kind) in FILES {
            let path = directory.join(name);
            let metadata = match fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::Missing(path));
                }
                other => other.map_err(file_error("look at", &path))?,
            };
            let mode = metadata.permissions().mode() & 0o777;
            if kind == KeyFile::Private && mode & 0o077 != 0 {
                return Err(Error::Exposed { path, mode });
            }
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// What the hierarchy is for. One that does not say so is for development: those that `belvedere-keys init` made
    /// before it said so are.
    ///
    /// # Errors
    /// When the file cannot be read, or says something else.
    pub fn purpose(&self) -> Result<Purpose, Error> {
        let path = self.directory.join(PURPOSE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Purpose::Development),
            text => text.map_err(file_error("read", &path))?,
        };
        match text.trim() {
            "production" => Ok(Purpose::Production),
            "development" => Ok(Purpose::Development),
            _ => Err(Error::Malformed { path, expected: "the word development or production" }),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Private UEFI key, PKCS#8 PEM (what `sbsign --key` takes).
    pub fn uefi_key(&self, key: UefiKey) -> PathBuf {
        self.directory.join(format!("{}.key", key.stem()))
    }

    /// UEFI certificate, PEM (what `sbsign --cert` and `virt-fw-vars` take).
    pub fn uefi_certificate(&self, key: UefiKey) -> PathBuf {
        self.directory.join(format!("{}.crt", key.stem()))
    }

    /// UEFI certificate, DER (what firmware set-up screens take).
    pub fn uefi_certificate_der(&self, key: UefiKey) -> PathBuf {
        self.directory.join(format!("{}.der", key.stem()))
    }

    /// A key whose signatures the firmware takes. 1 is the factory's ([`UefiKey::Db`]); later ones are made by
    /// [`crate::renew_db`].
    ///
    /// # Errors
    /// When there is none of this number, or it can be read by others than its owner.
    pub fn db_key(&self, number: u32) -> Result<DbKey, Error> {
        let stem = DbKey::stem(number);
        let file = |extension: &str| self.directory.join(format!("{stem}.{extension}"));
        let (key, certificate, certificate_der) = (file("key"), file("crt"), file("der"));
        for path in [&key, &certificate, &certificate_der] {
            let metadata = fs::metadata(path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::Missing(path.clone()),
                _ => Error::File { operation: "look at", path: path.clone(), source },
            })?;
            let mode = metadata.permissions().mode() & 0o777;
            if path.ends_with(format!("{stem}.key")) && mode & 0o077 != 0 {
                return Err(Error::Exposed { path: path.clone(), mode });
            }
        }
        Ok(DbKey { number, key, certificate, certificate_der })
    }

    /// Every key of [`Self::db_key`], in the order in which they were made.
    ///
    /// # Errors
    /// As there; the first one must be there.
    pub fn db_keys(&self) -> Result<Vec<DbKey>, Error> {
        let mut keys = vec![self.db_key(1)?];
        for number in 2.. {
            match self.db_key(number) {
                Err(Error::Missing(_)) => break,
                key => keys.push(key?),
            }
        }
        Ok(keys)
    }

    /// Where the updates of the firmware's key databases lie that every release brings along; there need not be any.
    pub fn updates(&self) -> PathBuf {
        self.directory.join("updates")
    }

    /// Signs a text with the key exchange key: PKCS#7 SignedData (RFC 2315, 9.1), DER, detached, SHA-256, with the
    /// certificate. Same text, same bytes.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn sign_with_key_exchange_key(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let (key, certificate) = (self.uefi_key(UefiKey::Kek), self.uefi_certificate(UefiKey::Kek));
        let (key, certificate) = (key.to_string_lossy(), certificate.to_string_lossy());
        let message = crate::openssl::run(
            &[
                "smime", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER", "-signer", &certificate,
                "-inkey", &key,
            ],
            text,
        )?;
        // A ContentInfo (RFC 2315, 7) around it: SEQUENCE, the object identifier of SignedData, [0]. UEFI wants what is inside.
        const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
        let inside = match message.as_slice() {
            [0x30, 0x82, _, _, rest @ ..] => rest.strip_prefix(&SIGNED_DATA),
            _ => None,
        };
        match inside {
            Some([0xa0, 0x82, _, _, signed_data @ ..]) => Ok(signed_data.to_vec()),
            _ => Err(Error::Openssl { command: "smime".into(), message: "unexpected PKCS#7 encoding".into() }),
        }
    }

    /// Private policy key, RSA 2048, PKCS#8 PEM: signs what a release's start looks like to the TPM, which gives out an
    /// appliance's storage secrets to nothing else.
    ///
    /// RSA, because its signatures (PKCS#1 v1.5) are the same each time: same inputs, same image.
    pub fn policy_key(&self) -> PathBuf {
        self.directory.join("policy.key")
    }

    /// Public policy key, SubjectPublicKeyInfo PEM.
    pub fn policy_public_key(&self) -> PathBuf {
        self.directory.join("policy.pub")
    }

    /// The modulus of the public policy key, 256 bytes, big-endian. Its exponent is 65537.
    ///
    /// # Errors
    /// When the file is not the public half of an RSA key of 2048 bits with that exponent.
    pub fn policy_modulus(&self) -> Result<[u8; 256], Error> {
        let path = self.policy_public_key();
        let modulus = rsa_modulus(&path)?;
        modulus
            .try_into()
            .map_err(|_| Error::Malformed { path, expected: "an RSA key of 2048 bits with the exponent 65537" })
    }

    /// Signs a text with the policy key: RSASSA-PKCS1-v1_5 over its SHA-256, 256 bytes.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn sign_with_policy_key(&self, text: &[u8]) -> Result<[u8; 256], Error> {
        let path = self.policy_key();
        let signature = crate::openssl::run(&["dgst", "-sha256", "-sign", &path.to_string_lossy()], text)?;
        signature.try_into().map_err(|_| Error::Malformed { path, expected: "an RSA key of 2048 bits" })
    }

    /// Private release signing key, Ed25519, PKCS#8 PEM.
    pub fn release_key(&self) -> PathBuf {
        self.directory.join("release.key")
    }

    /// Public release signing key, SubjectPublicKeyInfo PEM.
    pub fn release_public_key(&self) -> PathBuf {
        self.directory.join("release.pub")
    }

    /// Private key of the device certificate authority, ECDSA P-256, PKCS#8 PEM.
    pub fn device_authority_key(&self) -> PathBuf {
        self.directory.join("device-ca.key")
    }

    /// Certificate of the device certificate authority, PEM.
    pub fn device_authority_certificate(&self) -> PathBuf {
        self.directory.join("device-ca.crt")
    }

    /// Private log key: an age identity, `AGE-SECRET-KEY-1…`.
    pub fn log_key(&self) -> PathBuf {
        self.directory.join("log.key")
    }

    /// Public log key: an age recipient, `age1…`.
    pub fn log_public_key(&self) -> PathBuf {
        self.directory.join("log.pub")
    }

    /// File with the GUID that marks our entries in the firmware's key database.
    pub fn owner_guid_file(&self) -> PathBuf {
        self.directory.join("owner-guid")
    }

    /// The GUID itself, lower case with dashes.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold a GUID.
    pub fn owner_guid(&self) -> Result<String, Error> {
        let path = self.owner_guid_file();
        let text = fs::read_to_string(&path).map_err(file_error("read", &path))?;
        let guid = text.trim();
        let right = guid.len() == 36
            && guid.bytes().enumerate().all(|(position, byte)| match position {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if right { Ok(guid.to_ascii_lowercase()) } else { Err(Error::Malformed { path, expected: "a GUID" }) }
    }
}

/// The modulus of an RSA public key of 2048 or 3072 bits (SubjectPublicKeyInfo PEM), big-endian. Its exponent is 65537.
pub(crate) fn rsa_modulus(path: &Path) -> Result<Vec<u8>, Error> {
    let text = fs::read(path).map_err(file_error("read", path))?;
    let der = crate::openssl::run(&["pkey", "-pubin", "-outform", "DER"], &text)?;
    // RFC 8017, A.1.1, in an RFC 5280 SubjectPublicKeyInfo; for a size every length is fixed: of everything, of the bit
    // string, of the key, of the modulus with its leading zero.
    let head = |whole: u16, string: u16, key: u16, modulus: u16| {
        let [a, b, c, d] = [whole, string, key, modulus].map(u16::to_be_bytes);
        [
            &[0x30, 0x82][..],
            &a,
            &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x82],
            &b,
            &[0x00, 0x30, 0x82],
            &c,
            &[0x02, 0x82],
            &d,
            &[0x00],
        ]
        .concat()
    };
    const TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
    let body = |head: Vec<u8>, length: usize| {
        der.strip_prefix(head.as_slice())
            .and_then(|rest| rest.strip_suffix(&TAIL))
            .filter(|modulus| modulus.len() == length)
            .map(<[u8]>::to_vec)
    };
    body(head(0x122, 0x10f, 0x10a, 0x101), 256).or_else(|| body(head(0x1a2, 0x18f, 0x18a, 0x181), 384)).ok_or(
        Error::Malformed { path: path.to_owned(), expected: "an RSA key of 2048 or 3072 bits with the exponent 65537" },
    )
}

//! Makes a development hierarchy.
//!
//! Write order, and what a power cut after each step leaves behind:
//! 1. a staging directory `.<name>.partial-<random>` of mode 0700 beside the target: an ignorable directory;
//! 2. every file in it, mode 0600, each synced: the same;
//! 3. the staging directory synced: the same;
//! 4. the staging directory renamed to the target, which fails if somebody filled the target meanwhile: the whole
//!    hierarchy or none of it;
//! 5. the parent directory synced: the hierarchy, for good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bech32::{Bech32, Hrp};

use crate::directory::PURPOSE;
use crate::{Error, KeyDirectory, UefiKey, file_error, openssl};

/// For how long the certificates of a new hierarchy hold.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// UEFI certificates, days. Firmware ignores their expiry; people looking at them do not.
    pub uefi_days: u32,
    /// Device certificate authority, days: the longest that an appliance stays attached without a new authority.
    pub device_authority_days: u32,
}

impl Default for Validity {
    fn default() -> Self {
        Self { uefi_days: 7305, device_authority_days: 7305 }
    }
}

/// Makes a complete hierarchy in `directory`, which must not exist or be empty.
///
/// # Errors
/// [`Error::NotEmpty`] when there is anything in it; nothing is changed then. On any other error the target is
/// untouched and the staging directory beside it is removed again.
pub fn create(directory: impl AsRef<Path>, validity: Validity) -> Result<KeyDirectory, Error> {
    let directory = directory.as_ref();
    refuse_unless_empty(directory)?;
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(file_error("create", &parent))?;
    let staging = Staging::new(&parent, directory)?;
    fill(&staging, validity)?;
    sync(&staging.path)?;
    #[expect(clippy::disallowed_methods, reason = "synchronised in the order that the head of this file gives")]
    fs::rename(&staging.path, directory).map_err(|source| match source.kind() {
        std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists => Error::NotEmpty(directory.to_owned()),
        _ => Error::File { operation: "rename the finished hierarchy to", path: directory.to_owned(), source },
    })?;
    sync(&parent)?;
    KeyDirectory::open(directory)
}

fn refuse_unless_empty(directory: &Path) -> Result<(), Error> {
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::NotEmpty(directory.to_owned())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::File { operation: "use as a key directory:", path: directory.to_owned(), source }),
    }
}

fn fill(staging: &Staging, validity: Validity) -> Result<(), Error> {
    for key in UefiKey::ALL {
        let name = match key {
            UefiKey::Pk => "Belvedere development UEFI PK",
            UefiKey::Kek => "Belvedere development UEFI KEK",
            UefiKey::Db => "Belvedere development UEFI db",
        };
        let stem = key.stem();
        staging.write(&format!("{stem}.key"), &generate(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?)?;
        // No authority extensions: the firmware takes each of the three as trust anchor and signer in one.
        let certificate = self_sign(staging, stem, name, validity.uefi_days, "")?;
        let der = openssl::run(&["x509", "-outform", "DER"], &certificate)?;
        staging.write(&format!("{stem}.der"), &der)?;
    }

    policy_key(staging)?;

    let release = generate(&["ED25519"])?;
    staging.write("release.key", &release)?;
    staging.write("release.pub", &openssl::run(&["pkey", "-pubout"], &release)?)?;

    let authority = generate(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"])?;
    staging.write("device-ca.key", &authority)?;
    self_sign(
        staging,
        "device-ca",
        "Belvedere development device authority",
        validity.device_authority_days,
        "basicConstraints=critical,CA:TRUE,pathlen:0\n\
         keyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\n",
    )?;

    log_key(staging)?;
    staging.write(PURPOSE, b"development\n")?;
    staging.write("owner-guid", format!("{}\n", random_guid()?).as_bytes())
}

/// Adds the keys that later versions brought to a hierarchy made by an earlier one; gives the names of the files it made.
/// Nothing that is there is changed.
///
/// Write order, and what a power cut after each step leaves behind:
/// 1. the private key under another name, synced: an ignorable file `.policy.key.partial`;
/// 2. renamed to `policy.key`: its public half is missing, and the next call makes it of this key;
/// 3. the same with `policy.pub`: complete.
///
/// # Errors
/// When a file cannot be written, or the result is not complete: then another file than these is missing.
pub fn complete(directory: impl AsRef<Path>) -> Result<Vec<&'static str>, Error> {
    let directory = directory.as_ref();
    let mut made = Vec::new();
    let private = directory.join("policy.key");
    if directory.join("uefi-db.key").exists() && !private.exists() {
        put(directory, "policy.key", &generate(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?)?;
        made.push("policy.key");
    }
    if private.exists() && !directory.join("policy.pub").exists() {
        let key = fs::read(&private).map_err(file_error("read", &private))?;
        put(directory, "policy.pub", &openssl::run(&["pkey", "-pubout"], &key)?)?;
        made.push("policy.pub");
    }
    KeyDirectory::open(directory).map(|_| made)
}

/// Makes a further key that signs bootloader and unified kernel images; gives its number. The firmware takes its signatures
/// once a release brought its certificate along.
///
/// Write order: private key, certificate in both forms; a key without them is none, and the next call makes it anew.
///
/// # Errors
/// When a file cannot be written or a key cannot be made.
pub fn renew_db(keys: &KeyDirectory, validity: Validity) -> Result<u32, Error> {
    let number = keys.db_keys()?.len() as u32 + 1;
    let stem = crate::DbKey::stem(number);
    let directory = keys.path();
    put(directory, &format!("{stem}.key"), &generate(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?)?;
    let name = format!("Belvedere development UEFI db {number}");
    let key = directory.join(format!("{stem}.key"));
    let certificate = certificate(&key, &name, validity.uefi_days, "")?;
    let der = openssl::run(&["x509", "-outform", "DER"], &certificate)?;
    put(directory, &format!("{stem}.crt"), &certificate)?;
    put(directory, &format!("{stem}.der"), &der)?;
    Ok(number)
}

pub(crate) fn put(directory: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let partial = directory.join(format!(".{name}.partial"));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_error("remove", &partial)(error)),
        _ => {}
    }
    write_new(&partial, content)?;
    let target = directory.join(name);
    #[expect(clippy::disallowed_methods, reason = "synchronised in the order that the head of `complete` gives")]
    fs::rename(&partial, &target).map_err(file_error("rename the finished file to", &target))?;
    sync(directory)
}

fn policy_key(staging: &Staging) -> Result<(), Error> {
    let policy = generate(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?;
    staging.write("policy.key", &policy)?;
    staging.write("policy.pub", &openssl::run(&["pkey", "-pubout"], &policy)?)
}

/// A new private key, PKCS#8 PEM.
pub(crate) fn generate(algorithm: &[&str]) -> Result<Vec<u8>, Error> {
    let mut arguments = vec!["genpkey", "-algorithm"];
    arguments.extend_from_slice(algorithm);
    openssl::run(&arguments, &[])
}

/// Writes `<stem>.crt`, signed by `<stem>.key`, and returns it (PEM).
fn self_sign(staging: &Staging, stem: &str, common_name: &str, days: u32, extensions: &str) -> Result<Vec<u8>, Error> {
    let key = staging.path.join(format!("{stem}.key"));
    let certificate = certificate(&key, common_name, days, extensions)?;
    staging.write(&format!("{stem}.crt"), &certificate)?;
    Ok(certificate)
}

/// A certificate of a key for itself, PEM.
fn certificate(key: &Path, common_name: &str, days: u32, extensions: &str) -> Result<Vec<u8>, Error> {
    // `-config /dev/stdin`: nothing but keys and certificates is ever written to the directory.
    let configuration = format!(
        "[req]\ndistinguished_name=name\nprompt=no\nx509_extensions=extensions\n\
         [name]\nCN={common_name}\n[extensions]\n{extensions}"
    );
    openssl::run(
        &[
            "req",
            "-new",
            "-x509",
            "-sha256",
            "-days",
            &days.to_string(),
            "-config",
            "/dev/stdin",
            "-key",
            &key.to_string_lossy(),
        ],
        configuration.as_bytes(),
    )
}

/// An age identity: 32 random bytes are an X25519 private key. OpenSSL derives the public half; the two bech32
/// spellings are those of <https://age-encryption.org/v1>, section "The X25519 recipient type".
fn log_key(staging: &Staging) -> Result<(), Error> {
    let private = generate(&["X25519"])?;
    // RFC 8410: in both DER encodings the 32 key bytes come last.
    let private_der = openssl::run(&["pkey", "-outform", "DER"], &private)?;
    let public_der = openssl::run(&["pkey", "-pubout", "-outform", "DER"], &private)?;
    let identity = age_text("age-secret-key-", &private_der)?.to_ascii_uppercase();
    let recipient = age_text("age", &public_der)?;
    staging.write("log.key", format!("{identity}\n").as_bytes())?;
    staging.write("log.pub", format!("{recipient}\n").as_bytes())
}

fn age_text(prefix: &str, der: &[u8]) -> Result<String, Error> {
    let malformed = || Error::Openssl { command: "pkey".to_owned(), message: "unexpected X25519 encoding".to_owned() };
    let key = der.len().checked_sub(32).and_then(|start| der.get(start..)).ok_or_else(malformed)?;
    let prefix = Hrp::parse(prefix).map_err(|_| malformed())?;
    bech32::encode::<Bech32>(prefix, key).map_err(|_| malformed())
}

/// A random (version 4) GUID, lower case.
fn random_guid() -> Result<String, Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(file_error("sync", directory))
}

/// The directory that becomes the hierarchy; removed again if it does not.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn new(parent: &Path, target: &Path) -> Result<Self, Error> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(format!(".{name}.partial-{:016x}", u64::from_le_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path).map_err(file_error("create", &path))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        write_new(&self.path.join(name), content)
    }
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file_error("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(file_error("write", path))
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After the rename there is nothing under this name any more, and this fails as it should.
        let _ = fs::remove_dir_all(&self.path);
    }
}

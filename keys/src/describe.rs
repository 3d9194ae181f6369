//! Says what a hierarchy holds, without ever showing a private key.

use std::fs;

use crate::directory::FILES;
use crate::{Error, KeyDirectory, KeyFile, file_error, openssl};

/// One file of a hierarchy, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// File name inside the directory.
    pub name: &'static str,
    /// Private or public.
    pub kind: KeyFile,
    /// SHA-256 over the DER certificate or the DER public key, lower-case hexadecimal; nothing for the GUID and the
    /// age keys.
    pub fingerprint: Option<String>,
    /// A certificate's end, as OpenSSL writes it (`Nov 17 02:00:00 2046 GMT`).
    pub expires: Option<String>,
    /// The public value itself where it is short: recipient or GUID.
    pub value: Option<String>,
}

/// Describes every file of `keys`.
///
/// # Errors
/// When a file cannot be read or is not what its name says.
pub fn describe(keys: &KeyDirectory) -> Result<Vec<Description>, Error> {
    FILES.iter().map(|&(name, kind)| describe_file(keys, name, kind)).collect()
}

fn describe_file(keys: &KeyDirectory, name: &'static str, kind: KeyFile) -> Result<Description, Error> {
    let path = keys.path().join(name);
    let content = fs::read(&path).map_err(file_error("read", &path))?;
    let mut description = Description { name, kind, fingerprint: None, expires: None, value: None };
    match name {
        "owner-guid" => description.value = Some(keys.owner_guid()?),
        "log.pub" => {
            description.value = Some(String::from_utf8_lossy(&content).trim().to_owned());
        }
        "log.key" => {}
        _ if name.ends_with(".key") => {
            let public = openssl::run(&["pkey", "-pubout", "-outform", "DER"], &content)?;
            description.fingerprint = Some(sha256(&public)?);
        }
        _ if name.ends_with(".pub") => {
            let public = openssl::run(&["pkey", "-pubin", "-outform", "DER"], &content)?;
            description.fingerprint = Some(sha256(&public)?);
        }
        _ => {
            let form = if name.ends_with(".der") { "DER" } else { "PEM" };
            let der = openssl::run(&["x509", "-inform", form, "-outform", "DER"], &content)?;
            description.fingerprint = Some(sha256(&der)?);
            let end = openssl::run(&["x509", "-inform", form, "-noout", "-enddate"], &content)?;
            let end = String::from_utf8_lossy(&end);
            description.expires = end.trim().strip_prefix("notAfter=").map(str::to_owned);
        }
    }
    Ok(description)
}

fn sha256(content: &[u8]) -> Result<String, Error> {
    let output = openssl::run(&["dgst", "-sha256", "-r"], content)?;
    let text = String::from_utf8_lossy(&output);
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

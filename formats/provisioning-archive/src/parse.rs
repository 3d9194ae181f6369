//! Reading an archive that anyone may have made.

use crate::{Archive, ArchiveError, Configuration, FORMAT_VERSION, directory, entries};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use std::io::{Cursor, Read};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What an archive may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub archive_bytes: u64,
    /// Entries.
    pub entries: usize,
    /// Bytes of one entry, unpacked.
    pub entry_bytes: u64,
    /// Bytes of all entries, unpacked.
    pub total_bytes: u64,
    /// Unpacked over packed size of one entry; entries of up to 4,096 bytes may be packed any better.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { archive_bytes: 1 << 20, entries: 16, entry_bytes: 64 << 10, total_bytes: 128 << 10, ratio: 20 }
    }
}

/// Below this size a good ratio is no bomb.
const RATIO_FREE_BYTES: u64 = 4096;
/// Authorities in `service-ca.pem`.
const MAX_AUTHORITIES: usize = 8;

/// Reads an archive.
///
/// Nothing is written anywhere, nothing outside `limits` is allocated. The claim's expiry is not judged here (there is no
/// clock): see [`Archive::claim_expired`].
///
/// # Errors
/// The first thing that is wrong, in the order: size, directory, names, kinds, sizes, contents, meaning.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Archive, ArchiveError> {
    // 1. Size of the whole.
    if bytes.len() as u64 > limits.archive_bytes {
        return Err(ArchiveError::TooLarge { limit: limits.archive_bytes });
    }
    // 2. The directory, by our own strict reader, and everything it declares.
    let declared = directory::read(bytes, limits.entries)?;
    check_directory(&declared, limits)?;
    // 3. The contents. Declared sizes may lie, so reading is bounded as well.
    let mut contents = unpack(bytes, declared.len(), limits)?;
    let mut take = |name: &'static str| -> Result<String, ArchiveError> {
        contents
            .iter_mut()
            .find(|(n, _)| n == name)
            .map(|(_, text)| std::mem::take(text))
            .ok_or(ArchiveError::MissingEntry { name })
    };
    // 4. What they mean. The format version first: a newer archive may hold entries that are unknown here.
    let configuration = configuration(&take(entries::CONFIGURATION)?)?;
    if let Some(unknown) = declared.iter().find(|entry| !entries::ALL.iter().any(|name| name.as_bytes() == entry.name)) {
        return Err(ArchiveError::UnknownEntry { name: ArchiveError::shown(unknown.name) });
    }
    let archive = Archive {
        claim_certificate_pem: take(entries::CLAIM_CERTIFICATE)?,
        claim_private_key_pem: take(entries::CLAIM_PRIVATE_KEY)?,
        service_ca_pem: take(entries::SERVICE_CA)?,
        configuration,
    };
    check_credentials(&archive)?;
    Ok(archive)
}

fn check_directory(declared: &[directory::Entry<'_>], limits: &Limits) -> Result<(), ArchiveError> {
    let mut total = 0u64;
    for (index, entry) in declared.iter().enumerate() {
        let shown = || ArchiveError::shown(entry.name);
        if !is_plain_name(entry.name) {
            // A folder's name ends with a slash; say that instead of calling it unsafe.
            if entry.name.len() > 1 && entry.name.ends_with(b"/") && is_plain_name(&entry.name[..entry.name.len() - 1]) {
                return Err(ArchiveError::NotAFile { name: shown() });
            }
            return Err(ArchiveError::UnsafeName { name: shown() });
        }
        if declared[..index].iter().any(|other| other.name.eq_ignore_ascii_case(entry.name)) {
            return Err(ArchiveError::DuplicateEntry { name: shown() });
        }
        // Upper half: Unix mode, S_IFMT; 0 is what some tools write for a plain file. Lower half: DOS, bit 4 is a folder.
        let kind = (entry.external_attributes >> 16) & 0o170_000;
        if (entry.made_by_unix && kind != 0 && kind != 0o100_000) || entry.external_attributes & 0x10 != 0 {
            return Err(ArchiveError::NotAFile { name: shown() });
        }
        // Bit 0: encrypted, bit 6: strongly, bit 13: directory masked.
        if entry.flags & 0x2041 != 0 {
            return Err(ArchiveError::Encrypted);
        }
        if entry.flags & 0x20 != 0 {
            return Err(ArchiveError::Unsupported { what: "patched data".into() });
        }
        if entry.method != 0 && entry.method != 8 {
            return Err(ArchiveError::Unsupported { what: format!("compression method {}", entry.method) });
        }
        if entry.unpacked > limits.entry_bytes {
            return Err(ArchiveError::EntryTooLarge { name: shown(), limit: limits.entry_bytes });
        }
        check_ratio(entry, entry.unpacked, limits)?;
        total = total.saturating_add(entry.unpacked);
        if total > limits.total_bytes {
            return Err(ArchiveError::EntryTooLarge { name: "the whole".into(), limit: limits.total_bytes });
        }
    }
    Ok(())
}

fn check_ratio(entry: &directory::Entry<'_>, unpacked: u64, limits: &Limits) -> Result<(), ArchiveError> {
    if unpacked > RATIO_FREE_BYTES && unpacked > entry.packed.saturating_mul(limits.ratio) {
        return Err(ArchiveError::Ratio { name: ArchiveError::shown(entry.name), limit: limits.ratio });
    }
    Ok(())
}

/// Letters, digits, `.`, `-`, `_`; no path of any kind.
fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name[0] != b'.'
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Reads every entry. Order and names are those of the directory that was checked.
fn unpack(bytes: &[u8], count: usize, limits: &Limits) -> Result<Vec<(String, String)>, ArchiveError> {
    let damaged = |error: zip::result::ZipError| ArchiveError::Damaged { what: ArchiveError::shortened(error) };
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if zip.len() != count || zip.offset() != 0 {
        return Err(ArchiveError::Damaged { what: "its directory is ambiguous".into() });
    }
    if zip.has_overlapping_files().map_err(damaged)? {
        return Err(ArchiveError::Damaged { what: "its files overlap".into() });
    }
    let mut contents = Vec::with_capacity(count);
    let mut total = 0u64;
    for index in 0..count {
        let file = zip.by_index(index).map_err(damaged)?;
        let name = file.name().map_err(damaged)?.into_owned();
        let declared = file.size();
        // One byte more than is allowed, so that "exactly the limit" and "more" can be told apart.
        let mut content = Vec::new();
        file.take(limits.entry_bytes + 1)
            .read_to_end(&mut content)
            .map_err(|error| ArchiveError::Damaged { what: ArchiveError::shortened(format!("{name}: {error}")) })?;
        total += content.len() as u64;
        if content.len() as u64 > limits.entry_bytes || total > limits.total_bytes {
            return Err(ArchiveError::EntryTooLarge { name: format!("\"{name}\""), limit: limits.entry_bytes });
        }
        if content.len() as u64 != declared {
            return Err(ArchiveError::Damaged { what: format!("{name} is not as long as declared") });
        }
        let text = String::from_utf8(content).map_err(|_| ArchiveError::Damaged { what: format!("{name} is not text") })?;
        contents.push((name, text));
    }
    Ok(contents)
}

fn configuration(text: &str) -> Result<Configuration, ArchiveError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u64,
    }
    let invalid = |error: serde_json::Error| ArchiveError::Configuration { what: ArchiveError::shortened(error) };
    let Version { format_version } = serde_json::from_str(text).map_err(invalid)?;
    if format_version != u64::from(FORMAT_VERSION) {
        return Err(ArchiveError::UnknownFormatVersion { found: format_version, known: FORMAT_VERSION });
    }
    let configuration: Configuration = serde_json::from_str(text).map_err(invalid)?;
    check_configuration(&configuration)
        .map_err(|what| ArchiveError::Configuration { what: what.into() })
        .map(|()| configuration)
}

fn check_configuration(c: &Configuration) -> Result<(), &'static str> {
    let word = |text: &str, max: usize| {
        !text.is_empty() && text.len() <= max && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    // These three end up in MQTT topics and file names: no `/`, `+`, `#`.
    if !word(&c.device_id, 128) {
        return Err("device_id");
    }
    if !word(&c.claim_client_id, 160) {
        return Err("claim_client_id");
    }
    if !word(&c.provisioning_template, 64) {
        return Err("provisioning_template");
    }
    if c.device_name.is_empty() || c.device_name.len() > 255 || c.device_name.chars().any(char::is_control) {
        return Err("device_name");
    }
    for endpoint in [&c.endpoints.mqtt, &c.endpoints.https] {
        if !word(&endpoint.host, 253) || endpoint.port == 0 {
            return Err("endpoints");
        }
    }
    if !word(&c.endpoints.region, 64) {
        return Err("endpoints.region");
    }
    // 2020 to 2100: the issue time may become the appliance's clock.
    if !(1_577_836_800..4_102_444_800).contains(&c.issued) {
        return Err("issued");
    }
    if c.claim_expires <= c.issued || c.claim_expires - c.issued > 7 * 86_400 {
        return Err("claim_expires");
    }
    Ok(())
}

fn check_credentials(archive: &Archive) -> Result<(), ArchiveError> {
    let wrong = |name, what: &str| ArchiveError::Credential { name, what: what.into() };
    let claims = certificates(entries::CLAIM_CERTIFICATE, &archive.claim_certificate_pem, 1)?;
    let (_, certificate) =
        X509Certificate::from_der(&claims[0]).map_err(|_| wrong(entries::CLAIM_CERTIFICATE, "not an X.509 certificate"))?;
    let mut names = certificate.subject().iter_common_name().map(|name| name.as_str());
    let common_name = names.next().and_then(Result::ok);
    if common_name != Some(archive.configuration.claim_client_id.as_str()) || names.next().is_some() {
        return Err(wrong(entries::CLAIM_CERTIFICATE, "its common name is not the claim's client identifier"));
    }
    for authority in certificates(entries::SERVICE_CA, &archive.service_ca_pem, MAX_AUTHORITIES)? {
        let (_, certificate) =
            X509Certificate::from_der(&authority).map_err(|_| wrong(entries::SERVICE_CA, "not an X.509 certificate"))?;
        if !certificate.is_ca() {
            return Err(wrong(entries::SERVICE_CA, "not an authority's certificate"));
        }
    }
    match PrivateKeyDer::from_pem_slice(archive.claim_private_key_pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(_)) => Ok(()),
        Ok(_) => Err(wrong(entries::CLAIM_PRIVATE_KEY, "not PKCS#8")),
        Err(_) => Err(wrong(entries::CLAIM_PRIVATE_KEY, "no PEM private key")),
    }
}

fn certificates(name: &'static str, pem: &str, max: usize) -> Result<Vec<CertificateDer<'static>>, ArchiveError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| ArchiveError::Credential { name, what: "damaged PEM".into() })?;
        if found.len() == max {
            return Err(ArchiveError::Credential { name, what: format!("more than {max} certificates") });
        }
        found.push(certificate);
    }
    if found.is_empty() {
        return Err(ArchiveError::Credential { name, what: "no PEM certificate".into() });
    }
    Ok(found)
}

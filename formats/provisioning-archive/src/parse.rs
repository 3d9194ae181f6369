//! Reading an archive that anyone may have made.

use crate::{Archive, ArchiveError, configuration, directory, entries, layout, text, unpack};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What an archive may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub archive_bytes: u64,
    /// Entries: the four, and what a system that packed them anew put beside them.
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
        Self { archive_bytes: 1 << 20, entries: 64, entry_bytes: 64 << 10, total_bytes: 128 << 10, ratio: 20 }
    }
}

/// Where a certificate begins, at the start of a line. Readers of PEM pass over a line with anything in front of it.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
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
    // 2. The directory, and everything it declares.
    let directory = directory::read(bytes, limits.entries)?;
    let layout = layout::layout(&directory, limits)?;
    // 3. The contents, by the same entries.
    let mut contents = unpack::contents(bytes, &layout.ours, directory.start, limits)?;
    let mut take = |name: &'static str| -> Result<String, ArchiveError> {
        let content = contents.iter_mut().find(|(n, _)| *n == name).map(|(_, content)| std::mem::take(content));
        text::text(name, content.ok_or(ArchiveError::MissingEntry { name })?)
    };
    // 4. What they mean. The format version first: a newer archive may hold entries that are unknown here.
    let configuration = configuration::read(&take(entries::CONFIGURATION)?)?;
    if let Some(unknown) = layout.unknown {
        return Err(unknown);
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
    // An authority that is passed over would be missed months later, when the service changes to it. Readers of PEM pass over
    // every other heading, so each word that may be of one is counted. In base64 no space follows it.
    let begun = pem.split("BEGIN").skip(1).filter(|behind| behind.starts_with(char::is_whitespace)).count();
    if begun != found.len() {
        let what = format!(
            "the word BEGIN is in it {begun} times, and {} certificates can be read: nothing may stand in front of {BEGIN} in its \
             line, each certificate must begin with exactly this line, and nothing else may say the word BEGIN",
            found.len()
        );
        return Err(ArchiveError::Credential { name, what });
    }
    Ok(found)
}

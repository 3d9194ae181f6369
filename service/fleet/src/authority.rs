//! The device certificate authority. It signs three things, and decides everything that is in them: of a device's
//! request only the public key is used.

use crate::FleetError;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// How long a claim can be used, milliseconds.
pub const CLAIM_VALIDITY_MS: i64 = 5 * 60 * 1000;
/// How long a device certificate is valid, days. Appliances may stay off for years; what ends one early is revocation.
const DEVICE_VALIDITY_DAYS: i64 = 3650;
/// How long the service's own certificate is valid, days; a new one is made at every start.
const SERVER_VALIDITY_DAYS: i64 = 825;
/// An appliance's clock may be behind before it has asked for the time.
const BACKDATED: Duration = Duration::hours(24);
/// A request is a key and a name: one that is larger is not one.
const MAX_REQUEST: usize = 16 * 1024;

/// The authority's key and certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM.
    pub certificate_pem: String,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// End of validity, milliseconds since 1970.
    pub expires_ms: i64,
}

/// A signed certificate with its new private key.
pub struct IssuedPair {
    /// The certificate.
    pub issued: Issued,
    /// PEM, PKCS#8. Never logged.
    pub private_key_pem: String,
}

fn failed(operation: &'static str) -> impl Fn(rcgen::Error) -> FleetError {
    move |source| FleetError::Certificate { operation, source }
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose, validity: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATED;
    params.not_after = now + validity;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let mut serial = belvedere_store::identifiers::random::<16>();
    serial[0] &= 0x7f; // positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

impl Authority {
    /// From PEM.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Authority, FleetError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("read the device authority's key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(certificate_pem, key).map_err(failed("read the device authority's certificate"))?;
        Ok(Authority { issuer, certificate_pem: certificate_pem.to_owned() })
    }

    /// From the two files of a key directory.
    pub fn open(certificate: &Path, key: &Path) -> Result<Authority, FleetError> {
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|source| FleetError::File { path: path.to_owned(), source });
        Authority::new(&read(certificate)?, &read(key)?)
    }

    /// A new authority that lives as long as the process: for tests.
    pub fn for_tests() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test device authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).expect("a certificate").pem();
        Authority::new(&certificate_pem, &key.serialize_pem()).expect("what was just made")
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    fn sign(&self, params: CertificateParams) -> Result<IssuedPair, FleetError> {
        let key = KeyPair::generate().map_err(failed("make a key"))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed("sign a certificate"))?;
        let issued = issued(&certificate, params.not_after);
        Ok(IssuedPair { issued, private_key_pem: key.serialize_pem() })
    }

    /// The service's certificate, for names and addresses.
    pub fn server(&self, names: &[String]) -> Result<IssuedPair, FleetError> {
        let days = Duration::days(SERVER_VALIDITY_DAYS);
        let mut params = leaf("belvedere-service", ExtendedKeyUsagePurpose::ServerAuth, days);
        // Sorts addresses from names.
        params.subject_alt_names =
            CertificateParams::new(names.to_vec()).map_err(failed("name the service's certificate"))?.subject_alt_names;
        self.sign(params)
    }

    /// A certificate for this service as somebody's client, with its key.
    pub fn client(&self, common_name: &str) -> Result<IssuedPair, FleetError> {
        self.sign(leaf(common_name, ExtendedKeyUsagePurpose::ClientAuth, Duration::days(SERVER_VALIDITY_DAYS)))
    }

    /// A claim with its key.
    pub fn claim(&self, common_name: &str) -> Result<IssuedPair, FleetError> {
        let validity = Duration::milliseconds(CLAIM_VALIDITY_MS);
        self.sign(leaf(common_name, ExtendedKeyUsagePurpose::ClientAuth, validity))
    }

    /// A device's certificate, from its request (PEM, PKCS#10), whose signature is checked.
    pub fn device(&self, common_name: &str, request_pem: &str) -> Result<Issued, FleetError> {
        if request_pem.len() > MAX_REQUEST {
            return Err(failed("read a certificate request")(rcgen::Error::CouldNotParseCertificationRequest));
        }
        let mut request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(failed("read a certificate request"))?;
        let days = Duration::days(DEVICE_VALIDITY_DAYS);
        request.params = leaf(common_name, ExtendedKeyUsagePurpose::ClientAuth, days);
        let not_after = request.params.not_after;
        let certificate = request.signed_by(&self.issuer).map_err(failed("sign a device certificate"))?;
        Ok(issued(&certificate, not_after))
    }
}

fn issued(certificate: &rcgen::Certificate, not_after: OffsetDateTime) -> Issued {
    Issued {
        certificate_pem: certificate.pem(),
        fingerprint: crate::identity::fingerprint(certificate.der()),
        expires_ms: not_after.unix_timestamp() * 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn request(subject: &str) -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["other.example".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.is_ca = IsCa::NoCa;
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    }

    #[test]
    fn of_a_request_only_the_key_is_used() {
        let authority = Authority::for_tests();
        let (key, pem) = request("panorama_somebody-else_Thing_00000000");
        let issued = authority.device("panorama_cam_Thing_12345678", &pem).unwrap();
        let (_, pem) = parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names: Vec<_> = certificate.subject().iter_common_name().map(|n| n.as_str().unwrap()).collect();
        assert_eq!(names, ["panorama_cam_Thing_12345678"]);
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(!certificate.is_ca());
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let (_, pem) = request("x");
        let mut der = parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        *der.last_mut().unwrap() ^= 1;
        let broken = rcgen::CertificateSigningRequestParams::from_der(&der.as_slice().into());
        assert!(broken.is_err());
        assert!(Authority::for_tests().device("x", "not a request").is_err());
        assert!(Authority::for_tests().device("x", &"A".repeat(MAX_REQUEST + 1)).is_err());
    }

    #[test]
    fn a_claim_ends_after_five_minutes() {
        let claim = Authority::for_tests().claim("claim-device-x").unwrap();
        let left = claim.issued.expires_ms - belvedere_store::now_ms();
        assert!((CLAIM_VALIDITY_MS - 5000..=CLAIM_VALIDITY_MS).contains(&left), "{left}");
        assert!(claim.private_key_pem.starts_with(concat!("-----BEGIN ", "PRIVATE KEY-----")), "PKCS#8");
    }
}

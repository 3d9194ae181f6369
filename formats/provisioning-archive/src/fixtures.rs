//! Archives, good and hostile, for tests.

use crate::{Archive, Configuration, FORMAT_VERSION, entries};
use belvedere_device_protocol::{ConnectionType, Endpoint, Endpoints, EthernetConfiguration, NetworkConfiguration};
use std::io::{Cursor, Write};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

pub const ISSUED: i64 = 1_795_000_000;

/// What the service makes.
pub fn good() -> Archive {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "service");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let mut claim = rcgen::CertificateParams::new(Vec::new()).unwrap();
    claim.distinguished_name = rcgen::DistinguishedName::new();
    claim.distinguished_name.push(rcgen::DnType::CommonName, "claim-device-abc");
    let claim_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let claim_certificate = claim.signed_by(&claim_key, &issuer).unwrap();
    Archive {
        configuration: Configuration {
            format_version: FORMAT_VERSION,
            device_id: "device-abc".into(),
            device_name: "front door".into(),
            claim_client_id: "claim-device-abc".into(),
            endpoints: Endpoints {
                mqtt: Endpoint { host: "10.0.2.2".into(), port: 8883 },
                https: Endpoint { host: "belvedere.example".into(), port: 8443 },
                region: "us-east-1".into(),
            },
            network: NetworkConfiguration {
                ethernet0: Some(EthernetConfiguration {
                    connection_type: ConnectionType::Dhcp,
                    static_ip_connection_info: None,
                }),
                ..Default::default()
            },
            provisioning_template: "belvedere-appliance".into(),
            claim_expires: ISSUED + 300,
            issued: ISSUED,
        },
        claim_certificate_pem: claim_certificate.pem(),
        claim_private_key_pem: claim_key.serialize_pem(),
        service_ca_pem: ca_certificate.pem(),
    }
}

/// The good entries, by name, to be changed by a test.
pub fn contents() -> Vec<(String, Vec<u8>)> {
    let archive = good();
    vec![
        (entries::CONFIGURATION.into(), serde_json::to_vec(&archive.configuration).unwrap()),
        (entries::CLAIM_CERTIFICATE.into(), archive.claim_certificate_pem.into_bytes()),
        (entries::CLAIM_PRIVATE_KEY.into(), archive.claim_private_key_pem.into_bytes()),
        (entries::SERVICE_CA.into(), archive.service_ca_pem.into_bytes()),
    ]
}

/// Packs any entries.
pub fn pack(contents: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in contents {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Offset of the directory header of entry `index`.
pub fn directory_header(bytes: &[u8], index: usize) -> usize {
    let end = bytes.len() - 22;
    let mut at = u32::from_le_bytes(bytes[end + 16..end + 20].try_into().unwrap()) as usize;
    for _ in 0..index {
        let length = |offset: usize| u16::from_le_bytes(bytes[at + offset..at + offset + 2].try_into().unwrap()) as usize;
        at += 46 + length(28) + length(30) + length(32);
    }
    at
}

/// Offset of the local header of entry `index`.
pub fn local_header(bytes: &[u8], index: usize) -> usize {
    let at = directory_header(bytes, index);
    u32::from_le_bytes(bytes[at + 42..at + 46].try_into().unwrap()) as usize
}

/// Replaces a name by another of the same length, in both places.
pub fn rename(bytes: &mut [u8], index: usize, name: &[u8]) {
    let (directory, local) = (directory_header(bytes, index), local_header(bytes, index));
    bytes[directory + 46..directory + 46 + name.len()].copy_from_slice(name);
    bytes[local + 30..local + 30 + name.len()].copy_from_slice(name);
}

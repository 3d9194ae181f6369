//! The archive on an operator's stick.
#![no_main]

use belvedere_device_protocol::{Endpoint, Endpoints, NetworkConfiguration};
use belvedere_provisioning_archive::{Archive, Configuration, FORMAT_VERSION, Limits, entries, parse, write};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Write};
use std::sync::OnceLock;

/// A well-formed archive; its keys live as long as this process.
fn good() -> &'static Archive {
    static GOOD: OnceLock<Archive> = OnceLock::new();
    GOOD.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "claim-device-abc");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        let endpoint = Endpoint { host: "10.0.2.2".into(), port: 8883 };
        Archive {
            configuration: Configuration {
                format_version: FORMAT_VERSION,
                device_id: "device-abc".into(),
                device_name: "fuzz".into(),
                claim_client_id: "claim-device-abc".into(),
                endpoints: Endpoints { mqtt: endpoint.clone(), https: endpoint, region: "us-east-1".into() },
                network: NetworkConfiguration::default(),
                provisioning_template: "belvedere-appliance".into(),
                claim_expires: 1_795_000_300,
                issued: 1_795_000_000,
            },
            claim_certificate_pem: certificate.clone(),
            claim_private_key_pem: key.serialize_pem(),
            service_ca_pem: certificate,
        }
    })
}

fn packed(contents: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in contents {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        if zip.start_file(*name, options).is_err() || zip.write_all(content).is_err() {
            return Vec::new();
        }
    }
    zip.finish().map(Cursor::into_inner).unwrap_or_default()
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    let bytes = match mode % 5 {
        // Anything at all.
        0 => rest.to_vec(),
        // A good archive with some bytes changed: place (two bytes), value (one byte).
        1 => {
            let mut bytes = write(good());
            assert_eq!(parse(&bytes, &Limits::default()).as_ref(), Ok(good()), "what was written can be read");
            for change in rest.chunks_exact(3) {
                let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
                bytes[place] = change[2];
            }
            bytes
        }
        // Another configuration in a good archive.
        2 => packed(&[
            (entries::CONFIGURATION, rest),
            (entries::CLAIM_CERTIFICATE, good().claim_certificate_pem.as_bytes()),
            (entries::CLAIM_PRIVATE_KEY, good().claim_private_key_pem.as_bytes()),
            (entries::SERVICE_CA, good().service_ca_pem.as_bytes()),
        ]),
        // A good archive packed anew: in a folder of any name, with a file of any name beside it.
        3 => {
            let text = String::from_utf8_lossy(rest);
            let (folder, litter) = text.split_once('\n').unwrap_or((&text, "__MACOSX/._x"));
            let configuration = serde_json::to_vec(&good().configuration).unwrap_or_default();
            let contents = [
                (entries::CONFIGURATION, configuration.as_slice()),
                (entries::CLAIM_CERTIFICATE, good().claim_certificate_pem.as_bytes()),
                (entries::CLAIM_PRIVATE_KEY, good().claim_private_key_pem.as_bytes()),
                (entries::SERVICE_CA, good().service_ca_pem.as_bytes()),
            ];
            let named = contents.map(|(name, content)| (format!("{folder}{name}"), content));
            let mut all: Vec<(&str, &[u8])> = named.iter().map(|(name, content)| (name.as_str(), *content)).collect();
            all.push((litter, b"litter"));
            packed(&all)
        }
        // Another certificate in a good archive.
        _ => packed(&[
            (entries::CONFIGURATION, &serde_json::to_vec(&good().configuration).unwrap_or_default()),
            (entries::CLAIM_CERTIFICATE, rest),
            (entries::CLAIM_PRIVATE_KEY, good().claim_private_key_pem.as_bytes()),
            (entries::SERVICE_CA, good().service_ca_pem.as_bytes()),
        ]),
    };
    if let Ok(archive) = parse(&bytes, &Limits::default()) {
        assert_eq!(
            parse(&write(&archive), &Limits::default()).as_ref(),
            Ok(&archive),
            "what was accepted can be written and read again"
        );
    }
});

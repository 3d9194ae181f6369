//! The device's key in a TPM (swtpm): it signs, it is nowhere else, and nothing of it stays there.

mod swtpm;

use belvedere_device_protocol::{Endpoint, Endpoints, NetworkConfiguration};
use belvedere_interfaces::provisioning::{DeviceKeyReference, Identity};
use belvedere_provisioning::identity::{FILE, Standing, StoredIdentity, write};
use belvedere_provisioning::key::{DeviceKey, KeptKey, SoftwareKey, WrappedKey};
use belvedere_provisioning::tpm_key::{create, make, sign};
use belvedere_tpm::{MAXIMUM, Tpm};
use belvedere_tpm_device::{Device, Limit, Open};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use swtpm::Swtpm;
use x509_parser::prelude::{FromDer, Pem, X509CertificationRequest};

const TIME: Duration = Duration::from_secs(60);
/// The point at the end of a P-256 key's SubjectPublicKeyInfo.
const POINT: usize = 65;

/// What passes between us and a TPM; a command whose number is `fail` does not get there.
struct Overheard {
    device: Device,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    fail: Option<usize>,
    count: usize,
}

impl Tpm for Overheard {
    type Error = String;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, String> {
        self.count += 1;
        if self.fail == Some(self.count) {
            return Err("played: no answer".into());
        }
        let length = self.device.exchange(command, response)?;
        self.heard.lock().unwrap().extend([command.to_vec(), response[..length].to_vec()]);
        Ok(length)
    }
}

fn overhear(tpm: &Swtpm, heard: &Arc<Mutex<Vec<Vec<u8>>>>) -> Box<Open> {
    let (node, heard) = (tpm.node(), Arc::clone(heard));
    Box::new(move |time| {
        let device = Device::open(&node, Limit::All(time))?;
        Ok(Box::new(Overheard { device, heard: Arc::clone(&heard), fail: None, count: 0 }))
    })
}

fn wrapped(key: &impl DeviceKey) -> WrappedKey {
    match key.kept() {
        Some(KeptKey::Tpm(wrapped)) => wrapped,
        other => panic!("{other:?}"),
    }
}

fn verifies(public_key_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let point = &public_key_der[public_key_der.len() - POINT..];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}

/// Whether any 32 bytes in a row are the private half of this public key. As they are, and as hexadecimal digits.
fn holds_the_private_key_of(public_key_der: &[u8], bytes: &[u8]) -> bool {
    let (point, random) = (&public_key_der[public_key_der.len() - POINT..], SystemRandom::new());
    let is_it = |bytes: &[u8]| {
        let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
        bytes.windows(32).any(|number| EcdsaKeyPair::from_private_key_and_public_key(kind, number, point, &random).is_ok())
    };
    let digits = bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|digits| digits.len() >= 64);
    is_it(bytes) || digits.into_iter().any(|digits| hex::decode(digits).is_ok_and(|bytes| is_it(&bytes)))
}

fn stored(key: &dyn DeviceKey) -> StoredIdentity {
    let endpoint = || Endpoint { host: "127.0.0.1".into(), port: 1 };
    let identity = Identity {
        device_id: "device-a".into(),
        thing_name: "thing".into(),
        endpoints: Endpoints { mqtt: endpoint(), https: endpoint(), region: "us-east-1".into() },
        service_ca_pem: "ca".into(),
        certificate_pem: "certificate".into(),
        key: key.reference(),
        mqtt_password: None,
        generation: 1,
    };
    StoredIdentity::new(identity, key.kept(), "00".into(), NetworkConfiguration::default(), 0)
}

#[test]
fn the_private_key_is_in_no_file_and_in_no_message() {
    let tpm = Swtpm::start();
    let heard = Arc::default();
    let key = make(overhear(&tpm, &heard)).unwrap();
    let public = key.public_key_der();
    let request = key.certificate_request_pem("device-a").unwrap();

    // The request is signed by the key that it names.
    let (_, pem) = x509_parser::pem::parse_x509_pem(request.as_bytes()).unwrap();
    let Pem { contents, .. } = pem;
    let (_, parsed) = X509CertificationRequest::from_der(&contents).unwrap();
    let info = &parsed.certification_request_info;
    assert_eq!(info.subject_pki.raw, public);
    assert_eq!(info.subject.to_string(), "CN=device-a");
    assert!(verifies(&public, info.raw, &parsed.signature_value.data));

    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &Standing::Owned(stored(&key))).unwrap();
    let file = std::fs::read(directory.path().join(FILE)).unwrap();
    assert!(!String::from_utf8_lossy(&file).contains("PRIVATE KEY"));
    let told = serde_json::to_vec(&stored(&key).identity).unwrap();
    let messages = heard.lock().unwrap().concat();
    assert!(messages.len() > 1000, "key and request were made over this connection");
    for bytes in [&file, &told, &messages, &contents] {
        assert!(!holds_the_private_key_of(&public, bytes));
    }
    // Who reads the agent's copy has not even the wrapped key.
    let wrapped = hex::encode(wrapped(&key).private);
    assert!(String::from_utf8_lossy(&file).contains(&wrapped) && !String::from_utf8_lossy(&told).contains(&wrapped));
}

/// The look for the private key finds one where it is.
#[test]
fn a_private_key_in_software_is_found_in_its_file() {
    let key = SoftwareKey::generate().unwrap();
    let DeviceKeyReference::Software { private_key_pem } = key.reference() else { panic!("in software") };
    let der = PrivateKeyDer::from_pem_slice(private_key_pem.as_bytes()).unwrap();
    assert!(holds_the_private_key_of(&key.public_key_der(), der.secret_der()));
    assert!(holds_the_private_key_of(&key.public_key_der(), format!("\"{}\"", hex::encode(der.secret_der())).as_bytes()));
    assert!(!holds_the_private_key_of(&SoftwareKey::generate().unwrap().public_key_der(), der.secret_der()));
}

#[test]
fn signatures_verify_and_nothing_stays_in_the_tpm() {
    let tpm = Swtpm::start();
    let key = make(Device::opener(tpm.node())).unwrap();
    let (public, wrapped) = (key.public_key_der(), wrapped(&key));
    // A TPM has three places for loaded objects, and a software TPM no resource manager: one that stays is soon missing.
    let (count, began) = (20u32, Instant::now());
    for number in 0..count {
        let message = number.to_be_bytes();
        let mut device = Device::open(&tpm.node(), Limit::All(TIME)).unwrap();
        let signature = sign(&mut device, &wrapped, &Sha256::digest(message).into()).unwrap();
        assert!(verifies(&public, &message, &signature));
        assert!(!verifies(&public, b"another", &signature));
    }
    println!("a signature takes {:?} over swtpm", began.elapsed() / count);
    // Made anew it is another key.
    let another = make(Device::opener(tpm.node())).unwrap();
    assert_ne!(another.public_key_der(), public);
}

#[test]
fn another_tpm_cannot_use_it_and_neither_can_who_lacks_the_authorization() {
    let (tpm, other) = (Swtpm::start(), Swtpm::start());
    let wrapped = create(&mut Device::open(&tpm.node(), Limit::All(TIME)).unwrap()).unwrap();
    let mut elsewhere = Device::open(&other.node(), Limit::All(TIME)).unwrap();
    let error = sign(&mut elsewhere, &wrapped, &[7; 32]).unwrap_err();
    assert!(error.contains("refuses Load"), "{error}");
    let mut here = Device::open(&tpm.node(), Limit::All(TIME)).unwrap();
    let error = sign(&mut here, &WrappedKey { authorization: [0; 32], ..wrapped.clone() }, &[7; 32]).unwrap_err();
    assert!(error.contains("refuses Sign"), "{error}");
    let mut damaged = wrapped.clone();
    *damaged.private.last_mut().unwrap() ^= 1;
    let error = sign(&mut here, &damaged, &[7; 32]).unwrap_err();
    assert!(error.contains("refuses Load"), "{error}");
    for _ in 0..5 {
        // What is damaged is garbage at any length.
        damaged.private.truncate(damaged.private.len() / 2);
        assert!(sign(&mut here, &damaged, &[7; 32]).is_err());
    }
    assert!(sign(&mut here, &wrapped, &[7; 32]).is_ok(), "wrong attempts neither lock the key nor stay loaded");
}

#[test]
fn a_tpm_that_does_not_answer_is_an_error_at_every_command_and_leaves_nothing_loaded() {
    let tpm = Swtpm::start();
    let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let connect = |fail| {
        let device = Device::open(&tpm.node(), Limit::All(TIME)).unwrap();
        Overheard { device, heard: Arc::clone(&heard), fail, count: 0 }
    };
    let wrapped = create(&mut connect(None)).unwrap();
    let mut whole = connect(None);
    sign(&mut whole, &wrapped, &[7; 32]).unwrap();
    assert_eq!(whole.count, 3, "Load, Sign and FlushContext");
    drop(whole);
    // Not the flush: what it would have unloaded stays here, and goes with the connection on an appliance.
    for (name, commands) in [("create", 1), ("sign", 2)] {
        for fail in 1..=commands {
            for _ in 0..4 {
                let mut device = connect(Some(fail));
                let result = match name {
                    "create" => create(&mut device).map(drop),
                    _ => sign(&mut device, &wrapped, &[7; 32]).map(drop),
                };
                assert!(result.unwrap_err().contains("played"), "{name} {fail}");
            }
        }
    }
    sign(&mut connect(None), &wrapped, &[7; 32]).unwrap();
    assert!(sign(&mut connect(Some(3)), &wrapped, &[7; 32]).is_err());
}

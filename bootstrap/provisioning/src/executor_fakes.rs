//! What the executor works on in tests: archives, a world and a stick whose power can be cut at each operation.

use super::*;
use crate::claim::Registration;
use crate::identity::Standing;
use crate::key::{KeptKey, SoftwareKey, WrappedKey};
use belvedere_device_protocol::provisioning::Broker;
use belvedere_device_protocol::{Endpoint, Endpoints, EthernetStatus, NetworkConfiguration};
use belvedere_interfaces::logs::LogEntry;
use belvedere_interfaces::provisioning::KeyAlgorithm;
use belvedere_provisioning_archive::{Configuration, FORMAT_VERSION, Listed};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::OnceLock;

pub const ISSUED: i64 = 1_795_000_000;

/// An archive as the service makes it.
pub fn archive() -> Archive {
    static ARCHIVE: OnceLock<Archive> = OnceLock::new();
    ARCHIVE.get_or_init(make_archive).clone()
}

/// Another service's, about a device of the same names.
pub fn strangers_archive() -> Archive {
    static ARCHIVE: OnceLock<Archive> = OnceLock::new();
    ARCHIVE.get_or_init(make_archive).clone()
}

fn make_archive() -> Archive {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let mut claim = rcgen::CertificateParams::new(Vec::new()).unwrap();
    claim.distinguished_name = rcgen::DistinguishedName::new();
    claim.distinguished_name.push(rcgen::DnType::CommonName, "claim-device-abc");
    claim.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let claim_key = rcgen::KeyPair::generate().unwrap();
    let claim_certificate = claim.signed_by(&claim_key, &rcgen::Issuer::from_params(&ca, &ca_key)).unwrap();
    let endpoint = Endpoint { host: "10.0.2.2".into(), port: 8883 };
    Archive {
        configuration: Configuration {
            format_version: FORMAT_VERSION,
            device_id: "device-abc".into(),
            device_name: "front door".into(),
            claim_client_id: "claim-device-abc".into(),
            endpoints: Endpoints { mqtt: endpoint.clone(), https: endpoint, region: "us-east-1".into() },
            network: NetworkConfiguration::default(),
            provisioning_template: "belvedere-appliance".into(),
            claim_expires: ISSUED + 300,
            issued: ISSUED,
        },
        claim_certificate_pem: claim_certificate.pem(),
        claim_private_key_pem: claim_key.serialize_pem(),
        service_ca_pem: ca_certificate.pem(),
    }
}

/// The identity of an earlier provisioning by the service of [`archive`].
pub fn stored(generation: u64) -> StoredIdentity {
    let endpoints = archive().configuration.endpoints;
    let identity = Identity {
        device_id: "device-old".into(),
        thing_name: "panorama_old_Thing_00000001".into(),
        endpoints,
        service_ca_pem: archive().service_ca_pem,
        certificate_pem: "certificate".into(),
        key: DeviceKeyReference::Software { private_key_pem: "key".into() },
        mqtt_password: None,
        generation,
    };
    StoredIdentity::new(identity, None, format!("digest-{generation}"), NetworkConfiguration::default(), ISSUED)
}

impl StoredIdentity {
    /// The same identity with another key.
    pub fn keep_key(&mut self, key: &dyn DeviceKey) {
        self.identity.key = key.reference();
        let (archive, network) = (self.archive_sha256.clone(), self.network.clone());
        *self = StoredIdentity::new(self.identity.clone(), key.kept(), archive, network, self.provisioned);
    }
}

/// What stands for a key that the TPM wrapped.
pub fn wrapped() -> KeptKey {
    KeptKey::Tpm(WrappedKey { private: vec![1; 40], public_area: vec![2; 88], authorization: [3; 32] })
}

/// A key whose private half nobody gets.
pub struct FakeTpmKey(SoftwareKey);

impl FakeTpmKey {
    pub fn new() -> Self {
        Self(SoftwareKey::generate().unwrap())
    }
}

impl DeviceKey for FakeTpmKey {
    fn certificate_request_pem(&self, common_name: &str) -> Result<String, String> {
        self.0.certificate_request_pem(common_name)
    }
    fn public_key_der(&self) -> Vec<u8> {
        self.0.public_key_der()
    }
    fn reference(&self) -> DeviceKeyReference {
        let algorithm = KeyAlgorithm::EcdsaP256Sha256;
        DeviceKeyReference::Provisioning { algorithm, public_key: self.public_key_der() }
    }
    fn kept(&self) -> Option<KeptKey> {
        Some(wrapped())
    }
}

/// The service's half: a certificate for the key in the request.
fn certify(request_pem: &str, thing: &str) -> String {
    let mut request = rcgen::CertificateSigningRequestParams::from_pem(request_pem).unwrap();
    request.params.distinguished_name = rcgen::DistinguishedName::new();
    request.params.distinguished_name.push(rcgen::DnType::CommonName, thing);
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::new(Vec::new()).unwrap(), key);
    request.signed_by(&issuer).unwrap().pem()
}

pub const THING: &str = "panorama_front_door_Thing_12345678";

/// What outlives a power cut.
#[derive(Default)]
pub struct Durable {
    pub identity: Option<StoredIdentity>,
    pub network_kept: bool,
    pub files: BTreeMap<String, Vec<u8>>,
    pub ours: BTreeMap<String, Vec<u8>>,
}

/// One run of the appliance. Power fails at operation `cut`; from then on nothing reaches the durable half.
pub struct Fake {
    pub durable: Rc<RefCell<Durable>>,
    pub now: i64,
    pub lights: BTreeSet<Condition>,
    pub shown: Vec<Condition>,
    pub network: &'static str,
    pub reverted: bool,
    pub refuse: Option<ClaimError>,
    pub foreign_key: bool,
    /// Whether there is one, and whether it works.
    pub tpm: Option<bool>,
    pub fail_store: bool,
    pub broker: Option<Broker>,
    /// Who the server of the claim had to be.
    pub trusted: String,
    pub operation: Rc<RefCell<(u32, Option<u32>)>>,
}

/// Counts an operation; `false` once the power is gone.
fn powered(operation: &Rc<RefCell<(u32, Option<u32>)>>) -> bool {
    let mut operation = operation.borrow_mut();
    operation.0 += 1;
    operation.1.is_none_or(|cut| operation.0 < cut)
}

impl World for Fake {
    fn now(&self) -> i64 {
        self.now
    }
    fn set_clock(&mut self, seconds: i64) -> Result<(), String> {
        self.now = seconds;
        Ok(())
    }
    fn light(&mut self, condition: Condition, active: bool) {
        if active {
            self.lights.insert(condition);
            self.shown.push(condition);
        } else {
            self.lights.remove(&condition);
        }
    }
    fn network_try(&mut self, _: &NetworkConfiguration, _: &Endpoint) -> Result<NetworkStatus, String> {
        if self.network == "invalid" {
            return Err("network configuration, Ethernet0.Mask: not a network mask".into());
        }
        let up = self.network == "up";
        Ok(NetworkStatus {
            ethernet0_status: Some(EthernetStatus {
                connection_status: if up { ConnectionStatus::Connected } else { ConnectionStatus::NotConnected },
                ip_address: if up { "10.0.2.15/24".into() } else { "--".into() },
                hw_address: "52:54:00:12:34:56".into(),
            }),
            ..Default::default()
        })
    }
    fn network_keep(&mut self) -> Result<(), String> {
        if powered(&self.operation) {
            self.durable.borrow_mut().network_kept = true;
            return Ok(());
        }
        Err("no power".into())
    }
    fn network_revert(&mut self) -> Result<(), String> {
        self.reverted = true;
        Ok(())
    }
    fn make_key(&mut self) -> Result<Box<dyn DeviceKey>, String> {
        match self.tpm {
            None => Ok(Box::new(SoftwareKey::generate()?)),
            Some(true) => Ok(Box::new(FakeTpmKey::new())),
            Some(false) => Err("make the device's key: the TPM refuses Create: x".into()),
        }
    }
    fn register(
        &mut self,
        _: &Archive,
        authorities_pem: &str,
        request_pem: &str,
        serial: &str,
    ) -> Result<Registration, ClaimError> {
        assert_eq!(serial, "52:54:00:12:34:56");
        self.trusted = authorities_pem.to_owned();
        if let Some(error) = &self.refuse {
            return Err(error.clone());
        }
        if !powered(&self.operation) {
            return Err(ClaimError::Unreachable { service: "x".into(), what: "no power".into() });
        }
        let request = if self.foreign_key {
            SoftwareKey::generate().unwrap().certificate_request_pem("x").unwrap()
        } else {
            request_pem.to_owned()
        };
        let certificate_pem = certify(&request, THING);
        Ok(Registration { thing_name: THING.into(), certificate_pem, broker: self.broker.clone() })
    }
    fn standing(&self) -> Standing {
        self.durable.borrow().identity.clone().map_or(Standing::New, Standing::Owned)
    }
    fn store_identity(&mut self, stored: &StoredIdentity) -> Result<(), String> {
        if self.fail_store {
            return Err("write identity.json: no space left".into());
        }
        if !powered(&self.operation) {
            return Err("no power".into());
        }
        self.durable.borrow_mut().identity = Some(stored.clone());
        Ok(())
    }
    fn logs(&mut self) -> Result<Vec<LogEntry>, String> {
        Ok(vec![LogEntry {
            sequence: 1,
            application_instance_id: None,
            stream: "kern_log".into(),
            timestamp_ms: 0,
            message: "usb 1-1: new device".into(),
        }])
    }
}

pub struct FakeStick(pub Rc<RefCell<Durable>>, pub Rc<RefCell<(u32, Option<u32>)>>);

impl Stick for FakeStick {
    fn list(&mut self) -> Result<Vec<Listed>, String> {
        Ok(self.0.borrow().files.keys().map(|name| Listed { name: name.clone(), is_file: true }).collect())
    }
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let mut bytes = self.0.borrow().files.get(name).cloned().ok_or("no such file")?;
        bytes.truncate(limit as usize + 1);
        Ok(bytes)
    }
    fn has_ours(&mut self, name: &str) -> bool {
        self.0.borrow().ours.contains_key(name)
    }
    fn write_ours(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        if powered(&self.1) {
            self.0.borrow_mut().ours.insert(name.into(), bytes.to_vec());
            return Ok(());
        }
        Err("no power".into())
    }
    fn retire(&mut self, name: &str) -> Result<(), String> {
        if powered(&self.1) {
            let bytes = self.0.borrow_mut().files.remove(name).ok_or("no such file")?;
            self.0.borrow_mut().files.insert(RETIRED.into(), bytes);
            return Ok(());
        }
        Err("no power".into())
    }
    fn erase_retired(&mut self) -> Result<(), String> {
        if !self.0.borrow().files.contains_key(RETIRED) {
            return Ok(());
        }
        // Its bytes go first, as on a real stick.
        if powered(&self.1) {
            self.0.borrow_mut().files.insert(RETIRED.into(), vec![0; 7]);
        }
        if powered(&self.1) {
            self.0.borrow_mut().files.remove(RETIRED);
            return Ok(());
        }
        Err("no power".into())
    }
}

//! The agent's MQTT and HTTPS with a key in a TPM (swtpm). Played: the service (TLS that asks for a client certificate), and
//! `provisioning`, which signs with the real code.

#[path = "../../../bootstrap/provisioning/tests/swtpm/mod.rs"]
mod swtpm;

use belvedere_agent::key::tls;
use belvedere_agent::link::Link;
use belvedere_agent::web::Web;
use belvedere_device_protocol::{Endpoint, Endpoints};
use belvedere_interfaces::Failure;
use belvedere_interfaces::provisioning::{ANOTHER_KEY, BUSY, DeviceKeyReference, Identity, Sign, Signed};
use belvedere_provisioning::key::{DeviceKey, KeptKey, SoftwareKey};
use belvedere_provisioning::tpm_key::{make, sign};
use belvedere_tpm_device::{Device, Limit};
use belvedere_varlink::Server;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use swtpm::Swtpm;

/// What the service says to every HTTPS request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

struct Played {
    identity: Identity,
    provisioning: PathBuf,
    /// Signatures that were asked for.
    asked: Arc<AtomicUsize>,
    /// Failures with which `provisioning` answers first, the last first.
    failures: Arc<Mutex<Vec<&'static str>>>,
    /// Connections on which a client with the device's certificate said something.
    taken: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

/// A service that has certified this key. Closes each connection after so many requests.
fn play(key: &dyn DeviceKey, node: PathBuf, requests: usize) -> Played {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let request = key.certificate_request_pem("device").unwrap();
    let request = rcgen::CertificateSigningRequestParams::from_pem(&request).unwrap();
    let device = request.signed_by(&issuer).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(authority_certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::try_from(server_key.serialize_der()).unwrap())
        .unwrap();
    // It would resume sessions, and offers to.
    assert!(config.send_tls13_tickets > 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = || Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let taken = Arc::new(AtomicUsize::new(0));
    let identity = Identity {
        device_id: "device-a".into(),
        thing_name: "thing".into(),
        endpoints: Endpoints { mqtt: endpoint(), https: endpoint(), region: "us-east-1".into() },
        service_ca_pem: authority_certificate.pem(),
        certificate_pem: device.pem(),
        key: key.reference(),
        mqtt_password: None,
        generation: 1,
    };
    let (config, count) = (Arc::new(config), Arc::clone(&taken));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(StreamOwned::new(tls, stream.unwrap()), requests, &count);
        }
    });

    let directory = tempfile::tempdir().unwrap();
    let provisioning = directory.path().join("provisioning.sock");
    let (asked, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, fail, wrapped) = (Arc::clone(&asked), Arc::clone(&failures), key.kept());
    let server = Server::bind(&provisioning).unwrap();
    server.route(move |call: Sign, _| signed(&call, &count, &fail, wrapped.as_ref(), &node)).spawn();
    Played { identity, provisioning, asked, failures, taken, _directory: directory }
}

fn answer(mut tls: StreamOwned<ServerConnection, TcpStream>, requests: usize, taken: &AtomicUsize) {
    for request in 0..requests {
        let mut bytes = [0; 4096];
        if !matches!(tls.read(&mut bytes), Ok(got) if got > 0) {
            return;
        }
        taken.fetch_add(usize::from(request == 0), Ordering::SeqCst);
        let _ = tls.write_all(ANSWER);
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn signed(
    call: &Sign,
    asked: &AtomicUsize,
    failures: &Mutex<Vec<&'static str>>,
    key: Option<&KeptKey>,
    node: &std::path::Path,
) -> Result<Signed, Failure> {
    asked.fetch_add(1, Ordering::SeqCst);
    let fail = |reason: &str| Failure { reason: reason.into(), message: "played".into() };
    if let Some(reason) = failures.lock().unwrap().pop() {
        return Err(fail(reason));
    }
    let Some(KeptKey::Tpm(key)) = key.filter(|_| call.generation == 1) else { return Err(fail(ANOTHER_KEY)) };
    let signature = sign(&mut Device::open(node, Limit::All(Duration::from_secs(60))).unwrap(), key, &call.digest);
    signature.map(|signature| Signed { signature }).map_err(|_| fail("tpm"))
}

fn in_the_tpm(requests: usize) -> (Swtpm, Played) {
    let tpm = Swtpm::start();
    let key = make(Device::opener(tpm.node())).unwrap();
    let played = play(&key, tpm.node(), requests);
    (tpm, played)
}

impl Played {
    fn web(&self) -> Web {
        Web::new(&self.identity, tls(&self.identity, &self.provisioning).unwrap())
    }

    /// Signatures asked for, and connections that the service took.
    fn counts(&self) -> (usize, usize) {
        (self.asked.load(Ordering::SeqCst), self.taken.load(Ordering::SeqCst))
    }
}

/// Asks for credentials; the played service has none, which is an answer.
fn ask(web: &mut Web) -> String {
    web.access(0).err().unwrap().to_string()
}

const ANSWERED: &str = "ask for credentials: the answer holds no credentials";

#[test]
fn a_connection_costs_one_signature_and_requests_on_it_none() {
    let (_tpm, played) = in_the_tpm(3);
    let mut web = played.web();
    for _ in 0..3 {
        assert_eq!(ask(&mut web), ANSWERED);
    }
    assert_eq!(played.counts(), (1, 1));
    // The service closed that one and would resume its session: without the key there is no other.
    for _ in 0..3 {
        assert_eq!(ask(&mut web), ANSWERED);
    }
    assert_eq!(played.counts(), (2, 2));
}

#[test]
fn mqtt_shows_the_same_certificate() {
    let (_tpm, played) = in_the_tpm(1);
    let tls = tls(&played.identity, &played.provisioning).unwrap();
    let _link = Link::start(&played.identity, tls, |_| {});
    let began = Instant::now();
    while played.counts().1 == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", played.counts());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (asked, taken) = played.counts();
    assert_eq!(asked, taken);
}

#[test]
fn busy_is_asked_once_more_and_everything_else_is_the_end_of_the_connection() {
    let (_tpm, played) = in_the_tpm(1);
    played.failures.lock().unwrap().push(BUSY);
    assert_eq!(ask(&mut played.web()), ANSWERED);
    assert_eq!(played.counts(), (2, 1));
    *played.failures.lock().unwrap() = vec![BUSY, BUSY];
    let error = ask(&mut played.web());
    assert!(error.contains("sign with the device's key") && error.contains("busy"), "{error}");
    assert_eq!(played.counts(), (4, 1));
    for reason in ["tpm", ANOTHER_KEY] {
        let before = played.counts();
        played.failures.lock().unwrap().push(reason);
        let error = ask(&mut played.web());
        assert!(error.contains(reason), "{error}");
        assert_eq!(played.counts(), (before.0 + 1, before.1), "{reason}");
    }
}

#[test]
fn an_earlier_identity_signs_no_more_and_a_certificate_for_another_key_is_said_at_once() {
    let (_tpm, mut played) = in_the_tpm(1);
    played.identity.generation = 2;
    assert!(ask(&mut played.web()).contains(ANOTHER_KEY));
    played.identity.key = SoftwareKey::generate().unwrap().reference();
    let error = tls(&played.identity, &played.provisioning).err().unwrap().to_string();
    assert!(error.contains("the client certificate"), "{error}");
    let DeviceKeyReference::Provisioning { algorithm, .. } = in_the_tpm(1).1.identity.key else { panic!("in the TPM") };
    let public_key = SoftwareKey::generate().unwrap().public_key_der();
    played.identity.key = DeviceKeyReference::Provisioning { algorithm, public_key };
    assert!(tls(&played.identity, &played.provisioning).is_err());
}

#[test]
fn without_an_answer_a_handshake_ends_after_its_time() {
    let (_tpm, mut played) = in_the_tpm(1);
    let directory = tempfile::tempdir().unwrap();
    played.provisioning = directory.path().join("provisioning.sock");
    assert!(ask(&mut played.web()).contains("is the service running"));
    Server::bind(&played.provisioning)
        .unwrap()
        .route(|_: Sign, _| {
            std::thread::sleep(Duration::from_secs(30));
            Ok(Signed { signature: Vec::new() })
        })
        .spawn();
    let began = Instant::now();
    let error = ask(&mut played.web());
    assert!(error.contains("within 5000 ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(played.counts().1, 0);
}

#[test]
fn a_key_in_software_needs_no_signature_of_others() {
    let played = play(&SoftwareKey::generate().unwrap(), PathBuf::new(), 1);
    assert_eq!(ask(&mut played.web()), ANSWERED);
    assert_eq!(played.counts(), (0, 1));
}

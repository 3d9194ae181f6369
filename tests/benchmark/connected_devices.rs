//! Simulated devices for `tests/benchmark/devices`: real certificates, MQTT 3.1.1 over TLS 1.3, one report every ten
//! seconds each. Two commands:
//!
//!     connected-devices certificates KEYS FOLDER COUNT
//!     connected-devices run message|shadow HOST:PORT FOLDER PID COUNT… -- SECONDS
//!
//! The first writes certificates of COUNT devices, and one for a server on 127.0.0.1, signed by the authority in KEYS;
//! the second brings up so many devices step by step, lets each step report for SECONDS, and prints one line of JSON a
//! step: seconds to connect, times of acknowledged reports, memory and processor time of the process PID, and (as
//! `client_…`) this program's own. A report is a message of 290 bytes, or as large a change of the device's shadow, which a
//! server that knows shadows carries out before it acknowledges.

mod processes;

use belvedere_device_protocol::shadow::{DEVICE, DeviceState, topic};
use belvedere_device_protocol::{ConnectionStatus, EthernetStatus, NetworkStatus};
use belvedere_fleet::authority::Authority;
use belvedere_fleet::identity::fingerprint;
use processes::{processor_seconds, resident_kib};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const EVERY: Duration = Duration::from_secs(10);
/// Handshakes under way at a time.
const AT_ONCE: usize = 64;

fn name(n: usize) -> String {
    format!("panorama_load_{n:05}_Thing_{n:08x}")
}

fn certificates(keys: &Path, folder: &Path, count: usize) -> Outcome<()> {
    let authority = Authority::open(&keys.join("device-ca.crt"), &keys.join("device-ca.key"))?;
    let server = authority.server(&["localhost".into(), "127.0.0.1".into()])?;
    std::fs::write(folder.join("server.crt"), &server.issued.certificate_pem)?;
    std::fs::write(folder.join("server.key"), &server.private_key_pem)?;
    std::fs::write(folder.join("ca.crt"), authority.certificate_pem())?;
    let mut all = std::io::BufWriter::new(std::fs::File::create(folder.join("devices.pem"))?);
    let mut list = std::io::BufWriter::new(std::fs::File::create(folder.join("devices.txt"))?);
    for n in 0..count {
        let key = rcgen::KeyPair::generate()?;
        let request = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
        let issued = authority.device(&name(n), &request)?;
        writeln!(all, "{}\n{}", issued.certificate_pem, key.serialize_pem())?;
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?;
        writeln!(list, "{} {}", name(n), fingerprint(&der))?;
    }
    Ok(())
}

struct Device {
    name: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn devices(folder: &Path) -> Outcome<Vec<Device>> {
    let text = std::fs::read(folder.join("devices.pem"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let keys: Result<Vec<_>, _> = rustls_pki_types::PrivatePkcs8KeyDer::pem_slice_iter(&text).collect();
    let pairs = certificates?.into_iter().zip(keys?).enumerate();
    Ok(pairs.map(|(n, (certificate, key))| Device { name: name(n), certificate, key: key.into() }).collect())
}

fn field(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut left = body.len();
    loop {
        let digit = (left % 128) as u8;
        left /= 128;
        packet.push(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// What all devices count together.
#[derive(Default)]
struct Counts {
    failed: AtomicUsize,
    latencies_us: Mutex<Vec<u32>>,
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(device: Device, address: &str, roots: Arc<rustls::RootCertStore>) -> Outcome<(Stream, String)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![device.certificate], device.key)?;
    config.resumption = rustls::client::Resumption::disabled();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let hello = [field("MQTT"), vec![4, 2, 0, 60], field(&device.name)].concat();
    let topic = format!("panorama/{}/orders", device.name);
    let subscribe = [vec![0, 1], field(&topic), vec![1]].concat();
    stream.write_all(&[packet(0x10, &hello), packet(0x82, &subscribe)].concat()).await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    if answer[..4] != [0x20, 2, 0, 0] || answer[4..] != [0x90, 3, 0, 1, 1] {
        return Err(format!("the answer to CONNECT and SUBSCRIBE is {answer:?}").into());
    }
    Ok((stream, device.name))
}

/// What a device says every ten seconds.
#[derive(Clone, Copy)]
enum Kind {
    /// A message that nobody asked to hear.
    Message,
    /// The state that an appliance reports in its shadow.
    Shadow,
}

impl Kind {
    fn packet(self, name: &str, uptime_s: u64) -> Outcome<Vec<u8>> {
        let (topic, body) = match self {
            Kind::Message => {
                let body = serde_json::json!({ "uptime_s": uptime_s, "filler": "x".repeat(250) });
                (format!("panorama/{name}/report"), body)
            }
            Kind::Shadow => {
                let port = EthernetStatus {
                    connection_status: ConnectionStatus::Connected,
                    ip_address: "10.0.0.2/24".into(),
                    hw_address: "02:00:00:00:00:01".into(),
                };
                let state = DeviceState {
                    software_version: "1.0.0".into(),
                    board: "simulated".into(),
                    network: NetworkStatus {
                        ethernet0_status: Some(port.clone()),
                        ethernet1_status: Some(port),
                        ntp_status: None,
                    },
                    uptime_s,
                };
                let body = serde_json::json!({ "state": { "reported": state } });
                (topic(name, DEVICE, "update"), body)
            }
        };
        Ok(packet(0x32, &[field(&topic), vec![0, 2], serde_json::to_vec(&body)?].concat()))
    }
}

async fn report(mut stream: Stream, kind: Kind, name: &str, number: usize, counts: &Counts) -> Outcome<()> {
    // Spread over the ten seconds.
    sleep(EVERY * (number as u32 % 1000) / 1000).await;
    for count in 0.. {
        let report = kind.packet(name, count * EVERY.as_secs())?;
        let begun = Instant::now();
        stream.write_all(&report).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        if answer != [0x40, 2, 0, 2] {
            return Err(format!("the answer to PUBLISH is {answer:?}").into());
        }
        let took = begun.elapsed();
        counts.latencies_us.lock().map_err(|_| "poisoned")?.push(took.as_micros() as u32);
        sleep(EVERY.saturating_sub(took)).await;
    }
    Ok(())
}

async fn run(kind: Kind, address: &str, folder: &Path, pid: u32, steps: &[usize], seconds: u64) -> Outcome<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let roots = Arc::new(roots);
    let mut waiting = devices(folder)?.into_iter().enumerate();
    let counts = Arc::new(Counts::default());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let client = std::process::id();
    let (empty, client_empty) = (resident_kib(pid)?, resident_kib(client)?);
    let mut before = 0;
    for step in steps {
        let (new, begun) = (step.checked_sub(before).ok_or("steps must grow")?, Instant::now());
        before = *step;
        let cpu_before = processor_seconds(pid)?;
        for (number, device) in waiting.by_ref().take(new) {
            let place = places.clone().acquire_owned().await?;
            let (counts, roots, address) = (counts.clone(), roots.clone(), address.to_owned());
            tokio::spawn(async move {
                let connected = connect(device, &address, roots).await;
                drop(place);
                let outcome = match connected {
                    Ok((stream, name)) => report(stream, kind, &name, number, &counts).await,
                    Err(e) => Err(e),
                };
                if let Err(e) = outcome {
                    if counts.failed.fetch_add(1, Ordering::Relaxed) < 3 {
                        eprintln!("a device ended: {e}");
                    }
                }
            });
        }
        let _all = places.acquire_many(AT_ONCE as u32).await?;
        let connecting = begun.elapsed().as_secs_f64();
        let cpu_connected = processor_seconds(pid)?;
        // The first round of reports is not measured.
        sleep(EVERY).await;
        counts.latencies_us.lock().map_err(|_| "poisoned")?.clear();
        let (begun, cpu_begun, client_begun) = (Instant::now(), processor_seconds(pid)?, processor_seconds(client)?);
        sleep(Duration::from_secs(seconds)).await;
        let (wall, cpu, client_cpu) = (begun.elapsed().as_secs_f64(), processor_seconds(pid)?, processor_seconds(client)?);
        let mut latencies = std::mem::take(&mut *counts.latencies_us.lock().map_err(|_| "poisoned")?);
        latencies.sort_unstable();
        let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(0.0, |l| f64::from(*l) / 1000.0);
        let resident = resident_kib(pid)?;
        let line = serde_json::json!({
            "devices": step,
            "failed": counts.failed.load(Ordering::Relaxed),
            "connect_s": rounded(connecting, 1),
            "connect_cpu_ms": rounded((cpu_connected - cpu_before) * 1000.0 / new.max(1) as f64, 3),
            "resident_kib": resident,
            "kib_a_device": rounded((resident - empty) / *step as f64, 2),
            "reports_a_second": rounded(latencies.len() as f64 / wall, 1),
            "p50_ms": rounded(at(0.5), 2),
            "p99_ms": rounded(at(0.99), 2),
            "cpu_percent": rounded((cpu - cpu_begun) * 100.0 / wall, 2),
            "cpu_us_a_report": rounded((cpu - cpu_begun) * 1e6 / latencies.len().max(1) as f64, 1),
            "client_cpu_percent": rounded((client_cpu - client_begun) * 100.0 / wall, 1),
            "client_kib_a_device": rounded((resident_kib(client)? - client_empty) / *step as f64, 1),
        });
        println!("{line}");
    }
    Ok(())
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["certificates", keys, folder, count] => certificates(Path::new(keys), Path::new(folder), count.parse()?),
        ["run", kind @ ("message" | "shadow"), address, folder, pid, steps @ .., "--", seconds] => {
            let kind = if *kind == "shadow" { Kind::Shadow } else { Kind::Message };
            let steps: Result<Vec<usize>, _> = steps.iter().map(|s| s.parse()).collect();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(kind, address, Path::new(folder), pid.parse()?, &steps?, seconds.parse()?))
        }
        _ => Err(
            "connected-devices certificates KEYS FOLDER COUNT | run message|shadow HOST:PORT FOLDER PID COUNT… -- SECONDS"
                .into(),
        ),
    }
}

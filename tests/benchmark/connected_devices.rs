//! Simulated devices for `tests/benchmark/devices`: real certificates, MQTT 3.1.1 over TLS 1.3, one report every ten
//! seconds each. Two commands:
//!
//!     connected-devices certificates KEYS FOLDER COUNT
//!     connected-devices run HOST:PORT FOLDER PID COUNT… -- SECONDS
//!
//! The first writes certificates of COUNT devices, and one for a server on 127.0.0.1, signed by the authority in KEYS;
//! the second brings up so many devices step by step, lets each step report for SECONDS, and prints one line of JSON a
//! step: seconds to connect, latency of acknowledged reports, memory and CPU time of the process PID.

use belvedere_fleet::authority::Authority;
use belvedere_fleet::identity::fingerprint;
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
    connected: AtomicUsize,
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

async fn report(mut stream: Stream, name: &str, number: usize, counts: &Counts) -> Outcome<()> {
    let body = format!("{{\"uptime_s\":{number},\"filler\":\"{}\"}}", "x".repeat(250));
    let report = [field(&format!("panorama/{name}/report")), vec![0, 2], body.into_bytes()].concat();
    let report = packet(0x32, &report);
    // Spread over the ten seconds.
    sleep(EVERY * (number as u32 % 1000) / 1000).await;
    loop {
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
}

/// Resident memory (KiB) and CPU time (seconds) of a process.
fn usage(pid: &str) -> Outcome<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let resident: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok((resident, ticks / 100.0))
}

async fn run(address: &str, folder: &Path, pid: &str, steps: &[usize], seconds: u64) -> Outcome<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let roots = Arc::new(roots);
    let mut waiting = devices(folder)?.into_iter().enumerate();
    let counts = Arc::new(Counts::default());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let (empty, _) = usage(pid)?;
    for step in steps {
        let (before, begun) = (counts.connected.load(Ordering::Relaxed), Instant::now());
        let (_, cpu_before) = usage(pid)?;
        for (number, device) in waiting.by_ref().take(step - before) {
            let place = places.clone().acquire_owned().await?;
            let (counts, roots, address) = (counts.clone(), roots.clone(), address.to_owned());
            tokio::spawn(async move {
                let connected = connect(device, &address, roots).await;
                drop(place);
                let outcome = match connected {
                    Ok((stream, name)) => {
                        counts.connected.fetch_add(1, Ordering::Relaxed);
                        report(stream, &name, number, &counts).await
                    }
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
        let (_, cpu_connected) = usage(pid)?;
        // The first round of reports is not measured.
        sleep(EVERY).await;
        counts.latencies_us.lock().map_err(|_| "poisoned")?.clear();
        let (_, cpu_begun) = usage(pid)?;
        sleep(Duration::from_secs(seconds)).await;
        let (resident, cpu) = usage(pid)?;
        let mut latencies = std::mem::take(&mut *counts.latencies_us.lock().map_err(|_| "poisoned")?);
        latencies.sort_unstable();
        let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(0.0, |l| f64::from(*l) / 1000.0);
        println!(
            "{{\"devices\":{step},\"failed\":{},\"connect_s\":{connecting:.1},\"connect_cpu_ms\":{:.2},\"resident_mib\":{:.1},\
             \"kib_a_device\":{:.1},\"reports_a_second\":{:.0},\"p50_ms\":{:.1},\"p99_ms\":{:.1},\"cpu_percent\":{:.1}}}",
            counts.failed.load(Ordering::Relaxed),
            (cpu_connected - cpu_before) * 1000.0 / (step - before) as f64,
            resident / 1024.0,
            (resident - empty) / *step as f64,
            latencies.len() as f64 / seconds as f64,
            at(0.5),
            at(0.99),
            (cpu - cpu_begun) * 100.0 / seconds as f64,
        );
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["certificates", keys, folder, count] => certificates(Path::new(keys), Path::new(folder), count.parse()?),
        ["run", address, folder, pid, steps @ .., "--", seconds] => {
            let steps: Result<Vec<usize>, _> = steps.iter().map(|s| s.parse()).collect();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(address, Path::new(folder), pid, &steps?, seconds.parse()?))
        }
        _ => Err("connected-devices certificates KEYS FOLDER COUNT | run HOST:PORT FOLDER PID COUNT… -- SECONDS".into()),
    }
}

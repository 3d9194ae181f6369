//! The service as it runs: does it answer, with the right certificate? Or else, are its ports free?

use super::{Finding, certificates, error, good, warning};
use crate::serve::Listening;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where the service listens or, if it does not run, listened last.
fn listening(data: &Path) -> Option<Listening> {
    serde_json::from_slice(&std::fs::read(data.join("endpoints.json")).ok()?).ok()
}

/// Where it listens, if it runs.
pub fn running(data: &Path) -> Option<Listening> {
    let listening = listening(data)?;
    let command = std::fs::read(format!("/proc/{}/cmdline", listening.process)).ok()?;
    String::from_utf8_lossy(&command).contains("belvedere-service").then_some(listening)
}

/// All checks of ports.
pub async fn examine(data: &Path, running: Option<Listening>, external_broker: bool) -> Vec<Finding> {
    let (known, mut findings) = match running {
        Some(listening) => {
            let findings = answering(data, &listening).await;
            (listening, findings)
        }
        None => match listening(data) {
            Some(last) => {
                let findings = free(&last).await;
                (last, findings)
            }
            None => return vec![good("service", "not running, and was never started")],
        },
    };
    if let Some(problem) = known.unreachable(external_broker) {
        let (found, next) = problem.split_once(": ").unwrap_or((&problem, "read docs/service.md"));
        let next = format!("{next}; devices that were provisioned meanwhile are deleted and provisioned again");
        findings.push(warning("devices", found, next));
    }
    findings.extend(named(&known.advertise_host).await);
    findings
}

/// Whether the name that devices are told leads anywhere, as far as this machine knows.
async fn named(host: &str) -> Option<Finding> {
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let looked_up = timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await;
    let fault = match looked_up {
        Ok(Ok(mut addresses)) => match addresses.next() {
            Some(_) => return None,
            None => "it has none".to_owned(),
        },
        Ok(Err(e)) => e.to_string(),
        Err(_) => "no answer within 10 s".to_owned(),
    };
    Some(warning(
        "devices",
        format!("devices are told {host}, and this machine finds no address of that name: {fault}"),
        "enter it in the name service that devices ask, or give --advertise-host a name that is there; where only devices' \
         own name service knows it, all is well",
    ))
}

async fn free(last: &Listening) -> Vec<Finding> {
    let mut findings = vec![good("service", "not running")];
    for (name, address) in [("api", last.api), ("device-https", last.device_https), ("mqtt", last.mqtt)] {
        if let Err(e) = tokio::net::TcpListener::bind(address).await {
            let next = format!(
                "end the program that listens there (ss -ltnp 'sport = :{}'), or give another --{name}",
                address.port()
            );
            findings.push(error("ports", format!("{address} ({name}): {e}"), next));
        }
    }
    findings
}

async fn answering(data: &Path, listening: &Listening) -> Vec<Finding> {
    let mut findings = Vec::new();
    match healthz(listening.api).await {
        Ok(answer) if answer == "ok" => {
            findings.push(good("service", format!("running (process {}), healthy", listening.process)))
        }
        Ok(answer) => findings.push(error("service", format!("/healthz says {answer:?}"), "read the service's log")),
        Err(e) => findings.push(error(
            "service",
            format!("{} does not answer: {e}", listening.api),
            "read the service's log; restart it",
        )),
    }
    if !listening.api.ip().is_loopback() {
        findings.push(warning(
            "service",
            format!("plain HTTP is open to the network at {}", listening.api),
            "requests are signed but readable: give --api 127.0.0.1:8000, and let tools use https",
        ));
    }
    for (name, address) in [("device-https", listening.device_https), ("mqtt", listening.mqtt)] {
        findings.push(match tls(data, address, &listening.advertise_host).await {
            Ok(ends) => {
                let what = format!("the certificate for {} at {address} ({name})", listening.advertise_host);
                let next = "restart the service: it makes itself a new one";
                certificates::judge("TLS", &what, ends, belvedere_store::now_ms(), next)
            }
            Err(e) => error(
                "TLS",
                format!("{address} ({name}) does not prove to be {}: {e}", listening.advertise_host),
                "start the service with the --advertise-host that devices use; then read its log",
            ),
        });
    }
    findings
}

/// What `/healthz` answers.
pub async fn healthz(address: SocketAddr) -> std::io::Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(reachable(address)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(body.trim().chars().take(200).collect())
    };
    timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err(std::io::Error::other("no answer within 10 s")))
}

/// The address at which this machine reaches a port that listens on all.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(a) if a.ip().is_unspecified() => SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), a.port()),
        SocketAddr::V6(a) if a.ip().is_unspecified() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), a.port()),
        other => other,
    }
}

/// Shakes hands as a device does; when the certificate begins and ends.
async fn tls(data: &Path, address: SocketAddr, name: &str) -> Result<(i64, i64), String> {
    let pem = std::fs::read(data.join("ca.pem")).map_err(|e| e.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    let shake = async {
        let stream = TcpStream::connect(reachable(address)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let stream =
        timeout(PATIENCE, shake).await.map_err(|_| "no answer within 10 s".to_owned())?.map_err(|e| e.to_string())?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).ok_or("it shows no certificate")?;
    certificates::of_der(shown).ok_or_else(|| "its certificate cannot be read".to_owned())
}

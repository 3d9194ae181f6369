//! Exchanging the claim for a device certificate: AWS IoT Core's "fleet provisioning by claim" over MQTT.
//!
//! Until RegisterThing the claim may be used again: after a power cut the same stick provisions again. RegisterThing uses it
//! up: after a power cut between the service's answer and our commit, the device must be provisioned anew.

use crate::tls::{client_config_at, software_key};
use belvedere_device_protocol::provisioning::{
    Broker, CREATE_FROM_CSR, CertificateCreated, CreateFromCsr, RegisterThing, Rejected, ThingRegistered,
    register_thing_topic,
};
use belvedere_provisioning_archive::Archive;
use rumqttc::{Client, ConnectionError, Event, Incoming, MqttOptions, NetworkOptions, QoS, Transport};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use x509_parser::prelude::{FromDer, X509Certificate};

/// From the first attempt to connect to the last answer.
pub const CLAIM_TIME: Duration = Duration::from_secs(90);
/// One connection, TLS included; generous, because boards under emulation are slow.
const CONNECT_TIME: u64 = 30;
/// Between attempts.
const RETRY: Duration = Duration::from_secs(2);
/// So many closed connections are an answer.
const CLOSED_IS_REFUSED: u32 = 4;
/// Largest MQTT packet.
const MAX_PACKET: usize = 128 << 10;

/// What the service gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The thing.
    pub thing_name: String,
    /// Device certificate, with its chain if the service sent one, PEM.
    pub certificate_pem: String,
    /// Where MQTT goes on; `None`: where the claim was exchanged.
    pub broker: Option<Broker>,
}

impl Registration {
    /// Checks that the certificate is for this key and carries the thing's name.
    pub fn check(&self, public_key_der: &[u8]) -> Result<(), &'static str> {
        let name_ok = !self.thing_name.is_empty()
            && self.thing_name.len() <= 256
            && self.thing_name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:.".contains(&b));
        if !name_ok {
            return Err("a thing name that cannot be used");
        }
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(|_| "no PEM certificate")?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| "no X.509 certificate")?;
        if certificate.public_key().raw != public_key_der {
            return Err("a certificate for another key");
        }
        let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        if names.next() != Some(self.thing_name.as_str()) {
            return Err("a certificate for another name");
        }
        Ok(())
    }
}

/// Why the claim was not exchanged. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No connection in time.
    #[error(
        "the service at {service} cannot be reached ({what}): check the network and that the service runs, then make a new archive and try again"
    )]
    Unreachable {
        /// Host and port.
        service: String,
        /// Last error.
        what: String,
    },
    /// The server is not the archive's.
    #[error(
        "the server at {service} is not the service that made the archive ({what}): check the address, or make a new archive"
    )]
    Untrusted {
        /// Host and port.
        service: String,
        /// Last error.
        what: String,
    },
    /// The service said no.
    #[error(
        "the service refused the claim ({what}): delete the device in the service, provision it again and use the new archive at once"
    )]
    Refused {
        /// Its words.
        what: String,
    },
    /// The service said what cannot be used.
    #[error("the service answered with {what}: update service or appliance, then make a new archive and try again")]
    Answer {
        /// What is wrong.
        what: String,
    },
}

/// Exchanges the claim with a server that `authorities_pem` stand for. Blocks for at most `time`.
pub fn register(
    archive: &Archive,
    authorities_pem: &str,
    request_pem: &str,
    parameters: BTreeMap<String, String>,
    time: Duration,
) -> Result<Registration, ClaimError> {
    let mut session = Session::open(archive, authorities_pem, Instant::now() + time)?;
    let created: CertificateCreated =
        session.ask(CREATE_FROM_CSR, &CreateFromCsr { certificate_signing_request: request_pem.to_owned() })?;
    let request = RegisterThing { certificate_ownership_token: created.certificate_ownership_token, parameters };
    let registered: ThingRegistered =
        session.ask(&register_thing_topic(&archive.configuration.provisioning_template), &request)?;
    let _ = session.client.try_disconnect();
    // Lets the DISCONNECT out; whatever comes of it does not matter.
    let _ = session.connection.recv_timeout(Duration::from_secs(1));
    let broker = Broker::of(&registered.device_configuration)
        .map_err(|member| ClaimError::Answer { what: format!("a {member} that cannot be used") })?;
    Ok(Registration { thing_name: registered.thing_name, certificate_pem: created.certificate_pem, broker })
}

struct Session {
    client: Client,
    connection: rumqttc::Connection,
    service: String,
    deadline: Instant,
    connected: bool,
    /// How often the service closed the connection instead of accepting it.
    closed: u32,
}

impl Session {
    fn open(archive: &Archive, authorities_pem: &str, deadline: Instant) -> Result<Self, ClaimError> {
        let c = &archive.configuration;
        let (claim, key) = (&archive.claim_certificate_pem, &archive.claim_private_key_pem);
        // Not the appliance's clock: see `clock`.
        let tls = software_key(key)
            .and_then(|key| client_config_at(authorities_pem, claim, key, c.issued))
            .map_err(|error| ClaimError::Refused { what: error.to_string() })?;
        let endpoint = &c.endpoints.mqtt;
        let mut options = MqttOptions::new(&c.claim_client_id, &endpoint.host, endpoint.port);
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls)));
        options.set_keep_alive(Duration::from_secs(30)).set_clean_session(true);
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let (client, mut connection) = Client::new(options, 10);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIME);
        connection.eventloop.set_network_options(network);
        let service = format!("{}:{}", endpoint.host, endpoint.port);
        Ok(Self { client, connection, service, deadline, connected: false, closed: 0 })
    }

    /// Publishes a request and waits for its answer. Subscribes first, also again when the connection broke.
    fn ask<T: DeserializeOwned>(&mut self, topic: &str, request: &impl Serialize) -> Result<T, ClaimError> {
        let answer = |what: &str| ClaimError::Answer { what: what.to_owned() };
        let payload = serde_json::to_vec(request).map_err(|_| answer("a request that cannot be written"))?;
        let (accepted, rejected) = (format!("{topic}/accepted"), format!("{topic}/rejected"));
        let filters = || [&accepted, &rejected].map(|t| rumqttc::SubscribeFilter::new(t.clone(), QoS::AtLeastOnce));
        if self.connected {
            self.client.try_subscribe_many(filters()).map_err(|_| answer("a full queue"))?;
        }
        let mut last = String::from("no answer in time");
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let event = match self.connection.recv_timeout(left) {
                Ok(event) => event,
                Err(_) => return Err(ClaimError::Unreachable { service: self.service.clone(), what: last }),
            };
            match event {
                // A clean session remembers no subscription.
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    self.connected = true;
                    self.client.try_subscribe_many(filters()).map_err(|_| answer("a full queue"))?;
                }
                Ok(Event::Incoming(Incoming::SubAck(_))) => {
                    self.client
                        .try_publish(topic, QoS::AtLeastOnce, false, payload.clone())
                        .map_err(|_| answer("a full queue"))?;
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) if publish.topic == accepted => {
                    return serde_json::from_slice(&publish.payload).map_err(|_| answer("JSON of another shape"));
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) if publish.topic == rejected => {
                    let what = match serde_json::from_slice::<Rejected>(&publish.payload) {
                        Ok(r) => format!("{} {}: {}", r.status_code, shown(&r.error_code), shown(&r.error_message)),
                        Err(_) => "without saying why".into(),
                    };
                    return Err(ClaimError::Refused { what });
                }
                Ok(_) => {}
                Err(error) => {
                    last = self.judge(error)?;
                    self.connected = false;
                    log::warn!("connect to {}: {last}", self.service);
                    std::thread::sleep(RETRY.min(self.deadline.saturating_duration_since(Instant::now())));
                }
            }
        }
    }

    /// Whether another attempt may help; its text then.
    fn judge(&mut self, error: ConnectionError) -> Result<String, ClaimError> {
        let text = shown(&describe(&error));
        let verdict = verdict(&error);
        if verdict == Verdict::Refused {
            return Err(ClaimError::Refused { what: text });
        }
        // Or, as AWS IoT Core and our own service do it, the connection is closed after TLS and before CONNACK. A service
        // that is being restarted looks the same for a moment.
        if !self.connected && matches!(error, ConnectionError::MqttState(_)) {
            self.closed += 1;
            if self.closed >= CLOSED_IS_REFUSED {
                let what = "it closed the connection: the claim was used already, has expired, or the device was deleted";
                return Err(ClaimError::Refused { what: what.into() });
            }
        }
        if verdict == Verdict::Untrusted {
            return Err(ClaimError::Untrusted { service: self.service.clone(), what: text });
        }
        Ok(text)
    }
}

/// What an error of a connection says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The service does not take the appliance.
    Refused,
    /// The appliance does not take the service.
    Untrusted,
    /// Neither: another attempt may help.
    Unclear,
}

fn verdict(error: &ConnectionError) -> Verdict {
    if let ConnectionError::ConnectionRefused(_) = error {
        return Verdict::Refused;
    }
    match tls_error(error) {
        // A TLS 1.3 server refuses a client certificate after the handshake: it arrives as an alert while reading.
        Some(rustls::Error::AlertReceived(_)) => Verdict::Refused,
        Some(rustls::Error::InvalidCertificate(_)) => Verdict::Untrusted,
        _ => Verdict::Unclear,
    }
}

/// The error of TLS itself, however deep: what an I/O error wraps is not among its sources.
fn tls_error<'error>(error: &'error (dyn std::error::Error + 'static)) -> Option<&'error rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(wrapped) => tls_error(wrapped),
        None => tls_error(error.source()?),
    }
}

/// An error with everything below it.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text.push_str(": ");
            text.push_str(&below_text);
        }
        source = below.source();
    }
    text
}

/// Somebody else's words, on one line and short.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError};
    use std::io;

    /// boot L9: the texts of errors decided, whoever had written them.
    #[test]
    fn what_tls_says_counts_and_not_what_a_text_holds() {
        let alert = || rustls::Error::AlertReceived(AlertDescription::CertificateUnknown);
        let certificate = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let io = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        for (error, expected) in [
            (ConnectionError::Io(io(alert())), Verdict::Refused),
            (ConnectionError::MqttState(rumqttc::StateError::Io(io(alert()))), Verdict::Refused),
            (ConnectionError::Tls(rumqttc::TlsError::TLS(alert())), Verdict::Refused),
            (ConnectionError::Tls(rumqttc::TlsError::Io(io(certificate()))), Verdict::Untrusted),
            (ConnectionError::Io(io(certificate())), Verdict::Untrusted),
            (ConnectionError::Io(io(rustls::Error::DecryptError)), Verdict::Unclear),
            (ConnectionError::Io(io::Error::other("fatal alert: the lift is out of order")), Verdict::Unclear),
            (ConnectionError::Io(io::Error::other("invalid peer certificate")), Verdict::Unclear),
            (ConnectionError::NetworkTimeout, Verdict::Unclear),
        ] {
            assert_eq!(verdict(&error), expected, "{error:?}");
        }
    }
}

//! MQTT over TLS: one task per connection. The protocol itself (3.1.1 and 5) is `mqtt-protocol-core`'s; here are the
//! rules of this service:
//!
//! - who connects is what the certificate says, and the client identifier must equal it;
//! - a publication or will outside an identity's topics ends the connection (as AWS IoT Core does), a subscription
//!   outside them is refused; both are logged;
//! - QoS 0 and 1, no retained messages, no sessions beyond a connection;
//! - an acknowledged publication has been stored.
//!
//! Bounds: packet size, handshake and idle time, subscriptions, queued messages, connections.

use crate::accept::{self, Accepted, Port, stopped};
use crate::hub::Outgoing;
use crate::identity::Identity;
use crate::topics::{MAX_TOPIC, Request, may_subscribe, publication};
use crate::{Fleet, FleetError};
use belvedere_store::certificates::CertificateKind;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::role::Server;
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, Qos, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, PubackReasonCode, SubackReasonCode, SubackReturnCode,
    UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{Version, packet::MqttString};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

/// Largest packet, bytes.
pub const MAX_PACKET: u32 = 256 * 1024;
/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 4096;
const FIRST_PACKET: Duration = Duration::from_secs(10);
/// A client that asks for no keep-alive gets this one.
const LONGEST_SILENCE: Duration = Duration::from_secs(1800);
const WRITE: Duration = Duration::from_secs(60);

/// Accepts connections until `stop` turns true.
pub async fn serve(listener: TcpListener, fleet: Fleet, tls: Arc<rustls::ServerConfig>, stop: watch::Receiver<bool>) {
    // Connections note their end in the store, which closes after this.
    let farewell = Duration::from_secs(5);
    let port = Port { name: "mqtt", connections: MAX_CONNECTIONS, tls: Some(tls), farewell };
    let converse = move |accepted, peer, stop| converse_with(accepted, peer, fleet.clone(), stop);
    accept::serve(listener, port, stop, converse).await;
}

/// One connection, from its CONNECT to its end.
pub async fn converse_with(accepted: Accepted, peer: SocketAddr, fleet: Fleet, stop: watch::Receiver<bool>) {
    let Accepted::Tls(stream) = accepted else { return tracing::error!("MQTT is not spoken without TLS") };
    if let Err(End(reason)) = connection(*stream, fleet, stop).await {
        tracing::info!(%peer, "MQTT connection ended: {reason}");
    }
}

/// Why a connection ended.
struct End(String);
impl From<FleetError> for End {
    fn from(e: FleetError) -> Self {
        End(e.to_string())
    }
}
impl From<std::io::Error> for End {
    fn from(e: std::io::Error) -> Self {
        End(e.to_string())
    }
}
fn end<T>(reason: impl Into<String>) -> Result<T, End> {
    Err(End(reason.into()))
}

async fn connection(stream: TlsStream<TcpStream>, fleet: Fleet, mut stop: watch::Receiver<bool>) -> Result<(), End> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).cloned();
    let Some(certificate) = certificate else { return end("no client certificate") };
    let Some(identity) = fleet.identify(&certificate).await? else {
        return end("the client certificate is not known, not active, or not this device's");
    };
    let mut link = Link::new(stream);
    let hello = tokio::select! {
        hello = timeout(FIRST_PACKET, link.first_packet()) => hello,
        () = stopped(&mut stop) => return Ok(()),
    };
    let hello = match hello {
        Ok(hello) => hello?,
        Err(_) => return end(format!("{} sent no CONNECT", identity.name)),
    };
    if let Err(reason) = acceptable(&identity, &hello) {
        tracing::warn!(identity = identity.name, client_id = hello.client_id, "connection refused: {reason}");
        link.send(link.connack(false)).await?;
        return end(reason);
    }
    let (serial, queue) = fleet.hub().connect(&identity.name);
    if identity.kind == CertificateKind::Device {
        fleet.store.set_device_connected(&identity.device_id, true).await.map_err(FleetError::from)?;
    }
    tracing::info!(identity = identity.name, "connected");
    let outcome = async {
        link.send(link.connack(true)).await?;
        converse(&mut link, &fleet, &identity, serial, queue, &mut stop).await
    }
    .await;
    let last = fleet.hub().leave(&identity.name, serial) || !fleet.hub().connected(&identity.name);
    if identity.kind == CertificateKind::Device && last {
        fleet.store.set_device_connected(&identity.device_id, false).await.map_err(FleetError::from)?;
    }
    let polite = matches!(outcome, Ok(Farewell::Disconnected));
    if !polite && let Some((topic, payload)) = &hello.will {
        fleet.hub().publish(topic, payload);
    }
    tracing::info!(identity = identity.name, polite, "disconnected");
    outcome.map(drop)
}

/// How a connection ended when nothing was wrong.
enum Farewell {
    /// The client said so.
    Disconnected,
    /// The connection closed, the service stops, or a newer connection took over.
    Closed,
}

struct Hello {
    client_id: String,
    will: Option<(String, Vec<u8>)>,
}

fn acceptable(identity: &Identity, hello: &Hello) -> Result<(), String> {
    if hello.client_id != identity.name {
        return Err(format!("the client identifier must be the certificate's name, {}", identity.name));
    }
    match &hello.will {
        Some((topic, _)) if publication(identity, topic) != Some(Request::Message) => {
            Err(format!("the will's topic {topic} is not this client's"))
        }
        _ => Ok(()),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    fleet: &Fleet,
    identity: &Identity,
    serial: u64,
    mut queue: mpsc::Receiver<Outgoing>,
    stop: &mut watch::Receiver<bool>,
) -> Result<Farewell, End> {
    loop {
        let deadline = link.silent_since + link.silence;
        tokio::select! {
            // Only this wait may be cancelled: what came is taken care of in the branch.
            count = link.stream.read(&mut link.buffer) => {
                let Some(packets) = link.take(count?).await? else { return Ok(Farewell::Closed) };
                for packet in packets {
                    if let Some(farewell) = handle(link, fleet, identity, serial, packet).await? {
                        return Ok(farewell);
                    }
                }
            }
            message = queue.recv() => {
                let Some(message) = message else { return Ok(Farewell::Closed) };
                link.publish(message).await?;
            }
            _ = sleep_until(deadline) => return end(format!("{} was silent for {:?}", identity.name, link.silence)),
            () = stopped(stop) => return Ok(Farewell::Closed),
        }
    }
}

async fn handle<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    fleet: &Fleet,
    identity: &Identity,
    serial: u64,
    packet: Packet,
) -> Result<Option<Farewell>, End> {
    let wrong = |e| End(format!("cannot build an answer: {e:?}"));
    match packet {
        Packet::V3_1_1Publish(p) => {
            published(fleet, identity, p.topic_name(), p.payload().as_slice(), p.qos()).await?;
            if let Some(id) = p.packet_id() {
                link.send(v3_1_1::Puback::builder().packet_id(id).build().map_err(wrong)?.into()).await?;
            }
        }
        Packet::V5_0Publish(p) => {
            published(fleet, identity, p.topic_name(), p.payload().as_slice(), p.qos()).await?;
            if let Some(id) = p.packet_id() {
                let ack = v5_0::Puback::builder().packet_id(id).reason_code(PubackReasonCode::Success).build();
                link.send(ack.map_err(wrong)?.into()).await?;
            }
        }
        Packet::V3_1_1Subscribe(s) => {
            let codes = s.entries().iter().map(|e| match subscribed(fleet, identity, serial, e) {
                Some(0) => SubackReturnCode::SuccessMaximumQos0,
                Some(_) => SubackReturnCode::SuccessMaximumQos1,
                None => SubackReturnCode::Failure,
            });
            let ack = v3_1_1::Suback::builder().packet_id(s.packet_id()).return_codes(codes.collect()).build();
            link.send(ack.map_err(wrong)?.into()).await?;
        }
        Packet::V5_0Subscribe(s) => {
            let codes = s.entries().iter().map(|e| match subscribed(fleet, identity, serial, e) {
                Some(0) => SubackReasonCode::GrantedQos0,
                Some(_) => SubackReasonCode::GrantedQos1,
                None => SubackReasonCode::NotAuthorized,
            });
            let ack = v5_0::Suback::builder().packet_id(s.packet_id()).reason_codes(codes.collect()).build();
            link.send(ack.map_err(wrong)?.into()).await?;
        }
        Packet::V3_1_1Unsubscribe(u) => {
            unsubscribed(fleet, identity, serial, u.entries());
            link.send(v3_1_1::Unsuback::builder().packet_id(u.packet_id()).build().map_err(wrong)?.into()).await?;
        }
        Packet::V5_0Unsubscribe(u) => {
            unsubscribed(fleet, identity, serial, u.entries());
            let codes = vec![UnsubackReasonCode::Success; u.entries().len()];
            let ack = v5_0::Unsuback::builder().packet_id(u.packet_id()).reason_codes(codes).build();
            link.send(ack.map_err(wrong)?.into()).await?;
        }
        Packet::V3_1_1Disconnect(_) => return Ok(Some(Farewell::Disconnected)),
        Packet::V5_0Disconnect(d) => {
            let with_will = d.reason_code() == Some(DisconnectReasonCode::DisconnectWithWillMessage);
            return Ok(Some(if with_will { Farewell::Closed } else { Farewell::Disconnected }));
        }
        _ => {} // pings and acknowledgements are answered and counted by the protocol itself
    }
    Ok(None)
}

async fn published(fleet: &Fleet, identity: &Identity, topic: &str, payload: &[u8], qos: Qos) -> Result<(), End> {
    if qos == Qos::ExactlyOnce {
        return end(format!("{} published with QoS 2, which is not supported", identity.name));
    }
    let Some(request) = publication(identity, topic) else {
        tracing::warn!(identity = identity.name, topic, "publication refused: not this client's topic");
        return end(format!("{} published to {topic}, which is not its topic", identity.name));
    };
    match request {
        Request::Shadow { shadow, operation } => {
            fleet.shadow_request(&identity.name, shadow, operation, payload).await?;
        }
        Request::NextJob => fleet.next_job_request(&identity.name, &identity.device_id, payload).await?,
        Request::UpdateJob { job } => {
            fleet.update_job_request(&identity.name, &identity.device_id, job, payload).await?;
        }
        Request::CreateFromCsr => fleet.create_from_csr(identity, payload).await?,
        Request::RegisterThing => fleet.register_thing(identity, payload).await?,
        Request::Message => fleet.hub().publish(topic, payload),
    }
    Ok(())
}

/// The granted quality, or `None`.
fn subscribed(fleet: &Fleet, identity: &Identity, serial: u64, entry: &SubEntry) -> Option<u8> {
    let filter = entry.topic_filter();
    let qos = u8::from(entry.sub_opts().qos() != Qos::AtMostOnce);
    if !may_subscribe(identity, filter) {
        let shown: String = filter.chars().take(MAX_TOPIC).collect();
        tracing::warn!(identity = identity.name, filter = shown, "subscription refused: not this client's topics");
        return None;
    }
    fleet.hub().subscribe(&identity.name, serial, filter, qos).then_some(qos)
}

fn unsubscribed(fleet: &Fleet, identity: &Identity, serial: u64, filters: &[MqttString]) {
    filters.iter().for_each(|f| fleet.hub().unsubscribe(&identity.name, serial, f.as_str()));
}

/// A connection's bytes, and the protocol's state.
struct Link<S> {
    stream: S,
    protocol: Connection<Server>,
    buffer: Vec<u8>,
    silent_since: Instant,
    silence: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    fn new(stream: S) -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(MAX_PACKET).receive_maximum(64);
        let mut protocol = Connection::<Server>::with_options(Version::Undetermined, options);
        protocol.set_auto_ping_response(true);
        Link { stream, protocol, buffer: vec![0; 16 * 1024], silent_since: Instant::now(), silence: LONGEST_SILENCE }
    }

    /// The packets in the bytes that were read into the buffer; `None` at the end of the stream. What the protocol
    /// answers by itself (pings) is written here. Not to be cancelled.
    async fn take(&mut self, count: usize) -> Result<Option<Vec<Packet>>, End> {
        if count == 0 {
            return Ok(None);
        }
        self.silent_since = Instant::now();
        let mut packets = Vec::new();
        let mut answers = Vec::new();
        let mut wrong = None;
        let mut cursor = Cursor::new(&self.buffer[..count]);
        while (cursor.position() as usize) < count && wrong.is_none() {
            for event in self.protocol.recv(&mut cursor) {
                match event {
                    Event::NotifyPacketReceived(packet) => packets.push(packet),
                    Event::RequestSendPacket { packet, .. } => answers.extend(packet.to_continuous_buffer()),
                    Event::RequestTimerReset { kind: TimerKind::PingreqRecv, duration_ms } => {
                        self.silence = Duration::from_millis(duration_ms).min(LONGEST_SILENCE);
                    }
                    Event::NotifyError(e) => wrong = Some(format!("protocol error: {e:?}")),
                    _ => {}
                }
            }
        }
        if !answers.is_empty() {
            self.write(&answers).await?;
        }
        match wrong {
            Some(reason) => end(reason),
            None => Ok(Some(packets)),
        }
    }

    async fn first_packet(&mut self) -> Result<Hello, End> {
        loop {
            let count = self.stream.read(&mut self.buffer).await?;
            let Some(packets) = self.take(count).await? else { return end("closed before CONNECT") };
            let will = |topic: Option<&str>, payload: Option<&[u8]>| {
                topic.map(|t| (t.to_owned(), payload.unwrap_or_default().to_vec()))
            };
            match packets.into_iter().next() {
                None => {}
                Some(Packet::V3_1_1Connect(c)) => {
                    let client_id = c.client_id().to_owned();
                    return Ok(Hello { client_id, will: will(c.will_topic(), c.will_payload()) });
                }
                Some(Packet::V5_0Connect(c)) => {
                    let client_id = c.client_id().to_owned();
                    return Ok(Hello { client_id, will: will(c.will_topic(), c.will_payload()) });
                }
                Some(_) => return end("the first packet was not CONNECT"),
            }
        }
    }

    fn connack(&self, accepted: bool) -> Packet {
        match self.protocol.get_protocol_version() {
            Version::V5_0 => {
                let code = if accepted { ConnectReasonCode::Success } else { ConnectReasonCode::NotAuthorized };
                v5_0::Connack::builder().session_present(false).reason_code(code).build().map(Into::into)
            }
            _ => {
                let code = if accepted { ConnectReturnCode::Accepted } else { ConnectReturnCode::NotAuthorized };
                v3_1_1::Connack::builder().session_present(false).return_code(code).build().map(Into::into)
            }
        }
        .expect("a complete CONNACK")
    }

    async fn publish(&mut self, message: Outgoing) -> Result<(), End> {
        let qos = if message.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let id = match qos {
            Qos::AtMostOnce => None,
            _ => Some(self.protocol.acquire_packet_id().map_err(|e| End(format!("too many unacknowledged: {e:?}")))?),
        };
        let wrong = |e| End(format!("cannot build a publication: {e:?}"));
        let packet: Packet = match self.protocol.get_protocol_version() {
            Version::V5_0 => {
                let mut builder = v5_0::Publish::builder().topic_name(message.topic).map_err(wrong)?.qos(qos);
                if let Some(id) = id {
                    builder = builder.packet_id(id);
                }
                builder.payload(message.payload).build().map_err(wrong)?.into()
            }
            _ => {
                let mut builder = v3_1_1::Publish::builder().topic_name(message.topic).map_err(wrong)?.qos(qos);
                if let Some(id) = id {
                    builder = builder.packet_id(id);
                }
                builder.payload(message.payload).build().map_err(wrong)?.into()
            }
        };
        self.send(packet).await
    }

    async fn send(&mut self, packet: Packet) -> Result<(), End> {
        let mut bytes = Vec::new();
        for event in self.protocol.send(packet) {
            match event {
                Event::RequestSendPacket { packet, .. } => bytes.extend(packet.to_continuous_buffer()),
                Event::NotifyError(e) => return end(format!("cannot send: {e:?}")),
                _ => {}
            }
        }
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(WRITE, written).await {
            Ok(done) => Ok(done?),
            Err(_) => end("the client does not read"),
        }
    }
}

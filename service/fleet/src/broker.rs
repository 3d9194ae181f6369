//! MQTT over TLS: one task per connection. The protocol itself (3.1.1 and 5) is `mqtt-protocol-core`'s; here are the
//! rules of this service, which are AWS IoT Core's as it documents them:
//!
//! - who connects is what the certificate says, and the client identifier must equal it;
//! - a publication or will outside an identity's topics ends the connection, a subscription outside them is refused;
//!   both are logged;
//! - QoS 0 and 1. A subscription with QoS 2 is granted QoS 1 (as the standard has it), a publication with QoS 2 ends the
//!   connection: a client must not believe in a promise that nobody keeps;
//! - an acknowledged publication is stored: what it asked the service is done, and it waits durably for a subscriber
//!   whose session outlives its connection;
//! - sessions of 3.1.1 live for an hour, those of 5 as long as asked, a week at most; a claim has none.
//!
//! Bounds: packet and payload size, time until CONNECT, idle time, subscriptions, publications under way and a second,
//! messages in memory and in a session, connections.

use crate::accept::{self, Accepted, Port, stopped};
use crate::hub::{MAX_SUBSCRIPTIONS, Mailbox};
use crate::identity::Identity;
use crate::link::{End, Hello, LONGEST_SESSION_S, Link, Will};
use crate::message::{Message, carried, expiry};
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::panics::caught;
use crate::topics::{Request, may_subscribe, publication};
use crate::wills::Waiting;
use crate::{Fleet, FleetError};
use belvedere_store::certificates::CertificateKind;
use belvedere_store::connections::Connection;
use belvedere_store::mqtt_sessions::Subscription;
use belvedere_store::{identifiers, now_ms};
use mqtt_protocol_core::mqtt::packet::{MqttString, Packet, Property, Qos, RetainHandling, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, DisconnectReasonCode, PubackReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

/// Largest packet, bytes (AWS IoT Core's).
pub const MAX_PACKET: u32 = 149_504;
/// Largest payload, bytes (AWS IoT Core's).
pub const MAX_PAYLOAD: usize = 128 * 1024;
/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Filters of one SUBSCRIBE or UNSUBSCRIBE (AWS IoT Core's limit).
const MAX_FILTERS: usize = 8;
/// Publications of one client a second (AWS IoT Core's limit); a faster one is read more slowly.
const PUBLICATIONS_A_SECOND: u32 = 100;
const FIRST_PACKET: Duration = Duration::from_secs(10);
/// How long a claim that is used up may take its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The broker's part of a port's settings.
fn port(tls: Arc<rustls::ServerConfig>) -> Port {
    // Connections note their end in the store, which closes after this.
    Port { name: "mqtt", connections: MAX_CONNECTIONS, tls: Some(tls), farewell: Duration::from_secs(5) }
}

/// Accepts connections until `stop` turns true.
pub async fn serve(listener: TcpListener, fleet: Fleet, tls: Arc<rustls::ServerConfig>, stop: watch::Receiver<bool>) {
    let converse = move |accepted, peer, stop| {
        let fleet = fleet.clone();
        async move {
            match accepted {
                Accepted::Tls(stream) => converse(stream, peer, fleet, stop).await,
                Accepted::Plain(_) => tracing::error!("MQTT is not spoken without TLS"),
            }
        }
    };
    accept::serve(listener, port(tls), stop, converse).await;
}

/// One connection, from its CONNECT to its end.
pub async fn converse(stream: Box<TlsStream<TcpStream>>, peer: SocketAddr, fleet: Fleet, stop: watch::Receiver<bool>) {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).cloned();
    let version = stream.get_ref().1.protocol_version();
    let mut link = Link::new(stream);
    let ended = async {
        let Some(certificate) = certificate else { return Err(End::silent("no client certificate")) };
        // The port of HTTPS takes older versions, too.
        if version != Some(rustls::ProtocolVersion::TLSv1_3) {
            return Err(End::silent("MQTT is spoken over TLS 1.3 alone"));
        }
        let Some(identity) = fleet.identify(&certificate).await? else {
            return Err(End::silent("the client certificate is not known, not active, or not this device's"));
        };
        connection(&mut link, &fleet, identity, peer, stop).await
    };
    if let Err(End { reason, code }) = ended.await {
        tracing::info!(%peer, "MQTT connection ended: {reason}");
        if let Some(code) = code {
            link.farewell(code).await;
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    fleet: &Fleet,
    identity: Identity,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) -> Result<(), End> {
    let hello = tokio::select! {
        hello = timeout(FIRST_PACKET, link.hello()) => hello,
        () = stopped(&mut stop) => return Ok(()),
    };
    let Ok(hello) = hello else { return Err(End::silent(format!("{} sent no CONNECT", identity.name))) };
    let (mut hello, early) = hello?;
    if let Err((code, reason)) = acceptable(&identity, &hello) {
        tracing::warn!(identity = identity.name, client_id = hello.client_id, "connection refused: {reason}");
        link.refuse(code).await?;
        return Err(End::silent(reason));
    }
    if identity.kind == CertificateKind::Device && fleet.has_external_broker() {
        // Its owner must provision it anew, so that it learns where the broker is.
        let reason = format!("{}: devices connect to the external broker, claims alone come here", identity.name);
        tracing::warn!(identity = identity.name, "connection refused: {reason}");
        link.refuse(ConnectReasonCode::UseAnotherServer).await?;
        return Err(End::silent(reason));
    }
    if identity.kind == CertificateKind::Claim {
        hello.expiry_s = 0;
    }
    let connected = fleet.hub().connect(&identity.name, &identity.fingerprint, peer);
    let Some((serial, mailbox)) = connected else {
        // Two that have one identity would end each other's connections for ever.
        link.refuse(ConnectReasonCode::ConnectionRateExceeded).await?;
        return Err(End::silent(format!("{}: another connection of this identity is younger than a minute", identity.name)));
    };
    let _present = Present { fleet, client: identity.name.clone(), serial };
    // Whatever becomes of this connection: the client was back in time.
    fleet.wills.drop_of(&identity.name);
    let mut conversation = Conversation {
        fleet: fleet.clone(),
        serial,
        mailbox,
        token: identifiers::token::<8>(),
        outbox: Outbox::new(&identity.name, false, &Default::default(), &hello),
        pace: Pace::new(PUBLICATIONS_A_SECOND),
        expiry_s: hello.expiry_s,
        identity,
    };
    let conversing = async {
        conversation.begin(link, &hello).await?;
        conversation.go_on(link, early, &mut stop).await
    };
    // A fault of ours ends the connection like any other end of it: its session is left, and its will is published.
    let outcome = caught(conversing).await.unwrap_or_else(|panicked| Err(FleetError::from(panicked).into()));
    let polite = matches!(outcome, Ok(Farewell::Disconnected));
    conversation.end(polite, hello.will).await?;
    match outcome? {
        Farewell::Stopping => Err(End::new(DisconnectReasonCode::ServerShuttingDown, "the service stops")),
        Farewell::Disconnected | Farewell::Closed => Ok(()),
    }
}

/// A connection's place in the hub. Whatever ends the connection, a panic or a database that is away, nothing is kept for
/// it in memory any more and nobody takes the client for connected.
struct Present<'a> {
    fleet: &'a Fleet,
    client: String,
    serial: u64,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.fleet.hub().leave(&self.client, self.serial);
    }
}

/// How a connection ended when nothing was wrong.
enum Farewell {
    /// The client said so.
    Disconnected,
    /// The connection closed, or the client wants its will to be published.
    Closed,
    /// The service stops.
    Stopping,
}

fn acceptable(identity: &Identity, hello: &Hello) -> Result<(), (ConnectReasonCode, String)> {
    if hello.client_id != identity.name {
        let reason = format!("the client identifier must be the certificate's name, {}", identity.name);
        return Err((ConnectReasonCode::ClientIdentifierNotValid, reason));
    }
    match &hello.will {
        Some(will) if will.quality_2 => Err((ConnectReasonCode::QosNotSupported, "the will has QoS 2".into())),
        Some(will) if will.message.payload.len() > MAX_PAYLOAD => {
            Err((ConnectReasonCode::PacketTooLarge, format!("the will is larger than {MAX_PAYLOAD} bytes")))
        }
        Some(will) if publication(identity, &will.message.topic) != Some(Request::Message) => {
            let reason = format!("the will's topic {} is not this client's", will.message.topic);
            Err((ConnectReasonCode::NotAuthorized, reason))
        }
        _ => Ok(()),
    }
}

/// A connection that was accepted.
struct Conversation {
    fleet: Fleet,
    identity: Identity,
    serial: u64,
    mailbox: Arc<Mailbox>,
    /// The connection's name in the store.
    token: String,
    outbox: Outbox,
    pace: Pace,
    expiry_s: u32,
}

impl Conversation {
    fn device(&self) -> bool {
        self.identity.kind == CertificateKind::Device
    }

    /// As other copies of the service know it.
    fn noted(&self) -> Connection {
        Connection {
            client: self.identity.name.clone(),
            connection: self.token.clone(),
            device_id: self.identity.device_id.clone(),
            is_device: self.device(),
        }
    }

    async fn begin<S: AsyncRead + AsyncWrite + Unpin>(&mut self, link: &mut Link<S>, hello: &Hello) -> Result<(), End> {
        let (name, store) = (&self.identity.name, &self.fleet.store);
        let mut session = Default::default();
        if self.device() {
            let expiry_ms = i64::from(hello.expiry_s) * 1000;
            let opened = store.open_mqtt_session(name, &self.token, expiry_ms, hello.clean).await;
            session = opened.map_err(FleetError::from)?;
        }
        let noted = self.noted();
        self.fleet.note_connection(&noted).await?;
        self.fleet.hub().note(name, self.serial, noted);
        let durable = self.device() && hello.expiry_s > 0;
        self.outbox = Outbox::new(name, durable, &session, hello);
        tracing::info!(identity = name, session = session.present, "connected");
        link.welcome(hello, session.present).await?;
        self.fleet.hub().open(name, self.serial, durable, session.subscriptions);
        Ok(())
    }

    async fn go_on<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        link: &mut Link<S>,
        early: Vec<Packet>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Farewell, End> {
        let mut packets = early;
        loop {
            for packet in packets.drain(..) {
                if let Some(farewell) = self.handle(link, packet).await? {
                    return Ok(farewell);
                }
            }
            if let Some(cut) = self.mailbox.is_cut() {
                // RegisterThing uses its claim up, which cuts this connection: not before its answer is out. A claim has
                // nothing in the store, so this may be cancelled; one that reads slowly is not waited for.
                if self.identity.kind == CertificateKind::Claim {
                    let _ = timeout(LAST_ANSWERS, self.outbox.deliver(link, &self.fleet, &self.mailbox)).await;
                }
                return Err(cut.into());
            }
            self.outbox.deliver(link, &self.fleet, &self.mailbox).await?;
            let deadline = link.deadline();
            tokio::select! {
                // Only these waits may be cancelled: what came is taken care of after them.
                bytes = link.read() => {
                    let bytes = bytes?;
                    if bytes.is_empty() {
                        return Ok(Farewell::Closed);
                    }
                    packets = link.take(&bytes).await?;
                }
                () = self.mailbox.changed() => {}
                () = sleep_until(deadline) => {
                    let reason = format!("{} was silent for too long", self.identity.name);
                    return Err(End::new(DisconnectReasonCode::KeepAliveTimeout, reason));
                }
                () = stopped(stop) => return Ok(Farewell::Stopping),
            }
        }
    }

    /// The connection is over.
    async fn end(&mut self, polite: bool, will: Option<Will>) -> Result<(), FleetError> {
        // Acknowledged in the same breath as the farewell.
        self.outbox.remove(&self.fleet).await?;
        let name = &self.identity.name;
        let mine = self.fleet.hub().leave(name, self.serial);
        if self.device() && mine {
            let expiry_ms = i64::from(self.expiry_s) * 1000;
            self.fleet.store.leave_mqtt_session(name, &self.token, expiry_ms, self.outbox.sent_number()).await?;
        }
        self.fleet.store.forget_connection(&self.noted()).await?;
        tracing::info!(identity = name, polite, "disconnected");
        if let (false, Some(will)) = (polite, will) {
            self.fleet.publish_will(name, &self.token, will, self.expiry_s).await?;
        }
        Ok(())
    }

    async fn handle<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        link: &mut Link<S>,
        packet: Packet,
    ) -> Result<Option<Farewell>, End> {
        match packet {
            Packet::V3_1_1Publish(p) => {
                let mut message = Message::new(p.topic_name(), p.payload().as_slice());
                message.retain = p.retain();
                // 3.1.1 has no way to say that it was not kept.
                self.published(message, p.qos()).await?;
                if let Some(id) = p.packet_id() {
                    link.send(v3_1_1::Puback::builder().packet_id(id).build()?.into()).await?;
                }
            }
            Packet::V5_0Publish(p) => {
                let mut message = Message::new(p.topic_name(), p.payload().as_slice());
                message.retain = p.retain();
                message.properties = carried(p.props());
                message.expires_ms = expiry(p.props(), now_ms());
                let code = self.published(message, p.qos()).await?;
                if let Some(id) = p.packet_id() {
                    link.send(v5_0::Puback::builder().packet_id(id).reason_code(code).build()?.into()).await?;
                }
            }
            Packet::V3_1_1Puback(p) => self.outbox.acknowledged(p.packet_id()),
            Packet::V5_0Puback(p) => self.outbox.acknowledged(p.packet_id()),
            Packet::V3_1_1Subscribe(s) => {
                let (granted, retained) = self.subscribed(s.entries()).await?;
                let codes = granted.iter().map(|g| match g {
                    Some(0) => SubackReturnCode::SuccessMaximumQos0,
                    Some(_) => SubackReturnCode::SuccessMaximumQos1,
                    None => SubackReturnCode::Failure,
                });
                let ack = v3_1_1::Suback::builder().packet_id(s.packet_id()).return_codes(codes.collect());
                link.send(ack.build()?.into()).await?;
                self.fleet.send_retained(&self.identity.name, &retained).await?;
            }
            Packet::V5_0Subscribe(s) => {
                let (granted, retained) = self.subscribed(s.entries()).await?;
                let codes = granted.iter().map(|g| match g {
                    Some(0) => SubackReasonCode::GrantedQos0,
                    Some(_) => SubackReasonCode::GrantedQos1,
                    None => SubackReasonCode::NotAuthorized,
                });
                let ack = v5_0::Suback::builder().packet_id(s.packet_id()).reason_codes(codes.collect());
                link.send(ack.build()?.into()).await?;
                self.fleet.send_retained(&self.identity.name, &retained).await?;
            }
            Packet::V3_1_1Unsubscribe(u) => {
                self.unsubscribed(u.entries()).await?;
                link.send(v3_1_1::Unsuback::builder().packet_id(u.packet_id()).build()?.into()).await?;
            }
            Packet::V5_0Unsubscribe(u) => {
                let known = self.unsubscribed(u.entries()).await?;
                let codes = known.iter().map(|known| match known {
                    true => UnsubackReasonCode::Success,
                    false => UnsubackReasonCode::NoSubscriptionExisted,
                });
                let ack = v5_0::Unsuback::builder().packet_id(u.packet_id()).reason_codes(codes.collect());
                link.send(ack.build()?.into()).await?;
            }
            Packet::V3_1_1Disconnect(_) => return Ok(Some(Farewell::Disconnected)),
            Packet::V5_0Disconnect(d) => {
                let asked = d.props().iter().flatten().find_map(|p| match p {
                    Property::SessionExpiryInterval(p) => Some(p.val().min(LONGEST_SESSION_S)),
                    _ => None,
                });
                match asked {
                    // A session that was never kept cannot be kept from now on (MQTT 5, 3.14.2.2.2).
                    Some(seconds) if seconds > 0 && self.expiry_s == 0 => {
                        return Err(End::new(DisconnectReasonCode::ProtocolError, "a session without expiry was given one"));
                    }
                    Some(seconds) => self.expiry_s = seconds,
                    None => {}
                }
                let with_will = d.reason_code() == Some(DisconnectReasonCode::DisconnectWithWillMessage);
                return Ok(Some(if with_will { Farewell::Closed } else { Farewell::Disconnected }));
            }
            _ => {} // pings are answered by the protocol itself
        }
        Ok(None)
    }

    async fn published(&mut self, mut message: Message, qos: Qos) -> Result<PubackReasonCode, End> {
        let (fleet, identity) = (&self.fleet, &self.identity);
        self.pace.take().await;
        if qos == Qos::ExactlyOnce {
            let reason = format!("{} published with QoS 2, which is not supported", identity.name);
            return Err(End::new(DisconnectReasonCode::QosNotSupported, reason));
        }
        if message.payload.len() > MAX_PAYLOAD {
            let reason = format!("{} published more than {MAX_PAYLOAD} bytes", identity.name);
            return Err(End::new(DisconnectReasonCode::PacketTooLarge, reason));
        }
        let topic = message.topic.clone();
        let Some(request) = publication(identity, &topic) else {
            tracing::warn!(identity = identity.name, topic, "publication refused: not this client's topic");
            let reason = format!("{} published to {topic}, which is not its topic", identity.name);
            return Err(End::new(DisconnectReasonCode::NotAuthorized, reason));
        };
        if fleet.carry_out(identity, &request, &message.payload).await? {
            return Ok(PubackReasonCode::Success);
        }
        message.quality = u8::from(qos != Qos::AtMostOnce);
        message.publisher = Some(identity.name.clone());
        let kept = !message.retain || fleet.retain(&message).await?;
        fleet.publish(message).await?;
        Ok(if kept { PubackReasonCode::Success } else { PubackReasonCode::QuotaExceeded })
    }

    /// The granted qualities, and the subscriptions that want what was retained.
    async fn subscribed(&self, entries: &[SubEntry]) -> Result<(Vec<Option<u8>>, Vec<Subscription>), End> {
        self.bounded(entries.len())?;
        let (fleet, identity) = (&self.fleet, &self.identity);
        let (mut granted, mut retained, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let (filter, options) = (entry.topic_filter(), entry.sub_opts());
            if !may_subscribe(identity, filter) {
                let shown: String = filter.chars().take(256).collect();
                tracing::warn!(identity = identity.name, filter = shown, "subscription refused: not this client's topics");
                granted.push(None);
                continue;
            }
            let subscription = Subscription {
                filter: filter.to_owned(),
                quality: u8::from(options.qos() != Qos::AtMostOnce),
                no_local: options.nl(),
                keep_retain: options.rap(),
            };
            let Some(first) = fleet.hub().subscribe(&identity.name, self.serial, subscription.clone()) else {
                tracing::warn!(identity = identity.name, filter, "subscription refused: there are {MAX_SUBSCRIPTIONS}");
                granted.push(None);
                continue;
            };
            granted.push(Some(subscription.quality));
            match options.rh() {
                RetainHandling::SendRetained => retained.push(subscription.clone()),
                RetainHandling::SendRetainedIfNotExists if first => retained.push(subscription.clone()),
                _ => {}
            }
            new.push(subscription);
        }
        if self.expiry_s > 0 && !new.is_empty() {
            fleet.store.add_mqtt_subscriptions(&identity.name, &new).await.map_err(FleetError::from)?;
        }
        Ok((granted, retained))
    }

    /// Which there were.
    async fn unsubscribed(&self, filters: &[MqttString]) -> Result<Vec<bool>, End> {
        self.bounded(filters.len())?;
        let name = &self.identity.name;
        let filters: Vec<String> = filters.iter().map(|f| f.as_str().to_owned()).collect();
        let known = filters.iter().map(|f| self.fleet.hub().unsubscribe(name, self.serial, f)).collect();
        if self.expiry_s > 0 {
            self.fleet.store.remove_mqtt_subscriptions(name, &filters).await.map_err(FleetError::from)?;
        }
        Ok(known)
    }

    fn bounded(&self, filters: usize) -> Result<(), End> {
        if filters <= MAX_FILTERS {
            return Ok(());
        }
        let reason = format!("{} named more than {MAX_FILTERS} filters at a time", self.identity.name);
        Err(End::new(DisconnectReasonCode::QuotaExceeded, reason))
    }
}

impl Fleet {
    /// Publishes a will: at once, or after its delay unless the client is back by then. A delay does not outlast the
    /// session (MQTT 5, 3.1.3.2.2).
    async fn publish_will(&self, client: &str, connection: &str, will: Will, expiry_s: u32) -> Result<(), FleetError> {
        let delay = will.delay.min(Duration::from_secs(expiry_s.into()));
        if delay.is_zero() {
            return self.publish_now(will.message).await;
        }
        let waiting = Waiting { due: Instant::now() + delay, connection: connection.to_owned(), message: will.message };
        match self.wills.keep(client, waiting, || self.hub().connected(client)) {
            Ok(()) => self.attend_to_wills(),
            Err(will) => {
                tracing::warn!(client, "too many wills wait: this one is published at once");
                return self.publish_now(will.message).await;
            }
        }
        Ok(())
    }

    pub(crate) async fn publish_now(&self, message: Message) -> Result<(), FleetError> {
        if message.retain {
            self.retain(&message).await?;
        }
        self.publish(message).await
    }
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;

//! A connection's bytes, and the protocol's state between them and packets. An idle connection holds no buffer: what is
//! read goes through the stack.

use crate::FleetError;
use crate::broker::MAX_PACKET;
use crate::hub::Cut;
use crate::message::{Message, carried, expiry};
use belvedere_store::now_ms;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::role::Server;
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{
    GenericPacketTrait, MaximumQos, Packet, Property, ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable,
    SubscriptionIdentifierAvailable, TopicAliasMaximum, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError};
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

/// Publications that may be under way unacknowledged, in either direction (AWS IoT Core's limit).
pub const IN_FLIGHT: u16 = 100;
/// The longest keep-alive, seconds (AWS IoT Core's). A client that asks for none, or for more, gets this one.
pub const LONGEST_KEEP_ALIVE: u16 = 1200;
/// The longest life of a session without a connection (AWS IoT Core's).
pub const LONGEST_SESSION_S: u32 = 7 * 24 * 3600;
/// That of clients of version 3.1.1, which cannot say (AWS IoT Core's default).
pub const SESSION_OF_3_1_1_S: u32 = 3600;
/// Topic aliases that a client of version 5 may use (AWS IoT Core's limit).
const TOPIC_ALIASES: u16 = 8;
const WRITE: Duration = Duration::from_secs(60);
/// Bytes of one read.
const READ: usize = 4096;

/// Why a connection ended.
pub struct End {
    /// For the log.
    pub reason: String,
    /// For a client of version 5.
    pub code: Option<DisconnectReasonCode>,
}

impl End {
    pub(crate) fn new(code: DisconnectReasonCode, reason: impl Into<String>) -> End {
        End { reason: reason.into(), code: Some(code) }
    }
    /// There is nobody to be told.
    pub(crate) fn silent(reason: impl Into<String>) -> End {
        End { reason: reason.into(), code: None }
    }
}
impl From<FleetError> for End {
    fn from(e: FleetError) -> Self {
        End::new(DisconnectReasonCode::UnspecifiedError, e.to_string())
    }
}
impl From<std::io::Error> for End {
    fn from(e: std::io::Error) -> Self {
        End::silent(e.to_string())
    }
}
impl From<MqttError> for End {
    fn from(e: MqttError) -> Self {
        End::new(DisconnectReasonCode::ImplementationSpecificError, format!("cannot build a packet: {e:?}"))
    }
}
impl From<Cut> for End {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::TakenOver => End::new(DisconnectReasonCode::SessionTakenOver, "the client connected again"),
            Cut::Revoked => End::new(DisconnectReasonCode::AdministrativeAction, "its certificate does not stand any more"),
        }
    }
}

/// What a CONNECT says.
pub struct Hello {
    /// Who the client says it is.
    pub client_id: String,
    /// Forget the session that there was.
    pub(crate) clean: bool,
    /// How long the session lives without a connection, seconds; 0 is not at all.
    pub(crate) expiry_s: u32,
    /// What the client asked for, if that is another time.
    asked_expiry_s: Option<u32>,
    keep_alive: u16,
    /// How many publications the client takes before it acknowledges one.
    pub(crate) window: u16,
    /// The largest packet that the client takes.
    pub(crate) largest: u32,
    /// What is published if the client ends without saying so.
    pub will: Option<Will>,
}

/// The message of a client that ends without saying so.
pub struct Will {
    /// What is published then.
    pub message: Message,
    pub(crate) quality_2: bool,
    pub(crate) delay: Duration,
}

impl Hello {
    fn three(c: &v3_1_1::Connect) -> Hello {
        let clean = c.clean_session();
        let will = c.will_topic().map(|topic| {
            let mut message = Message::new(topic, c.will_payload().unwrap_or_default());
            message.quality = u8::from(c.will_qos() as u8 > 0);
            message.retain = c.will_retain();
            message.publisher = Some(c.client_id().to_owned());
            Will { message, quality_2: c.will_qos() as u8 == 2, delay: Duration::ZERO }
        });
        Hello {
            client_id: c.client_id().to_owned(),
            clean,
            expiry_s: if clean { 0 } else { SESSION_OF_3_1_1_S },
            asked_expiry_s: None,
            keep_alive: c.keep_alive(),
            window: IN_FLIGHT,
            largest: u32::MAX,
            will,
        }
    }

    fn five(c: &v5_0::Connect) -> Hello {
        let (mut asked, mut window, mut largest) = (0, IN_FLIGHT, u32::MAX);
        for property in c.props() {
            match property {
                Property::SessionExpiryInterval(p) => asked = p.val(),
                Property::ReceiveMaximum(p) => window = p.val().min(IN_FLIGHT),
                Property::MaximumPacketSize(p) => largest = p.val(),
                _ => {}
            }
        }
        let will = c.will_topic().map(|topic| {
            let properties = c.will_props();
            let delay = properties.iter().find_map(|p| match p {
                Property::WillDelayInterval(p) => Some(Duration::from_secs(p.val().into())),
                _ => None,
            });
            let message = Message {
                topic: topic.to_owned(),
                payload: c.will_payload().unwrap_or_default().to_vec(),
                quality: u8::from(c.will_qos() as u8 > 0),
                retain: c.will_retain(),
                properties: carried(properties),
                expires_ms: expiry(properties, now_ms()),
                publisher: Some(c.client_id().to_owned()),
            };
            Will { message, quality_2: c.will_qos() as u8 == 2, delay: delay.unwrap_or_default() }
        });
        let expiry_s = asked.min(LONGEST_SESSION_S);
        Hello {
            client_id: c.client_id().to_owned(),
            clean: c.clean_start(),
            expiry_s,
            asked_expiry_s: Some(asked),
            keep_alive: c.keep_alive(),
            window,
            largest,
            will,
        }
    }
}

/// As many bytes as a CONNECT's name is in.
const FIRST: usize = 16;

/// Whether a connection begins with a CONNECT whose protocol is named MQTT: behind the packet's type and the length of the
/// rest, which has one to four bytes.
fn is_mqtt(first: &[u8]) -> bool {
    let length = first.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    first.first() == Some(&0x10) && first.get(1 + length..).is_some_and(|rest| rest.starts_with(b"\0\x04MQTT"))
}

/// The flags of a CONNECT whose protocol is named MQTT: behind the name and the level.
fn flags(first: &[u8]) -> Option<u8> {
    let length = first.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    first.get(1 + length + b"\0\x04MQTT".len() + 1).copied()
}

/// A publication that must have a packet identifier, and has 0, which is none.
fn is_numbered_zero(packet: &Packet) -> bool {
    match packet {
        Packet::V3_1_1Publish(p) => p.packet_id() == Some(0),
        Packet::V5_0Publish(p) => p.packet_id() == Some(0),
        _ => false,
    }
}

/// A connection's bytes, and the protocol's state.
pub struct Link<S> {
    stream: S,
    pub(crate) protocol: Connection<Server>,
    silent_since: Instant,
    silence: Duration,
    /// The first bytes, as long as it is not known which version is spoken.
    first: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Before its CONNECT.
    pub fn new(stream: S) -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(MAX_PACKET).receive_maximum(IN_FLIGHT);
        let mut protocol = Connection::<Server>::with_options(Version::Undetermined, options);
        protocol.set_auto_ping_response(true);
        let silence = Duration::from_secs(u64::from(LONGEST_KEEP_ALIVE) * 3 / 2);
        Link { stream, protocol, silent_since: Instant::now(), silence, first: Vec::new() }
    }

    pub(crate) fn version(&self) -> Version {
        self.protocol.get_protocol_version()
    }

    /// When the client has been silent for too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.silent_since + self.silence
    }

    /// Waits for bytes; none at the end of the stream. May be cancelled.
    pub async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        poll_fn(|context| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            std::task::Poll::Ready(Ok(buffer.filled().to_vec()))
        })
        .await
    }

    /// The packets in bytes that were read. What the protocol answers by itself (pings, complaints) is written here.
    /// Not to be cancelled.
    pub async fn take(&mut self, bytes: &[u8]) -> Result<Vec<Packet>, End> {
        self.silent_since = Instant::now();
        if self.version() == Version::Undetermined {
            self.first.extend(bytes.iter().take(FIRST.saturating_sub(self.first.len())));
        }
        let mut packets = Vec::new();
        let mut answers = Vec::new();
        let mut wrong = None;
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() && wrong.is_none() {
            for event in self.protocol.recv(&mut cursor) {
                match event {
                    // The library takes it, and panics over its own answer to the second one.
                    Event::NotifyPacketReceived(packet) if is_numbered_zero(&packet) => {
                        wrong = Some("protocol error: a packet identifier of 0 [MQTT-2.3.1-1]".to_owned());
                    }
                    Event::NotifyPacketReceived(packet) => packets.push(packet),
                    Event::RequestSendPacket { packet, .. } => answers.extend(packet.to_continuous_buffer()),
                    Event::NotifyError(e) => {
                        // A level that is not served is answered, and then the connection closes [MQTT-3.1.2-2]. The
                        // form is that of 3.1.1, which every client of MQTT reads.
                        if e == MqttError::UnsupportedProtocolVersion && is_mqtt(&self.first) {
                            answers.extend([0x20, 2, 0, ConnectReturnCode::UnacceptableProtocolVersion as u8]);
                        }
                        wrong = Some(format!("protocol error: {e:?}"));
                    }
                    other => self.note(&other),
                }
            }
        }
        if !answers.is_empty() {
            self.write(&answers).await?;
        }
        match wrong {
            // The protocol has told the client already.
            Some(reason) => {
                // Ends TLS in order, so that what was written last arrives.
                let _ = timeout(Duration::from_secs(2), self.stream.shutdown()).await;
                Err(End::silent(reason))
            }
            None => Ok(packets),
        }
    }

    fn note(&mut self, event: &Event) {
        if let Event::RequestTimerReset { kind: TimerKind::PingreqRecv, duration_ms } = event {
            let longest = Duration::from_secs(u64::from(LONGEST_KEEP_ALIVE) * 3 / 2);
            self.silence = Duration::from_millis(*duration_ms).min(longest);
        }
    }

    /// Waits for CONNECT. What came with it is given, too.
    pub async fn hello(&mut self) -> Result<(Hello, Vec<Packet>), End> {
        loop {
            let bytes = self.read().await?;
            if bytes.is_empty() {
                return Err(End::silent("closed before CONNECT"));
            }
            let mut packets = self.take(&bytes).await?.into_iter();
            let hello = match packets.next() {
                None => continue,
                Some(Packet::V3_1_1Connect(c)) => Hello::three(&c),
                Some(Packet::V5_0Connect(c)) => Hello::five(&c),
                Some(_) => return Err(End::silent("the first packet was not CONNECT")),
            };
            // The library does not look at the one and takes the other for something else.
            if flags(&self.first).is_some_and(|flags| flags & 1 != 0 || flags & 0x18 == 0x18) {
                return Err(End::silent("CONNECT has flags that cannot be"));
            }
            return Ok((hello, packets.collect()));
        }
    }

    /// CONNACK: welcome.
    pub async fn welcome(&mut self, hello: &Hello, session_present: bool) -> Result<(), End> {
        let packet: Packet = if self.version() == Version::V5_0 {
            // What the library adds by itself: the largest packet and the receive maximum.
            let mut properties: Vec<Property> = vec![
                MaximumQos::new(1)?.into(),
                TopicAliasMaximum::new(TOPIC_ALIASES)?.into(),
                SubscriptionIdentifierAvailable::new(0)?.into(),
                SharedSubscriptionAvailable::new(0)?.into(),
            ];
            if hello.asked_expiry_s != Some(hello.expiry_s) {
                properties.push(SessionExpiryInterval::new(hello.expiry_s)?.into());
            }
            if hello.keep_alive == 0 || hello.keep_alive > LONGEST_KEEP_ALIVE {
                properties.push(ServerKeepAlive::new(LONGEST_KEEP_ALIVE)?.into());
            }
            let code = ConnectReasonCode::Success;
            v5_0::Connack::builder().session_present(session_present).reason_code(code).props(properties).build()?.into()
        } else {
            let code = ConnectReturnCode::Accepted;
            v3_1_1::Connack::builder().session_present(session_present).return_code(code).build()?.into()
        };
        self.send(packet).await
    }

    /// CONNACK: not you, or not so.
    pub(crate) async fn refuse(&mut self, code: ConnectReasonCode) -> Result<(), End> {
        let packet: Packet = if self.version() == Version::V5_0 {
            v5_0::Connack::builder().session_present(false).reason_code(code).build()?.into()
        } else {
            let code = match code {
                ConnectReasonCode::ConnectionRateExceeded => ConnectReturnCode::ServerUnavailable,
                // [MQTT-3.1.3-8] and [MQTT-3.1.3-9].
                ConnectReasonCode::ClientIdentifierNotValid => ConnectReturnCode::IdentifierRejected,
                _ => ConnectReturnCode::NotAuthorized,
            };
            v3_1_1::Connack::builder().session_present(false).return_code(code).build()?.into()
        };
        self.send(packet).await
    }

    /// Tells a client of version 5 why its connection ends.
    pub(crate) async fn farewell(&mut self, code: DisconnectReasonCode) {
        if self.version() == Version::V5_0
            && let Ok(packet) = v5_0::Disconnect::builder().reason_code(code).build()
        {
            let _ = timeout(Duration::from_secs(2), self.send(packet.into())).await;
        }
        // Ends TLS in order, so that what was written last arrives.
        let _ = timeout(Duration::from_secs(2), self.stream.shutdown()).await;
    }

    pub(crate) async fn send(&mut self, packet: Packet) -> Result<(), End> {
        let mut bytes = Vec::new();
        for event in self.protocol.send(packet) {
            match event {
                Event::RequestSendPacket { packet, .. } => bytes.extend(packet.to_continuous_buffer()),
                Event::NotifyError(e) => return Err(End::silent(format!("cannot send: {e:?}"))),
                other => self.note(&other),
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
            Err(_) => Err(End::silent("the client does not read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: the second such publication of quality 2 made the library panic.
    #[tokio::test]
    async fn a_packet_identifier_of_zero_ends_the_connection() {
        let connects: [&[u8]; 2] =
            [b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x", b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01x"];
        for (connect, properties) in connects.into_iter().zip([&b""[..], b"\0"]) {
            for quality in [1, 2] {
                let mut publish = vec![0x30 | quality << 1, 5 + properties.len() as u8, 0, 1, b't', 0, 0];
                publish.extend(properties);
                let (near, _far) = tokio::io::duplex(4096);
                let mut link = Link::new(near);
                assert_eq!(link.take(connect).await.ok().map(|packets| packets.len()), Some(1), "quality {quality}");
                let end = link.take(&publish.repeat(2)).await.err().expect("the connection ends");
                assert!(end.reason.contains("identifier of 0"), "{}", end.reason);
            }
        }
    }
}

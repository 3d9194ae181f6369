//! One connection to the external broker, by rumqttc: MQTT 5 over TLS 1.3 with a certificate of the device authority and
//! the service's password. It ends with its first error; whoever opened it opens another. So nothing of an earlier
//! connection is ever taken for something of this one: packet identifiers, and who waits for an acknowledgement.

use super::security::{self, Reply, SERVICE};
use crate::FleetError;
use crate::panics::caught;
use belvedere_device_protocol::Endpoint;
use belvedere_store::broker_messages::Waiting as Outgoing;
use belvedere_store::{identifiers, now_ms};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, Packet, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing as Sent, TlsConfiguration, Transport};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// One connection attempt, TLS included, seconds.
const CONNECT_S: u64 = 10;
/// How long the broker may take to acknowledge or to answer.
const PATIENCE: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Publications under way in either direction.
const IN_FLIGHT: u16 = 100;
/// Requests of this program that wait for the connection; more are refused, and wait in the store.
const QUEUE: usize = 4096;
/// Largest packet, bytes: the list of all devices is one.
const MAX_PACKET: u32 = 16 * 1024 * 1024;
/// Largest packet to the broker, bytes, as [`super::configuration`] has it.
pub(super) const MAX_SENT: usize = 1024 * 1024;
/// What of a packet is neither topic nor payload, bytes, and a little more.
const HEADER: usize = 1024;
/// How long the broker keeps what devices say while no service is there, seconds.
const SESSION_S: u32 = 7 * 24 * 3600;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Hears devices, in the one session that outlives every connection.
    Listen,
    /// Says things only.
    Speak,
}

/// What a connection needs.
pub(super) struct Access {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) password: String,
}

/// Why the broker does not have a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It will not take it.
    Refused(String),
    /// Nobody knows: the connection ended, or too much waits.
    Lost(String),
}

impl From<Unsent> for FleetError {
    fn from(unsent: Unsent) -> FleetError {
        let (Unsent::Refused(detail) | Unsent::Lost(detail)) = unsent;
        error("publish to the broker", detail)
    }
}

type Acknowledged = oneshot::Sender<Result<(), String>>;

/// Who waits for which acknowledgement. rumqttc gives packet identifiers in the order of its queue, and tells them.
#[derive(Default)]
struct Unacknowledged {
    queued: VecDeque<Acknowledged>,
    sent: HashMap<u16, Acknowledged>,
    /// Its identifier is still in use; it is sent when that is free.
    held: Option<Acknowledged>,
}

impl Unacknowledged {
    fn sent(&mut self, sent: &Sent) {
        match sent {
            Sent::Publish(0) => drop(self.queued.pop_front().map(|who| who.send(Ok(())))),
            Sent::Publish(id) => {
                if let Some(who) = self.held.take().or_else(|| self.queued.pop_front()) {
                    self.sent.insert(*id, who);
                }
            }
            Sent::AwaitAck(_) => self.held = self.queued.pop_front(),
            _ => {}
        }
    }

    fn acknowledged(&mut self, id: u16, outcome: Result<(), String>) {
        if let Some(who) = self.sent.remove(&id) {
            let _ = who.send(outcome);
        }
    }
}

#[derive(Default)]
struct Expected {
    publications: Mutex<Unacknowledged>,
    answers: Mutex<HashMap<String, oneshot::Sender<Vec<Reply>>>>,
    subscribed: Mutex<Option<oneshot::Sender<bool>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(operation: &'static str, detail: impl ToString) -> FleetError {
    FleetError::Broker { operation, detail: detail.to_string() }
}

/// A connection that was opened.
pub(super) struct Link {
    client: AsyncClient,
    expected: Arc<Expected>,
    ended: watch::Receiver<Option<String>>,
}

impl Link {
    /// Connects. What devices say comes out of the receiver; every message of quality 1 wants to be acknowledged.
    pub(super) async fn open(
        access: &Access,
        purpose: Purpose,
    ) -> Result<(Link, mpsc::UnboundedReceiver<Publish>), FleetError> {
        let name = match purpose {
            Purpose::Listen => SERVICE.to_owned(),
            Purpose::Speak => format!("{SERVICE}-{}", identifiers::token::<8>()),
        };
        let mut options = MqttOptions::new(name, &access.endpoint.host, access.endpoint.port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(access.tls.clone())));
        options.set_credentials(SERVICE, &access.password).set_keep_alive(KEEP_ALIVE).set_connection_timeout(CONNECT_S);
        options.set_clean_start(purpose == Purpose::Speak).set_manual_acks(true);
        options.set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(if purpose == Purpose::Listen { SESSION_S } else { 0 }),
            receive_maximum: Some(IN_FLIGHT),
            max_packet_size: Some(MAX_PACKET),
            ..ConnectProperties::new()
        });
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        // An answer is a small packet that waits for its acknowledgement: TCP must not wait for more of them.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        let (heard, messages) = mpsc::unbounded_channel();
        let (ending, ended) = watch::channel(None);
        let (opening, opened) = oneshot::channel();
        let expected = Arc::<Expected>::default();
        let told = expected.clone();
        tokio::spawn(async move {
            let conversed = caught(converse(&mut events, &told, opening, &heard)).await;
            let reason = conversed.unwrap_or_else(|panicked| panicked.to_string());
            let _ = ending.send(Some(reason));
            // Nobody gets an answer any more. (Whoever publishes from now on sees under this lock that it is over.)
            *lock(&told.publications) = Unacknowledged::default();
            lock(&told.answers).clear();
            drop(lock(&told.subscribed).take());
        });
        let link = Link { client, expected, ended };
        match opened.await {
            Ok(()) => Ok((link, messages)),
            Err(_) => Err(error("connect to the broker", link.reason().await)),
        }
    }

    /// Waits for the end of the connection, and says why it ended.
    pub(super) async fn reason(&self) -> String {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "the connection ended".into())
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Ends it in order. A session that outlives it waits.
    pub(super) async fn close(&self) {
        let _ = self.client.try_disconnect();
        let _ = timeout(Duration::from_secs(2), self.reason()).await;
    }

    /// Publishes; the broker has it when this returns.
    pub(super) async fn publish(&self, message: &Outgoing) -> Result<(), Unsent> {
        let lost = |detail: &str| Unsent::Lost(detail.to_owned());
        let seconds = message.expires_ms.map(|at| u32::try_from((at - now_ms()).max(1) / 1000).unwrap_or(u32::MAX).max(1));
        let properties = PublishProperties { message_expiry_interval: seconds, ..PublishProperties::default() };
        let quality = if message.quality > 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let received = {
            // Both under one lock: the order of those who wait is that of rumqttc's queue.
            let mut publications = lock(&self.expected.publications);
            if self.is_over() {
                return Err(lost("the connection ended"));
            }
            let (who, received) = oneshot::channel();
            let (topic, payload) = (message.topic.clone(), message.payload.clone());
            self.client
                .try_publish_with_properties(topic, quality, message.retain, payload, properties)
                .map_err(|_| lost("too much waits for it"))?;
            publications.queued.push_back(who);
            received
        };
        match timeout(PATIENCE, received).await {
            Ok(Ok(outcome)) => outcome.map_err(Unsent::Refused),
            Ok(Err(_)) => Err(lost("the connection ended")),
            Err(_) => Err(lost("it does not acknowledge")),
        }
    }

    /// Whether a message can be sent at all.
    pub(super) fn fits(message: &Outgoing) -> bool {
        message.topic.len() + message.payload.len() + HEADER <= MAX_SENT
    }

    /// Acknowledges what a device said: it is carried out.
    pub(super) async fn acknowledge(&self, publish: &Publish) {
        // One that does not arrive comes again with the next connection.
        let _ = self.client.ack(publish).await;
    }

    /// Subscribes; what was retained is not sent again.
    pub(super) async fn subscribe(&self, filters: impl IntoIterator<Item = String>, quality: QoS) -> Result<(), FleetError> {
        let failed = |detail: String| error("subscribe at the broker", detail);
        let (who, granted) = oneshot::channel();
        *lock(&self.expected.subscribed) = Some(who);
        let filters = filters
            .into_iter()
            .map(|path| Filter { retain_forward_rule: RetainForwardRule::Never, ..Filter::new(path, quality) });
        self.client.subscribe_many(filters).await.map_err(|e| failed(e.to_string()))?;
        match timeout(PATIENCE, granted).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                Err(failed("it refuses; was its configuration made by `belvedere-service broker-configuration`?".into()))
            }
            _ => Err(failed("it does not answer".into())),
        }
    }

    /// Gives commands to the dynamic-security plug-in; its answers to all of them.
    pub(super) async fn control(&self, commands: Vec<serde_json::Value>) -> Result<Vec<Reply>, FleetError> {
        let failed = |detail: &str| error("control the broker", detail);
        let correlation = identifiers::token::<8>();
        let commands: Vec<_> = commands
            .into_iter()
            .map(|mut command| {
                command["correlationData"] = correlation.clone().into();
                command
            })
            .collect();
        let (who, answer) = oneshot::channel();
        lock(&self.expected.answers).insert(correlation.clone(), who);
        let payload = serde_json::json!({ "commands": commands }).to_string().into_bytes();
        let topic = security::CONTROL.to_owned();
        let message = Outgoing { sequence: 0, topic, payload, quality: 1, retain: false, expires_ms: None };
        let outcome = match self.publish(&message).await {
            Ok(()) => timeout(PATIENCE, answer).await.map_err(|_| failed("its plug-in does not answer")),
            Err(e) => Err(e.into()),
        };
        lock(&self.expected.answers).remove(&correlation);
        outcome?.map_err(|_| failed("the connection ended"))
    }
}

/// Runs a connection until its end; why it ended.
async fn converse(
    events: &mut EventLoop,
    expected: &Expected,
    opening: oneshot::Sender<()>,
    heard: &mpsc::UnboundedSender<Publish>,
) -> String {
    let mut opening = Some(opening);
    loop {
        let event = match events.poll().await {
            Ok(event) => event,
            Err(e) => return described(&e),
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => drop(opening.take().map(|who| who.send(()))),
            Event::Incoming(Packet::PubAck(ack)) => {
                let outcome = match ack.reason {
                    // Nobody listens: that is the publisher's luck, as everywhere.
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                    reason => Err(format!("it says {reason:?}")),
                };
                lock(&expected.publications).acknowledged(ack.pkid, outcome);
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                let _ = lock(&expected.subscribed).take().map(|who| who.send(granted));
            }
            Event::Incoming(Packet::Publish(publish)) if publish.topic == security::ANSWER.as_bytes() => {
                let replies = security::replies(&publish.payload);
                let correlation = replies.first().map(|reply| reply.correlation.clone()).unwrap_or_default();
                // Answers to other copies of the service, and to the owner, come here, too.
                drop(lock(&expected.answers).remove(&correlation).map(|who| who.send(replies)));
            }
            Event::Incoming(Packet::Publish(publish)) => drop(heard.send(publish)),
            Event::Outgoing(sent) => {
                lock(&expected.publications).sent(&sent);
                if sent == Sent::Disconnect {
                    return "closed".into();
                }
            }
            _ => {}
        }
    }
}

/// An error with everything below it; never what was sent.
fn described(error: &rumqttc::v5::ConnectionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(below) = source {
        let words = below.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = below.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(unacknowledged: &mut Unacknowledged) -> oneshot::Receiver<Result<(), String>> {
        let (who, received) = oneshot::channel();
        unacknowledged.queued.push_back(who);
        received
    }

    #[test]
    fn an_acknowledgement_finds_the_publication_that_it_is_for() {
        let mut all = Unacknowledged::default();
        let [mut a, mut b, mut c] = [(); 3].map(|()| waiting(&mut all));
        all.sent(&Sent::Publish(1));
        all.sent(&Sent::PingReq);
        all.sent(&Sent::Publish(0)); // quality 0: done when it is sent
        assert_eq!(b.try_recv(), Ok(Ok(())));
        // Its identifier is the first one's: it is held back until that is free.
        all.sent(&Sent::AwaitAck(1));
        all.acknowledged(1, Ok(()));
        assert_eq!(a.try_recv(), Ok(Ok(())));
        assert!(c.try_recv().is_err());
        all.sent(&Sent::Publish(1));
        all.acknowledged(1, Err("no".into()));
        assert_eq!(c.try_recv(), Ok(Err("no".into())));
        all.acknowledged(9, Ok(()));
    }
}

//! Who is connected here, and what waits in memory for each. What must outlive a connection is in the store instead
//! ([`crate::delivery`] decides); then a mailbox only says that there is more.

use crate::message::Message;
use belvedere_store::connections::Connection as Noted;
use belvedere_store::mqtt_sessions::Subscription;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Messages that wait in memory for one slow connection; more are dropped.
pub const QUEUE: usize = 256;
/// Their bytes.
pub const QUEUE_BYTES: usize = 1024 * 1024;
/// Subscriptions of one client (AWS IoT Core's limit).
pub const MAX_SUBSCRIPTIONS: usize = 50;

/// Why a connection is cut by the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The same client connected again.
    TakenOver,
    /// Its certificate is not good any more, or its device was deleted.
    Revoked,
}

/// Why a message was dropped. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// A connection reads too slowly.
    SlowConnection,
    /// The queue of a session is full.
    QueueFull,
    /// It was of no use any more when its turn came.
    TooOld,
    /// Larger than the client takes.
    TooLarge,
}

impl Drop {
    /// All of them, in the order of their counters.
    pub const ALL: [Drop; 4] = [Drop::SlowConnection, Drop::QueueFull, Drop::TooOld, Drop::TooLarge];

    /// As metrics and logs have it.
    pub fn word(self) -> &'static str {
        match self {
            Drop::SlowConnection => "slow_connection",
            Drop::QueueFull => "queue_full",
            Drop::TooOld => "too_old",
            Drop::TooLarge => "too_large",
        }
    }
}

/// A message on its way to one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// What.
    pub message: Arc<Message>,
    /// As granted: 0 or 1.
    pub quality: u8,
    /// The retain mark.
    pub retain: bool,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    more: bool,
    cut: Option<Cut>,
}

/// What waits for one connection.
#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Waits until there is something new.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
    /// False if it is full.
    fn offer(&self, outgoing: Outgoing) -> bool {
        let mut waiting = self.lock();
        let size = outgoing.message.size();
        // One message of any size always has a place.
        if waiting.messages.len() >= QUEUE || (waiting.bytes > 0 && waiting.bytes + size > QUEUE_BYTES) {
            return false;
        }
        waiting.bytes += size;
        waiting.messages.push_back(outgoing);
        drop(waiting);
        self.notify.notify_one();
        true
    }
    fn more(&self) {
        self.lock().more = true;
        self.notify.notify_one();
    }
    fn cut(&self, cut: Cut) {
        self.lock().cut.get_or_insert(cut);
        self.notify.notify_one();
    }
    /// Whether the connection is to end, and why.
    pub(crate) fn is_cut(&self) -> Option<Cut> {
        self.lock().cut
    }
    /// The next message; one of quality 1 only if there is `room` for it.
    pub(crate) fn take(&self, room: bool) -> Option<Outgoing> {
        let mut waiting = self.lock();
        if waiting.messages.front().is_some_and(|o| o.quality > 0 && !room) {
            return None;
        }
        let taken = waiting.messages.pop_front()?;
        waiting.bytes -= taken.message.size();
        if waiting.messages.is_empty() {
            waiting.messages.shrink_to(8);
        }
        Some(taken)
    }
    /// Whether the store has something new for this client. Asked once, it is forgotten.
    pub(crate) fn take_more(&self) -> bool {
        std::mem::take(&mut self.lock().more)
    }
}

/// Connections of one client that each took the place of one before it, soon after that had begun. A client that loses
/// its network does so once or twice; two clients with one identity (a copied disk) do it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rivalry(u32);

/// A connection that lasted so long is no part of it any more.
const SOON: Duration = Duration::from_secs(90);
/// So often in a row and it is told, and each connection is left alone for a while.
const ROUNDS: u32 = 10;
/// For so long then.
const LEFT_ALONE: Duration = Duration::from_secs(60);

impl Rivalry {
    /// What it is after another connection came at this age of the one before; `None` if that one is left alone.
    fn after(self, age: Duration) -> Option<Rivalry> {
        match () {
            () if age >= SOON => Some(Rivalry(0)),
            () if self.is_told() && age < LEFT_ALONE => None,
            () => Some(Rivalry(self.0.saturating_add(1))),
        }
    }

    fn is_told(self) -> bool {
        self.0 >= ROUNDS
    }
}

struct Connection {
    serial: u64,
    since: Instant,
    peer: SocketAddr,
    rivalry: Rivalry,
    /// As the other copies of the service know it, once they do.
    noted: Option<Noted>,
    mailbox: Arc<Mailbox>,
    /// Whether its session is there. Until then what it hears is what its session asked for before.
    open: bool,
    /// Whether its session outlives it: quality 1 goes through the store.
    durable: bool,
    certificate: String,
    subscriptions: Vec<Subscription>,
}

/// What a client that is connected here asked to hear.
pub(crate) struct Listening {
    pub(crate) durable: bool,
    pub(crate) subscriptions: Vec<Subscription>,
}

/// The registry of connections.
#[derive(Default)]
pub struct Hub {
    connections: Mutex<HashMap<String, Connection>>,
    serial: AtomicU64,
    drops: [AtomicU64; Drop::ALL.len()],
    rivalries: AtomicU64,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection that hears nothing yet. An earlier one of the same client is cut; `None` if it may not be,
    /// because two clients with this identity end each other's connections again and again.
    pub(crate) fn connect(&self, client: &str, certificate: &str, peer: SocketAddr) -> Option<(u64, Arc<Mailbox>)> {
        self.connect_at(client, certificate, peer, Instant::now())
    }

    fn connect_at(&self, client: &str, certificate: &str, peer: SocketAddr, now: Instant) -> Option<(u64, Arc<Mailbox>)> {
        let mut connections = self.lock();
        let mut rivalry = Rivalry::default();
        if let Some(earlier) = connections.get(client) {
            let age = now.saturating_duration_since(earlier.since);
            let told = earlier.rivalry.is_told();
            rivalry = earlier.rivalry.after(age)?;
            if rivalry.is_told() && !told {
                self.rivalries.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    client, first = %earlier.peer.ip(), second = %peer.ip(),
                    "one identity connects from two places, again and again: is a disk copied? Each connection now lasts a \
                     minute at least. Delete the device, and provision each appliance by itself"
                );
            }
        }
        let mailbox = Arc::new(Mailbox::default());
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let certificate = certificate.to_owned();
        let connection = Connection {
            serial,
            since: now,
            peer,
            rivalry,
            mailbox: mailbox.clone(),
            open: false,
            durable: false,
            certificate,
            subscriptions: Vec::new(),
            noted: None,
        };
        if let Some(earlier) = connections.insert(client.to_owned(), connection) {
            earlier.mailbox.cut(Cut::TakenOver);
        }
        Some((serial, mailbox))
    }

    /// How many identities were found to connect from two places, since the start.
    pub fn rivalries(&self) -> u64 {
        self.rivalries.load(Ordering::Relaxed)
    }

    /// The connection's session is there: from now on it hears what it asked for.
    pub(crate) fn open(&self, client: &str, serial: u64, durable: bool, subscriptions: Vec<Subscription>) {
        if let Some(connection) = self.lock().get_mut(client).filter(|c| c.serial == serial) {
            connection.open = true;
            connection.durable = durable;
            connection.subscriptions = subscriptions;
            // What came since the session was read.
            connection.mailbox.more();
        }
    }

    /// The other copies of the service know of the connection.
    pub(crate) fn note(&self, client: &str, serial: u64, noted: Noted) {
        if let Some(connection) = self.lock().get_mut(client).filter(|c| c.serial == serial) {
            connection.noted = Some(noted);
        }
    }

    /// What the other copies know of connections here.
    pub(crate) fn noted(&self) -> Vec<Noted> {
        self.lock().values().filter_map(|c| c.noted.clone()).collect()
    }

    /// Cuts a connection because its client has a newer one at another copy; false if it is not here.
    pub(crate) fn taken_over(&self, client: &str, name: &str) -> bool {
        let connections = self.lock();
        let connection = connections.get(client).filter(|c| c.noted.as_ref().is_some_and(|n| n.connection == name));
        if let Some(connection) = connection {
            connection.mailbox.cut(Cut::TakenOver);
        }
        connection.is_some()
    }

    /// Forgets a connection; false if a newer one has taken its place.
    pub(crate) fn leave(&self, client: &str, serial: u64) -> bool {
        let mut connections = self.lock();
        let mine = connections.get(client).is_some_and(|c| c.serial == serial);
        if mine {
            connections.remove(client);
        }
        mine
    }

    /// Cuts a client's connection because it may not be here any more.
    pub fn disconnect(&self, client: &str) {
        if let Some(connection) = self.lock().get(client) {
            connection.mailbox.cut(Cut::Revoked);
        }
    }

    /// Cuts every connection whose certificate does not stand; how many.
    pub(crate) fn keep_only(&self, stands: impl Fn(&str) -> bool) -> usize {
        let connections = self.lock();
        let fallen = connections.iter().filter(|(_, c)| !stands(&c.certificate));
        fallen
            .map(|(client, connection)| {
                tracing::warn!(client, "the certificate does not stand any more: the connection is cut");
                connection.mailbox.cut(Cut::Revoked);
            })
            .count()
    }

    /// Whether a client is connected here.
    pub fn connected(&self, client: &str) -> bool {
        self.lock().contains_key(client)
    }

    /// How many are.
    pub fn connections(&self) -> usize {
        self.lock().len()
    }

    /// Clients whose sessions outlive their connections.
    pub(crate) fn durable_clients(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, c)| c.durable).map(|(client, _)| client.clone()).collect()
    }

    /// How many messages were dropped since the start, by reason.
    pub fn drops(&self) -> [(Drop, u64); Drop::ALL.len()] {
        Drop::ALL.map(|reason| (reason, self.drops[reason as usize].load(Ordering::Relaxed)))
    }

    /// Counts a message that was dropped.
    pub(crate) fn dropped(&self, client: &str, topic: &str, reason: Drop) {
        let count = self.drops[reason as usize].fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(client, topic, reason = reason.word(), count, "message dropped");
    }

    /// Adds or replaces a subscription: `Some(true)` if it is new. `None` if there are too many, or the connection is
    /// not the current one.
    pub(crate) fn subscribe(&self, client: &str, serial: u64, new: Subscription) -> Option<bool> {
        let mut connections = self.lock();
        let connection = connections.get_mut(client).filter(|c| c.serial == serial)?;
        if let Some(known) = connection.subscriptions.iter_mut().find(|s| s.filter == new.filter) {
            *known = new;
            return Some(false);
        }
        if connection.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return None;
        }
        connection.subscriptions.push(new);
        Some(true)
    }

    /// Removes a subscription; false if there was none.
    pub(crate) fn unsubscribe(&self, client: &str, serial: u64, filter: &str) -> bool {
        let mut connections = self.lock();
        let Some(connection) = connections.get_mut(client).filter(|c| c.serial == serial) else { return false };
        let before = connection.subscriptions.len();
        connection.subscriptions.retain(|s| s.filter != filter);
        connection.subscriptions.len() < before
    }

    /// What a client that is connected here asked to hear; `None` as long as its session is not there: ask the store.
    pub(crate) fn listening(&self, client: &str) -> Option<Listening> {
        let connections = self.lock();
        let connection = connections.get(client).filter(|c| c.open)?;
        Some(Listening { durable: connection.durable, subscriptions: connection.subscriptions.clone() })
    }

    /// Puts a message before a connection. Never waits: one that is too slow loses it.
    pub(crate) fn offer(&self, client: &str, outgoing: Outgoing) {
        let mailbox = self.lock().get(client).map(|c| c.mailbox.clone());
        let topic = outgoing.message.topic.clone();
        if mailbox.is_some_and(|m| !m.offer(outgoing)) {
            self.dropped(client, &topic, Drop::SlowConnection);
        }
    }

    /// The store has something new for a client.
    pub(crate) fn more(&self, client: &str) {
        if let Some(connection) = self.lock().get(client) {
            connection.mailbox.more();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(hub: &Hub, client: &str, certificate: &str) -> (u64, Arc<Mailbox>) {
        hub.connect(client, certificate, peer(1)).unwrap()
    }

    fn peer(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 1))
    }

    /// Two appliances with one identity: each connects again two seconds after it was cut, or refused.
    #[test]
    fn two_appliances_with_one_identity_are_told_of_and_leave_each_other_alone() {
        let (hub, start) = (Hub::default(), Instant::now());
        let mut begun: Vec<Duration> = Vec::new();
        let (mut at, mut who) = (Duration::ZERO, 0);
        while at < Duration::from_secs(1200) {
            if hub.connect_at("a", "certificate", peer(who), start + at).is_some() {
                begun.push(at);
                who = 1 - who;
            }
            at += Duration::from_secs(2);
        }
        let mut lasted: Vec<Duration> = begun.windows(2).skip(10).map(|two| two[1] - two[0]).collect();
        lasted.sort_unstable();
        assert!(lasted[lasted.len() / 2] >= Duration::from_secs(30), "{lasted:?}");
        assert_eq!(hub.rivalries(), 1, "told once");
        // One of them is turned off: the other one stays, and may lose its network again.
        let quiet = start + at + Duration::from_secs(100);
        assert!(hub.connect_at("a", "certificate", peer(1), quiet).is_some());
        assert!(hub.connect_at("a", "certificate", peer(1), quiet + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn who_loses_the_network_now_and_then_is_let_in_at_once() {
        let (hub, start) = (Hub::default(), Instant::now());
        for n in 0..100 {
            assert!(hub.connect_at("a", "certificate", peer(1), start + n * Duration::from_secs(95)).is_some());
        }
        assert_eq!(hub.rivalries(), 0);
    }

    fn subscription(filter: &str) -> Subscription {
        Subscription { filter: filter.into(), quality: 1, no_local: false, keep_retain: false }
    }
    fn outgoing(payload: Vec<u8>, quality: u8) -> Outgoing {
        Outgoing { message: Arc::new(Message::new("t", payload)), quality, retain: false }
    }

    #[test]
    fn a_second_connection_takes_the_place_of_the_first() {
        let hub = Hub::default();
        let (first, mailbox) = connect(&hub, "a", "certificate");
        let (second, _) = connect(&hub, "a", "certificate");
        assert_eq!(mailbox.is_cut(), Some(Cut::TakenOver));
        assert_eq!(hub.subscribe("a", first, subscription("t")), None);
        assert!(!hub.leave("a", first));
        assert!(hub.connected("a"));
        assert!(hub.leave("a", second));
    }

    /// A message that comes while a client connects belongs into its session, which is in the store.
    #[test]
    fn a_connection_hears_for_itself_once_its_session_is_there() {
        let hub = Hub::default();
        let (serial, mailbox) = connect(&hub, "a", "certificate");
        assert!(hub.listening("a").is_none());
        hub.open("a", serial, true, vec![subscription("t")]);
        assert!(hub.listening("a").is_some_and(|l| l.durable && l.subscriptions.len() == 1));
        assert!(mailbox.take_more(), "and looks into the store for what came meanwhile");
    }

    #[test]
    fn a_slow_connection_loses_messages_and_they_are_counted() {
        let hub = Hub::default();
        let (_, mailbox) = connect(&hub, "a", "certificate");
        (0..QUEUE + 3).for_each(|_| hub.offer("a", outgoing(Vec::new(), 0)));
        assert_eq!(hub.drops()[0], (Drop::SlowConnection, 3));
        while mailbox.take(false).is_some() {}
        (0..3).for_each(|_| hub.offer("a", outgoing(vec![0; QUEUE_BYTES * 2 / 3], 0)));
        assert_eq!(hub.drops()[0], (Drop::SlowConnection, 5));
        assert!(mailbox.take(false).is_some() && mailbox.take(false).is_none());
    }

    #[test]
    fn quality_one_waits_for_room_and_what_follows_waits_behind_it() {
        let hub = Hub::default();
        let (_, mailbox) = connect(&hub, "a", "certificate");
        hub.offer("a", outgoing(b"1".to_vec(), 1));
        hub.offer("a", outgoing(b"0".to_vec(), 0));
        assert_eq!(mailbox.take(false), None);
        assert_eq!(mailbox.take(true).unwrap().quality, 1);
        assert_eq!(mailbox.take(false).unwrap().quality, 0);
    }

    #[test]
    fn only_connections_whose_certificate_stands_stay() {
        let hub = Hub::default();
        let (_, good) = connect(&hub, "a", "good");
        let (_, bad) = connect(&hub, "b", "bad");
        assert_eq!(hub.keep_only(|certificate| certificate == "good"), 1);
        assert_eq!((good.is_cut(), bad.is_cut()), (None, Some(Cut::Revoked)));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let hub = Hub::default();
        let (serial, _) = connect(&hub, "a", "certificate");
        for n in 0..MAX_SUBSCRIPTIONS {
            assert_eq!(hub.subscribe("a", serial, subscription(&n.to_string())), Some(true));
        }
        assert_eq!(hub.subscribe("a", serial, subscription("0")), Some(false));
        assert_eq!(hub.subscribe("a", serial, subscription("more")), None);
        assert!(hub.unsubscribe("a", serial, "0") && !hub.unsubscribe("a", serial, "0"));
    }
}

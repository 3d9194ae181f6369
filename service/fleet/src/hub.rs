//! Who is connected, and what they want to hear. In memory: sessions end with their connection, and shadows hold what
//! a device must not miss.

use crate::topics::matches;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Messages that wait for one slow connection; more are dropped.
pub const QUEUE: usize = 256;
/// Subscriptions of one connection.
pub const MAX_SUBSCRIPTIONS: usize = 64;

/// A message on its way to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// At most 1.
    pub qos: u8,
}

struct Session {
    serial: u64,
    sender: mpsc::Sender<Outgoing>,
    subscriptions: Vec<(String, u8)>,
}

/// The registry of connections.
#[derive(Default)]
pub struct Hub {
    sessions: Mutex<HashMap<String, Session>>,
    serial: AtomicU64,
    dropped: AtomicU64,
}

impl Hub {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection. An earlier one of the same client is cut: its queue closes.
    pub(crate) fn connect(&self, client: &str) -> (u64, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(client.to_owned(), Session { serial, sender, subscriptions: Vec::new() });
        (serial, receiver)
    }

    /// Forgets a connection; false if a newer one has taken its place.
    pub(crate) fn leave(&self, client: &str, serial: u64) -> bool {
        let mut sessions = self.lock();
        let mine = sessions.get(client).is_some_and(|s| s.serial == serial);
        if mine {
            sessions.remove(client);
        }
        mine
    }

    /// Cuts a client's connection: its queue closes.
    pub fn disconnect(&self, client: &str) {
        self.lock().remove(client);
    }

    /// Whether a client is connected.
    pub fn connected(&self, client: &str) -> bool {
        self.lock().contains_key(client)
    }

    /// How many messages were dropped since the start because a connection was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds or replaces a subscription; false if there are too many, or the connection is not the current one.
    pub(crate) fn subscribe(&self, client: &str, serial: u64, filter: &str, qos: u8) -> bool {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(client).filter(|s| s.serial == serial) else { return false };
        if let Some(known) = session.subscriptions.iter_mut().find(|(f, _)| f == filter) {
            known.1 = qos;
        } else if session.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return false;
        } else {
            session.subscriptions.push((filter.to_owned(), qos));
        }
        true
    }

    /// Removes a subscription.
    pub(crate) fn unsubscribe(&self, client: &str, serial: u64, filter: &str) {
        if let Some(session) = self.lock().get_mut(client).filter(|s| s.serial == serial) {
            session.subscriptions.retain(|(f, _)| f != filter);
        }
    }

    /// To everyone who subscribed. Never waits.
    pub fn publish(&self, topic: &str, payload: &[u8]) {
        for (client, session) in self.lock().iter() {
            self.offer(client, session, topic, payload);
        }
    }

    /// To one client, if it subscribed: answers to claims, whose topics are the same for all.
    pub(crate) fn publish_to(&self, client: &str, topic: &str, payload: &[u8]) {
        if let Some(session) = self.lock().get(client) {
            self.offer(client, session, topic, payload);
        }
    }

    fn offer(&self, client: &str, session: &Session, topic: &str, payload: &[u8]) {
        let granted = session.subscriptions.iter().filter(|(f, _)| matches(f, topic)).map(|(_, q)| *q).max();
        let Some(qos) = granted else { return };
        let message = Outgoing { topic: topic.to_owned(), payload: payload.to_owned(), qos };
        if session.sender.try_send(message).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(client, topic, dropped, "message dropped: the connection is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_subscribers_once_with_their_best_quality() {
        let hub = Hub::default();
        let (serial, mut queue) = hub.connect("a");
        let (_, mut other) = hub.connect("b");
        assert!(hub.subscribe("a", serial, "t/#", 0) && hub.subscribe("a", serial, "t/+", 1));
        hub.publish("t/1", b"x");
        assert_eq!(queue.try_recv().unwrap(), Outgoing { topic: "t/1".into(), payload: b"x".to_vec(), qos: 1 });
        assert!(queue.try_recv().is_err());
        assert!(other.try_recv().is_err());
    }

    #[test]
    fn a_second_connection_takes_the_place_of_the_first() {
        let hub = Hub::default();
        let (first, mut queue) = hub.connect("a");
        let (second, _queue) = hub.connect("a");
        assert!(matches!(queue.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert!(!hub.subscribe("a", first, "t", 0));
        assert!(!hub.leave("a", first));
        assert!(hub.connected("a"));
        assert!(hub.leave("a", second));
    }

    #[test]
    fn a_slow_connection_loses_messages_and_they_are_counted() {
        let hub = Hub::default();
        let (serial, _queue) = hub.connect("a");
        hub.subscribe("a", serial, "t", 0);
        (0..QUEUE + 3).for_each(|_| hub.publish("t", b""));
        assert_eq!(hub.dropped(), 3);
    }
}

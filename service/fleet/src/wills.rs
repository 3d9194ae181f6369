//! Wills that wait for their delay (MQTT 5, 3.1.3.2.2): one of a client at most, and none of a client that was back before
//! its time. They are in memory and are lost when the service stops.
//!
//! A client's will is dropped at its next CONNECT, whatever becomes of that connection: what the new one says about a will
//! is all that counts. One task waits for all of them.

use crate::Fleet;
use crate::message::Message;
use crate::panics::caught;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Bytes of all wills that wait. One that has no place goes out at once: whoever watches learns of the end early, but does
/// learn of it.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A will and when it is sent.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) due: Instant,
    /// The connection whose will it is, as the store knows it.
    pub(crate) connection: String,
    pub(crate) message: Message,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<String, Waiting>,
    bytes: usize,
    /// Whether somebody waits for them.
    attended: bool,
}

/// All wills that wait.
#[derive(Debug, Default)]
pub(crate) struct Wills {
    state: Mutex<State>,
    changed: Notify,
}

impl Wills {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a will in the place of an earlier one, unless its client is back. Gives it back if there is no place for it.
    pub(crate) fn keep(&self, client: &str, new: Waiting, is_back: impl FnOnce() -> bool) -> Result<(), Box<Waiting>> {
        let mut state = self.lock();
        // Asked while nobody can drop it: either this sees the new connection, or the new connection drops this will.
        if is_back() {
            return Ok(());
        }
        let size = new.message.size();
        let earlier = state.waiting.get(client).map_or(0, |will| will.message.size());
        if state.bytes - earlier + size > MAX_BYTES {
            return Err(Box::new(new));
        }
        state.bytes = state.bytes - earlier + size;
        state.waiting.insert(client.to_owned(), new);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The client is back.
    pub(crate) fn drop_of(&self, client: &str) {
        let mut state = self.lock();
        if let Some(will) = state.waiting.remove(client) {
            state.bytes -= will.message.size();
        }
    }

    /// Takes those whose time has come; otherwise says when the next one's comes. `None` at the end: nobody attends to them
    /// from now on.
    fn take(&self, now: Instant) -> Option<Result<Vec<(String, Waiting)>, Instant>> {
        let mut state = self.lock();
        let due: Vec<String> =
            state.waiting.iter().filter(|(_, w)| w.due <= now).map(|(client, _)| client.clone()).collect();
        if due.is_empty() {
            let next = state.waiting.values().map(|w| w.due).min();
            state.attended = next.is_some();
            return next.map(Err);
        }
        let taken: Vec<(String, Waiting)> =
            due.into_iter().filter_map(|client| state.waiting.remove(&client).map(|will| (client, will))).collect();
        state.bytes -= taken.iter().map(|(_, will)| will.message.size()).sum::<usize>();
        Some(Ok(taken))
    }

    /// Whether the caller is to attend to them: nobody does, and there are some.
    fn begin(&self) -> bool {
        let mut state = self.lock();
        let begins = !state.attended && !state.waiting.is_empty();
        state.attended |= begins;
        begins
    }
}

impl Fleet {
    /// Waits for the wills, if nobody does.
    pub(crate) fn attend_to_wills(&self) {
        if !self.wills.begin() {
            return;
        }
        let fleet = self.clone();
        tokio::spawn(async move {
            while let Some(next) = fleet.wills.take(Instant::now()) {
                match next {
                    Ok(due) => {
                        for (client, will) in due {
                            // The others' wills count, whatever becomes of this one.
                            if let Err(e) = caught(fleet.send_will(&client, will)).await {
                                tracing::error!(client, "cannot publish a will: {e}");
                            }
                        }
                    }
                    Err(at) => tokio::select! {
                        () = sleep_until(at) => {}
                        () = fleet.wills.changed.notified() => {}
                    },
                }
            }
        });
    }

    async fn send_will(&self, client: &str, will: Waiting) {
        // The client may have been at another copy of the service meanwhile.
        match self.store.mqtt_session_connection(client).await {
            Ok(Some(connection)) if connection != will.connection => return,
            Ok(_) => {}
            Err(e) => tracing::error!(client, "cannot see whether a client was back: {e}"),
        }
        if let Err(e) = self.publish_now(will.message).await {
            tracing::error!(client, "cannot publish a will: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn will(due: Instant, payload: &[u8]) -> Waiting {
        Waiting { due, connection: "c".into(), message: Message::new("panorama/t/gone", payload) }
    }

    #[tokio::test]
    async fn service_d6_a_client_has_one_will_at_most_and_what_it_holds_is_bounded() {
        let (wills, now) = (Wills::default(), Instant::now());
        let later = now + Duration::from_secs(7 * 24 * 3600);
        for n in 0..1000 {
            wills.keep("a", will(later, format!("{n}").as_bytes()), || false).unwrap();
        }
        assert_eq!(wills.lock().waiting.len(), 1);
        let large = vec![0; 64 * 1024];
        let kept = (0..2000).filter(|n| wills.keep(&format!("client-{n}"), will(later, &large), || false).is_ok()).count();
        assert!((900..=1024).contains(&kept), "{kept}");
        assert!(wills.lock().bytes <= MAX_BYTES);
        (0..2000).for_each(|n| wills.drop_of(&format!("client-{n}")));
        wills.drop_of("a");
        let state = wills.lock();
        assert_eq!((state.bytes, state.waiting.len()), (0, 0));
    }

    #[tokio::test]
    async fn service_d6_a_client_that_is_back_leaves_no_will_behind() {
        let (wills, now) = (Wills::default(), Instant::now());
        wills.keep("a", will(now, b"1"), || true).unwrap();
        assert!(wills.take(now).is_none(), "it was back before the end of its earlier connection was seen");
        wills.keep("a", will(now + Duration::from_secs(5), b"2"), || false).unwrap();
        assert!(wills.begin() && !wills.begin(), "one attends");
        assert!(matches!(wills.take(now), Some(Err(at)) if at == now + Duration::from_secs(5)));
        wills.drop_of("a");
        assert!(wills.take(now + Duration::from_secs(9)).is_none() && !wills.begin());
        wills.keep("a", will(now, b"3"), || false).unwrap();
        let due = wills.take(now).unwrap().unwrap();
        assert_eq!((due[0].0.as_str(), due[0].1.message.payload.as_slice()), ("a", &b"3"[..]));
    }
}

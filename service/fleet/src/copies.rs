//! Other copies of the service on the same database: what this one tells them about clients that are connected there,
//! and what it does with what they tell. A copy that is alone tells nobody.

use crate::accept::stopped;
use crate::message::{Message, decode, encode};
use crate::panics::caught;
use crate::{Fleet, FleetError};
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::connections::Connection;
use belvedere_store::copies::{Identity, SIGN_OF_LIFE};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// After a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);

/// What one copy tells another about a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The store has something new for it.
    More,
    /// A message for a session that ends with its connection.
    Message {
        topic: String,
        /// Base64.
        payload: String,
        /// Of MQTT 5, as on the wire; base64.
        properties: String,
        quality: u8,
        retain: bool,
        expires_ms: Option<i64>,
        publisher: Option<String>,
    },
    /// It has a newer connection than this one.
    TakenOver { connection: String },
}

impl Note {
    pub(crate) fn message(message: &Message) -> Note {
        Note::Message {
            topic: message.topic.clone(),
            payload: BASE64_STANDARD.encode(&message.payload),
            properties: BASE64_STANDARD.encode(encode(&message.properties, message.expires_ms.is_some())),
            quality: message.quality,
            retain: message.retain,
            expires_ms: message.expires_ms,
            publisher: message.publisher.clone(),
        }
    }
}

impl Fleet {
    /// Tells the copy that has a client's connection, if it is not this one.
    pub(crate) async fn tell_other_copy(&self, client: &str, note: &Note) -> Result<(), FleetError> {
        if self.store.is_shared() && !self.hub().connected(client) {
            self.store.tell_copy(client, &serde_json::to_string(note).unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// A client connected here: its connection at another copy ends.
    pub(crate) async fn note_connection(&self, connection: &Connection) -> Result<(), FleetError> {
        if let Some(earlier) = self.store.note_connection(connection).await? {
            let note = Note::TakenOver { connection: earlier };
            self.store.tell_copies(&connection.client, &serde_json::to_string(&note).unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// How many copies of the service there are, as far as this one has heard.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    /// Gives signs of life and hears the other copies until `stop` turns true. `identity`: as it joined them.
    pub async fn keep_in_touch(&self, identity: &Identity, stop: watch::Receiver<bool>) {
        tokio::join!(self.live(identity, stop.clone()), self.hear(stop));
    }

    async fn live(&self, identity: &Identity, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(SIGN_OF_LIFE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => return,
            }
            if let Err(e) = self.sign_of_life(identity).await {
                tracing::error!("cannot give a sign of life to the other copies: {e}");
            }
        }
    }

    async fn sign_of_life(&self, identity: &Identity) -> Result<(), FleetError> {
        let lives = self.store.sign_of_life().await?;
        self.copies.store(self.store.count_copies().await?, Ordering::Relaxed);
        if lives {
            return Ok(());
        }
        tracing::warn!("the other copies took this one for dead: it joins again");
        self.store.join_copies(identity).await?;
        for connection in self.hub().noted() {
            match self.store.note_connection_again(&connection).await? {
                // Notes that came meanwhile are lost.
                true => self.hub().more(&connection.client),
                // Its client went to another copy.
                false => drop(self.hub().taken_over(&connection.client, &connection.connection)),
            }
        }
        Ok(())
    }

    async fn hear(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let listening = async {
                let Some(mut notes) = self.store.notes().await? else {
                    return std::future::pending().await;
                };
                loop {
                    for note in notes.next().await? {
                        // The notes behind it count, whatever becomes of this one.
                        let heard = caught(self.heard(&note.client, &note.note)).await;
                        if let Err(e) = heard.unwrap_or_else(|panicked| Err(panicked.into())) {
                            tracing::error!("cannot answer another copy: {e}");
                        }
                    }
                }
            };
            let outcome: Result<(), FleetError> = tokio::select! {
                outcome = listening => outcome,
                () = stopped(&mut stop) => return,
            };
            if let Err(e) = outcome {
                tracing::error!("cannot hear the other copies: {e}");
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    async fn heard(&self, client: &str, text: &str) -> Result<(), FleetError> {
        let note: Note = match serde_json::from_str(text) {
            Ok(note) => note,
            // From a copy of another version.
            Err(e) => {
                tracing::warn!("another copy said something unknown: {e}");
                return Ok(());
            }
        };
        match note {
            Note::More => self.hub().more(client),
            Note::TakenOver { connection } => {
                if self.hub().taken_over(client, &connection) {
                    // What this copy queued until now it thought to be for its own connection: nobody told the newer one.
                    self.store.tell_copy(client, &serde_json::to_string(&Note::More).unwrap_or_default()).await?;
                }
            }
            Note::Message { topic, payload, properties, quality, retain, expires_ms, publisher } => {
                let (Ok(payload), Ok(properties)) = (BASE64_STANDARD.decode(payload), BASE64_STANDARD.decode(properties))
                else {
                    tracing::warn!("another copy's message is not base64");
                    return Ok(());
                };
                let (properties, _) = decode(&properties);
                self.publish_to(client, Message { topic, payload, quality, retain, properties, expires_ms, publisher });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_to_another_copy_whole() {
        let message = Message { retain: true, expires_ms: Some(7), ..Message::new("panorama/a/1", vec![0, 255]) };
        let text = serde_json::to_string(&Note::message(&message)).unwrap();
        let Note::Message { topic, payload, quality, retain, expires_ms, .. } = serde_json::from_str(&text).unwrap() else {
            panic!()
        };
        assert_eq!((topic.as_str(), quality, retain, expires_ms), ("panorama/a/1", 1, true, Some(7)));
        assert_eq!(BASE64_STANDARD.decode(payload).unwrap(), [0, 255]);
    }
}

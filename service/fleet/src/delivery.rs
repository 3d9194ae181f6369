//! Who hears a message, and where it waits until then.
//!
//! Every topic lies in the space of one client (see [`crate::topics`]): that client alone can have subscribed to it, so
//! a publication looks at one client and not at all. If that client's session outlives its connection and it asked for
//! quality 1, the message is in the store before the publisher is told that it was received, whether the client is
//! connected or not; the connection takes it from there. Everything else waits in memory and ends with the connection.
//!
//! Messages of many publishers go to the disk in one transaction: whoever gets the turn writes for all who wait.

use crate::copies::Note;
use crate::hub::{Drop, Outgoing};
use crate::message::{Message, decode, encode};
use crate::topics::{matches, owner};
use crate::{Fleet, FleetError};
use belvedere_store::mqtt_retained::Retained;
use belvedere_store::mqtt_sessions::{NewMessage, Queued, Subscription};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Messages of one transaction.
const BATCH: usize = 256;

/// How a message reaches a client: its quality and its retain mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grant {
    quality: u8,
    retain: bool,
}

/// What subscriptions of `client` grant a message; `None` if none matches.
fn granted(client: &str, subscriptions: &[Subscription], message: &Message) -> Option<Grant> {
    let own = message.publisher.as_deref() == Some(client);
    let heard = subscriptions.iter().filter(|s| !(s.no_local && own) && matches(&s.filter, &message.topic));
    heard.fold(None, |grant: Option<Grant>, s| {
        let earlier = grant.unwrap_or(Grant { quality: 0, retain: false });
        Some(Grant {
            quality: earlier.quality.max(s.quality.min(message.quality)),
            retain: earlier.retain || (s.keep_retain && message.retain),
        })
    })
}

type Answer = Result<Queued, Arc<belvedere_store::StoreError>>;

/// Those who wait for the turn to write.
#[derive(Default)]
pub(crate) struct Writers {
    waiting: Mutex<Vec<(NewMessage, oneshot::Sender<Answer>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Writers {
    fn take(&self) -> Vec<(NewMessage, oneshot::Sender<Answer>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }
}

impl Fleet {
    /// To whoever subscribed. When this returns, the message is where it must be: in the store for a session that
    /// outlives its connection.
    pub async fn publish(&self, message: Message) -> Result<(), FleetError> {
        let Some(client) = owner(&message.topic).map(str::to_owned) else { return Ok(()) };
        if let Some(external) = &self.external {
            return self.publish_to_broker(external, message).await;
        }
        let Some(listening) = self.hub().listening(&client) else {
            // Perhaps it is connected to another copy of the service.
            let subscriptions = self.store.mqtt_subscriptions(&client).await?;
            return match granted(&client, &subscriptions, &message) {
                Some(grant) if grant.quality > 0 => self.queue(&client, &message, grant.retain).await,
                _ => self.tell_other_copy(&client, &Note::message(&message)).await,
            };
        };
        let Some(grant) = granted(&client, &listening.subscriptions, &message) else {
            return Ok(());
        };
        if listening.durable && grant.quality > 0 {
            return self.queue(&client, &message, grant.retain).await;
        }
        let outgoing = Outgoing { message: Arc::new(message), quality: grant.quality, retain: grant.retain };
        self.hub().offer(&client, outgoing);
        Ok(())
    }

    /// To one client, if it subscribed: answers to claims, whose topics are the same for all.
    pub(crate) fn publish_to(&self, client: &str, message: Message) {
        let Some(listening) = self.hub().listening(client) else { return };
        if let Some(grant) = granted(client, &listening.subscriptions, &message) {
            let outgoing = Outgoing { message: Arc::new(message), quality: grant.quality, retain: grant.retain };
            self.hub().offer(client, outgoing);
        }
    }

    /// Queues a message in a client's session, durably.
    async fn queue(&self, client: &str, message: &Message, retain: bool) -> Result<(), FleetError> {
        let new = NewMessage {
            client: client.to_owned(),
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            properties: encode(&message.properties, message.expires_ms.is_some()),
            retain,
            expires_ms: message.expires_ms,
        };
        match self.write(new).await? {
            // The client may have connected while this was written: it is told in any case.
            Queued::Waits => {
                self.hub().more(client);
                self.tell_other_copy(client, &Note::More).await?;
            }
            Queued::Full => self.hub().dropped(client, &message.topic, Drop::QueueFull),
            Queued::NoSession => {}
        }
        Ok(())
    }

    async fn write(&self, new: NewMessage) -> Result<Queued, FleetError> {
        loop {
            let (sender, mut receiver) = oneshot::channel();
            self.writers.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((new.clone(), sender));
            loop {
                let turn = self.writers.turn.lock().await;
                let mut answer = receiver.try_recv();
                if matches!(answer, Err(oneshot::error::TryRecvError::Empty)) {
                    self.write_waiting().await;
                    answer = receiver.try_recv();
                }
                drop(turn);
                match answer {
                    Ok(answer) => return answer.map_err(FleetError::Queue),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                    // The one that wrote for this was cancelled in the middle: once more.
                    Err(oneshot::error::TryRecvError::Closed) => break,
                }
            }
        }
    }

    async fn write_waiting(&self) {
        let (messages, senders): (Vec<_>, Vec<_>) = self.writers.take().into_iter().unzip();
        let outcome = self.store.queue_mqtt_messages(&messages).await.map_err(Arc::new);
        for (index, sender) in senders.into_iter().enumerate() {
            let answer = outcome.as_ref().map(|o| o[index]).map_err(Arc::clone);
            let _ = sender.send(answer);
        }
    }

    /// Keeps a client's message for later subscribers; an empty one forgets what was kept.
    pub async fn retain(&self, message: &Message) -> Result<bool, FleetError> {
        let Some(client) = owner(&message.topic) else { return Ok(true) };
        if self.external.is_some() {
            // It keeps what is published to be kept.
            return Ok(true);
        }
        if message.payload.is_empty() {
            self.store.forget_retained_mqtt_message(&message.topic).await?;
            return Ok(true);
        }
        let retained = Retained {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            properties: encode(&message.properties, message.expires_ms.is_some()),
            quality: message.quality,
            expires_ms: message.expires_ms,
        };
        Ok(self.store.retain_mqtt_message(client, &retained).await?)
    }

    /// Sends a client what was retained for filters that it has just subscribed to.
    pub(crate) async fn send_retained(&self, client: &str, subscriptions: &[Subscription]) -> Result<(), FleetError> {
        if subscriptions.is_empty() {
            return Ok(());
        }
        let durable = self.hub().listening(client).is_some_and(|l| l.durable);
        for kept in self.store.retained_mqtt_messages(client).await? {
            let (properties, _) = decode(&kept.properties);
            let Retained { topic, payload, quality, expires_ms, .. } = kept;
            let message = Message { topic, payload, quality, retain: true, properties, expires_ms, publisher: None };
            let Some(grant) = granted(client, subscriptions, &message) else { continue };
            if durable && grant.quality > 0 {
                self.queue(client, &message, true).await?;
            } else {
                let outgoing = Outgoing { message: Arc::new(message), quality: grant.quality, retain: true };
                self.hub().offer(client, outgoing);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(filter: &str, quality: u8) -> Subscription {
        Subscription { filter: filter.into(), quality, no_local: false, keep_retain: false }
    }

    #[test]
    fn the_best_subscription_decides_but_no_better_than_published() {
        let subscriptions = [subscription("panorama/a/#", 0), subscription("panorama/a/+", 1)];
        let message = Message { retain: true, ..Message::new("panorama/a/1", "x") };
        assert_eq!(granted("a", &subscriptions, &message), Some(Grant { quality: 1, retain: false }));
        let once = Message { quality: 0, ..message.clone() };
        assert_eq!(granted("a", &subscriptions, &once), Some(Grant { quality: 0, retain: false }));
        assert_eq!(granted("a", &subscriptions, &Message::new("panorama/b/1", "x")), None);
        let keeping = [Subscription { keep_retain: true, ..subscription("panorama/a/#", 0) }];
        assert_eq!(granted("a", &keeping, &message), Some(Grant { quality: 0, retain: true }));
    }

    #[test]
    fn own_publications_are_heard_unless_the_client_says_otherwise() {
        let message = Message { publisher: Some("a".into()), ..Message::new("panorama/a", "x") };
        assert!(granted("a", &[subscription("panorama/a", 1)], &message).is_some());
        let deaf = Subscription { no_local: true, ..subscription("panorama/a", 1) };
        assert!(granted("a", std::slice::from_ref(&deaf), &message).is_none());
        assert!(granted("a", &[deaf], &Message::new("panorama/a", "x")).is_some());
    }
}

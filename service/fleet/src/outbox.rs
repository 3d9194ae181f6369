//! What one connection sends: messages from its mailbox and, when its session outlives it, from the store; and what it
//! waits to have acknowledged.
//!
//! A message of the store has a number, which gives it its packet identifier: so it has the same one on every
//! connection, as the standard wants, and no identifier needs to be stored. What was not acknowledged is sent again, in
//! order, when the client comes back.

use crate::hub::{Drop, Mailbox};
use crate::link::{End, Hello, Link};
use crate::message::{Form, Message, decode};
use crate::{Fleet, FleetError};
use belvedere_store::mqtt_sessions::{QueuedMessage, Session};
use belvedere_store::now_ms;
use mqtt_protocol_core::mqtt::packet::GenericPacketTrait;
use mqtt_protocol_core::mqtt::result_code::DisconnectReasonCode;
use std::collections::HashMap;
use tokio::io::{AsyncRead, AsyncWrite};

/// Messages of one read from the store.
const BATCH: usize = 16;

/// The packet identifier of a message of the store (numbers begin with 1, identifiers are 1 to 65,535).
fn identifier(number: i64) -> u16 {
    u16::try_from((number - 1).rem_euclid(65_535) + 1).unwrap_or(1)
}

/// What a connection sends.
pub(crate) struct Outbox {
    client: String,
    durable: bool,
    /// Of the last message of the store that was sent here.
    last: i64,
    /// Messages below this were sent on an earlier connection.
    sent_before: i64,
    window: usize,
    largest: u32,
    more: bool,
    /// By packet identifier: the number in the store, if it is there.
    unacknowledged: HashMap<u16, Option<i64>>,
    /// To be removed from the store.
    done: Vec<i64>,
}

impl Outbox {
    pub(crate) fn new(client: &str, durable: bool, session: &Session, hello: &Hello) -> Outbox {
        Outbox {
            client: client.to_owned(),
            durable,
            last: 0,
            sent_before: session.sent_number,
            window: hello.window.into(),
            largest: hello.largest,
            more: durable,
            unacknowledged: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// Below which number everything has been sent, here or before.
    pub(crate) fn sent_number(&self) -> i64 {
        self.sent_before.max(self.last + 1)
    }

    /// The client acknowledged.
    pub(crate) fn acknowledged(&mut self, id: u16) {
        if let Some(Some(number)) = self.unacknowledged.remove(&id) {
            self.done.push(number);
        }
    }

    fn room(&self) -> usize {
        self.window.saturating_sub(self.unacknowledged.len())
    }

    /// Sends what can be sent, and removes what is done with. Not to be cancelled.
    pub(crate) async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        link: &mut Link<S>,
        fleet: &Fleet,
        mailbox: &Mailbox,
    ) -> Result<(), End> {
        self.remove(fleet).await?;
        while let Some(outgoing) = mailbox.take(self.room() > 0) {
            let id = match outgoing.quality {
                0 => None,
                _ => Some(link.protocol.acquire_packet_id()?),
            };
            let form = Form { id, again: false, retain: outgoing.retain };
            self.send(link, fleet, &outgoing.message, form, None).await?;
        }
        while self.durable && self.room() > 0 && (mailbox.take_more() || self.more) {
            let limit = self.room().min(BATCH);
            let batch = fleet.store.queued_mqtt_messages(&self.client, self.last, limit).await.map_err(FleetError::from)?;
            self.more = batch.len() == limit;
            for queued in batch {
                self.send_queued(link, fleet, queued).await?;
            }
        }
        Ok(self.remove(fleet).await?)
    }

    async fn send_queued<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        link: &mut Link<S>,
        fleet: &Fleet,
        queued: QueuedMessage,
    ) -> Result<(), End> {
        let QueuedMessage { number, topic, payload, properties, retain, expires_ms } = queued;
        self.last = number;
        if expires_ms <= now_ms() {
            fleet.hub().dropped(&self.client, &topic, Drop::TooOld);
            self.done.push(number);
            return Ok(());
        }
        let id = identifier(number);
        link.protocol
            .register_packet_id(id)
            .map_err(|_| End::new(DisconnectReasonCode::ReceiveMaximumExceeded, "an old message was never acknowledged"))?;
        let (properties, expires) = decode(&properties);
        let expires_ms = expires.then_some(expires_ms);
        let message = Message { topic, payload, quality: 1, retain, properties, expires_ms, publisher: None };
        let form = Form { id: Some(id), again: number < self.sent_before, retain };
        self.send(link, fleet, &message, form, Some(number)).await
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        link: &mut Link<S>,
        fleet: &Fleet,
        message: &Message,
        form: Form,
        number: Option<i64>,
    ) -> Result<(), End> {
        let packet = message.packet(link.version(), form, now_ms())?;
        if packet.size() > self.largest as usize {
            fleet.hub().dropped(&self.client, &message.topic, Drop::TooLarge);
            form.id.map(|id| link.protocol.release_packet_id(id));
            self.done.extend(number);
            return Ok(());
        }
        if let Some(id) = form.id {
            self.unacknowledged.insert(id, number);
        }
        link.send(packet).await
    }

    /// Removes from the store what is done with.
    pub(crate) async fn remove(&mut self, fleet: &Fleet) -> Result<(), FleetError> {
        if !self.done.is_empty() {
            let done = std::mem::take(&mut self.done);
            fleet.store.remove_mqtt_messages(&self.client, &done).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_from_numbers_and_go_round() {
        assert_eq!([1, 2, 65_535, 65_536, 131_070, 131_071].map(identifier), [1, 2, 65_535, 1, 65_535, 1]);
    }
}

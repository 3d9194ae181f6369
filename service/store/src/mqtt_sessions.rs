//! MQTT sessions that outlive their connection. What is queued here is on the disk when the call returns; numbers of
//! a client's messages grow in the order in which they are committed, whoever commits them, because the session's row
//! gives them and is locked meanwhile.

use crate::{Store, StoreError, now_ms};
use sqlx::{AnyConnection, Row};
use std::sync::LazyLock;

/// Messages that wait for one client.
pub const MAX_QUEUED: i64 = 1000;
/// Their topics and payloads, bytes.
pub const MAX_QUEUED_BYTES: i64 = 8 * 1024 * 1024;
/// The oldest that a waiting message gets.
pub const MAX_AGE_MS: i64 = 7 * 24 * 3600 * 1000;
/// A connected client's session is not ended before this, whatever its own time.
const CONNECTED_MS: i64 = 3 * 60 * 1000;

/// Sessions that one statement keeps.
const KEPT_TOGETHER: usize = 64;
/// Keeps them. PostgreSQL locks their rows one by one: in the order in which others queue messages for them.
static KEEP: LazyLock<[String; 2]> = LazyLock::new(|| {
    let clients: Vec<String> = (0..KEPT_TOGETHER).map(|n| format!("${}", n + 3)).collect();
    let clients = clients.join(", ");
    let expires = "$1 + CASE WHEN expiry_ms > $2 THEN expiry_ms ELSE $2 END";
    let in_order = format!("SELECT client FROM mqtt_session WHERE client IN ({clients}) ORDER BY client FOR UPDATE");
    [clients, in_order].map(|clients| format!("UPDATE mqtt_session SET expires_ms = {expires} WHERE client IN ({clients})"))
});

/// `sent_number` of a session whose connection has not ended in order: whatever waits may have been sent on it.
const NOT_KNOWN: i64 = i64::MAX;

/// What a client asked to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topic filter.
    pub filter: String,
    /// Granted: 0 or 1.
    pub quality: u8,
    /// Not the client's own publications (MQTT 5).
    pub no_local: bool,
    /// The retain mark stays as it was published (MQTT 5).
    pub keep_retain: bool,
}

/// A session as found when its client connects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// Whether there was one.
    pub present: bool,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Messages below this number were sent before.
    pub sent_number: i64,
}

/// A message for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// For whom.
    pub client: String,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Of MQTT 5, as on the wire.
    pub properties: Vec<u8>,
    /// The retain mark.
    pub retain: bool,
    /// When it is of no use any more, if the publisher said so.
    pub expires_ms: Option<i64>,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessage {
    /// The order of delivery.
    pub number: i64,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Of MQTT 5, as on the wire.
    pub properties: Vec<u8>,
    /// The retain mark.
    pub retain: bool,
    /// When it is of no use any more.
    pub expires_ms: i64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits, durably.
    Waits,
    /// The client has no session (any more).
    NoSession,
    /// Too many wait already, or too large ones.
    Full,
}

fn subscription((filter, quality, no_local, keep_retain): (String, i64, i64, i64)) -> Subscription {
    Subscription { filter, quality: u8::from(quality > 0), no_local: no_local != 0, keep_retain: keep_retain != 0 }
}

impl Store {
    /// A client connects. `clean`: what there was is forgotten. With `expiry_ms` 0 no session is kept from now on.
    /// `connection` is any name that no other connection has.
    pub async fn open_mqtt_session(
        &self,
        client: &str,
        connection: &str,
        expiry_ms: i64,
        clean: bool,
    ) -> Result<Session, StoreError> {
        let (lock, client, name, now) =
            (format!("mqtt_session {client}"), client.to_owned(), connection.to_owned(), now_ms());
        let opened = self.change(Some(&lock), move |connection| {
            Box::pin(async move { open(connection, &client, &name, expiry_ms, clean, now).await })
        });
        opened.await.map_err(|e| StoreError::database("open an MQTT session", e))
    }

    /// The connection of a session ended in order: messages below `sent_number` were sent on it. Nothing happens when
    /// another connection has the session by now.
    pub async fn leave_mqtt_session(
        &self,
        client: &str,
        connection: &str,
        expiry_ms: i64,
        sent_number: i64,
    ) -> Result<(), StoreError> {
        let query = match expiry_ms {
            0 => sqlx::query("DELETE FROM mqtt_session WHERE client = $1 AND connection = $2").bind(client).bind(connection),
            _ => sqlx::query(
                "UPDATE mqtt_session SET expiry_ms = $3, expires_ms = $4, sent_number = $5 WHERE client = $1 AND connection = $2",
            )
            .bind(client)
            .bind(connection)
            .bind(expiry_ms)
            .bind(now_ms() + expiry_ms)
            .bind(sent_number),
        };
        query.execute(&self.pool).await.map(drop).map_err(|e| StoreError::database("leave an MQTT session", e))
    }

    /// The connection that had a client's session last; `None` if there is no session.
    pub async fn mqtt_session_connection(&self, client: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT connection FROM mqtt_session WHERE client = $1")
            .bind(client)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up an MQTT session", e))
    }

    /// Sessions of connected clients go on; all others end at their time.
    pub async fn keep_mqtt_sessions(&self, connected: &[String]) -> Result<u64, StoreError> {
        let error = |e| StoreError::database("keep MQTT sessions", e);
        let now = now_ms();
        let mut transaction = self.writer.begin().await.map_err(error)?;
        let keep = &KEEP[usize::from(self.is_shared())];
        let mut connected = connected.to_vec();
        connected.sort();
        for clients in connected.chunks(KEPT_TOGETHER) {
            // A short list names its last one again, so that there is one statement.
            let mut query = sqlx::query(keep.as_str()).bind(now).bind(CONNECTED_MS);
            for client in clients.iter().chain(std::iter::repeat(&clients[clients.len() - 1])).take(KEPT_TOGETHER) {
                query = query.bind(client);
            }
            query.execute(&mut *transaction).await.map_err(error)?;
        }
        let ended =
            sqlx::query("DELETE FROM mqtt_session WHERE expires_ms <= $1").bind(now).execute(&mut *transaction).await;
        let ended = ended.map_err(error)?.rows_affected();
        sqlx::query("DELETE FROM mqtt_retained WHERE expires_ms <= $1")
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(ended)
    }

    /// What the session of a client asks to hear; empty if it has none.
    pub async fn mqtt_subscriptions(&self, client: &str) -> Result<Vec<Subscription>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT filter, quality, no_local, keep_retain FROM mqtt_subscription JOIN mqtt_session USING (client) \
             WHERE client = $1 AND expires_ms > $2",
        )
        .bind(client)
        .bind(now_ms())
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("read MQTT subscriptions", e))?;
        Ok(rows.into_iter().map(subscription).collect())
    }

    /// Adds or replaces subscriptions of a session.
    pub async fn add_mqtt_subscriptions(&self, client: &str, new: &[Subscription]) -> Result<(), StoreError> {
        let error = |e| StoreError::database("store MQTT subscriptions", e);
        let mut transaction = self.writer.begin().await.map_err(error)?;
        for subscription in new {
            // A session that another connection has ended meanwhile takes none.
            sqlx::query(
                "INSERT INTO mqtt_subscription (client, filter, quality, no_local, keep_retain) \
                 SELECT client, $2, $3, $4, $5 FROM mqtt_session WHERE client = $1 \
                 ON CONFLICT (client, filter) DO UPDATE SET quality = $3, no_local = $4, keep_retain = $5",
            )
            .bind(client)
            .bind(&subscription.filter)
            .bind(i64::from(subscription.quality))
            .bind(i64::from(subscription.no_local))
            .bind(i64::from(subscription.keep_retain))
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// Removes subscriptions of a session.
    pub async fn remove_mqtt_subscriptions(&self, client: &str, filters: &[String]) -> Result<(), StoreError> {
        let error = |e| StoreError::database("remove MQTT subscriptions", e);
        let mut transaction = self.writer.begin().await.map_err(error)?;
        for filter in filters {
            sqlx::query("DELETE FROM mqtt_subscription WHERE client = $1 AND filter = $2")
                .bind(client)
                .bind(filter)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// Queues messages in one transaction, those of each client in their order.
    pub async fn queue_mqtt_messages(&self, messages: &[NewMessage]) -> Result<Vec<Queued>, StoreError> {
        let error = |e| StoreError::database("queue MQTT messages", e);
        let now = now_ms();
        let mut transaction = self.writer.begin().await.map_err(error)?;
        let mut outcomes = vec![Queued::NoSession; messages.len()];
        // Two copies of the service that queue for the same clients lock them in the same order.
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|index| &messages[*index].client);
        for index in order {
            let message = &messages[index];
            let bytes = (message.topic.len() + message.payload.len() + message.properties.len()) as i64;
            let mut number = None;
            for attempt in 0..2 {
                number = sqlx::query_scalar::<_, i64>(
                    "UPDATE mqtt_session SET next_number = next_number + 1, queued = queued + 1, queued_bytes = queued_bytes + $2 \
                     WHERE client = $1 AND expires_ms > $3 AND queued < $4 AND queued_bytes + $2 <= $5 RETURNING next_number - 1",
                )
                .bind(&message.client)
                .bind(bytes)
                .bind(now)
                .bind(MAX_QUEUED)
                .bind(MAX_QUEUED_BYTES)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(error)?;
                if number.is_some() || attempt == 1 {
                    break;
                }
                // What is too old makes room.
                let numbers: Vec<i64> =
                    sqlx::query_scalar("SELECT number FROM mqtt_message WHERE client = $1 AND expires_ms <= $2")
                        .bind(&message.client)
                        .bind(now)
                        .fetch_all(&mut *transaction)
                        .await
                        .map_err(error)?;
                if numbers.is_empty() {
                    break;
                }
                remove(&mut transaction, &message.client, &numbers).await.map_err(error)?;
            }
            let Some(number) = number else {
                let known: Option<String> =
                    sqlx::query_scalar("SELECT client FROM mqtt_session WHERE client = $1 AND expires_ms > $2")
                        .bind(&message.client)
                        .bind(now)
                        .fetch_optional(&mut *transaction)
                        .await
                        .map_err(error)?;
                outcomes[index] = if known.is_some() { Queued::Full } else { Queued::NoSession };
                continue;
            };
            sqlx::query(
                "INSERT INTO mqtt_message (client, number, topic, payload, properties, retain, expires_ms, bytes) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&message.client)
            .bind(number)
            .bind(&message.topic)
            .bind(&message.payload)
            .bind(&message.properties)
            .bind(i64::from(message.retain))
            .bind(message.expires_ms.unwrap_or(i64::MAX).min(now + MAX_AGE_MS))
            .bind(bytes)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
            outcomes[index] = Queued::Waits;
        }
        transaction.commit().await.map_err(error)?;
        Ok(outcomes)
    }

    /// The next messages of a client after a number, in their order. What is too old is among them.
    pub async fn queued_mqtt_messages(
        &self,
        client: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<QueuedMessage>, StoreError> {
        let error = |e| StoreError::database("read queued MQTT messages", e);
        let rows = sqlx::query(
            "SELECT number, topic, payload, properties, retain, expires_ms FROM mqtt_message \
             WHERE client = $1 AND number > $2 ORDER BY number LIMIT $3",
        )
        .bind(client)
        .bind(after)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(QueuedMessage {
                    number: row.try_get("number").map_err(error)?,
                    topic: row.try_get("topic").map_err(error)?,
                    payload: row.try_get("payload").map_err(error)?,
                    properties: row.try_get("properties").map_err(error)?,
                    retain: row.try_get::<i64, _>("retain").map_err(error)? != 0,
                    expires_ms: row.try_get("expires_ms").map_err(error)?,
                })
            })
            .collect()
    }

    /// Messages of a client are delivered, or too old.
    pub async fn remove_mqtt_messages(&self, client: &str, numbers: &[i64]) -> Result<(), StoreError> {
        let error = |e| StoreError::database("remove MQTT messages", e);
        let mut transaction = self.writer.begin().await.map_err(error)?;
        remove(&mut transaction, client, numbers).await.map_err(error)?;
        transaction.commit().await.map_err(error)
    }
}

/// See [`Store::open_mqtt_session`].
async fn open(
    connection: &mut AnyConnection,
    client: &str,
    name: &str,
    expiry_ms: i64,
    clean: bool,
    now: i64,
) -> sqlx::Result<Session> {
    sqlx::query("DELETE FROM mqtt_session WHERE client = $1 AND ($2 = 1 OR expires_ms <= $3)")
        .bind(client)
        .bind(i64::from(clean))
        .bind(now)
        .execute(&mut *connection)
        .await?;
    let numbers: Option<(i64, i64)> = match clean {
        true => None,
        false => {
            sqlx::query_as("SELECT sent_number, next_number FROM mqtt_session WHERE client = $1")
                .bind(client)
                .fetch_optional(&mut *connection)
                .await?
        }
    };
    let sent = numbers.map(|(sent, next)| sent.min(next));
    let subscriptions: Vec<(String, i64, i64, i64)> = match sent {
        None => Vec::new(),
        Some(_) => {
            sqlx::query_as(
                "SELECT filter, quality, no_local, keep_retain FROM mqtt_subscription WHERE client = $1 ORDER BY filter",
            )
            .bind(client)
            .fetch_all(&mut *connection)
            .await?
        }
    };
    let query = match (sent, expiry_ms) {
        (None, 0) => None,
        (Some(_), 0) => Some(sqlx::query("DELETE FROM mqtt_session WHERE client = $1").bind(client)),
        (None, _) => Some(
            sqlx::query(
                "INSERT INTO mqtt_session (client, connection, expiry_ms, expires_ms, next_number, sent_number, queued, queued_bytes) \
                 VALUES ($1, $2, $3, $4, 1, $5, 0, 0)",
            )
            .bind(client)
            .bind(name)
            .bind(expiry_ms)
            .bind(now + expiry_ms.max(CONNECTED_MS))
            .bind(NOT_KNOWN),
        ),
        (Some(_), _) => Some(
            sqlx::query(
                "UPDATE mqtt_session SET connection = $2, expiry_ms = $3, expires_ms = $4, sent_number = $5 WHERE client = $1",
            )
            .bind(client)
            .bind(name)
            .bind(expiry_ms)
            .bind(now + expiry_ms.max(CONNECTED_MS))
            .bind(NOT_KNOWN),
        ),
    };
    if let Some(query) = query {
        query.execute(&mut *connection).await?;
    }
    Ok(Session {
        present: sent.is_some(),
        subscriptions: subscriptions.into_iter().map(subscription).collect(),
        sent_number: sent.unwrap_or(1),
    })
}

async fn remove(transaction: &mut sqlx::Transaction<'_, sqlx::Any>, client: &str, numbers: &[i64]) -> sqlx::Result<()> {
    // The session's row comes first, as where it is deleted with its messages: PostgreSQL ends one of two that meet
    // each other in the other order.
    let held = sqlx::query("UPDATE mqtt_session SET queued = queued WHERE client = $1")
        .bind(client)
        .execute(&mut **transaction)
        .await?;
    if held.rows_affected() == 0 {
        return Ok(());
    }
    let (mut count, mut bytes) = (0, 0);
    for number in numbers {
        let gone: Option<i64> =
            sqlx::query_scalar("DELETE FROM mqtt_message WHERE client = $1 AND number = $2 RETURNING bytes")
                .bind(client)
                .bind(*number)
                .fetch_optional(&mut **transaction)
                .await?;
        count += i64::from(gone.is_some());
        bytes += gone.unwrap_or(0);
    }
    sqlx::query("UPDATE mqtt_session SET queued = queued - $2, queued_bytes = queued_bytes - $3 WHERE client = $1")
        .bind(client)
        .bind(count)
        .bind(bytes)
        .execute(&mut **transaction)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{NewDevice, Tags};
    use crate::testing::{Place, places};

    const HOUR: i64 = 3_600_000;

    async fn store_with_a_device(place: &Place) -> Store {
        let store = place.create().await;
        let tags = Tags::new();
        let new = NewDevice { device_id: "a", name: "a", thing_name: "a", description: None, tags: &tags, networking: None };
        store.create_device(new).await.unwrap();
        store
    }
    fn message(payload: &[u8], expires_ms: Option<i64>) -> NewMessage {
        let (client, topic, properties) = ("a".into(), "t".into(), Vec::new());
        NewMessage { client, topic, payload: payload.to_vec(), properties, retain: false, expires_ms }
    }
    async fn waiting(store: &Store) -> Vec<i64> {
        store.queued_mqtt_messages("a", 0, 2000).await.unwrap().iter().map(|m| m.number).collect()
    }

    /// A client that comes back while what it acknowledged is removed: neither waits for the other.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_session_is_ended_while_its_messages_are_removed() {
        for place in places().await {
            let store = store_with_a_device(&place).await;
            for round in 0..30 {
                store.open_mqtt_session("a", "c", HOUR, false).await.unwrap();
                store.queue_mqtt_messages(&vec![message(b"x", None); 20]).await.unwrap();
                let numbers: Vec<i64> = (1..=20).collect();
                let (removed, ended) =
                    tokio::join!(store.remove_mqtt_messages("a", &numbers), store.open_mqtt_session("a", "d", 0, true));
                assert!(removed.is_ok() && ended.is_ok(), "{round}: {removed:?} {ended:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_session_keeps_subscriptions_and_messages_in_order_and_knows_which_were_sent() {
        for place in places().await {
            let store = store_with_a_device(&place).await;
            assert_eq!(store.queue_mqtt_messages(&[message(b"early", None)]).await.unwrap(), [Queued::NoSession]);
            assert!(!store.open_mqtt_session("a", "c", HOUR, false).await.unwrap().present);
            let subscription = Subscription { filter: "t/#".into(), quality: 1, no_local: true, keep_retain: false };
            store.add_mqtt_subscriptions("a", std::slice::from_ref(&subscription)).await.unwrap();
            store.queue_mqtt_messages(&[message(b"1", None), message(b"2", None)]).await.unwrap();
            store.leave_mqtt_session("a", "c", HOUR, 2).await.unwrap();
            store.leave_mqtt_session("a", "an earlier one", 0, 1).await.unwrap();
            store.queue_mqtt_messages(&[message(b"3", None)]).await.unwrap();
            let session = store.open_mqtt_session("a", "c", HOUR, false).await.unwrap();
            assert_eq!(session, Session { present: true, subscriptions: vec![subscription], sent_number: 2 });
            assert_eq!(waiting(&store).await, [1, 2, 3]);
            store.remove_mqtt_messages("a", &[1, 3, 1]).await.unwrap();
            assert_eq!(waiting(&store).await, [2]);
            // No orderly end: all that waits may have been sent.
            assert_eq!(store.open_mqtt_session("a", "c", HOUR, false).await.unwrap().sent_number, 4);
            assert!(store.open_mqtt_session("a", "c", HOUR, true).await.unwrap().subscriptions.is_empty());
            assert_eq!(waiting(&store).await, Vec::<i64>::new());
        }
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_count_and_bytes_and_what_is_too_old_makes_room() {
        for place in places().await {
            let store = store_with_a_device(&place).await;
            store.open_mqtt_session("a", "c", HOUR, false).await.unwrap();
            let mut full = vec![message(b"old", Some(now_ms() - 1))];
            full.resize(MAX_QUEUED as usize, message(b"x", None));
            assert!(store.queue_mqtt_messages(&full).await.unwrap().iter().all(|o| *o == Queued::Waits));
            let more = [message(b"x", None), message(b"x", None)];
            assert_eq!(store.queue_mqtt_messages(&more).await.unwrap(), [Queued::Waits, Queued::Full]);
            assert_eq!(waiting(&store).await.first(), Some(&2));
            store.open_mqtt_session("a", "c", HOUR, true).await.unwrap();
            let large = message(&vec![0; MAX_QUEUED_BYTES as usize / 2], None);
            let outcomes = store.queue_mqtt_messages(&[large.clone(), large, message(b"x", None)]).await.unwrap();
            assert_eq!(outcomes, [Queued::Waits, Queued::Full, Queued::Waits]);
        }
    }

    #[tokio::test]
    async fn sessions_end_at_their_time_unless_their_client_is_connected() {
        for place in places().await {
            let store = store_with_a_device(&place).await;
            store.open_mqtt_session("a", "c", 1, false).await.unwrap();
            assert_eq!(store.keep_mqtt_sessions(&["a".into()]).await.unwrap(), 0);
            let mut many: Vec<String> = (0..KEPT_TOGETHER + 5).map(|n| format!("other {n}")).collect();
            many.push("a".into());
            assert_eq!(store.keep_mqtt_sessions(&many).await.unwrap(), 0);
            assert!(store.open_mqtt_session("a", "c", 1, false).await.unwrap().present);
            store.leave_mqtt_session("a", "c", 1, 1).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            assert_eq!(store.queue_mqtt_messages(&[message(b"late", None)]).await.unwrap(), [Queued::NoSession]);
            assert_eq!(store.keep_mqtt_sessions(&[]).await.unwrap(), 1);
            assert!(!store.open_mqtt_session("a", "c", 0, false).await.unwrap().present);
        }
    }
}

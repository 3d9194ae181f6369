//! Topics, who subscribed to them, and the outbox: messages that wait until the other side has them.
//!
//! A message is in the outbox from the moment that its reason is durable until its receiver has acknowledged it. Whoever
//! delivers claims it for a while first; if that program dies, the message is due again when the while is over. So it
//! arrives at least once, under one message identifier.

use crate::alarms::Connection;
use crate::{Store, StoreError, identifiers, now_ms};

/// Most topics of a service.
pub const MAX_TOPICS: i64 = 1000;
/// Most subscriptions of a topic.
pub const MAX_SUBSCRIPTIONS: usize = 100;
/// Most messages that wait for one subscription; older ones than these are given up.
pub const MAX_WAITING: i64 = 200;

pub(crate) const PURPOSE: &str = "subscription endpoint";

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Last part of its ARN.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Last part of its ARN.
    pub id: String,
    /// Of which topic.
    pub topic: String,
    /// `http`, `https`, `email`.
    pub protocol: String,
    /// Where to.
    pub endpoint: String,
    /// Whether the message goes without its envelope.
    pub raw: bool,
}

/// A subscription to be.
#[derive(Debug, Clone, Copy)]
pub struct NewSubscription<'a> {
    /// To which topic.
    pub topic: &'a str,
    /// `http`, `https`, `email`.
    pub protocol: &'a str,
    /// Where to.
    pub endpoint: &'a str,
    /// Whether the message goes without its envelope.
    pub raw: bool,
}

/// What came of subscribing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribed {
    /// Its identifier; the same for the same address.
    Id(String),
    /// There is no such topic.
    NoTopic,
    /// The topic has [`MAX_SUBSCRIPTIONS`].
    TooMany,
}

/// A message to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which topic.
    pub topic: String,
    /// As its sender named it.
    pub topic_arn: String,
    /// One line.
    pub subject: String,
    /// The message.
    pub message: String,
}

/// A message on its way to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the outbox.
    pub sequence: i64,
    /// Whom it is for.
    pub subscription: Subscription,
    /// The same at each attempt.
    pub message_id: String,
    /// As its sender named it.
    pub topic_arn: String,
    /// One line.
    pub subject: String,
    /// The message.
    pub message: String,
    /// When it was sent.
    pub created_ms: i64,
    /// Attempts, this one included.
    pub attempts: i64,
}

/// Puts a message into the outbox, once for each subscription of its topic. Its identifier.
pub(crate) async fn enqueue(connection: &mut Connection, message: &Message, at_ms: i64) -> Result<String, sqlx::Error> {
    let id = identifiers::uuid();
    sqlx::query(
        "INSERT INTO outbox (subscription_id, message_id, topic_arn, subject, message, created_ms, attempts, due_ms) \
         SELECT subscription_id, $1, $2, $3, $4, $5, 0, $5 FROM subscription WHERE topic = $6",
    )
    .bind(&id)
    .bind(&message.topic_arn)
    .bind(&message.subject)
    .bind(&message.message)
    .bind(at_ms)
    .bind(&message.topic)
    .execute(&mut *connection)
    .await?;
    // A receiver that is gone for good must not fill the disk.
    sqlx::query(
        "DELETE FROM outbox WHERE subscription_id IN (SELECT subscription_id FROM subscription WHERE topic = $1) \
         AND sequence <= (SELECT o.sequence FROM outbox o WHERE o.subscription_id = outbox.subscription_id \
         ORDER BY o.sequence DESC LIMIT 1 OFFSET $2)",
    )
    .bind(&message.topic)
    .bind(MAX_WAITING)
    .execute(&mut *connection)
    .await?;
    Ok(id)
}

impl Store {
    /// Makes a topic; the same name again is the same topic. `false` if there are [`MAX_TOPICS`] already.
    pub async fn create_topic(&self, name: &str) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("store a topic", e);
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM topic WHERE name <> $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .map_err(error)?;
        if count >= MAX_TOPICS {
            return Ok(false);
        }
        sqlx::query("INSERT INTO topic (name, created_ms) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map(|_| true)
            .map_err(error)
    }

    /// Whether there is such a topic.
    pub async fn topic_exists(&self, name: &str) -> Result<bool, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM topic WHERE name = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up a topic", e))?;
        Ok(count > 0)
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<Topic>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT name, created_ms FROM topic ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list topics", e))?;
        Ok(rows.into_iter().map(|(name, created_ms)| Topic { name, created_ms }).collect())
    }

    /// Deletes a topic with its subscriptions and what waits for them.
    pub async fn delete_topic(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM topic WHERE name = $1")
            .bind(name)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("delete a topic", e))
    }

    /// Subscribes an address to a topic.
    pub async fn subscribe(&self, new: NewSubscription<'_>) -> Result<Subscribed, StoreError> {
        self.subscribe_as(identifiers::uuid(), new).await
    }

    /// Subscribes an address to a topic under an identifier that was chosen before; an address that is subscribed
    /// already keeps its own.
    pub async fn subscribe_as(&self, id: String, new: NewSubscription<'_>) -> Result<Subscribed, StoreError> {
        if !self.topic_exists(new.topic).await? {
            return Ok(Subscribed::NoTopic);
        }
        let known = self.list_subscriptions(Some(new.topic)).await?;
        if let Some(same) = known.iter().find(|s| s.protocol == new.protocol && s.endpoint == new.endpoint) {
            return Ok(Subscribed::Id(same.id.clone()));
        }
        if known.len() >= MAX_SUBSCRIPTIONS {
            return Ok(Subscribed::TooMany);
        }
        let done = sqlx::query(
            "INSERT INTO subscription (subscription_id, topic, protocol, endpoint, raw, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&id)
        .bind(new.topic)
        .bind(new.protocol)
        .bind(self.secrets().seal(PURPOSE, new.endpoint.as_bytes()))
        .bind(i64::from(new.raw))
        .bind(now_ms())
        .execute(&self.pool)
        .await;
        match done {
            Ok(_) => Ok(Subscribed::Id(id)),
            Err(sqlx::Error::Database(d)) if d.is_foreign_key_violation() => Ok(Subscribed::NoTopic),
            Err(e) => Err(StoreError::database("store a subscription", e)),
        }
    }

    fn unsealed(&self, endpoint: &[u8]) -> Result<String, StoreError> {
        String::from_utf8(self.secrets().unseal(PURPOSE, endpoint)?).map_err(|_| StoreError::Sealed)
    }

    /// Subscriptions of a topic, or all, in the order in which they were made.
    pub async fn list_subscriptions(&self, topic: Option<&str>) -> Result<Vec<Subscription>, StoreError> {
        let rows: Vec<(String, String, String, Vec<u8>, i64)> = sqlx::query_as(
            "SELECT subscription_id, topic, protocol, endpoint, raw FROM subscription WHERE ($1 = '' OR topic = $1) \
             ORDER BY created_ms, subscription_id",
        )
        .bind(topic.unwrap_or(""))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list subscriptions", e))?;
        rows.into_iter()
            .map(|(id, topic, protocol, endpoint, raw)| {
                Ok(Subscription { id, topic, protocol, endpoint: self.unsealed(&endpoint)?, raw: raw != 0 })
            })
            .collect()
    }

    /// Ends a subscription to a topic and what waits for it; `false` if the topic has none of this identifier.
    pub async fn unsubscribe(&self, topic: &str, id: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM subscription WHERE subscription_id = $1 AND topic = $2")
            .bind(id)
            .bind(topic)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("delete a subscription", e))
    }

    /// Sends a message to a topic. Its identifier.
    pub async fn publish_message(&self, message: &Message) -> Result<String, StoreError> {
        let error = |e| StoreError::database("store a message", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let id = enqueue(&mut transaction, message, now_ms()).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(id)
    }

    /// Messages that are due at `now_ms`, oldest first, claimed until `now_ms + lease_ms`.
    pub async fn claim_deliveries(&self, now_ms: i64, lease_ms: i64, limit: i64) -> Result<Vec<Delivery>, StoreError> {
        let error = |e| StoreError::database("claim messages of the outbox", e);
        let claimed: Vec<i64> = sqlx::query_scalar(
            "UPDATE outbox SET due_ms = $1, attempts = attempts + 1 WHERE due_ms <= $2 AND sequence IN \
             (SELECT sequence FROM outbox WHERE due_ms <= $2 ORDER BY sequence LIMIT $3) RETURNING sequence",
        )
        .bind(now_ms + lease_ms)
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        let mut deliveries = Vec::with_capacity(claimed.len());
        type Row = (String, String, String, Vec<u8>, i64, String, String, String, String, i64, i64);
        for sequence in claimed {
            let row: Option<Row> = sqlx::query_as(
                "SELECT s.subscription_id, s.topic, s.protocol, s.endpoint, s.raw, o.message_id, o.topic_arn, o.subject, \
                 o.message, o.created_ms, o.attempts FROM outbox o JOIN subscription s \
                 ON s.subscription_id = o.subscription_id WHERE o.sequence = $1",
            )
            .bind(sequence)
            .fetch_optional(&self.pool)
            .await
            .map_err(error)?;
            // Unsubscribed meanwhile.
            let Some((id, topic, protocol, endpoint, raw, message_id, topic_arn, subject, message, created_ms, attempts)) =
                row
            else {
                continue;
            };
            let subscription = Subscription { id, topic, protocol, endpoint: self.unsealed(&endpoint)?, raw: raw != 0 };
            deliveries.push(Delivery {
                sequence,
                subscription,
                message_id,
                topic_arn,
                subject,
                message,
                created_ms,
                attempts,
            });
        }
        deliveries.sort_by_key(|d| d.sequence);
        Ok(deliveries)
    }

    /// The other side has it, or it is given up.
    pub async fn forget_delivery(&self, sequence: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE sequence = $1")
            .bind(sequence)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("delete a message of the outbox", e))
    }

    /// To be tried again.
    pub async fn postpone_delivery(&self, sequence: i64, due_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET due_ms = $1 WHERE sequence = $2")
            .bind(due_ms)
            .bind(sequence)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("postpone a message of the outbox", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    async fn with_topic(store: Store) -> Store {
        store.create_topic("t").await.unwrap();
        store
    }

    fn to(endpoint: &str) -> NewSubscription<'_> {
        NewSubscription { topic: "t", protocol: "https", endpoint, raw: true }
    }

    fn message() -> Message {
        Message { topic: "t".into(), topic_arn: "arn:t".into(), subject: "S".into(), message: "M".into() }
    }

    #[tokio::test]
    async fn the_same_address_is_one_subscription_and_is_not_readable_in_the_database() {
        for place in places().await {
            let store = with_topic(place.create().await).await;
            let first = store.subscribe(to("https://u:hunter2@h/")).await.unwrap();
            assert_eq!(store.subscribe(to("https://u:hunter2@h/")).await.unwrap(), first);
            assert_eq!(
                store.subscribe(NewSubscription { topic: "x", ..to("https://h/") }).await.unwrap(),
                Subscribed::NoTopic
            );
            assert_eq!(store.list_subscriptions(Some("t")).await.unwrap()[0].endpoint, "https://u:hunter2@h/");
            store.close().await;
            for file in std::fs::read_dir(place.folder.path()).unwrap() {
                let path = file.unwrap().path();
                if path.is_file() {
                    let bytes = std::fs::read(&path).unwrap();
                    assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{}", path.display());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_claimed_message_comes_back_when_nobody_says_what_became_of_it() {
        for place in places().await {
            let store = with_topic(place.create().await).await;
            let Subscribed::Id(id) = store.subscribe(to("https://h/")).await.unwrap() else { panic!() };
            store.publish_message(&message()).await.unwrap();
            let now = now_ms() + 1;
            let first = store.claim_deliveries(now, 1000, 10).await.unwrap();
            assert_eq!((first.len(), first[0].attempts), (1, 1));
            assert!(store.claim_deliveries(now + 999, 1000, 10).await.unwrap().is_empty(), "claimed");
            let again = store.claim_deliveries(now + 1000, 1000, 10).await.unwrap();
            assert_eq!((again[0].attempts, &again[0].message_id), (2, &first[0].message_id));
            store.postpone_delivery(again[0].sequence, now + 5000).await.unwrap();
            assert!(store.claim_deliveries(now + 4999, 1000, 10).await.unwrap().is_empty());
            let third = store.claim_deliveries(now + 5000, 1000, 10).await.unwrap();
            store.forget_delivery(third[0].sequence).await.unwrap();
            store.publish_message(&message()).await.unwrap();
            assert!(!store.unsubscribe("another topic", &id).await.unwrap(), "it is this topic's");
            assert!(store.unsubscribe(to("https://h/").topic, &id).await.unwrap());
            assert!(store.claim_deliveries(i64::MAX - 1, 1, 10).await.unwrap().is_empty(), "nobody to tell");
        }
    }

    #[tokio::test]
    async fn of_messages_that_nobody_takes_the_newest_remain() {
        for place in places().await {
            let store = with_topic(place.create().await).await;
            store.subscribe(to("https://h/")).await.unwrap();
            for number in 0..MAX_WAITING + 5 {
                store.publish_message(&Message { message: number.to_string(), ..message() }).await.unwrap();
            }
            let waiting = store.claim_deliveries(now_ms() + 1, 1000, MAX_WAITING + 10).await.unwrap();
            assert_eq!((waiting.len() as i64, waiting[0].message.as_str()), (MAX_WAITING, "5"));
        }
    }
}

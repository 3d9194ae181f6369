//! The outbox is emptied: each message goes to its subscriber, and is forgotten when that one has it.
//!
//! An attempt that fails is made again after the waits of [`RETRIES_S`]; after the last the message is given up, with a
//! line in the log. A message is claimed for longer than an attempt can take, so a service that dies in the middle only
//! delays it, and the receiver may see it twice, under the same identifier.

pub mod authorities;
pub mod mail;
pub mod targets;
pub mod webhook;

use belvedere_store::notifications::Delivery;
use belvedere_store::{Store, StoreError, now_ms};
use mail::Mail;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use webhook::Webhooks;

/// Longest attempt.
pub const ATTEMPT: Duration = Duration::from_secs(15);
/// For how long an attempt is claimed.
const LEASE_MS: i64 = 20_000;
/// Attempts at once.
const AT_ONCE: i64 = 8;
/// Waits between attempts, in seconds: nine more in ten hours.
pub const RETRIES_S: [i64; 9] = [2, 5, 20, 60, 300, 900, 3600, 10_800, 21_600];

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// It may arrive later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

/// What becomes of a message after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is done with.
    Forget,
    /// Again, after so many milliseconds.
    Again(i64),
}

/// Decides. Pure. `attempts` counts the one that was just made.
pub fn next(attempts: i64, outcome: &Result<(), Undelivered>) -> Next {
    let wait = usize::try_from(attempts - 1).ok().and_then(|n| RETRIES_S.get(n));
    match (outcome, wait) {
        (Err(Undelivered::Later(_)), Some(seconds)) => Next::Again(seconds * 1000),
        _ => Next::Forget,
    }
}

/// The ways out.
#[derive(Clone)]
pub struct Ways {
    /// HTTP.
    pub webhooks: Webhooks,
    /// SMTP; absent without settings.
    pub mail: Option<Arc<Mail>>,
}

impl Ways {
    async fn attempt(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        match delivery.subscription.protocol.as_str() {
            "http" | "https" => self.webhooks.post(delivery).await,
            "email" => match &self.mail {
                Some(mail) => mail.send(delivery).await,
                None => Err(Undelivered::Later("this service has no mail server (\"mail\" in service.json)".into())),
            },
            other => Err(Undelivered::Never(format!("nothing is delivered by {other}"))),
        }
    }
}

/// Delivers what is due, and waits for it. How many attempts there were.
pub async fn deliver_due(store: &Store, ways: &Ways) -> Result<usize, StoreError> {
    let due = store.claim_deliveries(now_ms(), LEASE_MS, AT_ONCE).await?;
    let count = due.len();
    let mut attempts = JoinSet::new();
    for delivery in due {
        let (store, ways) = (store.clone(), ways.clone());
        attempts.spawn(async move {
            let outcome = ways.attempt(&delivery).await;
            settle(&store, &delivery, &outcome).await
        });
    }
    while let Some(settled) = attempts.join_next().await {
        match settled {
            Ok(result) => result?,
            Err(e) => tracing::error!("an attempt to deliver ended badly: {e}"),
        }
    }
    Ok(count)
}

async fn settle(store: &Store, delivery: &Delivery, outcome: &Result<(), Undelivered>) -> Result<(), StoreError> {
    // Addresses of webhooks are secrets: the log has the subscription's identifier.
    let (subscription, message, attempts) = (&delivery.subscription.id, &delivery.message_id, delivery.attempts);
    match (next(attempts, outcome), outcome) {
        (Next::Again(wait_ms), Err(e)) => {
            tracing::warn!(subscription, message, attempts, wait_ms, "not delivered: {e}");
            return store.postpone_delivery(delivery.sequence, now_ms() + wait_ms).await;
        }
        (_, Err(e)) => tracing::error!(subscription, message, attempts, "given up: {e}"),
        (_, Ok(())) => tracing::info!(subscription, message, attempts, "delivered"),
    }
    store.forget_delivery(delivery.sequence).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_again_until_the_waits_are_used_up() {
        let later = Err(Undelivered::Later("x".into()));
        assert_eq!(next(1, &later), Next::Again(2000));
        assert_eq!(next(9, &later), Next::Again(21_600_000));
        assert_eq!(next(10, &later), Next::Forget);
        assert_eq!(next(1, &Err(Undelivered::Never("x".into()))), Next::Forget);
        assert_eq!(next(1, &Ok(())), Next::Forget);
    }

    #[test]
    fn a_claim_lasts_longer_than_an_attempt() {
        assert!(LEASE_MS > ATTEMPT.as_millis() as i64);
    }
}

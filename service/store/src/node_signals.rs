//! What was signalled to camera nodes: the last word counts, and lasts as long as the instance.

use crate::{Store, StoreError, now_ms};
use belvedere_device_protocol::NodeSignal;
use std::collections::BTreeMap;

/// The word of a signal.
fn word(signal: NodeSignal) -> &'static str {
    match signal {
        NodeSignal::Pause => "PAUSE",
        NodeSignal::Resume => "RESUME",
    }
}

impl Store {
    /// Notes signals, all or none.
    pub async fn signal_nodes(&self, id: &str, signals: &BTreeMap<String, NodeSignal>) -> Result<(), StoreError> {
        let error = |e| StoreError::database("store signals", e);
        let now = now_ms();
        let mut transaction = self.pool.begin().await.map_err(error)?;
        for (node, signal) in signals {
            sqlx::query(
                "INSERT INTO node_signal (application_instance_id, node, signal, updated_ms) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (application_instance_id, node) DO UPDATE SET signal = $3, updated_ms = $4",
            )
            .bind(id)
            .bind(node)
            .bind(word(*signal))
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// The last signal of each node of an instance that ever got one.
    pub async fn node_signals(&self, id: &str) -> Result<BTreeMap<String, NodeSignal>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT node, signal FROM node_signal WHERE application_instance_id = $1")
                .bind(id)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("read signals", e))?;
        let signal = |text: &str| if text == "PAUSE" { NodeSignal::Pause } else { NodeSignal::Resume };
        Ok(rows.into_iter().map(|(node, text)| (node, signal(&text))).collect())
    }
}

//! Which copy of the service has whose connection, and what one copy tells another about it.
//!
//! Notes are rows, so that they arrive if their receiver lives; `NOTIFY` only saves it from asking all the time.

use crate::devices::LEASE_MS;
use crate::{Store, StoreError, now_ms};
use sqlx::AnyConnection;
use sqlx::postgres::PgListener;
use std::time::Duration;

/// How often a copy asks for notes when nobody wakes it.
const ASK: Duration = Duration::from_secs(1);
const CHANNEL: &str = "belvedere_copy_note";
/// Notes that are taken at a time.
const BATCH: i64 = 256;

/// A client's connection, as all copies know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: String,
    /// A name that no other connection has.
    pub connection: String,
    /// Whose.
    pub device_id: String,
    /// Whether it is the device itself, and not its claim.
    pub is_device: bool,
}

/// What another copy says about a client that is connected here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The client.
    pub client: String,
    /// What the sender wrote.
    pub note: String,
}

/// Waits for notes.
pub struct Notes {
    store: Store,
    listener: Option<PgListener>,
}

impl Store {
    /// A client connected here. The name of the connection that it had at another copy until now, which must end.
    pub async fn note_connection(&self, new: &Connection) -> Result<Option<String>, StoreError> {
        let (lock, copy, new) = (format!("mqtt_connection {}", new.client), self.copy.clone(), new.clone());
        let noted = self.change(Some(&lock), move |connection| {
            Box::pin(async move {
                let elsewhere: Option<String> =
                    sqlx::query_scalar("SELECT connection FROM mqtt_connection WHERE client = $1 AND copy_id <> $2")
                        .bind(&new.client)
                        .bind(&*copy)
                        .fetch_optional(&mut *connection)
                        .await?;
                write_connection(connection, &copy, &new).await?;
                Ok(elsewhere)
            })
        });
        noted.await.map_err(|e| StoreError::database("note a connection", e))
    }

    /// A connection that is still here after the others took this copy for dead. False if the client has a newer one.
    pub async fn note_connection_again(&self, old: &Connection) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("note a connection again", e);
        let mut transaction = self.begin_exclusive(&format!("mqtt_connection {}", old.client)).await.map_err(error)?;
        let current: Option<String> = sqlx::query_scalar("SELECT connection FROM mqtt_connection WHERE client = $1")
            .bind(&old.client)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(error)?;
        if current.is_some_and(|current| current != old.connection) {
            return Ok(false);
        }
        write_connection(&mut transaction, &self.copy, old).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(true)
    }

    /// A connection ended. False if the client has another one by now, here or elsewhere.
    pub async fn forget_connection(&self, old: &Connection) -> Result<bool, StoreError> {
        let (lock, old, now) = (format!("mqtt_connection {}", old.client), old.clone(), now_ms());
        let forgotten = self.change(Some(&lock), move |connection| {
            Box::pin(async move {
                let deleted = sqlx::query("DELETE FROM mqtt_connection WHERE client = $1 AND connection = $2")
                    .bind(&old.client)
                    .bind(&old.connection)
                    .execute(&mut *connection)
                    .await?;
                let last = deleted.rows_affected() == 1;
                if last && old.is_device {
                    sqlx::query(
                        "UPDATE device SET connected = 0, lease_expires_ms = $1, updated_ms = $2 WHERE device_id = $3",
                    )
                    .bind(now + LEASE_MS)
                    .bind(now)
                    .bind(&old.device_id)
                    .execute(connection)
                    .await?;
                }
                Ok(last)
            })
        });
        forgotten.await.map_err(|e| StoreError::database("forget a connection", e))
    }

    /// Tells the copy that has a client's connection; false if no other copy has one.
    pub async fn tell_copy(&self, client: &str, note: &str) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(false);
        }
        let error = |e| StoreError::database("tell another copy", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let receiver: Option<String> = sqlx::query_scalar(
            "INSERT INTO copy_note (copy_id, client, note) \
             SELECT copy_id, client, $2 FROM mqtt_connection WHERE client = $1 AND copy_id <> $3 RETURNING copy_id",
        )
        .bind(client)
        .bind(note)
        .bind(&*self.copy)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        if let Some(receiver) = &receiver {
            wake(&mut transaction, receiver).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(receiver.is_some())
    }

    /// Tells all other copies.
    pub async fn tell_copies(&self, client: &str, note: &str) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let error = |e| StoreError::database("tell other copies", e);
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let receivers: Vec<String> = sqlx::query_scalar(
            "INSERT INTO copy_note (copy_id, client, note) \
             SELECT copy_id, $1, $2 FROM service_copy WHERE copy_id <> $3 RETURNING copy_id",
        )
        .bind(client)
        .bind(note)
        .bind(&*self.copy)
        .fetch_all(&mut *transaction)
        .await
        .map_err(error)?;
        for receiver in &receivers {
            wake(&mut transaction, receiver).await.map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// Begins to wait for notes; `None` for a copy that is alone.
    pub async fn notes(&self) -> Result<Option<Notes>, StoreError> {
        let Some(url) = &self.database else { return Ok(None) };
        let error = |e| StoreError::database("listen to the other copies", e);
        let mut listener = PgListener::connect(url.expose()).await.map_err(error)?;
        listener.listen(CHANNEL).await.map_err(error)?;
        Ok(Some(Notes { store: self.clone(), listener: Some(listener) }))
    }
}

async fn write_connection(connection: &mut AnyConnection, copy: &str, new: &Connection) -> sqlx::Result<()> {
    let now = now_ms();
    sqlx::query(
        "INSERT INTO mqtt_connection (client, copy_id, connection, device_id, is_device, since_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (client) DO UPDATE SET copy_id = $2, connection = $3, \
         device_id = $4, is_device = $5, since_ms = $6",
    )
    .bind(&new.client)
    .bind(copy)
    .bind(&new.connection)
    .bind(&new.device_id)
    .bind(i64::from(new.is_device))
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if new.is_device {
        sqlx::query("UPDATE device SET connected = 1, lease_expires_ms = $1, updated_ms = $2 WHERE device_id = $3")
            .bind(now + LEASE_MS)
            .bind(now)
            .bind(&new.device_id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn wake(transaction: &mut sqlx::Transaction<'static, sqlx::Any>, copy: &str) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(copy).execute(&mut **transaction).await.map(drop)
}

impl Notes {
    /// The next notes, in the order in which they were written; perhaps none. May be cancelled only while it waits, which
    /// it does before anything else.
    pub async fn next(&mut self) -> Result<Vec<Note>, StoreError> {
        if let Some(listener) = &mut self.listener {
            // Whatever wakes: a note for this copy, for another one, the time, or a lost connection that was made anew.
            let _ = tokio::time::timeout(ASK, async {
                loop {
                    match listener.recv().await {
                        Ok(told) if told.payload() == &*self.store.copy => return,
                        Ok(_) => {}
                        Err(_) => return tokio::time::sleep(ASK).await,
                    }
                }
            })
            .await;
        }
        self.store.take_notes().await
    }
}

impl Store {
    async fn take_notes(&self) -> Result<Vec<Note>, StoreError> {
        let mut notes: Vec<(i64, String, String)> = sqlx::query_as(
            "DELETE FROM copy_note WHERE sequence IN (SELECT sequence FROM copy_note WHERE copy_id = $1 ORDER BY sequence LIMIT $2) \
             RETURNING sequence, client, note",
        )
        .bind(&*self.copy)
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("read notes of other copies", e))?;
        notes.sort_unstable_by_key(|note| note.0);
        Ok(notes.into_iter().map(|(_, client, note)| Note { client, note }).collect())
    }
}

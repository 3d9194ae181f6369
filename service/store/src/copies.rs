//! Several copies of the service on one database: who runs, who has whose connection, and what one tells another.
//!
//! A copy says every few seconds that it lives. Whoever finds one that has been silent for [`SILENT_MS`] removes it with
//! its connections; should it only have slept, it finds that out with its next sign of life and joins anew. Notes are
//! rows, so that they arrive if their receiver lives; `NOTIFY` only saves it from asking all the time.
//!
//! SQLite has one copy, which is alone: whatever it finds at its start is dead.

use crate::database::Kind;
use crate::devices::LEASE_MS;
use crate::{Store, StoreError, now_ms};
use sqlx::postgres::PgListener;
use std::time::Duration;

/// A copy that has given no sign of life for so long is dead.
pub const SILENT_MS: i64 = 30_000;
/// How often a copy gives one.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
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
    /// Whether other copies of the service may run beside this one.
    pub fn is_shared(&self) -> bool {
        self.kind == Kind::Postgres
    }

    /// Takes its place among the copies; the connections of those that are dead are over. Refused beside a living copy
    /// when the objects are files that the other one does not see.
    pub async fn join_copies(&self) -> Result<(), StoreError> {
        let error = |e| StoreError::database("join the other copies", e);
        self.bury_silent_copies().await?;
        let mut transaction = self.begin_exclusive("service_copy").await.map_err(error)?;
        let others: i64 = sqlx::query_scalar("SELECT count(*) FROM service_copy WHERE copy_id <> $1")
            .bind(&*self.copy)
            .fetch_one(&mut *transaction)
            .await
            .map_err(error)?;
        if others > 0 && !self.objects_are_shared() {
            return Err(StoreError::Alone);
        }
        let now = now_ms();
        sqlx::query(
            "INSERT INTO service_copy (copy_id, started_ms, seen_ms) VALUES ($1, $2, $2) \
             ON CONFLICT (copy_id) DO UPDATE SET seen_ms = $2",
        )
        .bind(&*self.copy)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)
    }

    /// Says that this copy lives; false if the others have buried it meanwhile: it must join again, and note its
    /// connections.
    pub async fn sign_of_life(&self) -> Result<bool, StoreError> {
        let lives = sqlx::query("UPDATE service_copy SET seen_ms = $1 WHERE copy_id = $2")
            .bind(now_ms())
            .bind(&*self.copy)
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("give a sign of life", e))?;
        self.bury_silent_copies().await?;
        Ok(lives.rows_affected() == 1)
    }

    /// Whether what one copy is enough for is this one's: it runs longest. For a moment there may be two, or none.
    pub async fn is_first_copy(&self) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(true);
        }
        let first: Option<String> = sqlx::query_scalar("SELECT copy_id FROM service_copy ORDER BY started_ms, copy_id LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("ask which copy is the first", e))?;
        Ok(first.as_deref() == Some(&*self.copy))
    }

    /// Takes its place among the copies, and waits for a while for a dead one that kept it.
    pub async fn join_copies_patiently(&self) -> Result<(), StoreError> {
        let mut patience = SILENT_MS / 1000 + 5;
        loop {
            match self.join_copies().await {
                Err(StoreError::Alone) if patience > 0 => {
                    if patience % 10 == 0 {
                        tracing::warn!("another copy runs on this database, or was killed a moment ago: waiting");
                    }
                    patience -= 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                joined => return joined,
            }
        }
    }

    /// Ends the copy: its connections are over.
    pub async fn leave_copies(&self) -> Result<(), StoreError> {
        self.bury("copy_id = $1 AND $2 = $2", 0).await
    }

    /// Removes copies that are silent, or (SQLite) that are not this one.
    async fn bury_silent_copies(&self) -> Result<(), StoreError> {
        let before = if self.is_shared() { now_ms() - SILENT_MS } else { i64::MAX };
        self.bury("copy_id <> $1 AND seen_ms < $2", before).await
    }

    async fn bury(&self, which: &'static str, before: i64) -> Result<(), StoreError> {
        let error = |e| StoreError::database("bury a copy", e);
        let mut transaction = self.begin_exclusive("service_copy").await.map_err(error)?;
        let connected = format!(
            "UPDATE device SET connected = 0 WHERE connected = 1 AND device_id IN (SELECT device_id FROM mqtt_connection \
             WHERE is_device = 1 AND copy_id IN (SELECT copy_id FROM service_copy WHERE {which}))"
        );
        sqlx::query(sqlx::AssertSqlSafe(connected))
            .bind(&*self.copy)
            .bind(before)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        let buried = format!("DELETE FROM service_copy WHERE {which}");
        let buried = sqlx::query(sqlx::AssertSqlSafe(buried)).bind(&*self.copy).bind(before).execute(&mut *transaction).await;
        let buried = buried.map_err(error)?.rows_affected();
        if !self.is_shared() {
            // From before connections were noted.
            sqlx::query("UPDATE device SET connected = 0 WHERE connected = 1 AND device_id NOT IN (SELECT device_id FROM mqtt_connection)")
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        if buried > 0 {
            tracing::info!(buried, "copies of the service that are gone, with their connections");
        }
        Ok(())
    }

    /// A client connected here. The name of the connection that it had at another copy until now, which must end.
    pub async fn note_connection(&self, new: &Connection) -> Result<Option<String>, StoreError> {
        let error = |e| StoreError::database("note a connection", e);
        let now = now_ms();
        let mut transaction = self.begin_exclusive(&format!("mqtt_connection {}", new.client)).await.map_err(error)?;
        let elsewhere: Option<String> =
            sqlx::query_scalar("SELECT connection FROM mqtt_connection WHERE client = $1 AND copy_id <> $2")
                .bind(&new.client)
                .bind(&*self.copy)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(error)?;
        sqlx::query(
            "INSERT INTO mqtt_connection (client, copy_id, connection, device_id, is_device, since_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (client) DO UPDATE SET copy_id = $2, connection = $3, \
             device_id = $4, is_device = $5, since_ms = $6",
        )
        .bind(&new.client)
        .bind(&*self.copy)
        .bind(&new.connection)
        .bind(&new.device_id)
        .bind(i64::from(new.is_device))
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        if new.is_device {
            sqlx::query("UPDATE device SET connected = 1, lease_expires_ms = $1, updated_ms = $2 WHERE device_id = $3")
                .bind(now + LEASE_MS)
                .bind(now)
                .bind(&new.device_id)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(elsewhere)
    }

    /// A connection ended. False if the client has another one by now, here or elsewhere.
    pub async fn forget_connection(&self, old: &Connection) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("forget a connection", e);
        let now = now_ms();
        let mut transaction = self.begin_exclusive(&format!("mqtt_connection {}", old.client)).await.map_err(error)?;
        let last = sqlx::query("DELETE FROM mqtt_connection WHERE client = $1 AND connection = $2")
            .bind(&old.client)
            .bind(&old.connection)
            .execute(&mut *transaction)
            .await
            .map_err(error)?
            .rows_affected()
            == 1;
        if last && old.is_device {
            sqlx::query("UPDATE device SET connected = 0, lease_expires_ms = $1, updated_ms = $2 WHERE device_id = $3")
                .bind(now + LEASE_MS)
                .bind(now)
                .bind(&old.device_id)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(last)
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
        let Some(url) = &self.database else {
            return Ok(None);
        };
        let error = |e| StoreError::database("listen to the other copies", e);
        let mut listener = PgListener::connect(url.expose()).await.map_err(error)?;
        listener.listen(CHANNEL).await.map_err(error)?;
        Ok(Some(Notes { store: self.clone(), listener: Some(listener) }))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{NewDevice, Tags};
    use crate::testing::{Place, object_places, places};

    async fn with_device(place: &Place) -> Store {
        let store = place.create().await;
        let tags = Tags::new();
        let new = NewDevice { device_id: "d", name: "d", thing_name: "t", description: None, tags: &tags, networking: None };
        store.create_device(new).await.unwrap();
        store
    }

    fn connection(name: &str) -> Connection {
        Connection { client: "t".into(), connection: name.into(), device_id: "d".into(), is_device: true }
    }

    async fn connected(store: &Store) -> bool {
        store.device("d").await.unwrap().unwrap().connected
    }

    #[tokio::test]
    async fn no_connection_survives_its_copy() {
        for place in places().await {
            let store = with_device(&place).await;
            store.join_copies().await.unwrap();
            assert_eq!(store.note_connection(&connection("1")).await.unwrap(), None);
            assert!(connected(&store).await);
            // Killed; nothing was said. PostgreSQL: and silent for a while.
            if store.is_shared() {
                sqlx::query("UPDATE service_copy SET seen_ms = seen_ms - 31000").execute(&store.pool).await.unwrap();
            }
            store.close().await;
            let store = place.open().await;
            assert!(connected(&store).await);
            store.join_copies().await.unwrap();
            assert!(!connected(&store).await);
            store.note_connection(&connection("2")).await.unwrap();
            store.leave_copies().await.unwrap();
            assert!(!connected(&store).await);
        }
    }

    #[tokio::test]
    async fn the_newest_connection_counts_wherever_it_is() {
        let [_, place] = object_places().await;
        let a = with_device(&place).await;
        let b = place.open().await;
        a.join_copies().await.unwrap();
        b.join_copies().await.unwrap();
        a.note_connection(&connection("at a")).await.unwrap();
        assert!(a.is_first_copy().await.unwrap() && !b.is_first_copy().await.unwrap());
        assert_eq!(b.note_connection(&connection("at b")).await.unwrap().as_deref(), Some("at a"));
        assert!(!a.forget_connection(&connection("at a")).await.unwrap(), "it has another one");
        assert!(connected(&a).await);
        let mut notes = a.notes().await.unwrap().unwrap();
        assert!(a.tell_copy("t", "to b").await.unwrap() && !b.tell_copy("t", "to nobody").await.unwrap());
        b.tell_copies("t", "first").await.unwrap();
        b.tell_copies("t", "second").await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(notes.next().await.unwrap().into_iter().map(|n| n.note));
        }
        assert_eq!(heard, ["first", "second"]);
        assert!(b.forget_connection(&connection("at b")).await.unwrap());
        assert!(!connected(&a).await);
        // Buried by the others although it lives: it learns that, and joins again.
        sqlx::query("UPDATE service_copy SET seen_ms = 0 WHERE copy_id = $1").bind(&*a.copy).execute(&a.pool).await.unwrap();
        assert!(b.sign_of_life().await.unwrap() && !a.sign_of_life().await.unwrap());
        a.join_copies().await.unwrap();
        assert!(a.sign_of_life().await.unwrap());
    }

    #[tokio::test]
    async fn a_second_copy_without_common_objects_is_refused() {
        let [_, place] = places().await;
        let a = place.create().await;
        let b = place.open().await;
        a.join_copies().await.unwrap();
        assert!(matches!(b.join_copies().await, Err(StoreError::Alone)));
        a.leave_copies().await.unwrap();
        b.join_copies().await.unwrap();
    }
}

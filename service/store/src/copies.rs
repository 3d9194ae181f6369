//! Several copies of the service on one database: who runs, and which of them does what one is enough for. Who has
//! whose connection, and what one tells another, is in [`crate::connections`].
//!
//! A copy says every few seconds that it lives. Whoever finds one that has been silent for [`SILENT_MS`] removes it with
//! its connections; should it only have slept, it finds that out with its next sign of life and joins anew.
//!
//! SQLite has one copy, which is alone: whatever it finds at its start is dead.

use crate::database::{self, Kind};
use crate::error::{stored, text};
use crate::{Store, StoreError};
use std::collections::BTreeMap;
use std::time::Duration;

/// A copy that has given no sign of life for so long is dead.
pub const SILENT_MS: i64 = 30_000;
/// How often a copy gives one.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What all copies of one service have in common, by names that people read: account, bucket and so on.
pub type Identity = BTreeMap<String, String>;

/// Ends when it is dropped, or with its copy.
pub struct Turn(#[allow(dead_code)] sqlx::Transaction<'static, sqlx::Any>);

impl Store {
    /// Whether other copies of the service may run beside this one.
    pub fn is_shared(&self) -> bool {
        self.kind == Kind::Postgres
    }

    /// Takes its place among the copies; the connections of those that are dead are over. Refused beside a living copy
    /// of another service, and beside any when the objects are files that the other one does not see.
    pub async fn join_copies(&self, identity: &Identity) -> Result<(), StoreError> {
        let error = |e| StoreError::database("join the other copies", e);
        let now = self.time_ms().await?;
        self.bury_silent_copies(now).await?;
        let mut here = identity.clone();
        here.insert("object store".into(), self.blobs.place());
        let mut transaction = self.begin_exclusive("service_copy").await.map_err(error)?;
        let others: Vec<String> =
            sqlx::query_scalar("SELECT identity FROM service_copy WHERE copy_id <> $1 ORDER BY started_ms")
                .bind(&*self.copy)
                .fetch_all(&mut *transaction)
                .await
                .map_err(error)?;
        if !others.is_empty() && !self.objects_are_shared() {
            return Err(StoreError::Alone);
        }
        // A copy of an earlier program said nothing of itself.
        for other in others.iter().filter(|text| !text.is_empty()) {
            let there: Identity = stored("a copy's identity", other)?;
            if let Some(difference) = difference(&here, &there) {
                return Err(StoreError::AnotherService { difference });
            }
        }
        sqlx::query(
            "INSERT INTO service_copy (copy_id, started_ms, seen_ms, identity) VALUES ($1, $2, $2, $3) \
             ON CONFLICT (copy_id) DO UPDATE SET seen_ms = $2",
        )
        .bind(&*self.copy)
        .bind(now)
        .bind(text(&here))
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)
    }

    /// Says that this copy lives; false if the others have buried it meanwhile: it must join again, and note its
    /// connections.
    pub async fn sign_of_life(&self) -> Result<bool, StoreError> {
        let now = self.time_ms().await?;
        let lives = sqlx::query("UPDATE service_copy SET seen_ms = $1 WHERE copy_id = $2")
            .bind(now)
            .bind(&*self.copy)
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("give a sign of life", e))?;
        self.bury_silent_copies(now).await?;
        Ok(lives.rows_affected() == 1)
    }

    /// How many copies run; a dead one counts until it is buried.
    pub async fn count_copies(&self) -> Result<u64, StoreError> {
        if !self.is_shared() {
            return Ok(1);
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM service_copy")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("count the copies", e))?;
        Ok(count.max(1) as u64)
    }

    /// The right to do something that only one copy does at a time; `None` for a copy that is alone. Whoever has it uses
    /// a connection to the database beside it: let one at a time ask.
    pub async fn turn(&self, what: &str) -> Result<Option<Turn>, StoreError> {
        if !self.is_shared() {
            return Ok(None);
        }
        let held = self.begin_exclusive(&format!("turn {what}")).await;
        held.map(|held| Some(Turn(held))).map_err(|e| StoreError::database("wait for the other copies", e))
    }

    /// Whether what one copy is enough for is this one's: it runs longest. For a moment there may be two, or none.
    pub async fn is_first_copy(&self) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(true);
        }
        let first: Option<String> =
            sqlx::query_scalar("SELECT copy_id FROM service_copy ORDER BY started_ms, copy_id LIMIT 1")
                .fetch_optional(&self.pool)
                .await
                .map_err(|e| StoreError::database("ask which copy is the first", e))?;
        Ok(first.as_deref() == Some(&*self.copy))
    }

    /// Takes its place among the copies, and waits for a while for a dead one that kept it.
    pub async fn join_copies_patiently(&self, identity: &Identity) -> Result<(), StoreError> {
        let mut patience = SILENT_MS / 1000 + 5;
        loop {
            match self.join_copies(identity).await {
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

    /// Machines' clocks differ: who has been silent for how long is decided by the database's.
    async fn time_ms(&self) -> Result<i64, StoreError> {
        database::time_ms(&self.pool, self.kind).await.map_err(|e| StoreError::database("ask for the time", e))
    }

    /// Ends the copy: its connections are over.
    pub async fn leave_copies(&self) -> Result<(), StoreError> {
        self.bury("copy_id = $1 AND $2 = $2", 0).await
    }

    /// Removes copies that are silent, or (SQLite) that are not this one.
    async fn bury_silent_copies(&self, now_ms: i64) -> Result<(), StoreError> {
        let before = if self.is_shared() { now_ms - SILENT_MS } else { i64::MAX };
        self.bury("copy_id <> $1 AND seen_ms < $2", before).await
    }

    async fn bury(&self, which: &'static str, before: i64) -> Result<(), StoreError> {
        let error = |e| StoreError::database("bury a copy", e);
        let mut transaction = self.begin_exclusive("service_copy").await.map_err(error)?;
        // Connections before devices, as wherever both change.
        let over = format!(
            "DELETE FROM mqtt_connection WHERE copy_id IN (SELECT copy_id FROM service_copy WHERE {which}) RETURNING device_id, is_device"
        );
        let over: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(over))
            .bind(&*self.copy)
            .bind(before)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error)?;
        let mut devices: Vec<String> = over.into_iter().filter(|(_, device)| *device != 0).map(|(id, _)| id).collect();
        devices.sort();
        for device_id in devices {
            sqlx::query("UPDATE device SET connected = 0 WHERE device_id = $1")
                .bind(device_id)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        let buried = format!("DELETE FROM service_copy WHERE {which}");
        let buried =
            sqlx::query(sqlx::AssertSqlSafe(buried)).bind(&*self.copy).bind(before).execute(&mut *transaction).await;
        let buried = buried.map_err(error)?.rows_affected();
        if !self.is_shared() {
            // From before connections were noted.
            sqlx::query("UPDATE device SET connected = 0 WHERE connected = 1 AND device_id NOT IN (SELECT device_id FROM mqtt_connection)")
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        // A copy that ends says so itself.
        if buried > 0 && before > 0 {
            match self.is_shared() {
                true => tracing::info!(
                    copies = buried,
                    "copies of the service that gave no sign of life are struck off the list"
                ),
                // A start that failed leaves one, too.
                false => {
                    tracing::info!("the service did not end by itself the last time; nothing is lost, devices connect again")
                }
            }
        }
        Ok(())
    }
}

/// In what two services differ, for people; `None`: they are one.
fn difference(here: &Identity, there: &Identity) -> Option<String> {
    let of = |identity: &Identity, name: &str| identity.get(name).cloned().unwrap_or_else(|| "nothing".into());
    let names = here.keys().chain(there.keys());
    let (name, here, there) = names.map(|n| (n, of(here, n), of(there, n))).find(|(_, here, there)| here != there)?;
    Some(format!("its {name} is {there}, here it is {here}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Connection;
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

    fn service() -> Identity {
        [("account".to_owned(), "123456789012".to_owned())].into()
    }

    async fn connected(store: &Store) -> bool {
        store.device("d").await.unwrap().unwrap().connected
    }

    #[tokio::test]
    async fn no_connection_survives_its_copy() {
        for place in places().await {
            let store = with_device(&place).await;
            store.join_copies(&service()).await.unwrap();
            assert_eq!(store.note_connection(&connection("1")).await.unwrap(), None);
            assert!(connected(&store).await);
            // Killed; nothing was said. PostgreSQL: and silent for a while.
            if store.is_shared() {
                sqlx::query("UPDATE service_copy SET seen_ms = seen_ms - 31000").execute(&store.pool).await.unwrap();
            }
            store.close().await;
            let store = place.open().await;
            assert!(connected(&store).await);
            store.join_copies(&service()).await.unwrap();
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
        a.join_copies(&service()).await.unwrap();
        b.join_copies(&service()).await.unwrap();
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
        a.join_copies(&service()).await.unwrap();
        assert!(a.sign_of_life().await.unwrap());
        assert_eq!(a.count_copies().await.unwrap(), 2);
        // What it had is noted again, but not before what is newer.
        assert!(a.note_connection_again(&connection("at a")).await.unwrap());
        assert!(connected(&b).await);
        b.note_connection(&connection("at b")).await.unwrap();
        assert!(!a.note_connection_again(&connection("at a")).await.unwrap());
        assert!(a.tell_copy("t", "to b").await.unwrap(), "it is still at b");
    }

    #[tokio::test]
    async fn one_copy_at_a_time_has_the_turn() {
        let [alone, place] = object_places().await;
        assert!(alone.create().await.turn("x").await.unwrap().is_none());
        let (a, b) = (place.create().await, place.open().await);
        let held = a.turn("x").await.unwrap().unwrap();
        assert!(b.turn("y").await.unwrap().is_some());
        assert!(tokio::time::timeout(Duration::from_millis(300), b.turn("x")).await.is_err());
        drop(held);
        assert!(b.turn("x").await.unwrap().is_some());
    }

    #[test]
    fn what_differs_is_named() {
        let other: Identity = [("account".to_owned(), "1".to_owned()), ("region".to_owned(), "r".to_owned())].into();
        assert_eq!(difference(&service(), &service()), None);
        assert_eq!(difference(&service(), &other).unwrap(), "its account is 1, here it is 123456789012");
        assert_eq!(difference(&Identity::new(), &service()).unwrap(), "its account is 123456789012, here it is nothing");
    }

    #[tokio::test]
    async fn a_copy_of_another_service_is_refused_while_one_runs() {
        let [_, place] = object_places().await;
        let a = place.create().await;
        a.join_copies(&service()).await.unwrap();
        let b = place.open().await;
        let other: Identity = [("account".to_owned(), "210987654321".to_owned())].into();
        let refused = b.join_copies(&other).await.unwrap_err().to_string();
        assert!(refused.contains("its account is 123456789012, here it is 210987654321"), "{refused}");
        // The same rows with objects elsewhere.
        let mut elsewhere = place.places.clone();
        elsewhere.objects.as_mut().unwrap().url.prefix = "elsewhere/".into();
        let c = Store::open_in(place.folder.path(), &elsewhere).await.unwrap();
        let refused = c.join_copies(&service()).await.unwrap_err().to_string();
        assert!(refused.contains("its object store is s3://"), "{refused}");
        a.leave_copies().await.unwrap();
        b.join_copies(&other).await.unwrap();
    }

    #[tokio::test]
    async fn a_second_copy_without_common_objects_is_refused() {
        let [_, place] = places().await;
        let a = place.create().await;
        let b = place.open().await;
        a.join_copies(&service()).await.unwrap();
        assert!(matches!(b.join_copies(&service()).await, Err(StoreError::Alone)));
        a.leave_copies().await.unwrap();
        b.join_copies(&service()).await.unwrap();
    }
}

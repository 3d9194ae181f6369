//! Files of objects that no row names: what a power cut left between an object's bytes and its row. They are noted, and
//! deleted a week later, where they are: nothing is moved, so that the right database finds everything in its place again
//! when another one was used meanwhile.
//!
//! Nothing is deleted unless the database and the place belong together ([`crate::place`]), and by itself a sweep deletes
//! no more than [`at_once`] files.
//!
//! In this order; what a power cut after each step leaves:
//!
//! 1. the file's name is noted — a note, which the next sweep reads;
//! 2. a week later, the file is deleted, if no row names it now either — a note of nothing;
//! 3. the note goes.

use crate::place::Ownership;
use crate::{Store, StoreError};
use std::collections::HashMap;

/// A file that is younger may belong to a request that is under way.
pub const YOUNG_MS: i64 = 24 * 3600 * 1000;
/// How long a file stays after it was first seen without a name.
pub const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// Most files that are looked at in one sweep; the others are seen once these are gone.
const MOST: usize = 100_000;
/// So many may always go at once, and a tenth of the files that rows name.
const ALWAYS: u64 = 16;

/// A file that no row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// Its name.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// When it was first seen; `None`: now.
    pub noted_ms: Option<i64>,
}

impl Unnamed {
    /// Whether its week is over.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.noted_ms.is_some_and(|noted| noted <= now_ms - KEPT_MS)
    }
}

/// What is in the objects' place without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waste {
    /// Whether the database and the place belong together.
    pub ownership: Ownership,
    /// How many files rows name.
    pub named: u64,
    /// Those that none names, and that are a day old.
    pub unnamed: Vec<Unnamed>,
}

/// How many files a sweep may delete by itself. A database that names none is not believed.
pub fn at_once(named: u64) -> u64 {
    if named == 0 { 0 } else { ALWAYS.max(named / 10) }
}

/// Why nothing may be swept, and what to do; `None` if it may. Pure.
pub fn objection(ownership: &Ownership) -> Option<String> {
    match ownership {
        Ownership::Same => None,
        Ownership::Unclaimed => Some(
            "the objects' place has no note of whose it is, and the files that the database names are not there. Name the right \
             database and the right place; if these belong together, `belvedere-service sweep --adopt` says so"
                .into(),
        ),
        Ownership::Damaged => Some(
            "the note in the objects' place cannot be read. If it is this service's place, `belvedere-service sweep --adopt` says so"
                .into(),
        ),
        Ownership::Another(there) => Some(format!("the objects' place belongs to another service, {there}")),
        Ownership::Older { place, database } => Some(format!(
            "the objects' place was used with a newer state of this database (mark {place}, the database has {database}): the database is \
             an older copy, or was copied without its -wal, and does not know the newest objects. Put the newest one back; if it is lost, \
             `belvedere-service sweep --adopt` goes on with this one"
        )),
    }
}

impl Store {
    /// Looks for files without a name, at a time. Changes nothing.
    pub async fn waste(&self, now_ms: i64) -> Result<Waste, StoreError> {
        let error = |e| StoreError::database("look for files that no row names", e);
        let ownership = self.ownership().await?;
        let named: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM object) + (SELECT count(*) FROM upload_part)")
            .fetch_one(&self.pool)
            .await
            .map_err(error)?;
        let noted: Vec<(String, i64)> =
            sqlx::query_as("SELECT file, noted_ms FROM unnamed_file").fetch_all(&self.pool).await.map_err(error)?;
        let noted: HashMap<String, i64> = noted.into_iter().collect();
        let (mut unnamed, mut after) = (Vec::new(), String::new());
        while unnamed.len() < MOST {
            let (mut candidates, last) = self.blobs.waste(&after, now_ms - YOUNG_MS).await?;
            candidates.sort_unstable();
            if let (Some((first, _)), Some((last, _))) = (candidates.first(), candidates.last()) {
                let named = self.named_between(first, last).await?;
                candidates.retain(|(file, _)| named.binary_search(file).is_err());
                unnamed.extend(candidates.into_iter().map(|(file, size)| {
                    let noted_ms = noted.get(&file).copied();
                    Unnamed { file, size, noted_ms }
                }));
            }
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        Ok(Waste { ownership, named: named.max(0) as u64, unnamed })
    }

    /// Files between two names, these included, that rows name; sorted.
    async fn named_between(&self, first: &str, last: &str) -> Result<Vec<String>, StoreError> {
        let mut named: Vec<String> = sqlx::query_scalar(
            "SELECT file FROM object WHERE file >= $1 AND file <= $2 \
             UNION ALL SELECT file FROM upload_part WHERE file >= $1 AND file <= $2",
        )
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("look for files that rows name", e))?;
        named.sort_unstable();
        Ok(named)
    }

    /// The sweep of every day: notes what is without a name, and deletes what has been so for a week; how many went.
    pub async fn sweep(&self, now_ms: i64) -> Result<u64, StoreError> {
        let waste = self.waste(now_ms).await?;
        if let Some(why) = objection(&waste.ownership) {
            return Err(StoreError::NotSwept { why });
        }
        self.note(&waste.unnamed, now_ms).await?;
        let due: Vec<&Unnamed> = waste.unnamed.iter().filter(|u| u.is_due(now_ms)).collect();
        let most = at_once(waste.named);
        if due.len() as u64 > most {
            let why = format!(
                "{} files that no row names would go, and {most} may at once (rows name {}): is this the right database? \
                 `belvedere-service sweep` shows them, `sweep --yes` deletes them",
                due.len(),
                waste.named
            );
            return Err(StoreError::NotSwept { why });
        }
        self.delete_unnamed(due).await
    }

    /// Deletes all of them that still have no name, whenever they were noted: what an administrator asked for who was
    /// shown them. How many went.
    pub async fn sweep_now(&self, waste: &Waste) -> Result<u64, StoreError> {
        if let Some(why) = objection(&self.ownership().await?) {
            return Err(StoreError::NotSwept { why });
        }
        self.delete_unnamed(waste.unnamed.iter().collect()).await
    }

    async fn delete_unnamed(&self, files: Vec<&Unnamed>) -> Result<u64, StoreError> {
        let mut swept = 0;
        for unnamed in files {
            // Once more: another copy of the service may have other things to do with it.
            if !self.named_between(&unnamed.file, &unnamed.file).await?.is_empty() {
                continue;
            }
            if self.blobs.is_read(&unnamed.file) {
                continue;
            }
            self.blobs.remove(&unnamed.file).await?;
            sqlx::query("DELETE FROM unnamed_file WHERE file = $1")
                .bind(&unnamed.file)
                .execute(&self.pool)
                .await
                .map_err(|e| StoreError::database("forget a file", e))?;
            swept += 1;
        }
        Ok(swept)
    }

    /// Notes these, and forgets notes of anything else.
    async fn note(&self, unnamed: &[Unnamed], now_ms: i64) -> Result<(), StoreError> {
        let error = |e| StoreError::database("note files that no row names", e);
        let mut transaction = self.begin_exclusive("unnamed_file").await.map_err(error)?;
        let noted: Vec<String> =
            sqlx::query_scalar("SELECT file FROM unnamed_file").fetch_all(&mut *transaction).await.map_err(error)?;
        let there: HashMap<&str, &Unnamed> = unnamed.iter().map(|u| (u.file.as_str(), u)).collect();
        for gone in noted.iter().filter(|file| !there.contains_key(file.as_str())) {
            sqlx::query("DELETE FROM unnamed_file WHERE file = $1")
                .bind(gone)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        for new in unnamed.iter().filter(|u| u.noted_ms.is_none()) {
            sqlx::query("INSERT INTO unnamed_file (file, noted_ms) VALUES ($1, $2) ON CONFLICT (file) DO NOTHING")
                .bind(&new.file)
                .bind(now_ms)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now_ms;
    use crate::testing::object_places;

    /// Leaves a file without a name, as a power cut does.
    async fn abandon(store: &Store) -> String {
        let written = store.object_writer().await.unwrap().finish().await.unwrap();
        let name = written.name().to_owned();
        std::mem::forget(written);
        name
    }

    /// When everything that is written now is old.
    fn later() -> i64 {
        now_ms() + 2 * YOUNG_MS
    }

    #[test]
    fn a_sweep_deletes_few_files_or_a_tenth_and_never_all() {
        assert_eq!((at_once(0), at_once(1), at_once(160), at_once(170), at_once(1_000_000)), (0, 16, 16, 17, 100_000));
    }

    #[tokio::test]
    async fn a_file_without_a_name_goes_a_week_after_it_was_seen() {
        for place in object_places().await {
            let store = place.create().await;
            store.put_bytes("b", "k", "x", b"kept").await.unwrap();
            let abandoned = abandon(&store).await;
            assert_eq!(
                store.waste(later()).await.unwrap().unnamed,
                [Unnamed { file: abandoned.clone(), size: 0, noted_ms: None }]
            );
            assert_eq!(store.sweep(later()).await.unwrap(), 0);
            assert_eq!(store.sweep(later()).await.unwrap(), 0, "seen before, and not a week ago");
            assert_eq!(store.sweep(later() + KEPT_MS + 60_000).await.unwrap(), 1);
            assert!(!store.blobs.exists(&abandoned).await.unwrap());
            assert_eq!(store.read_object("b", "k", 9).await.unwrap().unwrap(), b"kept");
            assert!(store.waste(later()).await.unwrap().unnamed.is_empty());
        }
    }

    #[tokio::test]
    async fn a_young_file_is_not_waste() {
        for place in object_places().await {
            let store = place.create().await;
            abandon(&store).await;
            assert!(store.waste(now_ms()).await.unwrap().unnamed.is_empty());
        }
    }

    /// Service D3: an older copy of the database does not name the newest objects.
    #[tokio::test]
    async fn an_older_database_sweeps_nothing_and_the_right_one_finds_everything() {
        for place in object_places().await {
            let store = place.create().await;
            store.put_bytes("b", "old", "x", b"old").await.unwrap();
            store.meet_objects_place().await.unwrap();
            let identity = store.identity().await.unwrap();
            store.put_bytes("b", "new", "x", b"new").await.unwrap();
            store.mark_objects_place().await.unwrap();
            // What the older copy is: without the newest row and the newest mark.
            let new = store.object("b", "new").await.unwrap().unwrap();
            sqlx::query("UPDATE object SET bucket = 'hidden' WHERE key = 'new'").execute(&store.pool).await.unwrap();
            sqlx::query("UPDATE object SET file = file || '-hidden' WHERE key = 'new'").execute(&store.pool).await.unwrap();
            sqlx::query("UPDATE service_owner SET mark = $1").bind(identity.mark).execute(&store.pool).await.unwrap();
            let older = Ownership::Older { place: identity.mark + 1, database: identity.mark };
            assert_eq!(store.meet_objects_place().await.unwrap(), older);
            let waste = store.waste(later()).await.unwrap();
            assert_eq!((waste.unnamed.len(), &waste.ownership), (1, &older));
            assert!(matches!(store.sweep(later()).await, Err(StoreError::NotSwept { why }) if why.contains("older copy")));
            assert!(matches!(store.sweep_now(&waste).await, Err(StoreError::NotSwept { .. })));
            assert!(store.sweep(later() + 2 * KEPT_MS).await.is_err());
            // The right one is back.
            sqlx::query("UPDATE object SET bucket = 'b', file = $1 WHERE key = 'new'")
                .bind(new.file_name())
                .execute(&store.pool)
                .await
                .unwrap();
            sqlx::query("UPDATE service_owner SET mark = $1").bind(identity.mark + 1).execute(&store.pool).await.unwrap();
            assert_eq!(store.meet_objects_place().await.unwrap(), Ownership::Same);
            assert_eq!(store.read_object("b", "new", 9).await.unwrap().unwrap(), b"new");
            // Or it is lost, and its administrator says so.
            sqlx::query("UPDATE service_owner SET mark = 1").execute(&store.pool).await.unwrap();
            store.adopt_objects_place().await.unwrap();
            assert_eq!(store.ownership().await.unwrap(), Ownership::Same);
        }
    }

    #[tokio::test]
    async fn more_than_a_few_files_go_only_when_asked() {
        for place in object_places().await {
            let store = place.create().await;
            for _ in 0..=ALWAYS {
                abandon(&store).await;
            }
            store.sweep(later()).await.unwrap();
            let refused = store.sweep(later() + KEPT_MS + 60_000).await.unwrap_err().to_string();
            assert!(refused.contains("17 files") && refused.contains("0 may at once"), "{refused}");
            store.put_bytes("b", "k", "x", b"kept").await.unwrap();
            let refused = store.sweep(later() + KEPT_MS + 60_000).await.unwrap_err().to_string();
            assert!(refused.contains("17 files") && refused.contains("16 may at once"), "{refused}");
            let waste = store.waste(later()).await.unwrap();
            assert_eq!(store.sweep_now(&waste).await.unwrap(), 17);
            assert_eq!(store.read_object("b", "k", 9).await.unwrap().unwrap(), b"kept");
        }
    }

    #[tokio::test]
    async fn another_services_objects_are_refused_at_the_start() {
        for place in object_places().await {
            let store = place.create().await;
            store.put_bytes("b", "k", "x", b"kept").await.unwrap();
            sqlx::query("UPDATE service_owner SET identity = 'another'").execute(&store.pool).await.unwrap();
            let refused = store.meet_objects_place().await.unwrap_err().to_string();
            assert!(refused.contains("another") && refused.contains("Nothing was changed"), "{refused}");
            assert!(store.sweep(later()).await.is_err());
        }
    }
}

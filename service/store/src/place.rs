//! Whether the database and the place of the objects belong together, before anything is deleted there.
//!
//! Both say which service they are (a UUID) and how often they were marked. A mark is set at every start and every day, in
//! this order; what a power cut after each step leaves:
//!
//! 1. the mark in the database is one higher — the place is one behind: as good as before, the next mark mends it;
//! 2. the place's note says the same mark.
//!
//! So the place is never ahead of its database. Where it is, the database is an older copy: put back from a disk image, or
//! copied without its `-wal`. Such a database does not know the newest objects and nothing may be swept.
//!
//! A new service and a restored one take an empty place with an identity of their own. A service from before notes takes
//! its place at its first start, if the files that its rows name are there ([`may_claim`]).

use crate::{Store, StoreError, identifiers};
use serde::{Deserialize, Serialize};

/// Files of which a place that has no note is asked.
const SAMPLE: i64 = 64;

/// What the database, and the note in the objects' place, say of the service they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// A UUID.
    pub service: String,
    /// How often it was marked.
    pub mark: i64,
}

/// What the note in a place is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It cannot be read.
    Damaged,
    /// This one.
    Note(Note),
}

/// How the database and the objects' place stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// They belong together.
    Same,
    /// The place says nothing.
    Unclaimed,
    /// The place's note cannot be read.
    Damaged,
    /// The place belongs to another service, this one.
    Another(String),
    /// The place was marked by a newer state of this database.
    Older {
        /// The place's mark.
        place: i64,
        /// The database's mark.
        database: i64,
    },
}

/// Decides. Pure.
pub fn ownership(database: &Note, place: &Found) -> Ownership {
    match place {
        Found::Nothing => Ownership::Unclaimed,
        Found::Damaged => Ownership::Damaged,
        Found::Note(note) if note.service != database.service => Ownership::Another(note.service.clone()),
        Found::Note(note) if note.mark > database.mark => Ownership::Older { place: note.mark, database: database.mark },
        Found::Note(_) => Ownership::Same,
    }
}

/// Whether a service may take a place without a note: most of a sample of the files that its rows name are there, or it
/// names none and none is there.
pub fn may_claim(sample: usize, there: usize, place_is_empty: bool) -> bool {
    match sample {
        0 => place_is_empty,
        _ => there * 2 > sample,
    }
}

/// The identity of a service that had none: of what only its database, and every copy of that, holds.
pub(crate) fn derived_identity(sealed: &[u8]) -> String {
    let mut bytes = b"the identity of the service that owns this".to_vec();
    bytes.extend_from_slice(sealed);
    let digits = hex::encode(&ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()[..16]);
    // Version 8: of the maker's own making.
    format!("{}-{}-8{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

impl Store {
    /// Where the objects are, for people.
    pub fn objects_place(&self) -> String {
        self.blobs.shown()
    }

    /// What the database says of itself.
    pub async fn identity(&self) -> Result<Note, StoreError> {
        let (service, mark) = sqlx::query_as("SELECT identity, mark FROM service_owner WHERE number = 1")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("see which service this is", e))?;
        Ok(Note { service, mark })
    }

    /// How the database and the objects' place stand to each other. Changes nothing.
    pub async fn ownership(&self) -> Result<Ownership, StoreError> {
        // The place first: its mark is never ahead of the one that the database has after that.
        let place = self.blobs.note().await?;
        Ok(ownership(&self.identity().await?, &place))
    }

    /// What every start does: takes a place that is the service's and has no note yet, and marks it. Refused where the
    /// place is another service's. Any other answer but [`Ownership::Same`] means that nothing will be swept.
    pub async fn meet_objects_place(&self) -> Result<Ownership, StoreError> {
        let found = self.ownership().await?;
        match &found {
            Ownership::Same => {}
            Ownership::Unclaimed if self.may_claim_place().await? => {}
            Ownership::Another(there) => {
                let (place, here) = (self.objects_place(), self.identity().await?.service);
                return Err(StoreError::AnothersObjects { place, there: there.clone(), here });
            }
            _ => return Ok(found),
        }
        self.mark(0).await?;
        Ok(Ownership::Same)
    }

    /// Sets the next mark, if the place is the service's. For every day, and the end.
    pub async fn mark_objects_place(&self) -> Result<(), StoreError> {
        if self.ownership().await? == Ownership::Same { self.mark(0).await } else { Ok(()) }
    }

    /// The place belongs to this database from now on, whatever its note said. Its administrator knows.
    pub async fn adopt_objects_place(&self) -> Result<(), StoreError> {
        let ahead = match self.blobs.note().await? {
            Found::Note(note) => note.mark,
            _ => 0,
        };
        self.mark(ahead).await
    }

    /// A new service's empty place becomes its own.
    pub(crate) async fn take_objects_place(&self) -> Result<(), StoreError> {
        self.mark(0).await
    }

    /// A restored service is another one than that of the backup, which may still be somewhere with its objects.
    pub async fn begin_new_identity(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE service_owner SET identity = $1, mark = 0 WHERE number = 1")
            .bind(identifiers::uuid())
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("give the service an identity", e))?;
        // What the other one noted are files of its place.
        sqlx::query("DELETE FROM unnamed_file")
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("give the service an identity", e))?;
        self.take_objects_place().await
    }

    /// The two steps of the header.
    async fn mark(&self, at_least: i64) -> Result<(), StoreError> {
        let sql = "UPDATE service_owner SET mark = CASE WHEN mark < $1 THEN $1 ELSE mark END + 1 WHERE number = 1 \
                   RETURNING identity, mark";
        let (service, mark) = sqlx::query_as(sql)
            .bind(at_least)
            .fetch_one(&self.pool)
            .await
            .map_err(|e| StoreError::database("mark the service", e))?;
        self.blobs.set_note(&Note { service, mark }).await
    }

    async fn may_claim_place(&self) -> Result<bool, StoreError> {
        // Names are random: these are any.
        let sample: Vec<String> = sqlx::query_scalar("SELECT file FROM object ORDER BY file LIMIT $1")
            .bind(SAMPLE)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("look for objects' files", e))?;
        let mut there = 0;
        for file in &sample {
            there += usize::from(self.blobs.exists(file).await?);
        }
        Ok(may_claim(sample.len(), there, self.blobs.is_empty().await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_places;

    fn note(service: &str, mark: i64) -> Note {
        Note { service: service.into(), mark }
    }

    #[test]
    fn a_place_belongs_to_the_database_that_marked_it_last() {
        let at = |place: Found| ownership(&note("a", 5), &place);
        assert_eq!(at(Found::Nothing), Ownership::Unclaimed);
        assert_eq!(at(Found::Damaged), Ownership::Damaged);
        assert_eq!(at(Found::Note(note("b", 5))), Ownership::Another("b".into()));
        assert_eq!(at(Found::Note(note("a", 5))), Ownership::Same);
        assert_eq!(at(Found::Note(note("a", 4))), Ownership::Same, "the power was cut between the two steps");
        assert_eq!(at(Found::Note(note("a", 6))), Ownership::Older { place: 6, database: 5 });
    }

    #[test]
    fn a_place_without_a_note_is_taken_where_the_named_files_are() {
        assert!(may_claim(64, 64, false) && may_claim(3, 2, false) && may_claim(0, 0, true));
        assert!(!may_claim(0, 0, false), "an empty database and somebody's files");
        assert!(!may_claim(64, 0, true) && !may_claim(4, 2, false));
    }

    #[tokio::test]
    async fn a_power_cut_between_the_two_marks_is_mended_by_the_next() {
        for place in object_places().await {
            let store = place.create().await;
            assert_eq!(store.meet_objects_place().await.unwrap(), Ownership::Same);
            sqlx::query("UPDATE service_owner SET mark = mark + 1").execute(&store.pool).await.unwrap();
            assert_eq!(store.ownership().await.unwrap(), Ownership::Same);
            store.mark_objects_place().await.unwrap();
            assert_eq!(store.blobs.note().await.unwrap(), Found::Note(store.identity().await.unwrap()));
        }
    }

    #[tokio::test]
    async fn a_service_from_before_notes_takes_its_place_and_no_other() {
        for place in object_places().await {
            let store = place.create().await;
            store.put_bytes("b", "k", "x", b"bytes").await.unwrap();
            let before = async |store: &Store| {
                store.blobs.remove_note().await.unwrap();
                sqlx::query("UPDATE service_owner SET identity = '', mark = 0").execute(&store.pool).await.unwrap();
                store.close().await;
                place.open().await
            };
            let store = before(&store).await;
            let derived = store.identity().await.unwrap().service;
            assert_eq!(derived.len(), 36);
            assert_eq!(store.meet_objects_place().await.unwrap(), Ownership::Same);
            assert_eq!(store.blobs.note().await.unwrap(), Found::Note(note(&derived, 1)));
            // Every copy of its database comes to the same; one that knows nothing of the files does not take them.
            sqlx::query("DELETE FROM object").execute(&store.pool).await.unwrap();
            let store = before(&store).await;
            assert_eq!(store.identity().await.unwrap().service, derived);
            assert_eq!(store.meet_objects_place().await.unwrap(), Ownership::Unclaimed);
            assert_eq!(store.blobs.note().await.unwrap(), Found::Nothing);
        }
    }
}

//! Objects: rows in the database, bytes in blobs that are written once and never changed.
//!
//! Writing, and what a power cut after each step leaves:
//!
//! 1. a new blob under a random name is made safe — a blob that nobody names, swept later;
//! 2. one transaction makes the row point to it — the new object;
//! 3. the blob of the object it replaced is deleted — if not, swept.
//!
//! Reading is the other way round: the row, then its blob. Where the blob went between the two, the row has another one by
//! now, or is gone ([`Store::open_current`]); one that is open stays readable.

use crate::blobs::{Blobs, ObjectReader, Sink};
use crate::database::DatabaseRow;
use crate::metadata::{self, Metadata};
use crate::{Store, StoreError, identifiers, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use ring::digest::{Context, SHA256};
use sqlx::Row;
use tokio::io::AsyncReadExt;

/// The one list of the files that rows name, and what for.
pub(crate) const NAMED_FILES: &str = "SELECT file, size, sha256, bucket || '/' || key AS name FROM object \
     UNION ALL SELECT file, size, NULL AS sha256, 'part ' || number || ' of upload ' || upload_id AS name FROM upload_part";

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Base64 of the big-endian CRC-32; not for objects put together from parts.
    pub crc32: Option<String>,
    /// Media type.
    pub content_type: String,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// What came with it.
    pub metadata: Metadata,
    /// Sizes of the parts that it was put together from; none: in one piece, or not known.
    pub part_sizes: Vec<u64>,
    file: String,
}

/// An object's row and its bytes, of one moment.
pub struct Current {
    /// The row.
    pub object: ObjectInfo,
    /// The bytes that were chosen; `None` if none were.
    pub bytes: Option<ObjectReader>,
}

/// How often an object may be replaced between a look at its row and one at its bytes.
const ATTEMPTS: usize = 1000;

#[cfg(test)]
impl ObjectInfo {
    pub(crate) fn file_name(&self) -> &str {
        &self.file
    }
}

/// Bytes on their way into a blob.
pub struct ObjectWriter {
    sink: Sink,
    blob: Unnamed,
    size: u64,
    md5: Md5,
    sha256: Context,
    crc32: crc32fast::Hasher,
}

/// A blob that nobody names yet; deleted if nobody ever does.
struct Unnamed {
    blobs: Blobs,
    name: String,
    /// Whether there is anything to delete.
    safe: bool,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if self.safe {
            self.blobs.discard(&self.name);
        }
    }
}

/// Bytes that are safely in a blob which nobody names yet; deleted if nobody ever does.
pub struct Written {
    blob: Unnamed,
    /// Bytes.
    pub size: u64,
    /// MD5, which S3 calls the entity tag.
    pub md5: [u8; 16],
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Base64 of the big-endian CRC-32.
    pub crc32: String,
}

impl ObjectWriter {
    /// Adds bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sink.write(bytes).await?;
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        self.sha256.update(bytes);
        self.crc32.update(bytes);
        Ok(())
    }

    /// Makes the bytes safe.
    pub async fn finish(mut self) -> Result<Written, StoreError> {
        self.sink.finish().await?;
        self.blob.safe = true;
        Ok(Written {
            blob: self.blob,
            size: self.size,
            md5: self.md5.finalize().into(),
            sha256: hex::encode(self.sha256.finish()),
            crc32: BASE64_STANDARD.encode(self.crc32.finalize().to_be_bytes()),
        })
    }
}

impl Written {
    /// From now on somebody names the blob.
    pub(crate) fn keep(&mut self) {
        self.blob.safe = false;
    }
    pub(crate) fn name(&self) -> &str {
        &self.blob.name
    }
}

fn info(row: &DatabaseRow) -> Result<ObjectInfo, StoreError> {
    let error = |e| StoreError::database("read an object's row", e);
    Ok(ObjectInfo {
        bucket: row.try_get("bucket").map_err(error)?,
        key: row.try_get("key").map_err(error)?,
        size: row.try_get::<i64, _>("size").map_err(error)? as u64,
        etag: row.try_get("etag").map_err(error)?,
        sha256: row.try_get("sha256").map_err(error)?,
        crc32: row.try_get("crc32").map_err(error)?,
        content_type: row.try_get("content_type").map_err(error)?,
        modified_ms: row.try_get("modified_ms").map_err(error)?,
        metadata: Metadata::of(row.try_get("metadata").map_err(error)?)?,
        part_sizes: metadata::sizes(row.try_get("part_sizes").map_err(error)?),
        file: row.try_get("file").map_err(error)?,
    })
}

impl Store {
    /// Begins an object or a part of one.
    pub async fn object_writer(&self) -> Result<ObjectWriter, StoreError> {
        let name = identifiers::token::<16>();
        let sink = self.blobs.create(&name).await?;
        let blob = Unnamed { blobs: self.blobs.clone(), name, safe: false };
        let (md5, sha256, crc32) = (Md5::new(), Context::new(&SHA256), crc32fast::Hasher::new());
        Ok(ObjectWriter { sink, blob, size: 0, md5, sha256, crc32 })
    }

    /// Names what was written, in place of what had the name.
    pub async fn put_object(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        metadata: &Metadata,
        written: Written,
    ) -> Result<ObjectInfo, StoreError> {
        self.put_object_over(Seen::NotLookedAt, bucket, key, content_type, metadata, written).await
    }

    /// The same, if what lies there is still what was seen; otherwise [`StoreError::Changed`].
    pub async fn put_object_over(
        &self,
        seen: Seen,
        bucket: &str,
        key: &str,
        content_type: &str,
        metadata: &Metadata,
        written: Written,
    ) -> Result<ObjectInfo, StoreError> {
        let etag = hex::encode(written.md5);
        let crc32 = Some(written.crc32.clone());
        let new = NewObject { bucket, key, content_type, metadata, part_sizes: Vec::new(), etag, crc32 };
        self.name_object(new, written, seen).await
    }

    pub(crate) async fn name_object(
        &self,
        new: NewObject<'_>,
        mut written: Written,
        seen: Seen,
    ) -> Result<ObjectInfo, StoreError> {
        let object = ObjectInfo {
            bucket: new.bucket.to_owned(),
            key: new.key.to_owned(),
            size: written.size,
            etag: new.etag,
            sha256: written.sha256.clone(),
            crc32: new.crc32,
            content_type: new.content_type.to_owned(),
            modified_ms: now_ms(),
            metadata: new.metadata.clone(),
            part_sizes: new.part_sizes,
            file: written.name().to_owned(),
        };
        // In a task of its own: whoever gives up in the middle must not take the bytes away from a row that stays.
        let (store, named) = (self.clone(), object.clone());
        let naming = tokio::spawn(async move {
            let old = store.write_object_row(named, seen).await?;
            written.keep();
            if let Some(old) = old {
                store.blobs.forget(&old);
            }
            Ok(())
        });
        let stopped = |e| StoreError::Objects { operation: "name an object", detail: format!("{e}") };
        naming.await.map_err(stopped)?.map(|()| object)
    }

    /// Adds or replaces the row; the blob that it named before.
    async fn write_object_row(&self, new: ObjectInfo, seen: Seen) -> Result<Option<String>, StoreError> {
        let lock = format!("object {}/{}", new.bucket, new.key);
        let written = self.change(Some(&lock), move |connection| {
            Box::pin(async move {
                let old: Option<String> = sqlx::query_scalar("SELECT file FROM object WHERE bucket = $1 AND key = $2")
                    .bind(&new.bucket)
                    .bind(&new.key)
                    .fetch_optional(&mut *connection)
                    .await?;
                if !seen.is_still(old.as_deref()) {
                    return Ok(None);
                }
                sqlx::query(
                    "INSERT INTO object (bucket, key, size, etag, sha256, crc32, content_type, modified_ms, file, metadata, \
                     part_sizes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (bucket, key) DO UPDATE \
                     SET size = $3, etag = $4, sha256 = $5, crc32 = $6, content_type = $7, modified_ms = $8, file = $9, \
                     metadata = $10, part_sizes = $11",
                )
                .bind(new.bucket)
                .bind(new.key)
                .bind(new.size as i64)
                .bind(new.etag)
                .bind(new.sha256)
                .bind(new.crc32)
                .bind(new.content_type)
                .bind(new.modified_ms)
                .bind(new.file)
                .bind(new.metadata.stored())
                .bind(metadata::stored_sizes(&new.part_sizes))
                .execute(connection)
                .await?;
                Ok(Some(old))
            })
        });
        written.await.map_err(|e| StoreError::database("store an object's row", e))?.ok_or(StoreError::Changed)
    }

    /// Writes a small object whole.
    pub async fn put_bytes(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        bytes: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        let mut writer = self.object_writer().await?;
        writer.write(bytes).await?;
        self.put_object(bucket, key, content_type, &Metadata::default(), writer.finish().await?).await
    }

    /// What is known of an object.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let row = sqlx::query("SELECT * FROM object WHERE bucket = $1 AND key = $2")
            .bind(bucket)
            .bind(key)
            .fetch_optional(&self.pool)
            .await;
        row.map_err(|e| StoreError::database("look up an object", e))?.as_ref().map(info).transpose()
    }

    /// The bytes of an object. They stay readable when the object is replaced meanwhile.
    pub async fn open_object(&self, object: &ObjectInfo) -> Result<ObjectReader, StoreError> {
        self.open_object_range(object, 0, object.size).await
    }

    /// `length` bytes of an object from `start` on.
    pub async fn open_object_range(&self, object: &ObjectInfo, start: u64, length: u64) -> Result<ObjectReader, StoreError> {
        let length = length.min(object.size.saturating_sub(start));
        self.blobs.open(&object.file, start, length).await
    }

    /// An object as it is now, and those of its bytes that `choose` wants (start and length), whatever is done to it at the
    /// same time: old or new, and whole. `choose` may be asked again, about a newer one. `None`: there is none, any more.
    pub async fn open_current(
        &self,
        bucket: &str,
        key: &str,
        choose: impl Fn(&ObjectInfo) -> Option<(u64, u64)>,
    ) -> Result<Option<Current>, StoreError> {
        let mut gone = String::new();
        for _ in 0..ATTEMPTS {
            let Some(object) = self.object(bucket, key).await? else { return Ok(None) };
            let Some((start, length)) = choose(&object) else { return Ok(Some(Current { object, bytes: None })) };
            match self.open_object_range(&object, start, length).await {
                Ok(bytes) => return Ok(Some(Current { object, bytes: Some(bytes) })),
                // Not replaced meanwhile, but lost.
                Err(e) if object.file == gone || !e.is_missing() => return Err(e),
                Err(_) => gone = object.file,
            }
        }
        Err(StoreError::Missing { what: "the bytes of an object that is replaced all the time" })
    }

    /// A small object whole; `None` if there is none or it is larger than `limit`.
    pub async fn read_object(&self, bucket: &str, key: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let whole = |object: &ObjectInfo| (object.size <= limit).then_some((0, object.size));
        let Some(Current { object, bytes: Some(mut reader) }) = self.open_current(bucket, key, whole).await? else {
            return Ok(None);
        };
        let failed = |detail: String| StoreError::Objects { operation: "read an object", detail };
        let mut bytes = Vec::with_capacity(object.size as usize);
        reader.read_to_end(&mut bytes).await.map_err(|e| failed(e.to_string()))?;
        if bytes.len() as u64 != object.size {
            return Err(failed(format!("{bucket}/{key} has {} bytes instead of {}", bytes.len(), object.size)));
        }
        Ok(Some(bytes))
    }

    /// Objects whose keys begin with `prefix` and come after `after`, by key.
    pub async fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM object WHERE bucket = $1 AND key >= $2 AND key > $3 AND substr(key, 1, length($2)) = $2 \
             ORDER BY key LIMIT $4",
        )
        .bind(bucket)
        .bind(prefix)
        .bind(after)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await;
        rows.map_err(|e| StoreError::database("list objects", e))?.iter().map(info).collect()
    }

    /// Removes an object; false if there was none.
    pub async fn delete_object(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        self.delete_object_over(Seen::NotLookedAt, bucket, key).await
    }

    /// The same, if what lies there is still what was seen; otherwise [`StoreError::Changed`].
    pub async fn delete_object_over(&self, seen: Seen, bucket: &str, key: &str) -> Result<bool, StoreError> {
        let only = match &seen {
            Seen::NotLookedAt => None,
            Seen::Nothing => return Ok(false),
            Seen::Blob(file) => Some(file),
        };
        let delete = "DELETE FROM object WHERE bucket = $1 AND key = $2 AND file = COALESCE($3, file) RETURNING file";
        let file: Option<String> = sqlx::query_scalar(delete)
            .bind(bucket)
            .bind(key)
            .bind(only)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("delete an object", e))?;
        match &file {
            Some(file) => self.blobs.forget(file),
            None if only.is_some() => return Err(StoreError::Changed),
            None => {}
        }
        Ok(file.is_some())
    }
}

/// What lay at a key when it was decided to write or delete there. Somebody else may be there before it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen {
    /// It does not matter.
    #[default]
    NotLookedAt,
    /// No object.
    Nothing,
    /// The object in this blob: each write has another one.
    Blob(String),
}

impl Seen {
    /// What was looked at.
    pub fn of(known: Option<&ObjectInfo>) -> Seen {
        known.map_or(Seen::Nothing, |object| Seen::Blob(object.file.clone()))
    }

    fn is_still(&self, file: Option<&str>) -> bool {
        match self {
            Seen::NotLookedAt => true,
            Seen::Nothing => file.is_none(),
            Seen::Blob(seen) => file == Some(seen),
        }
    }
}

/// What a row is made of, beside what was written.
pub(crate) struct NewObject<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) metadata: &'a Metadata,
    pub(crate) part_sizes: Vec<u64>,
    pub(crate) etag: String,
    pub(crate) crc32: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_places;
    use std::time::Duration;

    async fn blobs(store: &Store) -> usize {
        store.blobs.all().await.unwrap().len()
    }

    /// Two who write only where nothing is: both had looked before either wrote, and the second one won.
    #[tokio::test]
    async fn what_was_decided_about_is_what_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        let put = async |seen: &Seen, bytes: &[u8]| {
            let mut writer = store.object_writer().await.unwrap();
            writer.write(bytes).await.unwrap();
            let written = writer.finish().await.unwrap();
            store.put_object_over(seen.clone(), "b", "k", "x", &Metadata::default(), written).await
        };
        let first = put(&Seen::Nothing, b"one").await.unwrap();
        assert!(matches!(put(&Seen::Nothing, b"two").await, Err(StoreError::Changed)));
        let seen = Seen::of(Some(&first));
        put(&seen, b"three").await.unwrap();
        assert!(matches!(put(&seen, b"four").await, Err(StoreError::Changed)));
        assert!(matches!(store.delete_object_over(seen, "b", "k").await, Err(StoreError::Changed)));
        assert_eq!(blobs(&store).await, 1, "what was not named is not left");
        let now = store.object("b", "k").await.unwrap();
        assert_eq!(now.as_ref().map(|object| object.size), Some(5));
        assert!(store.delete_object_over(Seen::of(now.as_ref()), "b", "k").await.unwrap());
        assert!(!store.delete_object_over(Seen::Nothing, "b", "k").await.unwrap());
    }

    /// Blobs of buckets are deleted in the background.
    async fn comes_to(store: &Store, count: usize) {
        for _ in 0..100 {
            if blobs(store).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} blobs instead of {count}", blobs(store).await);
    }

    #[tokio::test]
    async fn an_object_is_replaced_whole_and_its_old_bytes_go() {
        for place in object_places().await {
            let store = place.create().await;
            let first = store.put_bytes("b", "k", "text/plain", b"one").await.unwrap();
            let mut open = store.open_object(&first).await.unwrap();
            let second = store.put_bytes("b", "k", "text/plain", b"hello").await.unwrap();
            assert_eq!(second.etag, "5d41402abc4b2a76b9719d911017c592");
            assert_eq!(second.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
            assert_eq!(second.crc32.as_deref(), Some("NhCmhg=="));
            assert_eq!(store.read_object("b", "k", 5).await.unwrap().unwrap(), b"hello");
            assert_eq!(store.read_object("b", "k", 4).await.unwrap(), None);
            let mut old = String::new();
            open.read_to_string(&mut old).await.unwrap();
            assert_eq!(old, "one", "who reads the old bytes may finish");
            drop(open);
            comes_to(&store, 1).await;
            assert!(store.open_object(&first).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_is_not_finished_or_not_named_leaves_no_blob() {
        for place in object_places().await {
            let store = place.create().await;
            let mut writer = store.object_writer().await.unwrap();
            writer.write(b"half").await.unwrap();
            drop(writer);
            drop(store.object_writer().await.unwrap().finish().await.unwrap());
            comes_to(&store, 0).await;
        }
    }

    /// Service x04: an object that is replaced all the time reads as one of those that were put there, whole.
    #[tokio::test]
    async fn an_object_that_is_replaced_reads_as_old_or_new_always() {
        let long = std::env::var("BELVEDERE_LONG").is_ok_and(|v| v == "1");
        for place in object_places().await {
            let store = place.create().await;
            store.put_bytes("b", "k", "x", &[0; 4000]).await.unwrap();
            let writer = tokio::spawn({
                let store = store.clone();
                async move {
                    for round in 0..if long { 20_000u32 } else { 300 } {
                        let bytes = vec![round as u8; 1 + (round as usize * 37) % 5000];
                        store.put_bytes("b", "k", "x", &bytes).await.unwrap();
                        if round % 10 == 9 {
                            store.delete_object("b", "k").await.unwrap();
                        }
                    }
                }
            });
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let (store, mut reads) = (store.clone(), 0);
                    let done = writer.abort_handle();
                    tokio::spawn(async move {
                        while !done.is_finished() {
                            let from = |object: &ObjectInfo| Some((object.size / 2, object.size));
                            if let Some(current) = store.open_current("b", "k", from).await.unwrap() {
                                let mut bytes = Vec::new();
                                current.bytes.unwrap().read_to_end(&mut bytes).await.unwrap();
                                let size = current.object.size;
                                assert_eq!(bytes.len() as u64, size - size / 2);
                                assert!(bytes.iter().all(|b| *b == bytes[0]), "of one object only");
                                reads += 1;
                            }
                        }
                        reads
                    })
                })
                .collect();
            writer.await.unwrap();
            let mut reads = 0;
            for reader in readers {
                reads += reader.await.unwrap();
            }
            assert!(reads > 0);
            println!("measured: {reads} reads of an object that was replaced all the time");
        }
    }

    /// The row is there and its bytes are not: that is said, and not tried again for ever.
    #[tokio::test]
    async fn an_object_whose_bytes_are_lost_is_an_error() {
        for place in object_places().await {
            let store = place.create().await;
            let object = store.put_bytes("b", "k", "x", b"one").await.unwrap();
            store.blobs.remove(&object.file).await.unwrap();
            assert!(store.read_object("b", "k", 9).await.is_err());
        }
    }

    /// In a bucket a blob is read in pieces: it stays for whoever reads it.
    #[tokio::test]
    async fn who_reads_slowly_gets_all_of_an_object_that_was_replaced_long_ago() {
        for place in object_places().await {
            let store = place.create().await;
            let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
            let object = store.put_bytes("b", "k", "x", &bytes).await.unwrap();
            let mut reader = store.open_object(&object).await.unwrap();
            store.put_bytes("b", "k", "x", b"new").await.unwrap();
            // Longer than a blob that nobody reads stays in these tests.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let mut read = Vec::new();
            reader.read_to_end(&mut read).await.unwrap();
            assert!(read == bytes);
            drop(reader);
            comes_to(&store, 1).await;
        }
    }

    #[tokio::test]
    async fn what_came_with_an_object_comes_back() {
        for place in object_places().await {
            let store = place.create().await;
            let mut metadata = Metadata::default();
            metadata.user.insert("camera".into(), "front".into());
            metadata.headers.insert("cache-control".into(), "no-store".into());
            let written = store.object_writer().await.unwrap().finish().await.unwrap();
            store.put_object("b", "k", "x", &metadata, written).await.unwrap();
            assert_eq!(store.object("b", "k").await.unwrap().unwrap().metadata, metadata);
            store.put_bytes("b", "k", "x", b"").await.unwrap();
            assert_eq!(store.object("b", "k").await.unwrap().unwrap().metadata, Metadata::default());
        }
    }

    #[tokio::test]
    async fn large_objects_and_parts_of_them_come_back_as_they_went() {
        // Three parts of a bucket's upload, the last one small.
        let bytes: Vec<u8> = (0..17_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for place in object_places().await {
            let store = place.create().await;
            let mut writer = store.object_writer().await.unwrap();
            for piece in bytes.chunks(1_000_000) {
                writer.write(piece).await.unwrap();
            }
            let written = writer.finish().await.unwrap();
            let object = store.put_object("b", "large", "x", &Metadata::default(), written).await.unwrap();
            assert_eq!(object.size, bytes.len() as u64);
            let mut read = Vec::new();
            store.open_object(&object).await.unwrap().read_to_end(&mut read).await.unwrap();
            assert!(read == bytes, "other bytes came back");
            for (start, length) in [(0u64, 1u64), (8 << 20, 4 << 20), (17_000_000, 3), (17_000_000, 99), (5, 0)] {
                let mut part = Vec::new();
                store.open_object_range(&object, start, length).await.unwrap().read_to_end(&mut part).await.unwrap();
                let end = (start + length).min(object.size);
                assert!(part == bytes[start as usize..end as usize], "{start}+{length}");
            }
            // Exactly one part, and nothing.
            for size in [8 << 20, 0] {
                store.put_bytes("b", "k", "x", &bytes[..size]).await.unwrap();
                assert!(store.read_object("b", "k", 8 << 20).await.unwrap().unwrap() == bytes[..size]);
            }
        }
    }

    #[tokio::test]
    async fn an_upload_in_parts_is_one_object_in_the_end() {
        for place in object_places().await {
            let store = place.create().await;
            let mut metadata = Metadata::default();
            metadata.user.insert("camera".into(), "front".into());
            let id = store.create_upload("b", "k", "x", &metadata).await.unwrap();
            let upload = store.upload(&id, "b", "k").await.unwrap().unwrap();
            for (number, text) in [(2, "world"), (1, "lost"), (1, "hello ")] {
                let mut writer = store.object_writer().await.unwrap();
                writer.write(text.as_bytes()).await.unwrap();
                store.put_part(&upload, number, writer.finish().await.unwrap()).await.unwrap();
            }
            let parts = store.parts(&upload).await.unwrap();
            let object = store.complete_upload(&upload, &parts, Seen::NotLookedAt).await.unwrap();
            assert_eq!(store.read_object("b", "k", 99).await.unwrap().unwrap(), b"hello world");
            assert!(object.etag.ends_with("-2"), "{}", object.etag);
            let object = store.object("b", "k").await.unwrap().unwrap();
            assert_eq!((object.part_sizes, object.metadata), (vec![6, 5], metadata));
            assert!(store.upload(&id, "b", "k").await.unwrap().is_none());
            comes_to(&store, 1).await;
        }
    }

    #[tokio::test]
    async fn lists_go_by_key_and_prefix() {
        for place in object_places().await {
            let store = place.create().await;
            for key in ["a/1", "a/2", "a%", "b/1", "A/1", "ä"] {
                store.put_bytes("b", key, "x", b"").await.unwrap();
            }
            let keys = |list: Vec<ObjectInfo>| list.into_iter().map(|o| o.key).collect::<Vec<_>>();
            assert_eq!(keys(store.list_objects("b", "a/", "", 9).await.unwrap()), ["a/1", "a/2"]);
            assert_eq!(keys(store.list_objects("b", "", "a/1", 2).await.unwrap()), ["a/2", "b/1"]);
            assert_eq!(keys(store.list_objects("b", "", "", 9).await.unwrap()), ["A/1", "a%", "a/1", "a/2", "b/1", "ä"]);
            assert!(store.delete_object("b", "a/1").await.unwrap());
            assert!(!store.delete_object("b", "a/1").await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_or_refuses_is_named_and_its_keys_are_not() {
        let [_, mut place] = object_places().await;
        let secret = place.places.objects.as_ref().unwrap().credentials.secret.clone();
        let refused = {
            let objects = place.places.objects.as_mut().unwrap();
            objects.credentials.secret = format!("not-{secret}");
            Store::create_in(place.folder.path(), &place.places).await.err().unwrap().to_string()
        };
        assert!(refused.contains("403") && !refused.contains(&secret) && !refused.contains("Signature="), "{refused}");
        place.places.objects.as_mut().unwrap().url.endpoint = "http://127.0.0.1:1".parse().unwrap();
        let silent = Store::create_in(place.folder.path(), &place.places).await.err().unwrap().to_string();
        assert!(silent.contains("refused") && !silent.contains("Signature="), "{silent}");
    }
}

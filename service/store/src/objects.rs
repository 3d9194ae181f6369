//! Objects: rows in the database, bytes in blobs that are written once and never changed.
//!
//! Writing, and what a power cut after each step leaves:
//!
//! 1. a new blob under a random name is made safe — a blob that nobody names, swept later;
//! 2. one transaction makes the row point to it — the new object;
//! 3. the blob of the object it replaced is deleted — if not, swept.

use crate::blobs::{Blobs, ObjectReader, Sink};
use crate::database::DatabaseRow;
use crate::{Store, StoreError, identifiers, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use ring::digest::{Context, SHA256};
use sqlx::Row;
use std::collections::HashSet;
use tokio::io::AsyncReadExt;

/// The one list of the files that rows name, and what for.
pub(crate) const NAMED_FILES: &str = "SELECT file, size, sha256, bucket || '/' || key AS name FROM object \
     UNION ALL SELECT file, size, NULL AS sha256, 'part ' || number || ' of upload ' || upload_id AS name FROM upload_part";

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    file: String,
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
        written: Written,
    ) -> Result<ObjectInfo, StoreError> {
        let etag = hex::encode(written.md5);
        let crc32 = Some(written.crc32.clone());
        self.name_object(bucket, key, content_type, written, etag, crc32).await
    }

    pub(crate) async fn name_object(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        mut written: Written,
        etag: String,
        crc32: Option<String>,
    ) -> Result<ObjectInfo, StoreError> {
        let object = ObjectInfo {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size: written.size,
            etag,
            sha256: written.sha256.clone(),
            crc32,
            content_type: content_type.to_owned(),
            modified_ms: now_ms(),
            file: written.name().to_owned(),
        };
        // In a task of its own: whoever gives up in the middle must not take the bytes away from a row that stays.
        let (store, named) = (self.clone(), object.clone());
        let naming = tokio::spawn(async move {
            let old = store.write_object_row(named).await?;
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
    async fn write_object_row(&self, new: ObjectInfo) -> Result<Option<String>, StoreError> {
        let lock = format!("object {}/{}", new.bucket, new.key);
        let written = self.change(Some(&lock), move |connection| {
            Box::pin(async move {
                let old: Option<String> = sqlx::query_scalar("SELECT file FROM object WHERE bucket = $1 AND key = $2")
                    .bind(&new.bucket)
                    .bind(&new.key)
                    .fetch_optional(&mut *connection)
                    .await?;
                sqlx::query(
                    "INSERT INTO object (bucket, key, size, etag, sha256, crc32, content_type, modified_ms, file) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (bucket, key) DO UPDATE SET size = $3, \
                     etag = $4, sha256 = $5, crc32 = $6, content_type = $7, modified_ms = $8, file = $9",
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
                .execute(connection)
                .await?;
                Ok(old)
            })
        });
        written.await.map_err(|e| StoreError::database("store an object's row", e))
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
        self.put_object(bucket, key, content_type, writer.finish().await?).await
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

    /// A small object whole; `None` if there is none or it is larger than `limit`.
    pub async fn read_object(&self, bucket: &str, key: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(object) = self.object(bucket, key).await?.filter(|o| o.size <= limit) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(object.size as usize);
        let read = self.open_object(&object).await?.read_to_end(&mut bytes).await;
        read.map_err(|e| StoreError::Objects { operation: "read an object", detail: e.to_string() })?;
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
        let file: Option<String> = sqlx::query_scalar("DELETE FROM object WHERE bucket = $1 AND key = $2 RETURNING file")
            .bind(bucket)
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("delete an object", e))?;
        if let Some(file) = &file {
            self.blobs.forget(file);
        }
        Ok(file.is_some())
    }

    /// Deletes blobs that no row names: of a directory all, before anything is written; of a bucket, which other copies
    /// of the service write to, those that are older than a day.
    pub async fn sweep_objects(&self) -> Result<usize, StoreError> {
        let (mut swept, mut after) = (0, String::new());
        loop {
            let (mut candidates, last) = self.blobs.waste(&after).await?;
            candidates.sort_unstable();
            if let (Some(first), Some(last)) = (candidates.first(), candidates.last()) {
                let named: Vec<String> = sqlx::query_scalar(
                    "SELECT file FROM object WHERE file >= $1 AND file <= $2 \
                     UNION ALL SELECT file FROM upload_part WHERE file >= $1 AND file <= $2",
                )
                .bind(first)
                .bind(last)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("list objects' blobs", e))?;
                let named: HashSet<String> = named.into_iter().collect();
                swept += self.blobs.sweep(&candidates, &named).await?;
            }
            match last {
                Some(last) => after = last,
                None => return Ok(swept),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_places;
    use std::time::Duration;

    async fn blobs(store: &Store) -> usize {
        store.blobs.waste_of_any_age().await.unwrap().0.len()
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
            // A power cut runs no destructors: the sweep finds what it left; in a bucket, once it is a day old.
            std::mem::forget(store.object_writer().await.unwrap().finish().await.unwrap());
            store.put_bytes("b", "k", "x", b"kept").await.unwrap();
            let swept = if store.objects_are_shared() { 0 } else { 1 };
            assert_eq!(store.sweep_objects().await.unwrap(), swept);
            assert_eq!(store.read_object("b", "k", 9).await.unwrap().unwrap(), b"kept");
            let (first, _) = store.blobs.waste_of_any_age().await.unwrap();
            assert_eq!(first.len(), 2 - swept);
            let kept: HashSet<String> = [store.object("b", "k").await.unwrap().unwrap().file].into();
            assert_eq!(store.blobs.sweep(&first, &kept).await.unwrap(), 1 - swept);
            comes_to(&store, 1).await;
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
            let object = store.put_object("b", "large", "x", written).await.unwrap();
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
            let id = store.create_upload("b", "k", "x").await.unwrap();
            let upload = store.upload(&id, "b", "k").await.unwrap().unwrap();
            for (number, text) in [(2, "world"), (1, "lost"), (1, "hello ")] {
                let mut writer = store.object_writer().await.unwrap();
                writer.write(text.as_bytes()).await.unwrap();
                store.put_part(&upload, number, writer.finish().await.unwrap()).await.unwrap();
            }
            let parts = store.parts(&upload).await.unwrap();
            let object = store.complete_upload(&upload, &parts).await.unwrap();
            assert_eq!(store.read_object("b", "k", 99).await.unwrap().unwrap(), b"hello world");
            assert!(object.etag.ends_with("-2"), "{}", object.etag);
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

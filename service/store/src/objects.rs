//! Objects: rows in the database, bytes in files that are written once and never changed.
//!
//! Writing, and what a power cut after each step leaves:
//!
//! 1. a new file under a random name is written and synced — a file that nobody names, swept at the next start;
//! 2. its directory is synced — likewise;
//! 3. one transaction makes the row point to it — the new object;
//! 4. the file of the object it replaced is deleted — if not, swept.

use crate::database::DatabaseRow;
use crate::{Store, StoreError, identifiers, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use ring::digest::{Context, SHA256};
use sqlx::Row;
use std::collections::HashSet;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;

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

/// Bytes on their way into a file.
pub struct ObjectWriter {
    file: tokio::fs::File,
    path: PathBuf,
    name: String,
    size: u64,
    md5: Md5,
    sha256: Context,
    crc32: crc32fast::Hasher,
    kept: bool,
}

/// Bytes that are safely in a file which nobody names yet; deleted if nobody ever does.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    name: String,
    kept: bool,
    /// Bytes.
    pub size: u64,
    /// MD5, which S3 calls the entity tag.
    pub md5: [u8; 16],
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Base64 of the big-endian CRC-32.
    pub crc32: String,
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl ObjectWriter {
    /// Adds bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).await.map_err(|e| StoreError::io("write", &self.path, e))?;
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        self.sha256.update(bytes);
        self.crc32.update(bytes);
        Ok(())
    }

    /// Makes the bytes safe.
    pub async fn finish(mut self) -> Result<Written, StoreError> {
        let error = |e| StoreError::io("write", &self.path, e);
        self.file.flush().await.map_err(error)?;
        self.file.sync_all().await.map_err(error)?;
        if let Some(parent) = self.path.parent() {
            let directory = tokio::fs::File::open(parent).await.map_err(error)?;
            directory.sync_all().await.map_err(error)?;
        }
        self.kept = true;
        Ok(Written {
            path: self.path.clone(),
            name: self.name.clone(),
            kept: false,
            size: self.size,
            md5: self.md5.clone().finalize().into(),
            sha256: hex::encode(self.sha256.clone().finish()),
            crc32: BASE64_STANDARD.encode(self.crc32.clone().finalize().to_be_bytes()),
        })
    }
}

impl Written {
    /// The file's name; from now on somebody names it.
    pub(crate) fn keep(&mut self) -> String {
        self.kept = true;
        self.name.clone()
    }
    pub(crate) fn name(&self) -> &str {
        &self.name
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
    pub(crate) fn object_path(&self, name: &str) -> PathBuf {
        self.objects.join(name.get(..2).unwrap_or("xx")).join(name)
    }

    /// Begins an object or a part of one.
    pub async fn object_writer(&self) -> Result<ObjectWriter, StoreError> {
        let name = identifiers::token::<16>();
        let path = self.object_path(&name);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(|e| StoreError::io("create", parent, e))?;
        }
        let file = tokio::fs::File::create_new(&path).await.map_err(|e| StoreError::io("create", &path, e))?;
        let (md5, sha256, crc32) = (Md5::new(), Context::new(&SHA256), crc32fast::Hasher::new());
        Ok(ObjectWriter { file, path, name, size: 0, md5, sha256, crc32, kept: false })
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
        let error = |e| StoreError::database("store an object's row", e);
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
        let mut transaction = self.begin_exclusive(&format!("object {bucket}/{key}")).await.map_err(error)?;
        let old: Option<String> = sqlx::query_scalar("SELECT file FROM object WHERE bucket = $1 AND key = $2")
            .bind(bucket)
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query(
            "INSERT INTO object (bucket, key, size, etag, sha256, crc32, content_type, modified_ms, file) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (bucket, key) DO UPDATE SET size = $3, etag = $4, \
             sha256 = $5, crc32 = $6, content_type = $7, modified_ms = $8, file = $9",
        )
        .bind(bucket)
        .bind(key)
        .bind(object.size as i64)
        .bind(&object.etag)
        .bind(&object.sha256)
        .bind(&object.crc32)
        .bind(content_type)
        .bind(object.modified_ms)
        .bind(&object.file)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        written.keep();
        if let Some(old) = old {
            let _ = tokio::fs::remove_file(self.object_path(&old)).await;
        }
        Ok(object)
    }

    /// Writes a small object whole.
    pub async fn put_bytes(&self, bucket: &str, key: &str, content_type: &str, bytes: &[u8]) -> Result<ObjectInfo, StoreError> {
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

    /// The file of an object, open for reading. It stays readable when the object is replaced meanwhile.
    pub async fn open_object(&self, object: &ObjectInfo) -> Result<tokio::fs::File, StoreError> {
        let path = self.object_path(&object.file);
        tokio::fs::File::open(&path).await.map_err(|e| StoreError::io("open", &path, e))
    }

    /// A small object whole; `None` if there is none or it is larger than `limit`.
    pub async fn read_object(&self, bucket: &str, key: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(object) = self.object(bucket, key).await?.filter(|o| o.size <= limit) else { return Ok(None) };
        let path = self.object_path(&object.file);
        tokio::fs::read(&path).await.map(Some).map_err(|e| StoreError::io("read", &path, e))
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
            let _ = tokio::fs::remove_file(self.object_path(file)).await;
        }
        Ok(file.is_some())
    }

    /// Deletes files that no row names. Only when nothing is being written: at the start.
    pub async fn sweep_objects(&self) -> Result<usize, StoreError> {
        let named: Vec<String> = sqlx::query_scalar("SELECT file FROM object UNION ALL SELECT file FROM upload_part")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list objects' files", e))?;
        let named: HashSet<String> = named.into_iter().collect();
        let root = self.objects.clone();
        let swept = tokio::task::spawn_blocking(move || -> std::io::Result<usize> {
            let mut swept = 0;
            for folder in std::fs::read_dir(&root)? {
                let folder = folder?.path();
                if !folder.is_dir() {
                    continue;
                }
                for file in std::fs::read_dir(folder)? {
                    let file = file?;
                    if !named.contains(file.file_name().to_string_lossy().as_ref()) {
                        std::fs::remove_file(file.path())?;
                        swept += 1;
                    }
                }
            }
            Ok(swept)
        });
        match swept.await {
            Ok(done) => done.map_err(|e| StoreError::io("sweep", &self.objects, e)),
            Err(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    fn files(store: &Store) -> usize {
        let folders = std::fs::read_dir(&store.objects).unwrap();
        folders.map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().count()).sum()
    }

    #[tokio::test]
    async fn an_object_is_replaced_whole_and_its_old_bytes_go() {
        for place in places().await {
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
            tokio::io::AsyncReadExt::read_to_string(&mut open, &mut old).await.unwrap();
            assert_eq!((old.as_str(), files(&store)), ("one", 1), "who reads the old bytes may finish");
        }
    }

    #[tokio::test]
    async fn what_is_not_finished_or_not_named_leaves_no_file() {
        for place in places().await {
            let store = place.create().await;
            let mut writer = store.object_writer().await.unwrap();
            writer.write(b"half").await.unwrap();
            drop(writer);
            drop(store.object_writer().await.unwrap().finish().await.unwrap());
            assert_eq!(files(&store), 0);
            // A power cut runs no destructors: the sweep at the start finds what it left.
            std::mem::forget(store.object_writer().await.unwrap().finish().await.unwrap());
            store.put_bytes("b", "k", "x", b"kept").await.unwrap();
            assert_eq!(store.sweep_objects().await.unwrap(), 1);
            assert_eq!(store.read_object("b", "k", 9).await.unwrap().unwrap(), b"kept");
        }
    }

    #[tokio::test]
    async fn lists_go_by_key_and_prefix() {
        for place in places().await {
            let store = place.create().await;
            for key in ["a/1", "a/2", "a%", "b/1", "A/1"] {
                store.put_bytes("b", key, "x", b"").await.unwrap();
            }
            let keys = |list: Vec<ObjectInfo>| list.into_iter().map(|o| o.key).collect::<Vec<_>>();
            assert_eq!(keys(store.list_objects("b", "a/", "", 9).await.unwrap()), ["a/1", "a/2"]);
            assert_eq!(keys(store.list_objects("b", "", "a/1", 2).await.unwrap()), ["a/2", "b/1"]);
            assert!(store.delete_object("b", "a/1").await.unwrap());
            assert!(!store.delete_object("b", "a/1").await.unwrap());
        }
    }
}

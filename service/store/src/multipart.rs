//! Uploads in parts. A part is a blob of its own until the upload is completed or aborted.

use crate::metadata::Metadata;
use crate::objects::{NewObject, ObjectInfo, Seen, Written};
use crate::{Store, StoreError, identifiers, now_ms};
use md5::{Digest, Md5};
use tokio::io::AsyncReadExt;

/// An upload that was begun.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Opaque.
    pub upload_id: String,
    /// Of the object to be.
    pub bucket: String,
    /// Of the object to be.
    pub key: String,
    /// Of the object to be.
    pub content_type: String,
    /// Of the object to be.
    pub metadata: Metadata,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: i64,
    /// Bytes.
    pub size: u64,
    /// MD5, hexadecimal.
    pub etag: String,
    file: String,
}

impl Store {
    /// Begins an upload.
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        metadata: &Metadata,
    ) -> Result<String, StoreError> {
        let id = identifiers::token::<16>();
        let sql = "INSERT INTO upload (upload_id, bucket, key, content_type, created_ms, metadata) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(&id)
            .bind(bucket)
            .bind(key)
            .bind(content_type)
            .bind(now_ms())
            .bind(metadata.stored())
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("begin an upload", e))?;
        Ok(id)
    }

    /// An upload, if it is one of this object.
    pub async fn upload(&self, upload_id: &str, bucket: &str, key: &str) -> Result<Option<Upload>, StoreError> {
        let sql = "SELECT content_type, metadata FROM upload WHERE upload_id = $1 AND bucket = $2 AND key = $3";
        let found: Option<(String, String)> = sqlx::query_as(sql)
            .bind(upload_id)
            .bind(bucket)
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up an upload", e))?;
        let Some((content_type, metadata)) = found else { return Ok(None) };
        Ok(Some(Upload {
            upload_id: upload_id.into(),
            bucket: bucket.into(),
            key: key.into(),
            content_type,
            metadata: Metadata::of(&metadata)?,
        }))
    }

    /// Adds or replaces a part; false if the upload ended meanwhile.
    pub async fn put_part(&self, upload: &Upload, number: i64, mut written: Written) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("store a part", e);
        let mut transaction = self.begin_exclusive(&format!("upload {}", upload.upload_id)).await.map_err(error)?;
        let goes_on: Option<String> = sqlx::query_scalar("SELECT upload_id FROM upload WHERE upload_id = $1")
            .bind(&upload.upload_id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(error)?;
        if goes_on.is_none() {
            return Ok(false);
        }
        let old: Option<String> = sqlx::query_scalar("SELECT file FROM upload_part WHERE upload_id = $1 AND number = $2")
            .bind(&upload.upload_id)
            .bind(number)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query(
            "INSERT INTO upload_part (upload_id, number, size, etag, file) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (upload_id, number) DO UPDATE SET size = $3, etag = $4, file = $5",
        )
        .bind(&upload.upload_id)
        .bind(number)
        .bind(written.size as i64)
        .bind(hex::encode(written.md5))
        .bind(written.name())
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        written.keep();
        if let Some(old) = old {
            self.blobs.forget(&old);
        }
        Ok(true)
    }

    /// The parts that are there, by number.
    pub async fn parts(&self, upload: &Upload) -> Result<Vec<Part>, StoreError> {
        let rows: Vec<(i64, i64, String, String)> =
            sqlx::query_as("SELECT number, size, etag, file FROM upload_part WHERE upload_id = $1 ORDER BY number")
                .bind(&upload.upload_id)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("list parts", e))?;
        Ok(rows.into_iter().map(|(number, size, etag, file)| Part { number, size: size as u64, etag, file }).collect())
    }

    /// Makes the object of `parts`, in their order, and ends the upload. [`StoreError::is_missing`]: the upload was ended, or
    /// a part of it replaced, at the same time. [`StoreError::Changed`]: what lies there is not what was seen any more.
    pub async fn complete_upload(&self, upload: &Upload, parts: &[Part], seen: Seen) -> Result<ObjectInfo, StoreError> {
        let mut writer = self.object_writer().await?;
        let mut buffer = vec![0; 256 * 1024];
        let mut of_parts = Md5::new();
        for part in parts {
            let error = |e: std::io::Error| StoreError::Objects { operation: "read a part", detail: e.to_string() };
            let mut bytes = self.blobs.open(&part.file, 0, part.size).await?;
            let mut left = part.size;
            while left > 0 {
                let count = bytes.read(&mut buffer).await.map_err(error)?;
                if count == 0 {
                    return Err(error(std::io::ErrorKind::UnexpectedEof.into()));
                }
                writer.write(&buffer[..count]).await?;
                left -= count as u64;
            }
            of_parts.update(hex::decode(&part.etag).unwrap_or_default());
        }
        let etag = format!("{}-{}", hex::encode(of_parts.finalize()), parts.len());
        let written = writer.finish().await?;
        let new = NewObject {
            bucket: &upload.bucket,
            key: &upload.key,
            content_type: &upload.content_type,
            metadata: &upload.metadata,
            part_sizes: parts.iter().map(|p| p.size).collect(),
            etag,
            crc32: None,
        };
        let object = self.name_object(new, written, seen).await?;
        self.abort_upload(upload).await?;
        Ok(object)
    }

    /// Ends an upload and deletes its parts.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        let parts = self.parts(upload).await?;
        sqlx::query("DELETE FROM upload WHERE upload_id = $1")
            .bind(&upload.upload_id)
            .execute(&self.pool)
            .await
            .map_err(|e| StoreError::database("end an upload", e))?;
        for part in parts {
            self.blobs.forget(&part.file);
        }
        Ok(())
    }
}

//! Uploads that were begun and not ended: who lists them, and when they are given up.

use crate::metadata::Metadata;
use crate::multipart::Upload;
use crate::{Store, StoreError};

/// An upload in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// Opaque.
    pub upload_id: String,
    /// Of the object to be.
    pub key: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

impl Store {
    /// Uploads of objects whose keys begin with `prefix`, after (`key`, `upload_id`), by key and age.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: (&str, &str),
        limit: usize,
    ) -> Result<Vec<ListedUpload>, StoreError> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT upload_id, key, created_ms FROM upload WHERE bucket = $1 AND substr(key, 1, length($2)) = $2 \
             AND (key > $3 OR (key = $3 AND upload_id > $4)) ORDER BY key, upload_id LIMIT $5",
        )
        .bind(bucket)
        .bind(prefix)
        .bind(after.0)
        .bind(after.1)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list uploads", e))?;
        Ok(rows.into_iter().map(|(upload_id, key, created_ms)| ListedUpload { upload_id, key, created_ms }).collect())
    }

    /// Gives up uploads that were begun before a time; how many.
    pub async fn abort_uploads_before(&self, before_ms: i64) -> Result<usize, StoreError> {
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as("SELECT upload_id, bucket, key, content_type FROM upload WHERE created_ms < $1 LIMIT 1000")
                .bind(before_ms)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("look for old uploads", e))?;
        for (upload_id, bucket, key, content_type) in &rows {
            let upload = Upload {
                upload_id: upload_id.clone(),
                bucket: bucket.clone(),
                key: key.clone(),
                content_type: content_type.clone(),
                metadata: Metadata::default(),
            };
            self.abort_upload(&upload).await?;
        }
        Ok(rows.len())
    }
}

#[cfg(test)]
mod tests {
    use crate::metadata::Metadata;
    use crate::now_ms;
    use crate::testing::object_places;

    #[tokio::test]
    async fn uploads_are_listed_in_order_and_given_up_with_their_parts() {
        for place in object_places().await {
            let store = place.create().await;
            for key in ["a/2", "a/1", "b", "a/1"] {
                store.create_upload("bucket", key, "x", &Metadata::default()).await.unwrap();
            }
            let all = store.list_uploads("bucket", "a/", ("", ""), 10).await.unwrap();
            assert_eq!(all.iter().map(|u| u.key.as_str()).collect::<Vec<_>>(), ["a/1", "a/1", "a/2"]);
            let second = store.list_uploads("bucket", "a/", (&all[0].key, &all[0].upload_id), 1).await.unwrap();
            assert_eq!(second, all[1..2]);
            let upload = store.upload(&all[0].upload_id, "bucket", "a/1").await.unwrap().unwrap();
            let mut writer = store.object_writer().await.unwrap();
            writer.write(b"part").await.unwrap();
            assert!(store.put_part(&upload, 1, writer.finish().await.unwrap()).await.unwrap());
            assert_eq!(store.abort_uploads_before(now_ms() - 60_000).await.unwrap(), 0);
            assert_eq!(store.abort_uploads_before(now_ms() + 1).await.unwrap(), 4);
            assert!(store.list_uploads("bucket", "", ("", ""), 10).await.unwrap().is_empty());
            let late = store.object_writer().await.unwrap().finish().await.unwrap();
            assert!(!store.put_part(&upload, 2, late).await.unwrap(), "the upload ended while the part came");
        }
    }
}

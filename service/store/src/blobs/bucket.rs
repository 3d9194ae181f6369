//! Blobs as objects of an S3 server. A part of a large blob is held in memory until it is safe on the server, and a
//! piece of it while it is read: never a whole blob.

use super::s3::{Client, ListedObject};
use super::{MAX_NOTE, NOTE};
use crate::StoreError;
use crate::identifiers::is_token;
use crate::places::ObjectsPlace;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};

/// Blobs up to this size are one request. S3 wants parts of at least 5 MiB.
const PART: usize = 8 << 20;
/// S3 has at most 10,000 parts: after so many they grow.
const PARTS_OF_ONE_SIZE: usize = 1000;
/// The first piece that is read, and the largest. Small objects and ranges need no more than the first.
const FIRST_PIECE: u64 = 256 << 10;
const PIECE: u64 = 2 << 20;
/// Somebody may still be reading a blob whose object was replaced. For those who read it through this copy of the service it
/// stays as long as they read; those who read it through another copy have this time.
const FORGET_AFTER: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3600 });

/// A bucket, or the part of one that begins with a prefix.
pub(crate) struct Bucket {
    client: Client,
    name: String,
    prefix: String,
    /// How many read which blob here.
    readers: Mutex<HashMap<String, usize>>,
}

/// A blob stays while somebody holds this.
struct Held {
    bucket: Arc<Bucket>,
    name: String,
}

impl Held {
    fn new(bucket: &Arc<Bucket>, name: &str) -> Held {
        *bucket.readers().entry(name.to_owned()).or_default() += 1;
        Held { bucket: bucket.clone(), name: name.to_owned() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut readers = self.bucket.readers();
        if let Some(count) = readers.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.name);
            }
        }
    }
}

impl Bucket {
    /// Opens a bucket and sees that it answers.
    pub(crate) async fn open(place: &ObjectsPlace) -> Result<Bucket, StoreError> {
        let (name, prefix) = (place.url.bucket.clone(), place.url.prefix.clone());
        let bucket = Bucket { client: Client::new(place)?, name, prefix, readers: Mutex::default() };
        bucket.client.list(&bucket.prefix, "", 1).await?;
        Ok(bucket)
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_read(&self, name: &str) -> bool {
        self.readers().contains_key(name)
    }

    /// `s3://bucket/prefix/`: whatever way leads there.
    pub(crate) fn place(&self) -> String {
        format!("s3://{}/{}", self.name, self.prefix)
    }

    /// A new service takes a place that is empty: whatever it does not know, it sweeps away one day.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.client.list(&self.prefix, "", 1).await?.is_empty())
    }

    /// Whether no blob is among the first names.
    pub(crate) async fn holds_no_blob(&self) -> Result<bool, StoreError> {
        let listed = self.client.list(&self.prefix, "", 1000).await?;
        Ok(!listed.iter().any(|o| o.key.strip_prefix(&self.prefix).is_some_and(is_token)))
    }

    pub(crate) async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        let key = self.key(name);
        let listed = self.client.list(&key, "", 1).await?;
        Ok(listed.first().is_some_and(|o| o.key == key))
    }

    pub(crate) async fn note(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.key(NOTE);
        let listed = self.client.list(&key, "", 1).await?;
        let Some(found) = listed.first().filter(|o| o.key == key) else { return Ok(None) };
        match found.size {
            // Nobody's note.
            0 | MAX_NOTE.. => Ok(Some(Vec::new())),
            size => self.client.get(&key, 0, size).await.map(Some),
        }
    }

    pub(crate) async fn set_note(&self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.client.put(&self.key(NOTE), bytes).await
    }

    /// Sizes of all blobs, by name.
    pub(crate) async fn sizes(&self) -> Result<HashMap<String, u64>, StoreError> {
        let (mut sizes, mut after) = (HashMap::new(), String::new());
        loop {
            let listed = self.client.list(&self.prefix, &after, 1000).await?;
            let Some(last) = listed.last() else { return Ok(sizes) };
            after = last.key.clone();
            sizes.extend(listed.iter().filter_map(|o| Some((o.key.strip_prefix(&self.prefix)?.to_owned(), o.size))));
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn forget(self: &Arc<Self>, name: &str) {
        self.remove_after(FORGET_AFTER, name);
    }

    /// Deletes a blob that nobody ever named, in the background.
    pub(crate) fn discard(self: &Arc<Self>, name: &str) {
        self.remove_after(Duration::ZERO, name);
    }

    fn remove_after(self: &Arc<Self>, pause: Duration, name: &str) {
        let (bucket, name) = (self.clone(), name.to_owned());
        // Without a runtime, or if it ends before, the sweep does it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(pause).await;
                while bucket.is_read(&name) {
                    tokio::time::sleep(FORGET_AFTER.min(Duration::from_secs(60))).await;
                }
                if let Err(e) = bucket.remove(&name).await {
                    tracing::warn!("a blob that is not needed any more stays until it is swept: {e}");
                }
            });
        }
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.client.delete(&self.key(name)).await
    }

    pub(crate) async fn waste(
        &self,
        after: &str,
        before_ms: i64,
    ) -> Result<(Vec<(String, u64)>, Option<String>), StoreError> {
        let after = if after.is_empty() { String::new() } else { self.key(after) };
        let listed = self.client.list(&self.prefix, &after, 1000).await?;
        let name = |object: &ListedObject| object.key.strip_prefix(&self.prefix).map(str::to_owned);
        let last = listed.last().and_then(name);
        let old = listed.iter().filter(|object| object.modified_ms <= before_ms);
        // What somebody else put there has other names.
        Ok((old.filter_map(|o| Some((name(o)?, o.size))).filter(|(name, _)| is_token(name)).collect(), last))
    }
}

/// A blob on its way.
pub(crate) struct BucketSink {
    bucket: Arc<Bucket>,
    name: String,
    held: Vec<u8>,
    upload: Option<Upload>,
}

struct Upload {
    id: String,
    parts: Vec<String>,
}

impl Drop for BucketSink {
    fn drop(&mut self) {
        let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) else { return };
        let (bucket, key) = (self.bucket.clone(), self.bucket.key(&self.name));
        runtime.spawn(async move {
            if let Err(e) = bucket.client.abort(&key, &upload.id).await {
                tracing::warn!("an unfinished upload stays in the bucket: {e}");
            }
        });
    }
}

impl BucketSink {
    pub(crate) fn new(bucket: Arc<Bucket>, name: &str) -> BucketSink {
        BucketSink { bucket, name: name.to_owned(), held: Vec::new(), upload: None }
    }

    fn part_size(&self) -> usize {
        let parts = self.upload.as_ref().map_or(0, |u| u.parts.len());
        PART << (parts / PARTS_OF_ONE_SIZE).min(3)
    }

    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            let room = self.part_size() - self.held.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.held.extend_from_slice(now);
            bytes = later;
            // A part goes when more comes: the last one may be small, but not empty.
            if bytes.is_empty() {
                return Ok(());
            }
            self.send_part().await?;
        }
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let key = self.bucket.key(&self.name);
        if self.upload.is_none() {
            self.upload = Some(Upload { id: self.bucket.client.begin(&key).await?, parts: Vec::new() });
        }
        let body = std::mem::take(&mut self.held);
        if let Some(upload) = &mut self.upload {
            let number = upload.parts.len() as u16 + 1;
            upload.parts.push(self.bucket.client.put_part(&key, &upload.id, number, body).await?);
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<(), StoreError> {
        let key = self.bucket.key(&self.name);
        if self.upload.is_none() {
            return self.bucket.client.put(&key, std::mem::take(&mut self.held)).await;
        }
        self.send_part().await?;
        if let Some(upload) = &self.upload {
            self.bucket.client.complete(&key, &upload.id, &upload.parts).await?;
        }
        self.upload = None;
        Ok(())
    }
}

type Piece = Pin<Box<dyn Future<Output = Result<Vec<u8>, StoreError>> + Send>>;

/// A blob as it is read: in pieces, each a request of its own that is tried again when it fails.
pub(crate) struct BucketReader {
    held: Held,
    key: String,
    /// The next byte that is asked for, and the end.
    next: u64,
    end: u64,
    piece: Vec<u8>,
    read: usize,
    coming: Option<Piece>,
    size: u64,
}

impl BucketReader {
    /// Reads the first piece: a blob that is not there is found out here.
    pub(crate) async fn open(bucket: Arc<Bucket>, name: &str, start: u64, length: u64) -> Result<BucketReader, StoreError> {
        let key = bucket.key(name);
        let (piece, read, coming) = (Vec::new(), 0, None);
        let held = Held::new(&bucket, name);
        let mut reader =
            BucketReader { held, key, next: start, end: start + length, piece, read, coming, size: FIRST_PIECE };
        if let Some(piece) = reader.ask() {
            reader.piece = piece.await?;
        }
        Ok(reader)
    }

    fn ask(&mut self) -> Option<Piece> {
        let count = self.size.min(self.end - self.next);
        if count == 0 {
            return None;
        }
        let (bucket, key, start) = (self.held.bucket.clone(), self.key.clone(), self.next);
        self.next += count;
        self.size = (self.size * 2).min(PIECE);
        Some(Box::pin(async move { bucket.client.get(&key, start, count).await }))
    }
}

impl AsyncRead for BucketReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            if self.read < self.piece.len() {
                let count = buffer.remaining().min(self.piece.len() - self.read);
                buffer.put_slice(&self.piece[self.read..self.read + count]);
                self.read += count;
                return Poll::Ready(Ok(()));
            }
            if self.coming.is_none() {
                self.coming = self.ask();
            }
            let Some(coming) = &mut self.coming else { return Poll::Ready(Ok(())) };
            let piece = match coming.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece,
            };
            self.coming = None;
            self.piece = piece.map_err(std::io::Error::other)?;
            self.read = 0;
        }
    }
}

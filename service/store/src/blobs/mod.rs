//! Blobs: bytes under a random name, written once, never changed. In a directory or in a bucket of an S3 server.
//!
//! Rows say which blobs belong to which objects; a blob that no row names is swept ([`crate::sweep`]). A blob is safe
//! before [`Sink::finish`] returns. Beside them lies the note of whose they are ([`crate::place`]).

pub(crate) mod bucket;
pub(crate) mod directory;
mod s3;

use crate::StoreError;
use crate::place::{Found, Note};
use bucket::{Bucket, BucketReader, BucketSink};
use directory::{Directory, FileSink};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, Take};

/// Where blobs are. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Blobs {
    /// Files.
    Directory(Directory),
    /// Objects of an S3 server.
    Bucket(Arc<Bucket>),
}

/// Bytes on their way into a blob. Dropped unfinished, it leaves nothing, or something to sweep.
pub(crate) enum Sink {
    File(FileSink),
    Bucket(Box<BucketSink>),
}

impl Sink {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Sink::File(sink) => sink.write(bytes).await,
            Sink::Bucket(sink) => sink.write(bytes).await,
        }
    }

    /// Makes the bytes safe.
    pub(crate) async fn finish(self) -> Result<(), StoreError> {
        match self {
            Sink::File(sink) => sink.finish().await,
            Sink::Bucket(sink) => sink.finish().await,
        }
    }
}

/// A blob, or a part of one, as a stream of bytes.
pub struct ObjectReader(Source);

enum Source {
    File(Take<tokio::fs::File>),
    Bucket(BucketReader),
}

impl AsyncRead for ObjectReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.0 {
            Source::File(file) => Pin::new(file).poll_read(context, buffer),
            Source::Bucket(reader) => Pin::new(reader).poll_read(context, buffer),
        }
    }
}

/// The note of whose the blobs are. No blob has such a name.
const NOTE: &str = "belongs-to.json";
/// Longest note that is read.
const MAX_NOTE: u64 = 4096;

impl Blobs {
    /// The note of whose they are.
    pub(crate) async fn note(&self) -> Result<Found, StoreError> {
        let bytes = match self {
            Blobs::Directory(directory) => directory.note()?,
            Blobs::Bucket(bucket) => bucket.note().await?,
        };
        let Some(bytes) = bytes else { return Ok(Found::Nothing) };
        Ok(serde_json::from_slice(&bytes).map_or(Found::Damaged, Found::Note))
    }

    /// Writes the note, whole or not at all.
    pub(crate) async fn set_note(&self, note: &Note) -> Result<(), StoreError> {
        let bytes = crate::error::text(note).into_bytes();
        match self {
            Blobs::Directory(directory) => directory.set_note(&bytes),
            Blobs::Bucket(bucket) => bucket.set_note(bytes).await,
        }
    }

    /// Takes the note back, with a restore that failed.
    pub(crate) async fn remove_note(&self) -> Result<(), StoreError> {
        match self {
            Blobs::Directory(directory) => directory.remove_note(),
            Blobs::Bucket(bucket) => bucket.remove(NOTE).await,
        }
    }

    /// Whether a blob is there.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        match self {
            Blobs::Directory(directory) => Ok(directory.path(name).exists()),
            Blobs::Bucket(bucket) => bucket.exists(name).await,
        }
    }

    /// Whether nothing is there, but a note perhaps.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        match self {
            Blobs::Directory(directory) => directory.is_empty(),
            Blobs::Bucket(bucket) => Ok(bucket.holds_no_blob().await?),
        }
    }

    /// Whether somebody reads a blob here, for whom it must stay. An open file stays by itself.
    pub(crate) fn is_read(&self, name: &str) -> bool {
        match self {
            Blobs::Directory(_) => false,
            Blobs::Bucket(bucket) => bucket.is_read(name),
        }
    }

    /// Where they are, for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Blobs::Directory(directory) => directory.0.display().to_string(),
            Blobs::Bucket(bucket) => bucket.place(),
        }
    }

    /// Deletes a blob; one that is not there is gone already.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self {
            Blobs::Directory(directory) => directory.remove(name).await,
            Blobs::Bucket(bucket) => bucket.remove(name).await,
        }
    }

    /// Where they are, as copies of the service that share them say it; files are nobody else's.
    pub(crate) fn place(&self) -> String {
        match self {
            Blobs::Directory(_) => "files".into(),
            Blobs::Bucket(bucket) => bucket.place(),
        }
    }

    /// Begins a blob under a name that is nobody's.
    pub(crate) async fn create(&self, name: &str) -> Result<Sink, StoreError> {
        match self {
            Blobs::Directory(directory) => directory.create(name).await.map(Sink::File),
            Blobs::Bucket(bucket) => Ok(Sink::Bucket(Box::new(BucketSink::new(bucket.clone(), name)))),
        }
    }

    /// `length` bytes from `start` on.
    pub(crate) async fn open(&self, name: &str, start: u64, length: u64) -> Result<ObjectReader, StoreError> {
        let source = match self {
            Blobs::Directory(directory) => Source::File(directory.open(name, start).await?.take(length)),
            Blobs::Bucket(bucket) => Source::Bucket(BucketReader::open(bucket.clone(), name, start, length).await?),
        };
        Ok(ObjectReader(source))
    }

    /// Deletes a blob that no row names any more. What cannot be deleted now is swept later.
    pub(crate) fn forget(&self, name: &str) {
        match self {
            Blobs::Directory(directory) => directory.forget(name),
            Blobs::Bucket(bucket) => bucket.forget(name),
        }
    }

    /// Deletes a blob that no row ever named: nobody reads it.
    pub(crate) fn discard(&self, name: &str) {
        match self {
            Blobs::Directory(directory) => directory.forget(name),
            Blobs::Bucket(bucket) => bucket.discard(name),
        }
    }

    /// Blobs after `after` and their sizes, at most a thousand or a folder; only those that were written before a time. The
    /// last name that was looked at, or `None` at the end.
    pub(crate) async fn waste(
        &self,
        after: &str,
        before_ms: i64,
    ) -> Result<(Vec<(String, u64)>, Option<String>), StoreError> {
        match self {
            Blobs::Directory(directory) => directory.waste(after, before_ms).await,
            Blobs::Bucket(bucket) => bucket.waste(after, before_ms).await,
        }
    }

    /// The names of all.
    #[cfg(test)]
    pub(crate) async fn all(&self) -> Result<Vec<String>, StoreError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        while let (names, Some(last)) = self.waste(&after, i64::MAX).await? {
            all.extend(names.into_iter().map(|(name, _)| name));
            after = last;
        }
        Ok(all)
    }
}

//! Blobs: bytes under a random name, written once, never changed. In a directory or in a bucket of an S3 server.
//!
//! Rows say which blobs belong to which objects; a blob that no row names is swept ([`Blobs::sweep`]). A blob is safe
//! before [`Sink::finish`] returns.

pub(crate) mod bucket;
pub(crate) mod directory;
mod s3;

use crate::StoreError;
use bucket::{Bucket, BucketReader, BucketSink};
use directory::{Directory, FileSink};
use std::collections::HashSet;
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

impl Blobs {
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

    /// Names of blobs after `after`, in their order, at most a thousand; only those that are old enough to be waste if
    /// nobody names them. The last name that was looked at, or `None` at the end.
    pub(crate) async fn waste(&self, after: &str) -> Result<(Vec<String>, Option<String>), StoreError> {
        match self {
            Blobs::Directory(directory) => directory.waste(after).await,
            Blobs::Bucket(bucket) => bucket.waste(after, bucket::WASTE_AFTER_MS).await,
        }
    }

    #[cfg(test)]
    pub(crate) async fn waste_of_any_age(&self) -> Result<(Vec<String>, Option<String>), StoreError> {
        match self {
            // All that the tests have made.
            Blobs::Directory(directory) => {
                let (mut all, mut after) = (Vec::new(), String::new());
                while let (names, Some(last)) = directory.waste(&after).await? {
                    all.extend(names);
                    after = last;
                }
                Ok((all, None))
            }
            Blobs::Bucket(bucket) => bucket.waste("", i64::MIN / 2).await,
        }
    }

    /// Deletes blobs that are not in `named`.
    pub(crate) async fn sweep(&self, candidates: &[String], named: &HashSet<String>) -> Result<usize, StoreError> {
        let mut swept = 0;
        for name in candidates.iter().filter(|name| !named.contains(*name)) {
            match self {
                Blobs::Directory(directory) => directory.remove(name).await?,
                Blobs::Bucket(bucket) => bucket.remove(name).await?,
            }
            swept += 1;
        }
        Ok(swept)
    }
}

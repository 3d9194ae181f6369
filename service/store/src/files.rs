//! The files of objects as they are, for backups and for `doctor`: what rows name and what is there.
//!
//! A file has the same name and the same bytes wherever it is, in a data directory or in a bucket.

use crate::blobs::{Blobs, ObjectReader, Sink};
use crate::dump::NamedFile;
use crate::{Store, StoreError};
use ring::digest::{Context, SHA256};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;
use tokio::io::AsyncReadExt;

/// What is wrong with a file of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFault {
    /// A row names it, and it is not there.
    Missing,
    /// It has another size than its row says.
    Size {
        /// What it has.
        found: u64,
    },
    /// Its bytes are not those that were acknowledged.
    Changed,
    /// It cannot be read.
    Unreadable(String),
}

/// A file that no row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Where.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: Option<SystemTime>,
}

/// The files that are there.
pub struct FoundFiles {
    blobs: Blobs,
    /// Of a bucket, which is asked once for all.
    sizes: Option<HashMap<String, u64>>,
}

/// A file on its way.
pub struct FileWriter(Sink);

impl FileWriter {
    /// Adds bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.write(bytes).await
    }

    /// Makes them safe.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.0.finish().await
    }
}

impl Store {
    /// The files that rows name, and those that none does.
    pub async fn files(&self) -> Result<(Vec<NamedFile>, Vec<Orphan>), StoreError> {
        let named = self.snapshot().await?.files().await?;
        let names: HashSet<&str> = named.iter().map(|f| f.name.as_str()).collect();
        let mut orphans = Vec::new();
        // A bucket is swept of these while it is used.
        let Blobs::Directory(directory) = &self.blobs else { return Ok((named, orphans)) };
        let error = |e| StoreError::io("list", &directory.0, e);
        for folder in std::fs::read_dir(&directory.0).map_err(error)? {
            let folder = folder.map_err(error)?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&folder).map_err(error)? {
                let file = file.map_err(error)?;
                if names.contains(file.file_name().to_string_lossy().as_ref()) {
                    continue;
                }
                // Gone between two looks: it was an upload's, and is nobody's business any more.
                let Ok(metadata) = file.metadata() else { continue };
                orphans.push(Orphan { path: file.path(), size: metadata.len(), modified: metadata.modified().ok() });
            }
        }
        Ok((named, orphans))
    }

    /// Whether a row names a file now.
    pub async fn still_named(&self, file: &str) -> Result<bool, StoreError> {
        Ok(self.snapshot().await?.files().await?.iter().any(|f| f.name == file))
    }

    /// Where a file of objects is, in a data directory; its name, in a bucket.
    pub fn file_path(&self, name: &str) -> PathBuf {
        match &self.blobs {
            Blobs::Directory(directory) => directory.path(name),
            Blobs::Bucket(bucket) => PathBuf::from(format!("{}{name}", bucket.place())),
        }
    }

    /// What is there now. Ask after the rows: what they name is there before they do.
    pub async fn found_files(&self) -> Result<FoundFiles, StoreError> {
        let sizes = match &self.blobs {
            Blobs::Directory(_) => None,
            Blobs::Bucket(bucket) => Some(bucket.sizes().await?),
        };
        Ok(FoundFiles { blobs: self.blobs.clone(), sizes })
    }

    /// The bytes of a file; `None` if it is not there (any more).
    pub async fn open_file(&self, file: &NamedFile) -> Result<Option<ObjectReader>, StoreError> {
        match self.blobs.open(&file.name, 0, file.size).await {
            Ok(reader) => Ok(Some(reader)),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Begins a file under the name that it had elsewhere.
    pub async fn begin_file(&self, name: &str) -> Result<FileWriter, StoreError> {
        self.blobs.create(name).await.map(FileWriter)
    }

    /// Deletes files of a restore that failed.
    pub async fn delete_files(&self, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            self.blobs.remove(name).await?;
        }
        Ok(())
    }
}

impl FoundFiles {
    /// What is wrong with a file; with `bytes` all of it is read.
    pub async fn fault(&self, file: &NamedFile, bytes: bool) -> Option<FileFault> {
        match self.size(&file.name) {
            Ok(None) => return Some(FileFault::Missing),
            Ok(Some(found)) if found != file.size => return Some(FileFault::Size { found }),
            Ok(Some(_)) => {}
            Err(e) => return Some(FileFault::Unreadable(e.to_string())),
        }
        let (true, Some(expected)) = (bytes, &file.sha256) else { return None };
        match self.sha256(file).await {
            Ok(found) if found == *expected => None,
            Ok(_) => Some(FileFault::Changed),
            Err(e) => Some(FileFault::Unreadable(e.to_string())),
        }
    }

    fn size(&self, name: &str) -> std::io::Result<Option<u64>> {
        match (&self.blobs, &self.sizes) {
            (_, Some(sizes)) => Ok(sizes.get(name).copied()),
            (Blobs::Bucket(_), None) => Ok(None),
            (Blobs::Directory(directory), None) => match std::fs::metadata(directory.path(name)) {
                Ok(metadata) => Ok(Some(metadata.len())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    async fn sha256(&self, file: &NamedFile) -> Result<String, StoreError> {
        let mut reader = self.blobs.open(&file.name, 0, file.size).await?;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = reader.read(&mut buffer).await;
            match read.map_err(|e| StoreError::Objects { operation: "read an object", detail: e.to_string() })? {
                0 => return Ok(hex::encode(context.finish())),
                count => context.update(&buffer[..count]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_places;

    /// Other bytes under the name of a file, or none.
    async fn harm(store: &Store, name: &str, bytes: Option<&[u8]>) {
        store.blobs.remove(name).await.unwrap();
        if let Some(bytes) = bytes {
            let mut file = store.begin_file(name).await.unwrap();
            file.write(bytes).await.unwrap();
            file.finish().await.unwrap();
        }
    }

    #[tokio::test]
    async fn each_fault_of_a_file_is_found() {
        for place in object_places().await {
            let store = place.create().await;
            for key in ["whole", "changed", "short", "gone", "empty"] {
                store.put_bytes("b", key, "x", if key == "empty" { b"" } else { b"four" }).await.unwrap();
            }
            let (named, orphans) = store.files().await.unwrap();
            assert_eq!((named.len(), orphans.len()), (5, 0));
            let of = |key: &str| named.iter().find(|f| f.of == format!("b/{key}")).unwrap();
            harm(&store, &of("changed").name, Some(b"fou!")).await;
            harm(&store, &of("short").name, Some(b"fo")).await;
            harm(&store, &of("gone").name, None).await;
            let found = store.found_files().await.unwrap();
            assert_eq!(found.fault(of("whole"), true).await, None);
            assert_eq!(found.fault(of("empty"), true).await, None);
            assert_eq!(found.fault(of("changed"), true).await, Some(FileFault::Changed));
            assert_eq!(found.fault(of("changed"), false).await, None, "the sizes alone say nothing of the bytes");
            assert_eq!(found.fault(of("short"), false).await, Some(FileFault::Size { found: 2 }));
            assert_eq!(found.fault(of("gone"), false).await, Some(FileFault::Missing));
            assert!(store.open_file(of("gone")).await.unwrap().is_none());
            let mut bytes = Vec::new();
            store.open_file(of("whole")).await.unwrap().unwrap().read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, b"four");
        }
    }

    #[tokio::test]
    async fn a_file_that_belongs_to_nothing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        std::fs::create_dir_all(store.file_path("abandoned").parent().unwrap()).unwrap();
        std::fs::write(store.file_path("abandoned"), b"x").unwrap();
        assert_eq!(store.files().await.unwrap().1.len(), 1);
    }
}

//! Blobs as files: written, synced, and their directory synced. Two letters of the name make folders, so that none
//! grows large. One service has the directory for itself.

use super::{MAX_NOTE, NOTE};
use crate::StoreError;
use crate::identifiers::is_token;
use std::io::{Read, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// The directory of a service's blobs.
#[derive(Debug, Clone)]
pub(crate) struct Directory(pub(crate) PathBuf);

/// A file on its way.
pub(crate) struct FileSink {
    file: tokio::fs::File,
    path: PathBuf,
    finished: bool,
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl FileSink {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).await.map_err(|e| StoreError::io("write", &self.path, e))
    }

    pub(crate) async fn finish(mut self) -> Result<(), StoreError> {
        let error = |e| StoreError::io("write", &self.path, e);
        self.file.flush().await.map_err(error)?;
        self.file.sync_all().await.map_err(error)?;
        if let Some(parent) = self.path.parent() {
            let directory = tokio::fs::File::open(parent).await.map_err(error)?;
            directory.sync_all().await.map_err(error)?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Directory {
    pub(crate) fn at(root: &Path, create: bool) -> Result<Directory, StoreError> {
        if create {
            std::fs::create_dir_all(root).map_err(|e| StoreError::io("create", root, e))?;
        }
        Ok(Directory(root.to_owned()))
    }

    /// Where a blob is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.get(..2).unwrap_or("xx")).join(name)
    }

    pub(crate) async fn create(&self, name: &str) -> Result<FileSink, StoreError> {
        let path = self.path(name);
        if let Some(parent) = path.parent().filter(|p| !p.exists()) {
            tokio::fs::create_dir_all(parent).await.map_err(|e| StoreError::io("create", parent, e))?;
            sync(&self.0).await?;
        }
        let file = tokio::fs::File::create_new(&path).await.map_err(|e| StoreError::io("create", &path, e))?;
        Ok(FileSink { file, path, finished: false })
    }

    pub(crate) async fn open(&self, name: &str, start: u64) -> Result<tokio::fs::File, StoreError> {
        let path = self.path(name);
        let error = |e| StoreError::io("open", &path, e);
        let mut file = tokio::fs::File::open(&path).await.map_err(error)?;
        if start > 0 {
            file.seek(SeekFrom::Start(start)).await.map_err(error)?;
        }
        Ok(file)
    }

    pub(crate) fn forget(&self, name: &str) {
        let _ = std::fs::remove_file(self.path(name));
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match tokio::fs::remove_file(&path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("delete", &path, e)),
            _ => Ok(()),
        }
    }

    /// One folder at a time, all of it.
    pub(crate) async fn waste(
        &self,
        after: &str,
        before_ms: i64,
    ) -> Result<(Vec<(String, u64)>, Option<String>), StoreError> {
        let root = self.0.clone();
        let after = after.to_owned();
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<(Vec<(String, u64)>, Option<String>)> {
            let mut folders = names(&root)?;
            folders.sort_unstable();
            let Some(folder) = folders.into_iter().find(|folder| *folder > after) else { return Ok((Vec::new(), None)) };
            let path = root.join(&folder);
            let files = if path.is_dir() { files_before(&path, before_ms)? } else { Vec::new() };
            Ok((files, Some(folder)))
        });
        let failed = |e| StoreError::io("look into", &self.0, e);
        read.await.map_err(|e| failed(std::io::Error::other(e)))?.map_err(failed)
    }

    /// Whether no folder of files is there.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        let names = names(&self.0).map_err(|e| StoreError::io("look into", &self.0, e))?;
        Ok(!names.iter().any(|name| name != NOTE && self.0.join(name).is_dir()))
    }

    pub(crate) fn note(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.0.join(NOTE);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_NOTE).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", &path, e)),
        }
    }

    /// Written beside, synced, named, and the directory synced: a power cut leaves the old one or the new one.
    #[expect(clippy::disallowed_methods, reason = "the file and its directory are synchronised here")]
    pub(crate) fn set_note(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, new) = (self.0.join(NOTE), self.0.join(format!("{NOTE}.new")));
        let written = || {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(&self.0)?.sync_all()
        };
        written().map_err(|e| StoreError::io("write", &path, e))
    }

    pub(crate) fn remove_note(&self) -> Result<(), StoreError> {
        let path = self.0.join(NOTE);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("delete", &path, e)),
            _ => Ok(()),
        }
    }
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Files with a name that this program gives, and their sizes. What goes meanwhile is left out.
fn files_before(folder: &Path, before_ms: i64) -> std::io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(metadata) = entry.metadata() else { continue };
        let written = metadata.modified().ok().and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
        let old = written.is_some_and(|w| i64::try_from(w.as_millis()).is_ok_and(|ms| ms <= before_ms));
        if metadata.is_file() && old && is_token(&name) {
            files.push((name, metadata.len()));
        }
    }
    Ok(files)
}

async fn sync(folder: &Path) -> Result<(), StoreError> {
    let error = |e| StoreError::io("write", folder, e);
    let directory = tokio::fs::File::open(folder).await.map_err(error)?;
    directory.sync_all().await.map_err(error)
}

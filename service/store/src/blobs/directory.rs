//! Blobs as files: written, synced, and their directory synced. Two letters of the name make folders, so that none
//! grows large. One service has the directory for itself.

use crate::StoreError;
use std::io::SeekFrom;
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
        tokio::fs::remove_file(&path).await.map_err(|e| StoreError::io("sweep", &path, e))
    }

    /// One folder at a time, all of it: nothing else writes here, and this is asked before anything is written.
    pub(crate) async fn waste(&self, after: &str) -> Result<(Vec<String>, Option<String>), StoreError> {
        let root = self.0.clone();
        let after = after.to_owned();
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<(Vec<String>, Option<String>)> {
            let mut folders = names(&root)?;
            folders.sort_unstable();
            let Some(folder) = folders.into_iter().find(|folder| *folder > after) else { return Ok((Vec::new(), None)) };
            let path = root.join(&folder);
            let files = if path.is_dir() { names(&path)? } else { Vec::new() };
            Ok((files, Some(folder)))
        });
        match read.await {
            Ok(done) => done.map_err(|e| StoreError::io("sweep", &self.0, e)),
            Err(_) => Ok((Vec::new(), None)),
        }
    }
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

async fn sync(folder: &Path) -> Result<(), StoreError> {
    let error = |e| StoreError::io("write", folder, e);
    let directory = tokio::fs::File::open(folder).await.map_err(error)?;
    directory.sync_all().await.map_err(error)
}

//! Making a backup.

use super::{
    AUTHORITY, Counting, Entry, FORMAT, HEADER, Header, MANIFEST, MANIFEST_SEAL, Manifest, OBJECTS, Progress, ROWS, SEAL,
    SECRETS, SERVICE, Summary,
};
use crate::configuration::{Configuration, FILE};
use crate::{ServerError, backends};
use belvedere_store::dump::{NamedFile, Snapshot};
use belvedere_store::{Store, StoreError};
use flate2::{Compression, write::GzEncoder};
use ring::digest::{Context, SHA256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Of a tar archive.
const BLOCK: usize = 512;
/// Snapshots that are tried until one is found whose files are all there.
const ROUNDS: usize = 20;

/// Whether `secrets.key` goes into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretsKey {
    /// The archive alone opens no secret; keep the key elsewhere.
    Without,
    /// Whoever has the archive has every password of the fleet.
    Included,
}

struct Archive {
    tar: tar::Builder<BufWriter<File>>,
    entries: Vec<Entry>,
    path: PathBuf,
    created: u64,
    progress: Progress,
}

impl Archive {
    fn failed(&self, source: std::io::Error) -> ServerError {
        ServerError::File { operation: "write", path: self.path.clone(), source }
    }

    /// Appends an entry; what is read must be `size` bytes. It comes in pieces, maybe over a network: the archive's own
    /// writer, which wants to read by itself, writes the header alone.
    async fn append(&mut self, name: &str, size: u64, from: impl AsyncRead + Unpin) -> Result<&Entry, ServerError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.created);
        header.set_path(name).map_err(|e| self.failed(e))?;
        header.set_cksum();
        let mut write = |bytes: &[u8]| {
            let written = self.tar.get_mut().write_all(bytes);
            written.map_err(|source| ServerError::File { operation: "write", path: self.path.clone(), source })
        };
        write(header.as_bytes())?;
        let (mut from, mut context, mut left) = (from.take(size), Context::new(&SHA256), size);
        let mut buffer = vec![0; 256 * 1024];
        while left > 0 {
            let error = |source| ServerError::File { operation: "read", path: PathBuf::from(name), source };
            let count = match from.read(&mut buffer).await.map_err(error)? {
                0 => return Err(error(std::io::Error::other("it became shorter while it was read"))),
                count => count,
            };
            context.update(&buffer[..count]);
            write(&buffer[..count])?;
            left -= count as u64;
        }
        // Entries begin at multiples of 512.
        write(&[0; BLOCK][..(BLOCK - (size % BLOCK as u64) as usize) % BLOCK])?;
        self.progress.advance(size);
        let sha256 = hex::encode(context.finish());
        self.entries.push(Entry { name: name.to_owned(), size, sha256, surplus: false });
        Ok(self.entries.last().expect("what was just pushed"))
    }

    async fn append_file(&mut self, name: &str, path: &Path) -> Result<(), ServerError> {
        let bytes =
            std::fs::read(path).map_err(|source| ServerError::File { operation: "read", path: path.to_owned(), source })?;
        self.append(name, bytes.len() as u64, &bytes[..]).await.map(drop)
    }
}

/// Makes a backup of the service in `data`, running or not. `to` must not exist; it appears whole or not at all.
pub async fn backup(data: &Path, to: &Path, secrets: SecretsKey) -> Result<Summary, ServerError> {
    let configuration = Configuration::read(data)?;
    if to.exists() {
        return Err(ServerError::Argument(format!(
            "{} exists already; choose another name, backups are never overwritten",
            to.display()
        )));
    }
    let store = configuration.attach_store(data).await?;
    // A seal of another key would be found out when it is too late.
    match store.opens_with_this_key().await {
        Err(StoreError::Sealed) => return Err(backends::of_another_service(data)),
        other => other?,
    }
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = |operation| move |source| ServerError::File { operation, path: to.to_owned(), source };
    if !folder.is_dir() {
        let message = format!("{}: there is no directory {}; make it first", to.display(), folder.display());
        return Err(ServerError::Argument(message));
    }
    // Readable by its owner alone, and deleted unless it is finished.
    let file = tempfile::NamedTempFile::new_in(folder).map_err(error("create"))?;
    let mut archive = Archive {
        tar: tar::Builder::new(BufWriter::with_capacity(1 << 20, file.reopen().map_err(error("open"))?)),
        entries: Vec::new(),
        path: to.to_owned(),
        created: (belvedere_store::now_ms() / 1000).max(0) as u64,
        progress: Progress::new("backing up"),
    };
    let header = Header {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        account: configuration.account.clone(),
        created_ms: belvedere_store::now_ms(),
    };
    let text = serde_json::to_vec_pretty(&header).unwrap_or_default();
    archive.append(HEADER, text.len() as u64, &text[..]).await?;
    archive.append_file(SERVICE, &data.join(FILE)).await?;
    archive.append_file(AUTHORITY, &data.join("ca.pem")).await?;
    if secrets == SecretsKey::Included {
        archive.append_file(SECRETS, &data.join("secrets.key")).await?;
    }
    let (mut snapshot, objects) = copy_objects(&store, &mut archive).await?;
    let mut manifest = append_rows(&mut snapshot, &mut archive, folder).await?;
    drop(snapshot);
    manifest.entries = std::mem::take(&mut archive.entries);
    let text = serde_json::to_vec(&manifest).unwrap_or_default();
    archive.append(MANIFEST, text.len() as u64, &text[..]).await?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    let seal = store.secrets().seal(SEAL, digest.as_ref());
    archive.append(MANIFEST_SEAL, seal.len() as u64, &seal[..]).await?;
    store.close().await;

    let bytes = archive.progress.bytes;
    let mut inner = archive.tar.into_inner().map_err(error("write"))?;
    inner.flush().map_err(error("write"))?;
    inner.get_ref().sync_all().map_err(error("synchronise"))?;
    file.persist_noclobber(to).map_err(|e| error("name")(e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(error("synchronise the directory of"))?;
    Ok(Summary { rows: manifest.rows, objects, bytes })
}

/// Copies objects until there is a snapshot whose files are all in the archive; that snapshot, and their number.
async fn copy_objects(store: &Store, archive: &mut Archive) -> Result<(Snapshot, u64), ServerError> {
    let mut copied: HashMap<String, usize> = HashMap::new();
    let mut missing_before: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let mut snapshot = store.snapshot().await?;
        let files = snapshot.files().await?;
        let mut missing = Vec::new();
        for file in &files {
            if copied.contains_key(&file.name) {
                continue;
            }
            match store.open_file(file).await? {
                Some(bytes) => {
                    copy(archive, file, bytes).await?;
                    copied.insert(file.name.clone(), archive.entries.len() - 1);
                }
                // Replaced or deleted since the snapshot: a later one will not name it.
                None => missing.push(file.name.clone()),
            }
        }
        if missing.is_empty() {
            for file in &files {
                copied.remove(&file.name);
            }
            copied.values().for_each(|index| archive.entries[*index].surplus = true);
            return Ok((snapshot, files.len() as u64));
        }
        if let Some(lost) = files.iter().find(|f| missing_before.contains(&f.name) && missing.contains(&f.name)) {
            return Err(ServerError::Argument(format!(
                "the file of {} is missing from the objects; `belvedere-service doctor` says what to do",
                lost.of
            )));
        }
        missing_before = missing;
    }
    Err(ServerError::Argument(
        "objects are replaced faster than they can be copied; try again when the service is less busy".into(),
    ))
}

async fn copy(archive: &mut Archive, file: &NamedFile, bytes: impl AsyncRead + Unpin) -> Result<(), ServerError> {
    let entry = archive.append(&format!("{OBJECTS}{}", file.name), file.size, bytes).await;
    let advice = |what: &str| {
        let text = format!("the stored bytes of {} {what}; `belvedere-service doctor --bytes` says what to do", file.of);
        ServerError::Argument(text)
    };
    match entry {
        Ok(entry) if file.sha256.as_ref().is_some_and(|s| *s != entry.sha256) => {
            Err(advice("are not those that were put there"))
        }
        Ok(_) => Ok(()),
        Err(ServerError::File { operation: "read", source, .. }) => Err(advice(&format!("cannot be read ({source})"))),
        Err(e) => Err(e),
    }
}

async fn append_rows(snapshot: &mut Snapshot, archive: &mut Archive, folder: &Path) -> Result<Manifest, ServerError> {
    let error = |source| ServerError::File { operation: "write rows in", path: folder.to_owned(), source };
    let spool = tempfile::tempfile_in(folder).map_err(error)?;
    let encoder = GzEncoder::new(BufWriter::new(spool), Compression::fast());
    let mut counting = Counting { inner: encoder, size: 0 };
    let counts = snapshot.dump(&mut counting).await?;
    let rows_size = counting.size;
    let mut spool = counting.inner.finish().and_then(|w| w.into_inner().map_err(|e| e.into_error())).map_err(error)?;
    let size = spool.stream_position().map_err(error)?;
    spool.rewind().map_err(error)?;
    archive.append(ROWS, size, tokio::fs::File::from_std(spool)).await?;
    Ok(Manifest { schema: snapshot.version(), tables: counts.tables, rows: counts.rows, rows_size, entries: Vec::new() })
}

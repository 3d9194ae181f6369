//! Making a backup.

use super::{
    AUTHORITY, Counting, Entry, FORMAT, HEADER, Hashing, Header, MANIFEST, MANIFEST_SEAL, Manifest, OBJECTS, Progress, ROWS,
    SEAL, SECRETS, SERVICE, Summary,
};
use crate::ServerError;
use crate::configuration::{Configuration, FILE};
use belvedere_store::Store;
use belvedere_store::dump::{NamedFile, Snapshot};
use flate2::{Compression, write::GzEncoder};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

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

    /// Appends an entry; what is read must be `size` bytes.
    fn append(&mut self, name: &str, size: u64, from: impl Read) -> Result<&Entry, ServerError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.created);
        header.set_path(name).map_err(|e| self.failed(e))?;
        header.set_cksum();
        let mut reader = Hashing::new(from.take(size));
        self.tar.append(&header, &mut reader).map_err(|e| self.failed(e))?;
        let (read, sha256) = reader.finish();
        if read != size {
            let source = std::io::Error::other(format!("{name} became shorter while it was read"));
            return Err(self.failed(source));
        }
        self.progress.advance(size);
        self.entries.push(Entry { name: name.to_owned(), size, sha256, surplus: false });
        Ok(self.entries.last().expect("what was just pushed"))
    }

    fn append_file(&mut self, name: &str, path: &Path) -> Result<(), ServerError> {
        let bytes = std::fs::read(path).map_err(|source| ServerError::File { operation: "read", path: path.to_owned(), source })?;
        self.append(name, bytes.len() as u64, &bytes[..]).map(drop)
    }
}

/// Makes a backup of the service in `data`, running or not. `to` must not exist; it appears whole or not at all.
pub async fn backup(data: &Path, to: &Path, secrets: SecretsKey) -> Result<Summary, ServerError> {
    let configuration = Configuration::read(data)?;
    if to.exists() {
        return Err(ServerError::Argument(format!("{} exists already; choose another name, backups are never overwritten", to.display())));
    }
    let store = configuration.attach_store(data).await?;
    if store.objects_are_shared() {
        return Err(ServerError::Argument(
            "objects are in a bucket, which is backed up with its own tools (versioning, replication); rows with pg_dump at the \
             same time. This command is for objects in the data directory"
                .into(),
        ));
    }
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = |operation| move |source| ServerError::File { operation, path: to.to_owned(), source };
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
    archive.append(HEADER, text.len() as u64, &text[..])?;
    archive.append_file(SERVICE, &data.join(FILE))?;
    archive.append_file(AUTHORITY, &data.join("ca.pem"))?;
    if secrets == SecretsKey::Included {
        archive.append_file(SECRETS, &data.join("secrets.key"))?;
    }
    let (mut snapshot, objects) = copy_objects(&store, &mut archive).await?;
    let mut manifest = append_rows(&mut snapshot, &mut archive, folder).await?;
    drop(snapshot);
    manifest.entries = std::mem::take(&mut archive.entries);
    let text = serde_json::to_vec(&manifest).unwrap_or_default();
    archive.append(MANIFEST, text.len() as u64, &text[..])?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    let seal = store.secrets().seal(SEAL, digest.as_ref());
    archive.append(MANIFEST_SEAL, seal.len() as u64, &seal[..])?;
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
            match File::open(store.file_path(&file.name)) {
                Ok(bytes) => {
                    copy(archive, file, bytes)?;
                    copied.insert(file.name.clone(), archive.entries.len() - 1);
                }
                // Replaced or deleted since the snapshot: a later one will not name it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => missing.push(file.name.clone()),
                Err(source) => {
                    return Err(ServerError::File { operation: "open", path: store.file_path(&file.name), source });
                }
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
                "the file of {} is missing from the objects; `belvedere-service doctor` says what to do", lost.of
            )));
        }
        missing_before = missing;
    }
    Err(ServerError::Argument("objects are replaced faster than they can be copied; try again when the service is less busy".into()))
}

fn copy(archive: &mut Archive, file: &NamedFile, bytes: File) -> Result<(), ServerError> {
    let found = bytes.metadata().map_or(0, |m| m.len());
    let entry = archive.append(&format!("{OBJECTS}{}", file.name), found, bytes)?;
    if found != file.size || file.sha256.as_ref().is_some_and(|s| *s != entry.sha256) {
        return Err(ServerError::Argument(format!(
            "the stored bytes of {} are not those that were put there; `belvedere-service doctor --bytes` says what to do", file.of
        )));
    }
    Ok(())
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
    archive.append(ROWS, size, spool)?;
    Ok(Manifest { schema: snapshot.version(), tables: counts.tables, rows: counts.rows, rows_size, entries: Vec::new() })
}

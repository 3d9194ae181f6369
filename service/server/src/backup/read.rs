//! Making a service from a backup. An archive may be anybody's: it is read twice, first to check everything, then to use
//! it, and only names of a fixed form ever become paths.
//!
//! In this order, and what a power cut or a kill after each step leaves:
//!
//! 1. a directory `NEW.restoring-…` — nothing reads it, it may be deleted;
//! 2. empty tables — the next restore into this database drops them;
//! 3. objects — in a bucket waste: empty the prefix, or choose another one;
//! 4. all rows, in one transaction — in PostgreSQL a service without its directory: drop the database and make it anew;
//! 5. the service gets an identity of its own, and the objects' place its note — as after 4;
//! 6. the directory gets its name — the service.
//!
//! A restore that fails by itself takes all of it back.

use super::{
    AUTHORITY, Entry, FORMAT, HEADER, Hashing, Header, MANIFEST, MANIFEST_SEAL, MAX_MANIFEST, MAX_SMALL, Manifest, OBJECTS,
    Progress, ROWS, SEAL, SECRETS, SERVICE, Summary,
};
use crate::ServerError;
use crate::backends::Backends;
use crate::configuration::{Configuration, FILE, replace};
use belvedere_store::Store;
use belvedere_store::dump::MAX_LINE;
use belvedere_store::secrets::SecretBox;
use flate2::read::GzDecoder;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What to do with a backup.
pub struct Restore<'a> {
    /// The archive.
    pub from: &'a Path,
    /// The new service; must not exist, or be empty.
    pub data: &'a Path,
    /// `secrets.key`, if the archive was made without it.
    pub secrets_key: Option<&'a Path>,
    /// The key directory, if it is elsewhere now.
    pub keys: Option<&'a Path>,
    /// Where rows and objects are to be, wherever they were before.
    pub backends: Backends,
}

/// A checked archive.
struct Checked {
    file: File,
    header: Header,
    manifest: Manifest,
    small: HashMap<String, Vec<u8>>,
    /// Where the bytes of each entry begin.
    positions: HashMap<String, u64>,
    key: Vec<u8>,
}

fn refuse(path: &Path, detail: impl std::fmt::Display) -> ServerError {
    ServerError::Argument(format!("{} is refused: {detail}", path.display()))
}

/// Whether a name may be one of an object's file: what this program gives out, and no path.
fn is_file_name(name: &str) -> bool {
    (2..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The entries' names that are known, and how long each may be.
fn limit(name: &str) -> Option<u64> {
    match name {
        HEADER | SERVICE | AUTHORITY | SECRETS | MANIFEST_SEAL => Some(MAX_SMALL),
        MANIFEST => Some(MAX_MANIFEST),
        ROWS => Some(u64::MAX),
        object => object.strip_prefix(OBJECTS).filter(|n| is_file_name(n)).map(|_| u64::MAX),
    }
}

/// Calls `each` with the name, position, size and bytes of every entry, in their order. Nothing but plain files is accepted: no
/// links, no devices, no long names.
fn entries(
    path: &Path,
    file: &mut File,
    mut each: impl FnMut(&str, u64, u64, &mut dyn Read) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let error = |source| ServerError::File { operation: "read", path: path.to_owned(), source };
    file.rewind().map_err(error)?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    let mut seen = HashSet::new();
    for entry in archive.entries().map_err(|e| refuse(path, e))?.raw(true) {
        let mut entry = entry.map_err(|e| match seen.is_empty() {
            true => refuse(
                path,
                "it is not a file that `belvedere-service backup` made (no tar archive); give the archive itself",
            ),
            false => refuse(path, format!("it is damaged after {} of its entries: {e}", seen.len())),
        })?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| refuse(path, "a name is not UTF-8"))?;
        let size = entry.size();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(refuse(path, format!("{name:?} is not a plain file")));
        }
        match limit(&name) {
            None => return Err(refuse(path, format!("{name:?} is not part of a backup"))),
            Some(most) if size > most => return Err(refuse(path, format!("{name} is too long, {size} bytes"))),
            Some(_) => {}
        }
        if !seen.insert(name.clone()) {
            return Err(refuse(path, format!("{name} comes twice")));
        }
        each(&name, entry.raw_file_position(), size, &mut entry)?;
    }
    Ok(())
}

/// Reads and checks the whole archive. Nothing is written.
fn check(restore: &Restore<'_>) -> Result<Checked, ServerError> {
    let path = restore.from;
    let error = |source| ServerError::File { operation: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(error)?;
    let mut progress = Progress::new("checking");
    let mut small: HashMap<String, Vec<u8>> = HashMap::new();
    let mut found: HashMap<String, (u64, String)> = HashMap::new();
    let mut positions = HashMap::new();
    entries(path, &mut file, |name, position, size, bytes| {
        positions.insert(name.to_owned(), position);
        let mut bytes = Hashing::new(bytes);
        if name == ROWS || name.starts_with(OBJECTS) {
            std::io::copy(&mut bytes, &mut std::io::sink()).map_err(error)?;
        } else {
            let mut content = Vec::new();
            bytes.read_to_end(&mut content).map_err(error)?;
            small.insert(name.to_owned(), content);
        }
        let (read, sha256) = bytes.finish();
        if read != size {
            return Err(refuse(path, format!("it ends in the middle of {name}")));
        }
        found.insert(name.to_owned(), (size, sha256));
        progress.advance(size);
        Ok(())
    })?;
    drop(progress);
    let missing = |name: &str| refuse(path, format!("{name} is missing: the archive is not whole"));
    if found.is_empty() {
        return Err(refuse(path, "it is empty, and not a file that `belvedere-service backup` made"));
    }
    let header = small.get(HEADER).ok_or_else(|| missing(HEADER))?;
    let header: Header = serde_json::from_slice(header).map_err(|e| refuse(path, format!("{HEADER}: {e}")))?;
    if header.format != FORMAT {
        return Err(refuse(
            path,
            format!(
                "its form is {}, this program knows {FORMAT}: use the program that made it ({})",
                header.format, header.program
            ),
        ));
    }
    let text = small.get(MANIFEST).ok_or_else(|| missing(MANIFEST))?;
    let manifest: Manifest = serde_json::from_slice(text).map_err(|e| refuse(path, format!("{MANIFEST}: {e}")))?;
    compare(path, &manifest.entries, &found)?;
    let key = secrets_key(restore, &small)?;
    let sealed = SecretBox::of(&key)?.unseal(SEAL, small.get(MANIFEST_SEAL).ok_or_else(|| missing(MANIFEST_SEAL))?);
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    if sealed.ok().as_deref() != Some(digest.as_ref()) {
        return Err(refuse(path, "the secrets key is not the one of this backup, or the manifest was changed"));
    }
    Ok(Checked { file, header, manifest, small, positions, key })
}

/// Every entry as the manifest says, and none beside.
fn compare(path: &Path, listed: &[Entry], found: &HashMap<String, (u64, String)>) -> Result<(), ServerError> {
    for entry in listed {
        match found.get(&entry.name) {
            None => return Err(refuse(path, format!("{} is missing", entry.name))),
            Some((size, sha256)) if *size != entry.size || *sha256 != entry.sha256 => {
                return Err(refuse(path, format!("{} is damaged: its checksum is another", entry.name)));
            }
            Some(_) => {}
        }
    }
    let names: HashSet<&str> = listed.iter().map(|e| e.name.as_str()).collect();
    let beside = found.keys().find(|n| !names.contains(n.as_str()) && *n != MANIFEST && *n != MANIFEST_SEAL);
    if let Some(name) = beside {
        return Err(refuse(path, format!("{name} is not in its manifest")));
    }
    for name in [HEADER, SERVICE, AUTHORITY, ROWS] {
        if !names.contains(name) {
            return Err(refuse(path, format!("{name} is missing")));
        }
    }
    Ok(())
}

fn secrets_key(restore: &Restore<'_>, small: &HashMap<String, Vec<u8>>) -> Result<Vec<u8>, ServerError> {
    match (restore.secrets_key, small.get(SECRETS)) {
        (Some(path), _) => {
            std::fs::read(path).map_err(|source| ServerError::File { operation: "read", path: path.to_owned(), source })
        }
        (None, Some(key)) => Ok(key.clone()),
        (None, None) => Err(ServerError::Argument(
            "this backup was made without secrets.key; give the file of the original service with --secrets-key FILE".into(),
        )),
    }
}

/// Makes the service. `restore.data` appears whole or not at all.
pub async fn restore(restore: Restore<'_>) -> Result<(Header, Summary), ServerError> {
    let data = restore.data;
    let error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ServerError::File { operation, path, source }
    };
    match std::fs::read_dir(data).map(|mut d| d.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            return Err(ServerError::Argument(format!("{} is not empty; restore into a new directory", data.display())));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(error("look into", data)(e)),
    }
    let mut checked = check(&restore)?;
    let parent = data.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    enough_space(parent, &restore.backends, &checked.manifest)?;
    let name =
        data.file_name().ok_or_else(|| ServerError::Argument(format!("{} is no directory's name", data.display())))?;
    let name = format!("{}.restoring-{}", name.to_string_lossy(), belvedere_store::identifiers::token::<4>());
    let new = Unfinished(parent.join(name));
    std::fs::DirBuilder::new().mode(0o700).create(&new.0).map_err(error("create", &new.0))?;
    let summary = fill(&restore, &mut checked, &new.0).await?;
    // Everything is on the disk before it gets its name.
    let folder = File::open(&new.0).map_err(error("open", &new.0))?;
    rustix::fs::syncfs(&folder).map_err(|e| error("synchronise", &new.0)(e.into()))?;
    #[expect(clippy::disallowed_methods, reason = "everything was synchronised above, the directory is below")]
    std::fs::rename(&new.0, data).map_err(error("name", data))?;
    File::open(parent).and_then(|f| f.sync_all()).map_err(error("synchronise", parent))?;
    Ok((checked.header, summary))
}

/// A directory that is deleted unless it got its name.
struct Unfinished(PathBuf);
impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What comes into the directory must find room there; servers say it themselves.
fn enough_space(folder: &Path, backends: &Backends, manifest: &Manifest) -> Result<(), ServerError> {
    let places = backends.places()?;
    let objects: u64 = match places.objects {
        None => manifest.entries.iter().filter(|e| !e.surplus).map(|e| e.size).sum(),
        Some(_) => 0,
    };
    // Rows, their indices and the journal.
    let rows = if places.database.is_none() { manifest.rows_size.saturating_mul(3) } else { 0 };
    let needed = objects.saturating_add(rows);
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        let (needed, free) = (super::size(needed), super::size(free));
        return Err(ServerError::Argument(format!("{}: {needed} are needed, {free} are free", folder.display())));
    }
    Ok(())
}

async fn fill(restore: &Restore<'_>, checked: &mut Checked, new: &Path) -> Result<Summary, ServerError> {
    let part = |name: &str| checked.small.get(name).cloned().unwrap_or_default();
    replace(&new.join("secrets.key"), &checked.key, 0o600)?;
    replace(&new.join(AUTHORITY), &part(AUTHORITY), 0o644)?;
    replace(&new.join(FILE), &part(SERVICE), 0o600)?;
    let mut configuration = Configuration::read(new)?;
    if let Some(keys) = restore.keys {
        let error = |source| ServerError::File { operation: "find the key directory", path: keys.to_owned(), source };
        configuration.keys = std::fs::canonicalize(keys).map_err(error)?;
    }
    configuration.backends = restore.backends.clone();
    configuration.write(new)?;
    let store = restore.backends.create_store_at(new, checked.manifest.schema).await?;
    let mut written = Vec::new();
    let filled = take_all(restore.from, checked, &store, &mut written).await;
    if let Err(e) = filled {
        // Of a directory all of it goes with the directory.
        let shared = if store.objects_are_shared() { written.as_slice() } else { &[] };
        let undone = (store.delete_files(shared).await, store.discard().await);
        if let (Err(undone), _) | (_, Err(undone)) = undone {
            tracing::warn!("not everything of the restore that failed could be taken back: {undone}");
        }
        store.close().await;
        return Err(e);
    }
    store.close().await;
    filled
}

/// Objects, then rows, then a look at whether they fit together.
async fn take_all(
    path: &Path,
    checked: &mut Checked,
    store: &Store,
    written: &mut Vec<String>,
) -> Result<Summary, ServerError> {
    let mut progress = Progress::new("restoring");
    let Checked { file, manifest, positions, .. } = checked;
    for entry in manifest.entries.iter().filter(|e| !e.surplus) {
        let Some(name) = entry.name.strip_prefix(OBJECTS) else { continue };
        let mut bytes = content(path, file, positions, entry)?;
        written.push(name.to_owned());
        let mut to = store.begin_file(name).await?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let error = |source| ServerError::File { operation: "read", path: path.to_owned(), source };
            match bytes.read(&mut buffer).map_err(error)? {
                0 => break,
                count => to.write(&buffer[..count]).await?,
            }
        }
        unchanged(path, entry, bytes)?;
        to.finish().await?;
        progress.advance(entry.size);
    }
    let Some(entry) = manifest.entries.iter().find(|e| e.name == ROWS) else { return Err(refuse(path, "it has no rows")) };
    let mut bytes = content(path, file, positions, entry)?;
    let taken = take_in(store, &mut bytes, manifest).await?;
    std::io::copy(&mut bytes, &mut std::io::sink()).map_err(|source| ServerError::File {
        operation: "read",
        path: path.to_owned(),
        source,
    })?;
    unchanged(path, entry, bytes)?;
    drop(progress);
    // Every row's file must have come along, and the other way round.
    let (named, orphans) = store.files().await?;
    let found = store.found_files().await?;
    for file in &named {
        if let Some(fault) = found.fault(file, false).await {
            return Err(refuse(path, format!("the object {} is not in it as its row says ({fault:?})", file.of)));
        }
    }
    let names: HashSet<&str> = named.iter().map(|f| f.name.as_str()).collect();
    if let Some(orphan) = written.iter().find(|name| !names.contains(name.as_str())) {
        return Err(refuse(path, format!("no row names {OBJECTS}{orphan}")));
    }
    if let Some(orphan) = orphans.first() {
        return Err(refuse(path, format!("no row names {}", orphan.path.display())));
    }
    store.upgrade().await?;
    if let Some(fault) = store.database_faults().await?.first() {
        return Err(refuse(path, fault));
    }
    store.forget_connections().await?;
    // Last: what fails before leaves a place that says nothing.
    store.begin_new_identity().await?;
    Ok(Summary { rows: taken, objects: written.len() as u64, bytes: manifest.entries.iter().map(|e| e.size).sum() })
}

/// The bytes of an entry, once more.
fn content<'a>(
    path: &Path,
    file: &'a mut File,
    positions: &HashMap<String, u64>,
    entry: &Entry,
) -> Result<Hashing<std::io::Take<&'a mut File>>, ServerError> {
    let at = positions.get(&entry.name).ok_or_else(|| refuse(path, format!("{} is missing", entry.name)))?;
    let sought = file.seek(SeekFrom::Start(*at));
    sought.map_err(|source| ServerError::File { operation: "read", path: path.to_owned(), source })?;
    Ok(Hashing::new(file.take(entry.size)))
}

/// They are still those that were checked.
fn unchanged<R: Read>(path: &Path, entry: &Entry, read: Hashing<R>) -> Result<(), ServerError> {
    match read.finish() {
        (size, sha256) if size == entry.size && sha256 == entry.sha256 => Ok(()),
        _ => Err(refuse(path, "it changed while it was read")),
    }
}

/// Takes in the rows, in one transaction.
async fn take_in(store: &Store, rows: &mut impl Read, manifest: &Manifest) -> Result<u64, ServerError> {
    let error = |source| ServerError::File { operation: "read", path: PathBuf::from(ROWS), source };
    let mut reader = BufReader::new(GzDecoder::new(rows).take(manifest.rows_size.saturating_add(1)));
    let mut intake = store.intake().await?;
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        line.clear();
        let count = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(error)? as u64;
        total += count;
        if count == 0 {
            break;
        }
        if line.pop() != Some(b'\n') {
            return Err(ServerError::Argument(format!("{ROWS} has a line that is too long or not finished")));
        }
        let text = std::str::from_utf8(&line).map_err(|e| error(std::io::Error::other(e)))?;
        intake.line(text).await?;
    }
    let counts = intake.finish().await?;
    if (total, counts.rows, counts.tables) != (manifest.rows_size, manifest.rows, manifest.tables) {
        return Err(ServerError::Argument(format!("{ROWS} does not hold what the manifest says")));
    }
    Ok(counts.rows)
}

/// So that a test can build what this module must refuse.
#[cfg(test)]
pub(super) fn write_entry(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_entry_type(kind);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

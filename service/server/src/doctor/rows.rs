//! The database against itself, the objects' files and the secrets key.

use super::{Depth, Finding, error, good, warning};
use crate::backup::size;
use belvedere_store::files::FileFault;
use belvedere_store::place::Ownership;
use belvedere_store::sweep::{at_once, objection};
use belvedere_store::{Store, StoreError, now_ms};
use std::time::{Duration, SystemTime};

/// Findings of one kind that are told one by one; the others are counted.
const MOST: usize = 10;
/// While the service runs, a file that no row names may be an upload's.
const UPLOAD: Duration = Duration::from_secs(15 * 60);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// All checks of the store.
pub async fn examine(store: &Store, depth: Depth, running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for outcome in [schema(store).await, whole(store).await, sealed(store).await, clock(store).await, devices(store).await] {
        findings.extend(outcome.unwrap_or_else(|e| vec![failed(e)]));
    }
    findings.extend(objects(store, depth, running).await.unwrap_or_else(|e| vec![failed(e)]));
    findings
}

fn failed(e: StoreError) -> Finding {
    error("database", e.to_string(), "restore a backup with `belvedere-service restore`")
}

async fn schema(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let (found, newest) = store.schema_version().await?;
    Ok(vec![match found == newest {
        true => good("schema", format!("version {found}")),
        false => warning(
            "schema",
            format!("version {found}, this program works with {newest}"),
            "make a backup; the next `belvedere-service serve` of this version brings it up to date",
        ),
    }])
}

async fn whole(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let faults = store.database_faults().await?;
    if faults.is_empty() {
        return Ok(vec![good("database", "whole")]);
    }
    let next = "stop the service, keep a copy of the data directory, and restore the last backup";
    Ok(faults.into_iter().map(|fault| error("database", fault, next)).collect())
}

async fn sealed(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let kinds = store.sealed_values().await?;
    let values: u64 = kinds.iter().map(|k| k.values).sum();
    let mut findings: Vec<Finding> = kinds
        .iter()
        .filter(|k| k.closed > 0)
        .map(|k| {
            error(
                "secrets",
                format!("{} of {} values of {} do not open with secrets.key", k.closed, k.values, k.what),
                "put back the secrets.key that belongs to this database; it is kept apart from backups",
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(good("secrets", format!("{values} sealed values open")));
    }
    Ok(findings)
}

async fn clock(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let ahead = store.newest_ms().await? - now_ms();
    Ok(vec![match ahead > 60_000 {
        false => good("clock", crate::time::date(now_ms())),
        true => error(
            "clock",
            format!(
                "it is {} and a row was written {}",
                crate::time::date(now_ms()),
                crate::time::distance(now_ms() + ahead, now_ms())
            ),
            "set this machine's clock (timedatectl set-ntp true): signatures and certificates depend on it",
        ),
    }])
}

async fn devices(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let soon = store.device_certificates_ending_before(now_ms() + 90 * DAY_MS).await?;
    Ok(match soon {
        0 => Vec::new(),
        soon => vec![warning(
            "devices",
            format!("the certificates of {soon} devices end within 90 days"),
            "provision these devices anew before that; they cannot connect afterwards",
        )],
    })
}

async fn objects(store: &Store, depth: Depth, running: bool) -> Result<Vec<Finding>, StoreError> {
    let (named, orphans) = store.files().await?;
    let there = store.found_files().await?;
    // Of a bucket another copy may be in use.
    let changing = running || store.objects_are_shared();
    let mut findings = Vec::new();
    let mut faults = 0;
    for file in &named {
        let Some(fault) = there.fault(file, depth == Depth::Bytes).await else { continue };
        // Replaced while this was looking: not lost.
        if changing && fault == FileFault::Missing && !store.still_named(&file.name).await? {
            continue;
        }
        faults += 1;
        if faults <= MOST {
            let found = match fault {
                FileFault::Missing => "its file is missing".to_owned(),
                FileFault::Size { found } => format!("its file has {found} bytes instead of {}", file.size),
                FileFault::Changed => "its bytes are not those that were put there".to_owned(),
                FileFault::Unreadable(e) => format!("its file cannot be read: {e}"),
            };
            let next = format!(
                "upload {} again, or take its file {} from a backup",
                file.of,
                store.file_path(&file.name).display()
            );
            findings.push(error("objects", format!("{}: {found}", file.of), next));
        }
    }
    if faults > MOST {
        findings.push(error("objects", format!("{} more have faults", faults - MOST), "restore the last backup"));
    }
    if faults == 0 {
        let bytes: u64 = named.iter().map(|f| f.size).sum();
        let how = if depth == Depth::Bytes { "every byte checked" } else { "sizes checked; --bytes reads them all" };
        findings.push(good("objects", format!("{} files, {}, {how}", named.len(), size(bytes))));
    }
    let old =
        |modified: Option<SystemTime>| !running || modified.and_then(|m| m.elapsed().ok()).is_some_and(|age| age > UPLOAD);
    let abandoned: Vec<_> = orphans.iter().filter(|o| old(o.modified)).collect();
    if let Some(first) = abandoned.first() {
        let bytes: u64 = abandoned.iter().map(|o| o.size).sum();
        let found =
            format!("{} files ({}) belong to nothing, such as {}", abandoned.len(), size(bytes), first.path.display());
        findings.push(match abandoned.len() as u64 <= at_once(named.len() as u64) {
            true => good("objects", format!("{found}; the service deletes such a file a week after it first saw it")),
            false => warning(
                "objects",
                found,
                "see whether this is the newest state of the database; `belvedere-service sweep --data DATA` shows them all",
            ),
        });
    }
    findings.extend(place(store).await?);
    Ok(findings)
}

/// Whether the objects' place is that of this database.
async fn place(store: &Store) -> Result<Option<Finding>, StoreError> {
    let (found, newest) = store.schema_version().await?;
    if found != newest {
        return Ok(None);
    }
    let ownership = store.ownership().await?;
    let text = match objection(&ownership) {
        None => return Ok(None),
        // Its next start takes it.
        Some(_) if ownership == Ownership::Unclaimed => return Ok(None),
        Some(text) => text,
    };
    let next = "use the database and the objects that belong together; `belvedere-service sweep --data DATA` says more";
    Ok(Some(match ownership {
        Ownership::Another(_) => error("objects", text, next),
        _ => warning("objects", text, next),
    }))
}

//! Files of objects that no row names: the sweep of every day, and `belvedere-service sweep`, which shows what would go.

use crate::ServerError;
use crate::backup::size;
use crate::configuration::Configuration;
use belvedere_store::place::Ownership;
use belvedere_store::sweep::{KEPT_MS, Waste, at_once, objection};
use belvedere_store::{Store, now_ms};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Files that are shown by name.
const SHOWN: usize = 20;

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: only show them.
    Show,
    /// Delete them now, not in a week.
    Delete,
    /// Delete nothing; from now on the objects' place belongs to this database.
    Adopt,
}

/// What every start does before the first request: the database and the objects' place must belong together.
pub async fn meet(store: &Store) -> Result<(), ServerError> {
    let ownership = store.meet_objects_place().await?;
    if let Some(why) = objection(&ownership) {
        tracing::warn!(place = store.objects_place(), "no file of the objects is swept: {why}");
    }
    Ok(())
}

/// Sweeps now and every day until `stop` turns true. One copy of the service is enough for it.
pub async fn daily(store: Store, mut stop: watch::Receiver<bool>) {
    let forever = async {
        loop {
            if let Err(e) = once(&store).await {
                tracing::warn!(place = store.objects_place(), "the objects are not swept: {e}");
            }
            tokio::time::sleep(DAY).await;
        }
    };
    // Each step of a sweep stands by itself: it may be left at any of them.
    tokio::select! {
        () = forever => {}
        ended = stop.wait_for(|stop| *stop) => drop(ended),
    }
    // So that a copy of the database from before this end is known as one.
    if let Err(e) = store.mark_objects_place().await {
        tracing::warn!("the place of the objects is not marked: {e}");
    }
}

async fn once(store: &Store) -> Result<(), belvedere_store::StoreError> {
    // Said at the start; there it is not an error of today.
    if store.ownership().await? != Ownership::Same || !store.is_first_copy().await? {
        return Ok(());
    }
    store.mark_objects_place().await?;
    let swept = store.sweep(now_ms()).await?;
    if swept > 0 {
        tracing::info!(swept, "files of objects that no row has named for a week are deleted");
    }
    Ok(())
}

/// `belvedere-service sweep`: what it prints. The service may run.
pub async fn command(data: &Path, wish: Wish) -> Result<String, ServerError> {
    let store = Configuration::read(data)?.attach_current_store(data).await?;
    let done = carry_out(&store, wish).await;
    store.close().await;
    done
}

async fn carry_out(store: &Store, wish: Wish) -> Result<String, ServerError> {
    if wish == Wish::Adopt {
        store.adopt_objects_place().await?;
        return Ok(format!("{} belongs to this database from now on; nothing was deleted\n", store.objects_place()));
    }
    let waste = store.waste(now_ms()).await?;
    let mut text = shown(&waste, &store.objects_place(), now_ms());
    if wish == Wish::Delete && !waste.unnamed.is_empty() {
        let swept = store.sweep_now(&waste).await?;
        let _ = writeln!(text, "{swept} files deleted");
    }
    Ok(text)
}

/// For people.
fn shown(waste: &Waste, place: &str, now_ms: i64) -> String {
    let mut text = format!("{place}: rows name {} files\n", waste.named);
    if let Some(why) = objection(&waste.ownership) {
        let _ = writeln!(text, "nothing is swept here: {why}");
    }
    let bytes: u64 = waste.unnamed.iter().map(|u| u.size).sum();
    let _ = writeln!(text, "no row names {} files, {}, that are a day old or older", waste.unnamed.len(), size(bytes));
    for unnamed in waste.unnamed.iter().take(SHOWN) {
        let when = match unnamed.noted_ms {
            None => "not seen by a sweep yet".to_owned(),
            Some(_) if unnamed.is_due(now_ms) => "goes with the next sweep".to_owned(),
            Some(noted) => format!("goes after {}", crate::time::date(noted + KEPT_MS)),
        };
        let _ = writeln!(text, "  {}  {}  {when}", unnamed.file, size(unnamed.size));
    }
    if waste.unnamed.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", waste.unnamed.len() - SHOWN);
    }
    let due = waste.unnamed.iter().filter(|u| u.is_due(now_ms)).count() as u64;
    if due > at_once(waste.named) {
        let _ = writeln!(text, "these are too many to go by themselves ({} may): --yes deletes them", at_once(waste.named));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_store::sweep::Unnamed;

    #[test]
    fn what_would_go_is_said_with_its_time() {
        let unnamed = |n: i64, noted_ms| Unnamed { file: format!("file{n}"), size: 1, noted_ms };
        let all = (0..30).map(|n| unnamed(n, if n == 0 { None } else { Some(n) })).collect();
        let waste = Waste { ownership: Ownership::Same, named: 3, unnamed: all };
        let text = shown(&waste, "/objects", KEPT_MS + 1);
        assert!(text.contains("rows name 3 files") && text.contains("no row names 30 files"), "{text}");
        assert!(text.contains("file0  1 bytes  not seen by a sweep yet") && text.contains("and 10 more"), "{text}");
        assert!(text.contains("file1  1 bytes  goes with the next sweep"), "{text}");
        assert!(text.contains("file2  1 bytes  goes after 1970-01-08"), "{text}");
        let late = shown(&waste, "/objects", KEPT_MS + 100);
        assert!(late.contains("too many to go by themselves (16 may)"), "{late}");
        let older = Waste { ownership: Ownership::Older { place: 7, database: 3 }, ..waste };
        assert!(shown(&older, "/objects", 0).contains("nothing is swept here"));
    }
}

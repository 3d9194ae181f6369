use super::read::{Restore, restore, write_entry};
use super::write::{SecretsKey, backup};
use super::*;
use crate::configuration::Configuration;
use belvedere_store::Store;
use std::path::{Path, PathBuf};
use tar::EntryType::{Directory, Regular, Symlink};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A service with a few rows, an object and an upload under way.
async fn service() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { folder };
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let store = Store::create(&data).await.unwrap();
    let configuration = Configuration {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        bucket: "b".into(),
        keys: place.path("keys"),
        names: Vec::new(),
        backends: Default::default(),
        limits: Default::default(),
        history: Default::default(),
        notifications: Default::default(),
        metrics: Default::default(),
    };
    configuration.write(&data).unwrap();
    std::fs::write(data.join("ca.pem"), "the authority's certificate").unwrap();
    store.create_access_key("first").await.unwrap();
    store.create_log_group("group").await.unwrap();
    store.put_bytes("b", "key", "text/plain", b"an object").await.unwrap();
    let id = store.create_upload("b", "large", "x", &Default::default()).await.unwrap();
    let upload = store.upload(&id, "b", "large").await.unwrap().unwrap();
    let mut writer = store.object_writer().await.unwrap();
    writer.write(b"a part").await.unwrap();
    store.put_part(&upload, 1, writer.finish().await.unwrap()).await.unwrap();
    store.close().await;
    place
}

async fn restored(from: &Path, data: &Path, secrets_key: Option<&Path>) -> Result<Summary, String> {
    let outcome = restore(Restore { from, data, secrets_key, keys: None, backends: Default::default() }).await;
    outcome.map(|(_, summary)| summary).map_err(|e| e.to_string())
}

/// The archive's entries.
fn parts(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    });
    entries.collect()
}

fn build(path: &Path, parts: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(Vec::new());
    parts.iter().for_each(|(name, bytes)| write_entry(&mut tar, name, Regular, bytes));
    std::fs::write(path, tar.into_inner().unwrap()).unwrap();
}

#[tokio::test]
async fn a_service_comes_back_whole_and_only_into_an_empty_place() {
    let place = service().await;
    let (file, data) = (place.path("backup.tar"), place.path("new"));
    let made = backup(&place.path("data"), &file, SecretsKey::Included).await.unwrap();
    assert_eq!(made.objects, 2);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(restored(&file, &data, None).await.unwrap().rows, made.rows);
    let store = Store::open(&data).await.unwrap();
    assert_eq!(store.read_object("b", "key", 100).await.unwrap().unwrap(), b"an object");
    assert_eq!(store.list_access_keys().await.unwrap().len(), 1);
    assert!(store.sealed_values().await.unwrap().iter().all(|s| s.closed == 0));
    store.close().await;
    assert!(restored(&file, &data, None).await.unwrap_err().contains("not empty"));
    let again = backup(&place.path("data"), &file, SecretsKey::Included).await.unwrap_err().to_string();
    assert!(again.contains("never overwritten"), "{again}");
}

#[tokio::test]
async fn without_the_key_the_archive_holds_none_and_wants_the_right_one() {
    let place = service().await;
    let file = place.path("backup.tar");
    backup(&place.path("data"), &file, SecretsKey::Without).await.unwrap();
    let key = std::fs::read(place.path("data").join("secrets.key")).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(key.len()).any(|w| w == key));
    let refused = restored(&file, &place.path("new"), None).await.unwrap_err();
    assert!(refused.contains("--secrets-key"), "{refused}");
    std::fs::write(place.path("other.key"), "00".repeat(32)).unwrap();
    let refused = restored(&file, &place.path("new"), Some(&place.path("other.key"))).await.unwrap_err();
    assert!(refused.contains("not the one of this backup"), "{refused}");
    restored(&file, &place.path("new"), Some(&place.path("data").join("secrets.key"))).await.unwrap();
}

#[tokio::test]
async fn any_changed_byte_and_any_missing_end_is_refused_and_leaves_nothing() {
    let place = service().await;
    let file = place.path("backup.tar");
    backup(&place.path("data"), &file, SecretsKey::Included).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    let bad = place.path("bad.tar");
    // A byte in the middle of each entry, and the archive cut at each.
    let mut position = 0;
    for (name, bytes) in parts(&file) {
        let middle = position + 512 + bytes.len() / 2;
        let mut changed = whole.clone();
        changed[middle] ^= 1;
        std::fs::write(&bad, &changed).unwrap();
        assert!(restored(&bad, &place.path("new"), None).await.is_err(), "{name} changed");
        std::fs::write(&bad, &whole[..middle]).unwrap();
        assert!(restored(&bad, &place.path("new"), None).await.is_err(), "cut in {name}");
        position += 512 + bytes.len().next_multiple_of(512);
    }
    let left: Vec<_> = std::fs::read_dir(place.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("new")), "{left:?}");
}

#[tokio::test]
async fn hostile_archives_write_nothing_outside() {
    let place = service().await;
    let file = place.path("backup.tar");
    backup(&place.path("data"), &file, SecretsKey::Included).await.unwrap();
    let good = parts(&file);
    let hostile = place.path("hostile.tar");
    for name in
        ["../escaped", "/escaped", "objects/../../escaped", "objects/a/b", "objects/", "objects/AB", "service.json/x", ""]
    {
        let mut parts = good.clone();
        parts.insert(1, (name.to_owned(), b"x".to_vec()));
        build(&hostile, &parts);
        let refused = restored(&hostile, &place.path("new"), None).await.unwrap_err();
        assert!(refused.contains("not part of a backup"), "{name}: {refused}");
    }
    for kind in [
        Symlink,
        Directory,
        tar::EntryType::Link,
        tar::EntryType::GNULongName,
        tar::EntryType::GNUSparse,
        tar::EntryType::Char,
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        write_entry(&mut tar, "objects/ab", kind, b"");
        good.iter().for_each(|(name, bytes)| write_entry(&mut tar, name, Regular, bytes));
        std::fs::write(&hostile, tar.into_inner().unwrap()).unwrap();
        let refused = restored(&hostile, &place.path("new"), None).await.unwrap_err();
        assert!(refused.contains("not a plain file"), "{kind:?}: {refused}");
    }
    let mut twice = good.clone();
    twice.insert(1, good[0].clone());
    build(&hostile, &twice);
    assert!(restored(&hostile, &place.path("new"), None).await.unwrap_err().contains("twice"));
    let mut beside = good.clone();
    beside.insert(1, ("objects/abcdef".to_owned(), b"x".to_vec()));
    build(&hostile, &beside);
    assert!(restored(&hostile, &place.path("new"), None).await.unwrap_err().contains("not in its manifest"));
    let mut later = good.clone();
    later[0].1 = serde_json::to_vec(&Header { format: 2, program: "9".into(), account: "1".into(), created_ms: 0 }).unwrap();
    build(&hostile, &later);
    assert!(restored(&hostile, &place.path("new"), None).await.unwrap_err().contains("use the program that made it"));
    assert!(!place.path("escaped").exists());
}

/// Somebody without the key cannot put a manifest of his own in its place.
#[tokio::test]
async fn a_manifest_made_by_somebody_else_is_refused() {
    let place = service().await;
    let file = place.path("backup.tar");
    backup(&place.path("data"), &file, SecretsKey::Without).await.unwrap();
    let mut forged = parts(&file);
    let text = forged.iter().position(|(n, _)| n == MANIFEST).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&forged[text].1).unwrap();
    let object = forged.iter().position(|(n, _)| n.starts_with(OBJECTS)).unwrap();
    forged[object].1 = b"not mine!".to_vec();
    let digest = ring::digest::digest(&SHA256, b"not mine!");
    let entry = manifest.entries.iter_mut().find(|e| e.name == forged[object].0).unwrap();
    (entry.size, entry.sha256) = (9, hex::encode(digest));
    forged[text].1 = serde_json::to_vec(&manifest).unwrap();
    build(&file, &forged);
    let key = place.path("data").join("secrets.key");
    assert!(restored(&file, &place.path("new"), Some(&key)).await.unwrap_err().contains("manifest was changed"));
}

/// Objects are replaced all the time while backups are made: each of them restores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_service_is_one_moment() {
    let place = service().await;
    let data = place.path("data");
    let store = Store::open(&data).await.unwrap();
    let busy = tokio::spawn(async move {
        for round in 0.. {
            let text = format!("round {round}");
            store.put_bytes("b", &format!("k{}", round % 5), "x", text.as_bytes()).await.unwrap();
        }
    });
    for round in 0..4 {
        let file = place.path(&format!("{round}.tar"));
        let made = backup(&data, &file, SecretsKey::Included).await.unwrap();
        let new = place.path(&format!("new{round}"));
        assert_eq!(restored(&file, &new, None).await.unwrap().objects, made.objects);
        let store = Store::attach(&new).await.unwrap();
        let found = store.found_files().await.unwrap();
        for file in store.files().await.unwrap().0 {
            assert_eq!(found.fault(&file, true).await, None);
        }
    }
    busy.abort();
}

use super::*;
use crate::initialise::{New, initialise};
use belvedere_store::Store;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A service with a key directory as `belvedere-keys init` makes it, as far as this program looks at it.
async fn service() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (keys, data) = (folder.path().join("keys"), folder.path().join("data"));
    std::fs::create_dir(&keys).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    std::fs::write(keys.join("device-ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(keys.join("device-ca.key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(keys.join("device-ca.key"), PermissionsExt::from_mode(0o600)).unwrap();
    initialise(New {
        data: &data,
        keys: &keys,
        account: "123456789012",
        region: "us-east-1",
        names: &[],
        backends: Default::default(),
        limits: Default::default(),
    })
    .await
    .unwrap();
    (folder, data)
}

async fn faults(data: &Path) -> Vec<Finding> {
    let mut findings = examine(data, Depth::Bytes).await;
    findings.retain(|f| f.level != Level::Good && f.about != "disk space");
    findings
}

#[tokio::test]
async fn a_new_service_is_as_it_must_be_and_each_harm_is_found_with_its_remedy() {
    let (folder, data) = service().await;
    assert_eq!(faults(&data).await, []);
    let store = Store::open(&data).await.unwrap();
    store.put_bytes("b", "k", "x", b"bytes").await.unwrap();
    let file = store.files().await.unwrap().0.remove(0);
    let path = store.file_path(&file.name);
    store.close().await;

    let harm = async |about: &str, level: Level, words: &str| {
        let found = faults(&data).await;
        let finding = found.iter().find(|f| f.about == about).unwrap_or_else(|| panic!("{about}: {found:#?}"));
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.found.contains(words), "{finding:?}");
        assert!(finding.next.as_ref().is_some_and(|n| !n.is_empty()), "{finding:?}");
    };
    std::fs::write(&path, b"BYTES").unwrap();
    harm("objects", Level::Error, "not those that were put there").await;
    std::fs::remove_file(&path).unwrap();
    harm("objects", Level::Error, "missing").await;
    std::fs::write(&path, b"bytes").unwrap();
    let abandoned: Vec<_> = (0..17).map(|n| path.with_file_name(format!("abandoned{n}"))).collect();
    abandoned.iter().for_each(|path| std::fs::write(path, b"x").unwrap());
    harm("objects", Level::Warning, "belong to nothing").await;
    std::fs::remove_file(&abandoned[0]).unwrap();
    assert_eq!(faults(&data).await, [], "a few are swept by themselves");
    abandoned[1..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let note = data.join("objects/belongs-to.json");
    let kept = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, kept.replace("\"mark\":", "\"mark\":9")).unwrap();
    harm("objects", Level::Warning, "older copy").await;
    std::fs::write(&note, "{\"service\":\"another\",\"mark\":1}").unwrap();
    harm("objects", Level::Error, "another service").await;
    std::fs::write(&note, kept).unwrap();
    assert_eq!(faults(&data).await, []);

    let secrets = data.join("secrets.key");
    std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o644)).unwrap();
    harm("permissions", Level::Error, "can be read by others").await;
    std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
    let kept = std::fs::read(&secrets).unwrap();
    std::fs::write(&secrets, "11".repeat(32)).unwrap();
    harm("secrets", Level::Error, "do not open").await;
    std::fs::write(&secrets, kept).unwrap();

    std::fs::write(data.join("ca.pem"), "another").unwrap();
    harm("authority", Level::Warning, "not the device authority's").await;
    std::fs::copy(folder.path().join("keys/device-ca.crt"), data.join("ca.pem")).unwrap();
    std::fs::rename(folder.path().join("keys"), folder.path().join("elsewhere")).unwrap();
    harm("authority", Level::Error, "device-ca").await;
}

#[tokio::test]
async fn what_is_no_service_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let found = examine(&folder.path().join("none"), Depth::Sizes).await;
    assert_eq!(worst(&found), Level::Error);
    assert!(text(&found).contains("next:") && text(&found).contains("errors"), "{}", text(&found));
    let empty = examine(folder.path(), Depth::Sizes).await;
    assert_eq!(empty.len(), 1, "one thing is wrong: {empty:?}");
    assert!(empty[0].found.contains("is no service's directory"), "{empty:?}");
}

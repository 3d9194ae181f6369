//! What the tests in QEMU share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use belvedere_virtual_appliance::{Appliance, Builder, Error};
use tempfile::TempDir;

/// A boot takes seconds; a machine that builds at the same time takes many times as long.
pub const BOOT: Duration = Duration::from_secs(300);

/// The image under test.
pub fn image() -> PathBuf {
    let Some(image) = std::env::var_os("BELVEDERE_IMAGE") else {
        panic!(
            "set BELVEDERE_IMAGE to the directory that scripts/build-appliance wrote (with disk.img and \
             firmware-variables.fd): BELVEDERE_IMAGE=$PWD/build/appliance scripts/cargo test -p belvedere-virtual-appliance"
        );
    };
    let image = PathBuf::from(image);
    assert!(image.join("disk.img").is_file(), "{} has no disk.img", image.display());
    std::path::absolute(image).unwrap()
}

/// A directory that ends with the test.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("belvedere-").tempdir().unwrap()
}

/// A copy of the image whose disk may be changed. Sparse, so it costs what the image really holds.
pub fn copy(directory: &Path) -> PathBuf {
    let (from, to) = (image(), directory.join("image"));
    std::fs::create_dir(&to).unwrap();
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from.join("disk.img"), from.join("firmware-variables.fd"), from.join("root.erofs")])
        .arg(&to)
        .status()
        .unwrap();
    assert!(status.success());
    to
}

/// Puts into `directory` the state of an appliance of [`image`] that was started once and then cut off: its TPM is ours, its
/// disk encrypted, `data` is made. The first call of a test program makes it, the others get copies.
pub fn started_once(directory: &Path) {
    static STARTED: OnceLock<TempDir> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let scratch = scratch();
        let mut appliance = must(appliance(&image(), scratch.path()).start());
        must(appliance.console_contains("belvedere: operating", BOOT));
        must(appliance.power_cut());
        scratch
    });
    let status = Command::new("cp")
        .args(["-a", "--sparse=always", "--reflink=auto"])
        .arg(started.path().join("state"))
        .arg(directory)
        .status()
        .unwrap();
    assert!(status.success());
}

/// An appliance from `image`, with its state beside it.
pub fn appliance(image: &Path, directory: &Path) -> Builder {
    Appliance::builder(image).state_dir(directory.join("state"))
}

/// Ends a test with what a person needs to see, line by line.
#[track_caller]
pub fn must<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

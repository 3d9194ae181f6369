//! Permissions and space.

use super::{Finding, error, good, warning};
use crate::backup::size;
use crate::configuration::{Configuration, FILE};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const GIB: u64 = 1 << 30;

/// What is in the data directory, who may read it, and how much room there is.
pub fn directory(data: &Path) -> Vec<Finding> {
    if !data.is_dir() {
        let next = "give the directory that `belvedere-service init` made with --data";
        return vec![error("directory", format!("{} is not a directory", data.display()), next)];
    }
    let mut findings = Vec::new();
    match mode(data) {
        Ok(mode) if mode & 0o077 == 0 => {
            findings.push(good("permissions", format!("{} is its owner's alone", data.display())))
        }
        Ok(mode) => findings.push(warning(
            "permissions",
            format!("{} can be entered by others (mode {mode:o})", data.display()),
            format!("chmod 700 {}", data.display()),
        )),
        Err(e) => {
            findings.push(error("permissions", format!("{}: {e}", data.display()), "run doctor as the user of the service"))
        }
    }
    findings.extend(["secrets.key", FILE].iter().filter_map(|name| private(&data.join(name))));
    findings.extend(space(data));
    findings
}

/// The key directory.
pub fn keys(configuration: &Configuration) -> Vec<Finding> {
    let (certificate, key) = configuration.authority();
    let mut findings: Vec<Finding> = private(&key).into_iter().collect();
    if let Err(e) = std::fs::metadata(&certificate) {
        let next = "put the key directory back from where its copies are kept, or name it with `keys` in service.json";
        findings.push(error("keys", format!("{}: {e}", certificate.display()), next));
    }
    findings
}

fn mode(path: &Path) -> std::io::Result<u32> {
    std::fs::metadata(path).map(|m| m.permissions().mode() & 0o7777)
}

/// A file that its owner alone may read.
fn private(path: &Path) -> Option<Finding> {
    match mode(path) {
        Ok(mode) if mode & 0o077 == 0 => None,
        Ok(mode) => Some(error(
            "permissions",
            format!("{} can be read by others (mode {mode:o})", path.display()),
            format!("chmod 600 {}; whoever had an account on this machine may have read it", path.display()),
        )),
        Err(e) => Some(error("permissions", format!("{}: {e}", path.display()), "put the file back from a backup")),
    }
}

fn space(data: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(data).ok()?;
    let (free, all) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize).max(1));
    let found = format!("{} of {} are free", size(free), size(all));
    let next = "delete packages, objects or logs that nobody needs, or move the data directory to a larger disk";
    Some(match judge(free, all) {
        super::Level::Good => good("disk space", found),
        super::Level::Warning => warning("disk space", found, next),
        super::Level::Error => error("disk space", found, next),
    })
}

/// Under 100 MB nothing larger than a log line can be stored; under a gigabyte and a twentieth it is time to act.
fn judge(free: u64, all: u64) -> super::Level {
    match free {
        0..100_000_000 => super::Level::Error,
        free if free < GIB && free < all / 20 => super::Level::Warning,
        _ => super::Level::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn little_space_is_a_warning_and_none_an_error() {
        assert_eq!(judge(99_999_999, 1 << 40), Level::Error);
        assert_eq!(judge(GIB - 1, 1 << 40), Level::Warning);
        assert_eq!(judge(GIB, 1 << 40), Level::Good);
        assert_eq!(judge(200_000_000, GIB), Level::Good, "a small disk may be small");
    }

    #[test]
    fn a_key_that_others_can_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(private(&path), None);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(private(&path).unwrap().level, Level::Error);
        assert_eq!(private(&folder.path().join("none")).unwrap().level, Level::Error);
    }
}

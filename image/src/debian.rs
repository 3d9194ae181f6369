//! Debian packages as inputs: which version the package sources offer, and the files of exactly that version.

use crate::cache::{Cache, digest_file};
use crate::error::{Error, Result};
use crate::program::{program, run};
use std::fs;
use std::path::{Path, PathBuf};

/// A package that the configured package sources offer, named by the digest of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// As in `libc6` (without the architecture).
    pub name: String,
    /// As in `2.36-9+deb12u14`.
    pub version: String,
    /// `arm64` or `all`.
    pub architecture: String,
    /// Of the `.deb` file.
    pub sha256: String,
}

/// Understands one line of `apt-get download --print-uris`:
/// `'http://…' name_version_architecture.deb 291720 SHA256:e4a2…`.
fn parse_uri_line(line: &str) -> Option<Package> {
    let mut words = line.split_whitespace();
    let (_uri, file, _size, digest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    let sha256 = digest.strip_prefix("SHA256:")?;
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) || parts.next().is_some() {
        return None;
    }
    Some(Package {
        name: name.into(),
        version: version.replace("%3a", ":"),
        architecture: architecture.into(),
        sha256: sha256.to_ascii_lowercase(),
    })
}

/// Asks apt which files it would download for these packages (`name` or `name:arm64`). Downloads nothing.
///
/// # Errors
/// When apt knows one of them not, or states no SHA-256.
pub fn resolve(names: &[String]) -> Result<Vec<Package>> {
    let output =
        run(program("apt-get").args(["download", "--print-uris"]).args(names), "asking which Debian packages there are")?;
    let output = String::from_utf8_lossy(&output);
    let mut packages = Vec::new();
    for name in names {
        let plain = name.split(':').next().unwrap_or(name);
        let package = output.lines().filter_map(parse_uri_line).find(|package| package.name == plain);
        packages.push(package.ok_or_else(|| Error::Missing {
            what: format!("Debian package {name}"),
            advice: "type: dpkg --add-architecture arm64 && apt-get update".into(),
        })?);
    }
    Ok(packages)
}

/// The package's file, downloaded if it is not in the cache, its SHA-256 checked.
///
/// # Errors
/// When it cannot be downloaded or is not what apt promised.
pub fn fetch(cache: &Cache, package: &Package) -> Result<PathBuf> {
    let directory = cache.work_directory("debian-packages")?;
    let path = directory.join(format!("{}.deb", package.sha256));
    if path.exists() {
        return Ok(path);
    }
    let temporary = directory.join(format!(".download-{}", package.sha256));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(Error::file("remove", &temporary))?;
    }
    fs::create_dir(&temporary).map_err(Error::file("create", &temporary))?;
    let mut wanted = format!("{}={}", package.name, package.version);
    if package.architecture != "all" {
        wanted = format!("{}:{}={}", package.name, package.architecture, package.version);
    }
    run(program("apt-get").args(["-q", "download", &wanted]).current_dir(&temporary), &format!("downloading {wanted}"))?;
    let file = crate::cache::sorted_entries(&temporary)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Error::invalid(&wanted, "apt-get download gave no file"))?;
    let digest = hex::encode(digest_file(&file)?);
    if digest != package.sha256 {
        return Err(Error::invalid(
            &wanted,
            format!("the downloaded file has SHA-256 {digest}, apt promised {}", package.sha256),
        ));
    }
    fs::rename(&file, &path).map_err(Error::file("rename", &file))?;
    fs::remove_dir_all(&temporary).map_err(Error::file("remove", &temporary))?;
    Ok(path)
}

/// Unpacks a package's files. Only into a directory of its own: unpacked over a merged-/usr tree it would replace the
/// links `/bin`, `/lib` and `/sbin` by directories.
///
/// # Errors
/// When the file is not a package.
pub fn unpack(file: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(Error::file("create", into))?;
    run(program("dpkg-deb").arg("-x").arg(file).arg(into), &format!("unpacking {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let digest = "e4a27bf7e75746e9d9500985402e83eb9c9d7742135ff038f0bd729a3cde2c20";
        let line = format!(
            "'http://deb.debian.org/x/crun_1.8.1-1%2bdeb12u1_arm64.deb' crun_1%3a1.8.1-1+deb12u1_arm64.deb 291720 SHA256:{digest}"
        );
        let package = parse_uri_line(&line).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str(), package.architecture.as_str()),
            ("crun", "1:1.8.1-1+deb12u1", "arm64")
        );
        assert_eq!(package.sha256, digest);
        for wrong in
            ["", "E: nothing", "'u' crun.deb 1 SHA256:00", &line.replace("SHA256", "MD5Sum"), &line.replace("e4a2", "e4")]
        {
            assert!(parse_uri_line(wrong).is_none(), "{wrong}");
        }
    }
}

//! The root tree: files of Debian packages and of this project, gathered in a directory.

use crate::cache::{Cache, Inputs, digest_file, sorted_entries};
use crate::debian::{self, Package};
use crate::error::{Error, Result};
use crate::manifest::{FileEntry, Manifest};
use crate::programs::Programs;
use belvedere_interfaces::users::{CONTAINER_FIRST_ID, CONTAINER_IDS, USERS};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Which files of which packages: see the file.
pub const PACKAGES: &str = include_str!("../root-packages");

/// One line of [`PACKAGES`].
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Package.
    pub package: &'a str,
    /// Paths with `*`; none when only the copyright file is wanted.
    pub patterns: Vec<&'a str>,
}

/// Understands [`PACKAGES`].
pub fn wanted(list: &str) -> Vec<Wanted<'_>> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let package = words.next()?;
            Some(Wanted { package, patterns: words.filter(|word| *word != "-").collect() })
        })
        .collect()
}

/// Whether a path matches a pattern; `*` stands for any text without `/`.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut paths) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), paths.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if component_matches(pattern, name) => {}
            _ => return false,
        }
    }
}

fn component_matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| component_matches(tail, &rest[at..]))
        }),
    }
}

/// `lib/…`, `bin/…` and `sbin/…` of packages from before merged-/usr go to `usr/`.
fn merged(path: &str) -> String {
    match path.split('/').next() {
        Some("bin" | "lib" | "sbin") => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

/// A root tree being filled; remembers where each file comes from.
struct Tree<'a> {
    root: &'a Path,
    sources: BTreeMap<String, String>,
}

impl Tree<'_> {
    fn place(&mut self, path: &str, source: &str) -> Result<PathBuf> {
        let target = self.root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        if let Some(other) = self.sources.insert(path.to_owned(), source.to_owned()) {
            return Err(Error::invalid(format!("/{path}"), format!("comes from {other} and from {source}")));
        }
        Ok(target)
    }

    fn copy(&mut self, from: &Path, path: &str, mode: u32, source: &str) -> Result<()> {
        let target = self.place(path, source)?;
        fs::copy(from, &target).map_err(Error::file("copy", from))?;
        fs::set_permissions(&target, Permissions::from_mode(mode)).map_err(Error::file("set mode of", &target))
    }

    fn write(&mut self, path: &str, content: &str) -> Result<()> {
        let target = self.place(path, "belvedere")?;
        fs::write(&target, content).map_err(Error::file("write", &target))?;
        fs::set_permissions(&target, Permissions::from_mode(0o644)).map_err(Error::file("set mode of", &target))
    }

    fn link(&mut self, path: &str, target: &Path, source: &str) -> Result<()> {
        let place = self.place(path, source)?;
        symlink(target, &place).map_err(Error::file("create link", &place))
    }

    /// Copies a directory's files and links.
    fn copy_tree(&mut self, from: &Path, path: &str, source: &str) -> Result<()> {
        for entry in sorted_entries(from)? {
            let name = entry
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or_else(|| Error::invalid(entry.display().to_string(), "its name is not UTF-8"))?;
            if name == "__pycache__" {
                continue;
            }
            let inner = format!("{path}/{name}");
            let metadata = fs::symlink_metadata(&entry).map_err(Error::file("look at", &entry))?;
            if metadata.is_dir() {
                self.copy_tree(&entry, &inner, source)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&entry).map_err(Error::file("read link", &entry))?;
                self.link(&inner, &target, source)?;
            } else {
                let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                self.copy(&entry, &inner, mode, source)?;
            }
        }
        Ok(())
    }

    /// The wanted files of an unpacked package. Every pattern but one with alternatives must match something; a
    /// package of which nothing matches is an error.
    fn add_package(&mut self, unpacked: &Path, wanted: &Wanted<'_>) -> Result<()> {
        let source = format!("debian:{}", wanted.package);
        let mut files = Vec::new();
        list_files(unpacked, "", &mut files)?;
        let mut found = 0;
        for path in &files {
            let copyright = *path == format!("usr/share/doc/{}/copyright", wanted.package);
            if !copyright && !wanted.patterns.iter().any(|pattern| matches(pattern, &merged(path))) {
                continue;
            }
            found += usize::from(!copyright);
            let from = unpacked.join(path);
            let metadata = fs::symlink_metadata(&from).map_err(Error::file("look at", &from))?;
            if metadata.is_symlink() {
                let target = fs::read_link(&from).map_err(Error::file("read link", &from))?;
                self.link(&merged(path), &target, &source)?;
            } else {
                let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                self.copy(&from, &merged(path), mode, &source)?;
            }
        }
        if found == 0 && !wanted.patterns.is_empty() {
            return Err(Error::invalid(
                format!("Debian package {}", wanted.package),
                format!("holds none of {}", wanted.patterns.join(" ")),
            ));
        }
        Ok(())
    }
}

/// Paths of all files and links below a directory, relative, sorted.
fn list_files(directory: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in sorted_entries(directory)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let metadata = fs::symlink_metadata(&entry).map_err(Error::file("look at", &entry))?;
        if metadata.is_dir() {
            list_files(&entry, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn passwd() -> String {
    let mut text = String::from("root:x:0:0:root:/:/nonexistent\n");
    for user in USERS {
        text += &format!("{0}:x:{1}:{1}:Belvedere {0}:/:/nonexistent\n", user.name, user.id);
    }
    text + "nobody:x:65534:65534:nobody:/:/nonexistent\n"
}

fn group() -> String {
    let mut text = String::from("root:x:0:\n");
    for user in USERS {
        text += &format!("{}:x:{}:\n", user.name, user.id);
    }
    text + "nogroup:x:65534:\n"
}

/// Everything that determines the root tree.
pub struct Ingredients<'a> {
    /// Resolved packages, in the order of [`PACKAGES`].
    pub packages: &'a [Package],
    /// What this project compiled.
    pub programs: &'a Programs,
    /// Directory with `libonnxruntime.so`, `LICENSE` and `ThirdPartyNotices.txt`.
    pub onnx_runtime: &'a Path,
    /// The release's version.
    pub version: &'a str,
    /// The board's name.
    pub board: &'a str,
}

impl Ingredients<'_> {
    /// Hash of all of it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn inputs(&self) -> Result<Inputs> {
        let mut inputs =
            Inputs::new("root tree 1").with("list", PACKAGES).with("version", self.version).with("board", self.board);
        inputs = inputs.with("passwd", passwd()).with("group", group());
        for package in self.packages {
            inputs = inputs.with("package", &package.sha256);
        }
        for part in ["bin", "lib", "licences", "python"] {
            let directory = self.programs.directory.join(part);
            if directory.exists() {
                inputs = inputs.with_tree(part, &directory)?;
            }
        }
        inputs.with_file("onnxruntime", &self.onnx_runtime.join("libonnxruntime.so"))
    }
}

/// Fills `root` and gives the manifest, which it also writes into the tree. `scratch` is for unpacking.
///
/// # Errors
/// When a package cannot be had, a file cannot be copied, or two sources bring the same file.
pub fn gather(
    cache: &Cache,
    root: &Path,
    scratch: &Path,
    ingredients: &Ingredients<'_>,
    mut manifest: Manifest,
) -> Result<Manifest> {
    fs::create_dir_all(root).map_err(Error::file("create", root))?;
    let mut tree = Tree { root, sources: BTreeMap::new() };
    // Merged /usr: links first, so that nothing can make directories of these names.
    for name in ["bin", "lib", "sbin"] {
        let directory = root.join("usr").join(name);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        tree.link(name, Path::new(&format!("usr/{name}")), "belvedere")?;
    }
    for name in ["dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib/belvedere"] {
        let directory = root.join(name);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    }

    for (wanted, package) in wanted(PACKAGES).iter().zip(ingredients.packages) {
        let unpacked = scratch.join(wanted.package);
        debian::unpack(&debian::fetch(cache, package)?, &unpacked)?;
        tree.add_package(&unpacked, wanted)?;
    }

    let programs = &ingredients.programs.directory;
    for program in sorted_entries(&programs.join("bin"))? {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&program, &format!("usr/lib/belvedere/bin/{name}"), 0o755, "belvedere")?;
    }
    for (part, path) in
        [("lib", "usr/lib/belvedere/lib"), ("python", "usr/lib/belvedere/python"), ("licences", "usr/share/doc/belvedere")]
    {
        let directory = programs.join(part);
        if directory.is_dir() {
            tree.copy_tree(&directory, path, "belvedere")?;
        }
    }
    tree.copy(
        &ingredients.onnx_runtime.join("libonnxruntime.so"),
        "usr/lib/belvedere/lib/libonnxruntime.so",
        0o644,
        "pypi:onnxruntime",
    )?;
    for name in ["LICENSE", "ThirdPartyNotices.txt"] {
        tree.copy(
            &ingredients.onnx_runtime.join(name),
            &format!("usr/share/doc/onnxruntime/{name}"),
            0o644,
            "pypi:onnxruntime",
        )?;
    }

    tree.write("etc/passwd", &passwd())?;
    tree.write("etc/group", &group())?;
    tree.write("etc/subuid", &format!("applications:{CONTAINER_FIRST_ID}:{CONTAINER_IDS}\n"))?;
    tree.write("etc/subgid", &format!("applications:{CONTAINER_FIRST_ID}:{CONTAINER_IDS}\n"))?;
    tree.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    tree.write("etc/hostname", "belvedere\n")?;
    tree.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
    tree.link("etc/resolv.conf", Path::new(belvedere_interfaces::paths::RESOLV_CONF), "belvedere")?;
    tree.link("etc/mtab", Path::new("/proc/self/mounts"), "belvedere")?;
    tree.write("usr/lib/belvedere/release/version", &format!("{}\n", ingredients.version))?;
    tree.write("usr/lib/belvedere/release/board", &format!("{}\n", ingredients.board))?;
    tree.write(
        "etc/os-release",
        &format!("NAME=Belvedere\nID=belvedere\nVERSION_ID={0}\nPRETTY_NAME=\"Belvedere {0}\"\n", ingredients.version),
    )?;

    for (path, source) in &tree.sources {
        let file = root.join(path);
        let metadata = fs::symlink_metadata(&file).map_err(Error::file("look at", &file))?;
        if metadata.is_file() {
            manifest.files.push(FileEntry {
                path: format!("/{path}"),
                bytes: metadata.len(),
                sha256: hex::encode(digest_file(&file)?),
                source: source.clone(),
            });
        }
    }
    let text =
        serde_json::to_string_pretty(&manifest).map_err(|error| Error::invalid("manifest", error.to_string()))? + "\n";
    tree.write("usr/lib/belvedere/release/manifest.json", &text)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_directory() {
        assert!(matches("lib/a/libc.so.*", "lib/a/libc.so.6"));
        assert!(matches("lib/*/libc.so.6", "lib/a/libc.so.6"));
        assert!(!matches("lib/*", "lib/a/libc.so.6"));
        assert!(!matches("lib/a/libc.so.*", "lib/a/libcap.so.2"));
        assert!(matches("a*b*c", "aXbYbc"));
        assert!(!matches("a*b", "abc"));
    }

    #[test]
    fn files_from_before_merged_usr_go_to_usr() {
        assert_eq!(merged("lib/ld-linux-aarch64.so.1"), "usr/lib/ld-linux-aarch64.so.1");
        assert_eq!(merged("sbin/mke2fs"), "usr/sbin/mke2fs");
        assert_eq!(merged("etc/mke2fs.conf"), "etc/mke2fs.conf");
        assert_eq!(merged("usr/bin/crun"), "usr/bin/crun");
    }

    #[test]
    fn the_list_of_packages_is_understood() {
        let list = wanted(PACKAGES);
        assert!(list.iter().any(|wanted| wanted.package == "crun" && wanted.patterns == ["usr/bin/crun"]));
        assert!(list.iter().any(|wanted| wanted.package == "gcc-12-base" && wanted.patterns.is_empty()));
        assert!(
            list.iter()
                .all(|wanted| { !wanted.patterns.iter().any(|pattern| pattern.starts_with('/') || pattern.contains("..")) })
        );
    }

    #[test]
    fn two_sources_of_one_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree { root: directory.path(), sources: BTreeMap::new() };
        tree.write("etc/hosts", "a").unwrap();
        assert!(tree.write("etc/hosts", "b").is_err());
    }

    #[test]
    fn every_service_has_its_user_and_nobody_has_a_shell() {
        let passwd = passwd();
        for user in USERS {
            assert!(passwd.lines().any(|line| line.starts_with(&format!("{0}:x:{1}:{1}:", user.name, user.id))));
        }
        assert!(passwd.lines().all(|line| line.ends_with(":/nonexistent")));
    }
}

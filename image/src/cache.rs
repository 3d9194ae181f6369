//! Results of stages, kept under the hash of everything that went into them.
//!
//! `<cache>/<stage>/<hash of inputs>/` exists only when it is complete: a stage works in a directory beside it, which
//! is renamed at the end. What an interrupted run left is removed by the next run of that stage.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A SHA-256 in the making, over labelled inputs. Each label and value is preceded by its length, so that no two
/// different lists of inputs give the same bytes.
#[derive(Clone)]
pub struct Inputs(Sha256);

impl Inputs {
    /// `recipe` names the stage and the version of its code; change it when the code changes what comes out.
    pub fn new(recipe: &str) -> Self {
        Self(Sha256::new()).with("recipe", recipe)
    }

    /// Adds one input.
    #[must_use]
    pub fn with(mut self, label: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [label.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_file(self, label: &str, path: &Path) -> Result<Self> {
        Ok(self.with(label, digest_file(path)?))
    }

    /// Adds the content, names and kinds of a directory's entries, recursively.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn with_tree(self, label: &str, path: &Path) -> Result<Self> {
        let mut this = self.with(label, "tree");
        for entry in sorted_entries(path)? {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let metadata = fs::symlink_metadata(&entry).map_err(Error::file("look at", &entry))?;
            if metadata.is_dir() {
                this = this.with_tree(&name, &entry)?.with(&name, "end");
            } else if metadata.is_symlink() {
                let target = fs::read_link(&entry).map_err(Error::file("read link", &entry))?;
                this = this.with(&name, target.as_os_str().as_encoded_bytes());
            } else {
                this = this.with_file(&name, &entry)?;
            }
        }
        Ok(this)
    }

    /// The hash as 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        hex::encode(self.0.clone().finalize())
    }
}

/// SHA-256 of a file's content.
///
/// # Errors
/// When it cannot be read.
pub fn digest_file(path: &Path) -> Result<[u8; 32]> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).map_err(Error::file("read", path))?;
        if length == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..length]);
    }
}

/// A directory's entries in the order of their names.
///
/// # Errors
/// When it cannot be read.
pub fn sorted_entries(path: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::file("list", path))? {
        entries.push(entry.map_err(Error::file("list", path))?.path());
    }
    entries.sort();
    Ok(entries)
}

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// What a stage gave.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Directory with the stage's files. Not to be changed.
    pub directory: PathBuf,
    /// Hash of the stage's inputs.
    pub hash: String,
    /// Whether it was there already.
    pub warm: bool,
}

impl Stage {
    /// A file of the stage.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Where results of stages are kept unless told otherwise: `belvedere` in the user's cache directory.
pub fn default_directory() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("belvedere")
}

impl Cache {
    /// Uses (and makes, if need be) a directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(Error::file("create", root))?;
        let root = root.canonicalize().map_err(Error::file("find", root))?;
        Ok(Self { root })
    }

    /// Keeps other builds out until the returned file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join("image.lock");
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        file.lock().map_err(Error::file("lock", &path))?;
        Ok(file)
    }

    /// A directory that is not keyed by content: work trees that make repeated builds quicker.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        Ok(path)
    }

    /// Gives the stage's result for these inputs, made by `build` (into the directory it is given) if it is not there.
    ///
    /// # Errors
    /// Those of `build`, and when the cache cannot be written.
    pub fn stage(&self, name: &str, inputs: &Inputs, build: impl FnOnce(&Path) -> Result<()>) -> Result<Stage> {
        let hash = inputs.hash();
        let parent = self.work_directory(name)?;
        let directory = parent.join(&hash);
        if directory.is_dir() {
            return Ok(Stage { directory, hash, warm: true });
        }
        let building = parent.join(".building");
        if building.exists() {
            fs::remove_dir_all(&building).map_err(Error::file("remove", &building))?;
        }
        fs::create_dir(&building).map_err(Error::file("create", &building))?;
        build(&building)?;
        fs::rename(&building, &directory).map_err(Error::file("rename", &building))?;
        Ok(Stage { directory, hash, warm: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_told_apart_by_label_order_and_boundaries() {
        let hashes = [
            Inputs::new("r").hash(),
            Inputs::new("r").with("a", "bc").hash(),
            Inputs::new("r").with("ab", "c").hash(),
            Inputs::new("r").with("a", "b").with("c", "").hash(),
            Inputs::new("r").with("c", "").with("a", "b").hash(),
            Inputs::new("s").with("a", "bc").hash(),
        ];
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn a_stage_is_built_once_and_an_interrupted_one_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let inputs = Inputs::new("test");
        let failed = cache.stage("s", &inputs, |path| {
            fs::write(path.join("half"), "").unwrap();
            Err(Error::invalid("stage", "interrupted"))
        });
        assert!(failed.is_err());
        let built = cache
            .stage("s", &inputs, |path| fs::write(path.join("whole"), "x").map_err(Error::file("write", path)))
            .unwrap();
        assert!(!built.warm && built.file("whole").exists() && !built.file("half").exists());
        let again = cache.stage("s", &inputs, |_| panic!("built twice")).unwrap();
        assert!(again.warm);
    }

    #[test]
    fn a_tree_is_told_apart_by_names_links_and_content() {
        let directory = tempfile::tempdir().unwrap();
        let hash = || Inputs::new("t").with_tree("tree", directory.path()).unwrap().hash();
        let empty = hash();
        fs::write(directory.path().join("a"), "1").unwrap();
        let one = hash();
        fs::write(directory.path().join("a"), "2").unwrap();
        let two = hash();
        fs::remove_file(directory.path().join("a")).unwrap();
        std::os::unix::fs::symlink("b", directory.path().join("a")).unwrap();
        let link = hash();
        assert!(empty != one && one != two && two != link && link != empty);
    }
}

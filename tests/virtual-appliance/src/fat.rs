//! Files of a FAT file system inside an image, without mounting it. The image must not be in use meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::run;
use crate::{Error, file_error};

/// A FAT file system in a raw image.
#[derive(Debug, Clone)]
pub struct Fat {
    image: PathBuf,
    offset: u64,
}

impl Fat {
    /// The one that begins at byte `offset`.
    pub fn at(image: impl Into<PathBuf>, offset: u64) -> Self {
        Self { image: image.into(), offset }
    }

    /// The one in the GPT partition `name`.
    ///
    /// # Errors
    /// When there is no such partition.
    pub fn in_partition(image: &Path, name: &str) -> Result<Self, Error> {
        let extent = crate::disk::partition(image, name)?;
        Ok(Self::at(image, extent.offset))
    }

    /// Writes a file into the file system, replacing an older one.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut folder = String::from("::");
        if let Some((folders, _)) = name.rsplit_once('/') {
            for part in folders.split('/') {
                folder = format!("{folder}/{part}");
                // It may be there already.
                let _ = self.tool("mmd").arg("-D").arg("s").arg(&folder).stderr(Stdio::null()).status();
            }
        }
        let source = self.image.with_extension("putting");
        std::fs::write(&source, content).map_err(file_error("write", &source))?;
        let result = run(self.tool("mcopy").arg("-o").arg(&source).arg(format!("::{name}")), "mtools");
        std::fs::remove_file(&source).map_err(file_error("remove", &source))?;
        result.map(drop)
    }

    /// Reads a file from the file system; nothing when it is not there.
    ///
    /// # Errors
    /// When mtools is missing.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match run(self.tool("mtype").arg(format!("::{name}")), "mtools") {
            Ok(output) => Ok(Some(output.stdout)),
            Err(Error::Program { message, .. }) if message.contains("not found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every file in the file system, with folders, sorted.
    ///
    /// # Errors
    /// When mtools is missing or there is no FAT.
    pub fn files(&self) -> Result<Vec<String>, Error> {
        let output = run(self.tool("mdir").args(["-b", "-/", "-a", "::"]), "mtools")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("::/"))
            .filter(|name| !name.is_empty() && !name.ends_with('/'))
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("MTOOLS_SKIP_CHECK", "1").env("MTOOLSRC", "/dev/null").env("LC_ALL", "C.UTF-8").arg("-i").arg(format!(
            "{}@@{}",
            self.image.display(),
            self.offset
        ));
        command
    }
}

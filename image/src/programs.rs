//! The directory with everything that this project itself compiled for the board.
//!
//! ```text
//! bin/belvedere-<service>        programs, one per service
//! initramfs/belvedere-storage    opens the volumes, before there is a root
//! lib/                           libraries that they load
//! licences/<name>                what the licences of these libraries demand to be handed on
//! python/panoramasdk/            what applications import
//! efi/belvedere-bootloader.efi   not signed
//! efi/belvedere-kernel-stub.efi  not signed
//! ```

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Services that an image must hold, `init` first.
pub const REQUIRED: &[&str] = &[
    "init", "front-panel", "network", "provisioning", "agent", "camera", "decoder", "inference", "display", "applications",
];

/// What to do about missing parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingParts {
    /// Stop.
    Refuse,
    /// Make an image without them: for development, while parts are being written.
    Leave,
}

/// The directory, looked through.
#[derive(Debug)]
pub struct Programs {
    /// Where.
    pub directory: PathBuf,
    /// What was not there (only with [`MissingParts::Leave`]).
    pub missing: Vec<String>,
}

impl Programs {
    /// Looks whether everything is there.
    ///
    /// # Errors
    /// When something is missing. `init`, the storage program, bootloader and stub can never be left out.
    pub fn open(directory: &Path, policy: MissingParts) -> Result<Self> {
        let mut missing = Vec::new();
        for service in REQUIRED {
            let name = format!("bin/belvedere-{service}");
            if !directory.join(&name).is_file() {
                if policy == MissingParts::Refuse || *service == "init" {
                    return Err(missing_part(directory, &name));
                }
                missing.push(name);
            }
        }
        for name in ["python/panoramasdk/__init__.py", "lib"] {
            if !directory.join(name).exists() {
                if policy == MissingParts::Refuse {
                    return Err(missing_part(directory, name));
                }
                missing.push(name.into());
            }
        }
        let programs = Self { directory: directory.to_owned(), missing };
        for file in [programs.storage(), programs.bootloader(), programs.kernel_stub()] {
            if !file.is_file() {
                return Err(missing_part(directory, &file.strip_prefix(directory).unwrap_or(&file).to_string_lossy()));
            }
        }
        Ok(programs)
    }

    /// PID 1.
    pub fn init(&self) -> PathBuf {
        self.directory.join("bin/belvedere-init")
    }

    /// What opens the volumes in the initial RAM file system.
    pub fn storage(&self) -> PathBuf {
        self.directory.join("initramfs/belvedere-storage")
    }

    /// UEFI program that the firmware starts.
    pub fn bootloader(&self) -> PathBuf {
        self.directory.join("efi/belvedere-bootloader.efi")
    }

    /// UEFI program that becomes the head of the unified kernel image.
    pub fn kernel_stub(&self) -> PathBuf {
        self.directory.join("efi/belvedere-kernel-stub.efi")
    }
}

fn missing_part(directory: &Path, name: &str) -> Error {
    Error::Missing {
        what: directory.join(name).display().to_string(),
        advice: "scripts/build-appliance builds and gathers all parts; --allow-missing makes an image without it, for development".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn missing_services_are_refused_or_listed_and_init_is_never_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["bin", "efi", "initramfs", "lib", "python/panoramasdk"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fs::write(path.join("python/panoramasdk/__init__.py"), "").unwrap();
        fs::write(path.join("efi/belvedere-bootloader.efi"), "").unwrap();
        fs::write(path.join("efi/belvedere-kernel-stub.efi"), "").unwrap();
        fs::write(path.join("initramfs/belvedere-storage"), "").unwrap();
        assert!(Programs::open(path, MissingParts::Leave).is_err(), "without init");
        fs::write(path.join("bin/belvedere-init"), "").unwrap();
        let error = Programs::open(path, MissingParts::Refuse).unwrap_err().to_string();
        assert!(error.contains("belvedere-front-panel"), "{error}");
        assert_eq!(Programs::open(path, MissingParts::Leave).unwrap().missing.len(), REQUIRED.len() - 1);
        for service in REQUIRED {
            fs::write(path.join(format!("bin/belvedere-{service}")), "").unwrap();
        }
        assert!(Programs::open(path, MissingParts::Refuse).unwrap().missing.is_empty());
        for name in ["efi/belvedere-bootloader.efi", "initramfs/belvedere-storage"] {
            fs::remove_file(path.join(name)).unwrap();
            assert!(Programs::open(path, MissingParts::Leave).is_err(), "without {name}");
            fs::write(path.join(name), "").unwrap();
        }
    }
}

//! What is inside a release, for people and programs: `manifest.json`.

use crate::debian::Package;
use serde::Serialize;

/// The whole list.
#[derive(Debug, Serialize)]
pub struct Manifest {
    /// Of the release.
    pub version: String,
    /// What it is for.
    pub board: String,
    /// What the kernel was built from.
    pub kernel: Kernel,
    /// Debian packages whose files are in the root tree.
    pub debian_packages: Vec<DebianPackage>,
    /// PyPI wheels whose files are in the root tree, as pip's requirements.
    pub python_wheels: Vec<String>,
    /// Every regular file of the root tree but this list itself, in the order of the paths.
    pub files: Vec<FileEntry>,
}

/// The kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Debian's package with the source.
    pub source_package: DebianPackage,
    /// SHA-256 of our configuration.
    pub configuration_sha256: String,
    /// SHA-256 of the kernel before it is signed.
    pub image_sha256: String,
}

/// A Debian package.
#[derive(Debug, Clone, Serialize)]
pub struct DebianPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// Of the package's file.
    pub sha256: String,
}

impl From<&Package> for DebianPackage {
    fn from(package: &Package) -> Self {
        Self {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            sha256: package.sha256.clone(),
        }
    }
}

/// A file of the root tree.
#[derive(Debug, Serialize)]
pub struct FileEntry {
    /// Absolute path on the appliance.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Content.
    pub sha256: String,
    /// Where it comes from: `debian:<package>`, `pypi:onnxruntime`, `belvedere`.
    pub source: String,
}

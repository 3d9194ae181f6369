//! Where things of a package are in the bucket. The layout is the original's: scripts parse it.

use serde::Serialize;

/// `StorageLocation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StorageLocation {
    bucket: String,
    binary_prefix_location: String,
    generated_prefix_location: String,
    manifest_prefix_location: String,
    repo_prefix_location: String,
}

/// Where everything of a package is.
pub fn repository(account: &str, package: &str) -> String {
    format!("{account}/nodePackages/{package}")
}

/// Where a package is.
pub fn storage_location(bucket: &str, account: &str, package: &str) -> StorageLocation {
    let repository = repository(account, package);
    StorageLocation {
        bucket: bucket.to_owned(),
        binary_prefix_location: format!("{repository}/binaries"),
        generated_prefix_location: format!("{repository}/generated"),
        manifest_prefix_location: format!("{repository}/manifests"),
        repo_prefix_location: repository,
    }
}

/// The key of a version's `package.json`.
pub fn manifest_key(account: &str, package: &str, version: &str, patch: &str) -> String {
    format!("{}/manifests/{version}/{patch}.json", repository(account, package))
}

/// The key of one of a package's files.
pub fn binary_key(account: &str, package: &str, file: &str) -> String {
    format!("{}/binaries/{file}", repository(account, package))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_layout_is_the_original_s() {
        assert_eq!(
            super::manifest_key("123456789012", "CODE", "1.0", "ab12"),
            "123456789012/nodePackages/CODE/manifests/1.0/ab12.json"
        );
        assert_eq!(super::binary_key("1", "CODE", "x.tar.gz"), "1/nodePackages/CODE/binaries/x.tar.gz");
    }
}

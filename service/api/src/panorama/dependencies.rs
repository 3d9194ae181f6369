//! What an application instance is made of: the package versions behind its nodes.

use super::Context;
use super::application_instances::{ListOfInstance, find, is_gone};
use super::errors::ApiError;
use super::paging::page;
use crate::Api;
use belvedere_store::application_instances::NodeRecord;
use serde::Serialize;

/// `PackageObject`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PackageObject {
    name: String,
    package_version: String,
    patch_version: String,
}

/// `ListApplicationInstanceDependenciesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DependenciesListed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    package_objects: Vec<PackageObject>,
}

/// Each package version once, by name.
fn packages(nodes: &[NodeRecord]) -> Vec<PackageObject> {
    let mut packages: Vec<PackageObject> = nodes
        .iter()
        .map(|n| PackageObject {
            name: n.package_name.clone(),
            package_version: n.package_version.clone(),
            patch_version: n.patch.clone(),
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// The package versions behind an instance's nodes, built-in ones among them; none once it is removed.
pub async fn list(api: &Api, _: &Context, input: ListOfInstance) -> Result<DependenciesListed, ApiError> {
    let instance = find(api, &input.application_instance_id).await?;
    let packages = if is_gone(&instance) { Vec::new() } else { packages(&instance.nodes) };
    let id = |p: &PackageObject| format!("{}-{}-{}", p.name, p.package_version, p.patch_version);
    let (package_objects, next_token) = page(packages, id, input.max_results, input.next_token.as_deref())?;
    Ok(DependenciesListed { next_token, package_objects })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_one_package_are_one_dependency() {
        let node = |instance: &str, package: &str, patch: &str| NodeRecord {
            instance: instance.into(),
            node_id: String::new(),
            node_name: String::new(),
            package_name: package.into(),
            package_version: "1.0".into(),
            patch: patch.into(),
            status: String::new(),
            camera: None,
        };
        let listed = packages(&[node("a", "MODEL", "11"), node("b", "CODE", "22"), node("c", "MODEL", "11")]);
        assert_eq!(listed.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["CODE", "MODEL"]);
    }
}

//! Nodes: what graphs can be made of.

use super::Context;
use super::errors::ApiError;
use super::paging::page;
use super::registration::node;
use super::timestamp::Timestamp;
use crate::Api;
use crate::sigv4::canonical::sha256;
use belvedere_manifest::{BUILT_IN_OWNER, built_in};
use belvedere_store::packages::ListedNode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Packages that every appliance has, with their versions.
const BUILT_INS: [(&str, &str); 2] = [("abstract_rtsp_media_source", "1.0"), ("hdmi_data_sink", "1.0")];

/// `ListNodesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNodes {
    category: Option<String>,
    owner_account: Option<String>,
    package_name: Option<String>,
    package_version: Option<String>,
    patch_version: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// `ListNodesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodesListed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    nodes: Vec<Value>,
}

/// The patch that stands for a built-in package.
pub fn built_in_patch(name: &str, version: &str) -> String {
    built_in(name, version).map_or_else(String::new, |p| sha256(p.to_document().as_bytes()))
}

fn built_ins() -> Vec<(String, ListedNode)> {
    let mut nodes = Vec::new();
    for (name, version) in BUILT_INS {
        let Some(package) = built_in(name, version) else { continue };
        let patch = built_in_patch(name, version);
        for interface in &package.interfaces {
            let listed = ListedNode {
                node: node(name, version, &patch, interface),
                package_id: format!("package-{BUILT_IN_OWNER}-{name}").replace('_', "-"),
                package_name: name.to_owned(),
                version: version.to_owned(),
                patch: patch.clone(),
                latest: true,
                created_ms: 0,
            };
            nodes.push((BUILT_IN_OWNER.to_owned(), listed));
        }
    }
    nodes
}

/// Nodes of the latest patches (or of one that is named), newest first, then the built-in ones.
pub async fn list_nodes(api: &Api, context: &Context, input: ListNodes) -> Result<NodesListed, ApiError> {
    let own = api.fleet.store.list_nodes().await?.into_iter().map(|n| (context.account.clone(), n));
    let wants = |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|f| f == value);
    let nodes: Vec<(String, ListedNode)> = own
        .chain(built_ins())
        .filter(|(owner, n)| {
            wants(&input.category, &n.node.category)
                && wants(&input.owner_account, owner)
                && wants(&input.package_name, &n.package_name)
                && wants(&input.package_version, &n.version)
                && input.patch_version.as_ref().map_or(n.latest, |p| *p == n.patch)
        })
        .collect();
    let (nodes, next_token) = page(nodes, |(_, n)| n.node.node_id.clone(), input.max_results, input.next_token.as_deref())?;
    let nodes = nodes
        .into_iter()
        .map(|(owner, n)| {
            json!({
                "Category": n.node.category,
                "CreatedTime": Timestamp(n.created_ms),
                "Description": n.node.description,
                "Name": n.node.name,
                "NodeId": n.node.node_id,
                "OwnerAccount": owner,
                "PackageArn": context.arn("package", &n.package_id),
                "PackageId": n.package_id,
                "PackageName": n.package_name,
                "PackageVersion": n.version,
                "PatchVersion": n.patch,
            })
        })
        .collect();
    Ok(NodesListed { next_token, nodes })
}

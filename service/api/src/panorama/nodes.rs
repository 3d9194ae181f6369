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

/// A package that every appliance has.
pub struct BuiltIn {
    /// `package-panorama-…`.
    pub package_id: String,
    /// Name.
    pub name: &'static str,
    /// Version.
    pub version: &'static str,
    /// The patch that stands for it.
    pub patch: String,
}

/// Packages that every appliance has.
pub fn built_in_packages() -> Vec<BuiltIn> {
    let package_id = |name: &str| format!("package-{BUILT_IN_OWNER}-{name}").replace('_', "-");
    let of = |(name, version)| BuiltIn { package_id: package_id(name), name, version, patch: built_in_patch(name, version) };
    BUILT_INS.into_iter().map(of).collect()
}

fn built_ins() -> Vec<(String, ListedNode)> {
    let mut nodes = Vec::new();
    for BuiltIn { package_id, name, version, patch } in built_in_packages() {
        let Some(package) = built_in(name, version) else { continue };
        for interface in &package.interfaces {
            let listed = ListedNode {
                node: node(name, version, &patch, interface),
                package_id: package_id.clone(),
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

/// `DescribeNodeRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneNode {
    node_id: String,
    owner_account: Option<String>,
}

/// `DescribeNodeResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeDescribed {
    #[serde(skip_serializing_if = "Option::is_none")]
    asset_name: Option<String>,
    category: String,
    created_time: Timestamp,
    description: String,
    last_updated_time: Timestamp,
    name: String,
    node_id: String,
    node_interface: Value,
    owner_account: String,
    package_arn: String,
    package_id: String,
    package_name: String,
    package_version: String,
    patch_version: String,
}

/// A node, with its ports.
pub async fn describe_node(api: &Api, context: &Context, input: OneNode) -> Result<NodeDescribed, ApiError> {
    let own = api.fleet.store.node(&input.node_id).await?.map(|n| (context.account.clone(), n));
    let found = own.or_else(|| built_ins().into_iter().find(|(_, n)| n.node.node_id == input.node_id));
    let found = found.filter(|(owner, _)| input.owner_account.as_ref().is_none_or(|wanted| wanted == owner));
    let (owner_account, listed) = found.ok_or_else(|| ApiError::not_found("NODE", &input.node_id))?;
    Ok(NodeDescribed {
        asset_name: listed.node.asset,
        category: listed.node.category,
        created_time: Timestamp(listed.created_ms),
        description: listed.node.description,
        last_updated_time: Timestamp(listed.created_ms),
        name: listed.node.name,
        node_id: listed.node.node_id,
        node_interface: listed.node.interface,
        owner_account,
        package_arn: context.arn("package", &listed.package_id),
        package_id: listed.package_id,
        package_name: listed.package_name,
        package_version: listed.version,
        patch_version: listed.patch,
    })
}

//! From an application's documents to what its appliance is sent. Reads the store, changes nothing.

use super::errors::ApiError;
use super::locations::{binary_key, manifest_key};
use super::nodes::built_in_patch;
use super::registration::node_id;
use super::templates::{PASSWORD, STREAM_URL, USERNAME};
use crate::Api;
use belvedere_device_protocol::{CameraSource, Object, PackageVersion};
use belvedere_manifest::{
    Application, BUILT_IN_OWNER, PackageInclude, PackageSet, parse_graph, parse_overrides, parse_package, resolve,
};
use belvedere_store::application_instances::NodeRecord;
use serde_json::Value;
use std::collections::BTreeMap;

/// A checked application.
pub struct Plan {
    /// The graph, parsed.
    pub graph: Value,
    /// The overrides, parsed.
    pub overrides: Option<Value>,
    /// Packages with their files.
    pub packages: Vec<PackageVersion>,
    /// Cameras, with their secrets.
    pub cameras: Vec<CameraSource>,
    /// Nodes that come from packages.
    pub nodes: Vec<NodeRecord>,
}

fn wrong(member: &'static str) -> impl Fn(belvedere_manifest::Error) -> ApiError {
    move |e| ApiError::field(member, e.to_string())
}

/// Checks the documents and finds everything they name.
pub async fn plan(api: &Api, manifest: &str, overrides: Option<&str>) -> Result<Plan, ApiError> {
    let graph = parse_graph(manifest).map_err(wrong("ManifestPayload"))?;
    let parsed_overrides = overrides.map(parse_overrides).transpose().map_err(wrong("ManifestOverridesPayload"))?;
    let of_overrides = parsed_overrides.as_ref().map_or(&[][..], |o| &o.packages);
    let mut set = PackageSet::default();
    let mut found = BTreeMap::new();
    let mut cameras = Vec::new();
    for include in graph.packages.iter().chain(of_overrides) {
        let reference = include.name.to_string();
        if include.name.owner() == BUILT_IN_OWNER || found.contains_key(&reference) {
            continue;
        }
        let (version, camera) = package(api, include).await?;
        let text = api
            .fleet
            .store
            .read_object(&version.manifest.bucket, &version.manifest.key, version.manifest.size)
            .await?
            .and_then(|b| String::from_utf8(b).ok())
            .ok_or_else(|| ApiError::internal(format!("the package document {} has gone", version.manifest.key)))?;
        set.insert(&reference, &version.version, parse_package(&text).map_err(wrong("ManifestPayload"))?);
        cameras.extend(camera);
        found.insert(reference, version);
    }
    let application = resolve(&graph, parsed_overrides.as_ref(), &set).map_err(wrong("ManifestPayload"))?;
    let nodes = records(&application, &found);
    let json = |text: &str| serde_json::from_str(text).map_err(|e| ApiError::cannot_parse(e.to_string()));
    Ok(Plan {
        graph: json(manifest)?,
        overrides: overrides.map(json).transpose()?,
        packages: found.into_values().collect(),
        cameras,
        nodes,
    })
}

/// The registered version that a document includes, and the camera behind it if it is one.
async fn package(api: &Api, include: &PackageInclude) -> Result<(PackageVersion, Option<CameraSource>), ApiError> {
    let (store, settings) = (&api.fleet.store, &api.fleet.settings);
    let (name, wanted) = (include.name.name(), &*include.version);
    let refuse = |why: &str| ApiError::field("ManifestPayload", format!("package {} {wanted} {why}", include.name));
    if include.name.owner() != settings.account {
        return Err(refuse(&format!("is not of the account {}", settings.account)));
    }
    let package = store.package_of_name(name).await?.ok_or_else(|| refuse("does not exist"))?;
    let patch = include.patch_version.as_deref();
    let version = store.package_version(&package.package_id, wanted, patch).await?;
    let version = version.ok_or_else(|| refuse("is not registered"))?;
    if version.status != "REGISTER_COMPLETED" {
        return Err(refuse(&format!("is {}", version.status)));
    }
    let manifest_at = manifest_key(&settings.account, name, wanted, &version.patch);
    let manifest = object(api, &format!("{}.json", version.patch), &manifest_at).await?;
    let document = parse_package(&version.manifest).map_err(wrong("ManifestPayload"))?;
    let mut assets: Vec<Object> = Vec::new();
    for file in document.files() {
        if assets.iter().all(|a| a.name != file) {
            assets.push(object(api, file, &binary_key(&settings.account, name, file)).await?);
        }
    }
    let camera = store.camera_parameters(&package.package_id, wanted, &version.patch).await?.and_then(|mut p| {
        Some(CameraSource {
            package: include.name.to_string(),
            stream_url: p.remove(STREAM_URL)?,
            username: p.remove(USERNAME),
            password: p.remove(PASSWORD),
        })
    });
    let found = PackageVersion {
        name: include.name.to_string(),
        version: wanted.to_owned(),
        patch: version.patch,
        manifest,
        assets,
    };
    Ok((found, camera))
}

async fn object(api: &Api, name: &str, key: &str) -> Result<Object, ApiError> {
    let bucket = &api.fleet.settings.bucket;
    let found = api.fleet.store.object(bucket, key).await?;
    let found = found.ok_or_else(|| ApiError::field("ManifestPayload", format!("{key} is not in the bucket any more")))?;
    Ok(Object { name: name.to_owned(), bucket: bucket.clone(), key: key.to_owned(), size: found.size, sha256: found.sha256 })
}

fn records(application: &Application, found: &BTreeMap<String, PackageVersion>) -> Vec<NodeRecord> {
    application
        .instances()
        .map(|node| {
            let package = node.package.split_once("::").map_or(node.package.as_str(), |(_, name)| name);
            let patch = found
                .get(&node.package)
                .map_or_else(|| built_in_patch(package, &node.version), |version| version.patch.clone());
            NodeRecord {
                instance: node.name.clone(),
                node_id: node_id(package, &node.version, &patch, &node.interface),
                node_name: node.interface.clone(),
                package_name: package.to_owned(),
                package_version: node.version.clone(),
                patch,
                status: "NOT_AVAILABLE".to_owned(),
            }
        })
        .collect()
}

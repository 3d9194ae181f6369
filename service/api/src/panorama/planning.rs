//! From an application's documents to what its appliance is sent. Reads the store, changes nothing.

use super::errors::ApiError;
use super::locations::{binary_key, manifest_key};
use super::nodes::built_in_patch;
use super::quotas::too_many_cameras;
use super::registration::node_id;
use super::templates::{PASSWORD, STREAM_URL, USERNAME};
use crate::Api;
use belvedere_device_protocol::{CameraSource, Object, PackageVersion};
use belvedere_manifest::{
    Application, BUILT_IN_OWNER, Included, Launch, OpenPort, Package, PackageSet, Rule, host_ports, included, parse_graph,
    parse_overrides, parse_package, resolve,
};
use belvedere_store::application_instances::{CameraStart, NodeRecord};
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
    /// Ports of the appliance that it opens.
    pub open_ports: Vec<OpenPort>,
}

const GRAPH: &str = "ManifestPayload";
const OVERRIDES: &str = "ManifestOverridesPayload";

/// The input's member that must be changed.
fn member(place: &str) -> &'static str {
    if place.starts_with("nodeGraphOverrides") { OVERRIDES } else { GRAPH }
}

fn wrong(e: belvedere_manifest::Error) -> ApiError {
    let member = match e.rule {
        // The graph is good; the overrides lack something.
        Rule::OverrideMandatory | Rule::CameraChosen => OVERRIDES,
        _ => member(&e.element),
    };
    ApiError::field(member, e.to_string())
}

/// Checks the documents and finds everything they name.
pub async fn plan(api: &Api, manifest: &str, overrides: Option<&str>) -> Result<Plan, ApiError> {
    let graph = parse_graph(manifest).map_err(|e| ApiError::field(GRAPH, e.to_string()))?;
    let parsed_overrides =
        overrides.map(parse_overrides).transpose().map_err(|e| ApiError::field(OVERRIDES, e.to_string()))?;
    let mut set = PackageSet::default();
    let mut found = BTreeMap::new();
    let mut cameras: Vec<CameraSource> = Vec::new();
    for listed in included(&graph, parsed_overrides.as_ref()).map_err(wrong)? {
        if listed.package.name.owner() == BUILT_IN_OWNER {
            continue;
        }
        let reference = listed.package.name.to_string();
        let (version, camera) = package(api, &listed).await?;
        let text = api
            .fleet
            .store
            .read_object(&version.manifest.bucket, &version.manifest.key, version.manifest.size)
            .await?
            .and_then(|b| belvedere_manifest::document_text(&b).ok().map(str::to_owned))
            .ok_or_else(|| ApiError::internal(format!("the package document {} has gone", version.manifest.key)))?;
        set.insert(&reference, &version.version, document(&listed, &text)?);
        cameras.extend(camera);
        found.insert(reference, version);
    }
    let application = resolve(&graph, parsed_overrides.as_ref(), &set).map_err(|e| match e.rule {
        // The appliance's own limit: a quota like the others to whoever asks.
        Rule::CameraCount => too_many_cameras(&e.element),
        _ => wrong(e),
    })?;
    for camera in &application.cameras {
        if cameras.iter().all(|source| source.package != camera.node.package) {
            let of_overrides = parsed_overrides.iter().flat_map(|o| &o.nodes).any(|node| *node.name == *camera.node.name);
            let message = format!(
                "camera node {:?}: package {} has no stream; register the camera with create-node-from-template-job",
                camera.node.name, camera.node.package
            );
            return Err(ApiError::field(if of_overrides { OVERRIDES } else { GRAPH }, message));
        }
    }
    let nodes = records(&application, &found);
    let json = |text: &str| {
        let text = belvedere_manifest::document_text(text.as_bytes()).map_err(ApiError::cannot_parse)?;
        serde_json::from_str(text).map_err(|e| ApiError::cannot_parse(e.to_string()))
    };
    Ok(Plan {
        graph: json(manifest)?,
        overrides: overrides.map(json).transpose()?,
        packages: found.into_values().collect(),
        cameras,
        nodes,
        open_ports: application.open_ports,
    })
}

/// A document that was good when it was registered.
fn document(listed: &Included, text: &str) -> Result<Package, ApiError> {
    parse_package(text).map_err(|e| {
        ApiError::field(member(&listed.place), format!("{}: its document is not good any more: {e}", listed.place))
    })
}

/// Whether the ports that a plan opens are free on a device: a port of the appliance leads to one application. Those of
/// instances whose removal was asked for, and of the one that is replaced, are given up before this one takes them.
pub async fn host_ports_are_free(
    api: &Api,
    device_id: &str,
    replaced: Option<&str>,
    open: &[OpenPort],
) -> Result<(), ApiError> {
    if open.is_empty() {
        return Ok(());
    }
    for other in api.fleet.store.list_application_instances(Some(device_id)).await? {
        if other.removed || Some(other.id.as_str()) == replaced {
            continue;
        }
        // What was accepted once is parsed again; if it cannot be, it opens nothing.
        let overrides = other.overrides.as_deref().and_then(|text| parse_overrides(text).ok());
        let taken = parse_graph(&other.manifest).map(|graph| host_ports(&graph, overrides.as_ref())).unwrap_or_default();
        if let Some(port) = open.iter().find(|port| taken.contains(&port.host_port)) {
            let name = other.name.as_deref().unwrap_or_default();
            let message = format!(
                "nodeGraphOverrides.networkRoutingRules of {:?}: port {} of the appliance is open for application {name:?} ({}); choose another hostPort",
                port.node, port.host_port, other.id
            );
            return Err(ApiError::field(OVERRIDES, message));
        }
    }
    Ok(())
}

/// The registered version that a document includes, and the camera behind it if it is one.
async fn package(api: &Api, listed: &Included) -> Result<(PackageVersion, Option<CameraSource>), ApiError> {
    let include = &listed.package;
    let (store, settings) = (&api.fleet.store, &api.fleet.settings);
    let (name, wanted) = (include.name.name(), &*include.version);
    let refuse = |why: &str| {
        ApiError::field(member(&listed.place), format!("{}: package {} {wanted} {why}", listed.place, include.name))
    };
    if include.name.owner() != settings.account {
        return Err(refuse(&format!("is not of the account {}", settings.account)));
    }
    let package = store.package_of_name(name).await?.ok_or_else(|| refuse("does not exist"))?;
    let patch = include.patch();
    let version = store.package_version(&package.package_id, wanted, patch).await?;
    let version = version.ok_or_else(|| refuse("is not registered"))?;
    if version.status != "REGISTER_COMPLETED" {
        return Err(refuse(&format!("is {}", version.status)));
    }
    let manifest_at = manifest_key(&settings.account, name, wanted, &version.patch);
    let manifest = object(api, &format!("{}.json", version.patch), &manifest_at).await?;
    let document = document(listed, &version.manifest)?;
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
            let camera = application.cameras.iter().find(|c| c.node.name == node.name).map(|c| match c.launch {
                Launch::OnSignal => CameraStart::Paused,
                _ => CameraStart::Watched,
            });
            NodeRecord {
                camera,
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

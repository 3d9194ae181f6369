//! Registering a package version: its document is read from the bucket, checked, and its interfaces become nodes.
//! All of it happens inside the call: the tools poll once and then sleep for half a minute.

use super::locations::{binary_key, manifest_key};
use crate::Api;
use belvedere_manifest::{
    Category, ImplementationKind, Interface, Package, check_descriptor, check_package, parse_descriptor, parse_package,
};
use belvedere_store::StoreError;
use belvedere_store::packages::Node;
use serde_json::{Map, Value, json};

/// Characters of `StatusDescription`, and of most other texts of the model.
pub const MAX_TEXT: usize = 255;
/// Largest document that is read, bytes.
pub const MAX_MANIFEST: u64 = 1024 * 1024;

/// What registration found.
pub struct Examined {
    /// The document; empty if there is none.
    pub manifest: String,
    /// What its interfaces make possible, or why it is not good.
    pub outcome: Result<Vec<Node>, String>,
}

/// Reads and checks a version. A fault of the package is an outcome; only our own faults are errors.
pub async fn examine(api: &Api, package: &str, version: &str, patch: &str) -> Result<Examined, StoreError> {
    let settings = &api.fleet.settings;
    let key = manifest_key(&settings.account, package, version, patch);
    let Some(bytes) = api.fleet.store.read_object(&settings.bucket, &key, MAX_MANIFEST).await? else {
        let outcome = Err(format!("there is no package document at {key}, or it is larger than {MAX_MANIFEST} bytes"));
        return Ok(Examined { manifest: String::new(), outcome });
    };
    let manifest = match belvedere_manifest::document_text(&bytes) {
        Ok(text) => text.to_owned(),
        Err(fault) => {
            return Ok(Examined { manifest: String::new(), outcome: Err(format!("the package document {fault}")) });
        }
    };
    let parsed = match document(&manifest, package, version) {
        Ok(parsed) => parsed,
        Err(e) => return Ok(Examined { manifest, outcome: Err(e) }),
    };
    if let Some(fault) = files(api, package, &parsed).await? {
        return Ok(Examined { manifest, outcome: Err(fault) });
    }
    let nodes = parsed.interfaces.iter().map(|i| node(package, version, patch, i)).collect();
    Ok(Examined { manifest, outcome: Ok(nodes) })
}

/// A package document that is of this package and version.
pub(super) fn document(manifest: &str, package: &str, version: &str) -> Result<Package, String> {
    let parsed = parse_package(manifest).map_err(|e| e.brief(MAX_TEXT))?;
    check_package(&parsed).map_err(|e| e.brief(MAX_TEXT))?;
    if let Some(name) = parsed.name.as_deref().filter(|n| *n != package) {
        return Err(format!("nodePackage.name: {name:?} is not {package:?}, for which it is registered"));
    }
    if let Some(other) = parsed.version.as_deref().filter(|v| *v != version) {
        return Err(format!("nodePackage.version: {other:?} is not {version:?}, for which it is registered"));
    }
    Ok(parsed)
}

/// What is wrong with the files that a package names: each must be there, be what its name says, and descriptors must
/// fit their assets.
async fn files(api: &Api, package: &str, parsed: &Package) -> Result<Option<String>, StoreError> {
    let settings = &api.fleet.settings;
    for file in parsed.named_files() {
        let key = binary_key(&settings.account, package, file.name);
        let at = |fault: String| Some(format!("{}: {fault}", file.place));
        let Some(object) = api.fleet.store.object(&settings.bucket, &key).await? else {
            return Ok(at(format!("upload the file, which is not at {key}")));
        };
        if let Some(fault) = misnamed(file.name, &object.sha256) {
            return Ok(at(fault));
        }
        if file.descriptor {
            let bytes = api.fleet.store.read_object(&settings.bucket, &key, MAX_MANIFEST).await?;
            if let Err(fault) = descriptor(file.kind, bytes) {
                return Ok(at(fault));
            }
        }
    }
    Ok(None)
}

/// What is wrong with a file that is named after its SHA-256 and has another.
pub(super) fn misnamed(file: &str, sha256: &str) -> Option<String> {
    let named = file.split('.').next().unwrap_or("");
    let is_hash = named.len() == 64 && named.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hash && !named.eq_ignore_ascii_case(sha256))
        .then(|| format!("{file} is not what its name says: its SHA-256 is {sha256}"))
}

/// Whether a descriptor fits an asset of that kind. `None` is a file that is too large to be read.
fn descriptor(kind: ImplementationKind, bytes: Option<Vec<u8>>) -> Result<(), String> {
    let bytes = bytes.ok_or_else(|| format!("the descriptor is larger than {MAX_MANIFEST} bytes"))?;
    let text = belvedere_manifest::document_text(&bytes).map_err(|fault| format!("the descriptor {fault}"))?;
    parse_descriptor(text).and_then(|descriptor| check_descriptor(kind, &descriptor)).map_err(|e| e.brief(MAX_TEXT))
}

/// `NodeCategory`.
fn category(category: Category) -> &'static str {
    match category {
        Category::MediaSource => "MEDIA_SOURCE",
        Category::MediaSink => "MEDIA_SINK",
        Category::BusinessLogic => "BUSINESS_LOGIC",
        Category::MlModel => "ML_MODEL",
    }
}

/// `<package>-<version>-<first 8 of the patch>-<interface>`.
pub fn node_id(package: &str, version: &str, patch: &str, interface: &str) -> String {
    let short: String = patch.chars().take(8).collect();
    format!("{package}-{version}-{short}-{interface}")
}

/// The beginning of a text, as long as the model's texts may be. The schema of packages has no such bound.
fn beginning(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// A node of an interface.
pub fn node(package: &str, version: &str, patch: &str, interface: &Interface) -> Node {
    let inputs: Vec<Value> = interface
        .inputs
        .iter()
        .map(|port| {
            let mut shown = Map::new();
            shown.insert("Name".into(), port.name.to_string().into());
            shown.insert("Type".into(), port.kind.word().to_uppercase().into());
            shown.insert("MaxConnections".into(), port.maximum_connections.into());
            if let Some(description) = &port.description {
                shown.insert("Description".into(), description.to_string().into());
            }
            if let Some(default) = &port.default {
                let json = default.to_json();
                let text = json.as_str().map_or_else(|| json.to_string(), beginning);
                // The model has no empty default.
                if !text.is_empty() {
                    shown.insert("DefaultValue".into(), text.into());
                }
            }
            Value::Object(shown)
        })
        .collect();
    let outputs: Vec<Value> = interface
        .outputs
        .iter()
        .map(|port| {
            let mut shown = json!({ "Name": port.name.to_string(), "Type": port.kind.word().to_uppercase() });
            if let Some(description) = &port.description {
                shown["Description"] = beginning(description).into();
            }
            shown
        })
        .collect();
    Node {
        node_id: node_id(package, version, patch, &interface.name),
        name: interface.name.to_string(),
        category: category(interface.category).to_owned(),
        description: interface.description.as_deref().map(beginning).unwrap_or_default(),
        asset: interface.asset.clone(),
        interface: json!({ "Inputs": inputs, "Outputs": outputs }),
    }
}

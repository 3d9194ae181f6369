//! From text to documents.

use crate::{
    Descriptor, Error, Graph, ModelDescriptor, Overrides, Package, Requirement, Rule, RuntimeDescriptor, limits,
    text::present,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Parses `graph.json`.
pub fn parse_graph(text: &str) -> Result<Graph, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        node_graph: Graph,
    }
    let graph = read::<Document>(text, limits::MANIFEST_CHARACTERS, "graph")?.node_graph;
    at_least_one(&graph.packages, "nodeGraph.packages")?;
    at_least_one(&graph.nodes, "nodeGraph.nodes")?;
    Ok(graph)
}

/// Parses an overrides document.
pub fn parse_overrides(text: &str) -> Result<Overrides, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        node_graph_overrides: Overrides,
    }
    Ok(read::<Document>(text, limits::MANIFEST_CHARACTERS, "overrides")?.node_graph_overrides)
}

/// Parses `package.json`. [`crate::check_package`] checks what lies between its elements.
pub fn parse_package(text: &str) -> Result<Package, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        node_package: Package,
    }
    let package = read::<Document>(text, limits::PACKAGE_CHARACTERS, "package")?.node_package;
    at_least_one(&package.interfaces, "nodePackage.interfaces")?;
    for (i, interface) in package.interfaces.iter().enumerate() {
        if !interface.network.as_ref().is_none_or(|network| network.within_limits()) {
            return Err(Error::new(
                format!("nodePackage.interfaces[{i}].network.inboundPorts"),
                Rule::Schema,
                format!("interface {} has more than {} inbound ports", interface.name, limits::INBOUND_PORTS),
            ));
        }
    }
    for (i, asset) in package.assets.iter().enumerate() {
        for (j, implementation) in asset.implementations.iter().enumerate() {
            if implementation.requirements.contains(&Requirement::Ota { min_version: None, max_version: None }) {
                return Err(Error::new(
                    format!("nodePackage.assets[{i}].implementations[{j}].requirements"),
                    Rule::Schema,
                    format!("asset {}: an `ota` requirement needs `minVersion` or `maxVersion`", asset.name),
                ));
            }
        }
    }
    Ok(package)
}

/// Parses an asset descriptor.
pub fn parse_descriptor(text: &str) -> Result<Descriptor, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        #[serde(default, deserialize_with = "present")]
        ml_model_descriptor: Option<ModelDescriptor>,
        #[serde(default, deserialize_with = "present")]
        runtime_descriptor: Option<RuntimeDescriptor>,
    }
    let document = read::<Document>(text, limits::PACKAGE_CHARACTERS, "asset descriptor")?;
    match (document.ml_model_descriptor, document.runtime_descriptor) {
        (Some(model), None) => Ok(Descriptor::Model(model)),
        (None, Some(runtime)) => {
            if let Some(entry) = &runtime.entry
                && entry.name.is_none()
                && (entry.path.is_some() || entry.arguments.is_some() || entry.environment.is_some())
            {
                return Err(Error::new(
                    "runtimeDescriptor.entry",
                    Rule::Schema,
                    "`path`, `arguments` and `environment` need a `name`: the file that is run",
                ));
            }
            Ok(Descriptor::Runtime(runtime))
        }
        _ => Err(Error::new("(document)", Rule::Schema, "expected one of `runtimeDescriptor` and `mlModelDescriptor`")),
    }
}

fn at_least_one<T>(list: &[T], element: &str) -> Result<(), Error> {
    if list.is_empty() { Err(Error::new(element, Rule::Schema, "needs at least one element")) } else { Ok(()) }
}

/// JSON depth is bounded by serde_json (128), and by the types to far less.
fn read<T: DeserializeOwned>(text: &str, characters: usize, what: &str) -> Result<T, Error> {
    // A byte count is quick, and exact enough to refuse the enormous before walking it.
    if text.len() > characters * 4 || text.chars().count() > characters {
        return Err(Error::new("(document)", Rule::Size, format!("the {what} is longer than {characters} characters")));
    }
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Error::new("(document)", Rule::Schema, error.to_string()))?;
    only_lists_are_arrays(&json, "", false)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let element = if path == "." { "(document)".to_owned() } else { path };
        Error::new(element, Rule::Schema, error.into_inner().to_string())
    })?;
    Ok(document)
}

/// Members that are lists, in all documents.
const LISTS: &[&str] = &[
    "arguments", "assets", "edges", "environment", "events", "implementations", "inboundPorts", "inferenceAccelerators",
    "inputs", "interfaces", "networkRoutingRules", "nodeOverrides", "nodes", "outputs", "packages", "requirements", "shape",
    "with",
];

/// serde also reads an object from an array of its members' values; the schemas do not. No list of ours holds lists,
/// so an array is allowed as a member that is a list, and nowhere else.
fn only_lists_are_arrays(json: &serde_json::Value, path: &str, list: bool) -> Result<(), Error> {
    match json {
        serde_json::Value::Object(members) => members.iter().try_for_each(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            only_lists_are_arrays(value, &format!("{path}{dot}{key}"), LISTS.contains(&key.as_str()))
        }),
        serde_json::Value::Array(elements) if list => {
            elements.iter().enumerate().try_for_each(|(i, value)| only_lists_are_arrays(value, &format!("{path}[{i}]"), false))
        }
        serde_json::Value::Array(_) => {
            let element = if path.is_empty() { "(document)" } else { path };
            Err(Error::new(element, Rule::Schema, "expected no array here"))
        }
        _ => Ok(()),
    }
}

//! From text to documents.

use crate::error::element;
use crate::json::{DOCUMENT, read};
use crate::text::present;
use crate::{Descriptor, Error, Graph, ModelDescriptor, Overrides, Package, PortType, Rule, RuntimeDescriptor, limits};
use serde::Deserialize;
use serde_json::Value;

/// Parses `graph.json`.
pub fn parse_graph(text: &str) -> Result<Graph, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        node_graph: Graph,
    }
    let graph = read::<Document>(text, limits::MANIFEST_CHARACTERS, "graph")?.0.node_graph;
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
    Ok(read::<Document>(text, limits::MANIFEST_CHARACTERS, "overrides document")?.0.node_graph_overrides)
}

/// Parses `package.json`. [`crate::check_package`] checks what lies between its elements.
pub fn parse_package(text: &str) -> Result<Package, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        node_package: Package,
    }
    let (document, json) = read::<Document>(text, limits::PACKAGE_CHARACTERS, "package document")?;
    let package = document.node_package;
    at_least_one(&package.interfaces, "nodePackage.interfaces")?;
    for (i, interface) in package.interfaces.iter().enumerate() {
        let at = element("nodePackage.interfaces", i, &interface.name);
        let ports = interface.network.as_ref().map_or(0, |network| network.inbound_ports.len());
        if ports > limits::INBOUND_PORTS {
            let message = format!("has {ports} ports, and may have {}", limits::INBOUND_PORTS);
            return Err(Error::new(format!("{at}.network.inboundPorts"), Rule::Schema, message));
        }
        for (j, port) in interface.inputs.iter().enumerate() {
            let written = json.pointer(&format!("/nodePackage/interfaces/{i}/inputs/{j}"));
            if let Some(member) = written.and_then(|written| unknown_member(port.kind, written)) {
                let message = format!(
                    "has a member {}, which ports of type {} do not have",
                    crate::text::shown(member),
                    port.kind.word()
                );
                return Err(Error::new(element(&format!("{at}.inputs"), j, &port.name), Rule::Schema, message));
            }
        }
    }
    Ok(package)
}

/// A member of an input port that its type does not have. Ports of type string are open in the schema, on purpose or
/// not; real packages use it.
fn unknown_member(kind: PortType, written: &Value) -> Option<&str> {
    let known: &[&str] = match kind {
        PortType::String => return None,
        PortType::Media => &["description", "name", "type", "maxConnections"],
        PortType::Boolean => &["description", "name", "type", "maxConnections", "default", "reference", "referenceSource"],
        PortType::Int32 | PortType::Float32 => {
            &["description", "name", "type", "maxConnections", "default", "reference", "referenceSource", "constraintRegex"]
        }
    };
    written.as_object()?.keys().map(String::as_str).find(|member| !known.contains(member))
}

/// Parses an asset descriptor. [`crate::check_descriptor`] checks that it fits its asset.
pub fn parse_descriptor(text: &str) -> Result<Descriptor, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Document {
        #[serde(default, deserialize_with = "present")]
        ml_model_descriptor: Option<ModelDescriptor>,
        #[serde(default, deserialize_with = "present")]
        runtime_descriptor: Option<RuntimeDescriptor>,
    }
    let document = read::<Document>(text, limits::PACKAGE_CHARACTERS, "asset descriptor")?.0;
    match (document.ml_model_descriptor, document.runtime_descriptor) {
        (Some(model), None) => Ok(Descriptor::Model(model)),
        (None, Some(runtime)) => Ok(Descriptor::Runtime(runtime)),
        (Some(_), Some(_)) => Err(Error::new(
            DOCUMENT,
            Rule::Schema,
            "has both \"runtimeDescriptor\" and \"mlModelDescriptor\", and must have one",
        )),
        (None, None) => {
            Err(Error::new(DOCUMENT, Rule::Schema, "has neither \"runtimeDescriptor\" nor \"mlModelDescriptor\""))
        }
    }
}

fn at_least_one<T>(list: &[T], place: &str) -> Result<(), Error> {
    if list.is_empty() { Err(Error::new(place, Rule::Schema, "is empty, and needs at least one element")) } else { Ok(()) }
}

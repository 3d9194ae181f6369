//! The graph and the overrides document.

use crate::text::{port, present, present_whole};
use crate::{Caption, Description, EdgeEnd, InterfaceReference, NodeName, PackageReference, PortType, Value, Version};
use serde::Deserialize;

/// The only version of all documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
pub enum EnvelopeVersion {
    /// `2021-01-01`.
    #[serde(rename = "2021-01-01")]
    V20210101,
}

/// `nodeGraph`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Graph {
    /// Version of the format.
    pub envelope_version: EnvelopeVersion,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Description>,
    /// Packages that the nodes come from; at least one.
    pub packages: Vec<PackageInclude>,
    /// At least one.
    pub nodes: Vec<Node>,
    /// Connections.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// Ports that the application would like to listen on; they open only when the overrides repeat them.
    #[serde(default)]
    pub network_routing_rules: Vec<RoutingRule>,
}

/// `nodeGraphOverrides`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Overrides {
    /// Version of the format.
    pub envelope_version: EnvelopeVersion,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Description>,
    /// Packages of the nodes below.
    #[serde(default)]
    pub packages: Vec<PackageInclude>,
    /// Nodes that replace others, or are added.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Ports to open.
    #[serde(default)]
    pub network_routing_rules: Vec<RoutingRule>,
    /// Connections to add.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// What replaces what.
    #[serde(default)]
    pub node_overrides: Vec<NodeOverride>,
}

/// A package that a document uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PackageInclude {
    /// `<owner>::<name>`.
    pub name: PackageReference,
    /// `1.0`.
    pub version: Version,
    /// A certain patch instead of the latest. Ask [`PackageInclude::patch`].
    #[serde(default, deserialize_with = "present")]
    pub patch_version: Option<String>,
    /// Not used.
    #[serde(default, deserialize_with = "present")]
    pub generated_patch_version: Option<String>,
    /// Not used.
    #[serde(default, deserialize_with = "present")]
    pub uri: Option<String>,
}

impl PackageInclude {
    /// The patch that must be taken; `None` is the latest, which the schema writes as `package`.
    pub fn patch(&self) -> Option<&str> {
        self.patch_version.as_deref().filter(|patch| *patch != "package")
    }
}

/// A node: a parameter, or an instance of an interface.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawNode")]
pub struct Node {
    /// Unique in the graph.
    pub name: NodeName,
    /// What it is made of.
    pub kind: NodeKind,
    /// Whether a deployment may replace it.
    pub overridable: bool,
    /// Whether a deployment must replace it.
    pub override_mandatory: bool,
    /// For people who deploy.
    pub decorator: Option<Decorator>,
}

/// What a node is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// A value.
    Parameter(Value),
    /// An instance of a package's interface.
    Interface {
        /// Which one.
        interface: InterfaceReference,
        /// When it starts.
        launch: Launch,
    },
}

/// When a node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Launch {
    /// When it is needed.
    OnDemand,
    /// With the application.
    #[default]
    OnAppStart,
    /// When a signal resumes it; a camera begins paused.
    OnSignal,
}

/// A node as documents write it: five shapes told apart by `interface`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawNode {
    name: NodeName,
    interface: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<serde_json::Value>,
    #[serde(default)]
    overridable: bool,
    #[serde(default)]
    override_mandatory: bool,
    #[serde(default, deserialize_with = "present")]
    launch: Option<Launch>,
    #[serde(default, deserialize_with = "present")]
    decorator: Option<Decorator>,
}

impl TryFrom<RawNode> for Node {
    type Error = String;
    fn try_from(raw: RawNode) -> Result<Node, String> {
        let name = raw.name;
        let kind = match PortType::parameter(&raw.interface) {
            Some(_) if raw.launch.is_some() => return Err("has a member \"launch\", which parameters do not have".into()),
            Some(kind) => match raw.value {
                Some(value) => NodeKind::Parameter(kind.read(&value).map_err(|e| format!("value {e}"))?),
                None => NodeKind::Parameter(kind.empty().ok_or("has no value")?),
            },
            None => {
                let interface = raw.interface.try_into().map_err(|e| format!("interface {e}"))?;
                if raw.value.is_some() {
                    return Err("has a member \"value\", which only string, int32, float32 and boolean nodes have".into());
                }
                NodeKind::Interface { interface, launch: raw.launch.unwrap_or_default() }
            }
        };
        Ok(Node {
            name,
            kind,
            overridable: raw.overridable,
            override_mandatory: raw.override_mandatory,
            decorator: raw.decorator,
        })
    }
}

/// What a console shows beside a node or a rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Decorator {
    /// Title.
    #[serde(default, deserialize_with = "present")]
    pub title: Option<Caption>,
    /// Text.
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Caption>,
    /// The value's constraint in words.
    #[serde(default, deserialize_with = "present")]
    pub constraint_text: Option<Caption>,
    /// The value's constraint as a regular expression; for consoles, not checked here.
    #[serde(default, deserialize_with = "present")]
    pub constraint_regex: Option<Caption>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// A parameter node or an output port.
    pub producer: EdgeEnd,
    /// An input port.
    pub consumer: EdgeEnd,
}

/// `networkRoutingRules[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RoutingRule {
    /// The code node.
    pub node: NodeName,
    /// Where the container listens.
    #[serde(deserialize_with = "port")]
    pub container_port: core::num::NonZeroU16,
    /// Where the appliance listens.
    #[serde(default, deserialize_with = "present_whole")]
    pub host_port: Option<i64>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub decorator: Option<Decorator>,
}

/// `nodeOverrides[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeOverride {
    /// Not used.
    #[serde(default, deserialize_with = "present")]
    pub envelope_version: Option<EnvelopeVersion>,
    /// A node of the graph.
    pub replace: NodeName,
    /// Nodes of the overrides document: one, or several cameras.
    pub with: Vec<With>,
}

/// `with[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct With {
    /// Name.
    pub name: NodeName,
}

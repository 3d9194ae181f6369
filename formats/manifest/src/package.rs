//! The package document.

use crate::text::present;
use crate::{AssetName, AssetUri, Description, EnvelopeVersion, PackageName, PortName, PortType, Value, Version, limits};
use serde::{Deserialize, Serialize, Serializer};

/// `nodePackage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Package {
    /// Version of the format.
    pub envelope_version: EnvelopeVersion,
    /// The package's own name, without an owner.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub name: Option<PackageName>,
    /// `1.0`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// What implements the interfaces.
    #[serde(default)]
    pub assets: Vec<Asset>,
    /// What nodes can be made of; at least one.
    pub interfaces: Vec<Interface>,
}

/// `assets[]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Asset {
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Interfaces name it.
    pub name: AssetName,
    /// One of these is taken: the first that the appliance can run.
    #[serde(default)]
    pub implementations: Vec<Implementation>,
}

/// `implementations[]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Implementation {
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// What kind of file the asset is.
    #[serde(rename = "type")]
    pub kind: ImplementationKind,
    /// The asset's file, `<sha256>.tar.gz`.
    pub asset_uri: AssetUri,
    /// Its descriptor, `<sha256>.json`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub descriptor_uri: Option<String>,
    /// What it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
}

/// What kind of file an asset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImplementationKind {
    /// Part of the appliance.
    System,
    /// A container's root file system.
    Container,
    /// A model archive.
    Model,
}

/// `requirements[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Requirement {
    /// Versions of the appliance's software; at least one of the two.
    #[serde(rename_all = "camelCase")]
    Ota {
        /// From.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        min_version: Option<String>,
        /// To.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        max_version: Option<String>,
    },
    /// A certain device.
    Device {
        /// Which.
        name: RequiredDevice,
    },
    /// Hardware that the container reaches directly.
    #[serde(rename_all = "camelCase")]
    HardwareAccess {
        /// Which.
        inference_accelerators: Vec<InferenceAccelerator>,
    },
}

/// The devices that can be required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredDevice {
    /// The only one.
    PanoramaDevkit,
}

/// `inferenceAccelerators[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InferenceAccelerator {
    /// Which.
    pub device_type: AcceleratorType,
    /// How it is shared.
    pub shared_resource_policy: SharedResourcePolicy,
}

/// The accelerators that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorType {
    /// The board's GPU.
    NvhostGpu,
}

/// How an accelerator is shared. The schema allows other members here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedResourcePolicy {
    /// With whom.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub policy: Option<SharePolicy>,
}

/// With whom an accelerator is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharePolicy {
    /// Everybody.
    AllowAll,
}

/// `interfaces[]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Interface {
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Nodes name it.
    pub name: PackageName,
    /// The asset that implements it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// What nodes of it do.
    pub category: Category,
    /// Ports.
    #[serde(default)]
    pub inputs: Vec<InputPort>,
    /// Ports.
    #[serde(default)]
    pub outputs: Vec<OutputPort>,
    /// Where it listens.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// What nodes of an interface do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A camera.
    MediaSource,
    /// A display.
    MediaSink,
    /// Code in a container.
    BusinessLogic,
    /// A model.
    MlModel,
}

/// `network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Network {
    /// At most ten.
    #[serde(default)]
    pub inbound_ports: Vec<InboundPort>,
}

/// `inboundPorts[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboundPort {
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// TCP.
    pub port: core::num::NonZeroU16,
}

/// `inputs[]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawInputPort")]
pub struct InputPort {
    /// For people.
    pub description: Option<Description>,
    /// The attribute of `node.inputs`.
    pub name: PortName,
    /// What goes in.
    pub kind: PortType,
    /// For parameters.
    pub default: Option<Value>,
    /// Edges that may end here; 0 is any number.
    pub maximum_connections: u32,
    /// The default is a reference to a secret and no literal.
    pub reference: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawInputPort {
    #[serde(default, deserialize_with = "present")]
    description: Option<Description>,
    name: PortName,
    #[serde(rename = "type")]
    kind: PortType,
    #[serde(default, deserialize_with = "present")]
    default: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "present")]
    constraint_regex: Option<String>,
    #[serde(default)]
    max_connections: u32,
    #[serde(default, deserialize_with = "present")]
    reference: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    reference_source: Option<String>,
    #[serde(flatten)]
    other: std::collections::BTreeMap<String, serde_json::Value>,
}

impl TryFrom<RawInputPort> for InputPort {
    type Error = String;
    fn try_from(raw: RawInputPort) -> Result<InputPort, String> {
        let refuse = |member: &str| Err(format!("input port {}: unknown member `{member}` for type {}", raw.name, raw.kind.word()));
        // The schema leaves string ports open, on purpose or not; real packages use it.
        if raw.kind != PortType::String
            && let Some(member) = raw.other.keys().next()
        {
            return refuse(member);
        }
        if raw.kind == PortType::Media {
            for (member, there) in [
                ("default", raw.default.is_some()),
                ("reference", raw.reference.is_some()),
                ("referenceSource", raw.reference_source.is_some()),
            ] {
                if there {
                    return refuse(member);
                }
            }
        }
        if matches!(raw.kind, PortType::Media | PortType::Boolean) && raw.constraint_regex.is_some() {
            return refuse("constraintRegex");
        }
        let default = raw.default.map(|json| raw.kind.read(&json)).transpose().map_err(|e| format!("input port {}: default {e}", raw.name))?;
        Ok(InputPort {
            description: raw.description,
            name: raw.name,
            kind: raw.kind,
            default,
            maximum_connections: raw.max_connections,
            reference: raw.reference.unwrap_or(false),
        })
    }
}

impl Serialize for InputPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut port = serde_json::Map::new();
        if let Some(description) = &self.description {
            port.insert("description".into(), description.to_string().into());
        }
        port.insert("name".into(), self.name.to_string().into());
        port.insert("type".into(), self.kind.word().into());
        if let Some(default) = &self.default {
            port.insert("default".into(), default.to_json());
        }
        if self.maximum_connections != 0 {
            port.insert("maxConnections".into(), self.maximum_connections.into());
        }
        if self.reference {
            port.insert("reference".into(), true.into());
        }
        port.serialize(serializer)
    }
}

/// `outputs[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputPort {
    /// For people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The attribute of `node.outputs`.
    pub name: PortName,
    /// What comes out.
    #[serde(rename = "type")]
    pub kind: PortType,
}

impl Package {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| &*interface.name == name)
    }

    /// The asset of that name.
    pub fn asset(&self, name: &str) -> Option<&Asset> {
        self.assets.iter().find(|asset| &*asset.name == name)
    }

    /// Files that belong to the package: assets that are not part of the appliance, and their descriptors.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let implementations = self.assets.iter().flat_map(|asset| &asset.implementations);
        implementations
            .filter(|implementation| implementation.kind != ImplementationKind::System)
            .flat_map(|implementation| core::iter::once(&*implementation.asset_uri).chain(implementation.descriptor_uri.as_deref()))
    }

    /// The document as JSON text.
    pub fn to_document(&self) -> String {
        serde_json::json!({ "nodePackage": self }).to_string()
    }
}

impl Network {
    pub(crate) fn within_limits(&self) -> bool {
        self.inbound_ports.len() <= limits::INBOUND_PORTS
    }
}

//! The package document.

use crate::text::{count, port, present};
use crate::{AssetName, AssetUri, Description, EnvelopeVersion, PackageName, PortName, PortType, Value, Version};
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

impl ImplementationKind {
    /// As documents write it.
    pub fn word(self) -> &'static str {
        match self {
            ImplementationKind::System => "system",
            ImplementationKind::Container => "container",
            ImplementationKind::Model => "model",
        }
    }
}

/// `requirements[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "RawRequirement")]
pub enum Requirement {
    /// Versions of the appliance's software; at least one of the two.
    #[serde(rename_all = "camelCase")]
    Ota {
        /// From.
        #[serde(skip_serializing_if = "Option::is_none")]
        min_version: Option<String>,
        /// To.
        #[serde(skip_serializing_if = "Option::is_none")]
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

/// A requirement as documents write it. (serde's own tagged enums forget where in the document they are.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRequirement {
    #[serde(rename = "type")]
    kind: RequirementKind,
    #[serde(default, deserialize_with = "present")]
    min_version: Option<String>,
    #[serde(default, deserialize_with = "present")]
    max_version: Option<String>,
    #[serde(default, deserialize_with = "present")]
    name: Option<RequiredDevice>,
    #[serde(default, deserialize_with = "present")]
    inference_accelerators: Option<Vec<InferenceAccelerator>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequirementKind {
    Ota,
    Device,
    HardwareAccess,
}

impl TryFrom<RawRequirement> for Requirement {
    type Error = String;
    fn try_from(raw: RawRequirement) -> Result<Requirement, String> {
        let RawRequirement { kind, min_version, max_version, name, inference_accelerators } = raw;
        let (word, own): (&str, &[&str]) = match kind {
            RequirementKind::Ota => ("ota", &["minVersion", "maxVersion"]),
            RequirementKind::Device => ("device", &["name"]),
            RequirementKind::HardwareAccess => ("hardware_access", &["inferenceAccelerators"]),
        };
        let there = [
            ("minVersion", min_version.is_some()),
            ("maxVersion", max_version.is_some()),
            ("name", name.is_some()),
            ("inferenceAccelerators", inference_accelerators.is_some()),
        ];
        if let Some((member, _)) = there.iter().find(|(member, there)| *there && !own.contains(member)) {
            return Err(format!("has a member \"{member}\", which requirements of type {word} do not have"));
        }
        let missing = |member: &str| format!("member \"{member}\" is missing");
        match kind {
            RequirementKind::Ota if min_version.is_none() && max_version.is_none() => {
                Err("a requirement of type ota needs \"minVersion\" or \"maxVersion\"".into())
            }
            RequirementKind::Ota => Ok(Requirement::Ota { min_version, max_version }),
            RequirementKind::Device => Ok(Requirement::Device { name: name.ok_or_else(|| missing("name"))? }),
            RequirementKind::HardwareAccess => {
                let inference_accelerators = inference_accelerators.ok_or_else(|| missing("inferenceAccelerators"))?;
                Ok(Requirement::HardwareAccess { inference_accelerators })
            }
        }
    }
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

impl Category {
    /// As documents write it.
    pub fn word(self) -> &'static str {
        match self {
            Category::MediaSource => "media_source",
            Category::MediaSink => "media_sink",
            Category::BusinessLogic => "business_logic",
            Category::MlModel => "ml_model",
        }
    }
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
    #[serde(deserialize_with = "port")]
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

/// An input port as documents write it. Which members the port's type has is checked when the whole document is read:
/// ports of type string may have others.
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
    #[allow(dead_code)] // only its type is checked
    constraint_regex: Option<String>,
    #[serde(default, deserialize_with = "count")]
    max_connections: u32,
    #[serde(default, deserialize_with = "present")]
    reference: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[allow(dead_code)] // only its type is checked
    reference_source: Option<String>,
}

impl TryFrom<RawInputPort> for InputPort {
    type Error = String;
    fn try_from(raw: RawInputPort) -> Result<InputPort, String> {
        let default = match raw.default {
            // It is refused for its name when the whole document is read.
            Some(_) if raw.kind == PortType::Media => None,
            default => default.map(|json| raw.kind.read(&json)).transpose().map_err(|e| format!("default {e}"))?,
        };
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
        implementations.filter(|implementation| implementation.kind != ImplementationKind::System).flat_map(
            |implementation| core::iter::once(&*implementation.asset_uri).chain(implementation.descriptor_uri.as_deref()),
        )
    }

    /// The document as JSON text.
    pub fn to_document(&self) -> String {
        serde_json::json!({ "nodePackage": self }).to_string()
    }
}

//! What an appliance runs: the graph after its overrides, with every reference followed.

use crate::{Launch, PortType, Value};

/// An application. Nodes are in the order of the graph; what replaces a node stands in its place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Application {
    /// Cameras.
    pub cameras: Vec<CameraNode>,
    /// Containers.
    pub code: Vec<CodeNode>,
    /// Models. Every code node may call every model of its application.
    pub models: Vec<ModelNode>,
    /// Displays.
    pub sinks: Vec<SinkNode>,
    /// Values.
    pub parameters: Vec<ParameterNode>,
    /// All connections, each followed to its ends.
    pub edges: Vec<Connection>,
    /// Ports that the deployment opens.
    pub open_ports: Vec<OpenPort>,
}

impl Application {
    /// Names of all nodes that are instances of an interface, in the order cameras, code, models, sinks.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        let cameras = self.cameras.iter().map(|node| &node.node);
        let code = self.code.iter().map(|node| &node.node);
        let models = self.models.iter().map(|node| &node.node);
        let sinks = self.sinks.iter().map(|node| &node.node);
        cameras.chain(code).chain(models).chain(sinks).map(|node| node.name.as_str())
    }

    /// What every interface node was made of, in the same order.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        let cameras = self.cameras.iter().map(|node| &node.node);
        let code = self.code.iter().map(|node| &node.node);
        let models = self.models.iter().map(|node| &node.node);
        let sinks = self.sinks.iter().map(|node| &node.node);
        cameras.chain(code).chain(models).chain(sinks)
    }
}

/// Name and origin of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// In the overridden graph.
    pub name: String,
    /// `<owner>::<package>`.
    pub package: String,
    /// Of the package.
    pub version: String,
    /// Of the package; `None` is the latest.
    pub patch: Option<String>,
    /// In the package.
    pub interface: String,
}

/// A camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraNode {
    /// Name and origin.
    pub node: Instance,
    /// `OnSignal` begins paused.
    pub launch: Launch,
}

/// A container.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeNode {
    /// Name and origin.
    pub node: Instance,
    /// Its files.
    pub asset: AssetFiles,
    /// Ports, in the interface's order.
    pub inputs: Vec<Input>,
    /// Ports, in the interface's order.
    pub outputs: Vec<Output>,
    /// Whether it asks for the GPU.
    pub wants_accelerator: bool,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelNode {
    /// Name and origin.
    pub node: Instance,
    /// Its files.
    pub asset: AssetFiles,
}

/// A display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkNode {
    /// Name and origin.
    pub node: Instance,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterNode {
    /// In the overridden graph.
    pub name: String,
    /// After overrides.
    pub value: Value,
}

/// Files of an asset, as the package names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetFiles {
    /// Root file system or model archive.
    pub asset: String,
    /// Descriptor.
    pub descriptor: Option<String>,
    /// What the package requires of the appliance and nobody looks at, in words.
    pub unchecked: Vec<String>,
}

/// An input port of a code node.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: PortType,
    /// For parameters: connected value, else the port's default, else the type's.
    pub value: Option<Value>,
    /// For media: the nodes that lead here, cameras or code nodes, in the order of edges and overrides.
    pub bound: Vec<String>,
}

/// An output port of a code node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: PortType,
    /// The nodes that it leads to.
    pub bound: Vec<String>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Node.
    pub producer: String,
    /// `None` for a parameter.
    pub producer_port: Option<String>,
    /// Node.
    pub consumer: String,
    /// Port.
    pub consumer_port: String,
    /// What goes through.
    pub kind: PortType,
}

/// A port that the appliance opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPort {
    /// The code node.
    pub node: String,
    /// Inside.
    pub container_port: u16,
    /// Outside, 8000 to 9000.
    pub host_port: u16,
}

//! From a deployment document and its packages' documents to what this appliance runs. Pure.

use belvedere_device_protocol::{CameraSource, Deployment, NodeSignal, Object, PackageVersion};
use belvedere_interfaces::camera::StreamConfiguration;
use belvedere_interfaces::channel::inference::Tensor;
use belvedere_interfaces::channel::node::Port;
use belvedere_manifest::{
    Application, AssetFiles, CodeNode, Descriptor, Instance, Launch, ModelNode, PackageSet, PortType, RuntimeDescriptor,
    check_package, parse_descriptor, parse_graph, parse_overrides, parse_package, resolve,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a deployment comes to, once everything it names is on the disk.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The overridden graph.
    pub application: Application,
    /// Containers, in the order of `application.code`.
    pub code: Vec<PreparedCode>,
    /// Models, in the order of `application.models`.
    pub models: Vec<PreparedModel>,
    /// Streams of the cameras, paused ones too, by node name.
    pub streams: BTreeMap<String, StreamConfiguration>,
}

/// A container.
#[derive(Debug, Clone)]
pub struct PreparedCode {
    /// The node's name.
    pub node: String,
    /// SHA-256 of the root file system's archive.
    pub tree: String,
    /// How it is entered.
    pub entry: RuntimeDescriptor,
    /// Ports as the SDK is told of them.
    pub inputs: Vec<Port>,
    /// Ports as the SDK is told of them.
    pub outputs: Vec<Port>,
}

/// A model.
#[derive(Debug, Clone)]
pub struct PreparedModel {
    /// The node's name.
    pub node: String,
    /// SHA-256 of the model's archive.
    pub archive: String,
    /// Inputs as the descriptor states them.
    pub inputs: Vec<Tensor>,
}

/// Parses graph and overrides and resolves them against `packages`, the text of each package's manifest.
pub fn application(deployment: &Deployment, packages: &[(&PackageVersion, String)]) -> Result<Application, String> {
    let graph = parse_graph(&deployment.graph.to_string()).map_err(|error| format!("graph: {error}"))?;
    let overrides = deployment
        .overrides
        .as_ref()
        .map(|overrides| parse_overrides(&overrides.to_string()))
        .transpose()
        .map_err(|error| format!("overrides: {error}"))?;
    let mut set = PackageSet::default();
    for (version, text) in packages {
        let package = parse_package(text).and_then(|package| check_package(&package).map(|()| package));
        let package = package.map_err(|error| format!("package {} {}: {error}", version.name, version.version))?;
        set.insert(&version.name, &version.version, package);
    }
    let application = resolve(&graph, overrides.as_ref(), &set).map_err(|error| error.to_string())?;
    for code in &application.code {
        if let Some(input) = code
            .inputs
            .iter()
            .find(|input| input.kind == PortType::Media && input.bound.iter().any(|node| !is_camera(&application, node)))
        {
            return Err(format!(
                "port {}.{} takes pictures from another code node, which this release cannot do",
                code.node.name, input.name
            ));
        }
    }
    Ok(application)
}

fn is_camera(application: &Application, node: &str) -> bool {
    application.cameras.iter().any(|camera| camera.node.name == node)
}

/// The objects of a node's asset: the archive, and the descriptor if there is one.
pub fn asset_objects<'a>(
    deployment: &'a Deployment,
    node: &Instance,
    files: &AssetFiles,
) -> Result<(&'a Object, Option<&'a Object>), String> {
    let package = deployment
        .packages
        .iter()
        .find(|package| package.name == node.package && package.version == node.version)
        .ok_or_else(|| format!("the deployment does not bring package {} {}", node.package, node.version))?;
    let find = |name: &str| {
        let found = package.assets.iter().find(|object| object.name == name);
        found.ok_or_else(|| format!("the deployment does not bring {name} of package {}", node.package))
    };
    Ok((find(&files.asset)?, files.descriptor.as_deref().map(find).transpose()?))
}

/// A code node with its descriptor's text.
pub fn prepare_code(
    application: &Application,
    code: &CodeNode,
    archive: &Object,
    descriptor: Option<&str>,
) -> Result<PreparedCode, String> {
    let at = |problem: String| format!("node {}: {problem}", code.node.name);
    let text = descriptor.ok_or_else(|| at("its asset has no descriptor, so there is nothing to run".into()))?;
    let Descriptor::Runtime(entry) = parse_descriptor(text).map_err(|error| at(format!("descriptor: {error}")))? else {
        return Err(at("its asset's descriptor describes a model".into()));
    };
    crate::container::command(&entry).map_err(at)?;
    let camera = |node: &String| application.cameras.iter().any(|c| c.node.name == *node);
    let inputs = code
        .inputs
        .iter()
        .map(|input| Port {
            name: input.name.clone(),
            kind: input.kind.word().to_owned(),
            value: input.value.as_ref().map(|value| value.to_json()),
            bound: input.bound.iter().filter(|node| camera(node)).cloned().collect(),
        })
        .collect();
    let outputs = code
        .outputs
        .iter()
        .map(|output| Port {
            name: output.name.clone(),
            kind: output.kind.word().to_owned(),
            value: None,
            bound: output.bound.clone(),
        })
        .collect();
    Ok(PreparedCode { node: code.node.name.clone(), tree: archive.sha256.clone(), entry, inputs, outputs })
}

/// A model node with its descriptor's text.
pub fn prepare_model(model: &ModelNode, archive: &Object, descriptor: Option<&str>) -> Result<PreparedModel, String> {
    let at = |problem: String| format!("node {}: {problem}", model.node.name);
    let inputs = match descriptor.map(parse_descriptor).transpose().map_err(|error| at(format!("descriptor: {error}")))? {
        None => Vec::new(),
        Some(Descriptor::Runtime(_)) => return Err(at("its asset's descriptor describes a container".into())),
        Some(Descriptor::Model(model)) => model
            .inputs
            .into_iter()
            .map(|input| Tensor {
                name: input.name,
                dtype: input.kind.map_or("float32", |kind| kind.word()).to_owned(),
                shape: input.shape,
            })
            .collect(),
    };
    Ok(PreparedModel { node: model.node.name.clone(), archive: archive.sha256.clone(), inputs })
}

/// What an application asks for and does not get on this appliance, in words for whoever deployed it. It is deployed
/// all the same: much of it may work.
pub fn missing(application: &Application, runtime_role: Option<&str>) -> Vec<String> {
    let mut missing = Vec::new();
    if runtime_role.is_some() {
        missing.push("its role gives it no credentials: this release has no metadata server for containers".into());
    }
    for port in &application.open_ports {
        missing.push(format!(
            "port {} of the appliance does not lead to port {} of {}: this release opens no ports, and containers have no network",
            port.host_port, port.container_port, port.node
        ));
    }
    for code in application.code.iter().filter(|code| code.wants_accelerator) {
        missing
            .push(format!("{} asks for the GPU and runs without it: containers get none in this release", code.node.name));
    }
    let assets = application.code.iter().map(|code| (&code.node.name, &code.asset));
    for (node, asset) in assets.chain(application.models.iter().map(|model| (&model.node.name, &model.asset))) {
        if !asset.unchecked.is_empty() {
            missing.push(format!("{node} requires {}, which is not looked at", asset.unchecked.join(" and ")));
        }
    }
    for code in &application.code {
        let from_code = |input: &&belvedere_manifest::Input| {
            input.kind != PortType::Media
                && input.bound.iter().any(|node| application.code.iter().any(|c| c.node.name == *node))
        };
        for input in code.inputs.iter().filter(from_code) {
            missing.push(format!(
                "{}.{} keeps its default value: values from another code node are not carried in this release",
                code.node.name, input.name
            ));
        }
    }
    missing
}

/// Whether a camera waits: the last signal decides, and before the first one the graph.
pub fn paused(launch: Launch, signal: Option<NodeSignal>) -> bool {
    match signal {
        None => launch == Launch::OnSignal,
        Some(signal) => signal == NodeSignal::Pause,
    }
}

/// The streams that the application's cameras are. `key` makes the streams' names useless for guessing passwords.
pub fn streams(
    application: &Application,
    cameras: &[CameraSource],
    key: &[u8; 32],
) -> Result<BTreeMap<String, StreamConfiguration>, String> {
    let mut streams = BTreeMap::new();
    for camera in &application.cameras {
        let source = cameras.iter().find(|source| source.package == camera.node.package).ok_or_else(|| {
            format!("camera node {}: the deployment has no address for camera {}", camera.node.name, camera.node.package)
        })?;
        let configuration = StreamConfiguration {
            stream_id: stream_id(source, key),
            url: source.stream_url.clone(),
            username: source.username.clone(),
            password: source.password.clone(),
        };
        streams.insert(camera.node.name.clone(), configuration);
    }
    Ok(streams)
}

/// The same address and credentials have the same name, so that one camera is watched once.
fn stream_id(source: &CameraSource, key: &[u8; 32]) -> String {
    let mut hash = Sha256::new_with_prefix(key);
    for part in [Some(&source.stream_url), source.username.as_ref(), source.password.as_ref()] {
        match part {
            None => hash.update([0]),
            Some(text) => {
                hash.update([1]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
        }
    }
    let hash = hex::encode(hash.finalize());
    format!("stream-{}", &hash[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(password: Option<&str>) -> CameraSource {
        CameraSource {
            package: "1::CAM".into(),
            stream_url: "rtsp://camera/1".into(),
            username: Some("u".into()),
            password: password.map(str::to_owned),
        }
    }

    #[test]
    fn the_last_signal_wins_over_the_graph() {
        for (launch, signal, waits) in [
            (Launch::OnAppStart, None, false),
            (Launch::OnSignal, None, true),
            (Launch::OnAppStart, Some(NodeSignal::Pause), true),
            (Launch::OnSignal, Some(NodeSignal::Resume), false),
            (Launch::OnAppStart, Some(NodeSignal::Resume), false),
            (Launch::OnSignal, Some(NodeSignal::Pause), true),
        ] {
            assert_eq!(paused(launch, signal), waits, "{launch:?} {signal:?}");
        }
    }

    /// Tried applications A6, runtime D24: what a manifest asked for and the appliance does not give was not said anywhere.
    #[test]
    fn what_an_application_does_not_get_is_said() {
        let package = r#"{"nodePackage":{"envelopeVersion":"2021-01-01","name":"CODE","version":"1.0",
            "assets":[{"name":"code","implementations":[{"type":"container","assetUri":"a.tar.gz","descriptorUri":"a.json",
              "requirements":[{"type":"ota","minVersion":"4.0"},{"type":"hardware_access","inferenceAccelerators":[
                {"deviceType":"nvhost_gpu","sharedResourcePolicy":{"policy":"allow_all"}}]}]}]}],
            "interfaces":[{"name":"interface","category":"business_logic","asset":"code",
              "inputs":[{"name":"level","type":"int32"}],"outputs":[{"name":"count","type":"int32"}],
              "network":{"inboundPorts":[{"port":8080}]}}]}}"#;
        let graph = r#"{"nodeGraph":{"envelopeVersion":"2021-01-01","packages":[{"name":"123456789012::CODE","version":"1.0"}],
            "nodes":[{"name":"first","interface":"123456789012::CODE.interface"},
                     {"name":"second","interface":"123456789012::CODE.interface"}],
            "edges":[{"producer":"first.count","consumer":"second.level"}]}}"#;
        let overrides = r#"{"nodeGraphOverrides":{"envelopeVersion":"2021-01-01",
            "networkRoutingRules":[{"node":"first","containerPort":8080,"hostPort":8081}]}}"#;
        let mut packages = PackageSet::default();
        packages.insert("123456789012::CODE", "1.0", parse_package(package).unwrap());
        let overrides = parse_overrides(overrides).unwrap();
        let application = resolve(&parse_graph(graph).unwrap(), Some(&overrides), &packages).unwrap();
        let said = missing(&application, Some("arn:aws:iam::123456789012:role/x")).join("\n");
        for words in [
            "its role gives it no credentials",
            "port 8081 of the appliance does not lead to port 8080 of first",
            "first asks for the GPU",
            "second asks for the GPU",
            "first requires appliance software from \"4.0\", which is not looked at",
            "second.level keeps its default value",
        ] {
            assert!(said.contains(words), "{words:?} is missing in:\n{said}");
        }
        assert!(missing(&Application::default(), None).is_empty());
    }

    #[test]
    fn a_camera_has_one_name_for_each_address_and_credentials() {
        let key = [7; 32];
        assert_eq!(stream_id(&source(Some("p")), &key), stream_id(&source(Some("p")), &key));
        assert_ne!(stream_id(&source(Some("p")), &key), stream_id(&source(Some("q")), &key));
        assert_ne!(stream_id(&source(Some("")), &key), stream_id(&source(None), &key));
        assert_ne!(stream_id(&source(None), &key), stream_id(&source(None), &[8; 32]));
    }
}

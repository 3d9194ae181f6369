//! The rules between documents: a graph, its overrides and its packages become an [`Application`], or an [`Error`].

use crate::builtin::ABSTRACT_CAMERA;
use crate::{
    Application, AssetFiles, BUILT_IN_OWNER, CameraNode, Category, CodeNode, Connection, Error, Graph, ImplementationKind,
    Input, Instance, Interface, Launch, ModelNode, Node, NodeKind, OpenPort, Output, Overrides, Package, PackageInclude,
    ParameterNode, PortType, Requirement, Rule, SinkNode, built_in, limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// The packages that a graph can refer to. Built-in ones need not be added.
#[derive(Debug, Clone, Default)]
pub struct PackageSet {
    packages: BTreeMap<(String, String), Package>,
}

impl PackageSet {
    /// Adds version `version` of `<owner>::<name>`.
    pub fn insert(&mut self, name: impl Into<String>, version: impl Into<String>, package: Package) {
        self.packages.insert((name.into(), version.into()), package);
    }

    /// Finds a package.
    pub fn get(&self, name: &str, version: &str) -> Option<Package> {
        match name.split_once("::") {
            Some((BUILT_IN_OWNER, built_in_name)) => built_in(built_in_name, version),
            _ => self.packages.get(&(name.to_owned(), version.to_owned())).cloned(),
        }
    }
}

/// Checks a package by itself: unique names, interfaces' assets, and an implementation for what needs one.
pub fn check_package(package: &Package) -> Result<(), Error> {
    unique(package.interfaces.iter().map(|interface| &*interface.name), "nodePackage.interfaces", "interface")?;
    unique(package.assets.iter().map(|asset| &*asset.name), "nodePackage.assets", "asset")?;
    for (i, interface) in package.interfaces.iter().enumerate() {
        let at = format!("nodePackage.interfaces[{i}]");
        unique(interface.inputs.iter().map(|port| &*port.name), &format!("{at}.inputs"), "port")?;
        unique(interface.outputs.iter().map(|port| &*port.name), &format!("{at}.outputs"), "port")?;
        if matches!(interface.category, Category::BusinessLogic | Category::MlModel) || interface.asset.is_some() {
            find_asset(package, interface, &at)?;
        }
    }
    Ok(())
}

/// Applies overrides to a graph and follows every reference.
///
/// `overrides` is the document of the deployment, if it has one; `packages` holds every package that the two name,
/// the built-in ones apart.
pub fn resolve(graph: &Graph, overrides: Option<&Overrides>, packages: &PackageSet) -> Result<Application, Error> {
    // 1. Packages by the name that interfaces use; a name stands for one version.
    let mut included: BTreeMap<&str, &PackageInclude> = BTreeMap::new();
    let of_overrides = overrides.map_or(&[][..], |overrides| &overrides.packages);
    let lists = [("nodeGraph", &graph.packages[..]), ("nodeGraphOverrides", of_overrides)];
    for (document, list) in lists {
        for (i, include) in list.iter().enumerate() {
            if let Some(other) = included.insert(&include.name, include)
                && *other.version != *include.version
            {
                return Err(Error::new(
                    format!("{document}.packages[{i}]"),
                    Rule::UniqueNames,
                    format!("package {} is listed with versions {} and {}", include.name, other.version, include.version),
                ));
            }
        }
    }

    // 2. Names are unique within each document.
    unique(graph.nodes.iter().map(|node| &*node.name), "nodeGraph.nodes", "node")?;
    let mut new_nodes: BTreeMap<&str, &Node> = BTreeMap::new();
    if let Some(overrides) = overrides {
        unique(overrides.nodes.iter().map(|node| &*node.name), "nodeGraphOverrides.nodes", "node")?;
        new_nodes.extend(overrides.nodes.iter().map(|node| (&*node.name, node)));
    }

    // 3. Which nodes are replaced by which.
    let replacements = replacements(graph, overrides, &new_nodes)?;
    let nodes = overridden_nodes(graph, overrides, &new_nodes, &replacements)?;

    // 4. Follow every node to its interface.
    let mut followed: BTreeMap<&str, Followed> = BTreeMap::new();
    for (node, at) in &nodes {
        followed.insert(&node.name, follow(node, at, &included, packages)?);
    }
    check_replacement_kinds(graph, &replacements, &new_nodes, &included, packages)?;

    // 5. Edges, rewritten and checked.
    let edges = connections(graph, overrides, &replacements, &followed)?;

    // 6. Put together.
    let mut application = Application { edges, ..Application::default() };
    for (node, at) in &nodes {
        let Some(followed) = followed.get(&*node.name) else { continue };
        match followed {
            Followed::Parameter(value) => {
                application.parameters.push(ParameterNode { name: node.name.to_string(), value: value.clone() });
            }
            Followed::Interface { instance, interface, package, launch } => {
                add(&mut application, at, instance, interface, package, *launch)?;
            }
        }
    }
    bind(&mut application);
    check_cameras(&application)?;
    application.open_ports = open_ports(graph, overrides, &followed)?;
    Ok(application)
}

enum Followed {
    Parameter(crate::Value),
    Interface { instance: Instance, interface: Box<Interface>, package: Box<Package>, launch: Launch },
}

/// Names of replaced nodes, and of what replaces them.
type Replacements<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn replacements<'a>(
    graph: &'a Graph,
    overrides: Option<&'a Overrides>,
    new_nodes: &BTreeMap<&str, &Node>,
) -> Result<Replacements<'a>, Error> {
    let mut replacements = Replacements::new();
    let mut used = BTreeSet::new();
    for (i, node_override) in overrides.iter().flat_map(|overrides| &overrides.node_overrides).enumerate() {
        let at = format!("nodeGraphOverrides.nodeOverrides[{i}]");
        let target = &node_override.replace;
        let Some(node) = graph.nodes.iter().find(|node| node.name == *target) else {
            return Err(Error::new(format!("{at}.replace"), Rule::OverrideTargetExists, format!("the graph has no node {target}")));
        };
        if !node.overridable && !node.override_mandatory {
            return Err(Error::new(
                format!("{at}.replace"),
                Rule::Overridable,
                format!("node {target} is not overridable; the graph's author must set `overridable` to allow it"),
            ));
        }
        if node_override.with.is_empty() {
            return Err(Error::new(format!("{at}.with"), Rule::OverrideKind, format!("nothing is given to replace node {target}")));
        }
        for with in &node_override.with {
            if !new_nodes.contains_key(&*with.name) {
                return Err(Error::new(
                    format!("{at}.with"),
                    Rule::OverrideTargetExists,
                    format!("node {} is not among the nodes of the overrides", with.name),
                ));
            }
            if !used.insert(&*with.name) {
                return Err(Error::new(format!("{at}.with"), Rule::UniqueNames, format!("node {} is used twice", with.name)));
            }
        }
        let names = node_override.with.iter().map(|with| &*with.name).collect();
        if replacements.insert(&**target, names).is_some() {
            return Err(Error::new(at, Rule::UniqueNames, format!("node {target} is overridden twice")));
        }
    }
    for (i, node) in graph.nodes.iter().enumerate() {
        if node.override_mandatory && !replacements.contains_key(&*node.name) {
            return Err(Error::new(
                format!("nodeGraph.nodes[{i}]"),
                Rule::OverrideMandatory,
                format!("node {} must be overridden at deployment", node.name),
            ));
        }
    }
    Ok(replacements)
}

/// All nodes of the overridden graph, with where each is written.
fn overridden_nodes<'a>(
    graph: &'a Graph,
    overrides: Option<&'a Overrides>,
    new_nodes: &BTreeMap<&'a str, &'a Node>,
    replacements: &Replacements<'a>,
) -> Result<Vec<(&'a Node, String)>, Error> {
    let mut nodes = Vec::new();
    let mut placed = BTreeSet::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        match replacements.get(&*node.name) {
            None => nodes.push((node, format!("nodeGraph.nodes[{i}]"))),
            Some(names) => {
                for name in names {
                    placed.insert(*name);
                    if let Some(new) = new_nodes.get(name) {
                        nodes.push((*new, format!("nodeGraphOverrides node {name}")));
                    }
                }
            }
        }
    }
    for (i, node) in overrides.iter().flat_map(|overrides| &overrides.nodes).enumerate() {
        if !placed.contains(&*node.name) {
            nodes.push((node, format!("nodeGraphOverrides.nodes[{i}]")));
        }
    }
    unique(nodes.iter().map(|(node, _)| &*node.name), "the overridden graph", "node")?;
    Ok(nodes)
}

fn follow(
    node: &Node,
    at: &str,
    included: &BTreeMap<&str, &PackageInclude>,
    packages: &PackageSet,
) -> Result<Followed, Error> {
    let (reference, launch) = match &node.kind {
        NodeKind::Parameter(value) => return Ok(Followed::Parameter(value.clone())),
        NodeKind::Interface { interface, launch } => (interface, *launch),
    };
    let fail = |message: String| Error::new(format!("{at}.interface"), Rule::InterfaceExists, message);
    let include = included
        .get(reference.package())
        .ok_or_else(|| fail(format!("node {}: package {} is not in the list of packages", node.name, reference.package())))?;
    let package = packages
        .get(&include.name, &include.version)
        .ok_or_else(|| fail(format!("node {}: there is no package {} {}", node.name, include.name, include.version)))?;
    let interface = package.interface(reference.interface()).cloned().ok_or_else(|| {
        let known: Vec<&str> = package.interfaces.iter().map(|interface| &*interface.name).take(8).collect();
        fail(format!(
            "node {}: package {} {} has no interface {} (it has {})",
            node.name,
            include.name,
            include.version,
            reference.interface(),
            known.join(", ")
        ))
    })?;
    let instance = Instance {
        name: node.name.to_string(),
        package: include.name.to_string(),
        version: include.version.to_string(),
        patch: include.patch_version.clone(),
        interface: interface.name.to_string(),
    };
    Ok(Followed::Interface { instance, interface: Box::new(interface), package: Box::new(package), launch })
}

/// A parameter is replaced by one parameter of its type; an interface node by nodes of its category.
fn check_replacement_kinds(
    graph: &Graph,
    replacements: &Replacements,
    new_nodes: &BTreeMap<&str, &Node>,
    included: &BTreeMap<&str, &PackageInclude>,
    packages: &PackageSet,
) -> Result<(), Error> {
    for (i, old) in graph.nodes.iter().enumerate() {
        let Some(names) = replacements.get(&*old.name) else { continue };
        let old_kind = follow(old, &format!("nodeGraph.nodes[{i}]"), included, packages)?;
        for new in names.iter().filter_map(|name| new_nodes.get(name)) {
            let at = format!("nodeGraphOverrides node {}", new.name);
            let fail = |message: String| Err(Error::new(&at, Rule::OverrideKind, message));
            match (&old_kind, &follow(new, &at, included, packages)?) {
                (Followed::Parameter(old_value), Followed::Parameter(new_value)) => {
                    if old_value.kind() != new_value.kind() {
                        return fail(format!(
                            "{} is of type {}, but {} is of type {}",
                            new.name,
                            new_value.kind().word(),
                            old.name,
                            old_value.kind().word()
                        ));
                    }
                }
                (Followed::Interface { interface: a, .. }, Followed::Interface { interface: b, .. }) if a.category == b.category => {}
                _ => return fail(format!("{} is not of the same kind as {}, which it replaces", new.name, old.name)),
            }
        }
        if names.len() > 1 {
            let cameras = matches!(&old_kind, Followed::Interface { interface, .. } if interface.category == Category::MediaSource);
            if !cameras {
                return Err(Error::new(
                    "nodeGraphOverrides.nodeOverrides",
                    Rule::OverrideKind,
                    format!("node {} is replaced by {} nodes; only cameras may be several", old.name, names.len()),
                ));
            }
        }
    }
    Ok(())
}

fn connections(
    graph: &Graph,
    overrides: Option<&Overrides>,
    replacements: &Replacements,
    followed: &BTreeMap<&str, Followed>,
) -> Result<Vec<Connection>, Error> {
    let mut connections: Vec<Connection> = Vec::new();
    let mut seen = BTreeSet::new();
    let of_overrides = overrides.map_or(&[][..], |overrides| &overrides.edges);
    for (document, list) in [("nodeGraph", &graph.edges[..]), ("nodeGraphOverrides", of_overrides)] {
        for (i, edge) in list.iter().enumerate() {
            let at = format!("{document}.edges[{i}]");
            let (producer, producer_port) = edge.producer.parts();
            let (consumer, consumer_port) = edge.consumer.parts();
            let consumer_port = consumer_port.ok_or_else(|| {
                Error::new(format!("{at}.consumer"), Rule::EdgeEndExists, format!("{} names no port (node.port)", edge.consumer))
            })?;
            let one_producer = [producer];
            let one_consumer = [consumer];
            for producer in replacements.get(producer).map_or(&one_producer[..], |names| names) {
                for consumer in replacements.get(consumer).map_or(&one_consumer[..], |names| names) {
                    let kind = producer_type(followed, producer, producer_port)
                        .map_err(|message| Error::new(format!("{at}.producer"), Rule::EdgeEndExists, message))?;
                    let expected = consumer_type(followed, consumer, consumer_port)
                        .map_err(|message| Error::new(format!("{at}.consumer"), Rule::EdgeEndExists, message))?;
                    if kind != expected {
                        return Err(Error::new(
                            &at,
                            Rule::PortTypesMatch,
                            format!("{} gives {}, but {} takes {}", edge.producer, kind.word(), edge.consumer, expected.word()),
                        ));
                    }
                    if !seen.insert((*producer, producer_port, *consumer, consumer_port)) {
                        return Err(Error::new(&at, Rule::PortConnections, "the same edge is there twice"));
                    }
                    connections.push(Connection {
                        producer: (*producer).to_owned(),
                        producer_port: producer_port.map(str::to_owned),
                        consumer: (*consumer).to_owned(),
                        consumer_port: consumer_port.to_owned(),
                        kind,
                    });
                }
            }
        }
    }
    check_connection_counts(&connections, followed)?;
    Ok(connections)
}

fn producer_type(followed: &BTreeMap<&str, Followed>, node: &str, port: Option<&str>) -> Result<PortType, String> {
    match (followed.get(node), port) {
        (None, _) => Err(format!("there is no node {node}")),
        (Some(Followed::Parameter(value)), None) => Ok(value.kind()),
        (Some(Followed::Parameter(_)), Some(_)) => Err(format!("parameter node {node} has no ports; write the node's name alone")),
        (Some(Followed::Interface { .. }), None) => Err(format!("node {node} is no parameter; name one of its output ports")),
        (Some(Followed::Interface { interface, .. }), Some(port)) => interface
            .outputs
            .iter()
            .find(|output| &*output.name == port)
            .map(|output| output.kind)
            .ok_or_else(|| format!("node {node} (interface {}) has no output port {port}", interface.name)),
    }
}

fn consumer_type(followed: &BTreeMap<&str, Followed>, node: &str, port: &str) -> Result<PortType, String> {
    match followed.get(node) {
        None => Err(format!("there is no node {node}")),
        Some(Followed::Parameter(_)) => Err(format!("parameter node {node} takes no input")),
        Some(Followed::Interface { interface, .. }) => interface
            .inputs
            .iter()
            .find(|input| &*input.name == port)
            .map(|input| input.kind)
            .ok_or_else(|| format!("node {node} (interface {}) has no input port {port}", interface.name)),
    }
}

fn check_connection_counts(connections: &[Connection], followed: &BTreeMap<&str, Followed>) -> Result<(), Error> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for connection in connections {
        *counts.entry((&connection.consumer, &connection.consumer_port)).or_default() += 1;
    }
    for ((node, port), count) in counts {
        let Some(Followed::Interface { interface, .. }) = followed.get(node) else { continue };
        let Some(input) = interface.inputs.iter().find(|input| &*input.name == port) else { continue };
        let most = match (input.kind, input.maximum_connections) {
            (PortType::Media, 0) => continue,
            (PortType::Media, most) => most as usize,
            // A parameter has one value.
            _ => 1,
        };
        if count > most {
            return Err(Error::new(
                format!("{node}.{port}"),
                Rule::PortConnections,
                format!("{count} edges end in port {node}.{port}, which takes {most}"),
            ));
        }
    }
    Ok(())
}

fn find_asset(package: &Package, interface: &Interface, at: &str) -> Result<(AssetFiles, bool), Error> {
    let fail = |message: String| Error::new(format!("{at}.asset"), Rule::AssetExists, message);
    let name = interface.asset.as_deref().ok_or_else(|| fail(format!("interface {} names no asset", interface.name)))?;
    let asset = package
        .asset(name)
        .ok_or_else(|| fail(format!("interface {} names asset {name}, which the package does not have", interface.name)))?;
    let kind = match interface.category {
        Category::BusinessLogic => ImplementationKind::Container,
        Category::MlModel => ImplementationKind::Model,
        Category::MediaSource | Category::MediaSink => ImplementationKind::System,
    };
    let word = match kind {
        ImplementationKind::Container => "container",
        ImplementationKind::Model => "model",
        ImplementationKind::System => "system",
    };
    let implementation = asset.implementations.iter().find(|implementation| implementation.kind == kind).ok_or_else(|| {
        fail(format!("asset {name} has no implementation of type {word}; build it and package the application again"))
    })?;
    if kind != ImplementationKind::System
        && let Some(name) =
            core::iter::once(&*implementation.asset_uri).chain(implementation.descriptor_uri.as_deref()).find(|name| !file_name(name))
    {
        return Err(fail(format!("{} is not a plain file name", crate::text::shown(name))));
    }
    let accelerator = implementation.requirements.iter().any(|requirement| {
        matches!(requirement, Requirement::HardwareAccess { inference_accelerators } if !inference_accelerators.is_empty())
    });
    let files = AssetFiles { asset: implementation.asset_uri.to_string(), descriptor: implementation.descriptor_uri.clone() };
    Ok((files, accelerator))
}

/// A name that is safe as a file name and as the end of an object key.
fn file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn add(
    application: &mut Application,
    at: &str,
    instance: &Instance,
    interface: &Interface,
    package: &Package,
    launch: Launch,
) -> Result<(), Error> {
    let node = instance.clone();
    match interface.category {
        Category::MediaSource if node.package == ABSTRACT_CAMERA => {
            return Err(Error::new(
                at,
                Rule::CameraChosen,
                format!("camera node {} stands for no camera; override it with a registered camera", node.name),
            ));
        }
        Category::MediaSource => application.cameras.push(CameraNode { node, launch }),
        Category::MediaSink => application.sinks.push(SinkNode { node }),
        Category::MlModel => application.models.push(ModelNode { asset: find_asset(package, interface, at)?.0, node }),
        Category::BusinessLogic => {
            let (asset, wants_accelerator) = find_asset(package, interface, at)?;
            let mut inputs = Vec::new();
            for input in &interface.inputs {
                if input.reference {
                    return Err(Error::new(
                        format!("{at} port {}", input.name),
                        Rule::Unsupported,
                        format!("input port {}.{} takes its default from a reference", node.name, input.name),
                    ));
                }
                let value = input.default.clone().or_else(|| input.kind.empty());
                inputs.push(Input { name: input.name.to_string(), kind: input.kind, value, bound: Vec::new() });
            }
            let outputs = interface
                .outputs
                .iter()
                .map(|output| Output { name: output.name.to_string(), kind: output.kind, bound: Vec::new() })
                .collect();
            application.code.push(CodeNode { node, asset, inputs, outputs, wants_accelerator });
        }
    }
    Ok(())
}

/// Gives the code nodes' ports what the edges lead to them.
fn bind(application: &mut Application) {
    let values: BTreeMap<&str, &crate::Value> =
        application.parameters.iter().map(|parameter| (parameter.name.as_str(), &parameter.value)).collect();
    for code in &mut application.code {
        for edge in &application.edges {
            if edge.consumer == code.node.name
                && let Some(input) = code.inputs.iter_mut().find(|input| input.name == edge.consumer_port)
            {
                match values.get(edge.producer.as_str()) {
                    Some(value) => input.value = Some((*value).clone()),
                    None => input.bound.push(edge.producer.clone()),
                }
            }
            if edge.producer == code.node.name
                && let Some(output) = code.outputs.iter_mut().find(|output| Some(&output.name) == edge.producer_port.as_ref())
            {
                output.bound.push(edge.consumer.clone());
            }
        }
    }
}

fn check_cameras(application: &Application) -> Result<(), Error> {
    let active = application.cameras.iter().filter(|camera| camera.launch != Launch::OnSignal).count();
    if active > limits::ACTIVE_CAMERAS || application.cameras.len() > limits::CAMERAS {
        return Err(Error::new(
            "the overridden graph",
            Rule::CameraCount,
            format!(
                "{} cameras of which {active} start with the application; at most {} and {} (let the others start `onSignal`)",
                application.cameras.len(),
                limits::CAMERAS,
                limits::ACTIVE_CAMERAS
            ),
        ));
    }
    Ok(())
}

/// A port opens when the overrides repeat the graph's rule; they may choose another port of the appliance.
fn open_ports(graph: &Graph, overrides: Option<&Overrides>, followed: &BTreeMap<&str, Followed>) -> Result<Vec<OpenPort>, Error> {
    let mut open: Vec<OpenPort> = Vec::new();
    let of_overrides = overrides.map_or(&[][..], |overrides| &overrides.network_routing_rules);
    for (document, rules) in [("nodeGraph", &graph.network_routing_rules[..]), ("nodeGraphOverrides", of_overrides)] {
        for (i, rule) in rules.iter().enumerate() {
            let fail = |message: String| Err(Error::new(format!("{document}.networkRoutingRules[{i}]"), Rule::NetworkRule, message));
            let container_port = rule.container_port.get();
            let Some(Followed::Interface { interface, .. }) = followed.get(&*rule.node) else {
                return fail(format!("there is no code node {}", rule.node));
            };
            let declared = interface.network.iter().flat_map(|network| &network.inbound_ports).any(|p| p.port == rule.container_port);
            if interface.category != Category::BusinessLogic || !declared {
                return fail(format!("the interface of node {} has no inbound port {container_port}", rule.node));
            }
            let in_graph =
                graph.network_routing_rules.iter().find(|other| other.node == rule.node && other.container_port == rule.container_port);
            let host_port = rule.host_port.or(in_graph.and_then(|rule| rule.host_port)).unwrap_or_else(|| container_port.into());
            let Some(host_port) = u32::try_from(host_port).ok().filter(|port| limits::HOST_PORTS.contains(port)) else {
                return fail(format!(
                    "host port {host_port} is not within {} to {}",
                    limits::HOST_PORTS.start(),
                    limits::HOST_PORTS.end()
                ));
            };
            if document == "nodeGraph" {
                continue;
            }
            if in_graph.is_none() {
                return fail(format!("the graph has no rule for port {container_port} of node {}", rule.node));
            }
            let port = OpenPort { node: rule.node.to_string(), container_port, host_port: host_port as u16 };
            if open.iter().any(|other| other.host_port == port.host_port) {
                return fail(format!("host port {host_port} is used twice"));
            }
            open.push(port);
        }
    }
    Ok(open)
}

fn unique<'a>(names: impl Iterator<Item = &'a str>, element: &str, what: &str) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::new(element, Rule::UniqueNames, format!("there are two {what}s named {name}")));
        }
    }
    Ok(())
}

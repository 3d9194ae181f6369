//! The rules between documents: a graph, its overrides and its packages become an [`Application`], or an [`Error`].

mod assemble;
mod edges;
mod network;
mod replacements;

use crate::check::{names, unique};
use crate::error::element;
use crate::text::{shown, shown_at_most};
use crate::{
    Application, BUILT_IN_OWNER, Category, Error, Graph, Instance, Interface, Launch, Node, NodeKind, Overrides, Package,
    PackageInclude, PortType, Rule, Value, built_in,
};
pub use network::host_ports;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The packages that a graph can refer to. Built-in ones need not be added.
#[derive(Debug, Clone, Default)]
pub struct PackageSet {
    packages: BTreeMap<(String, String), Arc<Package>>,
}

impl PackageSet {
    /// Adds version `version` of `<owner>::<name>`.
    pub fn insert(&mut self, name: impl Into<String>, version: impl Into<String>, package: Package) {
        self.packages.insert((name.into(), version.into()), Arc::new(package));
    }

    /// Finds a package.
    pub fn get(&self, name: &str, version: &str) -> Option<Arc<Package>> {
        match name.split_once("::") {
            Some((BUILT_IN_OWNER, built_in_name)) => built_in(built_in_name, version).map(Arc::new),
            _ => self.packages.get(&(name.to_owned(), version.to_owned())).cloned(),
        }
    }

    fn versions(&self, name: &str) -> Vec<&str> {
        match name.split_once("::") {
            Some((BUILT_IN_OWNER, built_in_name)) => built_in(built_in_name, "1.0").map(|_| "1.0").into_iter().collect(),
            _ => self.packages.keys().filter(|(known, _)| known == name).map(|(_, version)| version.as_str()).collect(),
        }
    }
}

/// A package that documents list.
#[derive(Debug, Clone)]
pub struct Included {
    /// What is listed, with the patch that any of the documents names.
    pub package: PackageInclude,
    /// Where it is listed first, as errors show it.
    pub place: String,
}

/// Every package that a graph and its overrides list, once, in the order of the documents. A package may be listed
/// more than once, but not with different versions or patches: a name stands for one thing.
pub fn included(graph: &Graph, overrides: Option<&Overrides>) -> Result<Vec<Included>, Error> {
    let mut all: Vec<Included> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let of_overrides = overrides.map_or(&[][..], |overrides| &overrides.packages);
    for (list, includes) in [("nodeGraph.packages", &graph.packages[..]), ("nodeGraphOverrides.packages", of_overrides)] {
        for (i, include) in includes.iter().enumerate() {
            let Some(known) = places.get(&*include.name).and_then(|place| all.get_mut(*place)) else {
                places.insert(include.name.to_string(), all.len());
                all.push(Included { package: include.clone(), place: element(list, i, &include.name) });
                continue;
            };
            let known = &mut known.package;
            let differ = |what: &str, one: &str, other: &str| {
                let message =
                    format!("is listed with {what} {} and {}; choose one", shown_at_most(one, 20), shown_at_most(other, 20));
                Err(Error::new(element(list, i, &include.name), Rule::PackageVersions, message))
            };
            if known.version != include.version {
                return differ("version", &known.version, &include.version);
            }
            match (known.patch(), include.patch()) {
                (Some(one), Some(other)) if one != other => return differ("patch", one, other),
                (None, Some(_)) => *known = include.clone(),
                _ => {}
            }
        }
    }
    Ok(all)
}

/// Applies overrides to a graph and follows every reference.
///
/// `overrides` is the document of the deployment, if it has one; `packages` holds every package that the two name,
/// the built-in ones apart.
pub fn resolve(graph: &Graph, overrides: Option<&Overrides>, packages: &PackageSet) -> Result<Application, Error> {
    // 1. Packages by the name that interfaces use; a name stands for one version. All are there, used or not.
    let packages = Packages::find(included(graph, overrides)?, packages)?;

    // 2. Names are unique within each document.
    unique(graph.nodes.iter().map(|node| &*node.name), "nodeGraph.nodes", "node")?;
    if let Some(overrides) = overrides {
        unique(overrides.nodes.iter().map(|node| &*node.name), "nodeGraphOverrides.nodes", "node")?;
    }

    // 3. Which nodes are replaced by which.
    let replacements = replacements::replacements(graph, overrides)?;
    let nodes = replacements::overridden_nodes(graph, overrides, &replacements)?;

    // 4. Follow every node to its interface.
    let mut followed: BTreeMap<&str, Followed> = BTreeMap::new();
    for placed in &nodes {
        followed.insert(&placed.node.name, follow(placed, &packages)?);
    }
    replacements::check_kinds(graph, &replacements, &nodes, &packages)?;

    // 5. Counts, before edges multiply them.
    assemble::check_counts(&nodes, &followed)?;

    // 6. Edges, rewritten and checked.
    let edges = edges::connections(graph, overrides, &replacements, &followed)?;
    edges::check_cycles(&edges)?;

    // 7. Put together.
    let open_ports = network::open_ports(graph, overrides, &replacements, &followed)?;
    assemble::application(&nodes, &followed, edges, open_ports)
}

/// A node with where it is written.
#[derive(Clone)]
struct Placed<'a> {
    node: &'a Node,
    at: String,
}

/// The listed packages.
struct Packages {
    found: BTreeMap<String, (PackageInclude, Arc<Package>)>,
}

impl Packages {
    fn find(includes: Vec<Included>, packages: &PackageSet) -> Result<Packages, Error> {
        let mut found = BTreeMap::new();
        for Included { package: include, place } in includes {
            let package = packages.get(&include.name, &include.version).ok_or_else(|| {
                let known = packages.versions(&include.name);
                let message = match known[..] {
                    [] => format!("there is no package {}; register it first", shown(&include.name)),
                    _ => format!(
                        "there is no version {} of it; there is: {}",
                        shown_at_most(&include.version, 20),
                        known.join(", ")
                    ),
                };
                Error::new(&place, Rule::PackageExists, message)
            })?;
            found.insert(include.name.to_string(), (include, package));
        }
        Ok(Packages { found })
    }
}

/// A node with what it is made of.
enum Followed {
    Parameter(Value),
    Interface(Made),
}

/// An instance of an interface.
struct Made {
    instance: Instance,
    launch: Launch,
    package: Arc<Package>,
    /// In the package.
    index: usize,
}

impl Made {
    fn interface(&self) -> &Interface {
        &self.package.interfaces[self.index]
    }
}

impl Followed {
    fn kind_in_words(&self) -> &'static str {
        match self {
            Followed::Parameter(value) => match value.kind() {
                PortType::Boolean => "a boolean parameter",
                PortType::Int32 => "an int32 parameter",
                PortType::Float32 => "a float32 parameter",
                PortType::String | PortType::Media => "a string parameter",
            },
            Followed::Interface(made) => match made.interface().category {
                Category::MediaSource => "a camera",
                Category::MediaSink => "a display",
                Category::BusinessLogic => "a code node",
                Category::MlModel => "a model",
            },
        }
    }
}

fn follow(placed: &Placed, packages: &Packages) -> Result<Followed, Error> {
    let (reference, launch) = match &placed.node.kind {
        NodeKind::Parameter(value) => return Ok(Followed::Parameter(value.clone())),
        NodeKind::Interface { interface, launch } => (interface, *launch),
    };
    let fail = |rule: Rule, message: String| Error::new(format!("{}.interface", placed.at), rule, message);
    let (include, package) = packages.found.get(reference.package()).ok_or_else(|| {
        let listed = names(packages.found.keys().map(String::as_str));
        let message = format!("package {} is not in \"packages\", which lists: {listed}", shown(reference.package()));
        fail(Rule::PackageListed, message)
    })?;
    let index =
        package.interfaces.iter().position(|interface| &*interface.name == reference.interface()).ok_or_else(|| {
            let known = names(package.interfaces.iter().map(|interface| &*interface.name));
            let wanted = shown(reference.interface());
            fail(
                Rule::InterfaceExists,
                format!("{wanted} does not exist in package {} {}; it has: {known}", include.name, include.version),
            )
        })?;
    let instance = Instance {
        name: placed.node.name.to_string(),
        package: include.name.to_string(),
        version: include.version.to_string(),
        patch: include.patch().map(str::to_owned),
        interface: reference.interface().to_owned(),
    };
    Ok(Followed::Interface(Made { instance, launch, package: package.clone(), index }))
}

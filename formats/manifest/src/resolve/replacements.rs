//! Which nodes of the graph are replaced by which, and what is left of the graph then.

use super::{Followed, Packages, Placed, follow};
use crate::check::{names, unique};
use crate::error::element;
use crate::text::shown_at_most;
use crate::{Category, Error, Graph, Node, NodeOverride, Overrides, Rule};
use std::collections::{BTreeMap, BTreeSet};

/// Names of replaced nodes, and of what replaces them.
pub(super) type Replacements<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn brief(name: &str) -> String {
    shown_at_most(name, 40)
}

/// Checks `nodeOverrides` by themselves.
pub(super) fn replacements<'a>(graph: &'a Graph, overrides: Option<&'a Overrides>) -> Result<Replacements<'a>, Error> {
    let old: BTreeMap<&str, &Node> = graph.nodes.iter().map(|node| (&*node.name, node)).collect();
    let new: BTreeSet<&str> = overrides.iter().flat_map(|overrides| &overrides.nodes).map(|node| &*node.name).collect();
    let mut replacements = Replacements::new();
    let mut used = BTreeSet::new();
    for (i, node_override) in overrides.iter().flat_map(|overrides| &overrides.node_overrides).enumerate() {
        let target = &*node_override.replace;
        let at = element("nodeGraphOverrides.nodeOverrides", i, target);
        let fail = |member: &str, rule: Rule, message: String| Err(Error::new(format!("{at}{member}"), rule, message));
        let Some(node) = old.get(target) else {
            let known =
                names(graph.nodes.iter().filter(|node| node.overridable || node.override_mandatory).map(|node| &*node.name));
            let message = format!("the graph has no node {}; nodes that may be replaced: {known}", brief(target));
            return fail(".replace", Rule::OverrideTargetExists, message);
        };
        if !node.overridable && !node.override_mandatory {
            let message = format!(
                "node {} of the graph may not be replaced; its author must set \"overridable\": true",
                brief(target)
            );
            return fail(".replace", Rule::Overridable, message);
        }
        if replacements.contains_key(target) {
            return fail(
                ".replace",
                Rule::UniqueNames,
                format!("node {} is replaced by another override too", brief(target)),
            );
        }
        replacements.insert(target, check_with(node_override, &at, &new, &mut used)?);
    }
    for (i, node) in graph.nodes.iter().enumerate() {
        if node.override_mandatory && !replacements.contains_key(&*node.name) {
            let message = "must be overridden at deployment: add an entry to \"nodeOverrides\" that replaces it";
            return Err(Error::new(element("nodeGraph.nodes", i, &node.name), Rule::OverrideMandatory, message));
        }
    }
    Ok(replacements)
}

fn check_with<'a>(
    node_override: &'a NodeOverride,
    at: &str,
    new: &BTreeSet<&str>,
    used: &mut BTreeSet<&'a str>,
) -> Result<Vec<&'a str>, Error> {
    if node_override.with.is_empty() {
        let message = "is empty: name a node of the overrides that takes the place";
        return Err(Error::new(format!("{at}.with"), Rule::OverrideKind, message));
    }
    for (i, with) in node_override.with.iter().enumerate() {
        let at = element(&format!("{at}.with"), i, &with.name);
        if !new.contains(&*with.name) {
            let message = format!("is not among the nodes of the overrides; they are: {}", names(new.iter().copied()));
            return Err(Error::new(at, Rule::OverrideTargetExists, message));
        }
        if !used.insert(&*with.name) {
            let message = "replaces something already; give each place a node of its own";
            return Err(Error::new(at, Rule::UniqueNames, message));
        }
    }
    Ok(node_override.with.iter().map(|with| &*with.name).collect())
}

/// All nodes of the overridden graph with where each is written: what replaces a node stands in its place, what the
/// overrides add comes last.
pub(super) fn overridden_nodes<'a>(
    graph: &'a Graph,
    overrides: Option<&'a Overrides>,
    replacements: &Replacements<'a>,
) -> Result<Vec<Placed<'a>>, Error> {
    let of_overrides: BTreeMap<&str, Placed> = overrides
        .iter()
        .flat_map(|overrides| &overrides.nodes)
        .enumerate()
        .map(|(i, node)| (&*node.name, Placed { node, at: element("nodeGraphOverrides.nodes", i, &node.name) }))
        .collect();
    let mut nodes = Vec::new();
    let mut placed = BTreeSet::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        match replacements.get(&*node.name) {
            None => nodes.push(Placed { node, at: element("nodeGraph.nodes", i, &node.name) }),
            Some(names) => {
                placed.extend(names.iter().copied());
                nodes.extend(names.iter().filter_map(|name| of_overrides.get(name)).cloned());
            }
        }
    }
    let added = overrides.iter().flat_map(|overrides| &overrides.nodes).filter(|node| !placed.contains(&*node.name));
    nodes.extend(added.filter_map(|node| of_overrides.get(&*node.name)).cloned());
    unique(nodes.iter().map(|placed| &*placed.node.name), "the overridden graph's nodes", "node")?;
    Ok(nodes)
}

/// A parameter is replaced by one parameter of its type; an interface node by one node of its category, a camera by any
/// number of cameras.
pub(super) fn check_kinds(
    graph: &Graph,
    replacements: &Replacements,
    nodes: &[Placed],
    packages: &Packages,
) -> Result<(), Error> {
    let by_name: BTreeMap<&str, &Placed> = nodes.iter().map(|placed| (&*placed.node.name, placed)).collect();
    for (i, old) in graph.nodes.iter().enumerate() {
        let Some(names) = replacements.get(&*old.name) else { continue };
        let old_kind = follow(&Placed { node: old, at: element("nodeGraph.nodes", i, &old.name) }, packages)?;
        let is = old_kind.kind_in_words();
        for new in names.iter().filter_map(|name| by_name.get(name)) {
            let new_kind = follow(new, packages)?.kind_in_words();
            if new_kind != is {
                let message = format!("is {new_kind}, but node {}, which it replaces, is {is}", brief(&old.name));
                return Err(Error::new(&new.at, Rule::OverrideKind, message));
            }
        }
        if names.len() > 1 && !matches!(&old_kind, Followed::Interface(i) if i.interface().category == Category::MediaSource)
        {
            let message = format!("is {is} and would be replaced by {} nodes; only cameras may be several", names.len());
            return Err(Error::new(element("nodeGraph.nodes", i, &old.name), Rule::OverrideKind, message));
        }
    }
    Ok(())
}

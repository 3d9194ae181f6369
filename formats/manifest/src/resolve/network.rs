//! Ports of the appliance: packages say where their code listens, overrides which of these are opened. A rule in the graph
//! opens nothing; it is a default for whoever writes the overrides.

use super::Followed;
use super::replacements::Replacements;
use crate::check::names;
use crate::error::element;
use crate::text::shown_at_most;
use crate::{Category, Error, Graph, OpenPort, Overrides, RoutingRule, Rule, limits};
use std::collections::{BTreeMap, BTreeSet};

/// A port opens when the overrides have a rule for an inbound port of the package.
pub(super) fn open_ports(
    graph: &Graph,
    overrides: Option<&Overrides>,
    replacements: &Replacements,
    followed: &BTreeMap<&str, Followed>,
) -> Result<Vec<OpenPort>, Error> {
    for (i, rule) in graph.network_routing_rules.iter().enumerate() {
        let at = element("nodeGraph.networkRoutingRules", i, &rule.node);
        check_container_port(rule, &at, replacements, followed)?;
        if let Some(port) = rule.host_port {
            check_host_port(port, &at)?;
        }
    }
    let mut open: Vec<OpenPort> = Vec::new();
    for (i, rule) in overrides.iter().flat_map(|overrides| &overrides.network_routing_rules).enumerate() {
        let at = element("nodeGraphOverrides.networkRoutingRules", i, &rule.node);
        let node = check_container_port(rule, &at, replacements, followed)?;
        let container_port = rule.container_port.get();
        let host_port = check_host_port(wanted(graph, rule), &at)?;
        if let Some(other) = open.iter().find(|other| other.host_port == host_port) {
            let message = format!(
                "leads to port {} of node {} already; choose another",
                other.container_port,
                shown_at_most(&other.node, 40)
            );
            return Err(Error::new(format!("{at}.hostPort {host_port}"), Rule::NetworkRule, message));
        }
        open.push(OpenPort { node, container_port, host_port });
    }
    Ok(open)
}

/// The ports of the appliance that documents open which were accepted before: what another application on the same
/// appliance cannot have.
pub fn host_ports(graph: &Graph, overrides: Option<&Overrides>) -> BTreeSet<u16> {
    let rules = overrides.into_iter().flat_map(|overrides| &overrides.network_routing_rules);
    rules.filter_map(|rule| u16::try_from(wanted(graph, rule)).ok()).collect()
}

/// The graph's rule for the same port, if it has one.
fn in_graph<'a>(graph: &'a Graph, rule: &RoutingRule) -> Option<&'a RoutingRule> {
    graph.network_routing_rules.iter().find(|other| other.node == rule.node && other.container_port == rule.container_port)
}

/// The overrides' `hostPort`, else the graph's, else the same port as inside.
fn wanted(graph: &Graph, rule: &RoutingRule) -> i64 {
    rule.host_port
        .or(in_graph(graph, rule).and_then(|rule| rule.host_port))
        .unwrap_or_else(|| rule.container_port.get().into())
}

fn check_host_port(port: i64, at: &str) -> Result<u16, Error> {
    u16::try_from(port).ok().filter(|port| limits::HOST_PORTS.contains(port)).ok_or_else(|| {
        let message = format!(
            "is not one of the ports {} to {} that applications may have",
            limits::HOST_PORTS.start(),
            limits::HOST_PORTS.end()
        );
        Error::new(format!("{at}.hostPort {port}"), Rule::NetworkRule, message)
    })
}

/// The node that the rule is about, after overrides, if it declares that port.
fn check_container_port(
    rule: &RoutingRule,
    at: &str,
    replacements: &Replacements,
    followed: &BTreeMap<&str, Followed>,
) -> Result<String, Error> {
    let name = replacements.get(&*rule.node).and_then(|names| names.first()).copied().unwrap_or(&*rule.node);
    let made = match followed.get(name) {
        Some(Followed::Interface(made)) if made.interface().category == Category::BusinessLogic => made,
        _ => {
            let code = followed.iter().filter(
                |(_, f)| matches!(f, Followed::Interface(made) if made.interface().category == Category::BusinessLogic),
            );
            let message = format!("there is no code node of this name; there is: {}", names(code.map(|(name, _)| *name)));
            return Err(Error::new(format!("{at}.node"), Rule::NetworkRule, message));
        }
    };
    let declared: Vec<String> = made
        .interface()
        .network
        .iter()
        .flat_map(|network| &network.inbound_ports)
        .map(|inbound| inbound.port.to_string())
        .collect();
    if !declared.contains(&rule.container_port.to_string()) {
        let message = format!(
            "is not an inbound port of interface {} in package {}; it has: {}",
            shown_at_most(&made.instance.interface, 40),
            shown_at_most(&made.instance.package, 60),
            names(declared.iter().map(String::as_str))
        );
        return Err(Error::new(format!("{at}.containerPort {}", rule.container_port), Rule::NetworkRule, message));
    }
    Ok(name.to_owned())
}

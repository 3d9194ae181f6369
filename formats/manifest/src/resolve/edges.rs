//! Edges: rewritten to what replaces their nodes, and checked end by end.

use super::Followed;
use super::replacements::Replacements;
use crate::check::names;
use crate::text::shown_at_most;
use crate::{Connection, Error, Graph, Overrides, PortType, Rule};
use std::collections::{BTreeMap, BTreeSet};

type Nodes<'a> = BTreeMap<&'a str, Followed>;

fn brief(name: &str) -> String {
    shown_at_most(name, 40)
}

/// Every connection of the overridden graph, once.
pub(super) fn connections(
    graph: &Graph,
    overrides: Option<&Overrides>,
    replacements: &Replacements,
    followed: &Nodes,
) -> Result<Vec<Connection>, Error> {
    let mut connections: Vec<Connection> = Vec::new();
    let mut seen = BTreeSet::new();
    let of_overrides = overrides.map_or(&[][..], |overrides| &overrides.edges);
    for (list, edges) in [("nodeGraph.edges", &graph.edges[..]), ("nodeGraphOverrides.edges", of_overrides)] {
        for (i, edge) in edges.iter().enumerate() {
            let at = format!("{list}[{i}]");
            let (producer, producer_port) = edge.producer.parts();
            let (consumer, consumer_port) = edge.consumer.parts();
            let consumer_port = consumer_port.ok_or_else(|| {
                let message = format!("{} names no port; write <node>.<port>", brief(&edge.consumer));
                Error::new(format!("{at}.consumer"), Rule::EdgeEndExists, message)
            })?;
            let one_producer = [producer];
            let one_consumer = [consumer];
            for consumer in replacements.get(consumer).map_or(&one_consumer[..], |names| names) {
                let expected = consumer_type(followed, consumer, consumer_port)
                    .map_err(|message| Error::new(format!("{at}.consumer"), Rule::EdgeEndExists, message))?;
                for producer in replacements.get(producer).map_or(&one_producer[..], |names| names) {
                    let kind = producer_type(followed, producer, producer_port)
                        .map_err(|message| Error::new(format!("{at}.producer"), Rule::EdgeEndExists, message))?;
                    if kind != expected {
                        let (from, to) = (brief(&edge.producer), brief(&edge.consumer));
                        let message = format!("{from} gives {}, but {to} takes {}", kind.word(), expected.word());
                        return Err(Error::new(at, Rule::PortTypesMatch, message));
                    }
                    if !seen.insert((*producer, producer_port, *consumer, consumer_port)) {
                        let message = format!(
                            "{} and {} are connected by another edge already",
                            brief(producer),
                            brief(&edge.consumer)
                        );
                        return Err(Error::new(at, Rule::PortConnections, message));
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
    check_numbers(&connections, followed)?;
    Ok(connections)
}

fn producer_type(followed: &Nodes, node: &str, port: Option<&str>) -> Result<PortType, String> {
    match (followed.get(node), port) {
        (None, _) => Err(format!("there is no node {}", brief(node))),
        (Some(Followed::Parameter(value)), None) => Ok(value.kind()),
        (Some(Followed::Parameter(_)), Some(_)) => {
            Err(format!("{} is a parameter and has no ports; write its name alone", brief(node)))
        }
        (Some(Followed::Interface(made)), port) => {
            let outputs = &made.interface().outputs;
            let known = || names(outputs.iter().map(|output| &*output.name));
            match port {
                None => Err(format!(
                    "{} is no parameter; write <node>.<port> with one of its output ports: {}",
                    brief(node),
                    known()
                )),
                Some(port) => {
                    outputs.iter().find(|output| &*output.name == port).map(|output| output.kind).ok_or_else(|| {
                        format!("node {} has no output port {}; it has: {}", brief(node), brief(port), known())
                    })
                }
            }
        }
    }
}

fn consumer_type(followed: &Nodes, node: &str, port: &str) -> Result<PortType, String> {
    match followed.get(node) {
        None => Err(format!("there is no node {}", brief(node))),
        Some(Followed::Parameter(_)) => Err(format!("{} is a parameter and takes no input", brief(node))),
        Some(Followed::Interface(made)) => {
            let inputs = &made.interface().inputs;
            let known = || names(inputs.iter().map(|input| &*input.name));
            inputs
                .iter()
                .find(|input| &*input.name == port)
                .map(|input| input.kind)
                .ok_or_else(|| format!("node {} has no input port {}; it has: {}", brief(node), brief(port), known()))
        }
    }
}

/// A media port takes what its `maxConnections` says (0 is any number); a parameter has one value.
fn check_numbers(connections: &[Connection], followed: &Nodes) -> Result<(), Error> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for connection in connections {
        *counts.entry((&connection.consumer, &connection.consumer_port)).or_default() += 1;
    }
    for ((node, port), count) in counts {
        let Some(Followed::Interface(made)) = followed.get(node) else { continue };
        let Some(input) = made.interface().inputs.iter().find(|input| &*input.name == port) else { continue };
        let (most, why) = match (input.kind, input.maximum_connections) {
            (PortType::Media, 0) => continue,
            (PortType::Media, most) => (most as usize, "its \"maxConnections\""),
            _ => (1, "a parameter has one value"),
        };
        if count > most {
            let place = format!("edges to {}", brief(&format!("{node}.{port}")));
            return Err(Error::new(place, Rule::PortConnections, format!("{count} end here, and {most} may: {why}")));
        }
    }
    Ok(())
}

/// Nothing that a node gives comes back to it: such nodes would wait for each other.
pub(super) fn check_cycles(connections: &[Connection]) -> Result<(), Error> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for connection in connections {
        next.entry(&connection.producer).or_default().insert(&connection.consumer);
    }
    // Depth first with a list of its own, since graphs come from outside; `done` nodes lead to no cycle.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in next.keys() {
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut on_way: BTreeSet<&str> = BTreeSet::new();
        let mut enter = Some(*start);
        loop {
            match enter.take() {
                Some(node) if on_way.contains(node) => {
                    let from = way.iter().position(|(on, _)| *on == node).unwrap_or(0);
                    let circle: Vec<&str> = way.iter().skip(from).map(|(on, _)| *on).collect();
                    let mut shown: Vec<String> = circle.iter().take(4).map(|name| shown_at_most(name, 30)).collect();
                    if circle.len() > 4 {
                        shown.push(format!("{} more", circle.len() - 4));
                    }
                    shown.push(shown_at_most(node, 30));
                    let message = format!("they lead in a circle, and may not: {}", shown.join(" → "));
                    return Err(Error::new("edges", Rule::NoCycles, message));
                }
                Some(node) if !done.contains(node) => {
                    on_way.insert(node);
                    way.push((node, next.get(node).into_iter().flatten().copied().collect()));
                }
                _ => {}
            }
            let Some((node, left)) = way.last_mut() else { break };
            match left.pop() {
                Some(following) => enter = Some(following),
                None => {
                    done.insert(node);
                    on_way.remove(*node);
                    way.pop();
                }
            }
        }
    }
    Ok(())
}

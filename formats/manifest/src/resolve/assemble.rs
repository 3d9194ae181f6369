//! From followed nodes to the application.

use super::{Followed, Placed};
use crate::builtin::ABSTRACT_CAMERA;
use crate::check::find_asset;
use crate::{
    Application, CameraNode, Category, CodeNode, Connection, Error, Input, Launch, ModelNode, OpenPort, Output,
    ParameterNode, Rule, SinkNode, limits,
};
use std::collections::BTreeMap;

/// Cameras, displays and ports: how many, and that every camera is a real one.
pub(super) fn check_counts(nodes: &[Placed], followed: &BTreeMap<&str, Followed>) -> Result<(), Error> {
    let (mut cameras, mut active, mut sinks, mut ports) = (0, 0, 0, 0);
    for placed in nodes {
        let Some(Followed::Interface(made)) = followed.get(&*placed.node.name) else { continue };
        let interface = made.interface();
        ports += interface.inputs.len() + interface.outputs.len();
        if ports > limits::PORTS {
            let message = format!("with it, the nodes of the application have more than {} ports", limits::PORTS);
            return Err(Error::new(&placed.at, Rule::Size, message));
        }
        match interface.category {
            Category::MediaSource if made.instance.package == ABSTRACT_CAMERA => {
                let message = if placed.at.starts_with("nodeGraphOverrides") {
                    "stands for no camera; name a registered camera here"
                } else if placed.node.overridable || placed.node.override_mandatory {
                    "stands for no camera; replace it with a registered camera by an entry in \"nodeOverrides\""
                } else {
                    "stands for no camera and may not be replaced; make it \"overridable\": true, or name a registered camera"
                };
                return Err(Error::new(&placed.at, Rule::CameraChosen, message));
            }
            Category::MediaSource => {
                cameras += 1;
                active += usize::from(made.launch != Launch::OnSignal);
            }
            Category::MediaSink => sinks += 1,
            Category::BusinessLogic | Category::MlModel => {}
        }
        if active > limits::ACTIVE_CAMERAS {
            let most = limits::ACTIVE_CAMERAS;
            let message = format!(
                "is camera number {active} that starts with the application, of at most {most}; let some have \"launch\": \"onSignal\""
            );
            return Err(Error::new(&placed.at, Rule::CameraCount, message));
        }
        if cameras > limits::CAMERAS {
            let message = format!("is camera number {cameras}, of at most {} paused ones included", limits::CAMERAS);
            return Err(Error::new(&placed.at, Rule::CameraCount, message));
        }
        if sinks > 1 {
            let message = "is a second display, and the appliance has one; let all edges end in the same display node";
            return Err(Error::new(&placed.at, Rule::OneSink, message));
        }
    }
    Ok(())
}

/// Puts everything together.
pub(super) fn application(
    nodes: &[Placed],
    followed: &BTreeMap<&str, Followed>,
    edges: Vec<Connection>,
    open_ports: Vec<OpenPort>,
) -> Result<Application, Error> {
    let mut application = Application { edges, open_ports, ..Application::default() };
    for placed in nodes {
        let made = match followed.get(&*placed.node.name) {
            Some(Followed::Interface(made)) => made,
            Some(Followed::Parameter(value)) => {
                application.parameters.push(ParameterNode { name: placed.node.name.to_string(), value: value.clone() });
                continue;
            }
            None => continue,
        };
        let (node, interface) = (made.instance.clone(), made.interface());
        let asset = || find_asset(&made.package, interface, &format!("{} interface {}", placed.at, node.interface));
        match interface.category {
            Category::MediaSource => application.cameras.push(CameraNode { node, launch: made.launch }),
            Category::MediaSink => application.sinks.push(SinkNode { node }),
            Category::MlModel => application.models.push(ModelNode { asset: asset()?.0, node }),
            Category::BusinessLogic => {
                let (asset, wants_accelerator) = asset()?;
                let mut inputs = Vec::new();
                for input in &interface.inputs {
                    if input.reference {
                        let place = format!("{}.inputs port \"{}\"", placed.at, input.name);
                        let message = "takes its value from a reference, which this appliance cannot follow; connect a parameter instead";
                        return Err(Error::new(place, Rule::Unsupported, message));
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
    }
    bind(&mut application);
    Ok(application)
}

/// Gives the code nodes' ports what the edges lead to them.
fn bind(application: &mut Application) {
    let Application { code, parameters, edges, .. } = application;
    let values: BTreeMap<&str, &crate::Value> =
        parameters.iter().map(|parameter| (parameter.name.as_str(), &parameter.value)).collect();
    // A node's ports by their names; edges may be many times as many.
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    for code in code {
        let name = code.node.name.as_str();
        inputs.extend(code.inputs.iter_mut().map(|input| ((name, input.name.clone()), input)));
        outputs.extend(code.outputs.iter_mut().map(|output| ((name, output.name.clone()), output)));
    }
    for edge in edges {
        if let Some(input) = inputs.get_mut(&(edge.consumer.as_str(), edge.consumer_port.clone())) {
            match values.get(edge.producer.as_str()) {
                Some(value) => input.value = Some((*value).clone()),
                None => input.bound.push(edge.producer.clone()),
            }
        }
        let port = edge.producer_port.clone().unwrap_or_default();
        if let Some(output) = outputs.get_mut(&(edge.producer.as_str(), port)) {
            output.bound.push(edge.consumer.clone());
        }
    }
}

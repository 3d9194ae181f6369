//! Signals: cameras pause and resume while their application runs on. The last word is kept with the instance and
//! travels to the appliance beside the deployment's reference, so that it lasts and nothing is deployed anew.

use super::Context;
use super::errors::ApiError;
use super::quotas;
use crate::Api;
use belvedere_device_protocol::NodeSignal;
use belvedere_store::application_instances::{ApplicationInstance, CameraStart, NodeRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `SignalApplicationInstanceNodeInstancesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SignalNodes {
    application_instance_id: String,
    node_signals: Vec<SignalledNode>,
}

/// `NodeSignal`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SignalledNode {
    node_instance_id: String,
    signal: NodeSignal,
}

/// `SignalApplicationInstanceNodeInstancesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodesSignalled {
    application_instance_id: String,
}

/// The camera node that a name means: a node instance, or the package of exactly one camera (the guide's
/// `pause-camera.sh` sends package names).
fn camera<'a>(nodes: &'a [NodeRecord], name: &str) -> Result<&'a str, String> {
    if let Some(node) = nodes.iter().find(|n| n.instance == name) {
        return match node.camera {
            Some(_) => Ok(&node.instance),
            None => Err(format!("node {name} is not a camera")),
        };
    }
    let mut of_package = nodes.iter().filter(|n| n.camera.is_some() && n.package_name == name);
    match (of_package.next(), of_package.next()) {
        (Some(node), None) => Ok(&node.instance),
        (Some(_), Some(_)) => Err(format!("several camera nodes are of package {name}: name the node")),
        (None, _) => Err(format!("the application has no camera node {name}")),
    }
}

/// Signals by node instance.
fn targets(nodes: &[NodeRecord], given: &[SignalledNode]) -> Result<BTreeMap<String, NodeSignal>, ApiError> {
    let mut signals = BTreeMap::new();
    for (index, signalled) in given.iter().enumerate() {
        let member = format!("NodeSignals[{index}].NodeInstanceId");
        let node = camera(nodes, &signalled.node_instance_id).map_err(|message| ApiError::field(&member, message))?;
        if signals.insert(node.to_owned(), signalled.signal).is_some() {
            return Err(ApiError::field(&member, format!("node {node} is signalled twice")));
        }
    }
    Ok(signals)
}

/// How many cameras are watched.
pub fn watched(nodes: &[NodeRecord], signals: &BTreeMap<String, NodeSignal>) -> u64 {
    let is_watched = |n: &&NodeRecord| match (n.camera, signals.get(&n.instance)) {
        (None, _) | (Some(_), Some(NodeSignal::Pause)) => false,
        (Some(_), Some(NodeSignal::Resume)) => true,
        (Some(start), None) => start == CameraStart::Watched,
    };
    nodes.iter().filter(is_watched).count() as u64
}

/// Why an instance's cameras cannot be signalled.
fn refusal(found: Option<&ApplicationInstance>) -> Option<&'static str> {
    match found {
        None => Some("there is no such application instance"),
        Some(instance) if instance.removed => Some("the application instance is removed"),
        Some(_) => None,
    }
}

/// Pauses and resumes cameras. An appliance that is offline follows when it is back.
pub async fn signal(api: &Api, _: &Context, input: SignalNodes) -> Result<NodesSignalled, ApiError> {
    let id = &input.application_instance_id;
    let store = &api.fleet.store;
    let found = store.application_instance(id).await?;
    // The model has no "not found" for this operation.
    if let Some(why) = refusal(found.as_ref()) {
        return Err(ApiError::field("ApplicationInstanceId", why));
    }
    let Some(instance) = found else { return Err(ApiError::not_found("APPLICATION_INSTANCE", id)) };
    let new = targets(&instance.nodes, &input.node_signals)?;
    let mut signals = store.node_signals(id).await?;
    let before = watched(&instance.nodes, &signals);
    signals.extend(new.clone());
    let after = watched(&instance.nodes, &signals);
    // Pausing is always allowed, whatever the limit was when the application was made.
    if after > before {
        quotas::cameras(api, id, after)?;
    }
    store.signal_nodes(id, &new).await?;
    if let Some(device) = store.device(&instance.device_id).await? {
        let signals = store.node_signals(id).await?;
        let reference = api.fleet.reference(&instance, signals);
        api.fleet.desire(&device.thing_name, &[(id.clone(), reference)], &[]).await?;
        // Its removal may have been asked for meanwhile: then it must not be desired again.
        if store.application_instance(id).await?.is_none_or(|i| i.removed) {
            api.fleet.desire(&device.thing_name, &[], std::slice::from_ref(id)).await?;
        }
    }
    tracing::info!(application_instance_id = id, signals = ?new, "cameras signalled");
    Ok(NodesSignalled { application_instance_id: input.application_instance_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeSignal::{Pause, Resume};

    fn node(instance: &str, package: &str, camera: Option<CameraStart>) -> NodeRecord {
        NodeRecord {
            instance: instance.into(),
            node_id: format!("{package}-1.0-abcd-{package}"),
            node_name: package.into(),
            package_name: package.into(),
            package_version: "1.0".into(),
            patch: "abcd".into(),
            status: "NOT_AVAILABLE".into(),
            camera,
        }
    }
    fn nodes() -> Vec<NodeRecord> {
        vec![
            node("front", "GATE", Some(CameraStart::Watched)),
            node("back", "YARD", Some(CameraStart::Paused)),
            node("side_a", "SIDE", Some(CameraStart::Watched)),
            node("side_b", "SIDE", Some(CameraStart::Watched)),
            node("code_node", "CODE", None),
        ]
    }
    fn given(list: &[(&str, NodeSignal)]) -> Vec<SignalledNode> {
        list.iter().map(|(n, signal)| SignalledNode { node_instance_id: (*n).into(), signal: *signal }).collect()
    }

    #[test]
    fn a_package_s_name_stands_for_its_only_camera() {
        let signals = targets(&nodes(), &given(&[("GATE", Pause), ("back", Resume)])).unwrap();
        assert_eq!(signals, BTreeMap::from([("front".to_owned(), Pause), ("back".to_owned(), Resume)]));
        for wrong in ["SIDE", "code_node", "CODE", "nothing"] {
            assert!(targets(&nodes(), &given(&[(wrong, Pause)])).is_err(), "{wrong}");
        }
        assert!(targets(&nodes(), &given(&[("GATE", Pause), ("front", Resume)])).is_err(), "one camera, two signals");
    }

    #[test]
    fn the_last_signal_decides_whether_a_camera_is_watched() {
        let with =
            |list: &[(&str, NodeSignal)]| watched(&nodes(), &list.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect());
        assert_eq!(with(&[]), 3);
        assert_eq!(with(&[("back", Resume)]), 4);
        assert_eq!(with(&[("back", Resume), ("front", Pause), ("side_a", Pause), ("side_b", Pause)]), 1);
        assert_eq!(with(&[("code_node", Resume)]), 3);
    }
}

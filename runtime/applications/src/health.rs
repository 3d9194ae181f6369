//! What is known of nodes, and what is reported of it. Pure, but for the clock that callers hand in.

use belvedere_device_protocol::{ApplicationReport, NodeReport};
use belvedere_interfaces::camera::{StreamState, StreamStatus};
use std::time::{Duration, Instant};

/// A node that announced itself and is silent for so long is in error; three heartbeats.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A program that ended is called restarting until it has made its `panoramasdk.node` and run for so long: longer than most
/// programs need to meet the same end, so that who looks once a minute sees what is so.
pub const SETTLED: Duration = Duration::from_secs(20);
/// Likewise, for one that makes no node: it may be slow to meet its end.
const SETTLED_UNHEARD: Duration = Duration::from_secs(120);

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Being made.
    #[default]
    Starting,
    /// Its program runs.
    Running,
    /// Its program ended, or could not be started; it starts again by itself.
    Ended {
        /// For people.
        detail: String,
    },
}

/// What is known of a code node.
#[derive(Debug, Clone, Default)]
pub struct CodeHealth {
    /// The container.
    pub container: ContainerState,
    /// When the SDK was last heard; `None` before `panoramasdk.node` was made in this container.
    pub heard: Option<Instant>,
    /// When this container's program started.
    pub since: Option<Instant>,
    /// How the program ended the last time.
    pub ended: Option<String>,
}

/// What is known of a model node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ModelHealth {
    /// Being loaded, or the model process is away.
    #[default]
    Loading,
    /// Loaded.
    Ready,
    /// Cannot be loaded.
    Failed {
        /// For people.
        detail: String,
    },
}

/// Statuses of node instances, in the API's words.
pub mod status {
    /// Works.
    pub const RUNNING: &str = "RUNNING";
    /// Does not work.
    pub const ERROR: &str = "ERROR";
    /// Not known (yet).
    pub const NOT_AVAILABLE: &str = "NOT_AVAILABLE";
    /// Waits for a signal.
    pub const PAUSED: &str = "PAUSED";
}

/// A line of at most 255 characters.
pub fn line(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.chars().count() <= 255 { text } else { text.chars().take(254).chain(['…']).collect() }
}

fn report(node: &str, status: &str, detail: &str) -> NodeReport {
    NodeReport { node: node.to_owned(), status: status.to_owned(), detail: line(detail) }
}

/// A code node's report.
pub fn code(node: &str, health: &CodeHealth, now: Instant) -> NodeReport {
    let enough = if health.heard.is_some() { SETTLED } else { SETTLED_UNHEARD };
    let settled = health.since.is_some_and(|since| now.saturating_duration_since(since) >= enough);
    if let (ContainerState::Starting | ContainerState::Running, Some(ended), false) =
        (&health.container, &health.ended, settled)
    {
        return report(node, status::ERROR, &format!("restarting: {ended}"));
    }
    match (&health.container, health.heard) {
        (ContainerState::Starting, _) => report(node, status::NOT_AVAILABLE, "the container is being started"),
        (ContainerState::Ended { detail }, _) => report(node, status::ERROR, detail),
        (ContainerState::Running, None) => {
            report(node, status::NOT_AVAILABLE, "the program runs and has not made its panoramasdk.node yet")
        }
        (ContainerState::Running, Some(heard)) => {
            let silent = now.saturating_duration_since(heard);
            if silent <= SILENCE {
                report(node, status::RUNNING, "")
            } else {
                report(
                    node,
                    status::ERROR,
                    &format!("the program runs, but its panoramasdk.node is silent for {} s", silent.as_secs()),
                )
            }
        }
    }
}

/// A camera node's report; `stream` is what `camera` says of its stream, if it says anything.
pub fn camera(node: &str, paused: bool, stream: Option<&StreamStatus>) -> NodeReport {
    if paused {
        return report(node, status::PAUSED, "waits for a RESUME signal");
    }
    let Some(stream) = stream else { return report(node, status::NOT_AVAILABLE, "the camera is not watched yet") };
    let word = match stream.state {
        StreamState::Playing => status::RUNNING,
        StreamState::Connecting => status::NOT_AVAILABLE,
        StreamState::Stalled | StreamState::Backoff | StreamState::AuthenticationFailed | StreamState::Unsupported => {
            status::ERROR
        }
    };
    report(node, word, &stream.detail)
}

/// A model node's report.
pub fn model(node: &str, health: &ModelHealth) -> NodeReport {
    match health {
        ModelHealth::Loading => report(node, status::NOT_AVAILABLE, "the model is being loaded"),
        ModelHealth::Ready => report(node, status::RUNNING, ""),
        ModelHealth::Failed { detail } => report(node, status::ERROR, detail),
    }
}

/// A data sink's report.
pub fn sink(node: &str) -> NodeReport {
    report(node, status::RUNNING, "")
}

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Heard of.
    Requested,
    /// Being brought here; what is going on, or why it is being tried again.
    Installing(String),
    /// Cannot run here, whatever is tried; nothing of it runs.
    Failed(String),
    /// Cannot run here, whatever is tried; the version before it goes on.
    UpdateFailed(String),
    /// Supervised.
    Deployed,
    /// Not wanted any more, and runs until what replaces it is ready; what that waits for.
    Retiring(String),
    /// There, and asked not to run.
    Stopped,
    /// Being removed; why that is not done yet.
    Removing(String),
    /// Gone.
    Removed,
}

/// What an instance's report is made from.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The application instance.
    pub id: &'a str,
    /// Of the deployment document.
    pub sha256: &'a str,
    /// Where it stands.
    pub stage: &'a Stage,
    /// All nodes.
    pub nodes: Vec<NodeReport>,
    /// The names of its code nodes, which its health follows.
    pub code: &'a [String],
    /// More that people should know while it runs, the most important first.
    pub remarks: Vec<String>,
}

/// An instance's report.
pub fn application(facts: Facts) -> ApplicationReport {
    let Facts { id, sha256, stage, nodes, code, remarks } = facts;
    let of_code: Vec<&NodeReport> = nodes.iter().filter(|node| code.contains(&node.node)).collect();
    let health = match stage {
        Stage::Deployed | Stage::UpdateFailed(_) | Stage::Retiring(_) => {
            if of_code.iter().any(|node| node.status == status::ERROR) {
                status::ERROR
            } else if of_code.iter().all(|node| node.status == status::RUNNING) {
                status::RUNNING
            } else {
                status::NOT_AVAILABLE
            }
        }
        Stage::Failed(_) => status::ERROR,
        _ => status::NOT_AVAILABLE,
    };
    // First what does not work, then what is going on, then what was not to be had from the beginning.
    let running = |first: &str| {
        let of_node = |node: &NodeReport| format!("{}: {}", node.node, node.detail);
        let code_trouble = of_code.iter().find(|node| node.status != status::RUNNING);
        let other_trouble = nodes.iter().filter(|node| node.status == status::ERROR && !code.contains(&node.node));
        let parts = (!first.is_empty()).then(|| first.to_owned()).into_iter();
        let parts = parts.chain(code_trouble.map(|node| of_node(node))).chain(other_trouble.map(of_node));
        parts.chain(remarks.iter().cloned()).collect::<Vec<_>>().join("; ")
    };
    let device = if health == status::RUNNING { "RUNNING" } else { "LAUNCHED" };
    let (state, description, device) = match stage {
        Stage::Requested => ("DEPLOYMENT_REQUESTED", String::new(), "INSTALL_IN_PROGRESS"),
        Stage::Installing(detail) => ("DEPLOYMENT_IN_PROGRESS", detail.clone(), "INSTALL_IN_PROGRESS"),
        Stage::Failed(detail) => ("DEPLOYMENT_FAILED", detail.clone(), "INSTALL_ERROR"),
        Stage::UpdateFailed(detail) => {
            ("DEPLOYMENT_FAILED", running(&format!("{detail}; the version before it goes on running")), device)
        }
        Stage::Deployed => ("DEPLOYMENT_SUCCEEDED", running(""), device),
        Stage::Retiring(detail) => ("REMOVAL_IN_PROGRESS", running(detail), device),
        Stage::Stopped => ("DEPLOYMENT_SUCCEEDED", "stopped".to_owned(), "STOPPED"),
        Stage::Removing(detail) => ("REMOVAL_IN_PROGRESS", detail.clone(), "REMOVAL_IN_PROGRESS"),
        Stage::Removed => ("REMOVAL_SUCCEEDED", String::new(), "STOPPED"),
    };
    ApplicationReport {
        application_instance_id: id.to_owned(),
        sha256: sha256.to_owned(),
        status: state.to_owned(),
        status_description: line(&description),
        health: health.to_owned(),
        device_reported_status: device.to_owned(),
        nodes,
    }
}

/// How long to wait before a program that ended starts again: 1, 2, 4, … 60 s; it never ends.
pub fn back_off(quick_ends: u32) -> Duration {
    Duration::from_secs(1_u64.checked_shl(quick_ends).unwrap_or(u64::MAX).clamp(1, 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_node_is_running_while_it_is_heard() {
        let now = Instant::now() + Duration::from_secs(1_000);
        let health = |container, heard| CodeHealth { container, heard, ..CodeHealth::default() };
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        assert_eq!(code("n", &health(ContainerState::Starting, None), now).status, "NOT_AVAILABLE");
        assert_eq!(code("n", &health(ContainerState::Running, None), now).status, "NOT_AVAILABLE");
        assert_eq!(code("n", &health(ContainerState::Running, ago(30)), now).status, "RUNNING");
        let silent = code("n", &health(ContainerState::Running, ago(31)), now);
        assert_eq!((silent.status.as_str(), silent.detail.contains("31 s")), ("ERROR", true));
        let ended = code("n", &health(ContainerState::Ended { detail: "exit status 1".into() }, ago(1)), now);
        assert_eq!((ended.status.as_str(), ended.detail.as_str()), ("ERROR", "exit status 1"));
    }

    /// Tried applications A9: a program that failed at once was ERROR, NOT_AVAILABLE and RUNNING in turn, every few seconds.
    #[test]
    fn a_program_that_restarts_is_in_error_until_it_has_run_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = CodeHealth { ended: Some("exit status 1".into()), ..CodeHealth::default() };
        let seen = |health: &CodeHealth, now| (code("n", health, now).status, code("n", health, now).detail);
        let restarting = ("ERROR".to_owned(), "restarting: exit status 1".to_owned());
        assert_eq!(seen(&health, at(0)), restarting);
        health.container = ContainerState::Running;
        health.since = Some(at(1));
        assert_eq!(seen(&health, at(1)), restarting);
        assert_eq!(seen(&health, at(120)), restarting, "it has not made its node yet, and may end before it does");
        assert_eq!(seen(&health, at(121)).0, "NOT_AVAILABLE", "it goes on without one");
        health.heard = Some(at(20));
        assert_eq!(seen(&health, at(20)), restarting);
        assert_eq!(seen(&health, at(1) + SETTLED), ("RUNNING".to_owned(), String::new()));
        // One that never ended is said to run as soon as it does.
        let first = CodeHealth { ended: None, ..health };
        assert_eq!(seen(&first, at(20)).0, "RUNNING");
    }

    fn facts<'a>(stage: &'a Stage, nodes: Vec<NodeReport>, code: &'a [String], remarks: &[&str]) -> Facts<'a> {
        let remarks = remarks.iter().map(|&remark| remark.to_owned()).collect();
        Facts { id: "a", sha256: "s", stage, nodes, code, remarks }
    }

    #[test]
    fn the_applications_health_follows_its_code() {
        let nodes = |word: &str| vec![camera("cam", false, None), report("code", word, "why")];
        let of = |word: &str| application(facts(&Stage::Deployed, nodes(word), &["code".into()], &[]));
        assert_eq!((of("RUNNING").health.as_str(), of("RUNNING").device_reported_status.as_str()), ("RUNNING", "RUNNING"));
        assert_eq!((of("ERROR").health.as_str(), of("ERROR").status.as_str()), ("ERROR", "DEPLOYMENT_SUCCEEDED"));
        assert_eq!(of("ERROR").status_description, "code: why");
        assert_eq!(of("NOT_AVAILABLE").health, "NOT_AVAILABLE");
        // An application of cameras alone runs.
        let cameras = application(facts(&Stage::Deployed, vec![camera("cam", false, None)], &[], &[]));
        assert_eq!((cameras.health.as_str(), cameras.status_description.as_str()), ("RUNNING", ""));
        assert_eq!(application(facts(&Stage::Failed("no".into()), vec![], &[], &[])).status, "DEPLOYMENT_FAILED");
    }

    /// Tried applications A4 and A6: "RUNNING: The application runs." while a model was in error and a port was not open.
    #[test]
    fn what_does_not_work_beside_the_code_is_said_while_it_runs() {
        let failed = ModelHealth::Failed { detail: "Failed to load model because protobuf parsing failed.".into() };
        let nodes = vec![report("code", "RUNNING", ""), model("model_node", &failed)];
        let said = application(facts(&Stage::Deployed, nodes, &["code".into()], &["no port 8080"]));
        assert_eq!(said.health, "RUNNING");
        assert_eq!(
            said.status_description,
            "model_node: Failed to load model because protobuf parsing failed.; no port 8080"
        );
    }

    /// Runtime D32.
    #[test]
    fn an_update_that_failed_is_said_and_the_version_before_it_is_seen_to_run() {
        let stage = Stage::UpdateFailed("the model archive holds 0 .onnx files".into());
        let said = application(facts(&stage, vec![report("code", "RUNNING", "")], &["code".into()], &[]));
        assert_eq!(
            (said.status.as_str(), said.health.as_str(), said.device_reported_status.as_str()),
            ("DEPLOYMENT_FAILED", "RUNNING", "RUNNING")
        );
        assert!(said.status_description.ends_with("the version before it goes on running"), "{}", said.status_description);
    }

    #[test]
    fn lines_fit_the_api() {
        assert_eq!(line(&"ä".repeat(255)).chars().count(), 255);
        assert_eq!(line(&"ä".repeat(300)).chars().count(), 255);
        assert_eq!(line("a\nb"), "a b");
    }

    #[test]
    fn the_back_off_grows_and_never_gives_up() {
        let seconds: Vec<u64> = (0..8).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX).as_secs(), 60);
    }
}

//! What is known of nodes, and what is reported of it. Pure, but for the clock that callers hand in.

use belvedere_device_protocol::{ApplicationReport, NodeReport};
use belvedere_interfaces::camera::{StreamState, StreamStatus};
use std::time::{Duration, Instant};

/// A node that announced itself and is silent for so long is in error; three heartbeats.
pub const SILENCE: Duration = Duration::from_secs(30);

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
    /// Cannot run here, whatever is tried.
    Failed(String),
    /// Supervised.
    Deployed,
    /// There, and asked not to run.
    Stopped,
    /// Being removed; why that is not done yet.
    Removing(String),
    /// Gone.
    Removed,
}

/// An instance's report. `code` are the reports of its code nodes alone, which its health follows.
pub fn application(id: &str, sha256: &str, stage: &Stage, nodes: Vec<NodeReport>, code: &[String]) -> ApplicationReport {
    let of_code: Vec<&NodeReport> = nodes.iter().filter(|node| code.contains(&node.node)).collect();
    let health = match stage {
        Stage::Deployed if of_code.iter().any(|node| node.status == status::ERROR) => status::ERROR,
        Stage::Deployed if of_code.iter().all(|node| node.status == status::RUNNING) => status::RUNNING,
        Stage::Failed(_) => status::ERROR,
        _ => status::NOT_AVAILABLE,
    };
    let (state, description, device) = match stage {
        Stage::Requested => ("DEPLOYMENT_REQUESTED", String::new(), "INSTALL_IN_PROGRESS"),
        Stage::Installing(detail) => ("DEPLOYMENT_IN_PROGRESS", detail.clone(), "INSTALL_IN_PROGRESS"),
        Stage::Failed(detail) => ("DEPLOYMENT_FAILED", detail.clone(), "INSTALL_ERROR"),
        Stage::Deployed if health == status::RUNNING => ("DEPLOYMENT_SUCCEEDED", String::new(), "RUNNING"),
        Stage::Deployed => {
            let trouble = of_code.iter().find(|node| node.status != status::RUNNING);
            (
                "DEPLOYMENT_SUCCEEDED",
                trouble.map_or(String::new(), |node| format!("{}: {}", node.node, node.detail)),
                "LAUNCHED",
            )
        }
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
        let health = |container, heard| CodeHealth { container, heard };
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        assert_eq!(code("n", &health(ContainerState::Starting, None), now).status, "NOT_AVAILABLE");
        assert_eq!(code("n", &health(ContainerState::Running, None), now).status, "NOT_AVAILABLE");
        assert_eq!(code("n", &health(ContainerState::Running, ago(30)), now).status, "RUNNING");
        let silent = code("n", &health(ContainerState::Running, ago(31)), now);
        assert_eq!((silent.status.as_str(), silent.detail.contains("31 s")), ("ERROR", true));
        let ended = code("n", &health(ContainerState::Ended { detail: "exit status 1".into() }, ago(1)), now);
        assert_eq!((ended.status.as_str(), ended.detail.as_str()), ("ERROR", "exit status 1"));
    }

    #[test]
    fn the_applications_health_follows_its_code() {
        let nodes = |word: &str| vec![camera("cam", false, None), report("code", word, "why")];
        let of = |word: &str| application("a", "s", &Stage::Deployed, nodes(word), &["code".into()]);
        assert_eq!((of("RUNNING").health.as_str(), of("RUNNING").device_reported_status.as_str()), ("RUNNING", "RUNNING"));
        assert_eq!((of("ERROR").health.as_str(), of("ERROR").status.as_str()), ("ERROR", "DEPLOYMENT_SUCCEEDED"));
        assert_eq!(of("ERROR").status_description, "code: why");
        assert_eq!(of("NOT_AVAILABLE").health, "NOT_AVAILABLE");
        // An application of cameras alone runs.
        assert_eq!(application("a", "s", &Stage::Deployed, vec![camera("cam", false, None)], &[]).health, "RUNNING");
        assert_eq!(application("a", "s", &Stage::Failed("no".into()), vec![], &[]).status, "DEPLOYMENT_FAILED");
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

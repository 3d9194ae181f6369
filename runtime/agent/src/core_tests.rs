use super::*;
use belvedere_device_protocol::{DesiredState, NetworkStatus};

const THING: &str = "panorama_x_Thing_1";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn reference(sha256: &str) -> DeploymentReference {
    DeploymentReference { bucket: "b".into(), key: format!("k/{sha256}"), sha256: sha256.into(), signals: BTreeMap::new() }
}

fn deployment(id: &str) -> Box<Deployment> {
    Box::new(Deployment {
        application_instance_id: id.into(),
        name: "n".into(),
        created_ms: 0,
        graph: Value::Null,
        overrides: None,
        packages: Vec::new(),
        cameras: Vec::new(),
        desired_state: DesiredState::Running,
        replaces: None,
        runtime_role_arn: None,
    })
}

fn report(id: &str, sha256: &str, status: &str) -> ApplicationReport {
    ApplicationReport {
        application_instance_id: id.into(),
        sha256: sha256.into(),
        status: status.into(),
        status_description: String::new(),
        health: "RUNNING".into(),
        device_reported_status: "RUNNING".into(),
        nodes: Vec::new(),
    }
}

fn device(version: &str) -> DeviceState {
    DeviceState { software_version: version.into(), board: "b".into(), network: NetworkStatus::default(), uptime_s: 1 }
}

/// A service and an `applications` process that remember what they were told.
struct Peers {
    core: Core,
    now: Duration,
    desired: Value,
    reported: serde_json::Map<String, Value>,
    version: u64,
    device_updates: usize,
    updates: Vec<Value>,
    applied: Vec<Vec<String>>,
    fetched: Vec<String>,
    /// Answers to fetches by digest; missing: offline.
    store: BTreeMap<String, Result<Box<Deployment>, FetchError>>,
    accept: bool,
}

impl Peers {
    fn new() -> Self {
        Self {
            core: Core::new(THING),
            now: s(0),
            desired: json!({}),
            reported: serde_json::Map::new(),
            version: 0,
            device_updates: 0,
            updates: Vec::new(),
            applied: Vec::new(),
            fetched: Vec::new(),
            store: BTreeMap::new(),
            accept: true,
        }
    }

    fn desire(&mut self, instances: &[(&str, &str)]) {
        self.desired = instances
            .iter()
            .map(|(id, sha)| (id.to_string(), serde_json::to_value(reference(sha)).unwrap()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        for (id, sha) in instances {
            self.store.entry(sha.to_string()).or_insert(Ok(deployment(id)));
        }
        self.version += 1;
        // As AWS IoT Core does it: always "accepted", and a delta only when something desired is not reported.
        if !instances.is_empty() {
            let outputs =
                self.core.message(&topic(THING, APPLICATIONS, "update/delta"), b"{\"version\":1,\"state\":{}}", self.now);
            self.run(outputs);
        }
        let accepted = json!({ "state": { "desired": { "instances": {} } }, "version": self.version }).to_string();
        let outputs = self.core.message(&topic(THING, APPLICATIONS, "update/accepted"), accepted.as_bytes(), self.now);
        self.run(outputs);
    }

    fn connect(&mut self) {
        let outputs = self.core.connected(self.now);
        self.run(outputs);
    }

    fn report(&mut self, reports: &[ApplicationReport]) {
        let outputs = self.core.reports(reports.to_vec(), self.now);
        self.run(outputs);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let outputs = self.core.poll(self.now);
        self.run(outputs);
    }

    fn run(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let more = match output {
                Output::Subscribe(topics) => {
                    assert!(topics.iter().all(|t| t.starts_with(&format!("$aws/things/{THING}/shadow/name/"))));
                    Vec::new()
                }
                Output::Publish { topic, payload } => self.published(&topic, &payload),
                Output::Fetch(references) => {
                    let mut answers = BTreeMap::new();
                    for (id, reference) in references {
                        self.fetched.push(reference.sha256.clone());
                        let offline = Err(FetchError::Temporary("offline".into()));
                        let answer = self.store.get(&reference.sha256).cloned().unwrap_or(offline);
                        answers.insert(id, (reference, answer));
                    }
                    self.core.documents(answers, self.now)
                }
                Output::Apply(set) => {
                    if self.accept {
                        self.applied.push(set.iter().map(state_of).collect());
                    }
                    let names: Vec<_> =
                        set.iter().map(|d| (d.deployment.application_instance_id.clone(), state_of(d))).collect();
                    self.core.applied(&names, self.accept, self.now)
                }
            };
            self.run(more);
        }
    }

    fn published(&mut self, to: &str, payload: &str) -> Vec<Output> {
        let payload: Value = serde_json::from_str(payload).unwrap();
        if to == topic(THING, DEVICE, "update") {
            serde_json::from_value::<DeviceState>(payload["state"]["reported"].clone()).unwrap();
            self.device_updates += 1;
            return Vec::new();
        }
        if to == topic(THING, APPLICATIONS, "get") {
            let document = json!({
                "state": { "desired": { "instances": self.desired }, "reported": { "instances": self.reported } },
                "version": self.version,
            });
            return self.core.message(
                &topic(THING, APPLICATIONS, "get/accepted"),
                document.to_string().as_bytes(),
                self.now,
            );
        }
        assert_eq!(to, topic(THING, APPLICATIONS, "update"));
        for (id, value) in payload["state"]["reported"]["instances"].as_object().unwrap() {
            // As the service does it: what is removed is forgotten.
            if value.is_null() || value["status"] == "REMOVAL_SUCCEEDED" {
                self.reported.remove(id);
            } else {
                serde_json::from_value::<ApplicationReport>(value.clone()).unwrap();
                self.reported.insert(id.clone(), value.clone());
            }
        }
        self.version += 1;
        self.updates.push(payload);
        Vec::new()
    }
}

#[test]
fn a_desired_application_is_fetched_applied_and_reported() {
    let mut peers = Peers::new();
    peers.connect();
    assert_eq!(peers.applied, [Vec::<String>::new()], "nothing is desired, and applications is told so");
    peers.report(&[]);
    peers.desire(&[("a", "1")]);
    assert_eq!(peers.applied.last().unwrap(), &["1"]);
    peers.report(&[report("a", "1", "DEPLOYMENT_IN_PROGRESS")]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    assert_eq!(peers.reported["a"]["status"], "DEPLOYMENT_SUCCEEDED");
    let updates = peers.updates.len();
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    assert_eq!(peers.updates.len(), updates, "what has not changed is not said again");
    assert!(!peers.core.busy());
}

#[test]
fn nothing_is_removed_before_the_shadow_was_read() {
    let mut peers = Peers::new();
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    peers.pass(s(1000));
    assert!(peers.applied.is_empty() && peers.updates.is_empty());
}

#[test]
fn a_missing_shadow_desires_nothing() {
    let mut peers = Peers::new();
    let outputs = peers.core.connected(s(0));
    assert!(outputs.iter().any(|o| matches!(o, Output::Publish { topic, .. } if topic.ends_with("/get"))));
    let rejected = br#"{"code":404,"message":"No shadow exists"}"#;
    let outputs = peers.core.message(&topic(THING, APPLICATIONS, "get/rejected"), rejected, s(1));
    assert_eq!(outputs, [Output::Apply(Vec::new())]);
}

#[test]
fn a_changed_document_is_a_new_deployment_of_the_same_instance() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.desire(&[("a", "2")]);
    assert_eq!(peers.applied.last().unwrap(), &["2"]);
    assert_eq!(peers.fetched, ["1", "2"]);
}

#[test]
fn a_signal_is_handed_over_without_another_document() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    for (signal, expected) in [("PAUSE", "1 front=Pause"), ("RESUME", "1 front=Resume")] {
        let mut signalled = json!(reference("1"));
        signalled["signals"] = json!({ "front": signal });
        peers.desired = json!({ "a": signalled });
        peers.version += 1;
        peers.connect();
        assert_eq!(peers.applied.last().unwrap(), &[expected]);
    }
    assert_eq!(peers.fetched, ["1"]);
}

#[test]
fn an_offline_fetch_is_repeated_with_growing_waits_and_removes_nothing_meanwhile() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    let applied = peers.applied.len();
    peers.desire(&[("a", "1"), ("b", "2")]);
    assert_eq!(peers.applied.len(), applied + 1);
    peers.store.clear();
    peers.desired = json!({ "a": reference("1"), "b": reference("2"), "c": reference("3") });
    peers.version += 1;
    peers.connect();
    let fetches = peers.fetched.len();
    for _ in 0..100 {
        peers.pass(s(1));
    }
    let tries = peers.fetched.len() - fetches;
    assert!((3..=8).contains(&tries), "{tries}");
    assert_eq!(peers.applied.len(), applied + 1, "a and b go on");
    peers.store.insert("3".into(), Ok(deployment("c")));
    peers.pass(s(120));
    assert_eq!(peers.applied.last().unwrap(), &["1", "2", "3"]);
}

#[test]
fn a_document_that_is_not_what_it_says_is_an_error_of_that_instance_alone() {
    let mut peers = Peers::new();
    peers.store.insert("2".into(), Err(FetchError::Permanent("not the one that its digest says".into())));
    peers.store.insert("3".into(), Ok(deployment("somebody else")));
    peers.connect();
    peers.desire(&[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(peers.applied.last().unwrap(), &["1"]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    assert_eq!(peers.reported["a"]["status"], "DEPLOYMENT_SUCCEEDED");
    assert_eq!(peers.reported["b"]["status"], "DEPLOYMENT_ERROR");
    assert_eq!(peers.reported["c"]["status"], "DEPLOYMENT_ERROR");
    assert_eq!(peers.fetched.len(), 3, "it is not tried again");
}

#[test]
fn a_removal_is_reported_once() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    peers.desire(&[]);
    assert_eq!(peers.applied.last().unwrap(), &Vec::<String>::new());
    assert!(peers.core.busy());
    peers.report(&[report("a", "1", "REMOVAL_IN_PROGRESS")]);
    let mut removed = report("a", "1", "REMOVAL_SUCCEEDED");
    removed.health = "NOT_AVAILABLE".into();
    for _ in 0..3 {
        peers.report(&[removed.clone()]);
    }
    peers.report(&[]);
    let said = peers.updates.iter().filter(|u| u["state"]["reported"]["instances"]["a"]["status"] == "REMOVAL_SUCCEEDED");
    assert_eq!(said.count(), 1);
    assert!(peers.reported.is_empty());
}

#[test]
fn a_removal_that_was_too_quick_to_be_seen_is_reported_too() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    peers.desire(&[]);
    peers.report(&[]);
    assert_eq!(peers.updates.last().unwrap()["state"]["reported"]["instances"]["a"]["status"], "REMOVAL_SUCCEEDED");
    assert!(peers.reported.is_empty());
}

#[test]
fn what_changed_offline_is_said_with_the_next_connection() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    peers.core.disconnected();
    let mut failed = report("a", "1", "DEPLOYMENT_SUCCEEDED");
    failed.health = "ERROR".into();
    let updates = peers.updates.len();
    peers.report(&[failed]);
    assert_eq!(peers.updates.len(), updates);
    peers.connect();
    assert_eq!(peers.reported["a"]["health"], "ERROR");
}

#[test]
fn a_new_core_agrees_with_what_the_shadow_already_says() {
    let mut peers = Peers::new();
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    let updates = peers.updates.len();
    peers.core = Core::new(THING);
    peers.report(&[report("a", "1", "DEPLOYMENT_SUCCEEDED")]);
    peers.connect();
    assert_eq!(peers.updates.len(), updates);
    assert_eq!(peers.applied.last().unwrap(), &["1"]);
}

#[test]
fn the_set_is_offered_again_until_applications_takes_it() {
    let mut peers = Peers::new();
    peers.accept = false;
    peers.connect();
    peers.desire(&[("a", "1")]);
    peers.pass(s(2));
    assert!(peers.applied.is_empty());
    peers.accept = true;
    peers.pass(s(2));
    assert_eq!(peers.applied, [["1"]]);
    peers.core.applications_restarted();
    peers.pass(s(1));
    assert_eq!(peers.applied.len(), 2);
}

#[test]
fn the_device_state_is_said_on_connect_on_change_and_before_its_lease_ends() {
    let mut peers = Peers::new();
    let say = |peers: &mut Peers, version: &str, uptime: u64| {
        let state = DeviceState { uptime_s: uptime, ..device(version) };
        let outputs = peers.core.device(state, peers.now);
        peers.run(outputs);
    };
    say(&mut peers, "1.0.0", 1);
    assert_eq!(peers.device_updates, 0);
    peers.connect();
    assert_eq!(peers.device_updates, 1);
    say(&mut peers, "1.0.0", 99);
    assert_eq!(peers.device_updates, 1, "the uptime alone is no news");
    say(&mut peers, "1.0.1", 99);
    assert_eq!(peers.device_updates, 2);
    peers.pass(s(239));
    assert_eq!(peers.device_updates, 2);
    peers.pass(s(1));
    assert_eq!(peers.device_updates, 3);
    peers.core.disconnected();
    peers.pass(s(1000));
    assert_eq!(peers.device_updates, 3);
    peers.connect();
    assert_eq!(peers.device_updates, 4);
}

#[test]
fn an_old_shadow_does_not_replace_a_newer_one() {
    let mut core = Core::new(THING);
    core.connected(s(0));
    let accepted = topic(THING, APPLICATIONS, "get/accepted");
    let document = |version: u64, id: &str| {
        json!({"version": version, "state": {"desired": {"instances": {id: reference("1")}}}}).to_string()
    };
    core.message(&accepted, document(5, "new").as_bytes(), s(1));
    core.message(&accepted, document(4, "old").as_bytes(), s(1));
    assert!(core.desired.unwrap().instances.contains_key("new"));
}

#[test]
fn noise_changes_nothing() {
    let mut core = Core::new(THING);
    core.connected(s(0));
    for operation in ["get/accepted", "get/rejected", "update/accepted", "update/delta", "update/rejected"] {
        for payload in [b"".as_slice(), b"[]", b"{\"state\":7}", b"\xff", b"{\"state\":{\"desired\":{\"instances\":[]}}}"] {
            core.message(&topic(THING, APPLICATIONS, operation), payload, s(1));
        }
    }
    core.message("somewhere/else", b"{}", s(1));
}

#[test]
fn more_instances_than_possible_are_refused_as_a_whole() {
    let mut peers = Peers::new();
    peers.connect();
    let names: Vec<String> = (0..65).map(|i| format!("i{i}")).collect();
    let applied = peers.applied.len();
    peers.desire(&names.iter().map(|name| (name.as_str(), name.as_str())).collect::<Vec<_>>());
    assert_eq!(peers.applied.len(), applied);
    peers.desire(&names[..64].iter().map(|name| (name.as_str(), name.as_str())).collect::<Vec<_>>());
    assert_eq!(peers.applied.last().unwrap().len(), 64);
}

//! What is said to the service and to `applications`, decided without sockets, files or a clock of its own.
//!
//! Two facts are compared again and again: what the service *desires* (shadow `applications`) with what `applications` was
//! given, and what `applications` *reports* with what the shadow says was reported. What differs is said. After each
//! connection the shadow is read whole, so nothing depends on messages that were lost.

use belvedere_device_protocol::shadow::{
    APPLICATIONS, DEVICE, DeploymentReference, DesiredApplications, DeviceState, ReportedApplications, topic,
};
use belvedere_device_protocol::{ApplicationReport, Deployment};
use belvedere_interfaces::applications::DesiredDeployment;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The device state is said again after this time even if nothing changed: it renews the lease.
const DEVICE_PERIOD: Duration = Duration::from_secs(240);
/// First wait after a document did not come; doubled up to [`LAST_FETCH_WAIT`].
const FIRST_FETCH_WAIT: Duration = Duration::from_secs(2);
const LAST_FETCH_WAIT: Duration = Duration::from_secs(120);
/// If the whole shadow does not come after a `get`, ask again.
const GET_WAIT: Duration = Duration::from_secs(30);
/// Instances of one appliance.
const MAX_INSTANCES: usize = 64;

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Subscribe to these topics.
    Subscribe(Vec<String>),
    /// Publish with at-least-once delivery.
    Publish {
        /// Topic.
        topic: String,
        /// JSON.
        payload: String,
    },
    /// Bring these deployment documents; answer with [`Core::documents`].
    Fetch(BTreeMap<String, DeploymentReference>),
    /// Hand this set to `applications`; answer with [`Core::applied`].
    Apply(Vec<DesiredDeployment>),
}

/// Why a document did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Offline, or the service is busy: try again.
    Temporary(String),
    /// It is not there, or not what its digest says: trying again with the same reference brings the same.
    Permanent(String),
}

/// The link's memory.
#[derive(Debug)]
pub struct Core {
    thing: String,
    connected: bool,
    get_sent: Option<Duration>,
    shadow_version: u64,
    /// `None` until the shadow was read for the first time: nothing is removed before that.
    desired: Option<DesiredApplications>,
    /// By instance, with the digest they were verified against.
    documents: BTreeMap<String, DesiredDeployment>,
    /// Documents that will not come, by digest.
    hopeless: BTreeMap<String, String>,
    fetching: bool,
    fetch_at: Option<(Duration, Duration)>,
    /// Instances and their states ([`state_of`]) that `applications` has acknowledged.
    applied: Option<BTreeMap<String, String>>,
    applying: bool,
    apply_at: Option<Duration>,
    /// What `applications` said last; `None` until it said something.
    reports: Option<BTreeMap<String, ApplicationReport>>,
    /// What the shadow says was reported; `None` while that is not known.
    reported: Option<BTreeMap<String, Value>>,
    device: Option<DeviceState>,
    device_said: Option<(Value, Duration)>,
}

/// What an instance's deployment and signals are, in one text: another text is handed over again.
pub fn state_of(desired: &DesiredDeployment) -> String {
    let signals: Vec<String> = desired.signals.iter().map(|(node, signal)| format!(" {node}={signal:?}")).collect();
    format!("{}{}", desired.sha256, signals.concat())
}

impl Core {
    /// For a thing; not connected.
    pub fn new(thing: &str) -> Self {
        Self {
            thing: thing.to_owned(),
            connected: false,
            get_sent: None,
            shadow_version: 0,
            desired: None,
            documents: BTreeMap::new(),
            hopeless: BTreeMap::new(),
            fetching: false,
            fetch_at: None,
            applied: None,
            applying: false,
            apply_at: None,
            reports: None,
            reported: None,
            device: None,
            device_said: None,
        }
    }

    fn topic(&self, shadow: &str, operation: &str) -> String {
        topic(&self.thing, shadow, operation)
    }

    /// MQTT is connected, with a new session.
    pub fn connected(&mut self, now: Duration) -> Vec<Output> {
        self.connected = true;
        self.reported = None;
        self.device_said = None;
        self.shadow_version = 0;
        let topics = ["get/accepted", "get/rejected", "update/accepted", "update/delta", "update/rejected"]
            .map(|operation| self.topic(APPLICATIONS, operation));
        let topics = topics.into_iter().chain([self.topic(DEVICE, "update/rejected")]).collect();
        let mut outputs = vec![Output::Subscribe(topics), self.get(now)];
        outputs.extend(self.poll(now));
        outputs
    }

    /// MQTT is gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.get_sent = None;
    }

    /// Whether MQTT is connected.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    fn get(&mut self, now: Duration) -> Output {
        self.get_sent = Some(now);
        Output::Publish { topic: self.topic(APPLICATIONS, "get"), payload: "{}".into() }
    }

    /// A message came.
    pub fn message(&mut self, topic: &str, payload: &[u8], now: Duration) -> Vec<Output> {
        if topic == self.topic(APPLICATIONS, "get/accepted") {
            self.get_sent = None;
            match serde_json::from_slice::<Value>(payload) {
                Ok(document) => self.whole_shadow(&document),
                Err(error) => log::warn!("the shadow of applications is not JSON: {error}"),
            }
        } else if topic == self.topic(APPLICATIONS, "get/rejected") {
            self.get_sent = None;
            let rejected: Value = serde_json::from_slice(payload).unwrap_or_default();
            // 404: nobody has written this shadow yet, so nothing is desired and nothing was reported.
            if rejected["code"] == 404 {
                self.whole_shadow(&json!({}));
            } else {
                log::warn!("the shadow of applications was refused: {}", shown(&rejected["message"]));
            }
        } else if topic == self.topic(APPLICATIONS, "update/delta") {
            return if self.connected { vec![self.get(now)] } else { Vec::new() };
        } else if topic == self.topic(APPLICATIONS, "update/accepted") {
            // A delta is what is desired and not reported: what is desired no longer makes none. Updates of ours, which are
            // accepted here as well, have no desired half.
            let update: Value = serde_json::from_slice(payload).unwrap_or_default();
            if self.connected && update["state"].get("desired").is_some() {
                return vec![self.get(now)];
            }
        } else if topic.ends_with("/update/rejected") {
            let rejected: Value = serde_json::from_slice(payload).unwrap_or_default();
            log::warn!(
                "an update of {} was refused: {}",
                topic.rsplit('/').nth(2).unwrap_or(""),
                shown(&rejected["message"])
            );
            // What was said is not known there: compare anew, not at once.
            self.reported = None;
            self.get_sent = Some(now);
        }
        self.poll(now)
    }

    fn whole_shadow(&mut self, document: &Value) {
        let version = document["version"].as_u64().unwrap_or(0);
        if version < self.shadow_version {
            return;
        }
        self.shadow_version = version;
        let state = &document["state"];
        let desired = state.get("desired").filter(|d| !d.is_null()).cloned().unwrap_or(json!({"instances": {}}));
        // A desired half without instances (all were nulled) desires none.
        let desired = if desired.get("instances").is_none_or(Value::is_null) { json!({"instances": {}}) } else { desired };
        match serde_json::from_value::<DesiredApplications>(desired) {
            Ok(desired) if desired.instances.len() <= MAX_INSTANCES => {
                if self.desired.as_ref() != Some(&desired) {
                    log::info!("desired applications: {:?}", desired.instances.keys().collect::<Vec<_>>());
                    self.desired = Some(desired);
                    self.fetch_at = None;
                }
            }
            Ok(desired) => {
                log::error!("{} application instances are desired, {MAX_INSTANCES} are possible", desired.instances.len())
            }
            Err(error) => log::error!("the desired applications are not understood: {error}"),
        }
        let reported = state["reported"]["instances"].as_object().cloned().unwrap_or_default();
        self.reported = Some(reported.into_iter().collect());
    }

    /// What the ports do, and so on.
    pub fn device(&mut self, state: DeviceState, now: Duration) -> Vec<Output> {
        self.device = Some(state);
        self.poll(now)
    }

    /// What `applications` says.
    pub fn reports(&mut self, reports: Vec<ApplicationReport>, now: Duration) -> Vec<Output> {
        self.reports = Some(reports.into_iter().map(|r| (r.application_instance_id.clone(), r)).collect());
        self.poll(now)
    }

    /// `applications` was restarted: it keeps what it was given, but give it again to be sure.
    pub fn applications_restarted(&mut self) {
        self.applied = None;
    }

    /// The answer to [`Output::Fetch`].
    pub fn documents(
        &mut self,
        documents: BTreeMap<String, (DeploymentReference, Result<Box<Deployment>, FetchError>)>,
        now: Duration,
    ) -> Vec<Output> {
        self.fetching = false;
        let mut again = false;
        for (id, (reference, result)) in documents {
            match result {
                Ok(deployment) if deployment.application_instance_id == id => {
                    let (sha256, signals) = (reference.sha256, reference.signals);
                    self.documents.insert(id, DesiredDeployment { sha256, deployment: *deployment, signals });
                }
                Ok(_) => {
                    self.hopeless.insert(reference.sha256, "the deployment document is about another instance".into());
                }
                Err(FetchError::Permanent(message)) => {
                    log::error!("deployment document of {id}: {message}");
                    self.hopeless.insert(reference.sha256, message);
                }
                Err(FetchError::Temporary(message)) => {
                    log::warn!("deployment document of {id}: {message}; trying again");
                    again = true;
                }
            }
        }
        self.fetch_at = again.then(|| {
            let wait = self.fetch_at.map_or(FIRST_FETCH_WAIT, |(_, wait)| (wait * 2).min(LAST_FETCH_WAIT));
            (now + wait, wait)
        });
        self.poll(now)
    }

    /// The answer to [`Output::Apply`]: `applications` took the set, or not.
    pub fn applied(&mut self, set: &[(String, String)], accepted: bool, now: Duration) -> Vec<Output> {
        self.applying = false;
        if accepted {
            self.applied = Some(set.iter().cloned().collect());
            self.apply_at = None;
        } else {
            self.apply_at = Some(now + FIRST_FETCH_WAIT);
        }
        self.poll(now)
    }

    /// When [`Core::poll`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let mut deadlines = Vec::new();
        if !self.fetching {
            deadlines.extend(self.fetch_at.map(|(at, _)| at));
        }
        if !self.applying {
            deadlines.extend(self.apply_at);
        }
        if self.connected {
            deadlines.extend(self.device_said.as_ref().map(|(_, said)| *said + DEVICE_PERIOD));
            deadlines.extend(self.get_sent.map(|sent| sent + GET_WAIT));
        }
        deadlines.into_iter().min()
    }

    /// Whether something is under way that is worth asking `applications` often.
    pub fn busy(&self) -> bool {
        let settled = |status: &str| matches!(status, "DEPLOYMENT_SUCCEEDED" | "DEPLOYMENT_FAILED" | "REMOVAL_FAILED");
        let Some(desired) = &self.desired else { return false };
        let Some(reports) = &self.reports else { return true };
        let same = desired.instances.keys().eq(reports.keys());
        !same || reports.values().any(|report| !settled(&report.status) || report.health != "RUNNING")
    }

    /// Says and asks what is due.
    pub fn poll(&mut self, now: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.poll_documents(now, &mut outputs);
        if self.connected {
            if self.get_sent.is_some_and(|sent| now >= sent + GET_WAIT) {
                outputs.push(self.get(now));
            }
            self.poll_reports(&mut outputs);
            self.poll_device(now, &mut outputs);
        }
        outputs
    }

    fn poll_documents(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let Some(desired) = &self.desired else { return };
        self.documents.retain(|id, _| desired.instances.contains_key(id));
        let digests: BTreeSet<&String> = desired.instances.values().map(|reference| &reference.sha256).collect();
        self.hopeless.retain(|digest, _| digests.contains(digest));
        let missing: BTreeMap<String, DeploymentReference> = desired
            .instances
            .iter()
            .filter(|(id, reference)| {
                self.documents.get(*id).is_none_or(|d| d.sha256 != reference.sha256)
                    && !self.hopeless.contains_key(&reference.sha256)
            })
            .map(|(id, reference)| (id.clone(), reference.clone()))
            .collect();
        if !missing.is_empty() {
            if !self.fetching && self.fetch_at.is_none_or(|(at, _)| now >= at) {
                self.fetching = true;
                outputs.push(Output::Fetch(missing));
            }
            // The set is handed over whole: without the missing ones it would remove what runs.
            return;
        }
        // Signals come with the reference: no document is fetched for them.
        for (id, document) in &mut self.documents {
            if let Some(reference) = desired.instances.get(id) {
                document.signals.clone_from(&reference.signals);
            }
        }
        let set: BTreeMap<String, String> =
            self.documents.iter().map(|(id, document)| (id.clone(), state_of(document))).collect();
        if self.applied.as_ref() != Some(&set) && !self.applying && self.apply_at.is_none_or(|at| now >= at) {
            self.applying = true;
            outputs.push(Output::Apply(self.documents.values().cloned().collect()));
        }
    }

    /// What should be in the reported half, by instance.
    fn to_report(&self) -> Option<BTreeMap<String, ApplicationReport>> {
        let mut reports = self.reports.clone()?;
        // What cannot be deployed because its document does not come: nobody else can say so.
        for (id, reference) in self.desired.iter().flat_map(|desired| &desired.instances) {
            if let Some(message) = self.hopeless.get(&reference.sha256) {
                let report = ApplicationReport {
                    application_instance_id: id.clone(),
                    sha256: reference.sha256.clone(),
                    status: "DEPLOYMENT_ERROR".into(),
                    status_description: message.chars().take(255).collect(),
                    health: "NOT_AVAILABLE".into(),
                    device_reported_status: "INSTALL_ERROR".into(),
                    nodes: Vec::new(),
                };
                reports.entry(id.clone()).or_insert(report);
            }
        }
        Some(reports)
    }

    fn poll_reports(&mut self, outputs: &mut Vec<Output>) {
        let (Some(reports), Some(reported)) = (self.to_report(), self.reported.as_mut()) else { return };
        let mut changes = serde_json::Map::new();
        for (id, report) in &reports {
            let value = serde_json::to_value(report).unwrap_or_default();
            if reported.get(id) != Some(&value) {
                // A removal is said once; the service then forgets the instance, and so do we.
                if report.status == "REMOVAL_SUCCEEDED" && !reported.contains_key(id) {
                    continue;
                }
                changes.insert(id.clone(), value);
            }
        }
        let desired = self.desired.as_ref();
        let gone: Vec<String> = reported.keys().filter(|id| !reports.contains_key(*id)).cloned().collect();
        for id in gone {
            // Still desired: `applications` has not got it yet.
            if desired.is_none_or(|desired| desired.instances.contains_key(&id)) {
                continue;
            }
            let said = reported.get(&id).and_then(|value| value["status"].as_str());
            if said == Some("REMOVAL_SUCCEEDED") || said.is_none() {
                changes.insert(id, Value::Null);
            } else {
                // It vanished between two looks: it is removed, and nobody has said so.
                let mut value = reported[&id].clone();
                value["status"] = "REMOVAL_SUCCEEDED".into();
                value["status_description"] = "".into();
                value["health"] = "NOT_AVAILABLE".into();
                value["device_reported_status"] = "STOPPED".into();
                value["nodes"] = json!([]);
                changes.insert(id, value);
            }
        }
        if changes.is_empty() {
            return;
        }
        for (id, value) in &changes {
            if value.is_null() || value["status"] == "REMOVAL_SUCCEEDED" {
                reported.remove(id);
            } else {
                reported.insert(id.clone(), value.clone());
            }
        }
        let payload = json!({ "state": { "reported": { "instances": changes } } }).to_string();
        outputs.push(Output::Publish { topic: self.topic(APPLICATIONS, "update"), payload });
    }

    fn poll_device(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let Some(device) = &self.device else { return };
        let value = serde_json::to_value(device).unwrap_or_default();
        // The uptime always differs: alone it is no news.
        let news = |value: &Value| {
            let mut value = value.clone();
            value["uptime_s"] = Value::Null;
            value
        };
        let due = match &self.device_said {
            None => true,
            Some((said, at)) => news(said) != news(&value) || now >= *at + DEVICE_PERIOD,
        };
        if due {
            let payload = json!({ "state": { "reported": value } }).to_string();
            outputs.push(Output::Publish { topic: self.topic(DEVICE, "update"), payload });
            self.device_said = Some((value, now));
        }
    }
}

/// Checks that what the shadow reports can be read (for tests and diagnosis).
pub fn reported_applications(document: &Value) -> Option<ReportedApplications> {
    serde_json::from_value(document["state"]["reported"].clone()).ok()
}

fn shown(value: &Value) -> String {
    value.as_str().unwrap_or("without saying why").chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

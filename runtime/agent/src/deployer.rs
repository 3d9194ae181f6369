//! The thread that fetches deployment documents, and hands sets and keys over to `applications`.

use crate::service::{Event, now_seconds};
use crate::web::Web;
use belvedere_device_protocol::shadow::DeploymentReference;
use belvedere_interfaces::applications::{DesiredDeployment, SetDesired, SetObjectAccess};
use belvedere_varlink::{CallError, Pulse};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Keys are not renewed more often, seconds.
const RENEW_AGAIN: i64 = 30;

/// A step asks the service for keys and for a document, 60 s each at most, and `applications` twice, 10 s each; and what
/// comes of it is taken by a loop that may take 120 s for a turn.
const LONGEST_STEP: Duration = Duration::from_secs(360);

/// What the thread is told.
pub(crate) enum Task {
    /// Ask whether the service has released the appliance.
    AskForRelease,
    Fetch(BTreeMap<String, DeploymentReference>),
    Apply(Vec<DesiredDeployment>),
}

/// Whether what an identity brings may still be handed to `applications`. Who has closed it knows that nothing follows,
/// whatever waited or was under way.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    closed: Arc<AtomicBool>,
    passing: Arc<Mutex<()>>,
}

impl Gate {
    pub(crate) fn close(&self) {
        // First, so that what passes now is the last, however the lock is handed on.
        self.closed.store(true, Ordering::Release);
        drop(self.passing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Does it, unless the gate is closed.
    fn pass<T>(&self, hand_over: impl FnOnce() -> Result<T, CallError>) -> Result<T, String> {
        let _passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err("another identity is in force, or none".to_owned());
        }
        hand_over().map_err(|error| error.to_string())
    }
}

/// When the keys are renewed next: when they are about to end; soon, when that failed or there are none, because they were
/// thrown away and the service could not be reached; never sooner than `not_before`, whatever a clock that is wrong makes
/// of their end.
fn renewal(failed: bool, renew_at: Option<i64>, not_before: i64) -> i64 {
    renew_at.filter(|_| !failed).map_or(not_before, |at| at.max(not_before))
}

/// The thread that brings documents and hands sets to `applications`.
pub(crate) struct Deployer {
    pub(crate) web: Web,
    pub(crate) applications: PathBuf,
    pub(crate) ca_pem: String,
    pub(crate) region: String,
    /// Whether `applications` has keys that must be renewed.
    pub(crate) renew: bool,
    pub(crate) gate: Gate,
}

impl Deployer {
    pub(crate) fn run(mut self, tasks: &Receiver<Task>, results: &SyncSender<Event>) {
        let (mut failed, mut not_before) = (false, i64::MIN);
        let pulse = Pulse::new("deployments", LONGEST_STEP);
        loop {
            pulse.beat();
            let renew_at = self.renew.then(|| renewal(failed, self.web.renew_at(), not_before));
            let wait = renew_at.map_or(Pulse::WAIT, |at| {
                Duration::from_secs(u64::try_from(at.saturating_sub(now_seconds())).unwrap_or(0)).min(Pulse::WAIT)
            });
            let result = match tasks.recv_timeout(wait) {
                Ok(Task::Fetch(references)) => Event::Documents(
                    references
                        .into_iter()
                        .map(|(id, reference)| {
                            pulse.beat();
                            let document = self.web.deployment(&reference, now_seconds());
                            (id, (reference, document))
                        })
                        .collect(),
                ),
                Ok(Task::Apply(set)) => {
                    let event = self.apply(set);
                    not_before = now_seconds() + RENEW_AGAIN;
                    event
                }
                Ok(Task::AskForRelease) => {
                    let event = Event::Released(self.web.is_released(now_seconds()));
                    not_before = now_seconds() + RENEW_AGAIN;
                    event
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if renew_at.is_some_and(|at| now_seconds() >= at) {
                        let result = self.give_access();
                        failed = result.is_err();
                        not_before = now_seconds() + RENEW_AGAIN;
                        if let Err(message) = result {
                            log::warn!("renew the object store's keys: {message}");
                        }
                    }
                    continue;
                }
            };
            if results.send(result).is_err() {
                return;
            }
        }
    }

    fn give_access(&mut self) -> Result<(), String> {
        let access = self.web.access(now_seconds()).map_err(|error| error.to_string())?;
        let call = SetObjectAccess {
            endpoint: self.web.endpoint().to_owned(),
            ca_pem: self.ca_pem.clone(),
            region: self.region.clone(),
            access_key_id: access.credentials.access_key_id,
            secret_access_key: access.credentials.secret_access_key,
            session_token: access.credentials.session_token,
            expires: access.expires,
        };
        self.gate.pass(|| belvedere_varlink::call(&self.applications, &call)).map(drop)
    }

    fn apply(&mut self, set: Vec<DesiredDeployment>) -> Event {
        let names: Vec<(String, String)> =
            set.iter().map(|d| (d.deployment.application_instance_id.clone(), crate::core::state_of(d))).collect();
        self.renew = !set.is_empty();
        // What is on the disk already runs without keys.
        if self.renew
            && let Err(message) = self.give_access()
        {
            log::warn!("give applications the object store's keys: {message}");
        }
        let call = SetDesired { deployments: set };
        let accepted = match self.gate.pass(|| belvedere_varlink::call(&self.applications, &call)) {
            Ok(_) => {
                log::info!("applications has the desired set: {:?}", names.iter().map(|(id, _)| id).collect::<Vec<_>>());
                true
            }
            Err(error) => {
                log::warn!("hand the desired set to applications: {error}");
                false
            }
        };
        Event::Applied(names, accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::EVENTS;
    use belvedere_device_protocol::{Endpoint, Endpoints};
    use belvedere_interfaces::Done;
    use belvedere_interfaces::provisioning::{DeviceKeyReference, Identity};
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{channel, sync_channel};

    /// With a clock an hour ahead keys seem to end before they begin: the service was asked without a pause. And a question
    /// about a release, asked while the service was away, left no keys and nobody who renewed them.
    #[test]
    fn keys_are_renewed_before_they_end_and_never_without_a_pause() {
        assert_eq!(renewal(false, Some(5_000), 1_030), 5_000);
        assert_eq!(renewal(false, Some(900), 1_030), 1_030, "the clock is ahead");
        assert_eq!(renewal(true, Some(5_000), 1_030), 1_030, "that failed: again soon");
        assert_eq!(renewal(false, None, 1_030), 1_030, "there are none any more");
    }

    /// A set that waited when the service released the appliance came to `applications` after the empty one, and the earlier
    /// owner's applications were wanted again.
    #[test]
    fn nothing_is_handed_over_when_the_session_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("applications.sock");
        let handed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handed);
        let server = belvedere_varlink::Server::bind(&socket).unwrap().route(move |_: SetDesired, _| {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            Ok(Done {})
        });
        server.spawn();
        let endpoint = || Endpoint { host: "127.0.0.1".into(), port: 1 };
        let identity = Identity {
            device_id: "device-a".into(),
            thing_name: "thing".into(),
            endpoints: Endpoints { mqtt: endpoint(), https: endpoint(), region: "eu-central-1".into() },
            service_ca_pem: String::new(),
            certificate_pem: String::new(),
            key: DeviceKeyReference::Software { private_key_pem: String::new() },
            mqtt_password: None,
            generation: 1,
        };
        let ending = Gate::default();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let tls = tls.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let web = Web::new(&identity, Arc::new(tls));
        let (ca_pem, region, gate) = (String::new(), String::new(), ending.clone());
        let deployer = Deployer { web, applications: socket, ca_pem, region, renew: false, gate };
        let (tasks, receiver) = channel();
        let (results, events) = sync_channel(EVENTS);
        for _ in 0..3 {
            tasks.send(Task::Apply(Vec::new())).unwrap();
        }
        let thread = std::thread::spawn(move || deployer.run(&receiver, &results));
        while handed.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        ending.close();
        // The first was under way; it has been answered, and none comes after it.
        drop(tasks);
        thread.join().unwrap();
        assert_eq!(handed.load(Ordering::SeqCst), 1);
        let accepted: Vec<bool> =
            events.try_iter().map(|event| matches!(event, Event::Applied(_, accepted) if accepted)).collect();
        assert_eq!(accepted, [true, false, false]);
    }
}

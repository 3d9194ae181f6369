//! An external broker: mosquitto with its dynamic-security plug-in, for fleets larger than one copy of the service carries.
//! Devices connect there; the service is the plug-in's administrator and, for what devices ask, the broker's client.
//!
//! | module | one idea |
//! |---|---|
//! | `address` | where the broker is |
//! | `security` | what the plug-in is told: who exists, and which topics each has (pure) |
//! | `presence` | who is connected, from the broker's log (pure) |
//! | `link` | one connection to the broker |
//! | `hearing` | what devices ask is carried out, then acknowledged |
//! | [`configuration`] | the broker's files, for its owner |
//!
//! **Who may come.** mosquitto lets every certificate of the authority in, also a claim's and a revoked one
//! (`use_identity_as_username` asks the plug-in for topics, never for the connection). So it asks for a password beside the
//! certificate, which a device gets when it is registered ([`belvedere_device_protocol::provisioning::Broker`]); the plug-in
//! refuses whoever is not there, under any other client identifier, or not any more. Passwords follow from `secrets.key`
//! (`device_password`): nothing is stored but their hashes in the plug-in's file. Claims never go there: they are
//! taken by the service's own broker, which takes nothing else then.
//!
//! **Who listens.** Of several copies the newest one, in the session of one name: the broker keeps what devices say while no
//! copy is there, and nothing is carried out twice at once. Every copy speaks and admits devices over a connection of its
//! own.
//!
//! **What is lost.** What a device was acknowledged by the broker is in the service's session there until it is carried
//! out. What the service says goes to the broker at once; while that cannot be reached, it waits in the store, in order.
//!
//! **Presence** is what the broker's log says while a copy listens. Whoever begins to listen cannot know what was said
//! before: no device counts as connected then, and all are made to come again, as after a restart of our own broker.

mod address;
pub mod configuration;
mod hearing;
mod link;
mod presence;
mod security;

pub use address::BrokerUrl;

use crate::accept::stopped;
use crate::authority::Authority;
use crate::hub::Drop;
use crate::message::Message;
use crate::{Fleet, FleetError};
use belvedere_device_protocol::provisioning::Broker;
use belvedere_store::Store;
use belvedere_store::broker_messages::Waiting;
use hearing::Lanes;
use link::{Access, Link, Purpose, Unsent};
use rumqttc::v5::mqttbytes::QoS;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How often the broker's devices are compared with ours: a revoked one is cut within five seconds.
const LOOK: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(15);
/// How long a device that registers waits for the broker to know it.
const ADMISSION: Duration = Duration::from_secs(10);
/// Devices of one command.
const BATCH: usize = 50;
/// Messages of one read from the store.
const MESSAGES: usize = 100;

tokio::task_local! {
    /// What a request that is being carried out has to say.
    static HELD: RefCell<Vec<Message>>;
}

/// The external broker of a fleet.
pub struct External {
    url: BrokerUrl,
    access: Access,
    /// The connection, while there is one.
    link: watch::Sender<Option<Arc<Link>>>,
    /// Whether messages wait in the store: those that follow wait behind them.
    backlog: AtomicBool,
    /// Something is to be compared or sent now.
    wake: Notify,
}

fn tls(operation: &'static str) -> impl Fn(rustls::Error) -> FleetError {
    move |e| FleetError::Tls { operation, detail: e.to_string() }
}

fn pem(operation: &'static str) -> impl Fn(rustls_pki_types::pem::Error) -> FleetError {
    move |e| FleetError::Tls { operation, detail: e.to_string() }
}

impl External {
    /// The broker at `url`, whose certificate is the authority's. Connects to nothing yet.
    pub fn new(url: BrokerUrl, authority: &Authority, store: &Store) -> Result<External, FleetError> {
        let authority_der = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes())
            .map_err(pem("read the device authority's certificate"))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority_der).map_err(tls("trust the device authority"))?;
        let own = authority.client(security::SERVICE)?;
        let certificate =
            CertificateDer::from_pem_slice(own.issued.certificate_pem.as_bytes()).map_err(pem("read a new certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(own.private_key_pem.as_bytes()).map_err(pem("read a new key"))?;
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls("choose TLS versions"))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(tls("use a new certificate"))?;
        let access = Access { endpoint: url.service.clone(), tls: Arc::new(config), password: service_password(store) };
        Ok(External { url, access, link: watch::Sender::new(None), backlog: AtomicBool::new(true), wake: Notify::new() })
    }

    fn connected(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone().filter(|link| !link.is_over())
    }
}

/// An external broker, looked at from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    /// Devices that it knows.
    pub devices: usize,
    /// Devices that may connect and that it does not know.
    pub missing: usize,
    /// Devices that it knows and that may not connect any more.
    pub fallen: usize,
}

impl External {
    /// Connects, asks the broker which devices it knows, and compares them with those that may connect. Changes nothing, and
    /// may be done while a service is connected.
    pub async fn examine(&self, store: &Store) -> Result<Examined, FleetError> {
        let (link, _heard) = Link::open(&self.access, Purpose::Speak).await?;
        let known = async {
            link.subscribe([security::ANSWER.to_owned()], QoS::AtMostOnce).await?;
            devices_of(&link).await
        };
        let known = known.await;
        link.close().await;
        let (known, standing) = (known?, BTreeSet::from_iter(store.standing_things().await?));
        Ok(Examined {
            devices: known.len(),
            missing: standing.difference(&known).count(),
            fallen: known.difference(&standing).count(),
        })
    }
}

/// The service's own password at the broker.
fn service_password(store: &Store) -> String {
    store.secrets().derived("external broker: the service")
}

/// A device's.
fn device_password(store: &Store, thing: &str) -> String {
    store.secrets().derived(&format!("external broker: device {thing}"))
}

impl Fleet {
    /// Whether devices connect to an external broker, and to this service only with claims.
    pub fn has_external_broker(&self) -> bool {
        self.external.is_some()
    }

    /// Whether this copy is connected to the external broker; `None` without one.
    pub fn external_broker_connected(&self) -> Option<bool> {
        self.external.as_ref().map(|external| external.connected().is_some())
    }

    /// What a device that has just been registered is told; nothing if it stays here. The broker knows it when this returns,
    /// unless the broker cannot be reached: then it will, once it can.
    pub(crate) async fn admit_to_broker(&self, thing: &str) -> Option<Broker> {
        let external = self.external.as_ref()?;
        let password = device_password(&self.store, thing);
        let admission = async {
            let mut links = external.link.subscribe();
            let link = links.wait_for(|link| link.as_ref().is_some_and(|l| !l.is_over())).await.ok().and_then(|l| l.clone());
            match link {
                Some(link) => command(&link, security::admit(thing, &password).to_vec()).await,
                None => Ok(()),
            }
        };
        match timeout(ADMISSION, admission).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(thing, "the broker does not know the new device yet: {e}"),
            Err(_) => tracing::error!(thing, "the broker does not know the new device yet: it cannot be reached"),
        }
        Some(Broker { endpoint: external.url.devices.clone(), password })
    }

    /// A device may not connect any more: its connection is cut at once, or by the next comparison.
    pub(crate) async fn dismiss_from_broker(&self, thing: &str) {
        let Some(external) = &self.external else { return };
        external.wake.notify_one();
        if let Some(link) = external.connected()
            && let Err(e) = command(&link, security::dismiss(thing).to_vec()).await
        {
            tracing::warn!(thing, "the broker could not be told yet that a device is locked out: {e}");
        }
    }

    /// Hands a message to the broker: at once, or when the request is done that is being carried out.
    pub(crate) async fn publish_to_broker(&self, external: &External, message: Message) -> Result<(), FleetError> {
        let mut message = Some(message);
        let _ = HELD.try_with(|held| held.borrow_mut().extend(message.take()));
        match message {
            Some(message) => self.hand_over(external, message).await,
            None => Ok(()),
        }
    }

    /// Carries something out, and says only then what is to be said about it: an answer means that all is done, as with
    /// our own broker. Of what fails nothing is said; it is done again.
    async fn done_before_said<F>(&self, work: F) -> Result<(), FleetError>
    where
        F: Future<Output = Result<(), FleetError>>,
    {
        let (outcome, held) = HELD
            .scope(RefCell::default(), async {
                let outcome = work.await;
                (outcome, HELD.with(|held| held.take()))
            })
            .await;
        outcome?;
        if let Some(external) = &self.external {
            for message in held {
                self.hand_over(external, message).await?;
            }
        }
        Ok(())
    }

    /// Hands a message to the broker; while it cannot be reached, the message waits in the store.
    async fn hand_over(&self, external: &External, message: Message) -> Result<(), FleetError> {
        let Message { topic, payload, quality, retain, expires_ms, .. } = message;
        let message = Waiting { sequence: 0, topic, payload, quality, retain, expires_ms };
        if !Link::fits(&message) {
            self.hub().dropped("the broker", &message.topic, Drop::TooLarge);
            return Ok(());
        }
        if !external.backlog.load(Ordering::Acquire)
            && let Some(link) = external.connected()
        {
            match link.publish(&message).await {
                Ok(()) => return Ok(()),
                Err(Unsent::Refused(why)) => {
                    self.refused(&message, &why);
                    return Ok(());
                }
                Err(Unsent::Lost(why)) => tracing::warn!(topic = message.topic, "a message waits: {why}"),
            }
        }
        if !self.store.add_broker_message(&message).await? {
            self.hub().dropped("the broker", &message.topic, Drop::QueueFull);
        }
        external.backlog.store(true, Ordering::Release);
        external.wake.notify_one();
        Ok(())
    }

    /// Stays connected to the external broker until `stop` turns true. Returns at once without one.
    pub async fn keep_broker(&self, mut stop: watch::Receiver<bool>) {
        let Some(external) = self.external.clone() else { return };
        let mut wait = FIRST_WAIT;
        while !*stop.borrow() {
            match self.one_connection(&external, &mut stop).await {
                Ok(()) => wait = FIRST_WAIT,
                Err(e) => {
                    tracing::error!(broker = external.url.service.host, "{e}; trying again");
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = stopped(&mut stop) => return,
                    }
                    wait = (wait * 2).min(LAST_WAIT);
                }
            }
        }
    }

    /// One connection, from its beginning to its end. `Ok`: it was ended here.
    async fn one_connection(&self, external: &Arc<External>, stop: &mut watch::Receiver<bool>) -> Result<(), FleetError> {
        let listens = self.store.listens_to_broker().await?;
        let purpose = if listens { Purpose::Listen } else { Purpose::Speak };
        let (link, mut messages) = Link::open(&external.access, purpose).await?;
        let link = Arc::new(link);
        if listens {
            let lanes = Lanes::start(self, &link);
            let hear = async {
                while let Some(publish) = messages.recv().await {
                    if !lanes.take(self, publish) {
                        let detail = "it tells of more connections than can be noted".into();
                        return FleetError::Broker { operation: "hear the broker", detail };
                    }
                }
                pending().await
            };
            let outcome = self.during(external, &link, purpose, hear, stop).await;
            external.link.send_replace(None);
            link.close().await;
            lanes.finish().await;
            // Nobody knows from here on.
            self.store.forget_device_connections().await?;
            outcome
        } else {
            let outcome = self.during(external, &link, purpose, pending(), stop).await;
            external.link.send_replace(None);
            link.close().await;
            outcome
        }
    }

    async fn during(
        &self,
        external: &Arc<External>,
        link: &Arc<Link>,
        purpose: Purpose,
        hear: impl Future<Output = FleetError>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), FleetError> {
        let keep = async {
            self.begin(external, link, purpose).await?;
            self.keep(external, link, purpose).await
        };
        tokio::select! {
            // What waited in the session is carried out from the beginning.
            e = hear => Err(e),
            outcome = keep => outcome,
            reason = link.reason() => {
                Err(FleetError::Broker { operation: "stay connected to the broker", detail: reason })
            }
            () = stopped(stop) => Ok(()),
        }
    }

    async fn begin(&self, external: &Arc<External>, link: &Arc<Link>, purpose: Purpose) -> Result<(), FleetError> {
        link.subscribe([security::ANSWER.to_owned()], QoS::AtMostOnce).await?;
        if purpose == Purpose::Listen {
            link.subscribe(security::requests("+"), QoS::AtLeastOnce).await?;
            // Not kept while nobody listens: an old line would be believed.
            link.subscribe([presence::LOG.to_owned()], QoS::AtMostOnce).await?;
            // In this order: whoever came until now is made to come again, and heard.
            self.store.forget_device_connections().await?;
            command(link, vec![security::everybody_again()]).await?;
        }
        let (host, port) = (&external.url.service.host, external.url.service.port);
        match purpose {
            Purpose::Listen => tracing::info!(host, port, "listening to the broker"),
            Purpose::Speak => tracing::info!(host, port, "speaking to the broker"),
        }
        external.backlog.store(true, Ordering::Release);
        external.link.send_replace(Some(link.clone()));
        Ok(())
    }

    /// Compares and sends again and again.
    async fn keep(&self, external: &Arc<External>, link: &Arc<Link>, purpose: Purpose) -> Result<(), FleetError> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = external.wake.notified() => {}
            }
            // Whatever fails is tried again: only a connection that is over is made anew, since all devices come again then.
            let turn = async {
                if purpose == Purpose::Listen {
                    self.compare(link, &mut known).await?;
                    self.send_waiting(external, link).await?;
                } else {
                    // The listening copy sends what waits.
                    external.backlog.store(false, Ordering::Release);
                }
                self.store.listens_to_broker().await.map_err(FleetError::from)
            };
            match turn.await {
                Ok(listens) if listens != (purpose == Purpose::Listen) => {
                    tracing::info!("another copy of the service began or ended to listen to the broker");
                    return Ok(());
                }
                Ok(_) => {}
                Err(e) => tracing::error!("cannot keep the broker up to date, trying again: {e}"),
            }
        }
    }

    fn refused(&self, message: &Waiting, why: &str) {
        tracing::error!(topic = message.topic, "the broker does not take a message: {why}");
        self.hub().dropped("the broker", &message.topic, Drop::QueueFull);
    }

    /// Tells the broker what is different: devices that may connect and are not known there, and those that may not any
    /// more. What it knows is read once for each connection.
    async fn compare(&self, link: &Link, known: &mut Option<BTreeSet<String>>) -> Result<(), FleetError> {
        let known = match known {
            Some(known) => known,
            None => known.insert(devices_of(link).await?),
        };
        let standing: BTreeSet<String> = self.store.standing_things().await?.into_iter().collect();
        let missing: Vec<String> = standing.difference(known).cloned().collect();
        for things in missing.chunks(BATCH) {
            let commands = things.iter().flat_map(|thing| security::admit(thing, &device_password(&self.store, thing)));
            match command(link, commands.collect()).await {
                Ok(()) => known.extend(things.iter().cloned()),
                // The others must not wait for these.
                Err(e) => tracing::error!(?things, "the broker does not know some of these yet: {e}"),
            }
        }
        let fallen: Vec<String> = known.difference(&standing).cloned().collect();
        for things in fallen.chunks(BATCH) {
            command(link, things.iter().flat_map(|thing| security::dismiss(thing)).collect()).await?;
            tracing::info!(?things, "may not connect any more");
            known.retain(|thing| !things.contains(thing));
        }
        Ok(())
    }

    async fn send_waiting(&self, external: &External, link: &Link) -> Result<(), FleetError> {
        loop {
            external.backlog.store(false, Ordering::Release);
            let waiting = self.store.broker_messages(MESSAGES).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            external.backlog.store(true, Ordering::Release);
            for message in waiting {
                match link.publish(&message).await {
                    Err(Unsent::Refused(why)) => self.refused(&message, &why),
                    outcome => outcome?,
                }
                self.store.remove_broker_message(message.sequence).await?;
            }
        }
    }
}

/// The devices that the broker knows.
async fn devices_of(link: &Link) -> Result<BTreeSet<String>, FleetError> {
    let replies = command_with_answer(link, vec![security::ask_devices()]).await?;
    let devices = replies.iter().find_map(|reply| security::devices(&reply.data));
    let failed = || FleetError::Broker { operation: "read the broker's devices", detail: "it does not name them".into() };
    Ok(devices.ok_or_else(failed)?.into_iter().collect())
}

async fn command(link: &Link, commands: Vec<serde_json::Value>) -> Result<(), FleetError> {
    command_with_answer(link, commands).await.map(drop)
}

async fn command_with_answer(link: &Link, commands: Vec<serde_json::Value>) -> Result<Vec<security::Reply>, FleetError> {
    let replies = link.control(commands).await?;
    match replies.iter().find_map(|reply| reply.problem().map(|problem| format!("{}: {problem}", reply.command))) {
        Some(detail) => Err(FleetError::Broker { operation: "control the broker", detail }),
        None => Ok(replies),
    }
}

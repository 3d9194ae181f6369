//! What comes from the broker is carried out: in its order for each device, for many devices at once. A message is
//! acknowledged when it is done; until then the broker keeps it, and says it again after a lost connection or a crash.

use super::link::Link;
use super::presence::{LOG, Seen, seen};
use crate::broker::MAX_PAYLOAD;
use crate::identity::Identity;
use crate::panics::caught;
use crate::topics::{owner, publication};
use crate::{Fleet, FleetError};
use belvedere_store::certificates::CertificateKind;
use belvedere_store::connections::Connection;
use belvedere_store::identifiers;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Devices are spread over so many.
const LANES: usize = 32;
/// Messages of quality 0 that wait; more are dropped, as their quality allows. Those of quality 1 the broker holds back.
const MOST_UNASSURED: usize = 1000;
/// Lines of the log that wait. When there are more, nobody knows any more who is connected: all begins anew.
const MOST_LINES: usize = 100_000;
/// Something that is not the database's fault is tried so often.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// How long work under way may take once the connection is over.
const FAREWELL: Duration = Duration::from_secs(30);

/// Which lane a topic belongs to: everything of a device to one. The first is for the broker's own words.
fn lane(topic: &str) -> usize {
    match owner(topic) {
        Some(thing) => {
            let mut hasher = DefaultHasher::new();
            thing.hash(&mut hasher);
            1 + (hasher.finish() % LANES as u64) as usize
        }
        None => 0,
    }
}

/// Everything that is carried out for one connection.
pub(super) struct Lanes {
    senders: Vec<mpsc::UnboundedSender<Publish>>,
    /// Messages of quality 0 that wait: the broker's own, and those of devices.
    waiting: [Arc<AtomicUsize>; 2],
    tasks: JoinSet<()>,
}

impl Lanes {
    pub(super) fn start(fleet: &Fleet, link: &Arc<Link>) -> Lanes {
        let waiting = <[Arc<AtomicUsize>; 2]>::default();
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for lane in 0..=LANES {
            let (sender, mut messages) = mpsc::unbounded_channel::<Publish>();
            senders.push(sender);
            let (fleet, link, waiting) = (fleet.clone(), link.clone(), waiting[lane.min(1)].clone());
            tasks.spawn(async move {
                let mut connections = HashMap::new();
                while let Some(publish) = messages.recv().await {
                    if publish.qos == QoS::AtMostOnce {
                        waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    heard(&fleet, &link, &publish, &mut connections).await;
                }
            });
        }
        Lanes { senders, waiting, tasks }
    }

    /// Hands a message to its lane; false if the broker's own words come faster than they can be noted.
    pub(super) fn take(&self, fleet: &Fleet, publish: Publish) -> bool {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let lane = lane(&topic);
        if publish.qos == QoS::AtMostOnce {
            let waiting = &self.waiting[lane.min(1)];
            if lane == 0 && waiting.load(Ordering::Relaxed) >= MOST_LINES {
                return false;
            }
            if lane > 0 && waiting.load(Ordering::Relaxed) >= MOST_UNASSURED {
                fleet.hub().dropped("the service", &topic, crate::hub::Drop::SlowConnection);
                return true;
            }
            waiting.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.senders[lane].send(publish);
        true
    }

    /// Waits for what is under way: the next connection's messages come after it.
    pub(super) async fn finish(mut self) {
        self.senders.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(FAREWELL, all).await.is_err() {
            tracing::error!("devices' requests took longer than {} s: given up", FAREWELL.as_secs());
        }
    }
}

async fn heard(fleet: &Fleet, link: &Link, publish: &Publish, connections: &mut HashMap<String, Connection>) {
    let mut attempt = 0;
    loop {
        if link.is_over() {
            // It comes again.
            return;
        }
        attempt += 1;
        let topic = String::from_utf8_lossy(&publish.topic);
        let work = async {
            match &*topic {
                LOG => fleet.noticed(&String::from_utf8_lossy(&publish.payload), connections).await,
                _ => fleet.done_before_said(fleet.asked_through_broker(&topic, &publish.payload)).await,
            }
        };
        // A panic ends the work on this message, not its lane, which is that of many devices.
        match caught(work).await.unwrap_or_else(|panicked| Err(panicked.into())) {
            Ok(()) => break,
            Err(e) => {
                tracing::error!(%topic, attempt, "cannot do what the broker passes on: {e}");
                let database = matches!(e, FleetError::Store(_) | FleetError::Queue(_));
                let assured = publish.qos != QoS::AtMostOnce || topic == LOG;
                if !assured || (!database && attempt >= ATTEMPTS) {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
    }
    if publish.qos == QoS::AtLeastOnce {
        link.acknowledge(publish).await;
    }
}

impl Fleet {
    /// A device's request. That its topic is the device's own is what the broker's rules say.
    async fn asked_through_broker(&self, topic: &str, payload: &[u8]) -> Result<(), FleetError> {
        let Some(name) = owner(topic) else { return Ok(()) };
        let Some(device) = self.store.device_of_thing(name).await? else { return Ok(()) };
        let identity = Identity {
            name: device.thing_name,
            device_id: device.device_id,
            fingerprint: String::new(),
            kind: CertificateKind::Device,
        };
        match publication(&identity, topic) {
            Some(_) if payload.len() > MAX_PAYLOAD => {
                tracing::warn!(identity = identity.name, topic, "request refused: more than {MAX_PAYLOAD} bytes");
            }
            Some(request) => drop(self.carry_out(&identity, &request, payload).await?),
            None => tracing::warn!(identity = identity.name, topic, "request refused: not a topic of requests"),
        }
        Ok(())
    }

    /// A line of the broker's log: a device came or went.
    async fn noticed(&self, line: &str, connections: &mut HashMap<String, Connection>) -> Result<(), FleetError> {
        match seen(line) {
            Some(Seen::Connected(client)) => {
                let Some(device) = self.store.device_of_thing(client).await? else { return Ok(()) };
                let connection = Connection {
                    client: client.to_owned(),
                    connection: identifiers::token::<8>(),
                    device_id: device.device_id,
                    is_device: true,
                };
                self.store.note_connection(&connection).await?;
                tracing::info!(identity = client, "connected");
                connections.insert(client.to_owned(), connection);
            }
            Some(Seen::Gone(client)) => {
                let Some(connection) = connections.get(client) else { return Ok(()) };
                self.store.forget_connection(connection).await?;
                tracing::info!(identity = client, "disconnected");
                connections.remove(client);
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_says_stays_in_one_lane() {
        let of = |rest: &str| lane(&format!("$aws/things/panorama_a_Thing_1/{rest}"));
        assert_eq!(of("shadow/update"), of("jobs/get"));
        assert!((1..=LANES).contains(&of("jobs/get")));
        assert_eq!(lane(LOG), 0);
        let spread: std::collections::HashSet<_> = (0..1000).map(|n| lane(&format!("panorama/device-{n}"))).collect();
        assert_eq!(spread.len(), LANES);
    }
}

//! MQTT: one thread that stays connected, and tells what it hears.

use belvedere_device_protocol::shadow::connection_topic;
use belvedere_interfaces::provisioning::Identity;
use belvedere_provisioning::claim::describe;
use belvedere_varlink::Pulse;
use rumqttc::{Client, Event, Incoming, LastWill, MqttOptions, NetworkOptions, QoS, SubscribeFilter, Transport};
use rustls::ClientConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Generous, because boards under emulation are slow.
const CONNECT_TIME: u64 = 30;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Largest MQTT packet, both ways.
const MAX_PACKET: usize = 512 << 10;
/// Messages waiting to go out; more than the core ever says at once.
const QUEUE: usize = 64;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// Keep-alives make the thread turn when nothing else does. A turn takes a connection's time and the longest pause at most;
/// what it tells is taken by a loop with a time limit of its own.
const LONGEST_TURN: Duration = Duration::from_secs(240);

/// What the thread tells.
#[derive(Debug)]
pub enum Heard {
    /// With a new session.
    Connected,
    /// Said once for each time it was connected.
    Disconnected,
    /// A message.
    Message {
        /// Topic.
        topic: String,
        /// Content.
        payload: Vec<u8>,
    },
}

/// The saying half.
pub struct Link {
    client: Client,
    stop: Arc<AtomicBool>,
}

impl Link {
    /// Connects, and stays connected until this value is dropped. `hear` is called on the link's thread and must not
    /// block.
    pub fn start(identity: &Identity, tls: Arc<ClientConfig>, hear: impl FnMut(Heard) + Send + 'static) -> Self {
        let endpoint = &identity.endpoints.mqtt;
        let mut options = MqttOptions::new(&identity.thing_name, &endpoint.host, endpoint.port);
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls)));
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_max_packet_size(MAX_PACKET, MAX_PACKET);
        if let Some(password) = &identity.mqtt_password {
            options.set_credentials(&identity.thing_name, password);
        }
        let will = LastWill::new(connection_topic(&identity.thing_name), r#"{"connected":false}"#, QoS::AtLeastOnce, false);
        options.set_last_will(will);
        let (client, mut connection) = Client::new(options, QUEUE);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIME);
        connection.eventloop.set_network_options(network);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let service = format!("{}:{}", endpoint.host, endpoint.port);
        std::thread::spawn(move || listen(connection, &stopped, &service, hear));
        Self { client, stop }
    }

    /// Queues a subscription; `false` when the queue is full (the connection is then as good as gone).
    pub fn subscribe(&self, topics: &[String]) -> bool {
        self.client.try_subscribe_many(topics.iter().map(|t| SubscribeFilter::new(t.clone(), QoS::AtLeastOnce))).is_ok()
    }

    /// Queues a message; likewise.
    pub fn publish(&self, topic: &str, payload: &str) -> bool {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.client.try_disconnect();
    }
}

fn listen(mut connection: rumqttc::Connection, stop: &AtomicBool, service: &str, mut hear: impl FnMut(Heard)) {
    let (mut connected, mut wait) = (false, FIRST_WAIT);
    let pulse = Pulse::new("connection", LONGEST_TURN);
    while !stop.load(Ordering::Acquire) {
        pulse.beat();
        match connection.recv() {
            Err(_) => break,
            Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => {
                log::info!("connected to {service}");
                (connected, wait) = (true, FIRST_WAIT);
                hear(Heard::Connected);
            }
            Ok(Ok(Event::Incoming(Incoming::Publish(publish)))) => {
                hear(Heard::Message { topic: publish.topic, payload: publish.payload.to_vec() });
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                if std::mem::take(&mut connected) {
                    hear(Heard::Disconnected);
                }
                let pause = jittered(wait, getrandom::u32().unwrap_or(0));
                log::warn!("{service}: {}; trying again in {} s", describe(&error), pause.as_secs());
                wait = (wait * 2).min(LAST_WAIT);
                std::thread::sleep(pause);
            }
        }
    }
}

/// Half of the wait and a random part of the other half: a fleet does not come back in step.
fn jittered(wait: Duration, random: u32) -> Duration {
    wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_over_the_second_half() {
        let wait = Duration::from_secs(10);
        assert_eq!(jittered(wait, 0), Duration::from_secs(5));
        assert_eq!(jittered(wait, u32::MAX), Duration::from_secs(10));
    }
}

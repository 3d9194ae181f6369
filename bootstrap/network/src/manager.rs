//! What happens to the ports: the one place that knows cables, leases and configurations.

use crate::dhcp::{Client, Output};
use crate::plan::{Address, MAX_SERVERS, Mode, PORTS, Plan};
use crate::routes::has_default_route;
use crate::system::{ConfigureError, Destination, Port, System};
use crate::time::Source;
use crate::way_out::WayOut;
use belvedere_device_protocol::{ConnectionStatus, EthernetStatus, NetworkStatus, NtpStatus};
use belvedere_interfaces::front_panel::NetworkCondition;
use belvedere_interfaces::network::ServiceAddress;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Metric of the routes of the port that is the way out; the other one's are higher, so that it is the spare.
const PREFERRED_METRIC: u32 = 100;
const SPARE_METRIC: u32 = 200;
/// What the kernel refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

struct Slot {
    port: Port,
    client: Client,
    /// What the port should have.
    wanted: Option<Address>,
    /// What the kernel gave it.
    address: Option<Address>,
    /// When to try again what the kernel refused, all or a part of it.
    retry: Option<Duration>,
}

/// Both ports. Events go in by its methods; effects come out through [`System`].
pub struct Manager<S: System> {
    /// The machine.
    pub system: S,
    plan: Plan,
    slots: [Option<Slot>; PORTS],
    dns: Option<Vec<Ipv4Addr>>,
    time_servers: Vec<String>,
    time: Option<Source>,
    service: Option<ServiceAddress>,
    way_out: WayOut,
    /// The port whose metric is the preferred one.
    preferred: usize,
    /// Counts changes of what `way_out` rests on: a probe that was begun before one says nothing of what is now.
    round: u64,
    /// What `way_out` was last told.
    ways: ([Option<Address>; PORTS], Option<ServiceAddress>),
    light: Option<NetworkCondition>,
    seed: u64,
}

impl<S: System> Manager<S> {
    /// Nothing is done before the first [`Manager::links_changed`].
    pub fn new(system: S, plan: Plan, seed: u64) -> Self {
        Self {
            system,
            plan,
            slots: [None, None],
            dns: None,
            time_servers: Vec::new(),
            time: None,
            service: None,
            way_out: WayOut::default(),
            preferred: 0,
            round: 0,
            ways: Default::default(),
            light: None,
            seed,
        }
    }

    /// What has to be reached, if it is known.
    pub fn set_service(&mut self, service: Option<ServiceAddress>, now: Duration) {
        self.service = service;
        self.publish(now);
    }

    /// A probe that [`System::probe`] began came back. One of an earlier round kept the present one from being begun.
    pub fn probed(&mut self, round: u64, port_index: u32, reached: bool, now: Duration) {
        if let Some(index) = self.position(port_index) {
            if round == self.round {
                self.way_out.probed(index, reached, now);
            } else {
                self.way_out.again(now);
            }
            self.publish(now);
        }
    }

    /// Who set the clock last; `None` when a whole round of the servers brought nothing.
    pub fn time_kept(&mut self, by: Option<Source>) {
        self.time = by;
    }

    fn position(&self, port_index: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.port.index == port_index))
    }

    /// Ports appeared, vanished, got or lost their cable.
    pub fn links_changed(&mut self, now: Duration) {
        let found = self.system.ports();
        for index in 0..PORTS {
            let new = found.get(index);
            let old = self.slots[index].as_ref().map(|slot| &slot.port);
            if old == new {
                continue;
            }
            let same = matches!((old, new), (Some(a), Some(b)) if a.index == b.index && a.mac == b.mac);
            match new {
                None => {
                    log::warn!("port {index} is gone");
                    self.slots[index] = None;
                }
                Some(port) if same => {
                    log::info!(
                        "port {index} ({}): {}",
                        port.name,
                        if port.carrier { "cable connected" } else { "no cable" }
                    );
                    if let Some(slot) = self.slots[index].as_mut() {
                        slot.port = port.clone();
                    }
                    self.begin(index, now);
                }
                Some(port) => {
                    log::info!(
                        "port {index} is {} ({}), {}",
                        port.name,
                        mac_text(&port.mac),
                        if port.carrier { "cable connected" } else { "no cable" }
                    );
                    let seed = self.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    self.slots[index] = Some(Slot {
                        port: port.clone(),
                        client: Client::new(port.mac, seed),
                        wanted: None,
                        address: None,
                        retry: None,
                    });
                    report(self.system.set_up(port));
                    self.begin(index, now);
                }
            }
        }
        self.publish(now);
    }

    /// Puts another plan into force.
    pub fn apply(&mut self, plan: Plan, now: Duration) {
        for index in 0..PORTS {
            let changed = self.plan.ports[index] != plan.ports[index];
            self.plan.ports[index] = plan.ports[index].clone();
            // A running lease stays: trying DHCP where DHCP is already in use must not interrupt anything.
            if changed {
                self.begin(index, now);
            }
        }
        self.plan = plan;
        self.publish(now);
    }

    /// A DHCP packet came in.
    pub fn dhcp_packet(&mut self, port_index: u32, bytes: &[u8], now: Duration) {
        if let Some(index) = self.position(port_index) {
            let outputs = self.slots[index].as_mut().map(|slot| slot.client.receive(now, bytes)).unwrap_or_default();
            self.carry_out(index, outputs, now);
            self.publish(now);
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        for index in 0..PORTS {
            let outputs = self.slots[index].as_mut().map(|slot| slot.client.poll(now)).unwrap_or_default();
            self.carry_out(index, outputs, now);
            if self.slots[index].as_ref().and_then(|slot| slot.retry).is_some_and(|retry| now >= retry) {
                self.configure(index, now);
            }
        }
        self.publish(now);
    }

    /// When [`Manager::poll`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let slots = self.slots.iter().flatten().flat_map(|slot| [slot.client.deadline(), slot.retry]);
        slots.chain([self.way_out.deadline()]).flatten().min()
    }

    /// The ports that exist, by index.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.slots.iter().flatten().map(|slot| &slot.port)
    }

    /// Whether every port with a cable has its address, there is one, and it is known which of them is the way out.
    pub fn settled(&self) -> bool {
        let mut cables = self.slots.iter().flatten().filter(|slot| slot.port.carrier).peekable();
        cables.peek().is_some() && cables.all(|slot| slot.address.is_some()) && self.way_out.settled()
    }

    /// Whether any port has an address.
    pub fn connected(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.port.carrier && slot.address.is_some())
    }

    /// As `describe-device` shows it.
    pub fn status(&self) -> NetworkStatus {
        let port = |index: usize| {
            self.slots[index].as_ref().map(|slot| EthernetStatus {
                connection_status: match (&slot.address, slot.port.carrier) {
                    (Some(_), true) => ConnectionStatus::Connected,
                    (None, true) => ConnectionStatus::Connecting,
                    (_, false) => ConnectionStatus::NotConnected,
                },
                ip_address: match &slot.address {
                    Some(address) => format!("{}/{}", address.address, address.prefix),
                    None => "--".into(),
                },
                hw_address: mac_text(&slot.port.mac),
            })
        };
        NetworkStatus { ethernet0_status: port(0), ethernet1_status: port(1), ntp_status: self.ntp_status() }
    }

    fn ntp_status(&self) -> Option<NtpStatus> {
        let first = self.time_servers.first().or(self.plan.ntp_servers.first())?;
        Some(match &self.time {
            Some(source) => NtpStatus {
                connection_status: ConnectionStatus::Connected,
                ip_address: source.address.to_string(),
                ntp_server_name: source.name.clone(),
            },
            None => NtpStatus {
                connection_status: if self.connected() {
                    ConnectionStatus::Connecting
                } else {
                    ConnectionStatus::NotConnected
                },
                ip_address: "--".into(),
                ntp_server_name: first.clone(),
            },
        })
    }

    /// Starts a port over, according to cable and plan.
    fn begin(&mut self, index: usize, now: Duration) {
        let Some(slot) = self.slots[index].as_mut() else { return };
        slot.client.stop();
        match (&self.plan.ports[index], slot.port.carrier) {
            (_, false) => self.set_address(index, None, now),
            (Mode::Static(address), true) => {
                let address = address.clone();
                self.set_address(index, Some(address), now);
            }
            (Mode::Dhcp, true) => {
                slot.client.start(now);
                let outputs = slot.client.poll(now);
                self.set_address(index, None, now);
                self.carry_out(index, outputs, now);
            }
        }
    }

    fn carry_out(&mut self, index: usize, outputs: Vec<Output>, now: Duration) {
        for output in outputs {
            let Some(slot) = self.slots[index].as_ref() else { return };
            match output {
                Output::Broadcast(bytes) => report(self.system.send_dhcp(&slot.port, Destination::Broadcast, &bytes)),
                Output::Unicast(server, bytes) => {
                    report(self.system.send_dhcp(&slot.port, Destination::Server(server), &bytes));
                }
                Output::Bound(lease) => {
                    if slot.address.as_ref() != Some(&lease.address) {
                        log::info!(
                            "port {index} has {}/{} from {} for {} s",
                            lease.address.address,
                            lease.address.prefix,
                            lease.server,
                            lease.duration.as_secs()
                        );
                    }
                    self.set_address(index, Some(lease.address), now);
                }
                Output::Lost => {
                    log::warn!("port {index} has lost its address: the DHCP server did not renew it");
                    self.set_address(index, None, now);
                }
            }
        }
    }

    fn set_address(&mut self, index: usize, address: Option<Address>, now: Duration) {
        let Some(slot) = self.slots[index].as_mut() else { return };
        if slot.wanted == address && address.is_some() {
            return;
        }
        slot.wanted = address;
        self.configure(index, now);
    }

    /// Brings the port to what is wanted. A gateway that the kernel refuses does not take the address away with it.
    fn configure(&mut self, index: usize, now: Duration) {
        let metric = self.metric(index);
        let Some(slot) = self.slots[index].as_mut() else { return };
        let result = self.system.configure(&slot.port, slot.wanted.as_ref(), metric);
        slot.retry = result.is_err().then_some(now + RETRY);
        slot.address = match &result {
            Ok(()) | Err(ConfigureError::Rest(_)) => slot.wanted.clone(),
            Err(ConfigureError::Address(_)) => None,
        };
        if let Err(error) = result {
            log::error!("{error}; tried again in {} s", RETRY.as_secs());
        }
    }

    fn metric(&self, index: usize) -> u32 {
        if index == self.preferred { PREFERRED_METRIC } else { SPARE_METRIC }
    }

    /// The addresses that ports have, that of the way out first.
    fn addresses(&self) -> impl Iterator<Item = &Address> {
        let order = [self.preferred, PORTS - 1 - self.preferred];
        order.into_iter().filter_map(|index| self.slots[index].as_ref()?.address.as_ref())
    }

    fn choose_way_out(&mut self, now: Duration) {
        let addresses: [Option<Address>; PORTS] =
            std::array::from_fn(|index| self.slots[index].as_ref().and_then(|slot| slot.address.clone()));
        if self.ways.0 != addresses || self.ways.1 != self.service {
            let candidates = std::array::from_fn(|index| addresses[index].as_ref().is_some_and(has_default_route));
            self.ways = (addresses, self.service.clone());
            self.round += 1;
            self.way_out.changed(candidates, self.service.is_some(), now);
        }
        if self.way_out.due(now)
            && let Some(service) = &self.service
        {
            let all: Vec<Ipv4Addr> = self.addresses().flat_map(|address| address.dns.clone()).collect();
            for slot in self.slots.iter().flatten() {
                let own = slot.address.as_ref().map(|address| address.dns.clone()).unwrap_or_default();
                self.system.probe(self.round, &slot.port, if own.is_empty() { &all } else { &own }, service);
            }
        }
        if self.preferred != self.way_out.preferred() {
            self.preferred = self.way_out.preferred();
            log::info!("port {} is the way out now", self.preferred);
            for index in 0..PORTS {
                self.configure(index, now);
            }
        }
    }

    /// Tells resolver, clock and front panel what changed.
    fn publish(&mut self, now: Duration) {
        self.choose_way_out(now);
        let dns: Vec<Ipv4Addr> = self.addresses().flat_map(|address| address.dns.clone()).collect();
        if self.dns.as_ref() != Some(&dns) {
            match self.system.set_dns(&dns) {
                Ok(()) => self.dns = Some(dns),
                Err(error) => log::error!("{error}"),
            }
        }
        let servers = if !self.connected() {
            Vec::new()
        } else if self.plan.ntp_servers.is_empty() {
            let mut servers: Vec<String> = self.addresses().flat_map(|a| a.ntp.iter().map(ToString::to_string)).collect();
            servers.truncate(MAX_SERVERS);
            servers
        } else {
            self.plan.ntp_servers.clone()
        };
        if self.time_servers != servers {
            self.system.set_time_servers(&servers);
            self.time_servers = servers;
            self.time = None;
        }
        let light = if self.slots.iter().flatten().any(|slot| slot.port.carrier) {
            NetworkCondition::Connected
        } else {
            NetworkCondition::NoCable
        };
        if self.light != Some(light) {
            self.light = Some(light);
            self.system.set_light(light);
        }
    }
}

fn report(result: Result<(), String>) {
    if let Err(error) = result {
        log::warn!("{error}");
    }
}

fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;

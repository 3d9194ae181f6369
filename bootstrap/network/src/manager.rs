//! What happens to the ports: the one place that knows cables, leases and configurations.

use crate::dhcp::{Client, Output};
use crate::plan::{Address, Mode, PORTS, Plan};
use crate::system::{Destination, Port, System};
use belvedere_device_protocol::{ConnectionStatus, EthernetStatus, NetworkStatus};
use belvedere_interfaces::front_panel::NetworkCondition;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Metric of the default route of the first port; the second one's is higher, so that it is the spare.
const FIRST_METRIC: u32 = 100;

struct Slot {
    port: Port,
    client: Client,
    address: Option<Address>,
}

/// Both ports. Events go in by its methods; effects come out through [`System`].
pub struct Manager<S: System> {
    /// The machine.
    pub system: S,
    plan: Plan,
    slots: [Option<Slot>; PORTS],
    dns: Option<Vec<Ipv4Addr>>,
    light: Option<NetworkCondition>,
    seed: u64,
}

impl<S: System> Manager<S> {
    /// Nothing is done before the first [`Manager::links_changed`].
    pub fn new(system: S, plan: Plan, seed: u64) -> Self {
        Self { system, plan, slots: [None, None], dns: None, light: None, seed }
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
                    self.slots[index] =
                        Some(Slot { port: port.clone(), client: Client::new(port.mac, seed), address: None });
                    report(self.system.set_up(port));
                    self.begin(index, now);
                }
            }
        }
        self.publish();
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
        self.publish();
    }

    /// A DHCP packet came in.
    pub fn dhcp_packet(&mut self, port_index: u32, bytes: &[u8], now: Duration) {
        let found = self.slots.iter_mut().position(|slot| slot.as_ref().is_some_and(|s| s.port.index == port_index));
        if let Some(index) = found {
            let outputs = self.slots[index].as_mut().map(|slot| slot.client.receive(now, bytes)).unwrap_or_default();
            self.carry_out(index, outputs);
            self.publish();
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        for index in 0..PORTS {
            let outputs = self.slots[index].as_mut().map(|slot| slot.client.poll(now)).unwrap_or_default();
            self.carry_out(index, outputs);
        }
        self.publish();
    }

    /// When [`Manager::poll`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.slots.iter().flatten().filter_map(|slot| slot.client.deadline()).min()
    }

    /// The ports that exist, by index.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.slots.iter().flatten().map(|slot| &slot.port)
    }

    /// Whether every port with a cable has its address, and there is one.
    pub fn settled(&self) -> bool {
        let mut cables = self.slots.iter().flatten().filter(|slot| slot.port.carrier).peekable();
        cables.peek().is_some() && cables.all(|slot| slot.address.is_some())
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
        NetworkStatus { ethernet0_status: port(0), ethernet1_status: port(1), ntp_status: None }
    }

    /// Starts a port over, according to cable and plan.
    fn begin(&mut self, index: usize, now: Duration) {
        let Some(slot) = self.slots[index].as_mut() else { return };
        slot.client.stop();
        match (&self.plan.ports[index], slot.port.carrier) {
            (_, false) => self.set_address(index, None),
            (Mode::Static(address), true) => {
                let address = address.clone();
                self.set_address(index, Some(address));
            }
            (Mode::Dhcp, true) => {
                slot.client.start(now);
                let outputs = slot.client.poll(now);
                self.set_address(index, None);
                self.carry_out(index, outputs);
            }
        }
    }

    fn carry_out(&mut self, index: usize, outputs: Vec<Output>) {
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
                    self.set_address(index, Some(lease.address));
                }
                Output::Lost => {
                    log::warn!("port {index} has lost its address: the DHCP server did not renew it");
                    self.set_address(index, None);
                }
            }
        }
    }

    fn set_address(&mut self, index: usize, address: Option<Address>) {
        let Some(slot) = self.slots[index].as_mut() else { return };
        if slot.address == address && address.is_some() {
            return;
        }
        match self.system.configure(&slot.port, address.as_ref(), FIRST_METRIC + 100 * index as u32) {
            Ok(()) => slot.address = address,
            Err(error) => {
                log::error!("{error}");
                slot.address = None;
            }
        }
    }

    /// Tells resolver and front panel what changed.
    fn publish(&mut self) {
        let dns: Vec<Ipv4Addr> =
            self.slots.iter().flatten().filter_map(|slot| slot.address.as_ref()).flat_map(|a| a.dns.clone()).collect();
        if self.dns.as_ref() != Some(&dns) {
            match self.system.set_dns(&dns) {
                Ok(()) => self.dns = Some(dns),
                Err(error) => log::error!("{error}"),
            }
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

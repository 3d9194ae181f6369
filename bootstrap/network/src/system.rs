//! What the manager does to the machine, as a trait, so that every decision can be tested without one.

use crate::plan::Address;
use belvedere_interfaces::front_panel::NetworkCondition;
use belvedere_interfaces::network::ServiceAddress;
use std::net::Ipv4Addr;

/// An Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Kernel's number.
    pub index: u32,
    /// Kernel's name.
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Cable and link.
    pub carrier: bool,
}

/// Where a DHCP packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// 255.255.255.255.
    Broadcast,
    /// One server.
    Server(Ipv4Addr),
}

/// What of an address did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    /// The port does not have it.
    #[error("{0}")]
    Address(String),
    /// The port has it, but not all of what belongs to it; whoever is on its network is reached.
    #[error("{0}")]
    Rest(String),
}

/// The kernel's network, the resolver's file and the front panel. Failures are strings that name operation and object:
/// the manager logs them and goes on, because the next event is the retry.
pub trait System {
    /// The appliance's ports in their fixed order, at most two.
    fn ports(&mut self) -> Vec<Port>;
    /// Administratively up, so that the carrier can be seen.
    fn set_up(&mut self, port: &Port) -> Result<(), String>;
    /// Makes `address` the only IPv4 address of the port, with its routes at `metric`; `None` takes all away.
    fn configure(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> Result<(), ConfigureError>;
    /// Finds out whether the service is reached through this port. The answer comes later, by
    /// [`crate::manager::Manager::probed`], with the `round` of the question; while one is under way for the port, nothing
    /// is begun.
    fn probe(&mut self, round: u64, port: &Port, dns: &[Ipv4Addr], service: &ServiceAddress);
    /// The time servers to ask, in their order.
    fn set_time_servers(&mut self, servers: &[String]);
    /// Sends a DHCP packet out of the port.
    fn send_dhcp(&mut self, port: &Port, destination: Destination, bytes: &[u8]) -> Result<(), String>;
    /// Replaces the resolver's servers.
    fn set_dns(&mut self, servers: &[Ipv4Addr]) -> Result<(), String>;
    /// Tells the front panel.
    fn set_light(&mut self, condition: NetworkCondition);
}

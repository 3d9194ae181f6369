//! The appliance's two network ports: DHCP or static addresses, default route, name servers.
//!
//! Decisions are in [`plan`] (what a configuration means), [`dhcp`] (the client's state machine) and [`manager`] (cables,
//! leases, configurations); they see neither sockets nor clocks. [`kernel`] and [`netlink`] carry them out, [`service`]
//! is the loop around them and `org.belvedere.Network`.
//!
//! Not here (yet): IPv6, setting the clock by NTP (the servers are kept), duplicate address detection. While one port has an
//! address, packets of the DHCP client on the other carry it as their source instead of 0.0.0.0 (an ordinary UDP socket).

pub mod dhcp;
pub mod kernel;
pub mod manager;
pub mod netlink;
pub mod packet;
pub mod plan;
pub mod ports;
pub mod service;
pub mod system;

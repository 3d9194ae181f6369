//! The appliance's two network ports: DHCP or static addresses, default route, name servers.
//!
//! Decisions are in [`plan`] (what a configuration means), [`dhcp`] (the client's state machine), [`routes`] (what an
//! address brings along), [`way_out`] (which port leads to the service) and [`manager`] (cables, leases, configurations);
//! they see neither sockets nor clocks. [`kernel`], [`netlink`] and [`probe`] carry them out, [`time`] keeps the clock,
//! [`service`] is the loop around them and `org.belvedere.Network`.
//!
//! Not here (yet): IPv6, duplicate address detection. While one port has an
//! address, packets of the DHCP client on the other carry it as their source instead of 0.0.0.0 (an ordinary UDP socket).

pub mod dhcp;
pub mod kernel;
pub mod manager;
pub mod netlink;
pub mod packet;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod routes;
pub mod service;
pub mod system;
pub mod time;
pub mod way_out;

//! `org.belvedere.Network`: two ports, DHCP or static, DNS, NTP. Served by `network`.

use crate::{Done, Method};
use belvedere_device_protocol::{NetworkConfiguration, NetworkStatus};
use serde::{Deserialize, Serialize};

/// Where a service listens for TCP connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// Name or IPv4 address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Applies a configuration without keeping it; answers when the ports are configured or the deadline passed.
/// Without [`Keep`] the previous configuration returns with [`Revert`] or at the next start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// What to apply.
    pub configuration: NetworkConfiguration,
    /// What has to be reached. With gateways on both ports, the port through which it is reached becomes the way out;
    /// without it, the first port is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceAddress>,
}
impl Method for Try {
    const NAME: &'static str = "org.belvedere.Network.Try";
    type Reply = NetworkStatus;
}

/// Makes the tried configuration the durable one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keep {}
impl Method for Keep {
    const NAME: &'static str = "org.belvedere.Network.Keep";
    type Reply = Done;
}

/// Goes back to the durable configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revert {}
impl Method for Revert {
    const NAME: &'static str = "org.belvedere.Network.Revert";
    type Reply = Done;
}

/// What the ports are doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetStatus {}
impl Method for GetStatus {
    const NAME: &'static str = "org.belvedere.Network.GetStatus";
    type Reply = NetworkStatus;
}

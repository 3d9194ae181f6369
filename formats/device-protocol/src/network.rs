//! Network configuration and status, in the API's own words (`NetworkPayload`, `NetworkStatus`), because that is what
//! `provision-device --networking-configuration` is given and what `describe-device` shows.

use serde::{Deserialize, Serialize};

/// `NetworkPayload`. A missing port is DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkConfiguration {
    /// First port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ethernet0: Option<EthernetConfiguration>,
    /// Second port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ethernet1: Option<EthernetConfiguration>,
    /// Time servers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ntp: Option<NtpConfiguration>,
}

/// `EthernetPayload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EthernetConfiguration {
    /// How the address is found.
    pub connection_type: ConnectionType,
    /// Needed for `STATIC_IP`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub static_ip_connection_info: Option<StaticAddress>,
}

/// `ConnectionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionType {
    /// Fixed address.
    #[serde(rename = "STATIC_IP")]
    StaticIp,
    /// From a DHCP server.
    #[serde(rename = "DHCP")]
    Dhcp,
}

/// `StaticIpConnectionInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct StaticAddress {
    /// IPv4, no prefix length.
    pub ip_address: String,
    /// Dotted mask.
    pub mask: String,
    /// Servers.
    pub dns: Vec<String>,
    /// IPv4.
    pub default_gateway: String,
}

/// `NtpPayload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NtpConfiguration {
    /// At most five.
    pub ntp_servers: Vec<String>,
}

/// `NetworkStatus` without its time stamp.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkStatus {
    /// First port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ethernet0_status: Option<EthernetStatus>,
    /// Second port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ethernet1_status: Option<EthernetStatus>,
    /// Time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ntp_status: Option<NtpStatus>,
}

/// `EthernetStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EthernetStatus {
    /// Cable and address.
    pub connection_status: ConnectionStatus,
    /// `a.b.c.d/n`, or `--`.
    pub ip_address: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub hw_address: String,
}

/// `NtpStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NtpStatus {
    /// Whether time is being kept.
    pub connection_status: ConnectionStatus,
    /// Of the server in use, or `--`.
    pub ip_address: String,
    /// Of the server in use.
    pub ntp_server_name: String,
}

/// `NetworkConnectionStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionStatus {
    /// Cable and address.
    Connected,
    /// No cable, or no address.
    NotConnected,
    /// Asking.
    Connecting,
}

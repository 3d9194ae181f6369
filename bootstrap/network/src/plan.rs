//! From the API's words to what each port does.

use crate::routes::{Route, can_be_router};
use belvedere_device_protocol::{ConnectionType, EthernetConfiguration, NetworkConfiguration};
use std::net::Ipv4Addr;

/// How many ports the appliance has.
pub const PORTS: usize = 2;
/// Name servers of one port, and time servers, at most.
pub const MAX_SERVERS: usize = 5;
/// A time server's, unless its name says another one.
const NTP_PORT: u16 = 123;

/// What every port should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// `Ethernet0`, `Ethernet1`.
    pub ports: [Mode; PORTS],
    /// Names or addresses of time servers.
    pub ntp_servers: Vec<String>,
}

/// What one port should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Ask a server.
    Dhcp,
    /// Fixed.
    Static(Address),
}

/// An address and what belongs to it; from a configuration or from a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The port's own.
    pub address: Ipv4Addr,
    /// 1 to 32.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Routes beside the default one through `gateway`.
    pub routes: Vec<Route>,
    /// The largest packet that the network carries, when it says so.
    pub mtu: Option<u16>,
    /// Time servers, used when the configuration names none.
    pub ntp: Vec<Ipv4Addr>,
}

impl Address {
    /// An address in its network, and nothing else.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix, gateway: None, dns: Vec::new(), routes: Vec::new(), mtu: None, ntp: Vec::new() }
    }
}

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network configuration, {field}: {problem}; correct it and make a new provisioning archive")]
pub struct ConfigurationError {
    /// As the API names it.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self { ports: [Mode::Dhcp, Mode::Dhcp], ntp_servers: Vec::new() }
    }
}

/// Checks a configuration as a whole; nothing is applied by halves.
pub fn plan(configuration: &NetworkConfiguration) -> Result<Plan, ConfigurationError> {
    let plan = plan_of_stored(configuration)?;
    for (port, mode) in ["Ethernet0", "Ethernet1"].iter().zip(&plan.ports) {
        if let Mode::Static(address) = mode
            && address.gateway.is_some_and(|gateway| !can_be_router(address.address, address.prefix, gateway))
        {
            let problem = "not another machine's address in the port's network; 0.0.0.0 stands for no gateway";
            return Err(ConfigurationError { field: format!("{port}.DefaultGateway"), problem: problem.into() });
        }
    }
    if !plan.ntp_servers.iter().all(|name| host_and_port(name).is_some()) {
        let problem = "not a host name or IPv4 address, either with or without a port (:123)";
        return Err(ConfigurationError { field: "NtpServers".into(), problem: problem.into() });
    }
    Ok(plan)
}

/// The same for a configuration that was taken before, by whatever version: a gateway or a time server that cannot work is
/// left alone, for it must not cost the port its address.
pub fn plan_of_stored(configuration: &NetworkConfiguration) -> Result<Plan, ConfigurationError> {
    let ports = [mode("Ethernet0", configuration.ethernet0.as_ref())?, mode("Ethernet1", configuration.ethernet1.as_ref())?];
    let ntp_servers = configuration.ntp.as_ref().map(|ntp| ntp.ntp_servers.clone()).unwrap_or_default();
    if ntp_servers.len() > MAX_SERVERS {
        return Err(ConfigurationError { field: "NtpServers".into(), problem: "more than five".into() });
    }
    if let (Mode::Static(first), Mode::Static(second)) = (&ports[0], &ports[1])
        && first.address == second.address
    {
        return Err(ConfigurationError { field: "Ethernet1".into(), problem: "the same address as Ethernet0".into() });
    }
    Ok(Plan { ports, ntp_servers })
}

/// A time server's name or address, and its port: the API's form allows one behind an address.
pub fn host_and_port(name: &str) -> Option<(&str, u16)> {
    let (host, port) = match name.split_once(':') {
        // `parse` takes a sign, too.
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, port.parse().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
        None => (name, NTP_PORT),
    };
    let valid = (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    valid.then_some((host, port))
}

fn mode(port: &str, configuration: Option<&EthernetConfiguration>) -> Result<Mode, ConfigurationError> {
    let error =
        |field: &str, problem: &str| ConfigurationError { field: format!("{port}.{field}"), problem: problem.into() };
    let Some(configuration) = configuration else { return Ok(Mode::Dhcp) };
    if configuration.connection_type == ConnectionType::Dhcp {
        return Ok(Mode::Dhcp);
    }
    let info = configuration
        .static_ip_connection_info
        .as_ref()
        .ok_or_else(|| error("StaticIpConnectionInfo", "missing, but the connection type is STATIC_IP"))?;
    let parse = |field: &str, text: &str| {
        text.parse::<Ipv4Addr>().map_err(|_| error(field, &format!("\"{}\" is not an IPv4 address", shown(text))))
    };
    let address = parse("IpAddress", &info.ip_address)?;
    let mask = u32::from(parse("Mask", &info.mask)?);
    if mask.count_ones() != mask.leading_ones() || mask == 0 {
        return Err(error("Mask", "not a network mask"));
    }
    let prefix = mask.leading_ones() as u8;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err(error("IpAddress", "not an address that a port can have"));
    }
    let host = u32::from(address) & !mask;
    if prefix < 31 && (host == 0 || host == !mask) {
        return Err(error("IpAddress", "the network's own or its broadcast address"));
    }
    // The API demands a gateway; 0.0.0.0 is how people say that a camera network has none.
    let gateway = Some(parse("DefaultGateway", &info.default_gateway)?).filter(|gateway| !gateway.is_unspecified());
    if let Some(gateway) = gateway
        && (gateway == address || prefix < 32 && u32::from(gateway) & mask != u32::from(address) & mask)
    {
        return Err(error("DefaultGateway", "not another address in the port's network; 0.0.0.0 stands for no gateway"));
    }
    if info.dns.len() > MAX_SERVERS {
        return Err(error("Dns", "more than five"));
    }
    let mut dns = info.dns.iter().map(|text| parse("Dns", text)).collect::<Result<Vec<_>, _>>()?;
    // As with the gateway. In the resolver's file it would stand for the appliance itself.
    dns.retain(|server| !server.is_unspecified());
    Ok(Mode::Static(Address { gateway, dns, ..Address::new(address, prefix) }))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// What `/etc/resolv.conf` says: the servers of the first port first, at most three (the C library reads no more).
pub fn resolv_conf(servers: &[Ipv4Addr]) -> String {
    let mut text = String::from("# written by belvedere-network\n");
    let mut seen: Vec<Ipv4Addr> = Vec::new();
    for server in servers {
        if !seen.contains(server) && seen.len() < 3 {
            seen.push(*server);
            text.push_str(&format!("nameserver {server}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_device_protocol::{NtpConfiguration, StaticAddress};

    fn fixed(address: &str, mask: &str, gateway: &str) -> NetworkConfiguration {
        NetworkConfiguration {
            ethernet0: Some(EthernetConfiguration {
                connection_type: ConnectionType::StaticIp,
                static_ip_connection_info: Some(StaticAddress {
                    ip_address: address.into(),
                    mask: mask.into(),
                    dns: vec!["192.168.1.1".into()],
                    default_gateway: gateway.into(),
                }),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn nothing_configured_means_dhcp_on_both_ports() {
        assert_eq!(plan(&NetworkConfiguration::default()), Ok(Plan::default()));
    }

    #[test]
    fn a_static_address_is_understood() {
        let plan = plan(&fixed("192.168.1.20", "255.255.255.0", "192.168.1.1")).unwrap();
        let Mode::Static(address) = &plan.ports[0] else { panic!("static") };
        assert_eq!(address.prefix, 24);
        assert_eq!(address.gateway, Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(plan.ports[1], Mode::Dhcp);
    }

    /// Field case camera-port-zero-gateway.
    #[test]
    fn a_camera_network_has_no_gateway() {
        let configuration: NetworkConfiguration =
            serde_json::from_str(include_str!("../tests/field-cases/camera-port-zero-gateway.json")).unwrap();
        let plan = plan(&configuration).unwrap();
        assert_eq!(plan.ports[1], Mode::Static(Address::new(Ipv4Addr::new(10, 20, 0, 5), 24)));
        // The API demands name servers, too.
        let mut none = fixed("10.20.0.5", "255.255.255.0", "0.0.0.0");
        none.ethernet0.as_mut().unwrap().static_ip_connection_info.as_mut().unwrap().dns = vec!["0.0.0.0".into()];
        assert_eq!(super::plan(&none).unwrap().ports[0], Mode::Static(Address::new(Ipv4Addr::new(10, 20, 0, 5), 24)));
        // A single address has its gateway wherever it is.
        assert!(super::plan(&fixed("10.64.3.9", "255.255.255.255", "10.64.0.1")).is_ok());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (address, mask, gateway) in [
            ("192.168.1.20", "255.255.255.0", "192.168.2.1"),
            ("192.168.1.20", "255.255.255.0", "192.168.1.20"),
            ("192.168.1.20", "255.0.255.0", "192.168.1.1"),
            ("192.168.1.20", "0.0.0.0", "192.168.1.1"),
            ("192.168.1.0", "255.255.255.0", "192.168.1.1"),
            ("192.168.1.255", "255.255.255.0", "192.168.1.1"),
            ("127.0.0.1", "255.0.0.0", "127.0.0.2"),
            ("::1", "255.0.0.0", "127.0.0.2"),
            ("192.168.1", "255.255.255.0", "192.168.1.1"),
        ] {
            assert!(plan(&fixed(address, mask, gateway)).is_err(), "{address} {mask} {gateway}");
        }
        let mut missing = fixed("192.168.1.20", "255.255.255.0", "192.168.1.1");
        missing.ethernet0.as_mut().unwrap().static_ip_connection_info = None;
        assert!(plan(&missing).is_err());
        let mut both = fixed("192.168.1.20", "255.255.255.0", "192.168.1.1");
        both.ethernet1 = both.ethernet0.clone();
        assert!(plan(&both).is_err());
    }

    #[test]
    fn time_servers_are_kept_up_to_five() {
        let with = |names: &[&str]| NetworkConfiguration {
            ntp: Some(NtpConfiguration { ntp_servers: names.iter().map(|s| s.to_string()).collect() }),
            ..Default::default()
        };
        assert_eq!(plan(&with(&["a.example", "10.0.0.1"])).unwrap().ntp_servers.len(), 2);
        assert!(plan(&with(&["a"; 5])).is_ok());
        assert!(plan(&with(&["a"; 6])).is_err());
        assert!(plan(&with(&["a b"])).is_err());
    }

    /// Of the kind of field case camera-port-zero-gateway: what the API's form allows, and what looks like it.
    #[test]
    fn time_servers_that_cannot_be_asked_are_refused() {
        let with = |name: &str| {
            plan(&NetworkConfiguration {
                ntp: Some(NtpConfiguration { ntp_servers: vec![name.into()] }),
                ..Default::default()
            })
        };
        for name in ["10.0.0.1", "10.0.0.1:123", "10.0.0.1:1123", "time.example", "time.example.", "time.example:123"] {
            assert!(with(name).is_ok(), "{name}");
        }
        let names = [
            "2001:db8::1", "[::1]", "::1:123", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:+1", ":123", "", "a b",
        ];
        for name in names {
            let problem = with(name).unwrap_err().problem;
            assert!(problem.contains("IPv4"), "{name}: {problem}");
        }
    }

    /// Of the kind of field case camera-port-zero-gateway: the kernel takes no route by these.
    #[test]
    fn a_gateway_that_the_kernel_refuses_is_refused() {
        for (mask, gateway) in [
            ("255.255.255.0", "10.20.0.255"),
            ("255.255.255.252", "10.20.0.7"),
            ("255.255.255.255", "127.0.0.1"),
            ("255.255.255.255", "224.0.0.1"),
            ("255.255.255.255", "255.255.255.255"),
        ] {
            assert!(plan(&fixed("10.20.0.5", mask, gateway)).is_err(), "{mask} {gateway}");
        }
        for (mask, gateway) in [("255.255.255.252", "10.20.0.6"), ("255.255.255.254", "10.20.0.4")] {
            assert!(plan(&fixed("10.20.0.5", mask, gateway)).is_ok(), "{mask} {gateway}");
        }
    }

    /// An update must not cost the port its address.
    #[test]
    fn what_was_taken_before_stays_in_force() {
        let mut stored = fixed("10.20.0.5", "255.255.255.0", "10.20.0.255");
        stored.ntp = Some(NtpConfiguration { ntp_servers: vec!["2001:db8::1".into()] });
        assert!(plan(&stored).is_err());
        let Ok(Plan { ports: [Mode::Static(address), _], .. }) = plan_of_stored(&stored) else { panic!("an address") };
        assert_eq!(address.address, Ipv4Addr::new(10, 20, 0, 5));
        assert!(crate::routes::routes(&address).is_empty(), "what the kernel refuses is not asked of it again and again");
    }

    #[test]
    fn resolv_conf_names_each_server_once_and_three_at_most() {
        let ip = |n| Ipv4Addr::new(10, 0, 0, n);
        let text = resolv_conf(&[ip(1), ip(1), ip(2), ip(3), ip(4)]);
        assert_eq!(text.lines().filter(|line| line.starts_with("nameserver")).count(), 3);
        assert!(!text.contains("10.0.0.4"));
    }
}

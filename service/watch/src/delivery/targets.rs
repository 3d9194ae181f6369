//! Where a webhook may lead. Whoever may subscribe an address chooses what this machine connects to: not to the service's
//! own ports, not to what a cloud tells its machines (169.254.0.0/16 and its like), and to private networks only where
//! the administrator wants it.
//!
//! What is decided about is the address that is connected to: names are resolved once, addresses that are refused are
//! dropped, and the connection goes to one of the rest. A name that leads elsewhere the next time is looked at again, and
//! redirects are not followed.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Whether webhooks may lead to addresses of private networks and of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrivateAddresses {
    /// Receivers at home and beside the service are reached.
    #[default]
    Allowed,
    /// Only addresses of the internet are.
    Refused,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody's, everybody's, or a cloud's word to its own machines: never a receiver.
    Forbidden,
    /// Of a private network, or this machine.
    Private,
    /// Of the internet.
    Public,
}

/// What an address is, whatever it is wrapped in.
pub fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// Outside of 169.254.0.0/16, where clouds answer their machines: Azure, Oracle, Alibaba.
const CLOUDS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(100, 100, 100, 200)];
/// Amazon's, over IPv6.
const CLOUD: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    let forbidden = a == 0 || a >= 240 || address.is_link_local() || address.is_multicast() || CLOUDS.contains(&address);
    let shared = a == 100 && (64..128).contains(&b) || a == 198 && (18..20).contains(&b) || (a, b, c) == (192, 0, 0);
    match () {
        () if forbidden => Kind::Forbidden,
        () if address.is_private() || address.is_loopback() || shared => Kind::Private,
        () => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address.is_loopback() {
        return Kind::Private;
    }
    let s = address.segments();
    let v4 = |high: u16, low: u16| kind_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        // ::ffff:a.b.c.d, ::a.b.c.d (:: is 0.0.0.0), ::ffff:0:a.b.c.d, 64:ff9b::a.b.c.d, 64:ff9b:1::/48: IPv4 in another dress.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        // 2002:a.b.c.d::/48.
        | [0x2002, high, low, ..] => v4(high, low),
        _ if address.is_multicast() || s[0] & 0xffc0 == 0xfe80 || address == CLOUD => Kind::Forbidden,
        // fc00::/7, and fec0::/10 of old.
        _ if s[0] & 0xfe00 == 0xfc00 || s[0] & 0xffc0 == 0xfec0 => Kind::Private,
        _ => Kind::Public,
    }
}

/// What webhooks may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    private: PrivateAddresses,
    /// Ports on which the service listens.
    own: Vec<u16>,
}

impl Targets {
    /// With the service's own ports, which are never connected to on this machine.
    pub fn new(private: PrivateAddresses, own: Vec<u16>) -> Targets {
        Targets { private, own }
    }

    /// Whether a connection to this address may be made.
    pub fn allow(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let allowed = match kind(ip) {
            Kind::Forbidden => false,
            Kind::Private => self.private == PrivateAddresses::Allowed,
            Kind::Public => true,
        };
        allowed && !(self.own.contains(&address.port()) && is_of_this_machine(ip))
    }
}

/// Only what is an address of this machine can be bound on it.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// Resolves names to what may be connected to, and to nothing else.
pub struct Guarded {
    targets: Targets,
    resolver: DefaultResolver,
}

impl Guarded {
    /// With these rules.
    pub fn new(targets: Targets) -> Guarded {
        Guarded { targets, resolver: DefaultResolver::default() }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl Resolver for Guarded {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| self.targets.allow(**address)) {
            allowed.push(*address);
        }
        match allowed.is_empty() {
            false => Ok(allowed),
            true => Err(ureq::Error::Io(std::io::Error::from(std::io::ErrorKind::PermissionDenied))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> Kind {
        kind(text.parse().unwrap())
    }

    #[test]
    fn service_d18_what_clouds_tell_their_machines_is_never_a_receiver() {
        for address in [
            "169.254.169.254", "169.254.170.2", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.0.0.1",
            "168.63.129.16", "192.0.0.192", "100.100.100.200", "::", "fe80::1", "febf::1", "ff02::1", "fd00:ec2::254",
            "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254",
            "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0",
        ] {
            assert_eq!(kind_of(address), Kind::Forbidden, "{address}");
        }
    }

    #[test]
    fn private_addresses_are_the_administrators_choice() {
        let private = [
            "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1",
            "fd12::1", "fc00::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:c0a8:101::1",
            "198.18.0.1",
        ];
        let public = ["172.32.0.1", "192.0.2.1", "8.8.8.8", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8", "11.0.0.1"];
        let (open, closed) = (Targets::default(), Targets::new(PrivateAddresses::Refused, Vec::new()));
        for text in private {
            assert_eq!(kind_of(text), Kind::Private, "{text}");
            let address = SocketAddr::new(text.parse().unwrap(), 443);
            assert!(open.allow(address) && !closed.allow(address), "{text}");
        }
        for text in public {
            assert_eq!(kind_of(text), Kind::Public, "{text}");
            assert!(closed.allow(SocketAddr::new(text.parse().unwrap(), 443)), "{text}");
        }
    }

    #[test]
    fn service_d18_the_services_own_ports_are_not_connected_to() {
        let targets = Targets::new(PrivateAddresses::Allowed, vec![8000]);
        for own in ["127.0.0.1:8000", "127.1.2.3:8000", "[::1]:8000", "[::ffff:127.0.0.1]:8000"] {
            assert!(!targets.allow(own.parse().unwrap()), "{own}");
        }
        for other in ["127.0.0.1:8001", "192.0.2.1:8000", "[2001:db8::1]:8000"] {
            assert!(targets.allow(other.parse().unwrap()), "{other}");
        }
    }
}

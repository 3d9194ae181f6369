//! [`System`] on a real machine.

use crate::netlink::Netlink;
use crate::plan::{Address, resolv_conf};
use crate::system::{Destination, Port, System};
use belvedere_interfaces::front_panel::NetworkCondition;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::Sender;

/// The kernel by netlink and sockets, the resolver's file, the front panel by a channel to the thread that tells it.
pub struct Kernel {
    netlink: Netlink,
    sys_class_net: PathBuf,
    only: Vec<String>,
    resolv_conf: PathBuf,
    light: Sender<NetworkCondition>,
    sockets: BTreeMap<u32, UdpSocket>,
}

impl Kernel {
    /// `only`: names of the ports, for tests; empty on an appliance.
    pub fn new(only: Vec<String>, resolv_conf: PathBuf, light: Sender<NetworkCondition>) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::new()?,
            sys_class_net: PathBuf::from("/sys/class/net"),
            only,
            resolv_conf,
            light,
            sockets: BTreeMap::new(),
        })
    }

    /// The open DHCP sockets by the port's index.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, &UdpSocket)> {
        self.sockets.iter().map(|(index, socket)| (*index, socket))
    }

    fn socket(&mut self, port: &Port) -> io::Result<&UdpSocket> {
        match self.sockets.entry(port.index) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_reuse_address(true)?;
                socket.set_broadcast(true)?;
                socket.set_nonblocking(true)?;
                socket.bind_device(Some(port.name.as_bytes()))?;
                socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68)))?;
                Ok(place.insert(socket.into()))
            }
        }
    }

    fn replace_addresses(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> io::Result<()> {
        let wanted = address.map(|a| (a.address, a.prefix));
        for (old, prefix) in self.netlink.addresses(port.index)? {
            if wanted != Some((old, prefix)) {
                self.netlink.delete_address(port.index, old, prefix)?;
            }
        }
        let Some(address) = address else {
            return self.netlink.delete_default_route(port.index, metric);
        };
        self.netlink.add_address(port.index, address.address, address.prefix)?;
        match address.gateway {
            Some(gateway) => self.netlink.set_default_route(port.index, gateway, metric),
            None => self.netlink.delete_default_route(port.index, metric),
        }
    }
}

impl System for Kernel {
    fn ports(&mut self) -> Vec<Port> {
        let ports = crate::ports::find(&self.sys_class_net, &self.only);
        self.sockets.retain(|index, _| ports.iter().any(|port| port.index == *index));
        ports
    }

    fn set_up(&mut self, port: &Port) -> Result<(), String> {
        self.netlink.set_up(port.index).map_err(|error| format!("bring {} up: {error}", port.name))
    }

    fn configure(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> Result<(), String> {
        let shown = address.map(|a| format!("{}/{}", a.address, a.prefix)).unwrap_or("no address".into());
        self.replace_addresses(port, address, metric).map_err(|error| format!("set {} to {shown}: {error}", port.name))
    }

    fn send_dhcp(&mut self, port: &Port, destination: Destination, bytes: &[u8]) -> Result<(), String> {
        let to = match destination {
            Destination::Broadcast => Ipv4Addr::BROADCAST,
            Destination::Server(server) => server,
        };
        self.socket(port)
            .and_then(|socket| socket.send_to(bytes, (to, 67)))
            .map(drop)
            .map_err(|error| format!("send a DHCP packet on {} to {to}: {error}", port.name))
    }

    fn set_dns(&mut self, servers: &[Ipv4Addr]) -> Result<(), String> {
        #[expect(clippy::disallowed_methods, reason = "on a tmpfs: whole or not at all, but nothing to make durable")]
        let write = || -> io::Result<()> {
            let new = self.resolv_conf.with_extension("conf.new");
            let mut file = std::fs::File::create(&new)?;
            file.write_all(resolv_conf(servers).as_bytes())?;
            std::fs::rename(&new, &self.resolv_conf)
        };
        write().map_err(|error| format!("write {}: {error}", self.resolv_conf.display()))
    }

    fn set_light(&mut self, condition: NetworkCondition) {
        // The receiver ends only with the process.
        let _ = self.light.send(condition);
    }
}

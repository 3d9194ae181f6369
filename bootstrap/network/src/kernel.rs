//! [`System`] on a real machine.

use crate::netlink::Netlink;
use crate::plan::{Address, resolv_conf};
use crate::probe;
use crate::routes::routes;
use crate::system::{ConfigureError, Destination, Port, System};
use belvedere_interfaces::front_panel::NetworkCondition;
use belvedere_interfaces::network::ServiceAddress;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// Ethernet's, for a network that says nothing else.
const USUAL_MTU: u16 = 1500;

/// What the threads beside the loop are told and tell.
pub struct Threads {
    /// To the thread that tells the front panel.
    pub light: Sender<NetworkCondition>,
    /// To the thread that keeps the clock.
    pub time_servers: Sender<Vec<String>>,
    /// From a probe: its round, the port's index, and whether the service was reached. Has to be quick.
    pub probed: Arc<dyn Fn(u64, u32, bool) + Send + Sync>,
}

/// The kernel by netlink and sockets, the resolver's file; front panel, clock and probes by threads of their own.
pub struct Kernel {
    netlink: Netlink,
    sys_class_net: PathBuf,
    only: Vec<String>,
    resolv_conf: PathBuf,
    threads: Threads,
    sockets: BTreeMap<u32, UdpSocket>,
    mtus: BTreeMap<u32, u16>,
    probing: Arc<Mutex<BTreeSet<u32>>>,
}

impl Kernel {
    /// `only`: names of the ports, for tests; empty on an appliance.
    pub fn new(only: Vec<String>, resolv_conf: PathBuf, threads: Threads) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::new()?,
            sys_class_net: PathBuf::from("/sys/class/net"),
            only,
            resolv_conf,
            threads,
            sockets: BTreeMap::new(),
            mtus: BTreeMap::new(),
            probing: Arc::default(),
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

    fn replace_addresses(&mut self, port: &Port, address: Option<&Address>) -> io::Result<()> {
        let wanted = address.map(|a| (a.address, a.prefix));
        for (old, prefix) in self.netlink.addresses(port.index)? {
            if wanted != Some((old, prefix)) {
                self.netlink.delete_address(port.index, old, prefix)?;
            }
        }
        match wanted {
            Some((address, prefix)) => self.netlink.add_address(port.index, address, prefix),
            None => Ok(()),
        }
    }

    /// New routes come before old ones go, so that connections are not cut in between. One that fails leaves the others.
    fn replace_routes(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> Result<(), String> {
        let wanted = address.map(routes).unwrap_or_default();
        let mut failed = Vec::new();
        for route in &wanted {
            if let Err(error) = self.netlink.add_route(port.index, route, metric) {
                let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
                failed.push(format!("route to {}/{}{via}: {error}", route.destination, route.prefix));
            }
        }
        let old = self.netlink.routes(port.index).map_err(|error| format!("ask for the routes: {error}"))?;
        for (route, old_metric) in old {
            if (old_metric != metric || !wanted.contains(&route))
                && let Err(error) = self.netlink.delete_route(port.index, &route, old_metric)
            {
                failed.push(format!("take the route to {}/{} away: {error}", route.destination, route.prefix));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn set_mtu(&mut self, port: &Port, address: Option<&Address>) -> Result<(), String> {
        let named = address.and_then(|address| address.mtu);
        let wanted = named.unwrap_or(USUAL_MTU);
        // With an address once in any case: what the port has may be left over from a process before this one.
        let set = self.mtus.get(&port.index).copied();
        if set == Some(wanted) || (set.is_none() && address.is_none()) {
            return Ok(());
        }
        match self.netlink.set_mtu(port.index, wanted) {
            // Nobody named it: a driver that has a smaller one keeps that. Other errors pass by, and it is tried again.
            Err(error) if named.is_none() && is_refused(&error) => {
                log::info!("{} keeps its MTU, {wanted} is refused: {error}", port.name)
            }
            result => result.map_err(|error| format!("MTU {wanted}: {error}"))?,
        }
        self.mtus.insert(port.index, wanted);
        Ok(())
    }
}

/// Whether a driver does not do this MTU and never will.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ERANGE))
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

    fn configure(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> Result<(), ConfigureError> {
        let shown = address.map(|a| format!("{}/{}", a.address, a.prefix)).unwrap_or("no address".into());
        self.replace_addresses(port, address)
            .map_err(|error| ConfigureError::Address(format!("set {} to {shown}: {error}", port.name)))?;
        let rest = [self.set_mtu(port, address), self.replace_routes(port, address, metric)];
        let failed: Vec<String> = rest.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(ConfigureError::Rest(format!(
                "{} has {shown}, but not all that belongs to it: {}",
                port.name,
                failed.join("; ")
            )))
        }
    }

    fn probe(&mut self, round: u64, port: &Port, dns: &[Ipv4Addr], service: &ServiceAddress) {
        if !self.probing.lock().unwrap_or_else(PoisonError::into_inner).insert(port.index) {
            return;
        }
        let (port, dns, service) = (port.clone(), dns.to_vec(), service.clone());
        let (probing, probed) = (Arc::clone(&self.probing), Arc::clone(&self.threads.probed));
        let index = port.index;
        let begun = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let result = probe::reach(&port.name, &dns, &service);
            if let Err(error) = &result {
                log::info!("{}:{} is not reached through {}: {error}", service.host, service.port, port.name);
            }
            probing.lock().unwrap_or_else(PoisonError::into_inner).remove(&port.index);
            probed(round, port.index, result.is_ok());
        });
        if let Err(error) = begun {
            log::error!("begin a probe: {error}");
            self.probing.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        }
    }

    fn set_time_servers(&mut self, servers: &[String]) {
        // The receiver ends only with the process.
        let _ = self.threads.time_servers.send(servers.to_vec());
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
        let _ = self.threads.light.send(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// What the kernel is told of the MTU, for the leases of a fresh process; it answers with these error numbers.
    fn told(leases: &[Option<Option<u16>>], answers: &[i32]) -> (Vec<u32>, Vec<bool>) {
        let (ours, other) = UnixDatagram::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        for (number, code) in answers.iter().enumerate() {
            // struct nlmsghdr of an error, and the error.
            let words = [20, 2, number as u32 + 1, 0, (-code).cast_unsigned()];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            other.send(&bytes).unwrap();
        }
        let threads = Threads {
            light: std::sync::mpsc::channel().0,
            time_servers: std::sync::mpsc::channel().0,
            probed: Arc::new(|_, _, _| ()),
        };
        let mut kernel = Kernel::new(Vec::new(), PathBuf::new(), threads).unwrap();
        kernel.netlink = Netlink::over(ours.into());
        let port = Port { index: 7, name: "end0".into(), mac: [2; 6], carrier: true };
        let set = leases
            .iter()
            .map(|lease| {
                let address = lease.map(|mtu| Address { mtu, ..Address::new(Ipv4Addr::new(10, 0, 2, 15), 24) });
                kernel.set_mtu(&port, address.as_ref()).is_ok()
            })
            .collect();
        let mut buffer = [0; 100];
        let requests = std::iter::from_fn(|| other.recv(&mut buffer).ok().map(|length| buffer[length - 4..length].to_vec()));
        (requests.map(|end| u32::from_ne_bytes(end.try_into().unwrap())).collect(), set)
    }

    /// Of the kind of field case mtu-1400: what the port has may be an earlier lease's, or its driver's own.
    #[test]
    fn a_fresh_process_sets_the_mtu_whatever_the_port_has() {
        assert_eq!(told(&[Some(Some(1500))], &[0]).0, [1500], "a port may have 9000");
        assert_eq!(told(&[Some(None)], &[0]).0, [1500], "1400 may be left over");
        let leases = [None, Some(Some(1400)), Some(Some(1400)), None, Some(None), Some(None)];
        assert_eq!(
            told(&leases, &[0, 0]),
            (vec![1400, 1500], vec![true; 6]),
            "said once, and not before there is an address"
        );
    }

    #[test]
    fn a_driver_that_cannot_do_the_usual_mtu_keeps_its_own() {
        assert_eq!(told(&[Some(None), Some(None)], &[22]), (vec![1500], vec![true; 2]), "nobody asked for it");
        assert_eq!(told(&[Some(Some(9000)), Some(Some(9000))], &[22, 22]), (vec![9000; 2], vec![false; 2]));
    }

    /// ENOBUFS, EBUSY and ENETDOWN pass by; EINVAL and ERANGE are the driver's last word.
    #[test]
    fn an_mtu_that_fails_for_now_is_tried_again() {
        for code in [105, 16, 100] {
            assert_eq!(told(&[Some(None); 3], &[code, 0]), (vec![1500; 2], vec![false, true, true]), "error {code}");
        }
        for code in [22, 34] {
            assert_eq!(told(&[Some(None); 2], &[code]), (vec![1500], vec![true; 2]), "error {code}");
        }
    }
}

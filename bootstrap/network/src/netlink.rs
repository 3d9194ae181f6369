//! The few requests that we make of rtnetlink(7), and its notices about links.
//!
//! A netlink library would bring some twenty thousand lines for these; the messages are fixed structures of a few
//! dozen bytes. Everything is native-endian except addresses.

use crate::routes::{Route, mask};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFLA_MTU: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u8 = 254;
/// `RTPROT_STATIC`: what marks a route as ours, apart from those that the kernel makes for addresses.
const PROTOCOL: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;

/// A message being built.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = vec![0; 4]; // length, filled in at the end
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // port: the kernel
        Self(bytes)
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn attribute(mut self, kind: u16, value: [u8; 4]) -> Self {
        self.0.extend(8u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// Splits what the kernel sent into (type, sequence number, payload).
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, sequence, payload))
    })
}

/// Splits a message's attributes into (type, value).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn number(value: &[u8]) -> Option<[u8; 4]> {
    value.try_into().ok()
}

/// A connection for requests.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    // NETLINK_ROUTE is protocol 0.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags | SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// A non-blocking socket that becomes readable when a link changes; its packets are only to be read away.
pub fn link_events() -> io::Result<OwnedFd> {
    open(GROUP_LINK, SocketFlags::NONBLOCK)
}

impl Netlink {
    /// Connects.
    pub fn new() -> io::Result<Self> {
        let socket = open(0, SocketFlags::empty())?;
        // The kernel answers at once or not at all.
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(std::time::Duration::from_secs(5)),
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Over a socket at whose other end a test answers as the kernel would.
    #[cfg(test)]
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, sequence: 0 }
    }

    fn request(&mut self, kind: u16, flags: u16, body: impl FnOnce(Message) -> Message) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let message = body(Message::new(kind, flags, self.sequence)).finish();
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let mut buffer = vec![0; 32 << 10];
            let (length, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            buffer.truncate(length);
            // What comes late, after its request was given up, is no answer to this one.
            if messages(&buffer).next().is_some_and(|(_, sequence, _)| sequence != self.sequence) {
                continue;
            }
            for (kind, _, payload) in messages(&buffer) {
                if kind == NLMSG_DONE {
                    return Ok(answer);
                }
                if kind == NLMSG_ERROR {
                    let code = payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes).unwrap_or(-5);
                    return if code == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
            }
            answer.extend(buffer);
            if answer.len() > 1 << 20 || length == 0 {
                return Err(io::Error::other("the kernel's answer has no end"));
            }
        }
    }

    /// Sets a link administratively up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        // struct ifinfomsg: family, pad, type, index, flags, change
        self.request(RTM_NEWLINK, ACK, |m| {
            m.put(&[0, 0, 0, 0]).put(&index.to_ne_bytes()).put(&IFF_UP.to_ne_bytes()).put(&IFF_UP.to_ne_bytes())
        })?;
        Ok(())
    }

    /// All IPv4 addresses of a link with their prefix lengths.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let answer = self.request(RTM_GETADDR, DUMP, |m| m.put(&[AF_INET, 0, 0, 0]).put(&[0; 4]))?;
        let mut found = Vec::new();
        for (kind, _, payload) in messages(&answer) {
            // struct ifaddrmsg: family, prefix length, flags, scope, index
            if kind != RTM_NEWADDR || payload.get(4..8) != Some(&index.to_ne_bytes()) {
                continue;
            }
            let prefix = payload[1];
            let own =
                attributes(&payload[8..]).filter(|(kind, _)| *kind == IFA_LOCAL).filter_map(|(_, value)| number(value));
            found.extend(own.map(|address| (Ipv4Addr::from(address), prefix)));
        }
        Ok(found)
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let broadcast = Ipv4Addr::from(u32::from(address) | !mask(prefix).unwrap_or(u32::MAX));
        self.request(RTM_NEWADDR, ACK | CREATE | REPLACE, |m| {
            let m = m
                .put(&[AF_INET, prefix, 0, 0])
                .put(&index.to_ne_bytes())
                .attribute(IFA_LOCAL, address.octets())
                .attribute(IFA_ADDRESS, address.octets());
            // RFC 3021: of a /31 both addresses are hosts. Said to be broadcast, the other one could be no router.
            if prefix < 31 { m.attribute(IFA_BROADCAST, broadcast.octets()) } else { m }
        })?;
        Ok(())
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request(RTM_DELADDR, ACK, |m| {
            m.put(&[AF_INET, prefix, 0, 0]).put(&index.to_ne_bytes()).attribute(IFA_LOCAL, address.octets())
        })?;
        Ok(())
    }

    /// The largest packet of a link.
    pub fn set_mtu(&mut self, index: u32, mtu: u16) -> io::Result<()> {
        self.request(RTM_NEWLINK, ACK, |m| {
            m.put(&[0; 4]).put(&index.to_ne_bytes()).put(&[0; 8]).attribute(IFLA_MTU, u32::from(mtu).to_ne_bytes())
        })?;
        Ok(())
    }

    /// Our routes through a link, each with its metric.
    pub fn routes(&mut self, index: u32) -> io::Result<Vec<(Route, u32)>> {
        let answer = self.request(RTM_GETROUTE, DUMP, |m| m.put(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]).put(&[0; 4]))?;
        let mut found = Vec::new();
        for (kind, _, payload) in messages(&answer) {
            let [_, prefix, _, _, TABLE_MAIN, PROTOCOL, _, _, _, _, _, _, rest @ ..] = payload else { continue };
            if kind != RTM_NEWROUTE {
                continue;
            }
            let value = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| number(value));
            if value(RTA_OIF) == Some(index.to_ne_bytes())
                && let Some(route) =
                    Route::new(value(RTA_DST).unwrap_or_default().into(), *prefix, value(RTA_GATEWAY).map(Ipv4Addr::from))
            {
                found.push((route, value(RTA_PRIORITY).map(u32::from_ne_bytes).unwrap_or(0)));
            }
        }
        Ok(found)
    }

    /// Adds a route through a link, or says it again.
    pub fn add_route(&mut self, index: u32, route: &Route, metric: u32) -> io::Result<()> {
        self.route(RTM_NEWROUTE, ACK | CREATE | REPLACE, index, route, metric)
    }

    /// Takes a route away; it is no error when it is not there.
    pub fn delete_route(&mut self, index: u32, route: &Route, metric: u32) -> io::Result<()> {
        match self.route(RTM_DELROUTE, ACK, index, route, metric) {
            Err(error) if error.raw_os_error() == Some(3) => Ok(()), // ESRCH
            other => other,
        }
    }

    fn route(&mut self, kind: u16, flags: u16, index: u32, route: &Route, metric: u32) -> io::Result<()> {
        // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type (unicast 1), flags
        let scope = if route.via.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        self.request(kind, flags, |m| {
            let m = m
                .put(&[AF_INET, route.prefix, 0, 0, TABLE_MAIN, PROTOCOL, scope, 1])
                .put(&[0; 4])
                .attribute(RTA_OIF, index.to_ne_bytes())
                .attribute(RTA_PRIORITY, metric.to_ne_bytes());
            let m = if route.is_default() { m } else { m.attribute(RTA_DST, route.destination.octets()) };
            match route.via {
                Some(via) => m.attribute(RTA_GATEWAY, via.octets()),
                None => m,
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_loopback_device_can_be_read() {
        // Index 1 is `lo` in every network namespace.
        let addresses = Netlink::new().unwrap().addresses(1).unwrap();
        assert!(addresses.is_empty() || addresses.contains(&(Ipv4Addr::LOCALHOST, 8)), "{addresses:?}");
    }

    /// boot L8: a late answer was taken for that of the next request.
    #[test]
    fn a_late_answer_is_not_taken_for_the_next_ones() {
        let (ours, kernel) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let code = |code: i32, sequence| Message::new(NLMSG_ERROR, 0, sequence).put(&code.to_ne_bytes()).finish();
        // The first request was given up; its refusal comes before the second one's consent.
        for answer in [code(-13, 1), code(0, 2), code(-1, 2)] {
            kernel.send(&answer).unwrap();
        }
        let mut netlink = Netlink { socket: ours.into(), sequence: 1 };
        netlink.set_up(7).unwrap();
        netlink.sequence = 1;
        assert_eq!(netlink.set_up(7).unwrap_err().raw_os_error(), Some(1));
    }

    /// Of the kind of field case slash-32: a broadcast address on a /31 is the other end's, which then is no router.
    #[test]
    fn an_address_of_a_pair_has_no_broadcast_address() {
        for (prefix, wanted) in [(24, Some([10, 0, 2, 255])), (30, Some([10, 0, 2, 15])), (31, None), (32, None)] {
            let (ours, kernel) = std::os::unix::net::UnixDatagram::pair().unwrap();
            kernel.send(&Message::new(NLMSG_ERROR, 0, 1).put(&[0; 4]).finish()).unwrap();
            Netlink { socket: ours.into(), sequence: 0 }.add_address(7, Ipv4Addr::new(10, 0, 2, 14), prefix).unwrap();
            let mut buffer = [0; 100];
            let length = kernel.recv(&mut buffer).unwrap();
            let (_, _, payload) = messages(&buffer[..length]).next().unwrap();
            let broadcast =
                attributes(&payload[8..]).find(|(kind, _)| *kind == IFA_BROADCAST).and_then(|(_, value)| number(value));
            assert_eq!(broadcast, wanted, "/{prefix}");
        }
    }

    #[test]
    fn cut_off_answers_are_not_read_past_their_end() {
        let bytes = Message::new(RTM_NEWADDR, 0, 1).put(&[AF_INET, 24, 0, 0, 1, 0, 0, 0]).finish();
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0);
        }
        assert_eq!(messages(&bytes).count(), 1);
    }
}

//! DHCP packets (RFC 2131, figure 1; options: RFC 2132).
//!
//! Our own and not the crate `dhcproto`: its 0.15.0 asserts on an option of the wrong length (a property test found it
//! within a second), so that any machine on the network could end the service with one packet.

use crate::routes::Route;
use std::net::Ipv4Addr;

/// Packets from servers.
pub const REPLY: u8 = 2;
const REQUEST: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 236;
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Option numbers.
pub mod option {
    #![allow(missing_docs)]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVERS: u8 = 6;
    pub const INTERFACE_MTU: u8 = 26;
    pub const NTP_SERVERS: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAXIMUM_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const CLASSLESS_ROUTES: u8 = 121;
}

/// Option 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// What we read from a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// [`REPLY`] for what servers send.
    pub operation: u8,
    /// Chosen by the client.
    pub transaction: u32,
    /// Whether answers should be broadcast.
    pub broadcast: bool,
    /// The address that the client has.
    pub client: Ipv4Addr,
    /// The address that the client gets.
    pub yours: Ipv4Addr,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// In their order; an option that comes in several parts is one (RFC 3396).
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    /// A request that wants its answer broadcast.
    pub fn request(transaction: u32, client: Ipv4Addr, mac: [u8; 6]) -> Self {
        Self {
            operation: REQUEST,
            transaction,
            broadcast: true,
            client,
            yours: Ipv4Addr::UNSPECIFIED,
            mac,
            options: Vec::new(),
        }
    }

    /// Adds an option.
    pub fn with(mut self, option: u8, value: &[u8]) -> Self {
        self.options.push((option, value.to_vec()));
        self
    }

    /// The bytes of an option.
    pub fn option(&self, wanted: u8) -> Option<&[u8]> {
        self.options.iter().find(|(option, _)| *option == wanted).map(|(_, value)| value.as_slice())
    }

    /// Option 53, when it is one that a client cares about.
    pub fn kind(&self) -> Option<Kind> {
        [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak]
            .into_iter()
            .find(|kind| self.option(option::MESSAGE_TYPE) == Some(&[*kind as u8]))
    }

    /// An option that is one address.
    pub fn address(&self, wanted: u8) -> Option<Ipv4Addr> {
        self.option(wanted)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))
    }

    /// An option that is a list of addresses.
    pub fn addresses(&self, wanted: u8) -> Vec<Ipv4Addr> {
        let value = self.option(wanted).unwrap_or_default();
        value.chunks_exact(4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3])).collect()
    }

    /// An option that is a time in seconds.
    pub fn seconds(&self, wanted: u8) -> Option<u32> {
        self.option(wanted)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Option 26.
    pub fn mtu(&self) -> Option<u16> {
        self.option(option::INTERFACE_MTU)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Option 121 (RFC 3442); `None` when it is not there, or is no list of routes from its first byte to its last.
    pub fn classless_routes(&self) -> Option<Vec<Route>> {
        let mut rest = self.option(option::CLASSLESS_ROUTES)?;
        let mut routes = Vec::new();
        while let [prefix, tail @ ..] = rest {
            // Only the bytes of the destination that the prefix covers are sent.
            let covered = usize::from(*prefix).div_ceil(8);
            let (destination, tail) = tail.split_at_checked(covered)?;
            let (via, tail) = tail.split_first_chunk::<4>()?;
            let mut whole = [0; 4];
            whole.get_mut(..covered)?.copy_from_slice(destination);
            routes.push(Route::new(whole.into(), *prefix, Some(Ipv4Addr::from(*via)).filter(|via| !via.is_unspecified()))?);
            rest = tail;
        }
        (!routes.is_empty()).then_some(routes)
    }

    /// As sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.operation, 1, 6, 0];
        bytes.extend(self.transaction.to_be_bytes());
        bytes.extend([0, 0, if self.broadcast { 0x80 } else { 0 }, 0]);
        bytes.extend(self.client.octets());
        bytes.extend(self.yours.octets());
        bytes.extend([0; 8]); // next server, relay
        bytes.extend(self.mac);
        bytes.resize(FIXED, 0); // rest of the hardware address, server name, file
        bytes.extend(COOKIE);
        for (option, value) in &self.options {
            for part in value.chunks(255) {
                bytes.extend([*option, part.len() as u8]);
                bytes.extend(part);
            }
        }
        bytes.push(255);
        // RFC 951: some servers drop what is shorter than BOOTP's 300 bytes.
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// Reads a packet; `None` when it is none for Ethernet.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().copied();
        if bytes.get(1..3)? != [1, 6] || four(FIXED)? != COOKIE {
            return None;
        }
        let mut packet = Self {
            operation: bytes[0],
            transaction: u32::from_be_bytes(four(4)?),
            broadcast: bytes[10] & 0x80 != 0,
            client: four(12)?.into(),
            yours: four(16)?.into(),
            mac: *bytes.get(28..34)?.first_chunk()?,
            options: Vec::new(),
        };
        packet.read_options(bytes.get(FIXED + 4..)?)?;
        // RFC 2132, 9.3: what did not fit is in the fields "file" and then "server name". Read once: an overload option in
        // one of them says nothing.
        let overload = packet.option(option::OVERLOAD).and_then(|value| value.first()).copied().unwrap_or(0);
        for (bit, field) in [(1, FILE), (2, SERVER_NAME)] {
            if overload & bit != 0 {
                packet.read_options(bytes.get(field)?)?;
            }
        }
        Some(packet)
    }

    /// Adds the options of one field. A value that comes in several parts, also of several fields, is one (RFC 3396).
    fn read_options(&mut self, mut rest: &[u8]) -> Option<()> {
        loop {
            match rest {
                [] | [255, ..] => return Some(()),
                [0, tail @ ..] => rest = tail,
                [option, length, tail @ ..] => {
                    let (value, tail) = tail.split_at_checked(usize::from(*length))?;
                    match self.options.iter_mut().find(|(known, _)| known == option) {
                        Some((_, known)) => known.extend(value),
                        None => self.options.push((*option, value.to_vec())),
                    }
                    rest = tail;
                }
                [_] => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let packet = Packet::request(0x0102_0304, Ipv4Addr::new(10, 0, 0, 9), [2, 3, 4, 5, 6, 7])
            .with(option::MESSAGE_TYPE, &[Kind::Request as u8])
            .with(option::CLIENT, &[7; 300]);
        let bytes = packet.encode();
        assert_eq!(Packet::decode(&bytes), Some(packet.clone()));
        assert_eq!(packet.kind(), Some(Kind::Request));
        for length in 0..bytes.len() {
            let _ = Packet::decode(&bytes[..length]);
        }
        // Fixed places, from the figure of the RFC.
        assert_eq!((bytes[0], bytes[4], bytes[10], bytes[12], bytes[28]), (1, 1, 0x80, 10, 2));
    }

    #[test]
    fn options_of_the_wrong_length_are_no_values() {
        let packet = Packet::request(1, Ipv4Addr::UNSPECIFIED, [0; 6])
            .with(option::SERVER, &[1, 2])
            .with(option::LEASE_TIME, &[1, 2, 3])
            .with(option::MESSAGE_TYPE, &[])
            .with(option::ROUTER, &[1, 2, 3, 4, 5]);
        assert_eq!(packet.address(option::SERVER), None);
        assert_eq!(packet.seconds(option::LEASE_TIME), None);
        assert_eq!(packet.kind(), None);
        assert_eq!(packet.addresses(option::ROUTER), [Ipv4Addr::new(1, 2, 3, 4)]);
    }

    #[test]
    fn classless_routes_are_read_whole_or_not_at_all() {
        let routes = |bytes: &[u8]| {
            Packet::request(1, Ipv4Addr::UNSPECIFIED, [0; 6]).with(option::CLASSLESS_ROUTES, bytes).classless_routes()
        };
        let via = |last| Some(Ipv4Addr::new(10, 0, 0, last));
        let good = [0, 10, 0, 0, 1, 25, 10, 9, 8, 128, 10, 0, 0, 2, 32, 1, 2, 3, 4, 0, 0, 0, 0];
        let read = routes(&good).unwrap();
        assert_eq!(read[0], Route::new(Ipv4Addr::UNSPECIFIED, 0, via(1)).unwrap());
        assert_eq!(read[1], Route::new(Ipv4Addr::new(10, 9, 8, 128), 25, via(2)).unwrap());
        assert_eq!(read[2], Route::new(Ipv4Addr::new(1, 2, 3, 4), 32, None).unwrap(), "0.0.0.0: on the link");
        for length in (0..good.len()).filter(|length| ![5, 14].contains(length)) {
            assert_eq!(routes(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(routes(&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1]), None);
        assert_eq!(routes(&[255; 9]), None);
    }

    #[test]
    fn overloaded_fields_are_read_in_their_order() {
        let mut bytes = Packet::request(1, Ipv4Addr::UNSPECIFIED, [0; 6])
            .with(option::OVERLOAD, &[3])
            .with(option::NAME_SERVERS, &[10, 0, 0, 1])
            .encode();
        bytes[FILE][..7].copy_from_slice(&[option::NAME_SERVERS, 4, 10, 0, 0, 2, 255]);
        bytes[SERVER_NAME][..7].copy_from_slice(&[option::NAME_SERVERS, 4, 10, 0, 0, 3, 255]);
        let addresses = Packet::decode(&bytes).unwrap().addresses(option::NAME_SERVERS);
        assert_eq!(addresses.iter().map(|a| a.octets()[3]).collect::<Vec<_>>(), [1, 2, 3]);
        // A field full of something else is no packet, and without the option it is not looked at.
        bytes[FILE].fill(7);
        assert_eq!(Packet::decode(&bytes), None);
        bytes[FIXED + 4 + 2] = 0;
        assert!(Packet::decode(&bytes).is_some());
    }
}

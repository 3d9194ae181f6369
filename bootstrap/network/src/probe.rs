//! Whether the service is reached through one port: a name query and a connection that leave by that port only.

use belvedere_interfaces::network::ServiceAddress;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// For the answer of one name server.
const QUERY_TIME: Duration = Duration::from_secs(2);
/// For a connection.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Name servers and addresses that are tried at most.
const MOST: usize = 3;
/// Answers over UDP without extensions are no longer (RFC 1035, 4.2.1).
const MAX_ANSWER: usize = 512;

/// Connects to the service out of the interface, and hangs up. `Err` says what failed last.
pub fn reach(interface: &str, dns: &[Ipv4Addr], service: &ServiceAddress) -> Result<(), String> {
    let addresses = match service.host.parse::<Ipv4Addr>() {
        Ok(address) => vec![address],
        Err(_) => resolve(interface, dns, &service.host)?,
    };
    let mut last = format!("{} has no IPv4 address", service.host);
    for address in addresses.into_iter().take(MOST) {
        match connect(interface, SocketAddrV4::new(address, service.port)) {
            Ok(()) => return Ok(()),
            Err(error) => last = format!("connect to {address}:{}: {error}", service.port),
        }
    }
    Err(last)
}

fn connect(interface: &str, to: SocketAddrV4) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.connect_timeout(&SockAddr::from(to), CONNECT_TIME)
}

fn resolve(interface: &str, dns: &[Ipv4Addr], host: &str) -> Result<Vec<Ipv4Addr>, String> {
    let mut last = "there is no name server".to_owned();
    for server in dns.iter().take(MOST) {
        match ask(interface, *server, host) {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) => last = format!("{server} knows no IPv4 address of {host}"),
            Err(error) => last = format!("ask {server} for {host}: {error}"),
        }
    }
    Err(last)
}

fn ask(interface: &str, server: Ipv4Addr, host: &str) -> io::Result<Vec<Ipv4Addr>> {
    let number = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))? as u16;
    let query = query(number, host)?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Connected: the kernel lets nothing through that comes from elsewhere.
    socket.connect(&SockAddr::from(SocketAddrV4::new(server, 53)))?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(QUERY_TIME))?;
    socket.send(&query)?;
    let mut buffer = [0; MAX_ANSWER];
    // What is no answer to this query does not end the wait for the one that is, but only so often.
    for _ in 0..8 {
        let length = socket.recv(&mut buffer)?;
        if let Some(addresses) = answer(&buffer[..length], number) {
            return Ok(addresses);
        }
    }
    Err(io::Error::other("only packets that are no answer"))
}

fn query(number: u16, host: &str) -> io::Result<Vec<u8>> {
    let invalid = |error: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    let mut packet = Packet::new_query(number);
    packet.set_flags(simple_dns::PacketFlag::RECURSION_DESIRED);
    let name = Name::new(host.trim_end_matches('.')).map_err(invalid)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(invalid)
}

/// The addresses of an answer; `None` when it is none to this query.
fn answer(bytes: &[u8], number: u16) -> Option<Vec<Ipv4Addr>> {
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != number || !packet.has_flags(simple_dns::PacketFlag::RESPONSE) {
        return None;
    }
    if packet.rcode() != RCODE::NoError {
        return Some(Vec::new());
    }
    let address = |data: &RData| match data {
        RData::A(a) => Some(Ipv4Addr::from(a.address)),
        _ => None,
    };
    Some(packet.answers.iter().filter_map(|record| address(&record.rdata)).take(MOST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    #[test]
    fn an_answer_is_read_when_it_belongs_to_the_query() {
        let asked = query(7, "service.example").unwrap();
        assert_eq!(answer(&asked, 7), None, "a query is no answer");
        let mut packet = Packet::parse(&asked).unwrap().into_reply();
        let name = Name::new("service.example").unwrap();
        let address = Ipv4Addr::new(192, 0, 2, 7);
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, RData::A(A { address: address.into() })));
        let bytes = packet.build_bytes_vec().unwrap();
        assert_eq!(answer(&bytes, 7), Some(vec![address]));
        assert_eq!(answer(&bytes, 8), None);
        for length in 0..bytes.len() {
            let _ = answer(&bytes[..length], 7);
        }
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        assert!(query(1, &"a".repeat(70)).is_err());
        assert!(query(1, &format!("{}.example", "a.".repeat(130))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_probe_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = answer(&bytes, u16::from_be_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]));
        }
    }
}

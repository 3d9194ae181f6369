//! Whether devices reach the service where they are told that it is.

use std::net::{IpAddr, SocketAddr};

/// The address at which the guests of QEMU's user network reach the machine that runs them, its loopback ports included.
pub const VIRTUAL_HOST: &str = "10.0.2.2";

/// Why a text is no name and no address of a machine.
pub fn host_fault(text: &str) -> Option<&'static str> {
    if text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let character = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(character) && !l.starts_with('-') && !l.ends_with('-');
    let last_is_a_number = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if text.is_empty() || text.len() > 253 || !text.split('.').all(label) {
        return Some(
            "a name like service.example or an address like 192.0.2.7 is wanted, without https:// and without a port",
        );
    }
    last_is_a_number.then_some("that is no address, and a name does not end in a number")
}

/// What is wrong between what devices are told and where the service listens; `None` if nothing is. `ports` are those that
/// devices come to. Pure.
pub fn unreachable(advertised: &str, ports: &[(&str, SocketAddr)]) -> Option<String> {
    let local = advertised == "localhost" || advertised.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let hidden: Vec<&(&str, SocketAddr)> = ports.iter().filter(|(_, at)| at.ip().is_loopback()).collect();
    if advertised == VIRTUAL_HOST {
        return Some(format!(
            "devices are told {VIRTUAL_HOST}, where only virtual appliances on this machine find it: give --advertise-host the name or \
             address at which devices reach this machine"
        ));
    }
    match (local, hidden.is_empty()) {
        (true, true) => Some(format!(
            "devices are told {advertised}, which is themselves: give --advertise-host the name or address at which devices reach this machine"
        )),
        (false, false) => {
            let hidden: Vec<String> = hidden.iter().map(|(name, at)| format!("--{name} {at}")).collect();
            let wanted: Vec<String> = ports.iter().map(|(name, at)| format!("--{name} 0.0.0.0:{}", at.port())).collect();
            Some(format!(
                "devices are told {advertised}, and {} listens for this machine alone: give {}",
                hidden.join(" and "),
                wanted.join(" ")
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["localhost", "service.example", "a", "10.0.2.2", "::1", "fd00::7", "my_host-1.local", "1a.example"] {
            assert_eq!(host_fault(good), None, "{good}");
        }
        let long = "a".repeat(64);
        for bad in
            ["", "not a host", "bad name!", "https://x", "x:8443", "-x", "x-", "a..b", "a.", "300.1.2.3", "*.x", &long]
        {
            assert!(host_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn what_devices_are_told_must_be_where_the_service_listens() {
        let at = |ip: &str| {
            [("device-https", format!("{ip}:8443").parse().unwrap()), ("mqtt", format!("{ip}:8883").parse().unwrap())]
        };
        let told = |host: &str, ip: &str| unreachable(host, &at(ip));
        let road = told("service.example", "127.0.0.1").unwrap();
        assert!(road.contains("give --device-https 0.0.0.0:8443 --mqtt 0.0.0.0:8883"), "{road}");
        assert!(told("10.0.2.2", "127.0.0.1").unwrap().contains("virtual appliances"));
        assert!(told("localhost", "0.0.0.0").unwrap().contains("themselves"));
        assert_eq!(told("service.example", "0.0.0.0"), None);
        assert_eq!(told("192.0.2.7", "192.0.2.7"), None);
        assert_eq!(told("127.0.0.1", "127.0.0.1"), None, "devices of this machine, as in tests");
    }
}

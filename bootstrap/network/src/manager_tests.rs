use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

#[derive(Default)]
struct Fake {
    ports: Vec<Port>,
    addresses: std::collections::BTreeMap<u32, Address>,
    metrics: std::collections::BTreeMap<u32, u32>,
    sent: Vec<(u32, Destination)>,
    dns: Vec<Ipv4Addr>,
    lights: Vec<NetworkCondition>,
    refuse_addresses: bool,
    refuse_routes: bool,
    round: u64,
    probes: Vec<(u32, Vec<Ipv4Addr>)>,
    time_servers: Vec<String>,
}

impl System for Fake {
    fn ports(&mut self) -> Vec<Port> {
        self.ports.clone()
    }
    fn set_up(&mut self, _: &Port) -> Result<(), String> {
        Ok(())
    }
    fn configure(&mut self, port: &Port, address: Option<&Address>, metric: u32) -> Result<(), ConfigureError> {
        self.addresses.remove(&port.index);
        if let Some(address) = address {
            if self.refuse_addresses {
                return Err(ConfigureError::Address("set the address of eth: refused".into()));
            }
            self.addresses.insert(port.index, address.clone());
            self.metrics.insert(port.index, metric);
            if self.refuse_routes {
                return Err(ConfigureError::Rest("route of eth: refused".into()));
            }
        }
        Ok(())
    }
    fn probe(&mut self, round: u64, port: &Port, dns: &[Ipv4Addr], _: &ServiceAddress) {
        self.round = round;
        self.probes.push((port.index, dns.to_vec()));
    }
    fn set_time_servers(&mut self, servers: &[String]) {
        self.time_servers = servers.to_vec();
    }
    fn send_dhcp(&mut self, port: &Port, destination: Destination, _: &[u8]) -> Result<(), String> {
        self.sent.push((port.index, destination));
        Ok(())
    }
    fn set_dns(&mut self, servers: &[Ipv4Addr]) -> Result<(), String> {
        self.dns = servers.to_vec();
        Ok(())
    }
    fn set_light(&mut self, condition: NetworkCondition) {
        self.lights.push(condition);
    }
}

fn port(index: u32, carrier: bool) -> Port {
    Port { index, name: format!("eth{index}"), mac: [2, 0, 0, 0, 0, index as u8], carrier }
}

fn fixed(last: u8) -> Address {
    Address { gateway: Some(GATEWAY), dns: vec![GATEWAY], ..Address::new(Ipv4Addr::new(192, 168, 1, last), 24) }
}

fn manager(plan: Plan, ports: Vec<Port>) -> Manager<Fake> {
    let mut manager = Manager::new(Fake { ports, ..Fake::default() }, plan, 1);
    manager.links_changed(Duration::ZERO);
    manager
}

fn static_plan(last: u8) -> Plan {
    Plan { ports: [Mode::Static(fixed(last)), Mode::Dhcp], ..Plan::default() }
}

#[test]
fn both_ports_ask_for_addresses_before_any_configuration() {
    let manager = manager(Plan::default(), vec![port(2, true), port(3, true)]);
    assert_eq!(manager.system.sent, [(2, Destination::Broadcast), (3, Destination::Broadcast)]);
    assert_eq!(manager.system.lights, [NetworkCondition::Connected]);
    assert!(!manager.settled());
    assert_eq!(manager.status().ethernet1_status.unwrap().connection_status, ConnectionStatus::Connecting);
}

#[test]
fn a_static_address_is_set_at_once_and_the_first_port_is_preferred() {
    let mut manager = manager(static_plan(20), vec![port(2, true), port(3, false)]);
    assert!(manager.settled() && manager.connected());
    assert_eq!(manager.system.addresses[&2], fixed(20));
    assert_eq!(manager.system.metrics[&2], 100);
    assert_eq!(manager.system.dns, [GATEWAY]);
    let status = manager.status();
    assert_eq!(status.ethernet0_status.unwrap().ip_address, "192.168.1.20/24");
    let second = status.ethernet1_status.unwrap();
    assert_eq!((second.connection_status, second.ip_address.as_str()), (ConnectionStatus::NotConnected, "--"));
    // Nothing is asked on a port without a cable.
    manager.poll(Duration::from_secs(100));
    assert!(manager.system.sent.is_empty());
}

#[test]
fn pulling_the_cable_takes_the_address_away_and_plugging_it_in_brings_it_back() {
    let mut manager = manager(static_plan(20), vec![port(2, true)]);
    manager.system.ports = vec![port(2, false)];
    manager.links_changed(Duration::from_secs(1));
    assert!(manager.system.addresses.is_empty() && manager.system.dns.is_empty());
    manager.system.ports = vec![port(2, true)];
    manager.links_changed(Duration::from_secs(2));
    assert_eq!(manager.system.addresses[&2], fixed(20));
    use NetworkCondition::{Connected, NoCable};
    assert_eq!(manager.system.lights, [Connected, NoCable, Connected]);
}

#[test]
fn applying_what_is_in_force_interrupts_nothing() {
    let mut manager = manager(static_plan(20), vec![port(2, true), port(3, true)]);
    let sent = manager.system.sent.len();
    manager.apply(static_plan(20), Duration::from_secs(1));
    assert_eq!(manager.system.sent.len(), sent);
    manager.apply(static_plan(21), Duration::from_secs(1));
    assert_eq!(manager.system.addresses[&2], fixed(21));
    assert_eq!(manager.system.sent.len(), sent);
    manager.apply(Plan::default(), Duration::from_secs(1));
    assert!(!manager.system.addresses.contains_key(&2));
    assert_eq!(manager.system.sent.last(), Some(&(2, Destination::Broadcast)));
}

#[test]
fn a_port_that_vanishes_is_forgotten() {
    let mut manager = manager(static_plan(20), vec![port(2, true)]);
    manager.system.ports.clear();
    manager.links_changed(Duration::from_secs(1));
    assert_eq!(manager.status(), NetworkStatus::default());
    assert!(!manager.settled() && !manager.connected());
    assert_eq!(manager.system.lights.last(), Some(&NetworkCondition::NoCable));
}

#[test]
fn an_address_that_the_kernel_refuses_is_not_reported_as_there() {
    let fake = Fake { ports: vec![port(2, true)], refuse_addresses: true, ..Fake::default() };
    let mut manager = Manager::new(fake, static_plan(20), 1);
    manager.links_changed(Duration::ZERO);
    assert!(!manager.connected());
    assert_eq!(manager.status().ethernet0_status.unwrap().ip_address, "--");
}

/// Boot D20.
#[test]
fn a_route_that_the_kernel_refuses_leaves_the_address_and_is_tried_again() {
    let fake = Fake { ports: vec![port(2, true)], refuse_routes: true, ..Fake::default() };
    let mut manager = Manager::new(fake, static_plan(20), 1);
    manager.links_changed(Duration::ZERO);
    assert!(manager.connected() && manager.settled());
    let status = manager.status().ethernet0_status.unwrap();
    assert_eq!((status.connection_status, status.ip_address.as_str()), (ConnectionStatus::Connected, "192.168.1.20/24"));
    assert_eq!(manager.system.dns, [GATEWAY]);
    assert_eq!(manager.deadline(), Some(RETRY));
    manager.system.refuse_routes = false;
    manager.poll(RETRY);
    assert_eq!(manager.deadline(), None);
}

/// Boot D20: an address that the kernel refused is not forgotten until the lease is renewed.
#[test]
fn an_address_that_the_kernel_refuses_is_tried_again() {
    let fake = Fake { ports: vec![port(2, true)], refuse_addresses: true, ..Fake::default() };
    let mut manager = Manager::new(fake, static_plan(20), 1);
    manager.links_changed(Duration::ZERO);
    manager.system.refuse_addresses = false;
    manager.poll(RETRY - Duration::from_millis(1));
    assert!(!manager.connected());
    manager.poll(RETRY);
    assert!(manager.connected());
}

fn both_static() -> Plan {
    let second = Address {
        address: Ipv4Addr::new(10, 9, 8, 7),
        gateway: Some(Ipv4Addr::new(10, 9, 8, 1)),
        dns: Vec::new(),
        ..fixed(1)
    };
    Plan { ports: [Mode::Static(fixed(20)), Mode::Static(second)], ..Plan::default() }
}

/// Field case camera-port-first.
#[test]
fn the_port_that_reaches_the_service_is_the_way_out() {
    let mut manager = manager(both_static(), vec![port(2, true), port(3, true)]);
    assert!(manager.system.probes.is_empty(), "nothing is known that has to be reached");
    assert_eq!((manager.system.metrics[&2], manager.system.metrics[&3]), (100, 200));
    let service = ServiceAddress { host: "service.example".into(), port: 8883 };
    manager.set_service(Some(service), Duration::from_secs(1));
    // A port without name servers of its own asks those of the other.
    assert_eq!(manager.system.probes, [(2, vec![GATEWAY]), (3, vec![GATEWAY])]);
    assert!(!manager.settled());
    let round = manager.system.round;
    manager.probed(round, 3, true, Duration::from_secs(2));
    manager.probed(round, 2, false, Duration::from_secs(5));
    assert_eq!((manager.system.metrics[&2], manager.system.metrics[&3]), (200, 100));
    assert!(manager.settled());
    // Without its cable the other one is the only way.
    manager.system.ports[1].carrier = false;
    manager.links_changed(Duration::from_secs(6));
    assert_eq!(manager.system.metrics[&2], 100);
}

/// Field case camera-port-first, its kind: an answer that was still on its way when another service was to be reached counted
/// for that one, so that a stick's registration went out by the cameras' port.
#[test]
fn an_answer_about_another_service_says_nothing_about_the_present_one() {
    let mut manager = manager(both_static(), vec![port(2, true), port(3, true)]);
    let service = |host: &str| Some(ServiceAddress { host: host.into(), port: 8883 });
    manager.set_service(service("old.example"), Duration::from_secs(1));
    let old = manager.system.round;
    manager.set_service(service("new.example"), Duration::from_secs(2));
    let asked = manager.system.probes.len();
    // The old one was reached by the first port and is not by the second.
    manager.probed(old, 2, true, Duration::from_secs(3));
    manager.probed(old, 3, false, Duration::from_secs(3));
    assert!(!manager.settled());
    assert!(manager.system.probes.len() > asked, "what could not be asked meanwhile is asked now");
    let round = manager.system.round;
    manager.probed(round, 2, false, Duration::from_secs(4));
    manager.probed(round, 3, true, Duration::from_secs(4));
    assert!(manager.settled());
    assert_eq!((manager.system.metrics[&2], manager.system.metrics[&3]), (200, 100));
}

#[test]
fn time_servers_are_asked_once_there_is_a_network() {
    let plan = Plan { ntp_servers: vec!["time.example".into()], ..static_plan(20) };
    let mut manager = manager(plan, vec![port(2, false)]);
    assert!(manager.system.time_servers.is_empty());
    assert_eq!(manager.status().ntp_status.unwrap().connection_status, ConnectionStatus::NotConnected);
    manager.system.ports = vec![port(2, true)];
    manager.links_changed(Duration::from_secs(1));
    assert_eq!(manager.system.time_servers, ["time.example"]);
    assert_eq!(manager.status().ntp_status.unwrap().connection_status, ConnectionStatus::Connecting);
    manager.time_kept(Some(Source { name: "time.example".into(), address: GATEWAY }));
    let status = manager.status().ntp_status.unwrap();
    assert_eq!((status.connection_status, status.ip_address.as_str()), (ConnectionStatus::Connected, "192.168.1.1"));
    assert_eq!(status.ntp_server_name, "time.example");
    manager.system.ports = vec![port(2, false)];
    manager.links_changed(Duration::from_secs(2));
    assert!(manager.system.time_servers.is_empty(), "so that they are asked at once when the cable is back");
}

#[test]
fn time_servers_of_a_lease_are_asked_when_none_are_configured() {
    let with_time = Address { ntp: vec![GATEWAY], ..fixed(20) };
    let plan = Plan { ports: [Mode::Static(with_time.clone()), Mode::Dhcp], ..Plan::default() };
    assert_eq!(manager(plan.clone(), vec![port(2, true)]).system.time_servers, ["192.168.1.1"]);
    let plan = Plan { ntp_servers: vec!["own.example".into()], ..plan };
    assert_eq!(manager(plan, vec![port(2, true)]).system.time_servers, ["own.example"]);
}

use super::*;
use crate::routes::routes;
use proptest::prelude::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a server would answer.
fn reply(client: &Client, kind: Kind, change: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let mut packet = Packet::request(client.transaction, Ipv4Addr::UNSPECIFIED, MAC)
        .with(option::MESSAGE_TYPE, &[kind as u8])
        .with(option::SERVER, &SERVER.octets())
        .with(option::SUBNET_MASK, &[255, 255, 255, 0])
        .with(option::ROUTER, &SERVER.octets())
        .with(option::NAME_SERVERS, &[10, 0, 2, 3])
        .with(option::LEASE_TIME, &86_400u32.to_be_bytes());
    packet.operation = REPLY;
    packet.yours = OWN;
    change(&mut packet);
    packet.encode()
}

fn set(packet: &mut Packet, number: u8, value: &[u8]) {
    packet.options.retain(|(known, _)| *known != number);
    packet.options.push((number, value.to_vec()));
}

fn kind_of(output: &Output) -> Kind {
    let (Output::Broadcast(bytes) | Output::Unicast(_, bytes)) = output else { panic!("a packet: {output:?}") };
    assert!(bytes.len() >= 300);
    let packet = Packet::decode(bytes).unwrap();
    assert!(packet.broadcast);
    packet.kind().unwrap()
}

fn bound() -> Client {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    assert_eq!(kind_of(&client.poll(s(0))[0]), Kind::Discover);
    let offer = reply(&client, Kind::Offer, |_| ());
    assert_eq!(kind_of(&client.receive(s(1), &offer)[0]), Kind::Request);
    let ack = reply(&client, Kind::Ack, |_| ());
    let outputs = client.receive(s(1), &ack);
    let [Output::Bound(lease)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(lease.address.address, OWN);
    assert_eq!(lease.address.prefix, 24);
    assert_eq!(lease.address.gateway, Some(SERVER));
    assert_eq!(lease.address.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
    client
}

#[test]
fn an_address_is_asked_for_and_taken() {
    let client = bound();
    assert_eq!(client.deadline(), Some(s(1 + 43_200)));
}

#[test]
fn an_unanswered_discover_is_repeated_with_growing_waits() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    let mut now = s(0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(client.poll(now).len(), 1);
        assert!(client.poll(now).is_empty());
        let next = client.deadline().unwrap();
        waits.push(next - now);
        now = next;
    }
    assert!(waits[0] < s(3) && waits[7] > s(30) && waits[7] < s(34), "{waits:?}");
}

#[test]
fn an_offer_without_acknowledgement_is_forgotten() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(1), &offer);
    let kinds: Vec<_> = (0..5)
        .map(|_| {
            let now = client.deadline().unwrap();
            kind_of(&client.poll(now)[0])
        })
        .collect();
    assert_eq!(kinds[4], Kind::Discover);
    assert!(kinds[..3].iter().all(|kind| *kind == Kind::Request));
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut client = bound();
    let renewal = client.poll(s(1 + 43_200));
    assert!(matches!(renewal[0], Output::Unicast(SERVER, _)), "{renewal:?}");
    let mut now = s(1 + 43_200);
    let (mut broadcasts, mut outputs) = (0, Vec::new());
    for _ in 0..1000 {
        now = client.deadline().unwrap();
        outputs = client.poll(now);
        match outputs[0] {
            Output::Broadcast(_) => broadcasts += 1,
            Output::Lost => break,
            _ => {}
        }
    }
    assert!(broadcasts > 0);
    assert_eq!(outputs[0], Output::Lost);
    assert_eq!(kind_of(&outputs[1]), Kind::Discover);
    assert_eq!(now, s(1 + 86_400));
}

#[test]
fn a_renewed_lease_counts_from_the_renewal() {
    let mut client = bound();
    client.poll(s(50_000));
    let ack = reply(&client, Kind::Ack, |_| ());
    assert!(matches!(client.receive(s(50_001), &ack)[0], Output::Bound(_)));
    assert_eq!(client.deadline(), Some(s(50_001 + 43_200)));
}

#[test]
fn a_refused_renewal_takes_the_address_away() {
    let mut client = bound();
    client.poll(s(50_000));
    let nak = reply(&client, Kind::Nak, |_| ());
    let outputs = client.receive(s(50_001), &nak);
    assert_eq!(outputs[0], Output::Lost);
    assert_eq!(kind_of(&outputs[1]), Kind::Discover);
}

/// A server's answer as it was met in the field, for this client.
fn field_case(client: &Client, name: &str) -> Vec<u8> {
    let path = format!("{}/tests/field-cases/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes[4..8].copy_from_slice(&client.transaction.to_be_bytes());
    bytes[28..34].copy_from_slice(&MAC);
    bytes
}

/// What offer and acknowledgement of a field case end in.
fn field_lease(name: &str) -> Address {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = field_case(&client, &format!("{name}-offer"));
    assert_eq!(kind_of(&client.receive(s(1), &offer)[0]), Kind::Request);
    let ack = field_case(&client, &format!("{name}-ack"));
    match client.receive(s(1), &ack).as_slice() {
        [Output::Bound(lease)] => lease.address.clone(),
        other => panic!("{other:?}"),
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn route(destination: &str, prefix: u8, via: &str) -> Route {
    Route::new(ip(destination), prefix, Some(ip(via))).unwrap()
}

fn asked_for() -> Vec<u8> {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    let outputs = client.poll(s(0));
    let Output::Broadcast(bytes) = &outputs[0] else { panic!("{outputs:?}") };
    Packet::decode(bytes).unwrap().option(option::PARAMETERS).unwrap().to_vec()
}

#[test]
fn field_case_option_121_wins_over_the_router_option() {
    let asked = asked_for();
    let place = |number| asked.iter().position(|option| *option == number).unwrap();
    assert!(place(option::CLASSLESS_ROUTES) < place(option::ROUTER), "RFC 3442 demands this order");
    let address = field_lease("option-121");
    assert_eq!(routes(&address), [route("0.0.0.0", 0, "192.168.7.254"), route("10.9.8.0", 24, "192.168.7.1")]);
    assert_eq!(address.gateway, None);
}

#[test]
fn classless_routes_that_are_damaged_leave_the_router_in_force() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |p| set(p, option::CLASSLESS_ROUTES, &[24, 10, 0]));
    client.receive(s(1), &offer);
    let ack = reply(&client, Kind::Ack, |p| set(p, option::CLASSLESS_ROUTES, &[24, 10, 0]));
    let outputs = client.receive(s(1), &ack);
    let Output::Bound(lease) = &outputs[0] else { panic!("{outputs:?}") };
    assert_eq!((lease.address.gateway, lease.address.routes.len()), (Some(SERVER), 0));
}

#[test]
fn field_case_slash_32_reaches_its_router_on_the_link() {
    let address = field_lease("slash-32");
    assert_eq!((address.address, address.prefix), (ip("10.64.3.9"), 32));
    let link = Route::new(ip("10.64.0.1"), 32, None).unwrap();
    assert_eq!(routes(&address), [link, route("0.0.0.0", 0, "10.64.0.1")]);
}

#[test]
fn field_case_mtu_1400_is_asked_for_and_taken() {
    assert!(asked_for().contains(&option::INTERFACE_MTU));
    assert_eq!(field_lease("mtu-1400").mtu, Some(1400));
}

#[test]
fn an_mtu_that_nothing_works_with_is_not_taken() {
    for (bytes, taken) in [([0, 0], None), ([0, 68], None), ([2, 64], Some(576)), ([0xff, 0xff], Some(65_535))] {
        let mut client = bound();
        client.poll(s(50_000));
        let ack = reply(&client, Kind::Ack, |p| set(p, option::INTERFACE_MTU, &bytes));
        let outputs = client.receive(s(50_001), &ack);
        let Output::Bound(lease) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(lease.address.mtu, taken, "{bytes:?}");
    }
}

#[test]
fn field_case_overloaded_gives_gateway_and_name_servers() {
    let address = field_lease("overloaded");
    assert!(address.gateway.is_some(), "{address:?}");
    assert!(!address.dns.is_empty(), "{address:?}");
}

/// The refusal names a server that was not asked: two servers on one network.
#[test]
fn field_case_nak_of_another_server_is_not_ours() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = field_case(&client, "usual-offer");
    client.receive(s(1), &offer);
    let nak = field_case(&client, "nak-of-another-server");
    assert!(client.receive(s(1), &nak).is_empty());
    let ack = field_case(&client, "usual-ack");
    let outputs = client.receive(s(2), &ack);
    assert!(matches!(outputs.as_slice(), [Output::Bound(_)]), "{outputs:?}");
}

#[test]
fn a_refusal_of_the_server_that_was_asked_begins_anew_but_not_at_once() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(1), &offer);
    let nameless = reply(&client, Kind::Nak, |p| p.options.retain(|(number, _)| *number != option::SERVER));
    assert!(client.receive(s(1), &nameless).is_empty());
    assert!(matches!(client.state, State::Requesting { .. }));
    let nak = reply(&client, Kind::Nak, |_| ());
    assert!(client.receive(s(1), &nak).is_empty());
    assert!(matches!(client.state, State::Selecting { .. }));
    assert_eq!(client.deadline(), Some(s(1) + FIRST_WAIT));
}

/// Of the kind of field case nak-of-another-server: how long until bound where the servers that `bad` names for each round
/// offer first. They refuse each request, or never answer it.
fn bound_beside(bad: impl Fn(u32) -> Vec<Ipv4Addr>, refuses: bool) -> Option<Duration> {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    let mut now = s(0);
    let mut round = 0;
    while now < s(600) {
        now = client.deadline().unwrap();
        let mut to_send = client.poll(now);
        while let Some(output) = to_send.pop() {
            if kind_of(&output) == Kind::Discover {
                for server in bad(round) {
                    let offer = reply(&client, Kind::Offer, |p| {
                        set(p, option::SERVER, &server.octets());
                        p.yours = ip("10.0.2.99");
                    });
                    to_send.extend(client.receive(now, &offer));
                }
                round += 1;
                let good = reply(&client, Kind::Offer, |_| ());
                to_send.extend(client.receive(now + s(1), &good));
                continue;
            }
            let State::Requesting { server, address, .. } = client.state else { panic!("{:?}", client.state) };
            let answer = match (server == SERVER, refuses) {
                (true, _) if address != ip("10.0.2.99") => reply(&client, Kind::Ack, |_| ()),
                (true, _) | (false, true) => reply(&client, Kind::Nak, |p| set(p, option::SERVER, &server.octets())),
                (false, false) => continue,
            };
            if matches!(client.receive(now + s(1), &answer).as_slice(), [Output::Bound(_)]) {
                return Some(now);
            }
        }
    }
    None
}

#[test]
fn a_server_that_offers_first_and_refuses_does_not_shut_another_one_out() {
    for refuses in [true, false] {
        for bad in [&[][..], &[77], &[77, 78, 79]] {
            let time = bound_beside(|_| bad.iter().map(|host| Ipv4Addr::new(10, 0, 2, *host)).collect(), refuses);
            assert!(time.is_some_and(|time| time < s(200)), "{bad:?}, refuses {refuses}: {time:?}");
        }
    }
}

/// A neighbour that makes names up: a fresh one for each round, also after one offer in the good server's own name, which
/// that server refuses.
#[test]
fn made_up_servers_do_not_shut_the_good_one_out() {
    for refuses in [true, false] {
        for first in [SERVER, Ipv4Addr::new(10, 0, 2, 100)] {
            let made_up = |round| vec![if round == 0 { first } else { Ipv4Addr::from_bits(first.to_bits() + round) }];
            let time = bound_beside(made_up, refuses);
            assert!(time.is_some_and(|time| time < s(500)), "first {first}, refuses {refuses}: {time:?}");
        }
    }
}

#[test]
fn a_server_that_failed_is_asked_again_where_there_is_no_other() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(1), &offer);
    let nak = reply(&client, Kind::Nak, |_| ());
    client.receive(s(1), &nak);
    let now = client.deadline().unwrap();
    assert_eq!(kind_of(&client.poll(now)[0]), Kind::Discover);
    let offer = reply(&client, Kind::Offer, |_| ());
    for _ in 0..3 {
        assert!(client.receive(now, &offer).is_empty(), "another server may offer yet");
    }
    let later = client.deadline().unwrap();
    assert!(later <= now + s(2), "{later:?}");
    assert_eq!(kind_of(&client.poll(later)[0]), Kind::Request);
    let ack = reply(&client, Kind::Ack, |_| ());
    assert!(matches!(client.receive(later, &ack).as_slice(), [Output::Bound(_)]));
}

/// Of the kind of field case slash-32: the first router of several is one that the kernel does not take.
#[test]
fn the_first_router_that_can_be_one_is_taken() {
    let good = ip("10.0.2.1");
    for useless in [ip("0.0.0.0"), OWN, ip("255.255.255.255"), ip("10.0.2.255"), ip("127.0.0.1"), ip("224.0.0.1")] {
        let mut client = bound();
        client.poll(s(50_000));
        let ack = reply(&client, Kind::Ack, |p| set(p, option::ROUTER, &[useless.octets(), good.octets()].concat()));
        let outputs = client.receive(s(50_001), &ack);
        let Output::Bound(lease) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(routes(&lease.address), [route("0.0.0.0", 0, "10.0.2.1")], "{useless}");
    }
}

#[test]
fn useless_name_servers_take_nobodys_place() {
    let mut client = bound();
    client.poll(s(50_000));
    let list =
        [[127, 0, 0, 1], [255; 4], [224, 0, 0, 1], [0; 4], [10, 0, 2, 3], [10, 0, 2, 4], [10, 0, 2, 5], [10, 0, 2, 6]];
    let ack = reply(&client, Kind::Ack, |p| set(p, option::NAME_SERVERS, &list.concat()));
    let outputs = client.receive(s(50_001), &ack);
    let Output::Bound(lease) = &outputs[0] else { panic!("{outputs:?}") };
    assert_eq!(lease.address.dns, [ip("10.0.2.3"), ip("10.0.2.4"), ip("10.0.2.5")]);
}

/// Boot D22: the transaction number was broadcast, any neighbour knows it.
#[test]
fn nobody_takes_an_address_away_that_is_not_being_renewed() {
    let mut client = bound();
    let (nak, ack) = (reply(&client, Kind::Nak, |_| ()), reply(&client, Kind::Ack, |_| ()));
    assert!(client.receive(s(2), &nak).is_empty());
    assert!(client.receive(s(2), &ack).is_empty(), "nor is it lengthened");
    assert_eq!(client.deadline(), Some(s(1 + 43_200)));
}

/// Boot D22: while it is being renewed, the server that was asked decides; later any server does.
#[test]
fn a_renewal_is_refused_by_the_server_that_was_asked_alone() {
    let mut client = bound();
    client.poll(s(1 + 43_200));
    let foreign = reply(&client, Kind::Nak, |p| set(p, option::SERVER, &[10, 0, 2, 99]));
    assert!(client.receive(s(43_202), &foreign).is_empty());
    let foreign = reply(&client, Kind::Ack, |p| set(p, option::SERVER, &[10, 0, 2, 99]));
    assert!(client.receive(s(43_202), &foreign).is_empty());
    client.poll(s(1 + 75_600));
    let foreign = reply(&client, Kind::Ack, |p| set(p, option::SERVER, &[10, 0, 2, 99]));
    assert!(matches!(client.receive(s(75_602), &foreign).as_slice(), [Output::Bound(_)]), "rebinding asks anybody");
}

#[test]
fn another_address_than_the_one_asked_for_is_not_taken() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(1), &offer);
    let other = reply(&client, Kind::Ack, |p| p.yours = ip("10.0.2.77"));
    assert!(client.receive(s(1), &other).is_empty());
}

#[test]
fn answers_for_others_are_ignored() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let foreign_transaction = reply(&client, Kind::Offer, |p| p.transaction ^= 1);
    let foreign_address = reply(&client, Kind::Offer, |p| p.mac[5] ^= 1);
    let a_request = reply(&client, Kind::Offer, |p| p.operation = 1);
    for packet in [foreign_transaction, foreign_address, a_request, vec![0; 1501]] {
        assert!(client.receive(s(1), &packet).is_empty());
    }
}

#[test]
fn useless_offers_are_ignored() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let no_address = reply(&client, Kind::Offer, |p| p.yours = Ipv4Addr::UNSPECIFIED);
    let no_server = reply(&client, Kind::Offer, |p| p.options.retain(|(number, _)| *number != option::SERVER));
    let bad_mask = reply(&client, Kind::Offer, |p| set(p, option::SUBNET_MASK, &[255, 0, 255, 0]));
    for packet in [no_address, no_server, bad_mask] {
        assert!(client.receive(s(1), &packet).is_empty());
    }
}

#[test]
fn a_lease_of_no_time_does_not_keep_us_busy() {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(0), &offer);
    let ack = reply(&client, Kind::Ack, |p| {
        set(p, option::LEASE_TIME, &[0; 4]);
        set(p, option::RENEWAL_TIME, &[0; 4]);
    });
    client.receive(s(0), &ack);
    assert!(client.deadline().unwrap() >= s(30));
}

proptest! {
    #[test]
    fn no_packet_makes_the_client_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), fix in any::<bool>()) {
        let mut client = Client::new(MAC, 7);
        client.start(s(0));
        client.poll(s(0));
        if fix && bytes.len() > 240 {
            bytes[..3].copy_from_slice(&[2, 1, 6]);
            bytes[4..8].copy_from_slice(&client.transaction.to_be_bytes());
            bytes[28..34].copy_from_slice(&MAC);
            bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        }
        client.receive(s(1), &bytes);
    }
}

/// What a server's answer of this kind ends in.
fn lease_of(change: impl FnOnce(&mut Packet)) -> Lease {
    let mut client = Client::new(MAC, 7);
    client.start(s(0));
    client.poll(s(0));
    let offer = reply(&client, Kind::Offer, |_| ());
    client.receive(s(1), &offer);
    let ack = reply(&client, Kind::Ack, change);
    match client.receive(s(1), &ack).as_slice() {
        [Output::Bound(lease)] => lease.clone(),
        other => panic!("{other:?}"),
    }
}

/// As short leases are, and for the same reason.
#[test]
fn renewal_times_that_would_keep_us_busy_are_no_times() {
    for (renewal, rebinding) in [(1u32, 2u32), (29, 86_000), (0, 0), (1, 86_399)] {
        let lease = lease_of(|packet| {
            set(packet, option::RENEWAL_TIME, &renewal.to_be_bytes());
            set(packet, option::REBINDING_TIME, &rebinding.to_be_bytes());
        });
        assert!(lease.renew_after >= SHORTEST_LEASE / 2, "{renewal} {rebinding}: {lease:?}");
        assert!(lease.renew_after <= lease.rebind_after && lease.rebind_after <= lease.duration);
    }
    let lease = lease_of(|packet| set(packet, option::RENEWAL_TIME, &600u32.to_be_bytes()));
    assert_eq!(lease.renew_after, s(600));
}

/// Companies list every network that they have, and the way out last.
#[test]
fn the_default_route_is_taken_however_many_routes_there_are() {
    let lease = lease_of(|packet| {
        let others = (0..60u8).flat_map(|number| [24, 10, 1, number, 10, 0, 2, 9]);
        let list: Vec<u8> = others.chain([0, 10, 0, 2, 2]).collect();
        set(packet, option::CLASSLESS_ROUTES, &list);
    });
    let list = routes(&lease.address);
    assert!(list.len() <= 2 * MAX_ROUTES);
    assert!(list.contains(&Route::new(Ipv4Addr::UNSPECIFIED, 0, Some(SERVER)).unwrap()), "{list:?}");
}

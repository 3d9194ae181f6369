//! DHCP client (RFC 2131), as a state machine without sockets and without a clock.
//!
//! The broadcast flag is always set: the client listens on an ordinary UDP socket, which sees no answer addressed to an
//! address that the port does not have yet. An address is not probed by ARP before use (RFC 5227); DECLINE is never sent.

use crate::packet::{Kind, Packet, REPLY, option};
use crate::plan::Address;
use crate::routes::{MAX_ROUTES, Route, can_be_router};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Longest packet that is looked at.
pub const MAX_PACKET: usize = 1500;

/// First wait for an answer; doubled up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(32);
/// An offer that is not acknowledged after so many requests is forgotten.
const MAX_REQUESTS: u32 = 4;
/// How long other servers' offers are waited for when one comes from a server that failed.
const OTHERS_WAIT: Duration = Duration::from_secs(2);
/// Servers whose failure is remembered.
const MAX_FAILED: usize = 8;
/// After so many failures without a lease, one offer is taken by chance, whatever its server did before.
const FAILURES_UNTIL_CHANCE: u32 = 3;
/// Shorter leases are treated as if they were this long, so that a broken server cannot keep us busy.
const SHORTEST_LEASE: Duration = Duration::from_secs(60);
/// RFC 791: every host takes packets of this size. A server that says less is broken, and nothing would work with it.
const SMALLEST_MTU: u16 = 576;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address, gateway, name servers.
    pub address: Address,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// How long it is ours.
    pub duration: Duration,
    /// T1: when to ask this server again.
    pub renew_after: Duration,
    /// T2: when to ask any server.
    pub rebind_after: Duration,
}

/// What the owner of the client has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send to 255.255.255.255:67.
    Broadcast(Vec<u8>),
    /// Send to this server, port 67.
    Unicast(Ipv4Addr, Vec<u8>),
    /// Configure the port (also after each renewal).
    Bound(Lease),
    /// Take the address away.
    Lost,
}

#[derive(Debug)]
enum State {
    Stopped,
    /// `kept`: address and server of an offer that is taken at `next` if no better one comes. `others`: how many offers came
    /// before the last one.
    Selecting {
        attempt: u32,
        next: Duration,
        kept: Option<(Ipv4Addr, Ipv4Addr)>,
        others: u32,
    },
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
        attempt: u32,
        next: Duration,
    },
    /// `next`: when to send the next renewal. `asked`: whose answer to a renewal is waited for.
    Bound {
        lease: Lease,
        since: Duration,
        next: Duration,
        asked: Asked,
    },
}

/// Whose answers a bound client takes. The transaction number was broadcast once: what was not asked for is not taken, or
/// any machine on the network could take the address away with one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nobody,
    LeaseServer,
    Anybody,
}

impl Asked {
    fn takes(self, answer: &Answer, lease: &Lease) -> bool {
        match self {
            Self::Nobody => false,
            Self::LeaseServer => answer.server == Some(lease.server),
            Self::Anybody => answer.server.is_some(),
        }
    }
}

/// One port's client. Times are durations since any fixed moment of a monotonic clock.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    random: u64,
    transaction: u32,
    state: State,
    /// Servers that offered and then refused or were silent since the last lease, the last one last.
    failed: Vec<Ipv4Addr>,
    /// Failures since the last lease, or since an offer was taken by chance.
    failures: u32,
}

impl Client {
    /// A stopped client; `seed` should be random.
    pub fn new(mac: [u8; 6], seed: u64) -> Self {
        Self { mac, random: seed | 1, transaction: 0, state: State::Stopped, failed: Vec::new(), failures: 0 }
    }

    /// Begins from nothing; the first packet goes out with the next [`Client::poll`].
    pub fn start(&mut self, now: Duration) {
        self.transaction = self.next_random();
        self.state = State::Selecting { attempt: 0, next: now, kept: None, others: 0 };
    }

    /// Forgets everything; says nothing to the server (the lease may be wanted again after a restart).
    pub fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// When [`Client::poll`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Stopped => None,
            State::Selecting { next, .. } | State::Requesting { next, .. } => Some(*next),
            State::Bound { lease, since, next, .. } => Some((*next).min(*since + lease.duration)),
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) -> Vec<Output> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Stopped => Vec::new(),
            State::Selecting { kept: Some((address, server)), .. } => self.request(now, address, server),
            State::Selecting { attempt, kept: None, .. } => {
                self.state =
                    State::Selecting { attempt: attempt + 1, next: now + self.wait(attempt), kept: None, others: 0 };
                vec![Output::Broadcast(self.packet(Kind::Discover, Ipv4Addr::UNSPECIFIED, &[]))]
            }
            State::Requesting { attempt, server, .. } if attempt >= MAX_REQUESTS => {
                self.fail(server);
                self.start(now);
                self.poll(now)
            }
            State::Requesting { address, server, attempt, .. } => {
                self.state = State::Requesting { address, server, attempt: attempt + 1, next: now + self.wait(attempt) };
                let options = [(option::REQUESTED_ADDRESS, address), (option::SERVER, server)];
                vec![Output::Broadcast(self.packet(Kind::Request, Ipv4Addr::UNSPECIFIED, &options))]
            }
            State::Bound { lease, since, .. } => {
                let age = now.saturating_sub(since);
                if age >= lease.duration {
                    self.start(now);
                    let mut outputs = vec![Output::Lost];
                    outputs.extend(self.poll(now));
                    return outputs;
                }
                self.transaction = self.next_random();
                let bytes = self.packet(Kind::Request, lease.address.address, &[]);
                // RFC 2131, 4.4.5: wait half of the remaining time until the next stage, at least a minute.
                let rebinding = age >= lease.rebind_after;
                let stage = if rebinding { lease.duration } else { lease.rebind_after };
                let next = now + ((stage - age) / 2).max(Duration::from_secs(60)).min(stage - age);
                let (output, asked) = if rebinding {
                    (Output::Broadcast(bytes), Asked::Anybody)
                } else {
                    (Output::Unicast(lease.server, bytes), Asked::LeaseServer)
                };
                self.state = State::Bound { lease, since, next, asked };
                vec![output]
            }
        }
    }

    /// Takes a packet from the port's socket. What is not for us is ignored.
    pub fn receive(&mut self, now: Duration, bytes: &[u8]) -> Vec<Output> {
        let Some(answer) = self.decode(bytes) else { return Vec::new() };
        match (&self.state, answer.kind) {
            (State::Selecting { attempt, next, kept, others }, Kind::Offer) => {
                let Some(lease) = answer.lease else { return Vec::new() };
                let (attempt, next, kept, others) = (*attempt, *next, *kept, *others);
                let offer = (lease.address.address, lease.server);
                // Whoever offers first is often the same one. Of those that failed, the turn is that one's whose failure is
                // longest ago: it may have been by chance.
                let failure = |server| self.failed.iter().position(|failed| *failed == server);
                let place = failure(lease.server);
                let earlier = kept.is_none_or(|(_, server)| failure(server) > place);
                // Names that are made up have never failed. A good server that did must get its turn beside them, too.
                let by_chance = self.failures >= FAILURES_UNTIL_CHANCE;
                if place.is_none() && !by_chance {
                    return self.request(now, offer.0, offer.1);
                }
                let better = if by_chance { self.next_random().is_multiple_of(others.saturating_add(1)) } else { earlier };
                let next = if kept.is_none() { now + OTHERS_WAIT } else { next };
                let kept = if better { Some(offer) } else { kept };
                self.state = State::Selecting { attempt, next, kept, others: others.saturating_add(1) };
                Vec::new()
            }
            (State::Requesting { server, address, .. }, Kind::Ack) => match answer.lease {
                Some(lease) if lease.server == *server && lease.address.address == *address => self.bound(now, lease),
                _ => Vec::new(),
            },
            (State::Bound { lease: old, asked, .. }, Kind::Ack) if asked.takes(&answer, old) => match answer.lease {
                Some(lease) if lease.address.address == old.address.address => self.bound(now, lease),
                _ => Vec::new(),
            },
            // Two servers on one network: the one that was not asked may say that the other's address is none of its own.
            (State::Requesting { server, .. }, Kind::Nak) if answer.server == Some(*server) => {
                let server = *server;
                self.fail(server);
                self.start(now);
                // Not at once: a server that offers and refuses must not be asked in a tight loop.
                self.state = State::Selecting { attempt: 1, next: now + FIRST_WAIT, kept: None, others: 0 };
                Vec::new()
            }
            (State::Bound { lease, asked, .. }, Kind::Nak) if asked.takes(&answer, lease) => {
                self.start(now);
                let mut outputs = vec![Output::Lost];
                outputs.extend(self.poll(now));
                outputs
            }
            _ => Vec::new(),
        }
    }

    /// Asks a server for what it offered.
    fn request(&mut self, now: Duration, address: Ipv4Addr, server: Ipv4Addr) -> Vec<Output> {
        self.state = State::Requesting { address, server, attempt: 0, next: now };
        self.poll(now)
    }

    /// A server did not keep what it offered.
    fn fail(&mut self, server: Ipv4Addr) {
        self.failed.retain(|known| *known != server);
        if self.failed.len() == MAX_FAILED {
            self.failed.remove(0);
        }
        self.failed.push(server);
        self.failures = if self.failures >= FAILURES_UNTIL_CHANCE { 0 } else { self.failures + 1 };
    }

    fn bound(&mut self, now: Duration, lease: Lease) -> Vec<Output> {
        self.failed.clear();
        self.failures = 0;
        self.state = State::Bound { since: now, next: now + lease.renew_after, lease: lease.clone(), asked: Asked::Nobody };
        vec![Output::Bound(lease)]
    }

    fn wait(&mut self, attempt: u32) -> Duration {
        let base = FIRST_WAIT.saturating_mul(1 << attempt.min(4)).min(LAST_WAIT);
        // RFC 2131, 4.1: ±1 s of jitter, so that a fleet does not ask in step after a power cut.
        base - Duration::from_millis(500) + Duration::from_millis(u64::from(self.next_random() % 1000))
    }

    /// xorshift64*: only spreads times and transaction numbers.
    fn next_random(&mut self) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn packet(&self, kind: Kind, own: Ipv4Addr, extra: &[(u8, Ipv4Addr)]) -> Vec<u8> {
        // RFC 3442: the classless routes in front of the router that they replace.
        let parameters = [
            option::SUBNET_MASK,
            option::CLASSLESS_ROUTES,
            option::ROUTER,
            option::NAME_SERVERS,
            option::INTERFACE_MTU,
            option::NTP_SERVERS,
            option::LEASE_TIME,
            option::RENEWAL_TIME,
            option::REBINDING_TIME,
        ];
        let mut packet = Packet::request(self.transaction, own, self.mac)
            .with(option::MESSAGE_TYPE, &[kind as u8])
            .with(option::CLIENT, &[&[1u8], self.mac.as_slice()].concat())
            .with(option::MAXIMUM_SIZE, &(MAX_PACKET as u16).to_be_bytes())
            .with(option::PARAMETERS, &parameters);
        for (number, address) in extra {
            packet = packet.with(*number, &address.octets());
        }
        packet.encode()
    }

    fn decode(&self, bytes: &[u8]) -> Option<Answer> {
        if bytes.len() > MAX_PACKET {
            return None;
        }
        let packet = Packet::decode(bytes)?;
        if packet.operation != REPLY || packet.transaction != self.transaction || packet.mac != self.mac {
            return None;
        }
        Some(Answer { kind: packet.kind()?, server: packet.address(option::SERVER), lease: lease(&packet) })
    }
}

struct Answer {
    kind: Kind,
    server: Option<Ipv4Addr>,
    lease: Option<Lease>,
}

/// What an offer or acknowledgement says; `None` when it cannot be used.
fn lease(packet: &Packet) -> Option<Lease> {
    let own = packet.yours;
    if own.is_unspecified() || own.is_loopback() || own.is_multicast() || own.is_broadcast() {
        return None;
    }
    let server = packet.address(option::SERVER)?;
    let mask = packet.address(option::SUBNET_MASK).map(u32::from).unwrap_or(0xffff_ff00);
    if mask.count_ones() != mask.leading_ones() || mask == 0 {
        return None;
    }
    let prefix = mask.leading_ones() as u8;
    // 0xffffffff is "for ever": 136 years are long enough.
    let seconds = |number| packet.seconds(number).map(|s| Duration::from_secs(u64::from(s)));
    let duration = seconds(option::LEASE_TIME).unwrap_or(Duration::from_secs(3600)).max(SHORTEST_LEASE);
    // One that comes sooner would keep us as busy as too short a lease.
    let renewal = SHORTEST_LEASE / 2..duration;
    let renew_after = seconds(option::RENEWAL_TIME).filter(|t| renewal.contains(t)).unwrap_or(duration / 2);
    let rebind_after = seconds(option::REBINDING_TIME)
        .filter(|t| *t < duration && *t > renew_after)
        .unwrap_or((duration * 7 / 8).max(renew_after));
    let list = |number| {
        let mut list = packet.addresses(number);
        list.retain(|a| !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_broadcast()));
        list.truncate(3);
        list
    };
    // RFC 3442: who got classless routes leaves the router option alone, also when no default route is among them.
    let routes = packet.classless_routes();
    let router = || packet.addresses(option::ROUTER).into_iter().find(|via| can_be_router(own, prefix, *via));
    let gateway = if routes.is_some() { None } else { router() };
    Some(Lease {
        address: Address {
            gateway,
            dns: list(option::NAME_SERVERS),
            routes: bounded(routes.unwrap_or_default()),
            mtu: packet.mtu().filter(|mtu| *mtu >= SMALLEST_MTU),
            ntp: list(option::NTP_SERVERS),
            ..Address::new(own, prefix)
        },
        server,
        duration,
        renew_after,
        rebind_after,
    })
}

/// The first routes; among them the default one, wherever it stands: without it nothing else is reached.
fn bounded(mut routes: Vec<Route>) -> Vec<Route> {
    if let Some(default) = routes.iter().position(Route::is_default)
        && default >= MAX_ROUTES
    {
        routes.swap(default, MAX_ROUTES - 1);
    }
    routes.truncate(MAX_ROUTES);
    routes
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;

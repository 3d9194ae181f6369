//! How much of requests' bodies is in memory at once, and on whose account.
//!
//! Whoever causes cost pays: until a request's signature is verified its body counts for the address that it came from,
//! afterwards for who signed it. What would be too much for one, or for all together, is refused with 503, which tools
//! repeat by themselves. Only bytes that arrived count, so that nobody reserves what others need.

use crate::device::PeerAddress;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

const MIB: usize = 1024 * 1024;
/// Of all that nobody has signed yet, and of one address (of a /64 of IPv6).
const UNSIGNED: Most = Most { all: 32 * MIB, each: 16 * MIB };
/// Of all that is signed, and of one who signs.
const SIGNED: Most = Most { all: 256 * MIB, each: 64 * MIB };

#[derive(Debug, Clone, Copy)]
struct Most {
    all: usize,
    each: usize,
}

/// There is no place for more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
struct Account {
    all: usize,
    each: HashMap<String, usize>,
}

impl Account {
    fn take(&mut self, owner: &str, bytes: usize, most: Most) -> Result<(), Full> {
        let held = self.each.get(owner).copied().unwrap_or(0);
        if self.all.saturating_add(bytes) > most.all || held.saturating_add(bytes) > most.each {
            return Err(Full);
        }
        if bytes > 0 {
            self.all += bytes;
            self.each.insert(owner.to_owned(), held + bytes);
        }
        Ok(())
    }

    fn give(&mut self, owner: &str, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        if let Some(held) = self.each.get_mut(owner) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.each.remove(owner);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Accounts {
    unsigned: Account,
    signed: Account,
}

/// All bodies that are in memory.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<Mutex<Accounts>>);

#[derive(Debug)]
struct Holding {
    owner: String,
    signed: bool,
    bytes: usize,
}

#[derive(Debug)]
struct Inner {
    bodies: Bodies,
    holding: Mutex<Holding>,
}

/// What one request holds; given back when its last clone is dropped.
#[derive(Debug, Clone)]
pub struct Held(Arc<Inner>);

impl Bodies {
    /// Of a request that nobody has signed yet.
    pub fn of(&self, from: &PeerAddress) -> Held {
        let holding = Holding { owner: source(from), signed: false, bytes: 0 };
        Held(Arc::new(Inner { bodies: self.clone(), holding: Mutex::new(holding) }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Accounts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn source(from: &PeerAddress) -> String {
    match from.0.map(|address| address.ip().to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("{:x?}", &address.segments()[..4]),
    }
}

impl Held {
    /// More has arrived, or is made of what has.
    pub fn grow(&self, bytes: usize) -> Result<(), Full> {
        let mut holding = self.0.holding.lock().unwrap_or_else(PoisonError::into_inner);
        let (signed, owner) = (holding.signed, holding.owner.clone());
        self.0.bodies.with(|accounts| match signed {
            true => accounts.signed.take(&owner, bytes, SIGNED),
            false => accounts.unsigned.take(&owner, bytes, UNSIGNED),
        })?;
        holding.bytes += bytes;
        Ok(())
    }

    /// The signature is right: from now on it is on the account of who signed.
    pub fn signed_by(&self, caller: &str) -> Result<(), Full> {
        let mut holding = self.0.holding.lock().unwrap_or_else(PoisonError::into_inner);
        if holding.signed {
            return Ok(());
        }
        let bytes = holding.bytes;
        self.0.bodies.with(|accounts| {
            accounts.signed.take(caller, bytes, SIGNED)?;
            accounts.unsigned.give(&holding.owner, bytes);
            Ok(())
        })?;
        (holding.owner, holding.signed) = (caller.to_owned(), true);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let holding = self.holding.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.bodies.with(|accounts| match holding.signed {
            true => accounts.signed.give(&holding.owner, holding.bytes),
            false => accounts.unsigned.give(&holding.owner, holding.bytes),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> PeerAddress {
        PeerAddress(Some(text.parse().unwrap()))
    }

    #[test]
    fn service_d19_what_is_not_signed_is_bounded_by_address_and_in_all() {
        let bodies = Bodies::default();
        let request = |address: &str| {
            let held = bodies.of(&from(address));
            held.grow(2 * MIB).map(|()| held)
        };
        let held: Vec<_> = (0..80).filter_map(|n| request(&format!("10.0.0.1:{n}")).ok()).collect();
        assert_eq!(held.len(), UNSIGNED.each / (2 * MIB));
        let another = request("10.0.0.2:1").unwrap();
        assert!(
            (0..80).filter_map(|n| request(&format!("10.0.1.{n}:1")).ok()).count() == 80,
            "each gives back what it held"
        );
        let all: Vec<_> = (0..80).filter_map(|n| request(&format!("10.0.1.{n}:1")).ok()).collect();
        assert_eq!(held.len() + all.len() + 1, UNSIGNED.all / (2 * MIB));
        // Who signed is not held up by those who have not.
        another.signed_by("AKIA").unwrap();
        another.grow(8 * MIB).unwrap();
        drop((held, all, another));
        let accounts = bodies.0.lock().unwrap();
        assert_eq!((accounts.unsigned.all, accounts.signed.all), (0, 0));
        assert!(accounts.unsigned.each.is_empty() && accounts.signed.each.is_empty());
    }

    #[test]
    fn service_d19_one_caller_does_not_take_the_place_of_all() {
        let bodies = Bodies::default();
        let of = |caller: &str| {
            let held = bodies.of(&PeerAddress(None));
            held.signed_by(caller).unwrap();
            held
        };
        let greedy = of("device-a");
        greedy.grow(SIGNED.each).unwrap();
        assert_eq!(greedy.grow(1), Err(Full));
        assert_eq!(of("device-a").grow(1), Err(Full));
        of("device-b").grow(SIGNED.each).unwrap();
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        assert_eq!(source(&from("[2001:db8:0:1::1]:1")), source(&from("[2001:db8:0:1:ffff::2]:2")));
        assert_ne!(source(&from("[2001:db8:0:1::1]:1")), source(&from("[2001:db8:0:2::1]:1")));
        assert_eq!(source(&from("[::ffff:10.0.0.1]:1")), "10.0.0.1");
    }
}

//! Places for connections of one port that anybody may open: so many in all, and the last quarter of them only for
//! addresses that have few. Whoever opens connections from one address and says nothing keeps itself out, and no others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that an address has at any time, as long as there are places at all.
const FEW: usize = 64;

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<String, usize>,
}

/// The places of a port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    all: usize,
    taken: Arc<Mutex<Taken>>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    owner: String,
}

impl Places {
    /// So many.
    pub fn new(all: usize) -> Places {
        Places { all, taken: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from an address, if there is one for it.
    pub fn take(&self, from: IpAddr) -> Option<Place> {
        let owner = owner(from);
        let mut taken = self.lock();
        let held = taken.each.get(&owner).copied().unwrap_or(0);
        let for_all = self.all - self.all / 4;
        if taken.all >= self.all || taken.all >= for_all && held >= FEW {
            return None;
        }
        taken.all += 1;
        taken.each.insert(owner.clone(), held + 1);
        Some(Place { places: self.clone(), owner })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(held) = taken.each.get_mut(&self.owner) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                taken.each.remove(&self.owner);
            }
        }
    }
}

/// An address, or the /64 that one of IPv6 is in: whoever has one of those has them all.
fn owner(from: IpAddr) -> String {
    match from.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x?}", &address.segments()[..4]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, from: &str, times: usize) -> Vec<Place> {
        (0..times).map_while(|_| places.take(from.parse().unwrap())).collect()
    }

    #[test]
    fn service_d19_one_address_does_not_take_all_places() {
        let places = Places::new(1024);
        let greedy = take(&places, "10.0.0.1", 2000);
        assert_eq!(greedy.len(), 768);
        let others: Vec<Vec<Place>> = (2..9).map(|n| take(&places, &format!("10.0.0.{n}"), 100)).collect();
        assert_eq!(others.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64, 64, 0, 0, 0]);
        drop(greedy);
        assert_eq!(take(&places, "10.0.0.9", 2000).len(), 512, "what is given back is there for all");
        drop(others);
        assert!(places.lock().each.is_empty() && places.lock().all == 0);
        let network = take(&places, "2001:db8::1", 2000);
        assert!(
            places.take("2001:db8::2".parse().unwrap()).is_none()
                && places.take("::ffff:10.0.0.1".parse().unwrap()).is_some()
        );
        drop(network);
    }
}

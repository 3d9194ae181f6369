//! Which routes belong to an address: a pure list, in the order in which the kernel takes them.

use crate::plan::Address;
use std::net::Ipv4Addr;

/// Routes of one lease at most; more are left out. A server has no reason for more, and each costs a call of the kernel.
pub const MAX_ROUTES: usize = 32;

/// One route, without its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The network, its host bits zero.
    pub destination: Ipv4Addr,
    /// 0 (the default route) to 32.
    pub prefix: u8,
    /// The next router; `None`: reached on the link itself.
    pub via: Option<Ipv4Addr>,
}

impl Route {
    /// `None` for a prefix over 32. Host bits that are set are taken out, as the kernel would refuse them.
    pub fn new(destination: Ipv4Addr, prefix: u8, via: Option<Ipv4Addr>) -> Option<Self> {
        let destination = Ipv4Addr::from(u32::from(destination) & mask(prefix)?);
        Some(Self { destination, prefix, via })
    }

    /// Whether it leads to everywhere else.
    pub fn is_default(&self) -> bool {
        self.prefix == 0
    }
}

/// The mask of a prefix length; `None` over 32.
pub fn mask(prefix: u8) -> Option<u32> {
    32u32.checked_sub(u32::from(prefix)).map(|shift| u32::MAX.checked_shl(shift).unwrap_or(0))
}

/// All routes of an address beside the one to its own network, which the kernel makes by itself. A router that is on
/// no network that is reached yet (a /32, as hosters and some providers give) is made reachable on the link first.
pub fn routes(address: &Address) -> Vec<Route> {
    let mut list: Vec<Route> = Vec::new();
    let wanted = address.routes.iter().copied().chain(default_route(address));
    for route in wanted.take(MAX_ROUTES) {
        // The kernel has one route to each destination: said twice, the last would win, and each renewal would replace both.
        if route.via.is_some_and(|via| !can_be_router(address.address, address.prefix, via))
            || place(&list, &route).is_some()
        {
            continue;
        }
        if let Some(via) = route.via
            && !on_link(address, &list, via)
            && let Some(host) = Route::new(via, 32, None)
        {
            match place(&list, &host) {
                // Said to be behind another router, it could be none itself.
                Some(place) => list[place] = host,
                None => list.push(host),
            }
        }
        list.push(route);
    }
    list
}

/// Whether the address leads to everywhere else.
pub fn has_default_route(address: &Address) -> bool {
    routes(address).iter().any(Route::is_default)
}

/// Whether the kernel takes `via` as a router of a port with this address: not oneself, and nobody whom several are.
pub fn can_be_router(own: Ipv4Addr, prefix: u8, via: Ipv4Addr) -> bool {
    let hosts = !mask(prefix).unwrap_or(u32::MAX);
    let broadcast = prefix < 31 && u32::from(via) == u32::from(own) | hosts;
    !(via == own || broadcast || via.is_unspecified() || via.is_multicast() || via.is_broadcast() || via.is_loopback())
}

/// Where in the list a route to the same destination is.
fn place(list: &[Route], route: &Route) -> Option<usize> {
    list.iter().position(|known| (known.destination, known.prefix) == (route.destination, route.prefix))
}

fn default_route(address: &Address) -> Option<Route> {
    address.gateway.and_then(|gateway| Route::new(Ipv4Addr::UNSPECIFIED, 0, Some(gateway)))
}

fn on_link(address: &Address, list: &[Route], via: Ipv4Addr) -> bool {
    let inside =
        |network: Ipv4Addr, prefix: u8| mask(prefix).is_some_and(|mask| u32::from(network) & mask == u32::from(via) & mask);
    (address.prefix < 32 && inside(address.address, address.prefix))
        || list.iter().any(|route| route.via.is_none() && inside(route.destination, route.prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn address(own: &str, prefix: u8, gateway: &str) -> Address {
        Address { gateway: Some(ip(gateway)), ..Address::new(ip(own), prefix) }
    }

    #[test]
    fn an_ordinary_gateway_is_the_default_route() {
        assert_eq!(
            routes(&address("192.168.1.20", 24, "192.168.1.1")),
            [Route::new(ip("0.0.0.0"), 0, Some(ip("192.168.1.1"))).unwrap()]
        );
        assert!(!has_default_route(&Address::new(ip("192.168.1.20"), 24)));
    }

    #[test]
    fn a_gateway_outside_of_the_network_is_first_made_reachable() {
        for (own, prefix, gateway) in
            [("10.64.3.9", 32, "10.64.0.1"), ("192.168.1.20", 24, "192.168.2.1"), ("10.0.0.1", 31, "10.0.0.2")]
        {
            let list = routes(&address(own, prefix, gateway));
            let link = Route::new(ip(gateway), 32, None).unwrap();
            assert_eq!(list, [link, Route::new(ip("0.0.0.0"), 0, Some(ip(gateway))).unwrap()], "{own}/{prefix}");
        }
    }

    #[test]
    fn routers_of_other_routes_are_made_reachable_once() {
        let mut one = Address::new(ip("10.64.3.9"), 32);
        let via = Some(ip("10.64.0.1"));
        one.routes = vec![Route::new(ip("10.1.0.0"), 16, via).unwrap(), Route::new(ip("0.0.0.0"), 0, via).unwrap()];
        assert_eq!(routes(&one).len(), 3);
        one.routes.insert(0, Route::new(ip("10.64.0.0"), 16, None).unwrap());
        assert_eq!(routes(&one).len(), 3, "the router is on a network that a route names as on the link");
    }

    /// Of the kind of field case option-121: the kernel has one route to each destination; said twice, the last would win.
    #[test]
    fn of_two_routes_to_one_destination_the_first_is_taken() {
        let to = |text: &str, prefix, via: &str| Route::new(ip(text), prefix, Some(ip(via))).unwrap();
        let mut one = Address::new(ip("10.0.2.15"), 24);
        let first = [to("0.0.0.0", 0, "10.0.2.7"), to("10.9.8.0", 24, "10.0.2.7")];
        one.routes = first.into_iter().chain([to("0.0.0.0", 0, "10.0.2.8"), to("10.9.8.0", 24, "172.16.0.1")]).collect();
        assert_eq!(routes(&one), first);
        // What is a router is on the link, whatever was said about it before.
        one.routes = vec![to("172.16.0.1", 32, "10.0.2.8"), to("0.0.0.0", 0, "172.16.0.1")];
        let link = Route::new(ip("172.16.0.1"), 32, None).unwrap();
        assert_eq!(routes(&one), [link, to("0.0.0.0", 0, "172.16.0.1")]);
    }

    #[test]
    fn routers_that_cannot_be_are_left_out() {
        for gateway in ["192.168.1.20", "224.0.0.1", "255.255.255.255", "127.0.0.1"] {
            assert!(routes(&address("192.168.1.20", 24, gateway)).is_empty(), "{gateway}");
        }
    }

    proptest! {
        #[test]
        fn every_router_is_reached_before_it_is_used(own in any::<u32>(), prefix in 1u8..=32, list in proptest::collection::vec((any::<u32>(), 0u8..=32, proptest::option::of(any::<u32>())), 0..50)) {
            let mut address = Address::new(own.into(), prefix);
            address.routes = list.into_iter().filter_map(|(to, prefix, via)| Route::new(to.into(), prefix, via.map(Into::into))).collect();
            let list = routes(&address);
            prop_assert!(list.len() <= 2 * MAX_ROUTES);
            for (place, route) in list.iter().enumerate() {
                prop_assert_eq!(u32::from(route.destination) & !mask(route.prefix).unwrap(), 0);
                if let Some(via) = route.via {
                    prop_assert!(on_link(&address, &list[..place], via));
                }
            }
        }
    }
}

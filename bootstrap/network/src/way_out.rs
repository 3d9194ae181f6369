//! Which port leads to the service when both have a gateway. A camera network often has one that leads nowhere.
//!
//! 1. One port with a default route, or none: that one, or the first. Nothing is probed.
//! 2. Both, and nothing is known that has to be reached: the first.
//! 3. Both, and the service is known: the first one, in their order, through which it was reached. A port that was the way
//!    out is given up when [`FAILURES`] probes in a row failed and the other one reaches the service; when neither does,
//!    everything stays as it is.
//!
//! Sees neither sockets nor clocks.

use crate::plan::PORTS;
use std::time::Duration;

/// Probes of the port in use that fail in a row before another port is preferred: one lost packet changes nothing.
pub const FAILURES: u32 = 2;
/// Between probes while the port in use does not reach the service, or is not known to.
const SOON: Duration = Duration::from_secs(10);
/// Between probes while it does.
const LATER: Duration = Duration::from_secs(300);

/// The choice and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    preferred: usize,
    /// Ports that have a default route.
    candidates: [bool; PORTS],
    /// Failed probes in a row since the last change; 0 after a success; `None` before the first answer.
    failures: [Option<u32>; PORTS],
    next: Option<Duration>,
}

impl Default for WayOut {
    fn default() -> Self {
        Self { preferred: 0, candidates: [false; PORTS], failures: [None; PORTS], next: None }
    }
}

impl WayOut {
    /// The port whose routes win.
    pub fn preferred(&self) -> usize {
        self.preferred
    }

    /// Which ports have default routes, and whether it is known what has to be reached. What was learnt is forgotten:
    /// to be called when an address or the service changes.
    pub fn changed(&mut self, candidates: [bool; PORTS], service_known: bool, now: Duration) {
        self.candidates = candidates;
        self.failures = [None; PORTS];
        let only = candidates.iter().filter(|candidate| **candidate).count() == 1;
        self.next = None;
        if only {
            self.preferred = candidates.iter().position(|candidate| *candidate).unwrap_or(0);
        } else if service_known && candidates.iter().all(|candidate| *candidate) {
            self.next = Some(now);
        } else {
            self.preferred = 0;
        }
    }

    /// Whether the choice rests on what is known by now.
    pub fn settled(&self) -> bool {
        self.next.is_none() || self.failures.iter().all(Option::is_some)
    }

    /// When [`WayOut::due`] has something to say.
    pub fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Whether all ports are to be probed now.
    pub fn due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let well = self.failures[self.preferred] == Some(0);
        self.next = Some(now + if well { LATER } else { SOON });
        true
    }

    /// An answer came that is of no use: the ports are probed again, if there is anything to find out.
    pub fn again(&mut self, now: Duration) {
        self.next = self.next.map(|next| next.min(now));
    }

    /// A probe came back.
    pub fn probed(&mut self, port: usize, reached: bool, now: Duration) {
        let Some(failures) = self.failures.get_mut(port) else { return };
        let first = failures.is_none();
        *failures = Some(if reached { 0 } else { failures.unwrap_or(0).saturating_add(1) });
        if self.next.is_none() {
            return;
        }
        if !reached && port == self.preferred {
            self.next = self.next.map(|next| next.min(now + SOON));
        }
        // Until the ports before it have answered too, a port that answers first is not yet the choice.
        if first && !self.settled() {
            return;
        }
        let given_up = self.failures[self.preferred].is_some_and(|count| first && count > 0 || count >= FAILURES);
        let reaches = |port: usize| self.failures[port] == Some(0);
        if let Some(other) = (0..PORTS).find(|port| reaches(*port))
            && (given_up || first && other < self.preferred)
        {
            self.preferred = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_port_alone_needs_no_probe() {
        let mut way = WayOut::default();
        way.changed([false, true], true, s(0));
        assert_eq!((way.preferred(), way.deadline(), way.settled()), (1, None, true));
        way.changed([false, false], true, s(0));
        assert_eq!(way.preferred(), 0);
    }

    #[test]
    fn without_a_service_the_first_port_is_the_way_out() {
        let mut way = WayOut::default();
        way.changed([false, true], false, s(0));
        way.changed([true, true], false, s(1));
        assert_eq!((way.preferred(), way.deadline()), (0, None));
    }

    /// Field case camera-port-first.
    #[test]
    fn a_gateway_that_leads_nowhere_is_not_the_way_out() {
        for order in [[0, 1], [1, 0]] {
            let mut way = WayOut::default();
            way.changed([true, true], true, s(0));
            assert!(!way.settled() && way.due(s(0)) && !way.due(s(1)));
            for port in order {
                way.probed(port, port == 1, s(3));
            }
            assert_eq!((way.preferred(), way.settled()), (1, true), "{order:?}");
        }
    }

    #[test]
    fn both_reach_it_and_the_first_is_taken_in_whichever_order_they_answer() {
        for order in [[0, 1], [1, 0]] {
            let mut way = WayOut::default();
            way.changed([false, true], true, s(0));
            way.changed([true, true], true, s(1));
            way.due(s(1));
            for port in order {
                way.probed(port, true, s(2));
            }
            assert_eq!(way.preferred(), 0, "{order:?}");
            assert!(way.due(s(11)), "the probe after the first one comes soon");
            assert_eq!(way.deadline(), Some(s(311)));
        }
    }

    #[test]
    fn one_lost_packet_changes_nothing_and_two_do() {
        let mut way = WayOut::default();
        way.changed([true, true], true, s(0));
        way.due(s(0));
        way.probed(0, true, s(1));
        way.probed(1, true, s(1));
        way.due(s(10));
        way.probed(1, true, s(11));
        way.probed(0, false, s(12));
        assert_eq!(way.preferred(), 0);
        assert_eq!(way.deadline(), Some(s(22)));
        way.due(s(22));
        way.probed(0, false, s(23));
        assert_eq!(way.preferred(), 1);
        // Back again only when the second one fails: routes that change back and forth cut every connection.
        way.probed(0, true, s(30));
        assert_eq!(way.preferred(), 1);
        way.probed(1, false, s(40));
        way.probed(1, false, s(50));
        assert_eq!(way.preferred(), 0);
    }

    #[test]
    fn nobody_reaches_it_and_everything_stays() {
        let mut way = WayOut::default();
        way.changed([true, true], true, s(0));
        way.due(s(0));
        for second in 1..20 {
            way.probed(0, false, s(second));
            way.probed(1, false, s(second));
        }
        assert_eq!((way.preferred(), way.settled()), (0, true));
        way.probed(1, true, s(30));
        assert_eq!(way.preferred(), 1);
    }
}

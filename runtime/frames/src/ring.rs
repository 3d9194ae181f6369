//! Who may read and who may write which slot of a ring: the bookkeeping, without memory, sockets or a clock.
//!
//! The state lives with the producer alone; what clients say is checked against it. Rules, which the property tests at
//! the end hold against arbitrary histories:
//!
//! 1. A slot is written only while it is not the newest picture and nobody has a lease on it.
//! 2. A client has at most [`LEASES`] leases, and all clients of an owner together [`OWNER_LEASES`], each on a published
//!    picture that it had not seen before, and always on the newest one at the time it was handed out.
//! 3. A client's leases end with its release or its connection, whichever comes first; a release that names anything
//!    else changes nothing.
//! 4. With `2 + LEASES × clients` slots there is always one to write to: a client that keeps its leases for ever harms
//!    nobody else.

use belvedere_interfaces::channel::frames::{LEASES, OWNER_LEASES};
use std::collections::BTreeMap;

/// A client of one ring; chosen by the caller, unique among the clients present.
pub type ClientId = u64;
/// Whose client it is; chosen by the caller.
pub type OwnerId = u64;

/// How many slots a ring needs so that `clients` clients never stand in the way of the next picture: one being
/// written, the newest, and all leases.
pub const fn slots_for(clients: usize) -> u32 {
    (2 + LEASES * clients) as u32
}

/// A picture that is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Where.
    pub slot: u32,
    /// Counts pictures of the stream, those that nobody asked for included.
    pub sequence: u64,
    /// Microseconds since 1970 at which it arrived from the camera.
    pub timestamp_us: i64,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    leases: usize,
}

#[derive(Debug, Clone, Default)]
struct Client {
    owner: OwnerId,
    wants: bool,
    seen: Option<u64>,
    leases: Vec<(u32, u64)>,
}

/// The bookkeeping of one ring.
#[derive(Debug, Clone)]
pub struct Ring {
    slots: Vec<Slot>,
    writing: Option<u32>,
    newest: Option<Published>,
    clients: BTreeMap<ClientId, Client>,
}

impl Ring {
    /// A ring of `slots` empty slots.
    pub fn new(slots: u32) -> Self {
        Ring { slots: vec![Slot::default(); slots as usize], writing: None, newest: None, clients: BTreeMap::new() }
    }

    /// A client appears. It is given no frame before it asks for one.
    pub fn join(&mut self, client: ClientId, owner: OwnerId) {
        self.clients.entry(client).or_default().owner = owner;
    }

    /// A client disappears, and with it its leases.
    pub fn gone(&mut self, client: ClientId) {
        if let Some(client) = self.clients.remove(&client) {
            for (slot, _) in client.leases {
                self.return_lease(slot);
            }
        }
    }

    /// The client asks for one frame. Asking twice asks for one.
    pub fn next(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.wants = true;
        }
    }

    /// The client gives a slot back. Whether it had that lease; if not, nothing changes.
    pub fn release(&mut self, client: ClientId, slot: u32, sequence: u64) -> bool {
        let Some(client) = self.clients.get_mut(&client) else { return false };
        let Some(index) = client.leases.iter().position(|lease| *lease == (slot, sequence)) else { return false };
        client.leases.swap_remove(index);
        self.return_lease(slot);
        true
    }

    fn return_lease(&mut self, slot: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.leases = slot.leases.saturating_sub(1);
    }

    /// Whether a client, and its owner, may have another lease.
    fn may_lease(&self, client: &Client) -> bool {
        let of_owner = || -> usize {
            self.clients.values().filter(|other| other.owner == client.owner).map(|other| other.leases.len()).sum()
        };
        client.leases.len() < LEASES && of_owner() < OWNER_LEASES
    }

    /// Whether somebody asks for a picture and could be given one now: if not, converting the next one is in vain.
    pub fn wanted(&self) -> bool {
        self.clients.values().any(|client| client.wants && self.may_lease(client))
    }

    /// A slot to write the next picture into; none if every slot is the newest, leased, or being written. Ends with
    /// [`Ring::publish`] or [`Ring::abandon`].
    ///
    /// The lowest number that is free: memory that was never needed is then never touched.
    pub fn begin(&mut self) -> Option<u32> {
        if self.writing.is_some() {
            return None;
        }
        let newest = self.newest.map(|newest| newest.slot);
        let slot = (0u32..)
            .zip(&self.slots)
            .find(|(index, slot)| slot.leases == 0 && Some(*index) != newest)
            .map(|(index, _)| index)?;
        self.writing = Some(slot);
        Some(slot)
    }

    /// The slot that [`Ring::begin`] gave now holds this picture, which becomes the newest. Pictures come in the order
    /// of their sequence numbers.
    pub fn publish(&mut self, sequence: u64, timestamp_us: i64) -> Option<Published> {
        let slot = self.writing.take()?;
        let published = Published { slot, sequence, timestamp_us };
        self.newest = Some(published);
        Some(published)
    }

    /// The slot that [`Ring::begin`] gave was not filled.
    pub fn abandon(&mut self) {
        self.writing = None;
    }

    /// There is a newer picture than the newest of the ring (nobody asked for it, so that it was not converted), or the
    /// stream ended: who asks from now on waits for the next one instead of being given an old one.
    pub fn outdate(&mut self) {
        self.newest = None;
    }

    /// Hands the newest picture, with a lease, to a client that asks for one, has not seen it and has a lease left.
    /// Call until there is none.
    pub fn grant(&mut self) -> Option<(ClientId, Published)> {
        let newest = self.newest?;
        let id = *self
            .clients
            .iter()
            .find(|(_, client)| {
                client.wants && client.seen.is_none_or(|seen| seen < newest.sequence) && self.may_lease(client)
            })?
            .0;
        let client = self.clients.get_mut(&id)?;
        client.wants = false;
        client.seen = Some(newest.sequence);
        client.leases.push((newest.slot, newest.sequence));
        self.slots[newest.slot as usize].leases += 1;
        Some((id, newest))
    }

    /// Carries clients, and what they asked for, over from a ring of another size that this one replaces. Leases stay with
    /// the ring that they are of.
    pub fn take_over(&mut self, from: &mut Ring) {
        from.newest = None;
        self.newest = None;
        for (id, theirs) in &mut from.clients {
            let ours = self.clients.entry(*id).or_default();
            ours.owner = theirs.owner;
            ours.wants = std::mem::take(&mut theirs.wants);
            ours.seen = ours.seen.max(theirs.seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn publish(ring: &mut Ring, sequence: u64) -> Option<Published> {
        ring.begin()?;
        ring.publish(sequence, sequence as i64)
    }

    #[test]
    fn a_slow_client_gets_the_newest_picture_and_not_the_queue() {
        let mut ring = Ring::new(slots_for(1));
        ring.join(1, 1);
        for sequence in 1..=10 {
            publish(&mut ring, sequence).unwrap();
        }
        assert_eq!(ring.grant(), None, "it did not ask");
        ring.next(1);
        let (client, picture) = ring.grant().unwrap();
        assert_eq!((client, picture.sequence), (1, 10));
        ring.next(1);
        assert_eq!(ring.grant(), None, "it has seen the newest");
        publish(&mut ring, 11).unwrap();
        assert_eq!(ring.grant().unwrap().1.sequence, 11);
    }

    #[test]
    fn a_client_without_a_lease_left_is_answered_after_it_releases_one() {
        let mut ring = Ring::new(slots_for(1));
        ring.join(1, 1);
        let mut held = Vec::new();
        for sequence in 1..=LEASES as u64 {
            publish(&mut ring, sequence).unwrap();
            ring.next(1);
            held.push(ring.grant().unwrap().1);
        }
        ring.next(1);
        assert!(!ring.wanted());
        publish(&mut ring, 100).unwrap();
        assert_eq!(ring.grant(), None);
        assert!(ring.release(1, held[0].slot, held[0].sequence));
        assert_eq!(ring.grant().unwrap().1.sequence, 100);
    }

    #[test]
    fn an_old_picture_is_not_handed_out_as_new() {
        let mut ring = Ring::new(slots_for(2));
        ring.join(1, 1);
        ring.next(1);
        publish(&mut ring, 1).unwrap();
        ring.grant().unwrap();
        ring.outdate();
        ring.join(2, 2);
        ring.next(2);
        assert_eq!(ring.grant(), None);
        publish(&mut ring, 3).unwrap();
        assert_eq!(ring.grant().unwrap().1.sequence, 3);
    }

    #[test]
    fn with_too_few_slots_the_new_picture_is_dropped_and_the_leased_ones_stay() {
        let mut ring = Ring::new(2);
        ring.join(1, 1);
        publish(&mut ring, 1).unwrap();
        ring.next(1);
        let (_, first) = ring.grant().unwrap();
        publish(&mut ring, 2).unwrap();
        assert_eq!(publish(&mut ring, 3), None);
        assert!(ring.release(1, first.slot, first.sequence));
        assert_eq!(publish(&mut ring, 3).unwrap().slot, first.slot);
    }

    #[test]
    fn what_was_asked_of_the_old_ring_is_answered_from_the_new_one() {
        let mut ring = Ring::new(slots_for(1));
        ring.join(1, 1);
        publish(&mut ring, 1).unwrap();
        ring.next(1);
        let (_, old) = ring.grant().unwrap();
        ring.next(1);
        let mut first = ring;
        let mut ring = Ring::new(slots_for(1));
        ring.take_over(&mut first);
        publish(&mut ring, 2).unwrap();
        assert_eq!(ring.grant().unwrap().1.sequence, 2);
        assert!(!ring.release(1, old.slot, old.sequence));
        // And back again: what is still leased there is not written.
        ring.next(1);
        first.take_over(&mut ring);
        assert_ne!(publish(&mut first, 3).unwrap().slot, old.slot);
        assert_eq!(first.grant().unwrap().1.sequence, 3);
        assert!(first.release(1, old.slot, old.sequence));
        assert!(!ring.wanted());
    }

    #[test]
    fn runtime_d2_all_clients_of_an_owner_together_have_a_bounded_number_of_leases() {
        let mut ring = Ring::new(slots_for(20));
        for client in 0..10 {
            ring.join(client, 7);
        }
        ring.join(10, 8);
        let mut granted = 0;
        for sequence in 1..50 {
            (0..10).for_each(|client| ring.next(client));
            publish(&mut ring, sequence).unwrap();
            while ring.grant().is_some() {
                granted += 1;
            }
        }
        assert_eq!(granted, OWNER_LEASES);
        assert!(!ring.wanted());
        ring.next(10);
        assert!(ring.wanted());
        assert_eq!(ring.grant().unwrap().0, 10);
        // One that goes gives back what its owner had too many of.
        ring.gone(0);
        publish(&mut ring, 50).unwrap();
        assert!(ring.wanted() && ring.grant().is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u64),
        Gone(u64),
        Next(u64),
        Release(u64, usize),
        Forge(u64, u32, u64),
        Repeat(u64),
        Begin,
        Publish,
        Abandon,
        Outdate,
        Grant,
    }

    const CLIENTS: u64 = 3;

    fn step() -> impl Strategy<Value = Step> {
        let client = 0..CLIENTS;
        prop_oneof![
            1 => client.clone().prop_map(Step::Join),
            1 => client.clone().prop_map(Step::Gone),
            4 => client.clone().prop_map(Step::Next),
            3 => (client.clone(), 0usize..4).prop_map(|(c, i)| Step::Release(c, i)),
            1 => (client.clone(), 0u32..12, 0u64..40).prop_map(|(c, s, q)| Step::Forge(c, s, q)),
            1 => client.prop_map(Step::Repeat),
            4 => Just(Step::Begin),
            4 => Just(Step::Publish),
            1 => Just(Step::Abandon),
            1 => Just(Step::Outdate),
            6 => Just(Step::Grant),
        ]
    }

    proptest! {
        /// An independent model of who holds what, and the four rules of the module after every step.
        #[test]
        fn no_history_breaks_the_rules(
            steps in prop::collection::vec(step(), 1..200),
            slots in 2u32..=slots_for(CLIENTS as usize),
        ) {
            let mut ring = Ring::new(slots);
            let mut present = HashSet::new();
            let mut held: HashMap<u64, Vec<(u32, u64)>> = HashMap::new();
            let mut returned: HashMap<u64, (u32, u64)> = HashMap::new();
            let mut seen: HashMap<u64, u64> = HashMap::new();
            let (mut writing, mut newest, mut sequence) = (None::<u32>, None::<(u32, u64)>, 0u64);
            for step in steps {
                match step {
                    Step::Join(client) => {
                        ring.join(client, client);
                        present.insert(client);
                    }
                    Step::Gone(client) => {
                        ring.gone(client);
                        present.remove(&client);
                        held.remove(&client);
                        returned.remove(&client);
                        seen.remove(&client);
                    }
                    Step::Next(client) => ring.next(client),
                    Step::Release(client, index) => {
                        let leases = held.entry(client).or_default();
                        if index < leases.len() {
                            let lease = leases.remove(index);
                            returned.insert(client, lease);
                            prop_assert!(ring.release(client, lease.0, lease.1));
                        }
                    }
                    Step::Forge(client, slot, number) => {
                        let leases = held.entry(client).or_default();
                        let honest = leases.iter().position(|lease| *lease == (slot, number));
                        prop_assert_eq!(ring.release(client, slot, number), honest.is_some());
                        if let Some(index) = honest {
                            leases.remove(index);
                        }
                    }
                    Step::Repeat(client) => {
                        if let Some(lease) = returned.get(&client) {
                            prop_assert!(!ring.release(client, lease.0, lease.1), "released twice");
                        }
                    }
                    Step::Begin => {
                        let leased: HashSet<u32> = held.values().flatten().map(|lease| lease.0).collect();
                        let free = (0..slots)
                            .filter(|s| !leased.contains(s) && newest.map(|n| n.0) != Some(*s))
                            .count();
                        let before = writing;
                        match ring.begin() {
                            Some(slot) => {
                                prop_assert!(before.is_none());
                                prop_assert!(!leased.contains(&slot), "leased slot handed out for writing");
                                prop_assert!(newest.map(|n| n.0) != Some(slot), "newest handed out for writing");
                                writing = Some(slot);
                            }
                            None => prop_assert!(before.is_some() || free == 0, "a free slot leaked"),
                        }
                        if slots == slots_for(CLIENTS as usize) {
                            prop_assert!(writing.is_some(), "rule 4");
                        }
                    }
                    Step::Publish => {
                        sequence += 1;
                        let published = ring.publish(sequence, 0);
                        prop_assert_eq!(published.map(|p| p.slot), writing);
                        if published.is_some() {
                            newest = writing.take().map(|slot| (slot, sequence));
                        }
                    }
                    Step::Abandon => {
                        ring.abandon();
                        writing = None;
                    }
                    Step::Outdate => {
                        ring.outdate();
                        newest = None;
                    }
                    Step::Grant => {
                        if let Some((client, picture)) = ring.grant() {
                            prop_assert!(present.contains(&client));
                            prop_assert_eq!(Some((picture.slot, picture.sequence)), newest, "not the newest");
                            prop_assert!(writing != Some(picture.slot), "being written");
                            let last = seen.insert(client, picture.sequence);
                            prop_assert!(last.is_none_or(|last| last < picture.sequence), "seen before");
                            let leases = held.entry(client).or_default();
                            leases.push((picture.slot, picture.sequence));
                            prop_assert!(leases.len() <= LEASES);
                        }
                    }
                }
            }
            // Nothing leaks: when all have gone, every slot but the newest can be written again.
            for client in 0..CLIENTS {
                ring.gone(client);
            }
            ring.abandon();
            prop_assert!(ring.slots.iter().all(|slot| slot.leases == 0));
            prop_assert!(ring.begin().is_some());
        }
    }
}

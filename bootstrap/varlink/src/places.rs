//! Who holds how many connections: a bound for each user, so that whoever takes them takes only its own.

use crate::{MAXIMUM_CONNECTIONS, MAXIMUM_CONNECTIONS_PER_USER};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections each user holds; those with none are not in it.
type Held = BTreeMap<u32, usize>;

/// The places of one server.
#[derive(Default)]
pub(crate) struct Places(Arc<Mutex<Held>>);

/// A place that is held, until this is dropped.
pub(crate) struct Place {
    places: Arc<Mutex<Held>>,
    user: u32,
}

/// No place is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// The user holds all that are its own.
    #[error("user {0} holds {MAXIMUM_CONNECTIONS_PER_USER} connections already")]
    User(u32),
    /// Many users hold some.
    #[error("{MAXIMUM_CONNECTIONS} connections are open")]
    Server,
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// Takes a place for a user.
    pub fn take(&self, user: u32) -> Result<Place, Full> {
        let mut held = lock(&self.0);
        if held.values().sum::<usize>() >= MAXIMUM_CONNECTIONS {
            return Err(Full::Server);
        }
        let own = held.entry(user).or_default();
        if *own >= MAXIMUM_CONNECTIONS_PER_USER {
            return Err(Full::User(user));
        }
        *own += 1;
        Ok(Place { places: Arc::clone(&self.0), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.places);
        if let Some(own) = held.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// boot D23: one service that holds every place shut all others out.
    #[test]
    fn a_user_that_holds_all_its_places_leaves_others_theirs() {
        let places = Places::default();
        let mut held: Vec<Place> = (0..MAXIMUM_CONNECTIONS_PER_USER).map(|_| places.take(105).ok().unwrap()).collect();
        assert_eq!(places.take(105).err(), Some(Full::User(105)));
        assert!(places.take(104).is_ok());
        held.pop();
        assert!(places.take(105).is_ok(), "a place comes back");
        drop(held);
        assert!(lock(&places.0).is_empty(), "users that left are forgotten");
    }

    #[test]
    fn many_users_together_are_bounded_and_every_service_has_its_share() {
        let places = Places::default();
        let mut held = Vec::new();
        while let Ok(place) = places.take(100_000 + u32::try_from(held.len()).unwrap()) {
            held.push(place);
        }
        assert_eq!(held.len(), MAXIMUM_CONNECTIONS);
        assert_eq!(places.take(104).err(), Some(Full::Server));
        let services = belvedere_interfaces::users::USERS.len() + 1;
        assert!(MAXIMUM_CONNECTIONS >= services * MAXIMUM_CONNECTIONS_PER_USER);
    }
}

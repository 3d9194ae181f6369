//! Who is bringing which object: two installations may run at a time, but not two of one archive, and nothing that is
//! being brought is collected.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits looks whether it is still worth it.
const LOOK: Duration = Duration::from_millis(500);

/// Objects by their SHA-256, and the application instance that brings each.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<BTreeMap<String, String>>,
    released: Condvar,
}

/// The right to bring one object; ends when dropped.
#[derive(Debug)]
pub struct Claim<'a> {
    claims: &'a Claims,
    sha256: String,
}

impl Claims {
    /// Waits until nobody else brings this object, for as long as `go_on` says. `waiting` is told once for whom.
    pub fn claim(&self, sha256: &str, by: &str, go_on: &dyn Fn() -> bool, waiting: &dyn Fn(&str)) -> Option<Claim<'_>> {
        let mut said = None;
        let mut held = self.all();
        loop {
            let Some(other) = held.get(sha256).cloned() else {
                held.insert(sha256.to_owned(), by.to_owned());
                return Some(Claim { claims: self, sha256: sha256.to_owned() });
            };
            // Others are asked and told without the lock.
            drop(held);
            if said.as_ref() != Some(&other) {
                waiting(&other);
                said = Some(other);
            }
            if !go_on() {
                return None;
            }
            held = self.all();
            if held.contains_key(sha256) {
                held = self.released.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// All claims. While this is held, nobody begins to look whether an object is there.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.all().remove(&self.sha256);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn one_brings_an_object_and_others_wait_or_leave() {
        let claims = Claims::default();
        let yes: &(dyn Fn() -> bool + Sync) = &|| true;
        let first = claims.claim("a", "one", yes, &|_| panic!("nobody else is there")).unwrap();
        claims.claim("b", "two", yes, &|_| panic!("another object")).unwrap();
        let told = Mutex::new(String::new());
        assert!(claims.claim("a", "two", &|| false, &|other| told.lock().unwrap().push_str(other)).is_none());
        assert_eq!(*told.lock().unwrap(), "one");
        let got = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _claim = claims.claim("a", "two", yes, &|_| {}).unwrap();
                got.store(true, Ordering::Relaxed);
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!got.load(Ordering::Relaxed));
            drop(first);
        });
        assert!(got.load(Ordering::Relaxed) && claims.all().is_empty());
    }
}

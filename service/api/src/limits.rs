//! How much of everything there may be, and how often a caller may ask: the guide's numbers, which the owner of a
//! service changes in the `limits` section of `service.json`.

use belvedere_store::copies::Turn;
use belvedere_store::{Store, StoreError};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

const UNLIMITED: &str = "unlimited";

/// A limit; a number or the word `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// None.
    Unlimited,
    /// So many, this number included.
    AtMost(u64),
}

impl Limit {
    /// Whether one more fits beside so many.
    pub fn admits(self, count: u64) -> bool {
        match self {
            Limit::Unlimited => true,
            Limit::AtMost(most) => count < most,
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::Unlimited => serializer.serialize_str(UNLIMITED),
            Limit::AtMost(most) => serializer.serialize_u64(*most),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Word(String),
        }
        match Given::deserialize(deserializer) {
            Ok(Given::Number(most)) => Ok(Limit::AtMost(most)),
            Ok(Given::Word(word)) if word == UNLIMITED => Ok(Limit::Unlimited),
            _ => Err(D::Error::custom("a limit is a whole number or \"unlimited\"")),
        }
    }
}

/// All limits. What is left out in a file is the guide's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Devices.
    pub devices: Limit,
    /// Packages, cameras among them.
    pub packages: Limit,
    /// Registered patch versions of one package.
    pub versions_per_package: Limit,
    /// Application instances of one device.
    pub applications_per_device: Limit,
    /// Cameras that one application watches at a time. The appliance itself allows eight.
    pub cameras_per_application: Limit,
    /// Deployments to one device within 24 hours.
    pub deployments_per_device_per_day: Limit,
    /// Panorama requests of one access key and all sessions that come from it, each second.
    pub requests_per_second: Limit,
    /// Those of them that create, change or delete.
    pub changes_per_second: Limit,
    /// What was not used of the two rates is saved up for so many seconds.
    pub burst_seconds: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            devices: Limit::AtMost(50),
            packages: Limit::AtMost(50),
            versions_per_package: Limit::AtMost(20),
            applications_per_device: Limit::AtMost(10),
            cameras_per_application: Limit::AtMost(8),
            deployments_per_device_per_day: Limit::AtMost(200),
            requests_per_second: Limit::AtMost(5),
            changes_per_second: Limit::AtMost(1),
            burst_seconds: 40,
        }
    }
}

impl Limits {
    /// Neither quotas nor rates.
    pub fn unlimited() -> Limits {
        Limits {
            devices: Limit::Unlimited,
            packages: Limit::Unlimited,
            versions_per_package: Limit::Unlimited,
            applications_per_device: Limit::Unlimited,
            cameras_per_application: Limit::Unlimited,
            deployments_per_device_per_day: Limit::Unlimited,
            requests_per_second: Limit::Unlimited,
            changes_per_second: Limit::Unlimited,
            burst_seconds: 40,
        }
    }
}

/// Held while something is counted and then made, so that two requests do not both take the last place, here or at
/// another copy of the service.
pub struct Place(#[allow(dead_code)] Option<(Option<Turn>, OwnedMutexGuard<()>)>);

/// One counter for everything that has a quota.
#[derive(Debug, Default, Clone)]
pub struct Counter(Arc<Mutex<()>>);

impl Counter {
    /// Takes its turn; at once where there is nothing to count.
    pub async fn turn(&self, store: &Store, limits: &[Limit]) -> Result<Place, StoreError> {
        if limits.iter().all(|l| *l == Limit::Unlimited) {
            return Ok(Place(None));
        }
        self.alone(store).await
    }

    /// Takes its turn in any case.
    pub async fn alone(&self, store: &Store) -> Result<Place, StoreError> {
        // First among the requests here: one at most waits for other copies, with one connection to the database.
        let here = self.0.clone().lock_owned().await;
        Ok(Place(Some((store.turn("quotas").await?, here))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_single_limits() {
        let limits: Limits = serde_json::from_str(r#"{ "devices": 1000, "requests_per_second": "unlimited" }"#).unwrap();
        let expected = Limits { devices: Limit::AtMost(1000), requests_per_second: Limit::Unlimited, ..Limits::default() };
        assert_eq!(limits, expected);
        for whole in [Limits::default(), Limits::unlimited()] {
            assert_eq!(serde_json::from_value::<Limits>(serde_json::to_value(&whole).unwrap()).unwrap(), whole);
        }
        for wrong in [r#"{ "device": 1 }"#, r#"{ "devices": -1 }"#, r#"{ "devices": "many" }"#, r#"{ "devices": null }"#] {
            assert!(serde_json::from_str::<Limits>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_place_is_the_limit_s() {
        assert!(Limit::AtMost(50).admits(49));
        assert!(!Limit::AtMost(50).admits(50));
        assert!(!Limit::AtMost(0).admits(0));
        assert!(Limit::Unlimited.admits(u64::MAX));
    }
}

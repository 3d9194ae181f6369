//! What the services said, by service, bounded.

use crate::{Lights, pattern};
use belvedere_interfaces::Failure;
use belvedere_interfaces::front_panel::{Condition, NetworkCondition, SetCondition, SetNetwork};
use belvedere_interfaces::users::USERS;
use std::collections::{BTreeMap, BTreeSet};

/// How many different sources are remembered.
pub const MAXIMUM_SOURCES: usize = 32;

/// All facts that hold.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    conditions: BTreeMap<String, BTreeSet<Condition>>,
    network: BTreeMap<String, NetworkCondition>,
}

fn invalid(message: String) -> Failure {
    Failure { reason: "invalid_parameter".into(), message }
}

impl Facts {
    /// Takes a fact in. Fails when a source's name is too long or there are too many sources.
    pub fn set_condition(&mut self, call: &SetCondition) -> Result<(), Failure> {
        let held = Self::entry(&mut self.conditions, &call.source)?;
        if call.active {
            held.insert(call.condition);
        } else {
            held.remove(&call.condition);
        }
        Ok(())
    }

    /// Takes in what a source knows of the network.
    pub fn set_network(&mut self, call: &SetNetwork) -> Result<(), Failure> {
        match call.condition {
            None => drop(self.network.remove(&call.source)),
            Some(condition) => {
                Self::check(&self.network, &call.source)?;
                self.network.insert(call.source.clone(), condition);
            }
        }
        Ok(())
    }

    /// What the lights should show now.
    pub fn lights(&self) -> Lights {
        pattern(self.conditions.values().flatten().copied(), self.network.values().copied())
    }

    fn check<V>(map: &BTreeMap<String, V>, source: &str) -> Result<(), Failure> {
        if source.is_empty() || source.len() > 64 {
            return Err(invalid("the source must be a service's name of 1 to 64 bytes".into()));
        }
        if map.len() >= MAXIMUM_SOURCES && !map.contains_key(source) {
            return Err(invalid(format!("more than {MAXIMUM_SOURCES} sources")));
        }
        Ok(())
    }

    fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, source: &str) -> Result<&'a mut V, Failure> {
        Self::check(map, source)?;
        Ok(map.entry(source.to_owned()).or_default())
    }
}

/// Whether a peer with this user number may speak as `source`: services only for themselves, `root` (which `init` is)
/// for all. Users that are no service's exist on development hosts only.
pub fn source_is_the_peers(source: &str, uid: u32) -> bool {
    USERS.iter().find(|user| user.id == uid).is_none_or(|user| user.name == source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, Rhythm};

    fn say(facts: &mut Facts, source: &str, condition: Condition, active: bool) {
        facts.set_condition(&SetCondition { source: source.into(), condition, active }).unwrap();
    }

    #[test]
    fn one_source_does_not_withdraw_what_another_said() {
        let mut facts = Facts::default();
        say(&mut facts, "init", Condition::Operating, true);
        say(&mut facts, "provisioning", Condition::Error, true);
        say(&mut facts, "agent", Condition::Error, true);
        say(&mut facts, "agent", Condition::Error, false);
        assert_eq!(facts.lights().status.unwrap().colour, Colour::Red);
        say(&mut facts, "provisioning", Condition::Error, false);
        let light = facts.lights().status.unwrap();
        assert_eq!((light.colour, light.rhythm), (Colour::Green, Rhythm::Solid));
    }

    #[test]
    fn the_number_of_sources_and_their_names_are_bounded() {
        let mut facts = Facts::default();
        for number in 0..MAXIMUM_SOURCES {
            say(&mut facts, &number.to_string(), Condition::Error, true);
            let call = SetNetwork { source: number.to_string(), condition: Some(NetworkCondition::Connected) };
            facts.set_network(&call).unwrap();
        }
        let more = |source: &str| SetCondition { source: source.into(), condition: Condition::Error, active: true };
        assert!(facts.set_condition(&more("one too many")).is_err());
        facts.set_condition(&more("0")).unwrap();
        assert!(facts.set_condition(&more("")).is_err());
        assert!(facts.set_condition(&more(&"x".repeat(65))).is_err());
        let network = SetNetwork { source: "one too many".into(), condition: Some(NetworkCondition::Connected) };
        assert!(facts.set_network(&network).is_err());
        facts.set_network(&SetNetwork { source: "0".into(), condition: None }).unwrap();
        facts.set_network(&network).unwrap();
    }

    #[test]
    fn a_service_speaks_for_itself_alone() {
        assert!(source_is_the_peers("camera", 105));
        assert!(!source_is_the_peers("provisioning", 105));
        assert!(source_is_the_peers("init", 0));
    }
}

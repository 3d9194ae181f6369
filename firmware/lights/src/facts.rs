//! What the services said, by service, bounded.

use crate::{Lights, pattern};
use belvedere_interfaces::Failure;
use belvedere_interfaces::front_panel::{Condition, NetworkCondition, SetCondition, SetNetwork};
use belvedere_interfaces::rights::Caller;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many different sources are remembered.
pub const MAXIMUM_SOURCES: usize = 32;

/// How long a condition is shown at least. What an operator waits for beside the machine may be over within a blink of
/// the light; three slow blinks can be read.
fn shortest(condition: Condition) -> Duration {
    match condition {
        Condition::Registering | Condition::CopyingLogs => Duration::from_secs(9),
        _ => Duration::ZERO,
    }
}

/// A condition that holds, or held until a moment ago.
#[derive(Debug, Clone, Copy)]
struct Held {
    since: Duration,
    /// Withdrawn; shown until then.
    until: Option<Duration>,
}

/// All facts that hold. Times are on any clock that never goes back.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    conditions: BTreeMap<String, BTreeMap<Condition, Held>>,
    network: BTreeMap<String, NetworkCondition>,
}

fn invalid(message: String) -> Failure {
    Failure { reason: "invalid_parameter".into(), message }
}

impl Facts {
    /// Takes a fact in at `now`. Fails when a source's name is too long or there are too many sources.
    pub fn set_condition(&mut self, call: &SetCondition, now: Duration) -> Result<(), Failure> {
        let conditions = Self::entry(&mut self.conditions, &call.source)?;
        if call.active {
            conditions.entry(call.condition).or_insert(Held { since: now, until: None }).until = None;
        } else if let Some(held) = conditions.get_mut(&call.condition) {
            held.until = Some(held.since + shortest(call.condition));
        }
        self.forget(now);
        Ok(())
    }

    /// Forgets what was withdrawn and has been shown for long enough.
    fn forget(&mut self, now: Duration) {
        for conditions in self.conditions.values_mut() {
            conditions.retain(|_, held| held.until.is_none_or(|until| until > now));
        }
    }

    /// When the lights change next though nobody says anything.
    pub fn next_change(&self) -> Option<Duration> {
        self.conditions.values().flat_map(BTreeMap::values).filter_map(|held| held.until).min()
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

    /// What the lights should show at `now`.
    pub fn lights(&mut self, now: Duration) -> Lights {
        self.forget(now);
        pattern(self.conditions.values().flat_map(BTreeMap::keys).copied(), self.network.values().copied())
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

/// Whether a caller may speak as `source`: everybody for itself alone, and whoever tries a front panel out on a
/// development host for all.
pub fn source_is_the_callers(source: &str, caller: Option<Caller>) -> bool {
    match caller {
        None => false,
        Some(Caller::Developer) => true,
        Some(caller) => caller.name() == source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, Rhythm};

    fn say(facts: &mut Facts, source: &str, condition: Condition, active: bool) {
        facts.set_condition(&SetCondition { source: source.into(), condition, active }, NOW).unwrap();
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn registering_is_shown_long_enough_to_be_read() {
        let mut facts = Facts::default();
        say(&mut facts, "init", Condition::Operating, true);
        say(&mut facts, "provisioning", Condition::Registering, true);
        say(&mut facts, "provisioning", Condition::Registering, false);
        let colour = |facts: &mut Facts, after: u64| facts.lights(NOW + Duration::from_secs(after)).status.unwrap().colour;
        assert_eq!(facts.next_change(), Some(NOW + Duration::from_secs(9)));
        assert_eq!(colour(&mut facts, 8), Colour::Blue);
        assert_eq!(colour(&mut facts, 9), Colour::Green);
        assert_eq!(facts.next_change(), None);
        // What goes on for longer ends at once, and what begins again goes on.
        say(&mut facts, "provisioning", Condition::Registering, true);
        let call = SetCondition { source: "provisioning".into(), condition: Condition::Registering, active: false };
        facts.set_condition(&call, NOW + Duration::from_secs(3)).unwrap();
        say(&mut facts, "provisioning", Condition::Registering, true);
        assert_eq!(colour(&mut facts, 60), Colour::Blue);
        facts.set_condition(&call, NOW + Duration::from_secs(61)).unwrap();
        assert_eq!(colour(&mut facts, 61), Colour::Green);
        // An error is never hidden by it.
        say(&mut facts, "provisioning", Condition::Registering, true);
        say(&mut facts, "provisioning", Condition::Error, true);
        assert_eq!(colour(&mut facts, 0), Colour::Red);
    }

    #[test]
    fn one_source_does_not_withdraw_what_another_said() {
        let mut facts = Facts::default();
        say(&mut facts, "init", Condition::Operating, true);
        say(&mut facts, "provisioning", Condition::Error, true);
        say(&mut facts, "agent", Condition::Error, true);
        say(&mut facts, "agent", Condition::Error, false);
        assert_eq!(facts.lights(NOW).status.unwrap().colour, Colour::Red);
        say(&mut facts, "provisioning", Condition::Error, false);
        let light = facts.lights(NOW).status.unwrap();
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
        assert!(facts.set_condition(&more("one too many"), NOW).is_err());
        facts.set_condition(&more("0"), NOW).unwrap();
        assert!(facts.set_condition(&more(""), NOW).is_err());
        assert!(facts.set_condition(&more(&"x".repeat(65)), NOW).is_err());
        let network = SetNetwork { source: "one too many".into(), condition: Some(NetworkCondition::Connected) };
        assert!(facts.set_network(&network).is_err());
        facts.set_network(&SetNetwork { source: "0".into(), condition: None }).unwrap();
        facts.set_network(&network).unwrap();
    }

    #[test]
    fn a_service_speaks_for_itself_alone() {
        let says = |source: &str, caller: Caller| source_is_the_callers(source, Some(caller));
        assert!(says("camera", Caller::Service("camera")));
        assert!(!says("provisioning", Caller::Service("camera")));
        assert!(says("init", Caller::Init) && !says("init", Caller::Service("applications")));
        assert!(!says("provisioning", Caller::Init) && says("provisioning", Caller::Developer));
        // boot D11: whom the table does not know could speak for anybody.
        assert!(!source_is_the_callers("init", None));
    }
}

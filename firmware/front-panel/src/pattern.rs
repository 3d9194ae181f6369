//! Which pattern the facts make: the developer guide's table "appliance buttons and lights".

use belvedere_interfaces::front_panel::{Condition, NetworkCondition};
use std::time::Duration;

/// Colours of the panel. Orange is red and green at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// All is well, or will be in a moment.
    Green,
    /// Something with the stick or the service goes on.
    Blue,
    /// Broken, or no cable.
    Red,
    /// Software is being restored.
    Orange,
}

/// How a light is lit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// Always.
    Solid,
    /// Once per second.
    Fast,
    /// Once every three seconds.
    Slow,
}

impl Rhythm {
    /// How long lit and how long dark; `None` for always lit.
    pub fn times(self) -> Option<(Duration, Duration)> {
        let half = match self {
            Rhythm::Solid => return None,
            Rhythm::Fast => Duration::from_millis(500),
            Rhythm::Slow => Duration::from_millis(1500),
        };
        Some((half, half))
    }
}

/// One light that is not dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Light {
    /// Colour.
    pub colour: Colour,
    /// Rhythm.
    pub rhythm: Rhythm,
}

/// Both lights; `None` is dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lights {
    /// The status light.
    pub status: Option<Light>,
    /// The network light.
    pub network: Option<Light>,
}

/// What a condition looks like.
fn appearance(condition: Condition) -> Light {
    use Colour::*;
    use Rhythm::*;
    let (colour, rhythm) = match condition {
        Condition::Booting => (Green, Fast),
        Condition::Operating => (Green, Solid),
        Condition::Registering => (Blue, Slow),
        Condition::CopyingLogs => (Blue, Fast),
        Condition::Error => (Red, Fast),
        Condition::RestoringLatest => (Orange, Slow),
        Condition::RestoringMinimum => (Orange, Fast),
    };
    Light { colour, rhythm }
}

/// The first of these that holds is shown.
///
/// An error hides everything: whoever looks must act. Restoring comes next, because cutting the power then is worst.
/// What happens with the stick (logs before registering: it is the shorter and the stick may be pulled after it) hides
/// how the machine is otherwise. `Booting` hides `Operating`, so that "operating" is never shown too early.
const PRIORITY: [Condition; 7] = [
    Condition::Error,
    Condition::RestoringMinimum,
    Condition::RestoringLatest,
    Condition::CopyingLogs,
    Condition::Registering,
    Condition::Booting,
    Condition::Operating,
];

/// Decides the lights. Without any condition the machine has power and does not operate yet: booting.
pub fn pattern(
    conditions: impl IntoIterator<Item = Condition>,
    network: impl IntoIterator<Item = NetworkCondition>,
) -> Lights {
    let held: Vec<Condition> = conditions.into_iter().collect();
    let shown = PRIORITY.into_iter().find(|condition| held.contains(condition)).unwrap_or(Condition::Booting);
    // Without a cable nobody communicates, whatever the agent last thought.
    let network = network.into_iter().max_by_key(|condition| match condition {
        NetworkCondition::Connected => 0,
        NetworkCondition::Communicating => 1,
        NetworkCondition::NoCable => 2,
    });
    let network = network.map(|condition| match condition {
        NetworkCondition::NoCable => Light { colour: Colour::Red, rhythm: Rhythm::Solid },
        NetworkCondition::Connected => Light { colour: Colour::Green, rhythm: Rhythm::Solid },
        NetworkCondition::Communicating => Light { colour: Colour::Green, rhythm: Rhythm::Fast },
    });
    Lights { status: Some(appearance(shown)), network }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &[Condition]) -> (Colour, Rhythm) {
        let light = pattern(conditions.iter().copied(), []).status.unwrap();
        (light.colour, light.rhythm)
    }

    #[test]
    fn the_guides_table() {
        assert_eq!(status(&[Condition::Booting]), (Colour::Green, Rhythm::Fast));
        assert_eq!(status(&[Condition::Operating]), (Colour::Green, Rhythm::Solid));
        assert_eq!(status(&[Condition::Registering]), (Colour::Blue, Rhythm::Slow));
        assert_eq!(status(&[Condition::CopyingLogs]), (Colour::Blue, Rhythm::Fast));
        assert_eq!(status(&[Condition::Error]), (Colour::Red, Rhythm::Fast));
        assert_eq!(status(&[Condition::RestoringLatest]), (Colour::Orange, Rhythm::Slow));
        assert_eq!(status(&[Condition::RestoringMinimum]), (Colour::Orange, Rhythm::Fast));
        assert_eq!(Rhythm::Fast.times().map(|(on, off)| on + off), Some(Duration::from_secs(1)));
        assert_eq!(Rhythm::Slow.times().map(|(on, off)| on + off), Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_more_urgent_condition_is_shown_in_every_order() {
        for (high, &urgent) in PRIORITY.iter().enumerate() {
            for &other in &PRIORITY[high..] {
                assert_eq!(status(&[urgent, other]), status(&[urgent]));
                assert_eq!(status(&[other, urgent]), status(&[urgent]));
            }
        }
        assert_eq!(status(&[]), status(&[Condition::Booting]));
    }

    #[test]
    fn the_network_light() {
        use NetworkCondition::*;
        let light = |conditions: &[NetworkCondition]| pattern([], conditions.iter().copied()).network;
        let solid_red = Some(Light { colour: Colour::Red, rhythm: Rhythm::Solid });
        let blinking_green = Some(Light { colour: Colour::Green, rhythm: Rhythm::Fast });
        assert_eq!(light(&[]), None);
        assert_eq!(light(&[Connected]), Some(Light { colour: Colour::Green, rhythm: Rhythm::Solid }));
        assert_eq!(light(&[Connected, Communicating]), blinking_green);
        assert_eq!(light(&[Communicating, NoCable]), solid_red);
        assert_eq!(light(&[NoCable, Communicating]), solid_red);
    }
}

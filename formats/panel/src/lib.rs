//! What the front panel's two lights show: the developer guide's table "appliance buttons and lights", once, for the
//! bootloader, for `init` and for the front panel's program. `no_std`, no allocation, no I/O.
//!
//! "A slow blink is once every three seconds. A fast blink is once per second."

#![cfg_attr(not(test), no_std)]

use core::time::Duration;

/// What the status light may show (guide, "Status LED states").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Condition {
    /// "The appliance is booting up": fast green.
    Booting,
    /// Everything was reset, and nobody provisioned the appliance since: slow green. (Guide, "Reset an appliance": "Wait until the
    /// status light blinks green before provisioning or disconnecting the appliance"; fast green is "booting".)
    ReadyToProvision,
    /// "The appliance is operating normally": solid green.
    Operating,
    /// "The appliance is copying configuration files and attempting to register": slow blue.
    Registering,
    /// "The appliance is copying a log image to a USB drive": fast blue.
    CopyingLogs,
    /// "The appliance encountered an error during startup or is overheated", or provisioning failed: fast red.
    Error,
    /// "The appliance is restoring the latest software version": slow orange.
    RestoringLatest,
    /// "The appliance is restoring the minimum software version": fast orange.
    RestoringMinimum,
}

/// What the network light may show (guide, "Network LED states").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum NetworkCondition {
    /// No cable: solid red.
    NoCable,
    /// Cable connected: solid green.
    Connected,
    /// Talking to the service: blinking green.
    Communicating,
}

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

    /// Whether a light is lit so long after it began: for those who have no kernel that blinks.
    pub fn is_lit(self, after: Duration) -> bool {
        self.times().is_none_or(|(on, off)| after.as_millis() % (on + off).as_millis() < on.as_millis())
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

impl Condition {
    /// What it looks like: the guide's table.
    pub fn light(self) -> Light {
        use Colour::*;
        use Rhythm::*;
        let (colour, rhythm) = match self {
            Condition::Booting => (Green, Fast),
            Condition::ReadyToProvision => (Green, Slow),
            Condition::Operating => (Green, Solid),
            Condition::Registering => (Blue, Slow),
            Condition::CopyingLogs => (Blue, Fast),
            Condition::Error => (Red, Fast),
            Condition::RestoringLatest => (Orange, Slow),
            Condition::RestoringMinimum => (Orange, Fast),
        };
        Light { colour, rhythm }
    }
}

/// The first of these that holds is shown.
///
/// An error hides everything: whoever looks must act. Restoring comes next, because cutting the power then is worst.
/// What happens with the stick (logs before registering: it is the shorter and the stick may be pulled after it) hides
/// how the machine is otherwise. `Booting` hides `Operating`, so that "operating" is never shown too early.
pub const PRIORITY: [Condition; 8] = [
    Condition::Error,
    Condition::RestoringMinimum,
    Condition::RestoringLatest,
    Condition::CopyingLogs,
    Condition::Registering,
    Condition::Booting,
    Condition::ReadyToProvision,
    Condition::Operating,
];

/// Decides the lights. Without any condition the machine has power and does not operate yet: booting.
pub fn pattern(
    conditions: impl IntoIterator<Item = Condition>,
    network: impl IntoIterator<Item = NetworkCondition>,
) -> Lights {
    let place = |condition: &Condition| PRIORITY.iter().position(|other| other == condition);
    let shown = conditions.into_iter().min_by_key(place).unwrap_or(Condition::Booting);
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
    Lights { status: Some(shown.light()), network }
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
        assert_eq!(status(&[Condition::ReadyToProvision, Condition::Operating]), (Colour::Green, Rhythm::Slow));
        assert_eq!(status(&[Condition::Registering]), (Colour::Blue, Rhythm::Slow));
        assert_eq!(status(&[Condition::CopyingLogs]), (Colour::Blue, Rhythm::Fast));
        assert_eq!(status(&[Condition::Error]), (Colour::Red, Rhythm::Fast));
        assert_eq!(status(&[Condition::RestoringLatest]), (Colour::Orange, Rhythm::Slow));
        assert_eq!(status(&[Condition::RestoringMinimum]), (Colour::Orange, Rhythm::Fast));
        assert_eq!(Rhythm::Fast.times().map(|(on, off)| on + off), Some(Duration::from_secs(1)));
        assert_eq!(Rhythm::Slow.times().map(|(on, off)| on + off), Some(Duration::from_secs(3)));
        let lit = |rhythm: Rhythm| core::array::from_fn(|half| rhythm.is_lit(Duration::from_millis(500 * half as u64)));
        assert_eq!(lit(Rhythm::Fast), [true, false, true, false, true, false, true]);
        assert_eq!(lit(Rhythm::Slow), [true, true, true, false, false, false, true]);
        assert_eq!(lit(Rhythm::Solid), [true; 7]);
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

//! What `init` says to the front panel, by a thread of its own: PID 1 never waits for a service.

use crate::reset;
use belvedere_boot_slots::Reset;
use belvedere_interfaces::front_panel::{Condition, SetCondition};
use belvedere_interfaces::paths;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// What the status light should say as far as `init` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Everything required was ready once.
    pub operating: bool,
    /// Something required does not start.
    pub error: bool,
    /// The reset that is under way until the appliance operates.
    pub reset: Reset,
}

impl Facts {
    /// Every condition that is `init`'s to state, and whether it holds.
    fn conditions(self) -> [(Condition, bool); 5] {
        let restoring = reset::condition(self.reset).filter(|_| !self.operating);
        [
            (Condition::Error, self.error),
            (Condition::RestoringLatest, restoring == Some(Condition::RestoringLatest)),
            (Condition::RestoringMinimum, restoring == Some(Condition::RestoringMinimum)),
            (Condition::Operating, self.operating),
            (Condition::Booting, !self.operating),
        ]
    }
}

/// Starts the thread. Facts that are sent are told to the front panel, again and again until it takes them; sending
/// the same facts anew tells them anew, to a front panel that was restarted.
pub fn start() -> Sender<Facts> {
    let (sender, receiver) = channel::<Facts>();
    let tell_all = move || {
        let mut pending: Option<Facts> = None;
        loop {
            let facts = match (receiver.recv_timeout(Duration::from_millis(500)), pending) {
                (Ok(facts), _) => facts,
                (Err(RecvTimeoutError::Timeout), Some(facts)) => facts,
                (Err(RecvTimeoutError::Timeout), None) => continue,
                (Err(RecvTimeoutError::Disconnected), _) => return,
            };
            pending = if tell(facts).is_ok() { None } else { Some(facts) };
        }
    };
    if let Err(error) = std::thread::Builder::new().name("panel".into()).spawn(tell_all) {
        crate::console::say(&format!("start a thread for the front panel: {error}; the lights stay as they are"));
    }
    sender
}

fn tell(facts: Facts) -> Result<(), belvedere_varlink::CallError> {
    let mut client = belvedere_varlink::Client::connect(paths::FRONT_PANEL)?;
    for (condition, active) in facts.conditions() {
        client.call(&SetCondition { source: "init".into(), condition, active })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_lights::{Colour, Rhythm, pattern};

    #[test]
    fn the_light_says_what_is_restored_until_the_appliance_operates() {
        for (reset, colour, rhythm) in [
            (Reset::None, Colour::Green, Rhythm::Fast),
            (Reset::Latest, Colour::Orange, Rhythm::Slow),
            (Reset::Minimum, Colour::Orange, Rhythm::Fast),
            (Reset::Full, Colour::Orange, Rhythm::Fast),
        ] {
            let light = |operating| {
                let conditions = Facts { operating, error: false, reset }.conditions();
                let held = conditions.into_iter().filter_map(|(condition, holds)| holds.then_some(condition));
                pattern(held, []).status.map(|light| (light.colour, light.rhythm))
            };
            assert_eq!(light(false), Some((colour, rhythm)));
            assert_eq!(light(true), Some((Colour::Green, Rhythm::Solid)));
        }
    }
}

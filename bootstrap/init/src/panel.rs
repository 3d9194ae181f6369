//! What `init` says to the front panel, by a thread of its own: PID 1 never waits for a service.

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
    let conditions =
        [(Condition::Error, facts.error), (Condition::Operating, facts.operating), (Condition::Booting, !facts.operating)];
    for (condition, active) in conditions {
        client.call(&SetCondition { source: "init".into(), condition, active })?;
    }
    Ok(())
}

//! The service deleted the device: when that is asked about, and what is done then.
//!
//! A device that was deleted cannot connect by MQTT any more. So while there is no connection, the service is asked over
//! HTTPS, which the device's certificate is still good for. Nothing else frees an appliance: no answer, a refusal, and a
//! service that does not know the device any more, because it was restored from a backup, change nothing.
//!
//! What is done then, in this order, each step again after a power cut (`bootstrap/provisioning`, `identity`, has the whole
//! list): the identity is given up, the desired applications become none, applications with their storage are removed, what
//! this process keeps is removed, provisioning is told, the machine restarts.

use crate::service::Options;
use belvedere_interfaces::applications::{GetReports, SetDesired};
use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::provisioning::{FinishRelease, Identity, Release};
use belvedere_varlink::Pulse;
use std::time::{Duration, Instant};

/// First question after the connection was lost. A service that restarts is back sooner, and is not asked by all at once.
const FIRST_WAIT: Duration = Duration::from_secs(8);
/// Between questions.
const WAIT: Duration = Duration::from_secs(60);
/// Between attempts at one of the steps.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is said that a step does not succeed.
const SAY: Duration = Duration::from_secs(60);

/// When to ask.
#[derive(Debug)]
pub struct Asking {
    at: Option<Duration>,
    under_way: bool,
}

impl Asking {
    /// Not connected.
    pub fn new(now: Duration, random: u32) -> Self {
        Self { at: Some(now + spread(FIRST_WAIT, random)), under_way: false }
    }

    /// MQTT is connected: the device stands.
    pub fn connected(&mut self) {
        self.at = None;
    }

    /// MQTT is gone.
    pub fn disconnected(&mut self, now: Duration, random: u32) {
        self.at = Some(now + spread(FIRST_WAIT, random));
    }

    /// Whether to ask now; then an answer is awaited.
    pub fn ask(&mut self, now: Duration, random: u32) -> bool {
        if self.under_way || self.at.is_none_or(|at| now < at) {
            return false;
        }
        self.under_way = true;
        self.at = Some(now + spread(WAIT, random));
        true
    }

    /// An answer came, or none.
    pub fn answered(&mut self) {
        self.under_way = false;
    }

    /// When [`Asking::ask`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        if self.under_way { None } else { self.at }
    }
}

/// Half of the wait and a random part of the other half.
fn spread(wait: Duration, random: u32) -> Duration {
    wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Gives the identity up, for good.
pub fn give_up(options: &Options, identity: &Identity) {
    log::warn!("the service has released this appliance; giving {} up", identity.thing_name);
    let release = Release { thing_name: identity.thing_name.clone(), generation: identity.generation };
    if let Err(error) = belvedere_varlink::call(&options.provisioning, &release) {
        // The service will say it again, unless there is another identity by now.
        log::error!("give the identity up: {error}");
        std::thread::sleep(RETRY);
    }
}

/// Removes what is left of the earlier owner. Comes back when that is done; a process that does not answer is asked again.
pub fn clear(options: &Options, files: &[&str], pulse: &Pulse) {
    let mut said: Option<Instant> = None;
    while let Err(message) = try_to_clear(options, files) {
        pulse.beat();
        if said.is_none_or(|at| at.elapsed() >= SAY) {
            log::warn!("clearing the released appliance: {message}; trying again");
            said = Some(Instant::now());
        }
        std::thread::sleep(RETRY);
    }
    log::info!("nothing of the earlier owner is left; restarting, so that nothing of it stays in memory either");
    let restart = Restart { why: "the appliance was released by its service".into() };
    if let Err(error) = belvedere_varlink::call(&options.init, &restart) {
        log::warn!("ask init for the restart: {error}");
    }
    std::thread::sleep(RETRY);
}

fn try_to_clear(options: &Options, files: &[&str]) -> Result<(), String> {
    let text = |error: belvedere_varlink::CallError| error.to_string();
    belvedere_varlink::call(&options.applications, &SetDesired { deployments: Vec::new() }).map_err(text)?;
    let reports = belvedere_varlink::call(&options.applications, &GetReports {}).map_err(text)?;
    if let Some(left) = reports.applications.iter().find(|report| report.status != "REMOVAL_SUCCEEDED") {
        return Err(format!("{} is {}", left.application_instance_id, left.status));
    }
    for file in files {
        belvedere_durable::remove_file(&options.state, file).map_err(|error| error.to_string())?;
    }
    belvedere_varlink::call(&options.provisioning, &FinishRelease {}).map(drop).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn boot_d8_the_service_is_asked_only_while_there_is_no_connection() {
        let mut asking = Asking::new(Duration::ZERO, u32::MAX);
        assert!(!asking.ask(7 * SECOND, 0));
        asking.connected();
        assert_eq!((asking.deadline(), asking.ask(1000 * SECOND, 0)), (None, false));
        asking.disconnected(1000 * SECOND, u32::MAX);
        assert!(!asking.ask(1007 * SECOND, 0) && asking.ask(1008 * SECOND, u32::MAX));
        assert!(!asking.ask(1100 * SECOND, 0), "one question at a time");
        asking.answered();
        assert_eq!(asking.deadline(), Some(1068 * SECOND), "within about a minute");
        assert!(asking.ask(1068 * SECOND, 0));
    }

    #[test]
    fn a_fleet_does_not_ask_in_step() {
        assert_eq!(spread(WAIT, 0), WAIT / 2);
        assert_eq!(spread(WAIT, u32::MAX), WAIT);
    }
}

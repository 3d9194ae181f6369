//! `belvedere-front-panel`: serves `org.belvedere.FrontPanel` and drives the lights.

use belvedere_interfaces::front_panel::{SetCondition, SetNetwork};
use belvedere_interfaces::{Done, Failure, paths};
use belvedere_lights::{Facts, Leds, SysfsLeds, source_is_the_callers};
use belvedere_varlink::{Peer, Pulse, Server};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Shows on the appliance's lights what its services say (org.belvedere.FrontPanel).
#[derive(Parser)]
struct Arguments {
    /// Socket to serve.
    #[arg(long, default_value = paths::FRONT_PANEL)]
    socket: PathBuf,
    /// Directory of the LED class.
    #[arg(long, default_value = SysfsLeds::ROOT)]
    leds: PathBuf,
}

/// A turn of a loop here writes a few files of sysfs.
const LONGEST_TURN: Duration = Duration::from_secs(30);

struct Panel {
    facts: Facts,
    leds: Leds<SysfsLeds>,
    began: Instant,
}

impl Panel {
    fn show(&mut self) {
        let lights = self.facts.lights(self.began.elapsed());
        if let Err(error) = self.leds.show(lights) {
            log::error!("show {lights:?}: {error}");
        }
    }
}

/// Shows what changes by time alone; nearly always asleep while there is no such thing.
fn keep_time(panel: &Mutex<Panel>, changed: &Condvar) {
    let pulse = Pulse::new("lights", LONGEST_TURN);
    let mut held = panel.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let rest = held.facts.next_change().map_or(Pulse::WAIT, |at| {
            at.saturating_sub(held.began.elapsed()).max(Duration::from_millis(1)).min(Pulse::WAIT)
        });
        held = changed.wait_timeout(held, rest).unwrap_or_else(PoisonError::into_inner).0;
        held.show();
        pulse.beat();
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    let mut leds = Leds::new(SysfsLeds::new(&arguments.leds));
    if leds.present().is_empty() {
        log::warn!("no light of ours in {}: this board shows nothing", arguments.leds.display());
    }
    if let Err(error) = leds.prepare() {
        log::warn!("give the lights their timers: {error}");
    }
    let panel = Arc::new(Mutex::new(Panel { facts: Facts::default(), leds, began: Instant::now() }));
    let changed = Arc::new(Condvar::new());
    let (timed, wakes) = (Arc::clone(&panel), Arc::clone(&changed));
    std::thread::spawn(move || keep_time(&timed, &wakes));
    let watched = Arc::clone(&panel);
    let change = move |source: &str, peer: Peer, change: &dyn Fn(&mut Facts, Duration) -> Result<(), Failure>| {
        if !source_is_the_callers(source, peer.caller) {
            let message = format!("user {} may not speak as {source:?}; state your own facts", peer.uid);
            return Err(Failure { reason: "permission_denied".into(), message });
        }
        let mut panel = panel.lock().unwrap_or_else(PoisonError::into_inner);
        let now = panel.began.elapsed();
        change(&mut panel.facts, now)?;
        panel.show();
        changed.notify_one();
        Ok(Done {})
    };
    let change = Arc::new(change);
    let network = Arc::clone(&change);
    let server = match Server::bind(&arguments.socket) {
        Ok(server) => server,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let serving = server
        .watch(Pulse::new("calls", LONGEST_TURN), move || !matches!(watched.try_lock(), Err(TryLockError::WouldBlock)))
        .route(move |call: SetCondition, peer| {
            log::info!("{} says {:?}: {}", call.source, call.condition, call.active);
            change(&call.source, peer, &|facts, now| facts.set_condition(&call, now))
        })
        .route(move |call: SetNetwork, peer| network(&call.source, peer, &|facts, _| facts.set_network(&call)))
        .spawn();
    belvedere_varlink::notify_ready();
    let _ = serving.join();
    log::error!("the socket was closed");
    ExitCode::FAILURE
}

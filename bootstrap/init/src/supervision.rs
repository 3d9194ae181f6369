//! When which service is started, ended and given up on: a state machine that touches nothing.
//!
//! Time is given to it (since the kernel's start); it answers with [`Action`]s for the executor. A service goes
//! `Waiting → Running (→ ready) → (Dying →) BackOff → Running …`, and `Ended` in a shutdown. `Dying` is one that was not
//! ready in time or fell silent: it was killed, and its end has not arrived yet.
//!
//! A start ends in green or ends: see [`Trial`].

use std::time::Duration;

/// What the machine needs to know of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For messages.
    pub name: &'static str,
    /// Numbers of the services that it comes after.
    pub after: Vec<usize>,
    /// Whether the appliance operates without it.
    pub required: bool,
    /// See [`crate::table::READY_WITHIN`].
    pub ready_within: Duration,
    /// See [`crate::table::HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`crate::table::PATIENCE`].
    pub patience: Duration,
    /// See [`crate::table::Service::first_to_end`].
    pub first_to_end: bool,
}

/// How long to wait after the first, second, … failure in a row; the last holds for all further ones. Never given up.
pub const BACK_OFF: [Duration; 7] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];
/// So many failures in a row of a required service are an error that the light shows.
pub const ERROR_AFTER: usize = 3;
/// A service that ran so long starts anew with its failures.
pub const STEADY: Duration = Duration::from_secs(60);
/// How long the first round of a shutdown may take, and the second: together with unmounting, less than 10 s.
pub const ROUNDS: [Duration; 2] = [Duration::from_millis(5000), Duration::from_millis(2500)];
/// A required service that has been down for so long takes the green light away; one that fell silent does at once.
pub const DOWN_TIME: Duration = Duration::from_secs(15);
/// How long the first start of an unproven slot may take to operate, and a required service of it to work again: it makes
/// what later ones find, and a machine under load took most of it.
pub const FIRST_TRY_TIME: Duration = Duration::from_secs(100);
/// The same for the later starts. The README has the sum of all three, which is over within 5 minutes.
pub const LATER_TRY_TIME: Duration = Duration::from_secs(70);
/// How long a start of an unproven slot may stand still: no service becomes ready that was not yet. Each one that does
/// gives the others this time anew, so a slow start is left alone and one that hangs ends soon.
pub const STANDSTILL: Duration = Duration::from_secs(45);
/// The same as [`FIRST_TRY_TIME`] for a proven slot, which nothing better waits for: long enough for a machine under load,
/// and for whoever looks at it.
pub const PROVEN_TIME: Duration = Duration::from_secs(600);
/// A proven slot that was green for so long without a break works: how often it failed before is forgotten. Much longer than
/// [`PROVEN_TIME`], after which one that fails at every start is given up.
pub const WORKS_TIME: Duration = Duration::from_secs(3600);
/// How long the light shows before a restart that nobody asked for that there is an error.
pub const WARNING_TIME: Duration = Duration::from_secs(8);
/// When time went on by more than this between two looks, then nobody could look (the machine stood still, or PID 1
/// did): what passed is not held against the services.
const UNSEEN: Duration = Duration::from_secs(5);

/// What is known of the slot that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It operated before.
    Proven,
    /// It is unproven, and this is its first start.
    First,
    /// It is unproven, and was started in vain before.
    Later,
}

impl Trial {
    /// How long it may last that the appliance does not operate, or, when it has operated, that a required service fails.
    /// Then the machine starts again: the bootloader counts the start and gives another slot its turn; the counts, and the
    /// pauses when nothing is left to start, are the bootloader's (`formats/boot-slots`).
    pub fn longest(self) -> Duration {
        match self {
            Trial::Proven => PROVEN_TIME,
            Trial::First => FIRST_TRY_TIME,
            Trial::Later => LATER_TRY_TIME,
        }
    }

    /// How long it may last that no service becomes ready, while the appliance does not operate yet.
    pub fn standstill(self) -> Duration {
        if self == Trial::Proven { PROVEN_TIME } else { STANDSTILL }
    }
}

/// What was wrong with a service last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It did not say in time that it is ready.
    NotReady,
    /// It was ready, and gave no sign of life any more.
    Silent,
    /// It ended.
    Ended,
    /// There is no such program.
    Missing,
}

impl Fault {
    /// For people; `time` is how long it was waited for.
    pub fn of(self, name: &str, time: Duration) -> String {
        match self {
            Fault::NotReady => format!("{name} did not become ready within {} s", time.as_secs()),
            Fault::Silent => format!("{name} is silent"),
            Fault::Ended => format!("{name} ends again and again"),
            Fault::Missing => format!("{name} is missing"),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time went on.
    Tick,
    /// A service said that it is ready.
    Ready(usize),
    /// A service gave a sign of life.
    Beat(usize),
    /// A service's process ended, or could not be started.
    Exited(usize),
    /// A service's program does not exist; `excused` in a development image.
    Missing {
        /// Which.
        service: usize,
        /// Not an error.
        excused: bool,
    },
    /// The machine is to end.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start its process.
    Start(usize),
    /// Ask it to end (SIGTERM).
    Terminate(usize),
    /// End it and everything it started.
    Kill(usize),
    /// It was not ready in time: log that.
    NotReady(usize),
    /// It gave no sign of life for too long: log that.
    Silent(usize),
    /// All that is required was ready at once, for the first time. The light is green from now on.
    Operating,
    /// It operated for [`WORKS_TIME`], for the first time.
    Works,
    /// The light is not green any more although it was, or is again.
    Green(bool),
    /// The appliance does not come to operate, or does not any more: start the machine again.
    GiveUp {
        /// The service that is the reason.
        service: usize,
        /// What is wrong with it.
        fault: Fault,
        /// How long it was waited for.
        time: Duration,
    },
    /// Whether the light shows an error; the name of a service that is the reason.
    Error(Option<&'static str>),
    /// Nothing runs any more.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// `since`: when it was started, or when it became ready. `heard`: its last sign of life; none before it is ready.
    Running {
        since: Duration,
        heard: Option<Duration>,
    },
    /// Killed; killed again at `until`.
    Dying {
        until: Duration,
    },
    BackOff {
        until: Duration,
    },
    Absent {
        excused: bool,
    },
    Ended,
}

#[derive(Debug, Clone)]
struct Entry {
    policy: Policy,
    state: State,
    failures: usize,
    /// Whether it was ready at some time.
    was_ready: bool,
    /// When it failed first of all failures that it was not forgiven yet.
    failed: Option<Duration>,
    fault: Option<Fault>,
}

impl Entry {
    fn fail(&mut self, now: Duration, fault: Fault) {
        self.failed = self.failed.or(Some(now));
        self.fault = Some(fault);
    }

    /// It has run long enough.
    fn forgive(&mut self) {
        (self.failures, self.failed, self.fault) = (0, None, None);
    }
}

/// All services.
#[derive(Debug, Clone)]
pub struct Supervision {
    entries: Vec<Entry>,
    began: Duration,
    trial: Trial,
    /// From when [`Trial::longest`] is counted.
    counted: Duration,
    /// From when [`Trial::standstill`] is counted: a service became ready for the first time.
    progressed: Duration,
    /// When was looked last.
    looked: Duration,
    operating: bool,
    green: bool,
    /// Since when it is green without a break.
    green_since: Option<Duration>,
    /// [`Action::Works`] was told.
    works: bool,
    /// Since when the machine is about to be started again.
    doomed: Option<Duration>,
    given_up: bool,
    error: Option<&'static str>,
    /// Round of the shutdown and when it ends.
    stopping: Option<(usize, Duration)>,
    stopped: bool,
}

impl Supervision {
    /// Nothing runs yet; the first [`Event::Tick`] starts.
    pub fn new(policies: Vec<Policy>, now: Duration, trial: Trial) -> Supervision {
        let entry =
            |policy| Entry { policy, state: State::Waiting, failures: 0, was_ready: false, failed: None, fault: None };
        Supervision {
            entries: policies.into_iter().map(entry).collect(),
            began: now,
            trial,
            counted: now,
            progressed: now,
            looked: now,
            operating: false,
            green: false,
            green_since: None,
            works: false,
            doomed: None,
            given_up: false,
            error: None,
            stopping: None,
            stopped: false,
        }
    }

    /// Whether a service is ready now.
    pub fn is_ready(&self, service: usize) -> bool {
        matches!(self.entries[service].state, State::Running { heard: Some(_), .. })
    }

    /// Takes in what happened and says what to do. Who has many things to tell tells them all before [`Event::Tick`]: only
    /// then is asked who fell silent.
    pub fn step(&mut self, now: Duration, event: &Event) -> Vec<Action> {
        let mut actions = Vec::new();
        // Before anything is judged: the first to tell something after a standstill may be a service.
        self.look(now);
        match *event {
            Event::Tick => {}
            Event::Ready(service) => {
                let entry = &mut self.entries[service];
                if let State::Running { since, heard: heard @ None } = &mut entry.state {
                    (*since, *heard) = (now, Some(now));
                    if !std::mem::replace(&mut entry.was_ready, true) {
                        self.progressed = now;
                    }
                }
            }
            Event::Beat(service) => {
                let entry = &mut self.entries[service];
                if let State::Running { since, heard: Some(heard) } = &mut entry.state {
                    *heard = now;
                    if now.saturating_sub(*since) >= STEADY {
                        entry.forgive();
                    }
                }
            }
            Event::Exited(service) => self.exited(now, service),
            Event::Missing { service, excused } => {
                self.entries[service].state = State::Absent { excused };
                self.entries[service].fail(now, Fault::Missing);
            }
            Event::Stop => self.stop(now, &mut actions),
        }
        // What is missing is said before anything starts, one after the other: none may be started meanwhile.
        if matches!(event, Event::Missing { .. }) {
            self.judge(now, &mut actions);
        } else if self.stopping.is_some() {
            self.go_on_stopping(now, &mut actions);
        } else {
            self.supervise(now, *event == Event::Tick, &mut actions);
            self.judge(now, &mut actions);
        }
        actions
    }

    /// Takes out of all waiting the time in which nobody could look.
    fn look(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.looked);
        self.looked = now;
        if passed <= UNSEEN {
            return;
        }
        let later = |time: &mut Duration| *time = (*time + passed).min(now);
        later(&mut self.counted);
        later(&mut self.progressed);
        self.doomed.iter_mut().for_each(later);
        self.green_since.iter_mut().for_each(later);
        for entry in &mut self.entries {
            entry.failed.iter_mut().for_each(later);
            if let State::Running { since, heard } = &mut entry.state {
                // Who is not ready is waited for since its start.
                later(heard.as_mut().unwrap_or(since));
            }
        }
    }

    fn exited(&mut self, now: Duration, service: usize) {
        let stopping = self.stopping.is_some();
        let entry = &mut self.entries[service];
        match entry.state {
            State::Running { .. } | State::Dying { .. } if stopping => {
                entry.state = State::Ended;
                return;
            }
            State::Running { since, heard } => {
                if heard.is_some() && now.saturating_sub(since) >= STEADY {
                    entry.forgive();
                }
                entry.fail(now, Fault::Ended);
            }
            // Why was noted when it was killed.
            State::Dying { .. } => {}
            _ => return,
        }
        let wait = BACK_OFF[entry.failures.min(BACK_OFF.len() - 1)];
        entry.failures += 1;
        entry.state = State::BackOff { until: now + wait };
    }

    fn supervise(&mut self, now: Duration, tick: bool, actions: &mut Vec<Action>) {
        for number in 0..self.entries.len() {
            let entry = &self.entries[number];
            let start = match entry.state {
                State::Waiting => {
                    let patient = now.saturating_sub(self.began) < entry.policy.patience;
                    let settled =
                        |&other: &usize| self.is_ready(other) || matches!(self.entries[other].state, State::Absent { .. });
                    !patient || entry.policy.after.iter().all(settled)
                }
                State::BackOff { until } => now >= until,
                State::Running { since, heard: None } if now.saturating_sub(since) >= entry.policy.ready_within => {
                    actions.push(Action::NotReady(number));
                    self.kill(now, number, Fault::NotReady, actions);
                    false
                }
                State::Running { heard: Some(heard), .. } if tick && now.saturating_sub(heard) >= entry.policy.heartbeat => {
                    actions.push(Action::Silent(number));
                    self.kill(now, number, Fault::Silent, actions);
                    false
                }
                State::Dying { until } if now >= until => {
                    let fault = entry.fault.unwrap_or(Fault::NotReady);
                    self.kill(now, number, fault, actions);
                    false
                }
                _ => false,
            };
            if start {
                self.entries[number].state = State::Running { since: now, heard: None };
                actions.push(Action::Start(number));
            }
        }
    }

    /// Its end arrives as an event.
    fn kill(&mut self, now: Duration, number: usize, fault: Fault, actions: &mut Vec<Action>) {
        let entry = &mut self.entries[number];
        entry.fail(now, fault);
        entry.state = State::Dying { until: now + entry.policy.ready_within };
        actions.push(Action::Kill(number));
    }

    /// Whether the appliance could operate as far as this service is concerned.
    fn works(&self, number: usize) -> bool {
        let entry = &self.entries[number];
        !entry.policy.required || self.is_ready(number) || entry.state == State::Absent { excused: true }
    }

    /// Whether it first failed so long ago and is not forgiven yet.
    fn failing(&self, now: Duration, number: usize, time: Duration) -> bool {
        self.entries[number].failed.is_some_and(|failed| now.saturating_sub(failed) >= time)
    }

    /// What the light should say, and whether the machine should start again.
    fn judge(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let down: Vec<usize> = (0..self.entries.len()).filter(|&number| !self.works(number)).collect();
        if down.is_empty() && !self.operating {
            (self.operating, self.green) = (true, true);
            actions.push(Action::Operating);
        } else if self.operating {
            let silent = |number: usize| self.entries[number].fault == Some(Fault::Silent);
            let green = down.is_empty()
                || (self.green && !down.iter().any(|&number| silent(number) || self.failing(now, number, DOWN_TIME)));
            if green != self.green {
                self.green = green;
                actions.push(Action::Green(green));
            }
        }
        self.green_since = self.green.then(|| self.green_since.unwrap_or(now));
        let long = self.green_since.is_some_and(|since| now.saturating_sub(since) >= WORKS_TIME);
        if long && down.is_empty() && !std::mem::replace(&mut self.works, true) {
            actions.push(Action::Works);
        }
        let nearly = |since: Duration, limit: Duration| now.saturating_sub(since) >= limit - WARNING_TIME;
        let culprit = if self.operating {
            down.iter().copied().find(|&number| self.failing(now, number, self.trial.longest() - WARNING_TIME))
        } else {
            let late = nearly(self.counted, self.trial.longest()) || nearly(self.progressed, self.trial.standstill());
            down.first().copied().filter(|_| late)
        };
        self.doomed = culprit.map(|_| self.doomed.unwrap_or(now));
        if let (Some(service), Some(since)) = (culprit, self.doomed)
            && now.saturating_sub(since) >= WARNING_TIME
            && !std::mem::replace(&mut self.given_up, true)
        {
            let fault = self.entries[service].fault.unwrap_or(Fault::NotReady);
            actions.push(Action::GiveUp { service, fault, time: now.saturating_sub(self.counted) });
        }
        let failed = down.into_iter().find(|&number| {
            let entry = &self.entries[number];
            entry.state == State::Absent { excused: false } || entry.failures >= ERROR_AFTER
        });
        let error = failed.or(culprit).map(|number| self.entries[number].policy.name);
        if error != self.error {
            self.error = error;
            actions.push(Action::Error(error));
        }
    }

    fn in_round(&self, number: usize, round: usize) -> bool {
        self.entries[number].policy.first_to_end == (round == 0)
    }

    fn running(&self, number: usize) -> bool {
        matches!(self.entries[number].state, State::Running { .. } | State::Dying { .. })
    }

    fn begin_round(&mut self, now: Duration, round: usize, actions: &mut Vec<Action>) {
        self.stopping = Some((round, now + ROUNDS[round]));
        // Last started, first ended.
        for number in (0..self.entries.len()).rev() {
            if self.in_round(number, round) && self.running(number) {
                actions.push(Action::Terminate(number));
            }
        }
    }

    fn stop(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stopping.is_none() {
            for entry in &mut self.entries {
                if !matches!(entry.state, State::Running { .. } | State::Dying { .. }) {
                    entry.state = State::Ended;
                }
            }
            self.begin_round(now, 0, actions);
        }
    }

    fn go_on_stopping(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some((round, deadline)) = self.stopping {
            let left: Vec<usize> =
                (0..self.entries.len()).filter(|&number| self.in_round(number, round) && self.running(number)).collect();
            if !left.is_empty() && now < deadline {
                return;
            }
            for number in left {
                actions.push(Action::Kill(number));
                self.entries[number].state = State::Ended;
            }
            if round + 1 < ROUNDS.len() {
                self.begin_round(now, round + 1, actions);
            } else {
                if !self.stopped {
                    self.stopped = true;
                    actions.push(Action::Stopped);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! When which service is started, ended and given up on: a state machine that touches nothing.
//!
//! Time is given to it (since the kernel's start); it answers with [`Action`]s for the executor. A service goes
//! `Waiting → Running (→ ready) → BackOff → Running …`, and `Ended` in a shutdown.

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

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time went on.
    Tick,
    /// A service said that it is ready.
    Ready(usize),
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
    /// All that is required was ready at once, for the first time.
    Operating,
    /// Whether the light shows an error; the name of a service that is the reason.
    Error(Option<&'static str>),
    /// Nothing runs any more.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running { since: Duration, ready: bool },
    BackOff { until: Duration },
    Absent { excused: bool },
    Ended,
}

#[derive(Debug, Clone)]
struct Entry {
    policy: Policy,
    state: State,
    failures: usize,
}

/// All services.
#[derive(Debug, Clone)]
pub struct Supervision {
    entries: Vec<Entry>,
    began: Duration,
    operating: bool,
    error: Option<&'static str>,
    /// Round of the shutdown and when it ends.
    stopping: Option<(usize, Duration)>,
    stopped: bool,
}

impl Supervision {
    /// Nothing runs yet; the first [`Event::Tick`] starts.
    pub fn new(policies: Vec<Policy>, now: Duration) -> Supervision {
        let entries = policies.into_iter().map(|policy| Entry { policy, state: State::Waiting, failures: 0 }).collect();
        Supervision { entries, began: now, operating: false, error: None, stopping: None, stopped: false }
    }

    /// Whether a service is ready now.
    pub fn is_ready(&self, service: usize) -> bool {
        matches!(self.entries[service].state, State::Running { ready: true, .. })
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now: Duration, event: &Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match *event {
            Event::Tick => {}
            Event::Ready(service) => {
                if let State::Running { ready, .. } = &mut self.entries[service].state {
                    *ready = true;
                }
            }
            Event::Exited(service) => self.exited(now, service),
            Event::Missing { service, excused } => self.entries[service].state = State::Absent { excused },
            Event::Stop => self.stop(now, &mut actions),
        }
        // What is missing is said before anything starts, one after the other: none may be started meanwhile.
        if matches!(event, Event::Missing { .. }) {
            self.judge(&mut actions);
        } else if self.stopping.is_some() {
            self.go_on_stopping(now, &mut actions);
        } else {
            self.supervise(now, &mut actions);
            self.judge(&mut actions);
        }
        actions
    }

    fn exited(&mut self, now: Duration, service: usize) {
        let stopping = self.stopping.is_some();
        let entry = &mut self.entries[service];
        let State::Running { since, ready } = entry.state else { return };
        if stopping {
            entry.state = State::Ended;
            return;
        }
        if ready && now.saturating_sub(since) >= STEADY {
            entry.failures = 0;
        }
        let wait = BACK_OFF[entry.failures.min(BACK_OFF.len() - 1)];
        entry.failures += 1;
        entry.state = State::BackOff { until: now + wait };
    }

    fn supervise(&mut self, now: Duration, actions: &mut Vec<Action>) {
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
                State::Running { since, ready: false } if now.saturating_sub(since) >= entry.policy.ready_within => {
                    actions.push(Action::NotReady(number));
                    actions.push(Action::Kill(number));
                    // Its end arrives as an event; until then it gets another such time.
                    self.entries[number].state = State::Running { since: now, ready: false };
                    false
                }
                _ => false,
            };
            if start {
                self.entries[number].state = State::Running { since: now, ready: false };
                actions.push(Action::Start(number));
            }
        }
    }

    /// What the light should say.
    fn judge(&mut self, actions: &mut Vec<Action>) {
        let all = self.entries.iter().enumerate().all(|(number, entry)| {
            !entry.policy.required || self.is_ready(number) || entry.state == State::Absent { excused: true }
        });
        if all && !self.operating {
            self.operating = true;
            actions.push(Action::Operating);
        }
        let failed = self.entries.iter().enumerate().find(|(number, entry)| {
            let gone = entry.state == State::Absent { excused: false };
            let failing = entry.failures >= ERROR_AFTER && !self.is_ready(*number);
            entry.policy.required && (gone || failing)
        });
        let error = failed.map(|(_, entry)| entry.policy.name);
        if error != self.error {
            self.error = error;
            actions.push(Action::Error(error));
        }
    }

    fn in_round(&self, number: usize, round: usize) -> bool {
        self.entries[number].policy.first_to_end == (round == 0)
    }

    fn running(&self, number: usize) -> bool {
        matches!(self.entries[number].state, State::Running { .. })
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
                if !matches!(entry.state, State::Running { .. }) {
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
mod tests {
    use super::*;

    fn policy(name: &'static str, after: &[usize]) -> Policy {
        Policy {
            name,
            after: after.to_vec(),
            required: true,
            ready_within: Duration::from_secs(90),
            patience: Duration::from_secs(15),
            first_to_end: name == "applications",
        }
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn two() -> Supervision {
        Supervision::new(vec![policy("camera", &[]), policy("applications", &[0])], at(1.0))
    }

    #[test]
    fn services_start_in_order_and_the_light_turns_when_all_are_ready() {
        let mut machine = two();
        assert_eq!(machine.step(at(1.0), &Event::Tick), [Action::Start(0)]);
        assert_eq!(machine.step(at(2.0), &Event::Tick), []);
        assert_eq!(machine.step(at(3.0), &Event::Ready(0)), [Action::Start(1)]);
        assert_eq!(machine.step(at(4.0), &Event::Ready(1)), [Action::Operating]);
        assert_eq!(machine.step(at(5.0), &Event::Ready(1)), []);
    }

    #[test]
    fn a_service_that_never_gets_ready_does_not_keep_others_down() {
        let mut machine = two();
        machine.step(at(1.0), &Event::Tick);
        assert_eq!(machine.step(at(15.9), &Event::Tick), []);
        assert_eq!(machine.step(at(16.0), &Event::Tick), [Action::Start(1)]);
        assert_eq!(machine.step(at(91.0), &Event::Tick), [Action::NotReady(0), Action::Kill(0)]);
        assert_eq!(machine.step(at(91.1), &Event::Exited(0)), []);
        assert_eq!(machine.step(at(91.3), &Event::Tick), [Action::Start(0)]);
    }

    #[test]
    fn failures_back_off_show_an_error_and_are_forgiven() {
        let mut machine = Supervision::new(vec![policy("camera", &[])], at(0.0));
        let mut now = at(0.0);
        assert_eq!(machine.step(now, &Event::Tick), [Action::Start(0)]);
        for failure in 0..10 {
            let actions = machine.step(now, &Event::Exited(0));
            let expected: &[Action] = if failure == 2 { &[Action::Error(Some("camera"))] } else { &[] };
            assert_eq!(actions, expected, "failure {failure}");
            let wait = BACK_OFF[failure.min(6)];
            assert_eq!(machine.step(now + wait - at(0.001), &Event::Tick), []);
            now += wait;
            assert_eq!(machine.step(now, &Event::Tick), [Action::Start(0)]);
        }
        assert_eq!(machine.step(now, &Event::Ready(0)), [Action::Operating, Action::Error(None)]);
        now += STEADY;
        assert_eq!(machine.step(now, &Event::Exited(0)), []);
        assert_eq!(machine.step(now + BACK_OFF[0], &Event::Tick), [Action::Start(0)]);
    }

    #[test]
    fn a_missing_program_is_an_error_unless_excused() {
        let mut machine = two();
        let actions = machine.step(at(1.0), &Event::Missing { service: 0, excused: false });
        assert_eq!(actions, [Action::Error(Some("camera"))]);
        assert_eq!(machine.step(at(1.0), &Event::Tick), [Action::Start(1)]);
        assert_eq!(machine.step(at(2.0), &Event::Ready(1)), []);
        let mut machine = two();
        machine.step(at(1.0), &Event::Missing { service: 0, excused: true });
        assert_eq!(machine.step(at(1.0), &Event::Tick), [Action::Start(1)]);
        assert_eq!(machine.step(at(2.0), &Event::Ready(1)), [Action::Operating]);
    }

    #[test]
    fn a_shutdown_ends_applications_first_and_kills_who_does_not_listen() {
        let mut machine = two();
        machine.step(at(1.0), &Event::Tick);
        machine.step(at(2.0), &Event::Ready(0));
        assert_eq!(machine.step(at(10.0), &Event::Stop), [Action::Terminate(1)]);
        assert_eq!(machine.step(at(10.1), &Event::Stop), []);
        assert_eq!(machine.step(at(11.0), &Event::Exited(1)), [Action::Terminate(0)]);
        assert_eq!(machine.step(at(13.4), &Event::Tick), []);
        assert_eq!(machine.step(at(13.5), &Event::Tick), [Action::Kill(0), Action::Stopped]);
        assert_eq!(machine.step(at(14.0), &Event::Exited(0)), []);
        let longest: Duration = ROUNDS.iter().sum();
        assert!(longest < at(8.0));
    }

    #[test]
    fn nothing_is_started_during_a_shutdown() {
        let mut machine = two();
        machine.step(at(1.0), &Event::Tick);
        machine.step(at(1.1), &Event::Exited(0));
        assert_eq!(machine.step(at(1.2), &Event::Stop), [Action::Stopped]);
        for second in 2..100 {
            assert_eq!(machine.step(at(f64::from(second)), &Event::Tick), []);
        }
    }

    proptest::proptest! {
        /// Whatever happens in whatever order: a service is never started twice, nothing starts after a stop, and a
        /// stop ends within its rounds.
        #[test]
        fn no_order_of_events_confuses_it(events in proptest::collection::vec((0u8..5, 0usize..3, 0u64..20_000), 1..200)) {
            let mut machine = Supervision::new(vec![policy("a", &[]), policy("b", &[0]), policy("applications", &[0, 1])], at(0.0));
            let (mut now, mut running, mut stop_at, mut stopped) = (at(0.0), [false; 3], None, false);
            for (kind, service, milliseconds) in events {
                now += Duration::from_millis(milliseconds);
                let event = match kind {
                    0 | 1 => Event::Tick,
                    2 if running[service] => Event::Ready(service),
                    3 if running[service] => { running[service] = false; Event::Exited(service) }
                    4 if milliseconds < 1000 => { stop_at = stop_at.or(Some(now)); Event::Stop }
                    _ => continue,
                };
                for action in machine.step(now, &event) {
                    match action {
                        Action::Start(number) => {
                            assert!(!running[number] && stop_at.is_none());
                            running[number] = true;
                        }
                        Action::Stopped => { assert!(!stopped); stopped = true; }
                        _ => {}
                    }
                }
            }
            if let Some(since) = stop_at {
                now = now.max(since + ROUNDS[0]);
                stopped |= machine.step(now, &Event::Tick).contains(&Action::Stopped);
                stopped |= machine.step(now + ROUNDS[1], &Event::Tick).contains(&Action::Stopped);
                assert!(stopped);
            }
        }
    }
}

//! One stream's life as a state machine: no sockets, no clock, no chance; those are given to it.
//!
//! ```text
//!              connect                first picture
//!  (start) ─────────────▶ Connecting ───────────────▶ Playing ◀──┐ picture
//!                 ▲           │ failure, or nothing      │ silence│
//!                 │           ▼ for too long             ▼        │
//!                 └──────── Waiting ◀──────────────── Stalled ────┘
//!                  time is up          still silence, or the end
//! ```
//!
//! It is never given up: a camera may be away for a week-end. A clean end of the session is a failure like any other
//! (a camera that restarts ends its sessions in order), and silence is noticed here, within seconds: RTSP's own
//! keep-alive takes a minute.

use belvedere_interfaces::camera::StreamState;
use std::time::Duration;

/// How patient to be. All times grow with [`Policy::scaled`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// From the attempt to connect, or the last sign of life after it, to the next one, up to the first picture: some
    /// cameras take seconds for each answer.
    pub connect: Duration,
    /// From the attempt to connect to the first picture, however lively the camera is before it.
    pub first_picture: Duration,
    /// Silence after which a stream counts as stalled.
    pub stalled: Duration,
    /// Silence after which the connection is closed.
    pub tear_down: Duration,
    /// Wait after the first failure; doubled with each one that follows.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// Wait after a refused password: cameras lock accounts that are tried too often.
    pub after_refusal: Duration,
    /// Wait after finding something that is not H.264: somebody may set the camera right.
    pub after_unsupported: Duration,
    /// A stream that played for so long begins with the first wait again.
    pub settled: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            connect: Duration::from_secs(15),
            first_picture: Duration::from_secs(120),
            stalled: Duration::from_secs(2),
            tear_down: Duration::from_secs(5),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            after_refusal: Duration::from_secs(60),
            after_unsupported: Duration::from_secs(60),
            settled: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// More patient by `factor` where the machine is slow (under emulation): what measures silence is relaxed, what
    /// spares the camera is not.
    pub fn scaled(self, factor: f64) -> Self {
        let factor = if factor.is_finite() { factor.clamp(0.01, 100.0) } else { 1.0 };
        Policy {
            connect: self.connect.mul_f64(factor),
            first_picture: self.first_picture.mul_f64(factor),
            stalled: self.stalled.mul_f64(factor),
            tear_down: self.tear_down.mul_f64(factor),
            ..self
        }
    }
}

/// Why an attempt or a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// User name or password refused, or asked for and not there.
    AuthenticationFailed,
    /// Not H.264; the text says what instead.
    Unsupported(String),
    /// Everything else, the clean end included; one line.
    Other(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed: [`Machine::deadline`] is over, or nothing in particular.
    Tick,
    /// Something arrived that is no picture: an answer, or part of one.
    Progress,
    /// A picture arrived.
    Picture,
    /// The session that was connected ended by itself.
    Ended(Failure),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin a session.
    Connect,
    /// End the session without ceremony.
    Disconnect,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Connecting { since: Duration, last: Duration },
    Playing { since: Duration, last: Duration },
    Stalled { since: Duration, last: Duration },
    Waiting { until: Duration },
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Machine {
    policy: Policy,
    phase: Phase,
    /// What to report until pictures come (again).
    reported: StreamState,
    detail: String,
    failures: u32,
}

impl Machine {
    /// Begins at `now`; the caller connects at once.
    pub fn new(policy: Policy, now: Duration) -> Self {
        Machine {
            policy,
            phase: Phase::Connecting { since: now, last: now },
            reported: StreamState::Connecting,
            detail: "connecting".into(),
            failures: 0,
        }
    }

    /// Where the stream stands.
    pub fn state(&self) -> StreamState {
        match self.phase {
            Phase::Playing { .. } => StreamState::Playing,
            Phase::Stalled { .. } => StreamState::Stalled,
            Phase::Connecting { .. } | Phase::Waiting { .. } => self.reported,
        }
    }

    /// One line for people; empty while playing (the caller knows size and rate).
    pub fn detail(&self) -> &str {
        match self.phase {
            Phase::Playing { .. } => "",
            Phase::Stalled { .. } => "the camera is connected but sends no pictures",
            Phase::Connecting { .. } | Phase::Waiting { .. } => &self.detail,
        }
    }

    /// When to call [`Machine::step`] with [`Event::Tick`] at the latest.
    pub fn deadline(&self) -> Duration {
        match self.phase {
            Phase::Connecting { since, last } => (last + self.policy.connect).min(since + self.policy.first_picture),
            Phase::Playing { last, .. } => last + self.policy.stalled,
            Phase::Stalled { last, .. } => last + self.policy.tear_down,
            Phase::Waiting { until } => until,
        }
    }

    /// Takes one event at the time `now`; `chance` in 0…1 spreads the waits by ±20 %, so that eighty cameras behind one
    /// switch are not tried in step.
    pub fn step(&mut self, now: Duration, event: Event, chance: f64) -> Option<Action> {
        match (self.phase.clone(), event) {
            (Phase::Waiting { until }, Event::Tick) if now >= until => {
                self.phase = Phase::Connecting { since: now, last: now };
                Some(Action::Connect)
            }
            // What a session says that was already given up.
            (Phase::Waiting { .. }, _) => None,

            (Phase::Connecting { .. }, Event::Picture) => {
                self.phase = Phase::Playing { since: now, last: now };
                None
            }
            (Phase::Playing { since, .. } | Phase::Stalled { since, .. }, Event::Picture) => {
                self.phase = Phase::Playing { since, last: now };
                None
            }

            (Phase::Connecting { since, .. }, Event::Progress) => {
                self.phase = Phase::Connecting { since, last: now };
                None
            }
            // What is no picture does not make a stream alive.
            (_, Event::Progress) => None,

            (Phase::Connecting { .. }, Event::Tick) if now >= self.deadline() => {
                self.fail(now, Failure::Other("the camera sent no picture in time".into()), chance);
                Some(Action::Disconnect)
            }
            (Phase::Playing { since, last }, Event::Tick) if now >= last + self.policy.stalled => {
                self.phase = Phase::Stalled { since, last };
                // The clock may have jumped over both limits.
                self.step(now, Event::Tick, chance)
            }
            (Phase::Stalled { since, last }, Event::Tick) if now >= last + self.policy.tear_down => {
                self.forgive(since, last);
                let silence = format!("the camera sent no picture for {} s", (now - last).as_secs());
                self.fail(now, Failure::Other(silence), chance);
                Some(Action::Disconnect)
            }
            (_, Event::Tick) => None,

            (phase, Event::Ended(failure)) => {
                if let Phase::Playing { since, last } | Phase::Stalled { since, last } = phase {
                    self.forgive(since, last);
                }
                self.fail(now, failure, chance);
                None
            }
        }
    }

    fn forgive(&mut self, since: Duration, last: Duration) {
        if last.saturating_sub(since) >= self.policy.settled {
            self.failures = 0;
        }
    }

    fn fail(&mut self, now: Duration, failure: Failure, chance: f64) {
        let wait = match &failure {
            Failure::AuthenticationFailed => self.policy.after_refusal,
            Failure::Unsupported(_) => self.policy.after_unsupported,
            Failure::Other(_) => {
                // 2^20 s is far beyond every longest wait.
                let doubled = self.policy.first_wait.saturating_mul(1 << self.failures.min(20));
                self.failures = self.failures.saturating_add(1);
                doubled.min(self.policy.longest_wait)
            }
        };
        (self.reported, self.detail) = match failure {
            Failure::AuthenticationFailed => (
                StreamState::AuthenticationFailed,
                "the camera refuses the user name or password: correct them in the data source's package".into(),
            ),
            Failure::Unsupported(text) => (StreamState::Unsupported, text),
            Failure::Other(text) => (StreamState::Backoff, text),
        };
        let spread = 0.8 + 0.4 * chance.clamp(0.0, 1.0);
        self.phase = Phase::Waiting { until: now + wait.mul_f64(spread) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MIDDLE: f64 = 0.5;

    /// Field case slow-answers: four answers of 4 s each, and bytes that come one by one.
    #[test]
    fn a_camera_that_answers_slowly_is_waited_for() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        for second in 1..=119 {
            assert_eq!(machine.step(second * S, Event::Progress, MIDDLE), None);
            assert_eq!(machine.step(second * S, Event::Tick, MIDDLE), None);
        }
        assert_eq!(machine.deadline(), 120 * S, "but not for ever");
        assert_eq!(machine.step(120 * S, Event::Tick, MIDDLE), Some(Action::Disconnect));
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        machine.step(10 * S, Event::Progress, MIDDLE);
        assert_eq!(machine.step(seconds(24.9), Event::Tick, MIDDLE), None);
        machine.step(seconds(24.9), Event::Picture, MIDDLE);
        assert_eq!(machine.state(), StreamState::Playing);
        // Afterwards only pictures count.
        machine.step(26 * S, Event::Progress, MIDDLE);
        assert_eq!(machine.deadline(), seconds(26.9));
    }

    fn other() -> Event {
        Event::Ended(Failure::Other("refused".into()))
    }

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    /// Lets time pass up to the deadline.
    fn wait(machine: &mut Machine) -> (Duration, Option<Action>) {
        let at = machine.deadline();
        (at, machine.step(at, Event::Tick, MIDDLE))
    }

    fn playing() -> Machine {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        assert_eq!(machine.state(), StreamState::Connecting);
        assert_eq!(machine.step(S, Event::Picture, MIDDLE), None);
        assert_eq!(machine.state(), StreamState::Playing);
        machine
    }

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_never_given_up() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..200 {
            assert_eq!(machine.step(now, other(), MIDDLE), None);
            assert_eq!(machine.state(), StreamState::Backoff);
            assert_eq!(machine.detail(), "refused");
            let (then, action) = wait(&mut machine);
            assert_eq!(action, Some(Action::Connect));
            assert_eq!(machine.state(), StreamState::Backoff, "until pictures come");
            waits.push((then - now).as_secs());
            now = then;
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits[199], 30);
    }

    #[test]
    fn waits_are_spread_by_a_fifth() {
        for (chance, expected) in [(0.0, 0.8), (1.0, 1.2), (-7.0, 0.8), (9.0, 1.2)] {
            let mut machine = Machine::new(Policy::default(), Duration::ZERO);
            machine.step(Duration::ZERO, other(), chance);
            assert!((machine.deadline().as_secs_f64() - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn silence_is_a_stall_after_two_seconds_and_the_end_after_five() {
        let mut machine = playing();
        assert_eq!(wait(&mut machine), (3 * S, None));
        assert_eq!(machine.state(), StreamState::Stalled);
        assert_eq!(wait(&mut machine), (6 * S, Some(Action::Disconnect)));
        assert_eq!(machine.state(), StreamState::Backoff);
        assert_eq!(machine.detail(), "the camera sent no picture for 5 s");
        assert_eq!(wait(&mut machine), (7 * S, Some(Action::Connect)));
    }

    #[test]
    fn a_picture_ends_a_stall() {
        let mut machine = playing();
        wait(&mut machine);
        assert_eq!(machine.step(4 * S, Event::Picture, MIDDLE), None);
        assert_eq!(machine.state(), StreamState::Playing);
        assert_eq!(machine.deadline(), 6 * S);
    }

    #[test]
    fn a_clock_that_jumps_over_both_limits_disconnects_at_once() {
        let mut machine = playing();
        assert_eq!(machine.step(100 * S, Event::Tick, MIDDLE), Some(Action::Disconnect));
    }

    #[test]
    fn connecting_that_leads_nowhere_is_given_up_in_time() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        assert_eq!(machine.step(14 * S, Event::Tick, MIDDLE), None);
        assert_eq!(machine.step(15 * S, Event::Tick, MIDDLE), Some(Action::Disconnect));
        assert_eq!(machine.state(), StreamState::Backoff);
    }

    #[test]
    fn a_clean_end_is_a_failure_and_a_settled_stream_begins_with_the_first_wait() {
        let mut machine = playing();
        // Short sessions keep doubling …
        for expected in [1, 2, 4] {
            let now = machine.deadline();
            machine.step(now, Event::Picture, MIDDLE);
            machine.step(now, other(), MIDDLE);
            let (then, action) = wait(&mut machine);
            assert_eq!(((then - now).as_secs(), action), (expected, Some(Action::Connect)));
        }
        // … one of ten seconds does not.
        let mut now = machine.deadline();
        for _ in 0..=10 {
            machine.step(now, Event::Picture, MIDDLE);
            now += S;
        }
        machine.step(now, other(), MIDDLE);
        assert_eq!(machine.deadline() - now, S);
    }

    #[test]
    fn a_refused_password_is_tried_again_slowly() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        for _ in 0..3 {
            let now = machine.deadline();
            machine.step(now, Event::Ended(Failure::AuthenticationFailed), MIDDLE);
            assert_eq!(machine.state(), StreamState::AuthenticationFailed);
            assert_eq!(wait(&mut machine), (now + 60 * S, Some(Action::Connect)));
            assert_eq!(machine.state(), StreamState::AuthenticationFailed);
        }
        machine.step(machine.deadline(), Event::Picture, MIDDLE);
        assert_eq!(machine.state(), StreamState::Playing);
    }

    #[test]
    fn what_is_not_h264_is_said_and_tried_again() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        machine.step(S, Event::Ended(Failure::Unsupported("not H.264".into())), MIDDLE);
        assert_eq!((machine.state(), machine.detail()), (StreamState::Unsupported, "not H.264"));
        assert_eq!(wait(&mut machine), (61 * S, Some(Action::Connect)));
    }

    #[test]
    fn what_a_session_says_after_it_was_given_up_is_not_heard() {
        let mut machine = Machine::new(Policy::default(), Duration::ZERO);
        machine.step(15 * S, Event::Tick, MIDDLE);
        let before = machine.deadline();
        assert_eq!(machine.step(15 * S, Event::Picture, MIDDLE), None);
        assert_eq!(machine.step(15 * S, other(), MIDDLE), None);
        assert_eq!((machine.state(), machine.deadline()), (StreamState::Backoff, before));
    }

    #[test]
    fn a_slow_machine_is_given_time_but_the_camera_is_not_tried_more_often() {
        let policy = Policy::default().scaled(4.0);
        assert_eq!((policy.stalled, policy.tear_down, policy.first_wait), (8 * S, 20 * S, S));
        assert_eq!(Policy::default().scaled(f64::NAN), Policy::default());
        assert_eq!(Policy::default().scaled(1e9).stalled, seconds(200.0));
    }
}

//! The services of a made-up appliance, at made-up times.

use super::*;

fn policy(name: &'static str, after: &[usize]) -> Policy {
    Policy {
        name,
        after: after.to_vec(),
        required: true,
        ready_within: Duration::from_secs(90),
        heartbeat: Duration::from_secs(90),
        patience: Duration::from_secs(15),
        first_to_end: name == "applications",
    }
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn two() -> Supervision {
    Supervision::new(vec![policy("camera", &[]), policy("applications", &[0])], at(1.0), Trial::Proven)
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
    assert_eq!(run(&mut machine, 1.5, 15.5, |_| vec![]), []);
    assert_eq!(machine.step(at(16.0), &Event::Tick), [Action::Start(1)]);
    assert_eq!(run(&mut machine, 16.5, 90.5, |_| vec![]), []);
    assert_eq!(machine.step(at(91.0), &Event::Tick), [Action::NotReady(0), Action::Kill(0)]);
    assert_eq!(machine.step(at(91.1), &Event::Exited(0)), []);
    assert_eq!(machine.step(at(91.3), &Event::Tick), [Action::Start(0)]);
}

#[test]
fn failures_back_off_show_an_error_and_are_forgiven() {
    let mut machine = Supervision::new(vec![policy("camera", &[])], at(0.0), Trial::Proven);
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

/// Ticks of half a second, as PID 1 makes them; `other` may tell something before each. Gives all actions with their times.
fn run(machine: &mut Supervision, from: f64, to: f64, mut other: impl FnMut(f64) -> Vec<Event>) -> Vec<(f64, Action)> {
    let mut done = Vec::new();
    let mut time = from;
    while time <= to {
        let events = other(time).into_iter().chain([Event::Tick]);
        done.extend(events.flat_map(|event| machine.step(at(time), &event)).map(|action| (time, action)));
        time += 0.5;
    }
    done
}

/// Two services that were ready at 2 s.
fn operating(trial: Trial) -> Supervision {
    let policies = vec![policy("camera", &[]), policy("applications", &[])];
    let mut machine = Supervision::new(policies, at(1.0), trial);
    machine.step(at(1.0), &Event::Tick);
    machine.step(at(2.0), &Event::Ready(0));
    assert_eq!(machine.step(at(2.0), &Event::Ready(1)), [Action::Operating]);
    machine
}

#[test]
fn a_required_service_that_falls_silent_is_ended_takes_the_green_light_and_gives_it_back() {
    let mut machine = operating(Trial::Proven);
    let beat = |time: f64| vec![Event::Beat(1), Event::Beat(if time <= 30.0 { 0 } else { 1 })];
    let done = run(&mut machine, 2.5, 130.0, beat);
    assert_eq!(done, [(120.0, Action::Silent(0)), (120.0, Action::Kill(0)), (120.0, Action::Green(false))]);
    assert_eq!(machine.step(at(130.1), &Event::Exited(0)), []);
    let done = run(&mut machine, 130.5, 140.0, |_| vec![Event::Beat(1)]);
    assert_eq!(done, [(130.5, Action::Start(0))]);
    assert_eq!(machine.step(at(140.1), &Event::Ready(0)), [Action::Green(true)]);
    // It counts like a crash: the next waits are longer, and the third in a row is an error.
    machine.step(at(140.2), &Event::Exited(0));
    assert_eq!(machine.step(at(141.1), &Event::Tick), []);
    assert_eq!(machine.step(at(141.2), &Event::Tick), [Action::Start(0)]);
    assert_eq!(machine.step(at(141.3), &Event::Exited(0)), [Action::Error(Some("camera"))]);
}

#[test]
fn a_service_that_is_not_required_takes_no_light() {
    let policies = vec![Policy { required: false, ..policy("camera", &[]) }, policy("applications", &[])];
    let mut machine = Supervision::new(policies, at(1.0), Trial::Later);
    machine.step(at(1.0), &Event::Tick);
    machine.step(at(2.0), &Event::Ready(0));
    machine.step(at(2.0), &Event::Ready(1));
    let done = run(&mut machine, 2.5, 400.0, |_| vec![Event::Beat(1)]);
    assert_eq!(done[..2], [(92.0, Action::Silent(0)), (92.0, Action::Kill(0))]);
    // It cannot be killed either: it is tried again and again.
    assert!(done[2..].iter().all(|(_, action)| *action == Action::Kill(0)), "{done:?}");
    assert_eq!(done.len(), 5);
}

#[test]
fn a_machine_that_stood_still_blames_nobody() {
    let mut machine = operating(Trial::Proven);
    run(&mut machine, 2.5, 50.0, |_| vec![Event::Beat(0), Event::Beat(1)]);
    // An hour later, and signs of life arrive one after the other.
    assert_eq!(machine.step(at(3650.0), &Event::Beat(0)), []);
    assert_eq!(machine.step(at(3650.0), &Event::Tick), []);
    let done = run(&mut machine, 3650.5, 3800.0, |_| vec![Event::Beat(0)]);
    assert_eq!(done[0], (3740.0, Action::Silent(1)));
}

/// Who had become ready meanwhile was ended for it, before the sign in its pipe was read.
#[test]
fn who_was_starting_while_the_machine_stood_still_has_the_rest_of_its_time() {
    let policies = vec![policy("camera", &[]), policy("applications", &[])];
    let mut machine = Supervision::new(policies, at(1.0), Trial::Proven);
    machine.step(at(1.0), &Event::Tick);
    machine.step(at(11.0), &Event::Tick);
    run(&mut machine, 11.5, 21.0, |_| vec![]);
    assert_eq!(machine.step(at(3621.0), &Event::Ready(0)), []);
    assert_eq!(machine.step(at(3621.0), &Event::Tick), []);
    // It had been waited for for 10 s (the first look was late as well) and has 80 s left.
    let done = run(&mut machine, 3621.5, 3710.0, |_| vec![Event::Beat(0)]);
    assert_eq!(done[..2], [(3701.0, Action::NotReady(1)), (3701.0, Action::Kill(1))]);
}

/// The first that was told after it took the green light, and showed an error.
#[test]
fn a_service_that_was_down_while_the_machine_stood_still_takes_no_light() {
    let mut machine = operating(Trial::Later);
    machine.step(at(3.0), &Event::Exited(0));
    assert_eq!(machine.step(at(3.5), &Event::Tick), [Action::Start(0)]);
    assert_eq!(machine.step(at(3600.0), &Event::Beat(1)), []);
    assert_eq!(machine.step(at(3600.0), &Event::Tick), []);
    assert_eq!(machine.step(at(3601.0), &Event::Ready(0)), []);
}

#[test]
fn a_service_down_for_long_takes_the_green_light_and_a_short_fall_does_not() {
    let mut machine = operating(Trial::Proven);
    let beats = |_| vec![Event::Beat(0), Event::Beat(1)];
    machine.step(at(3.0), &Event::Exited(0));
    assert_eq!(run(&mut machine, 3.5, 10.0, beats), [(3.5, Action::Start(0))]);
    assert_eq!(machine.step(at(10.0), &Event::Ready(0)), []);
    // For 60 s well: forgiven, and the next fall is the first again.
    assert_eq!(run(&mut machine, 10.5, 100.0, beats), []);
    machine.step(at(100.0), &Event::Exited(0));
    let done = run(&mut machine, 100.5, 120.0, beats);
    assert_eq!(done, [(100.5, Action::Start(0)), (115.0, Action::Green(false))]);
    assert_eq!(machine.step(at(120.0), &Event::Ready(0)), [Action::Green(true)]);
}

fn trial(number: usize) -> Trial {
    [Trial::Proven, Trial::First, Trial::Later][number]
}

#[test]
fn a_start_that_does_not_operate_ends_after_a_warning() {
    // The first service is ready after a second, the other one never.
    for (trial, ends) in [(Trial::First, 2.0 + 45.0), (Trial::Later, 2.0 + 45.0), (Trial::Proven, 1.0 + 600.0)] {
        let policies = vec![policy("camera", &[]), policy("applications", &[])];
        let mut machine = Supervision::new(policies, at(1.0), trial);
        machine.step(at(1.0), &Event::Tick);
        machine.step(at(2.0), &Event::Ready(0));
        let mut done = Vec::new();
        for half in 5..4000 {
            let time = f64::from(half) / 2.0;
            // Whoever was killed ends.
            let killed = done.contains(&(time - 0.5, Action::Kill(1)));
            let events = if killed { vec![Event::Beat(0), Event::Exited(1)] } else { vec![Event::Beat(0)] };
            done.extend(run(&mut machine, time, time, |_| events.clone()));
        }
        let given_up: Vec<_> = done.iter().filter(|(_, action)| matches!(action, Action::GiveUp { .. })).collect();
        let reason = Action::GiveUp { service: 1, fault: Fault::NotReady, time: at(ends - 1.0) };
        assert_eq!(given_up, [&(ends, reason)]);
        let warned = done.iter().find(|(_, action)| *action == Action::Error(Some("applications"))).unwrap();
        assert!(warned.0 <= ends - 8.0, "{warned:?}");
    }
}

/// A release that is never ready took three times 80 s, and a good one on a machine under load was given up at 80 s.
#[test]
fn a_slow_start_that_gets_on_is_left_alone_and_three_tries_are_over_within_five_minutes() {
    let names = ["a", "b", "c", "d"];
    for (trial, steps, ends) in [
        // 96 s, with 32 s between one and the next.
        (Trial::First, [1.0, 33.0, 64.0, 96.0], None),
        (Trial::Later, [1.0, 20.0, 40.0, 69.0], None),
        (Trial::Later, [1.0, 33.0, 64.0, 96.0], Some(70.0)),
        (Trial::First, [1.0, 43.0, 85.0, 127.0], Some(100.0)),
        (Trial::First, [1.0, 2.0, 3.0, 60.0], Some(48.0)),
        (Trial::Proven, [1.0, 200.0, 400.0, 590.0], None),
    ] {
        let mut machine = Supervision::new(
            names.map(|name| Policy { ready_within: at(900.0), ..policy(name, &[]) }).to_vec(),
            at(0.0),
            trial,
        );
        let done = run(&mut machine, 0.0, 595.0, |time| {
            let beats = (0..4).map(Event::Beat);
            beats.chain(steps.iter().position(|step| *step == time).map(Event::Ready)).collect()
        });
        let given_up = done.iter().find(|(_, action)| matches!(action, Action::GiveUp { .. })).map(|(time, _)| *time);
        assert_eq!(given_up, ends, "{trial:?} {steps:?}");
    }
    // What the README says: from power to the second stage, and the end of a start.
    let (before, end) = (Duration::from_secs(12), ROUNDS[0] + ROUNDS[1]);
    assert!(FIRST_TRY_TIME + 2 * LATER_TRY_TIME + 3 * (before + end) < Duration::from_secs(300));
}

/// Who becomes ready again and again does not get the others time.
#[test]
fn a_service_that_is_ready_for_the_second_time_is_no_progress() {
    let mut machine = Supervision::new(vec![policy("a", &[]), policy("b", &[])], at(0.0), Trial::First);
    let mut ended = false;
    let done = run(&mut machine, 0.0, 100.0, |time| {
        ended = !ended && time > 1.0;
        vec![if ended { Event::Exited(0) } else { Event::Ready(0) }]
    });
    let given_up = done.iter().find(|(_, action)| matches!(action, Action::GiveUp { .. })).unwrap();
    assert!(given_up.0 <= 48.0, "{given_up:?}");
}

#[test]
fn who_gets_ready_in_the_last_moment_takes_the_warning_back() {
    let mut machine = Supervision::new(vec![policy("camera", &[])], at(1.0), Trial::Later);
    let done = run(&mut machine, 1.0, 45.5, |_| vec![]);
    assert_eq!(done, [(1.0, Action::Start(0)), (38.0, Action::Error(Some("camera")))]);
    assert_eq!(machine.step(at(45.6), &Event::Ready(0)), [Action::Operating, Action::Error(None)]);
    assert_eq!(run(&mut machine, 46.0, 900.0, |_| vec![Event::Beat(0)]), []);
}

#[test]
fn a_missing_program_ends_the_start_too() {
    let mut machine = Supervision::new(vec![policy("camera", &[])], at(1.0), Trial::Later);
    machine.step(at(1.0), &Event::Missing { service: 0, excused: false });
    let done = run(&mut machine, 1.0, 200.0, |_| vec![]);
    assert_eq!(done, [(46.0, Action::GiveUp { service: 0, fault: Fault::Missing, time: STANDSTILL })]);
}

#[test]
fn a_required_service_that_fails_for_long_ends_the_start() {
    // It crashes at every start.
    let mut machine = operating(Trial::Proven);
    machine.step(at(100.0), &Event::Exited(0));
    let mut started = false;
    let done = run(&mut machine, 100.5, 2000.0, |_| {
        started = !started;
        vec![Event::Beat(1), if started { Event::Exited(0) } else { Event::Ready(0) }]
    });
    let given_up: Vec<_> = done.iter().filter(|(_, action)| matches!(action, Action::GiveUp { .. })).collect();
    let [(time, Action::GiveUp { service: 0, fault: Fault::Ended, .. })] = given_up[..] else { panic!("{given_up:?}") };
    // While it is up for once nobody gives up.
    assert!((700.0..740.0).contains(time), "{time}");
    // It falls silent, and cannot even be killed.
    let mut machine = operating(Trial::Proven);
    let done = run(&mut machine, 2.5, 2000.0, |_| vec![Event::Beat(1)]);
    let reason = Action::GiveUp { service: 0, fault: Fault::Silent, time: at(91.0 + 600.0) };
    assert!(done.contains(&(92.0 + 600.0, reason)), "{done:?}");
}

#[test]
fn what_operated_for_an_hour_without_a_break_works_and_it_is_said_once() {
    let mut machine = operating(Trial::Proven);
    let beats = |_| vec![Event::Beat(0), Event::Beat(1)];
    let works = |done: Vec<(f64, Action)>| -> Vec<f64> {
        done.into_iter().filter(|(_, action)| *action == Action::Works).map(|(time, _)| time).collect()
    };
    assert_eq!(works(run(&mut machine, 2.5, 3600.0, beats)), [0.0; 0]);
    // It is down for 20 s: the hour begins anew.
    machine.step(at(3600.5), &Event::Exited(0));
    run(&mut machine, 3600.5, 3620.0, |_| vec![Event::Beat(1)]);
    machine.step(at(3620.5), &Event::Ready(0));
    assert_eq!(works(run(&mut machine, 3621.0, 20_000.0, beats)), [3620.5 + 3600.0]);
}

#[test]
fn the_reason_names_the_service() {
    assert_eq!(Fault::NotReady.of("agent", FIRST_TRY_TIME), "agent did not become ready within 100 s");
    assert_eq!(Fault::Silent.of("agent", FIRST_TRY_TIME), "agent is silent");
}

proptest::proptest! {
    /// Whatever happens in whatever order: a service is never started twice, nothing starts after a stop, and a
    /// stop ends within its rounds.
    #[test]
    fn no_order_of_events_confuses_it(
        events in proptest::collection::vec((0u8..6, 0usize..3, 0u64..20_000), 1..200),
        number in 0usize..3,
    ) {
        let policies = vec![policy("a", &[]), policy("b", &[0]), policy("applications", &[0, 1])];
        let mut machine = Supervision::new(policies, at(0.0), trial(number));
        let (mut now, mut running, mut stop_at, mut stopped) = (at(0.0), [false; 3], None, false);
        let (mut green, mut given_up) = (None, false);
        for (kind, service, milliseconds) in events {
            now += Duration::from_millis(milliseconds);
            let event = match kind {
                0 | 1 => Event::Tick,
                2 if running[service] => Event::Ready(service),
                3 if running[service] => { running[service] = false; Event::Exited(service) }
                5 => Event::Beat(service),
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
                    Action::Silent(number) => assert!(running[number] && event == Event::Tick),
                    Action::Operating => { assert_eq!(green, None); green = Some(true); }
                    Action::Green(now) => { assert_eq!(green, Some(!now)); green = Some(now); }
                    Action::GiveUp { .. } => { assert!(!given_up && stop_at.is_none()); given_up = true; }
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

    /// However services behave: the start ends in green or with a restart, neither later than the limit, and a restart
    /// not without a warning.
    #[test]
    fn a_start_ends_in_green_or_ends(
        plans in proptest::collection::vec((0u64..200, 0u64..400), 3),
        number in 0usize..3,
    ) {
        let policies = vec![policy("a", &[]), policy("b", &[0]), policy("applications", &[0, 1])];
        let mut machine = Supervision::new(policies, at(0.0), trial(number));
        let mut started: Vec<Option<Duration>> = vec![None; 3];
        let (mut outcome, mut warned) = (None, None);
        for half in 0..2 * 700 {
            let now = at(f64::from(half) / 2.0);
            let mut events = Vec::new();
            for (number, (ready, end)) in plans.iter().enumerate() {
                let Some(age) = started[number].map(|since| now - since) else { continue };
                if age >= Duration::from_secs(*end) {
                    started[number] = None;
                    events.push(Event::Exited(number));
                } else if age == Duration::from_secs(*ready) {
                    events.push(Event::Ready(number));
                }
            }
            events.push(Event::Tick);
            for action in events.iter().flat_map(|event| machine.step(now, event)).collect::<Vec<_>>() {
                match action {
                    Action::Start(number) => started[number] = Some(now),
                    // It listens to nothing but this.
                    Action::Kill(number) => started[number] = Some(now.saturating_sub(at(400.0))),
                    Action::Error(error) => warned = error.map(|_| warned.unwrap_or(now)),
                    Action::Operating | Action::GiveUp { .. } if outcome.is_none() => outcome = Some((now, action)),
                    _ => {}
                }
            }
            if outcome.is_some() {
                break;
            }
        }
        let (when, action) = outcome.expect("it ends");
        assert!(when <= trial(number).longest(), "{action:?} after {when:?}");
        if action != Action::Operating {
            assert!(warned.is_some_and(|warned| when - warned >= WARNING_TIME), "{when:?} {warned:?}");
        }
    }

    /// Who gives signs of life often enough is never ended for silence; who stops is, and not later than it should be.
    #[test]
    fn silence_is_found_in_time_and_only_silence(pauses in proptest::collection::vec(0u32..89, 0..60)) {
        let mut machine = operating(Trial::Proven);
        let mut next = at(2.0);
        let mut beats: Vec<Duration> = pauses.iter().map(|pause| { next += Duration::from_secs((*pause).into()); next }).collect();
        let last = beats.last().copied().unwrap_or(at(2.0));
        beats.reverse();
        let end = last.as_secs_f64() + 95.0;
        let done = run(&mut machine, 2.5, end, |time| {
            let mut events = vec![Event::Beat(1)];
            while beats.last().is_some_and(|beat| *beat <= at(time)) {
                beats.pop();
                events.push(Event::Beat(0));
            }
            events
        });
        let silent: Vec<f64> =
            done.iter().filter(|(_, action)| *action == Action::Silent(0)).map(|(time, _)| *time).collect();
        let [found] = silent[..] else { panic!("{silent:?}") };
        assert!((90.0..=91.0).contains(&(found - last.as_secs_f64())), "{found} {last:?}");
    }
}

//! A service that stands still is found, ended and started anew: real processes, the pipe as `init` makes it, and
//! `init`'s decisions.
//!
//! A test starts this program again as the service.

use belvedere_init::signs::{self, Sign};
use belvedere_init::supervision::{Action, Event, Fault, Policy, Supervision, Trial};
use belvedere_varlink::{Pulse, READY_VARIABLE, notify_ready};
use rustix::pipe::PipeFlags;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const INSIDE: &str = "BELVEDERE_TEST_SERVICE";
const LONGEST: Duration = Duration::from_millis(1500);

/// Two loops that take the same lock. `deadlocked`: after two seconds the first of them keeps it.
fn serve(deadlocked: bool) {
    let state = Arc::new(Mutex::new(()));
    let work = |name: &'static str, keeps: bool| {
        let (state, began) = (Arc::clone(&state), Instant::now());
        move || {
            let pulse = Pulse::new(name, LONGEST);
            loop {
                let held = state.lock().unwrap();
                while keeps && began.elapsed() > Duration::from_secs(2) {
                    std::thread::sleep(Duration::from_secs(1));
                }
                drop(held);
                pulse.beat();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    };
    std::thread::spawn(work("first", deadlocked));
    std::thread::spawn(work("second", false));
    notify_ready();
    // Another one lives on and looks at the others: the deadlock is theirs alone.
    let pulse = Pulse::new("third", LONGEST);
    // What the service starts must not hold the pipe.
    let child =
        Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    println!("\nchild {}", child.id());
    loop {
        pulse.beat();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Does nothing unless started by another test.
#[test]
fn inside() {
    match std::env::var(INSIDE).as_deref() {
        Ok("deadlocked") => serve(true),
        Ok(_) => serve(false),
        Err(_) => {}
    }
}

struct Service {
    child: Child,
    pipe: OwnedFd,
}

impl Service {
    fn start(kind: &str) -> Service {
        // The service's end is inherited by whatever is started before it is closed here.
        static STARTING: Mutex<()> = Mutex::new(());
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipe, end) = rustix::pipe::pipe_with(PipeFlags::empty()).unwrap();
        rustix::io::fcntl_setfd(&pipe, rustix::io::FdFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inside", "--nocapture", "--test-threads=1"])
            .env(INSIDE, kind)
            .env(READY_VARIABLE, end.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Service { child, pipe }
    }

    /// Ends it, and what it started; gives whether somebody still held the pipe then.
    fn end(&mut self) -> bool {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut held = true;
        for _ in 0..100 {
            match signs::read(&self.pipe, true) {
                Sign::Closed => held = false,
                Sign::None if held => std::thread::sleep(Duration::from_millis(20)),
                _ => {}
            }
        }
        let mut said = String::new();
        let mut output = self.child.stdout.take().unwrap();
        let _ = std::io::Read::read_to_string(&mut output, &mut said);
        let children = said.lines().filter_map(|line| line.strip_prefix("child ")?.parse::<i32>().ok());
        for number in children {
            if let Some(pid) = rustix::process::Pid::from_raw(number) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        held
    }
}

/// Does what `init` does, until `time` has passed or `done`.
fn supervise(kind: &str, time: Duration, done: impl Fn(&[Action]) -> bool) -> Vec<Action> {
    let policy = Policy {
        name: "service",
        after: Vec::new(),
        required: true,
        ready_within: Duration::from_secs(60),
        heartbeat: Duration::from_secs(4),
        patience: Duration::from_secs(15),
        first_to_end: false,
    };
    let began = Instant::now();
    let mut machine = Supervision::new(vec![policy], Duration::ZERO, Trial::Proven);
    let mut service: Option<Service> = None;
    let mut happened = Vec::new();
    while began.elapsed() < time && !done(&happened) {
        let sign = service.as_ref().map_or(Sign::None, |service| signs::read(&service.pipe, machine.is_ready(0)));
        let mut events = match sign {
            Sign::Ready => vec![Event::Ready(0)],
            Sign::Beat => vec![Event::Beat(0)],
            _ => Vec::new(),
        };
        events.push(Event::Tick);
        while let Some(event) = (!events.is_empty()).then(|| events.remove(0)) {
            for action in machine.step(began.elapsed(), &event) {
                match action {
                    Action::Start(0) => service = Some(Service::start(kind)),
                    Action::Kill(0) => {
                        assert!(!service.as_mut().unwrap().end(), "the service's child holds the pipe");
                        events.push(Event::Exited(0));
                    }
                    _ => {}
                }
                happened.push(action);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(mut service) = service {
        service.end();
    }
    happened
}

#[test]
fn a_service_that_stands_still_is_ended_and_started_anew() {
    let over = |happened: &[Action]| happened.contains(&Action::Green(true));
    let happened = supervise("deadlocked", Duration::from_secs(120), over);
    let expected = [
        Action::Start(0),
        Action::Operating,
        Action::Silent(0),
        Action::Kill(0),
        Action::Green(false),
        Action::Start(0),
        Action::Green(true),
    ];
    assert_eq!(happened, expected);
    assert_eq!(Fault::Silent.of("service", Duration::ZERO), "service is silent");
}

#[test]
fn a_service_that_works_is_left_alone() {
    let happened = supervise("well", Duration::from_secs(12), |_| false);
    assert_eq!(happened, [Action::Start(0), Action::Operating]);
}

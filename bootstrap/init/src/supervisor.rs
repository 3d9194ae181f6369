//! PID 1's loop: carries out what [`crate::supervision`] decides, reads what services print, reaps, feeds the watchdog.

use crate::buttons::Buttons;
use crate::console::{Console, say, uptime};
use crate::devices::Nodes;
use crate::output::{Lines, kernel_line, read_rounds};
use crate::panel::Facts;
use crate::power::{self, End};
use crate::signs::{self, Sign};
use crate::spool::Spool;
use crate::supervision::{Action, Event, Fault, Policy, Supervision, Trial};
use crate::table::{HEARTBEAT, PATIENCE, READY_WITHIN, SERVICES, number_of};
use crate::watchdog::{self, Watchdog};
use crate::{Result, early, failing, kmsg, last_words, logs, machine, named, panel, restart, slots};
use belvedere_interfaces::front_panel::Condition;
use belvedere_interfaces::paths;
use belvedere_lights::pattern;
use belvedere_varlink::Server;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is read from one service in one round, so that a talkative one does not starve the others.
const ROUND_BYTES: usize = 32 * 1024;
/// Longest call that PID 1 reads, in bytes; the longest of its methods has one line of text.
const MAXIMUM_CALL: usize = 64 * 1024;
/// How many rounds are read from a service that has ended: twice what a pipe holds. Whoever still writes then gets no
/// more of PID 1's time.
const LAST_ROUNDS: usize = 4;
/// How many ended processes and how many signals are taken in one turn: services make both.
const TURN: usize = 64;
/// How often is looked for devices that came or went; whoever plugs in a stick waits for this.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// How many lines of what the start before this one said last are shown on the console, the last ones; all are logged.
const LAST_WORDS_SHOWN: usize = 12;
/// How long a failing disk may take for the slot table.
const NOTE_TIME: Duration = Duration::from_secs(60);
/// How long the end may take: what is not written yet is written then.
const END_TIME: Duration = Duration::from_secs(180);

/// One service's process.
#[derive(Default)]
struct Process {
    pid: Option<Pid>,
    output: Option<OwnedFd>,
    ready: Option<OwnedFd>,
    lines: Lines,
    /// When it was started, for the message that says how long it took.
    started: Duration,
    /// The line with which it said that it panicked.
    panic: Option<String>,
}

struct Supervisor {
    console: Console,
    spool: Arc<Mutex<Spool>>,
    panel: Sender<Facts>,
    facts: Facts,
    machine: Supervision,
    processes: Vec<Process>,
    /// How each service's process ended last.
    ends: Vec<String>,
    development: bool,
    /// That the release that runs was proven in an earlier start.
    proven: bool,
    /// That this start restores the minimum release.
    restores_minimum: bool,
    /// Reasons of those who asked for a restart.
    restarts: Receiver<String>,
    nodes: Nodes,
    /// Counts once a shutdown began.
    end: End,
    /// It operated.
    operated: bool,
    /// It operated, and was given up.
    failed: bool,
    ending: bool,
    stopped: bool,
}

/// Runs the second stage. Never returns.
pub fn run() -> ! {
    let console = Console::start();
    let mut warnings = Vec::new();
    let mut watchdog = Watchdog::arm(|line| warnings.push(line.to_owned()));
    // Before any thread that matters: a blocked signal is inherited, and read by the loop.
    let signals = block_signals();
    let prepared = machine::prepare(&console, &mut watchdog);
    if let Some(watchdog) = &mut watchdog {
        watchdog.feed();
    }
    let (machine::Prepared { line, nodes, reset }, signals) = match (prepared, signals) {
        (Ok(prepared), Ok(signals)) => (prepared, signals),
        (Err(error), _) | (_, Err(error)) => fail(&console, watchdog, &error),
    };
    kmsg::reached(&format!("the services of {}", line.version));
    console.say(&format!("root image {} takes over ({:.2} s)", line.version, uptime().as_secs_f64()));
    let spool = Arc::new(Mutex::new(Spool::default()));
    let (restart_requests, restarts) = restart::requests();
    match Server::bind(paths::INIT) {
        Ok(server) => {
            let server = restart::route(logs::route(server, &spool), restart_requests);
            if let Err(error) = server.maximum_message(MAXIMUM_CALL).try_spawn() {
                console.say(&format!("start a thread for {}: {error}", paths::INIT));
            }
        }
        Err(error) => console.say(&error.to_string()),
    }
    let policies = SERVICES.iter().map(|service| Policy {
        name: service.name,
        after: service.after.iter().filter_map(|name| number_of(name)).collect(),
        required: service.required,
        ready_within: READY_WITHIN,
        heartbeat: HEARTBEAT,
        patience: PATIENCE,
        first_to_end: service.first_to_end,
    });
    let trial = slots::started_trial();
    let proven = trial == Trial::Proven;
    let mut supervisor = Supervisor {
        machine: Supervision::new(policies.collect(), uptime(), trial),
        proven,
        restores_minimum: reset.restores_the_minimum(),
        processes: SERVICES.iter().map(|_| Process::default()).collect(),
        ends: vec![String::new(); SERVICES.len()],
        panel: panel::start(),
        facts: Facts { reset, ..Facts::default() },
        development: line.development,
        restarts,
        nodes,
        end: End::Off,
        operated: false,
        failed: false,
        ending: false,
        stopped: false,
        console,
        spool,
    };
    supervisor.tell_last_words();
    // The console has them from the first stage.
    for line in warnings {
        supervisor.store("syslog", &line);
    }
    supervisor.find_missing_programs();
    supervisor.serve(&signals, &mut watchdog);
    // Whatever runs still: containers whose supervisor did not listen, and orphans.
    machine::kill_group(machine::CONTAINERS_CGROUP);
    machine::kill_group("/sys/fs/cgroup/services");
    std::thread::sleep(Duration::from_millis(100));
    supervisor.reap();
    if supervisor.failed {
        let lines = watchdog::feed_during(&mut watchdog, NOTE_TIME, failing::report_given_up);
        lines.iter().for_each(|line| supervisor.console.say(line));
    }
    supervisor.console.flush(Duration::from_millis(500));
    let end = supervisor.end;
    watchdog::feed_during(&mut watchdog, END_TIME, || power::end_now(end))
}

/// The machine cannot operate: says why, shows it, starts again.
fn fail(console: &Console, mut watchdog: Option<Watchdog>, error: &str) -> ! {
    console.flush(Duration::from_secs(1));
    say(&format!("start failed: {error}"));
    kmsg::critical(&format!("start failed: {error}"));
    early::show(pattern([Condition::Error], []));
    say(&format!("starting again in {} s", early::ERROR_TIME.as_secs()));
    if let Some(watchdog) = &mut watchdog {
        watchdog.feed();
    }
    std::thread::sleep(early::ERROR_TIME);
    power::restart_now()
}

fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR, Signal::SIGUSR1, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(named("block", "signals"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(named("read", "signals"))
}

fn store(spool: &Mutex<Spool>, stream: &str, text: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    spool.lock().unwrap_or_else(PoisonError::into_inner).add(stream, milliseconds, text);
}

impl Supervisor {
    fn say(&self, text: &str) {
        self.console.say(text);
        self.store("syslog", text);
    }

    fn store(&self, stream: &str, text: &str) {
        store(&self.spool, stream, text);
    }

    /// The bootloader must not take this slot for one that never operates.
    fn note_operating(&self) {
        if let Err(error) = slots::report_operating(self.teller()) {
            self.say(&error);
        }
    }

    /// [`Self::say`] for another thread.
    fn teller(&self) -> impl Fn(&str) + Send + 'static {
        let (console, spool) = (self.console.clone(), Arc::clone(&self.spool));
        move |line| {
            console.say(line);
            store(&spool, "syslog", line);
        }
    }

    /// Why the start before this one ended goes into the log that the service gets; the console has the first of it.
    fn tell_last_words(&self) {
        match last_words::take() {
            Ok(lines) => {
                last_words::shown(&lines, LAST_WORDS_SHOWN).for_each(|line| self.console.say(line));
                lines.iter().for_each(|line| self.store("kern_log", line));
            }
            Err(error) => self.say(&format!("the last words of the start before: {error}")),
        }
    }

    fn find_missing_programs(&mut self) {
        for (number, service) in SERVICES.iter().enumerate() {
            let program = machine::program_of(service.name);
            if !Path::new(&program).exists() {
                let excused = self.development;
                self.say(&format!("{program} is missing{}", if excused { ", left out" } else { "" }));
                self.step(&Event::Missing { service: number, excused });
            }
        }
    }

    fn step(&mut self, event: &Event) {
        let mut events = vec![event.clone()];
        while let Some(event) = events.pop() {
            for action in self.machine.step(uptime(), &event) {
                events.extend(self.carry_out(&action));
            }
        }
    }

    /// Does one thing; may give an event that follows from it at once.
    fn carry_out(&mut self, action: &Action) -> Option<Event> {
        match *action {
            Action::Start(number) => {
                if let Err(error) = self.start(number) {
                    self.say(&format!("start {}: {error}", SERVICES[number].name));
                    self.ends[number] = format!("cannot be started: {error}");
                    return Some(Event::Exited(number));
                }
            }
            Action::Terminate(number) => {
                if let Some(pid) = self.processes[number].pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
            }
            Action::Kill(number) => {
                machine::kill_group(&machine::cgroup_of(&SERVICES[number]));
                if let Some(pid) = self.processes[number].pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            Action::NotReady(number) => {
                self.say(&format!("{} is not ready after {} s, ending it", SERVICES[number].name, READY_WITHIN.as_secs()));
            }
            Action::Silent(number) => {
                let (name, time) = (SERVICES[number].name, HEARTBEAT.as_secs());
                self.say(&format!("{name} is silent: no sign of life for {time} s, ending it"));
            }
            Action::Green(green) => {
                self.say(if green { "operating again" } else { "not operating: a required service does not work" });
                self.facts.operating = green;
                let _ = self.panel.send(self.facts);
            }
            Action::GiveUp { service, fault, time } => {
                let mut reason = fault.of(SERVICES[service].name, time);
                if fault == Fault::Ended {
                    reason = format!("{reason}; it {}", self.ends[service]);
                }
                kmsg::critical(&format!("starting again: {reason}"));
                self.say(&format!("starting again, for this start does not work: {reason}"));
                (self.end, self.ending, self.failed) = (End::Restart, true, self.operated);
                return Some(Event::Stop);
            }
            Action::Operating => {
                kmsg::reached("the green light");
                self.say(&format!("operating ({:.2} s)", uptime().as_secs_f64()));
                self.note_operating();
                self.operated = true;
                self.facts.operating = true;
                let _ = self.panel.send(self.facts);
            }
            Action::Works => {
                if let Err(error) = failing::report_works(self.teller()) {
                    self.say(&error);
                }
            }
            Action::Error(reason) => {
                self.facts.error = reason.is_some();
                match reason {
                    Some(name) => self.say(&format!("error: {name} does not start")),
                    None => self.say("no error any more"),
                }
                let _ = self.panel.send(self.facts);
                if reason.is_some() && number_of("front-panel").is_none_or(|number| !self.machine.is_ready(number)) {
                    early::show(pattern([Condition::Error], []));
                }
            }
            Action::Stopped => self.stopped = true,
        }
        None
    }

    fn start(&mut self, number: usize) -> Result<()> {
        let service = &SERVICES[number];
        let (output, output_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(named("make", "a pipe"))?;
        // The service's end must survive two `exec`s. No other process is started before it is closed here.
        let (ready, ready_end) = rustix::pipe::pipe_with(PipeFlags::empty()).map_err(named("make", "a pipe"))?;
        rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::CLOEXEC).map_err(named("set up", "a pipe"))?;
        for end in [&output, &ready] {
            rustix::io::ioctl_fionbio(end, true).map_err(named("set up", "a pipe"))?;
        }
        let second = output_end.try_clone().map_err(named("copy", "a pipe"))?;
        let child = Command::new("/proc/self/exe")
            .args(["--start", service.name])
            .env(belvedere_varlink::READY_VARIABLE, ready_end.as_raw_fd().to_string())
            .env(belvedere_varlink::PROVEN_VARIABLE, if self.proven { "1" } else { "0" })
            .env(belvedere_varlink::RESTORED_VARIABLE, if self.restores_minimum { "1" } else { "0" })
            .stdin(Stdio::null())
            .stdout(Stdio::from(output_end))
            .stderr(Stdio::from(second))
            .spawn()
            .map_err(named("run", crate::PROGRAM))?;
        drop(ready_end);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let lines = Lines::default();
        self.processes[number] =
            Process { pid, output: Some(output), ready: Some(ready), lines, started: uptime(), panic: None };
        Ok(())
    }

    fn serve(&mut self, signals: &SignalFd, watchdog: &mut Option<Watchdog>) {
        let mut buttons = Buttons::default();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let kernel = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok();
        let mut next_chore = Duration::ZERO;
        let mut next_look = Duration::ZERO;
        self.step(&Event::Tick);
        while !self.stopped {
            if uptime() >= next_chore {
                next_chore = uptime() + watchdog::INTERVAL;
                if let Some(watchdog) = watchdog {
                    watchdog.feed();
                }
                buttons.look();
            }
            if uptime() >= next_look {
                next_look = uptime() + LOOK_INTERVAL;
                for error in self.nodes.give() {
                    self.say(&error);
                }
            }
            self.wait(signals, kernel.as_ref(), &buttons);
            for _ in 0..TURN {
                let Ok(Some(signal)) = signals.read_signal() else { break };
                self.signalled(signal.ssi_signo);
            }
            self.reap();
            for number in 0..SERVICES.len() {
                self.read_ready(number);
                self.read_output(number, 1);
            }
            if let Some(kernel) = &kernel {
                self.read_kernel(kernel);
            }
            if buttons.power_pressed() {
                self.begin_end(End::Off, " by the power button");
            }
            // A call does not turn an end that has begun, such as the power button's, into another one.
            if let Ok(why) = self.restarts.try_recv()
                && !self.ending
            {
                self.begin_end(End::Restart, &format!(": {why}"));
            }
            self.step(&Event::Tick);
        }
    }

    /// Sleeps until something happens, at most a fifth of a second: the machine's clock ticks.
    fn wait(&self, signals: &SignalFd, kernel: Option<&OwnedFd>, buttons: &Buttons) {
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        let descriptors =
            self.processes.iter().flat_map(|process| [&process.output, &process.ready]).flatten().chain(kernel);
        for descriptor in descriptors.map(AsFd::as_fd).chain(buttons.descriptors()).chain([signals.as_fd()]) {
            polled.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
    }

    fn signalled(&mut self, number: u32) {
        match i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok()) {
            Some(Signal::SIGTERM | Signal::SIGPWR) => self.begin_end(End::Off, " by a signal"),
            Some(Signal::SIGINT) => self.begin_end(End::Restart, " by a signal"),
            _ => {}
        }
    }

    /// `by`: who asked for it or why, as the rest of the line.
    fn begin_end(&mut self, end: End, by: &str) {
        self.say(&format!("{} asked for{by}", if end == End::Off { "power off" } else { "restart" }));
        self.end = end;
        self.ending = true;
        self.step(&Event::Stop);
    }

    /// Takes leave of processes that ended. Children of services become PID 1's when their parents end, so a service can
    /// make them as fast as they are taken: the rest waits for the next turn.
    fn reap(&mut self) {
        for _ in 0..TURN {
            let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) else { return };
            let Some(number) = self.processes.iter().position(|process| process.pid == Some(pid)) else { continue };
            self.processes[number].pid = None;
            // Whatever it left behind holds its pipe, too, and may write as long as it lives: that ends first.
            machine::kill_group(&machine::cgroup_of(&SERVICES[number]));
            // What it said last comes before the line that says how it ended.
            self.read_ready(number);
            self.read_output(number, LAST_ROUNDS);
            if let Some(line) = self.processes[number].lines.finish() {
                self.print(number, &line);
            }
            self.processes[number].output = None;
            self.processes[number].ready = None;
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("ended with {code}"),
                (_, Some(signal)) => format!("ended by signal {signal}"),
                _ => "ended".to_owned(),
            };
            self.say(&format!("{} {how}", SERVICES[number].name));
            let panic = self.processes[number].panic.take();
            self.ends[number] = panic.map_or(how, |panic| format!("panicked: {panic}"));
            self.step(&Event::Exited(number));
        }
    }

    fn read_ready(&mut self, number: usize) {
        let Some(pipe) = &self.processes[number].ready else { return };
        match signs::read(pipe, self.machine.is_ready(number)) {
            Sign::None => {}
            Sign::Closed => self.processes[number].ready = None,
            Sign::Beat => self.step(&Event::Beat(number)),
            Sign::Ready => {
                let took = uptime().saturating_sub(self.processes[number].started);
                self.say(&format!("{} is ready after {:.2} s", SERVICES[number].name, took.as_secs_f64()));
                self.step(&Event::Ready(number));
                if SERVICES[number].name == "front-panel" {
                    let _ = self.panel.send(self.facts);
                }
            }
        }
    }

    /// Reads what a service printed, at most so many rounds of it.
    fn read_output(&mut self, number: usize, rounds: usize) {
        let process = &mut self.processes[number];
        let Some(output) = &process.output else { return };
        let read = read_rounds(output, &mut process.lines, rounds, ROUND_BYTES);
        if read.ended {
            process.output = None;
        }
        for line in read.lines {
            self.print(number, &line);
        }
    }

    fn print(&mut self, number: usize, line: &str) {
        if line.contains(" panicked at ") {
            self.processes[number].panic = Some(line.to_owned());
        }
        let service = &SERVICES[number];
        self.console.line(format!("[{}] {line}", service.name));
        self.store(service.stream, &format!("{}: {line}", service.name));
    }

    fn read_kernel(&self, kernel: &OwnedFd) {
        let mut record = [0u8; 8192];
        for _ in 0..100 {
            match rustix::io::read(kernel, &mut record) {
                Ok(count) if count > 0 => {
                    if let Some((_, line)) = kernel_line(&record[..count]) {
                        self.store("kern_log", &line);
                    }
                }
                // EPIPE: the kernel overwrote what was not read yet; the next read goes on behind it.
                Err(rustix::io::Errno::PIPE) => {}
                _ => return,
            }
        }
    }
}

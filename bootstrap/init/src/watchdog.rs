//! The hardware watchdog: when PID 1 hangs, the machine starts again.
//!
//! PID 1's loop feeds it. What comes before the loop, and after it, may rightly take longer than the watchdog's patience
//! (a file system check of hours): [`feed_during`] feeds meanwhile, for as long as that phase may take and no longer, so
//! that a phase that hangs still ends in a restart.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the machine may go without a sign of life. Generous: a busy virtual machine must not be shot.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a sign is given.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Where the kernel shows the first watchdog.
const DEVICE: &str = "/dev/watchdog0";
/// Whether it stays armed when it is closed: 1 with CONFIG_WATCHDOG_NOWAYOUT.
const NO_WAY_OUT: &str = "/sys/class/watchdog/watchdog0/nowayout";

/// Why the machine started: [`ENDED_BY_IT`] is among the bits when the watchdog had ended the start before.
const START_STATUS: &str = "/sys/class/watchdog/watchdog0/bootstatus";
/// WDIOF_CARDRESET of `linux/watchdog.h`.
const ENDED_BY_IT: u32 = 0x20;

/// Whether the watchdog ended the start before this one. The device says so, where it knows.
pub fn ended_the_start_before() -> bool {
    std::fs::read_to_string(START_STATUS).is_ok_and(|text| says_ended(&text))
}

fn says_ended(status: &str) -> bool {
    status.trim().parse::<u32>().is_ok_and(|status| status & ENDED_BY_IT != 0)
}

/// An armed watchdog. Closing it leaves it armed, on purpose: between the two stages, and when PID 1 dies. That is the
/// kernel's promise (CONFIG_WATCHDOG_NOWAYOUT); without it the driver alone decides what a close means.
pub struct Watchdog(File);

impl Watchdog {
    /// Opens and arms it. `tell` is given what people should know: that there is none (every board must have one: a machine
    /// that hangs would stay so), or that it can be disarmed.
    pub fn arm(tell: impl FnMut(&str)) -> Option<Watchdog> {
        Self::arm_at(Path::new(DEVICE), Path::new(NO_WAY_OUT), tell)
    }

    fn arm_at(device: &Path, no_way_out: &Path, mut tell: impl FnMut(&str)) -> Option<Watchdog> {
        let file = match std::fs::OpenOptions::new().write(true).open(device) {
            Ok(file) => file,
            Err(error) => {
                tell(&format!("NO WATCHDOG: a machine that hangs stays so: open {}: {error}", device.display()));
                return None;
            }
        };
        match std::fs::read_to_string(no_way_out) {
            Ok(text) if text.trim() == "1" => {}
            Ok(_) => tell("the watchdog is disarmed when it is closed: the kernel lacks CONFIG_WATCHDOG_NOWAYOUT"),
            Err(error) => tell(&format!("whether the watchdog stays armed is not known: {}: {error}", no_way_out.display())),
        }
        let mut seconds = i32::try_from(PATIENCE.as_secs()).unwrap_or(60);
        const SET_TIMEOUT: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<i32>(b'W', 6);
        // SAFETY: WDIOC_SETTIMEOUT is `_IOWR('W', 6, int)`: reads and writes one int.
        let set = unsafe {
            let call = rustix::ioctl::Updater::<SET_TIMEOUT, i32>::new(&mut seconds);
            rustix::ioctl::ioctl(&file, call)
        };
        // Some drivers have a fixed time, which is then what holds; they are still fed often enough.
        let _ = set;
        let mut watchdog = Watchdog(file);
        watchdog.feed();
        Some(watchdog)
    }

    /// Gives the sign.
    pub fn feed(&mut self) {
        let _ = self.0.write_all(b"\0");
    }
}

/// Runs `work` on this thread while another one feeds the watchdog, for at most `limit`. After that nobody feeds, and
/// the watchdog's patience is what is left.
///
/// Without a watchdog this just runs `work`. When no thread can be started, `work` runs unfed: it may still be quick.
pub fn feed_during<T>(watchdog: &mut Option<Watchdog>, limit: Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    feed_every(INTERVAL, watchdog, || began.elapsed() < limit, work)
}

/// The same for work that tells how it gets on: fed as long as it was heard of within `silence`, however long it takes in all.
/// It is given what it calls each time.
pub fn feed_while_it_tells<T>(watchdog: &mut Option<Watchdog>, silence: Duration, work: impl FnOnce(&dyn Fn()) -> T) -> T {
    feed_every_while_it_tells(INTERVAL, watchdog, silence, work)
}

fn feed_every_while_it_tells<T>(
    interval: Duration,
    watchdog: &mut Option<Watchdog>,
    silence: Duration,
    work: impl FnOnce(&dyn Fn()) -> T,
) -> T {
    let heard = Mutex::new(Instant::now());
    let last = || *heard.lock().unwrap_or_else(PoisonError::into_inner);
    let tells = || *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    feed_every(interval, watchdog, || last().elapsed() < silence, || work(&tells))
}

fn feed_every<T>(
    interval: Duration,
    watchdog: &mut Option<Watchdog>,
    may_go_on: impl Fn() -> bool + Send,
    work: impl FnOnce() -> T,
) -> T {
    let Some(watchdog) = watchdog else { return work() };
    watchdog.feed();
    // Dropped when the work is done, which the feeding thread sees at once.
    let (working, done) = channel::<()>();
    std::thread::scope(|scope| {
        let feeding = move || {
            while done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                // Not for good: work that tells again before the watchdog's patience ends got on.
                if may_go_on() {
                    watchdog.feed();
                }
            }
        };
        let _ = std::thread::Builder::new().name("watchdog".into()).spawn_scoped(scope, feeding);
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    /// A watchdog whose signs of life are the bytes of a file.
    fn counted() -> (tempfile::NamedTempFile, Option<Watchdog>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watchdog = Watchdog(file.reopen().unwrap());
        (file, Some(watchdog))
    }

    fn signs(file: &tempfile::NamedTempFile) -> u64 {
        file.as_file().metadata().unwrap().len()
    }

    /// boot D6: a check of the data partition that took longer than the watchdog's patience restarted the machine,
    /// which began it again.
    #[test]
    fn work_that_takes_longer_than_the_patience_is_fed() {
        let (file, mut watchdog) = counted();
        let result = feed_every(
            TICK,
            &mut watchdog,
            || true,
            || {
                let deadline = Instant::now() + Duration::from_secs(20);
                while signs(&file) < 5 {
                    assert!(Instant::now() < deadline, "nobody feeds");
                    std::thread::sleep(TICK);
                }
                "done"
            },
        );
        assert_eq!(result, "done");
        let after = signs(&file);
        std::thread::sleep(10 * TICK);
        assert_eq!(signs(&file), after, "after the work the loop feeds, nobody else");
        assert!(watchdog.is_some());
    }

    #[test]
    fn work_that_hangs_is_fed_no_longer_than_its_limit() {
        let (file, mut watchdog) = counted();
        let began = Instant::now();
        feed_every(
            TICK,
            &mut watchdog,
            || began.elapsed() < 5 * TICK,
            || {
                std::thread::sleep(20 * TICK);
                let at_limit = signs(&file);
                assert!((1..=7).contains(&at_limit), "{at_limit}");
                std::thread::sleep(20 * TICK);
                assert_eq!(signs(&file), at_limit);
            },
        );
    }

    /// A storage program that hung was fed for an hour, three times over, before another release had its turn.
    #[test]
    fn work_that_tells_is_fed_for_as_long_as_it_does_and_no_longer() {
        let (file, mut watchdog) = counted();
        feed_every_while_it_tells(TICK, &mut watchdog, 100 * TICK, |tells| {
            // Far longer than the silence that is allowed.
            for _ in 0..30 {
                std::thread::sleep(5 * TICK);
                tells();
            }
            let told = signs(&file);
            assert!(told >= 10, "{told}");
            std::thread::sleep(150 * TICK);
            let silent = signs(&file);
            assert!(silent <= told + 105, "{told} {silent}");
            std::thread::sleep(20 * TICK);
            assert_eq!(signs(&file), silent, "a silent one is fed no more");
        });
    }

    /// boot L5: a board without a watchdog was no word worth, nor a kernel that lets it be closed.
    #[test]
    fn a_missing_watchdog_and_one_that_can_be_closed_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let (device, no_way_out) = (directory.path().join("watchdog0"), directory.path().join("nowayout"));
        let arm = || {
            let mut told = Vec::new();
            let armed = Watchdog::arm_at(&device, &no_way_out, |line| told.push(line.to_owned())).is_some();
            (armed, told.join("; "))
        };
        let (armed, told) = arm();
        assert!(!armed && told.starts_with("NO WATCHDOG"), "{told}");
        std::fs::write(&device, "").unwrap();
        let (armed, told) = arm();
        assert!(armed && told.contains("not known"), "{told}");
        std::fs::write(&no_way_out, "0\n").unwrap();
        assert!(arm().1.contains("CONFIG_WATCHDOG_NOWAYOUT"));
        std::fs::write(&no_way_out, "1\n").unwrap();
        assert_eq!(arm(), (true, String::new()));
        assert!(!std::fs::read(&device).unwrap().contains(&b'V'), "the byte that disarms");
    }

    #[test]
    fn the_device_says_whether_it_ended_the_start_before() {
        assert!(says_ended("32\n") && says_ended("33\n"));
        assert!(!says_ended("0\n") && !says_ended("1\n") && !says_ended("") && !says_ended("0x20\n"));
    }

    #[test]
    fn a_board_without_a_watchdog_works_all_the_same() {
        assert_eq!(feed_during(&mut None, Duration::ZERO, || 7), 7);
    }
}

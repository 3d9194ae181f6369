//! Signs of life: a service whose work stands still falls silent, and `init` starts it anew.
//!
//! Each loop that does what the service is there for has a [`Pulse`] and says at every turn that it turned. The one
//! that turns also looks at the others, and gives the service's sign of life only if none of them has been still for
//! longer than it may. No thread gives signs by time alone: that would beat over a service that stands still.

use crate::ready::sign_of_life;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Signs of life come no closer together.
const APART: Duration = Duration::from_secs(1);

/// One loop of this process that must go on turning.
///
/// ```
/// use belvedere_varlink::Pulse;
/// use std::time::Duration;
///
/// # let (sender, calls) = std::sync::mpsc::channel();
/// # sender.send(()).unwrap();
/// # drop(sender);
/// // A call takes 10 s at most.
/// let pulse = Pulse::new("calls", Duration::from_secs(30));
/// loop {
///     pulse.beat();
///     match calls.recv_timeout(Pulse::WAIT) {
///         Ok(()) => println!("a call"),
///         Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
///         Err(_) => break,
///     }
/// }
/// ```
///
/// A loop that ends drops its pulse and is no longer waited for; one that ends by a panic is missed for ever.
#[derive(Debug)]
pub struct Pulse(u64);

impl Pulse {
    /// A loop with nothing to do turns at least this often.
    pub const WAIT: Duration = Duration::from_secs(5);

    /// A loop that from now on never takes longer than `longest` for a turn: the time limits of the slowest turn added
    /// up, generously, for boards are slow under load. `name` is for the log.
    pub fn new(name: &'static str, longest: Duration) -> Pulse {
        Pulse(locked(|heart| heart.begin(Instant::now(), name, longest)))
    }

    /// Waits until something can be read from `source` (for a listener: somebody connects), at most [`Pulse::WAIT`]: `false`
    /// when nothing was. For loops that would else wait for ever in the call that reads.
    pub fn wait_for(source: impl AsFd) -> bool {
        let time = Timespec { tv_sec: Pulse::WAIT.as_secs() as i64, tv_nsec: 0 };
        let waited = poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&time));
        // What else it says, the call that reads says better.
        !matches!(waited, Ok(0) | Err(rustix::io::Errno::INTR))
    }

    /// The loop turned.
    pub fn beat(&self) {
        let turn = locked(|heart| heart.turned(Instant::now(), self.0));
        if let Some((name, still)) = turn.still {
            log::error!("{name} has stood still for {} s: no more signs of life", still.as_secs());
        }
        if turn.sign {
            sign_of_life();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            locked(|heart| heart.loops.remove(&self.0));
        }
    }
}

/// The lock is held for a look at a handful of numbers, never while anything is written or waited for.
fn locked<T>(work: impl FnOnce(&mut Heart) -> T) -> T {
    static HEART: Mutex<Heart> = Mutex::new(Heart { loops: BTreeMap::new(), next: 0, signed: None });
    work(&mut HEART.lock().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    longest: Duration,
    turned: Instant,
    /// That it stands still was said.
    said: bool,
}

/// What follows from a turn.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    /// Give a sign of life.
    sign: bool,
    /// Another loop that was found still for the first time, and for how long it was.
    still: Option<(&'static str, Duration)>,
}

/// All loops of the process.
#[derive(Debug, Default)]
struct Heart {
    loops: BTreeMap<u64, Loop>,
    next: u64,
    signed: Option<Instant>,
}

impl Heart {
    fn begin(&mut self, now: Instant, name: &'static str, longest: Duration) -> u64 {
        self.next += 1;
        self.loops.insert(self.next, Loop { name, longest, turned: now, said: false });
        self.next
    }

    fn turned(&mut self, now: Instant, number: u64) -> Turn {
        if let Some(turning) = self.loops.get_mut(&number) {
            (turning.turned, turning.said) = (now, false);
        }
        if self.signed.is_some_and(|signed| now.saturating_duration_since(signed) < APART) {
            return Turn::default();
        }
        let mut turn = Turn { sign: true, still: None };
        for other in self.loops.values_mut() {
            let still = now.saturating_duration_since(other.turned);
            if still > other.longest {
                turn.sign = false;
                if !std::mem::replace(&mut other.said, true) {
                    turn.still = turn.still.or(Some((other.name, still)));
                }
            }
        }
        if turn.sign {
            self.signed = Some(now);
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn signs_are_a_second_apart() {
        let (mut heart, now) = (Heart::default(), Instant::now());
        let calls = heart.begin(now, "calls", 10 * SECOND);
        let signs = (0..50).filter(|tenth| heart.turned(now + *tenth * SECOND / 10, calls).sign).count();
        assert_eq!(signs, 5);
    }

    #[test]
    fn one_loop_that_stands_still_silences_all_until_it_turns_again() {
        let (mut heart, now) = (Heart::default(), Instant::now());
        let quick = heart.begin(now, "quick", 2 * SECOND);
        let slow = heart.begin(now, "slow", 10 * SECOND);
        for second in 1..=10 {
            assert!(heart.turned(now + second * SECOND, quick).sign, "{second}");
        }
        let found = heart.turned(now + 11 * SECOND, quick);
        assert_eq!(found, Turn { sign: false, still: Some(("slow", 11 * SECOND)) });
        // Said once.
        assert_eq!(heart.turned(now + 12 * SECOND, quick), Turn::default());
        assert!(heart.turned(now + 13 * SECOND, slow).sign);
        assert!(heart.turned(now + 14 * SECOND, quick).sign);
    }

    #[test]
    fn a_loop_that_ended_is_missed_only_after_a_panic() {
        let ended = Pulse::new("ended", Duration::ZERO);
        let number = ended.0;
        drop(ended);
        assert!(locked(|heart| !heart.loops.contains_key(&number)));
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let pulse = Pulse::new("panicked", Duration::ZERO);
            sender.send(pulse.0).unwrap();
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        let number = receiver.recv().unwrap();
        assert!(locked(|heart| heart.loops.remove(&number).is_some()));
    }
}

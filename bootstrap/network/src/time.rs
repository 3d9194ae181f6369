//! The clock, set by time servers (SNTP, RFC 5905 section 14).
//!
//! [`Judge`] decides what an answer is worth; [`keep`] is the thread that asks, in the servers' order, until one answers.
//! Answers carry no proof of who sent them. They may therefore move the clock within [`EARLIEST`]…[`LATEST`] only, far
//! only once by themselves, and after that far only when they say so [`REPEATS`] times in a row.

use crate::plan::host_and_port;
use rsntp::{Config, SntpClient};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No program of ours is older than 2026-01-01.
pub const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// 2056-01-01; what says more is broken or means harm.
pub const LATEST: Duration = Duration::from_secs(2_713_910_400);
/// A clock that is further off is set at once; less is corrected by running a little faster or slower.
const STEP: f64 = 0.5;
/// Less is not worth a correction.
const NOTHING: f64 = 0.001;
/// A clock that was right once is not this far off (RFC 5905's panic threshold).
const FAR: f64 = 1000.0;
/// How often a far jump has to be said by then.
pub const REPEATS: u32 = 3;

/// For one server's answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// After an answer; after the first failure, doubled up to the last; and after a far jump was said.
const HOUR: Duration = Duration::from_secs(3600);
const FIRST_WAIT: Duration = Duration::from_secs(4);
const LAST_WAIT: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(64);

/// Who set the clock last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As configured.
    pub name: String,
    /// That answered.
    pub address: Ipv4Addr,
}

/// What an answer leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Set the clock to this time since 1970.
    Step(Duration),
    /// Run faster (or slower, if negative) until these seconds are made up for.
    Slew(f64),
    /// It is right.
    Leave,
    /// Not plausible, and why.
    Refuse(&'static str),
}

/// What was learnt from the answers so far.
#[derive(Debug, Default)]
pub struct Judge {
    /// Whether a time server was believed since the start.
    trusted: bool,
    /// Far offsets in a row that agree.
    far: u32,
    last_far: f64,
}

impl Judge {
    /// `offset`: seconds that the clock is behind; `delay`: seconds that question and answer were under way, half of which
    /// is how wrong the offset may be; `now`: what the clock says, since 1970.
    pub fn decide(&mut self, offset: f64, delay: f64, now: Duration) -> Decision {
        let target = now.as_secs_f64() + offset;
        let Some(target) = Duration::try_from_secs_f64(target).ok().filter(|target| (EARLIEST..=LATEST).contains(target))
        else {
            return Decision::Refuse("a time outside of 2026 to 2056");
        };
        if self.trusted && offset.abs() >= FAR {
            self.far = if self.far > 0 && (offset - self.last_far).abs() < FAR { self.far + 1 } else { 1 };
            self.last_far = offset;
            if self.far < REPEATS {
                return Decision::Refuse("more than 1000 s away; believed when it is said three times in a row");
            }
        }
        self.far = 0;
        self.trusted = true;
        if offset.abs() >= STEP {
            Decision::Step(target)
        } else if offset.abs() > (delay / 2.0).max(NOTHING) {
            Decision::Slew(offset)
        } else {
            Decision::Leave
        }
    }
}

/// How long to wait after the `failures`th round in a row that nobody answered.
fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(8)).min(LAST_WAIT)
}

/// Keeps the clock for ever. Each list that comes in replaces the servers and is asked at once; `tell` hears who answered,
/// or `None` when a whole round brought nothing.
pub fn keep(servers: &Receiver<Vec<String>>, tell: impl Fn(Option<Source>)) {
    let mut judge = Judge::default();
    let (mut list, mut failures): (Vec<String>, u32) = (Vec::new(), 0);
    loop {
        let wait = if list.is_empty() {
            None
        } else {
            let (source, wait) = round(&list, &mut judge);
            failures = if source.is_some() { 0 } else { failures.saturating_add(1) };
            tell(source);
            Some(wait.unwrap_or_else(|| wait_after(failures - 1)))
        };
        let new = match wait {
            None => servers.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => servers.recv_timeout(wait),
        };
        match new {
            // Of several changes the last one holds.
            Ok(new) => {
                list = servers.try_iter().last().unwrap_or(new);
                failures = 0;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Asks one after the other until one is believed. The wait until the next round is given unless all failed.
fn round(list: &[String], judge: &mut Judge) -> (Option<Source>, Option<Duration>) {
    let mut unsure = None;
    for name in list {
        let (address, offset, delay) = match ask(name) {
            Ok(answer) => answer,
            Err(error) => {
                log::warn!("time server {name}: {error}");
                continue;
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let decision = judge.decide(offset, delay, now);
        if let Decision::Refuse(why) = decision {
            log::warn!("time server {name} ({address}) says that the clock is off by {offset:.3} s: {why}");
            unsure = Some(AGAIN);
            continue;
        }
        match carry_out(decision) {
            Ok(()) => {
                if matches!(decision, Decision::Step(_)) {
                    log::info!("time server {name} ({address}) set the clock, which was off by {offset:.3} s");
                }
                return (Some(Source { name: name.clone(), address }), Some(HOUR));
            }
            Err(error) => log::error!("set the clock to what {name} ({address}) says: {error}"),
        }
    }
    (None, unsure)
}

fn ask(name: &str) -> Result<(Ipv4Addr, f64, f64), String> {
    let v4 = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => Some(*v4.ip()),
        SocketAddr::V6(_) => None,
    };
    let host = host_and_port(name).ok_or("not a host name or IPv4 address")?;
    let address = host.to_socket_addrs().map_err(|error| error.to_string())?.find_map(v4).ok_or("it has no IPv4 address")?;
    let client = SntpClient::with_config(Config::default().timeout(ANSWER_TIME).connect_ip(true));
    let answer = client.synchronize(SocketAddrV4::new(address, host.1)).map_err(|error| error.to_string())?;
    Ok((address, answer.clock_offset().as_secs_f64(), answer.round_trip_delay().as_secs_f64()))
}

fn carry_out(decision: Decision) -> std::io::Result<()> {
    match decision {
        Decision::Step(target) => Ok(clock_settime(
            ClockId::Realtime,
            Timespec { tv_sec: target.as_secs().cast_signed(), tv_nsec: target.subsec_nanos().into() },
        )?),
        Decision::Slew(seconds) => slew(seconds),
        Decision::Leave | Decision::Refuse(_) => Ok(()),
    }
}

fn slew(seconds: f64) -> std::io::Result<()> {
    // Less than `STEP`, so that the microseconds fit.
    let delta = libc::timeval { tv_sec: 0, tv_usec: (seconds * 1e6) as _ };
    // SAFETY: the first pointer is to a value that lives across the call and is only read; the second may be null.
    if unsafe { libc::adjtime(&raw const delta, std::ptr::null_mut()) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn a_clock_that_is_far_off_is_set_and_a_little_is_made_up_for() {
        let mut judge = Judge::default();
        assert_eq!(judge.decide(-86_400.0, 0.0, NOW), Decision::Step(NOW - Duration::from_secs(86_400)));
        assert_eq!(judge.decide(0.25, 0.0, NOW), Decision::Slew(0.25));
        assert_eq!(judge.decide(0.25, 0.6, NOW), Decision::Leave, "that may be all the way's doing");
        assert_eq!(judge.decide(-0.0001, 0.0, NOW), Decision::Leave);
        assert_eq!(judge.decide(2.0, 0.0, NOW), Decision::Step(NOW + Duration::from_secs(2)));
    }

    #[test]
    fn a_clock_from_1970_is_set_and_never_back_to_then() {
        assert_eq!(Judge::default().decide(NOW.as_secs_f64(), 0.0, Duration::ZERO), Decision::Step(NOW));
        for target in [0.0, EARLIEST.as_secs_f64() - 1.0, LATEST.as_secs_f64() + 1.0, f64::NAN, f64::INFINITY, -1e30] {
            let decision = Judge::default().decide(target - NOW.as_secs_f64(), 0.0, NOW);
            assert!(matches!(decision, Decision::Refuse(_)), "{target} {decision:?}");
        }
    }

    #[test]
    fn a_clock_that_was_right_jumps_only_when_told_three_times() {
        let mut judge = Judge::default();
        judge.decide(0.0, 0.0, NOW);
        let far = 1e8;
        assert!(matches!(judge.decide(far, 0.0, NOW), Decision::Refuse(_)));
        assert_eq!(judge.decide(0.0, 0.0, NOW), Decision::Leave, "somebody else says that it is right");
        for _ in 1..REPEATS {
            assert!(matches!(judge.decide(far, 0.0, NOW), Decision::Refuse(_)));
        }
        assert!(matches!(judge.decide(far, 0.0, NOW), Decision::Step(_)));
        // Three that do not agree say nothing.
        for offset in [1e4, -1e4, 2e5, -1e5] {
            assert!(matches!(judge.decide(offset, 0.0, NOW), Decision::Refuse(_)), "{offset}");
        }
    }

    /// The API's form of a server's address allows a port.
    #[test]
    fn a_server_is_asked_at_its_port() {
        let server = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = server.local_addr().unwrap().to_string();
        let asked = std::thread::spawn(move || {
            let mut question = [0; 200];
            let (_, from) = server.recv_from(&mut question).unwrap();
            // 1900 to 1970; RFC 5905, 7.3: server, stratum 1, and the moment of the question said again.
            let stamp = ((NOW.as_secs() + 2_208_988_800) << 32).to_be_bytes();
            let mut answer = [0; 48];
            (answer[0], answer[1]) = (0x24, 1);
            answer[16..24].copy_from_slice(&stamp);
            answer[24..32].copy_from_slice(&question[40..48]);
            answer[32..40].copy_from_slice(&stamp);
            answer[40..48].copy_from_slice(&stamp);
            server.send_to(&answer, from).unwrap();
        });
        let (address, ..) = ask(&name).unwrap();
        asked.join().unwrap();
        assert_eq!(address, Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn waits_grow_up_to_ten_minutes() {
        assert_eq!(wait_after(0), FIRST_WAIT);
        assert!((0..100).all(|n| wait_after(n) <= wait_after(n + 1)));
        assert_eq!(wait_after(u32::MAX), LAST_WAIT);
    }
}

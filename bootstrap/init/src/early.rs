//! The first stage, in the initial RAM file system: find the signed root image, switch to it.

use crate::command_line::{self, CommandLine};
use crate::console::{say, say_when};
use crate::root::{self, NEW_ROOT};
use crate::watchdog::{Watchdog, feed_during};
use crate::{PROGRAM, Result, named, power, reset, slots};
use belvedere_boot_slots::Slot;
use belvedere_interfaces::front_panel::Condition;
use belvedere_lights::{Leds, Lights, SysfsLeds, pattern};
use belvedere_storage::partitions::{self, Partition};
use belvedere_storage::{mounts, verity};
use rustix::mount::MountFlags;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long to wait for a disk to appear.
const DISK_TIME: Duration = Duration::from_secs(20);
/// How long the error light can be seen before the machine starts again and the bootloader counts the start.
const ERROR_TIME: Duration = Duration::from_secs(8);
/// How long to wait for further system partitions once there is one: a disk's partitions appear together.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How long looking for the image may take, with the reads from a slow disk.
const FIND_TIME: Duration = Duration::from_secs(60);
/// How long one image may take to be read whole. It is read at a few hundred megabytes a second; a dying disk that
/// tries every block again for seconds must end some day, for another slot may lie elsewhere.
const READ_TIME: Duration = Duration::from_secs(15 * 60);

/// What stops the first stage.
enum Stop {
    /// The root image is not the signed one.
    Refused(String),
    /// Something else.
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Stop {
        Stop::Failed(text)
    }
}

/// Runs the first stage. Never returns: the root image's `init` replaces it, or the machine starts again.
pub fn run() -> ! {
    let Err(stop) = switch();
    match stop {
        Stop::Refused(reason) => say(&format!("root image refused: {reason}")),
        Stop::Failed(reason) => say(&format!("start failed: {reason}")),
    }
    show(pattern([Condition::Error], []));
    say(&format!("starting again in {} s", ERROR_TIME.as_secs()));
    std::thread::sleep(ERROR_TIME);
    power::restart_now()
}

/// Lights without the service that drives them later.
pub fn show(lights: Lights) {
    let mut leds = Leds::new(SysfsLeds::new(SysfsLeds::ROOT));
    if let Err(error) = leds.prepare().and_then(|()| leds.show(lights)) {
        say(&format!("lights: {error}"));
    }
}

fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

fn switch() -> std::result::Result<Infallible, Stop> {
    mounts::mount_new("proc", "/proc", "proc", mounts::DATA_ONLY, "").map_err(text)?;
    mounts::mount_new("sysfs", "/sys", "sysfs", mounts::DATA_ONLY, "").map_err(text)?;
    // Without `nodev`: this is where the devices are.
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount_new("devtmpfs", "/dev", "devtmpfs", flags, "mode=755").map_err(text)?;
    show(pattern([Condition::Booting], []));
    // Armed from here on: whatever hangs, the machine starts again and the bootloader counts the start. What may
    // rightly take long is fed, each phase for a time of its own.
    let mut watchdog = Watchdog::arm(say);

    let line = std::fs::read_to_string("/proc/cmdline").map_err(named("read", "/proc/cmdline"))?;
    let line = command_line::parse(&line)?;
    say_when(&format!("version {} on board {}", line.version, line.board));
    say(&lockdown());

    let started = started_slot();
    let candidates = feed_during(&mut watchdog, FIND_TIME, || find(&line, started))?;
    if let Some(restoring) =
        slots::partition().ok().and_then(|table| reset::condition(slots::reset_under_way(&table.device)))
    {
        show(pattern([restoring], []));
    }
    let open =
        |number, partition: &Partition| feed_during(&mut watchdog, READ_TIME, || root::open(number, partition, &line));
    let lost = |reason: &str| say(&format!("root image refused: {reason}; another partition has it whole"));
    let (partition, opened) = root::first_whole(&candidates, open, lost).map_err(Stop::Refused)?;
    say_when("every block of the root image is as signed");
    opened.restart_on_corruption(&partition).map_err(text)?;
    say_when(&format!("root image accepted from {} ({})", partition.name, partition.device.display()));
    switch_root().map_err(Stop::Failed)
}

/// The slot that the bootloader started.
fn started_slot() -> Option<Slot> {
    if let Err(error) = slots::mount_variables() {
        // Without UEFI (development) there are none.
        say(&format!("no firmware variables: {error}"));
        return None;
    }
    let slot = slots::started();
    // The second stage mounts them where its own mounts are.
    let _ = mounts::unmount(slots::VARIABLES, false);
    slot
}

/// Says how far the kernel protects itself from root: a line that people and tests can read.
fn lockdown() -> String {
    const SECURITY: &str = "/sys/kernel/security";
    let read = mounts::mount("securityfs", SECURITY, "securityfs", mounts::DATA_ONLY | MountFlags::RDONLY, "")
        .map_err(|error| error.to_string())
        .and_then(|()| {
            let text = std::fs::read_to_string(format!("{SECURITY}/lockdown")).map_err(named("read", "lockdown"));
            let _ = mounts::unmount(SECURITY, false);
            text
        });
    match read.as_deref().map(lockdown_level) {
        Ok(Some(level)) => format!("kernel lockdown: {level}"),
        Ok(None) => "kernel lockdown: none".to_owned(),
        Err(error) => format!("kernel lockdown: unknown: {error}"),
    }
}

/// The level in brackets, as in `none [integrity] confidentiality`; nothing when it is `none`.
fn lockdown_level(text: &str) -> Option<&str> {
    let level = text.split_once('[')?.1.split_once(']')?.0;
    (level != "none").then_some(level)
}

/// Finds the partitions with the signed image, the started slot's first, waiting for the disk.
fn find(line: &CommandLine, started: Option<Slot>) -> std::result::Result<Vec<Partition>, Stop> {
    let mut deadline = Instant::now() + DISK_TIME;
    loop {
        let found = partitions::list(partitions::SYSFS).map_err(text)?;
        let mut reasons = Vec::new();
        let mut candidates = Vec::new();
        for partition in root::in_order(&found, started) {
            match verity::check(&partition, &line.root) {
                Ok(()) => candidates.push(partition),
                Err(error) => reasons.push(format!("{} ({error})", partition.name)),
            }
        }
        let own_is_there = started.is_none_or(|slot| found.iter().any(|partition| partition.name == slot.system()));
        if !candidates.is_empty() && own_is_there {
            return Ok(candidates);
        }
        if !reasons.is_empty() || !candidates.is_empty() {
            deadline = deadline.min(Instant::now() + SETTLE_TIME);
        }
        if Instant::now() >= deadline {
            return match (candidates.is_empty(), reasons.is_empty()) {
                (false, _) => Ok(candidates),
                (true, false) => Err(Stop::Refused(reasons.join("; "))),
                (true, true) => {
                    let names = Slot::ALL.map(Slot::system).join(", ");
                    Err(Stop::Failed(format!("no partition named {names}; is the disk there?")))
                }
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes the new root the root and becomes its `init`.
fn switch_root() -> Result<Infallible> {
    for mount in ["/dev", "/proc", "/sys"] {
        mounts::move_mount(mount, Path::new(NEW_ROOT).join(&mount[1..])).map_err(text)?;
    }
    // The RAM file system cannot be unmounted; empty, it holds no memory.
    let _ = std::fs::remove_file("/init");
    std::env::set_current_dir(NEW_ROOT).map_err(named("go to", NEW_ROOT))?;
    mounts::move_mount(".", "/").map_err(text)?;
    rustix::process::chroot(".").map_err(named("change the root to", NEW_ROOT))?;
    std::env::set_current_dir("/").map_err(named("go to", "/"))?;
    let error = Command::new(PROGRAM).arg("--supervise").env_clear().exec();
    Err(format!("start {PROGRAM}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::lockdown_level;

    #[test]
    fn the_level_in_brackets_is_the_one_that_holds() {
        assert_eq!(lockdown_level("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(lockdown_level("none integrity [confidentiality]\n"), Some("confidentiality"));
        assert_eq!(lockdown_level("[none] integrity confidentiality\n"), None);
        assert_eq!(lockdown_level(""), None);
    }
}

//! The first stage, in the initial RAM file system: open the volumes, find the signed root image, switch to it.

use crate::command_line::{self, CommandLine};
use crate::console::{say, say_when};
use crate::root::{self, Care, NEW_ROOT};
use crate::watchdog::{Watchdog, feed_during, feed_while_it_tells};
use crate::{PROGRAM, Result, kmsg, last_words, named, power, reset, slots, volumes};
use belvedere_boot_slots::{EXPECTED_VARIABLE, POLICY_VARIABLE, Reset, Slot, VENDOR_GUID};
use belvedere_interfaces::front_panel::Condition;
use belvedere_lights::{Leds, Lights, SysfsLeds, pattern};
use belvedere_storage::partitions::Partition;
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
pub const ERROR_TIME: Duration = Duration::from_secs(8);
/// How long the storage program may say nothing. At a first start gigabytes are encrypted, at a minute each on a slow disk; it
/// tells of every few megabytes. With the watchdog's 60 s three starts of a release in which it hangs are over within 5 minutes.
const VOLUMES_SILENCE: Duration = Duration::from_secs(20);
/// How long looking for the slot table is fed: a failing disk takes its time for each block.
const TABLE_TIME: Duration = Duration::from_secs(2 * 60);
/// How long looking for the volumes with the signed image is fed: a few blocks of each, which a failing disk may not give.
const FIND_TIME: Duration = Duration::from_secs(2 * 60);
/// How long one image may take to be read whole. It is read at a few hundred megabytes a second; a dying disk that
/// tries every block again for seconds must end some day, for another slot may lie elsewhere.
const READ_TIME: Duration = Duration::from_secs(15 * 60);

/// What stops the first stage.
enum Stop {
    /// The volumes stay closed.
    Closed(String),
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
    let reason = match stop {
        Stop::Closed(reason) => format!("volumes stay closed: {reason}"),
        Stop::Refused(reason) => format!("root image refused: {reason}"),
        Stop::Failed(reason) => format!("start failed: {reason}"),
    };
    say(&reason);
    // The next start tells it ([`last_words`]): a board without a console says it nowhere else.
    kmsg::critical(&format!("starting again: {reason}"));
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
    kmsg::reached(&format!("the first stage of {}", line.version));
    say(&lockdown());

    let started = started_slot();
    let table = feed_during(&mut watchdog, TABLE_TIME, wait_for_table);
    let (volumes, reset) = feed_while_it_tells(&mut watchdog, VOLUMES_SILENCE, |tells| {
        open_volumes(&table, started, line.rollback_level, tells)
    });
    // The second stage mounts the firmware's variables where its own mounts are.
    let _ = mounts::unmount(slots::VARIABLES, false);
    let volumes = volumes.map_err(Stop::Closed)?;
    if let Some(restoring) = reset::condition(reset) {
        show(pattern([restoring], []));
    }
    let candidates = feed_during(&mut watchdog, FIND_TIME, || find(&volumes, &line, started))?;
    let proven = |slot| table.as_ref().is_ok_and(|table| slots::is_proven(&table.device, slot));
    let care = Care::of(started.is_some_and(proven), last_words::met_a_wrong_block(), reset);
    let open =
        |number, partition: &Partition| feed_during(&mut watchdog, READ_TIME, || root::open(number, partition, &line, care));
    let lost = |reason: &str| say(&format!("root image refused: {reason}; another partition has it whole"));
    let (partition, opened) = root::first_whole(&candidates, open, lost).map_err(Stop::Refused)?;
    if care == Care::Whole {
        say_when("every block of the root image is as signed");
    }
    opened.restart_on_corruption(&partition).map_err(text)?;
    kmsg::reached(&format!("the root image of {}", line.version));
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
    slots::started()
}

/// The disk, for what is done before there is a root: the volumes, and the data that a full reset destroys.
struct Disk<'a> {
    table: &'a Result<Partition>,
    started: Option<Slot>,
    /// The release's rollback level.
    level: String,
    /// What is called when the storage program says something.
    tells: &'a dyn Fn(),
    /// What the storage program opened.
    volumes: Option<Vec<Partition>>,
}

impl Disk<'_> {
    /// Has the storage program open the volumes: it encrypts what is not encrypted yet, and closes the phase in which the TPM
    /// gives out keys.
    fn open(&mut self, more: &[&str]) -> Result<()> {
        let policy = format!("{}/{POLICY_VARIABLE}-{VENDOR_GUID}", slots::VARIABLES);
        let expected = format!("{}/{EXPECTED_VARIABLE}-{VENDOR_GUID}", slots::VARIABLES);
        let mut arguments = vec!["open", "--policy-key", "/policy-key", "--policy", &policy, "--expected", &expected];
        arguments.extend(["--level", &self.level]);
        let table = self.table.as_ref().ok().map(|table| table.device.to_string_lossy());
        if let Some(table) = &table {
            arguments.extend(["--table", table]);
        }
        if let Some(slot) = self.started {
            arguments.extend(["--slot", slot.name()]);
        }
        arguments.extend(more);
        self.volumes = Some(volumes::open(&arguments, self.tells)?);
        Ok(())
    }
}

impl reset::Disk for Disk<'_> {
    fn reset(&mut self) -> Reset {
        self.table.as_ref().map_or(Reset::None, |table| slots::reset_under_way(&table.device))
    }

    fn destroy_data(&mut self) -> Result<()> {
        self.open(&["--destroy", "data"])
    }

    fn note_data_destroyed(&mut self) -> Result<()> {
        let table = self.table.as_ref().map_err(Clone::clone)?;
        if let Some(line) = slots::note_data_destroyed(&table.device)? {
            say(&line);
        }
        Ok(())
    }

    fn say(&mut self, line: &str) {
        say(line);
    }
}

/// Opens the volumes, and carries out what a reset asks for before they are used. Gives the reset that is under way.
fn open_volumes(
    table: &Result<Partition>,
    started: Option<Slot>,
    level: u32,
    tells: &dyn Fn(),
) -> (Result<Vec<Partition>>, Reset) {
    if let (Err(error), Some(_)) = (table, started) {
        // It may ask for a full reset: what is stored is not used before that is known.
        return (Err(error.clone()), Reset::None);
    }
    let mut disk = Disk { table, started, level: level.to_string(), tells, volumes: None };
    let reset = match reset::carry_out(&mut disk) {
        Ok(reset) => reset,
        Err(error) => return (Err(error), Reset::Full),
    };
    let opened = if disk.volumes.is_some() { Ok(()) } else { disk.open(&[]) };
    (opened.map(|()| disk.volumes.unwrap_or_default()), reset)
}

/// The partition with the slot table, once the disk is there. Another disk may be there before it.
fn wait_for_table() -> Result<Partition> {
    let named = slots::named_table();
    let deadline = Instant::now() + DISK_TIME;
    loop {
        match slots::table_named(named) {
            // Another table than the named one is another disk's, which would be taken for this appliance's, and written to.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
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

/// Finds the volumes with the signed image, the started slot's first.
fn find(volumes: &[Partition], line: &CommandLine, started: Option<Slot>) -> std::result::Result<Vec<Partition>, Stop> {
    let mut reasons = Vec::new();
    let mut candidates = Vec::new();
    for partition in root::in_order(volumes, started) {
        match verity::check(&partition, &line.root) {
            Ok(()) => candidates.push(partition),
            Err(error) => reasons.push(format!("{} ({error})", partition.name)),
        }
    }
    match (candidates.is_empty(), reasons.is_empty()) {
        (false, _) => Ok(candidates),
        (true, false) => Err(Stop::Refused(reasons.join("; "))),
        (true, true) => {
            let names = Slot::ALL.map(Slot::system).join(", ");
            Err(Stop::Closed(format!(
                "none of {names} was opened; the lines before say why for each; if the TPM was cleared or is another one, write \
                 the disk image anew"
            )))
        }
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
    use super::{Stop, find, lockdown_level};
    use crate::command_line;
    use std::path::PathBuf;

    #[test]
    fn volumes_that_stayed_closed_are_not_blamed_on_the_partition_table() {
        let line = format!(
            "belvedere.root_hash={} belvedere.root_blocks=1 belvedere.root_salt=00 belvedere.rollback_level=0 \
             belvedere.board=board belvedere.version=1",
            "0".repeat(64)
        );
        let line = command_line::parse(&line).unwrap();
        // The storage program opened `data`, and left the others out.
        let data = super::Partition { name: "data".into(), device: PathBuf::from("/dev/null"), size: 0 };
        for volumes in [vec![data], Vec::new()] {
            let Err(Stop::Closed(reason)) = find(&volumes, &line, None) else { panic!("closed, and nothing else") };
            assert!(reason.contains("system-a") && reason.contains("write the disk image anew"), "{reason}");
            assert!(!reason.contains("partition table"), "{reason}");
        }
    }

    #[test]
    fn the_level_in_brackets_is_the_one_that_holds() {
        assert_eq!(lockdown_level("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(lockdown_level("none integrity [confidentiality]\n"), Some("confidentiality"));
        assert_eq!(lockdown_level("[none] integrity confidentiality\n"), None);
        assert_eq!(lockdown_level(""), None);
    }
}

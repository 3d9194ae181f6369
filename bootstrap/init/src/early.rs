//! The first stage, in the initial RAM file system: find the signed root image, switch to it.

use crate::command_line::{self, CommandLine};
use crate::console::{say, say_when};
use crate::watchdog::Watchdog;
use crate::{PROGRAM, Result, named, power};
use belvedere_front_panel_lights::{Leds, Lights, SysfsLeds, pattern};
use belvedere_interfaces::front_panel::Condition;
use belvedere_storage::device_mapper::Corruption;
use belvedere_storage::partitions::{self, Partition};
use belvedere_storage::verity::BLOCK;
use belvedere_storage::{mounts, verity};
use rustix::mount::MountFlags;
use std::convert::Infallible;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where a root image may be. Which of them the bootloader chose need not be told: the hash in the signed command line
/// names the image, and wherever that is, it is the right one.
pub const SYSTEM_PARTITIONS: [&str; 3] = ["system-a", "system-b", "system-minimum"];
/// How long to wait for a disk to appear.
const DISK_TIME: Duration = Duration::from_secs(20);
/// How long the error light can be seen before the machine starts again and the bootloader counts the try.
const ERROR_TIME: Duration = Duration::from_secs(8);
/// How long to wait for further system partitions once there is one: a disk's partitions appear together.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How much is read at once when the whole image is checked.
const CHUNK_BLOCKS: u64 = 256;
const DEVICE: &str = "belvedere-root";
const NEW_ROOT: &str = "/root";

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
    // Not with `nodev`, for once.
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount_new("devtmpfs", "/dev", "devtmpfs", flags, "mode=755").map_err(text)?;
    show(pattern([Condition::Booting], []));
    // Armed from here on: whatever hangs, the machine starts again and the bootloader counts the try.
    drop(Watchdog::arm());

    let line = std::fs::read_to_string("/proc/cmdline").map_err(named("read", "/proc/cmdline"))?;
    let line = command_line::parse(&line)?;
    say_when(&format!("version {} on board {}", line.version, line.board));

    let partition = find(&line)?;
    // While this stage reads, a wrong block is an error that can be told to people.
    let device = verity::open(DEVICE, &partition, &line.root, Corruption::Fail).map_err(text)?;
    let refused = |what: &str, error: String| Stop::Refused(format!("{}: {what}: {error}", partition.name));
    read_whole(&device, line.root.data_blocks).map_err(|error| refused("read the image", error))?;
    say_when("every block of the root image is as signed");
    std::fs::create_dir_all(NEW_ROOT).map_err(named("make", NEW_ROOT))?;
    let flags = MountFlags::RDONLY | mounts::PLAIN;
    mounts::mount(&device.display().to_string(), NEW_ROOT, "erofs", flags, "")
        .map_err(|error| refused("mount the verified image", error.to_string()))?;
    check_programs(Path::new(NEW_ROOT)).map_err(|error| refused("read the programs", error))?;
    // From here on nobody may run with a wrong block: the machine starts again, and the bootloader counts the try.
    verity::rearm(DEVICE, &partition, &line.root, Corruption::Restart).map_err(text)?;
    say_when(&format!("root image accepted from {} ({})", partition.name, partition.device.display()));
    switch_root().map_err(Stop::Failed)
}

/// Finds the partition with the signed image, waiting for the disk.
fn find(line: &CommandLine) -> std::result::Result<Partition, Stop> {
    let mut deadline = Instant::now() + DISK_TIME;
    loop {
        let found = partitions::list(partitions::SYSFS).map_err(text)?;
        let mut reasons = Vec::new();
        for name in SYSTEM_PARTITIONS {
            // Several of one name: the hash tells them apart, so each is tried.
            for partition in found.iter().filter(|partition| partition.name == name) {
                match verity::check(partition, &line.root) {
                    Ok(()) => return Ok(partition.clone()),
                    Err(error) => reasons.push(format!("{name} ({error})")),
                }
            }
        }
        if !reasons.is_empty() {
            deadline = deadline.min(Instant::now() + SETTLE_TIME);
        }
        if Instant::now() >= deadline {
            return Err(match reasons.is_empty() {
                true => Stop::Failed(format!("no partition named {}; is the disk there?", SYSTEM_PARTITIONS.join(", "))),
                false => Stop::Refused(reasons.join("; ")),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads every block through the kernel's check, with all processors: a changed image is refused before any of it
/// runs, with a reason and a light, and not in the middle of the work by a restart.
///
/// What it costs is written in the README; reading lazily would save that and keep the integrity, not the reason.
fn read_whole(device: &Path, blocks: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    let read = || {
        let mut buffer = vec![0u8; CHUNK_BLOCKS as usize * BLOCK as usize];
        let file = File::open(device)?;
        loop {
            let first = next.fetch_add(CHUNK_BLOCKS, Ordering::Relaxed);
            if first >= blocks {
                return Ok(());
            }
            let length = (blocks - first).min(CHUNK_BLOCKS) * BLOCK;
            file.read_exact_at(&mut buffer[..length as usize], first * BLOCK)?;
            // What was checked need not stay in memory; what is used soon is read again through the same check.
            let length = NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&file, first * BLOCK, length, rustix::fs::Advice::DontNeed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err::<(), std::io::Error>(error) = read() {
                    next.store(blocks, Ordering::Relaxed);
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |error| Err(format!("{}: {error}; the kernel's line above names the block", device.display())))
}

/// Reads what the second stage cannot start without. It will be read anyway, and stays in memory.
fn check_programs(root: &Path) -> Result<()> {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    for path in [PROGRAM, "/usr/lib/belvedere/bin/belvedere-front-panel"] {
        let path = inside(path);
        match std::fs::File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink())) {
            Ok(_) => {}
            // Whether it may be missing is the second stage's to say.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.ends_with("belvedere-init") => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    for directory in ["dev", "proc", "sys", "run", "tmp", "var"] {
        if !root.join(directory).is_dir() {
            return Err(format!("the directory /{directory} is missing"));
        }
    }
    Ok(())
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

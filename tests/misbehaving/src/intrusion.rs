//! What a service that somebody has taken over tries.

#![allow(clippy::disallowed_methods, reason = "what an intruder leaves behind need not survive a power cut")]

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of what is left behind.
pub const MARK: &str = "belvedere-intruder";
/// What is tried, in this order: what others' data is hidden behind is taken away last.
pub const ATTEMPTS: [&str; 9] =
    ["find", "leave", "remount", "settings", "strict", "devices", "disks", "variables", "uncovered"];
/// Settings of the kernel against others' tricks (`bootstrap/init`, "Settings of the kernel that close…"), and the least that
/// each must be.
pub const STRICT: [(&str, u32); 8] = [
    ("/proc/sys/fs/protected_symlinks", 1),
    ("/proc/sys/fs/protected_hardlinks", 1),
    ("/proc/sys/fs/protected_fifos", 2),
    ("/proc/sys/fs/protected_regular", 2),
    ("/proc/sys/fs/suid_dumpable", 0),
    ("/proc/sys/kernel/dmesg_restrict", 1),
    ("/proc/sys/kernel/kptr_restrict", 2),
    ("/proc/sys/kernel/unprivileged_bpf_disabled", 1),
];
/// Names each start of the kernel.
const START: &str = "/proc/sys/kernel/random/boot_id";
/// Where the service that makes containers has a second `/proc`.
const WHOLE_PROC: &str = "/run/belvedere-proc";
const DATA: &str = "/var/lib/belvedere";
const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// Tries one of them and says what came of it: `found <path>`, `left <path>`, `opened <path>`;
/// of each setting that it may read, whether it is `strict <path>` or `loose <path>`.
pub fn attempt(name: &str) {
    match name {
        "find" => find(),
        "leave" => leave(Path::new("/")),
        "uncovered" => {
            if rustix::mount::unmount(DATA, UnmountFlags::DETACH).is_ok() {
                find();
                leave(Path::new(DATA));
            }
        }
        "remount" => {
            for path in ["/", "/usr", "/etc"] {
                let _ = rustix::mount::mount_remount(path, MountFlags::empty(), "");
            }
            leave(Path::new("/etc"));
        }
        "settings" => {
            for path in [
                "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger",
                "/sys/kernel/uevent_helper", "/sys/power/state",
            ] {
                opens(Path::new(path));
            }
        }
        "strict" => strict(),
        "disks" => disks(),
        "variables" => variables(),
        _ => {
            // "devices"
            for path in ["/dev/kmsg", "/dev/watchdog0", "/dev/mem", "/dev/tpm0", "/dev/mapper/control"] {
                opens(Path::new(path));
            }
        }
    }
}

fn strict() {
    for (path, least) in STRICT {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let value: Option<u32> = text.trim().parse().ok();
        let right = if least == 0 { value == Some(0) } else { value.is_some_and(|value| value >= least) };
        println!("intruder: {} {path}", if right { "strict" } else { "loose" });
    }
}

fn opens(path: &Path) {
    if OpenOptions::new().write(true).open(path).is_ok() {
        println!("intruder: opened {}", path.display());
    }
}

/// Calls `each` for every directory below one, not for the kernel's.
fn directories(top: &Path, each: &mut impl FnMut(&Path)) {
    if ["/proc", "/sys", "/dev", WHOLE_PROC].iter().any(|kernels| top == Path::new(kernels)) {
        return;
    }
    each(top);
    let Ok(entries) = std::fs::read_dir(top) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            directories(&entry.path(), each);
        }
    }
}

fn this_start() -> String {
    std::fs::read_to_string(START).unwrap_or_default()
}

/// Marks of an earlier start.
fn find() {
    for top in ["/", "/dev/shm"] {
        directories(Path::new(top), &mut |directory| {
            let path = directory.join(MARK);
            // One that somebody is just writing is empty.
            let of_now = std::fs::read_to_string(&path).is_ok_and(|text| text.is_empty() || text == this_start());
            if path.symlink_metadata().is_ok() && !of_now {
                println!("intruder: found {}", path.display());
            }
        });
    }
}

fn leave(top: &Path) {
    directories(top, &mut |directory| {
        let path = directory.join(MARK);
        let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(this_start().as_bytes()));
        if written.is_ok() {
            println!("intruder: left {}", path.display());
        }
    });
    // What is there already, off the root image.
    let root = std::fs::metadata("/").map(|root| root.dev()).unwrap_or_default();
    directories(top, &mut |directory| {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && (metadata.dev() != root || directory == Path::new("/etc")) && entry.file_name() != MARK
            {
                opens(&entry.path());
            }
        }
    });
    rustix::fs::sync();
}

/// Every disk and partition, by a node of our own making and by the kernel's.
fn disks() {
    let list = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    for line in list.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [major, minor, _, name] = words[..] else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        opens(&Path::new("/dev").join(name));
        for directory in ["/tmp", "/dev/shm", "/dev"] {
            let path: PathBuf = [directory, name].iter().collect();
            let _ = mknodat(CWD, &path, FileType::BlockDevice, Mode::from_raw_mode(0o600), makedev(major, minor));
            opens(&path);
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// A variable of the firmware that stays.
fn variables() {
    for place in [VARIABLES, "/tmp", "/dev/shm"] {
        let mounted = rustix::mount::mount("efivarfs", place, "efivarfs", MountFlags::empty(), None).is_ok();
        let path = Path::new(place).join("BelvedereIntruder-5d2c6f4e-9a41-4c0b-8f35-1d7a0c2e6b88");
        // Attributes: not volatile, boot services, run time.
        if std::fs::write(&path, b"\x07\0\0\0intruder").is_ok() && (mounted || place == VARIABLES) {
            println!("intruder: left {}", path.display());
        }
    }
}

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
pub const ATTEMPTS: [&str; 11] =
    ["find", "leave", "remount", "settings", "strict", "devices", "disks", "mounted", "outside", "variables", "uncovered"];
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
/// of each setting that it may read, whether it is `strict <path>` or `loose <path>`; what the device filter should have
/// kept from it, `reached <what>`, and what it reaches after leaving its control group or making the firmware's variables
/// writable, `outside <what>`; of each volume whose table it may read, whether the kernel `shows` or `hides` its key.
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
        "mounted" => kernels_devices("reached"),
        "outside" => {
            if leaves_group() {
                println!("intruder: outside its control group");
                kernels_devices("outside");
            }
        }
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

/// Names of the disks and partitions.
fn disk_names() -> Vec<String> {
    let list = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    list.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect()
}

/// Disks and device mapper by the kernel's own `/dev`, mounted once more. Opening is enough: nothing is read.
fn kernels_devices(word: &str) {
    let place = Path::new("/tmp/belvedere-kernels-devices");
    let _ = std::fs::create_dir(place);
    if rustix::mount::mount("devtmpfs", place, "devtmpfs", MountFlags::empty(), None).is_err() {
        return;
    }
    for name in disk_names() {
        if std::fs::File::open(place.join(&name)).is_ok() {
            println!("intruder: {word} {name}");
        }
    }
    if let Ok(control) = OpenOptions::new().read(true).write(true).open(place.join("mapper/control")) {
        println!("intruder: {word} mapper/control");
        tables(&control);
    }
    let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
}

/// Whether this process could go where no filter holds: into the control group above all.
fn leaves_group() -> bool {
    let own = Path::new("/tmp/belvedere-groups");
    let _ = std::fs::create_dir(own);
    let _ = rustix::mount::mount("cgroup2", own, "cgroup2", MountFlags::empty(), None);
    [own, Path::new("/sys/fs/cgroup")].iter().any(|groups| {
        // Not made where it is not: a write to a new file would be no way out.
        let procs = OpenOptions::new().write(true).open(groups.join("cgroup.procs"));
        procs.is_ok_and(|mut procs| procs.write_all(b"0").is_ok())
    })
}

/// Asks device mapper for the table of each volume.
fn tables(control: &std::fs::File) {
    for entry in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let Ok(name) = std::fs::read_to_string(entry.path().join("dm/name")) else { continue };
        let name = name.trim();
        let Some(table) = table(control, name) else { continue };
        if let Some(shown) = shows_key(&table) {
            println!("intruder: {} the key of {name}", if shown { "shows" } else { "hides" });
        }
    }
}

/// Whether the text of a `crypt` target holds the key itself, and not a key's name; `None`: it is no such text.
fn shows_key(table: &str) -> Option<bool> {
    let mut words = table.split(' ');
    let (cipher, key) = (words.next()?, words.next()?);
    // dm-verity's begins with a version.
    cipher.starts_with("aes-").then(|| !key.starts_with(':'))
}

/// `DM_TABLE_STATUS` with `DM_STATUS_TABLE_FLAG`: the text of a device's only target.
fn table(control: &std::fs::File, name: &str) -> Option<String> {
    /// `struct dm_ioctl`, `struct dm_target_spec` and the text.
    #[repr(C, align(8))]
    struct Buffer([u8; 4096]);
    const HEADER: usize = 312;
    const TARGET: usize = 40;
    const TABLE_STATUS: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u8; HEADER]>(0xfd, 12);
    let mut buffer = Buffer([0; 4096]);
    for (at, number) in [(0, 4u32), (12, 4096), (16, HEADER as u32), (28, 1 << 4)] {
        buffer.0[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    buffer.0[48..48 + name.len().min(127)].copy_from_slice(&name.as_bytes()[..name.len().min(127)]);
    // SAFETY: the kernel reads and writes at most the bytes that the third number names, the buffer's; it is aligned as the
    // struct is.
    unsafe { rustix::ioctl::ioctl(control, rustix::ioctl::Updater::<TABLE_STATUS, Buffer>::new(&mut buffer)) }.ok()?;
    let text = buffer.0[HEADER + TARGET..].split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
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
    // All its mounts are one file system: made writable as a whole, it is so in every one. A file without content is no
    // variable yet.
    let place = Path::new("/tmp");
    if rustix::mount::mount("efivarfs", place, "efivarfs", MountFlags::empty(), None).is_ok()
        && rustix::mount::mount_remount(place, MountFlags::empty(), "").is_ok()
    {
        if std::fs::File::create(place.join("Empty-5d2c6f4e-9a41-4c0b-8f35-1d7a0c2e6b88")).is_ok() {
            println!("intruder: outside the firmware's variables");
        }
        let _ = rustix::mount::mount_remount(place, MountFlags::RDONLY, "");
    }
}

#[cfg(test)]
mod tests {
    use super::shows_key;

    #[test]
    fn a_key_in_a_table_is_told_from_a_keys_name() {
        let key = "a5".repeat(64);
        assert_eq!(shows_key(&format!("aes-xts-plain64 {key} 0 254:7 2048 1 sector_size:4096")), Some(true));
        let named = "aes-xts-plain64 :64:logon:belvedere:belvedere-data 0 254:7 2048 1 sector_size:4096";
        assert_eq!(shows_key(named), Some(false));
        assert_eq!(shows_key(&format!("1 254:1 254:1 4096 4096 512 1 sha256 {key} -")), None);
        assert_eq!(shows_key(""), None);
    }
}

//! What the tests in QEMU share.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belvedere_image::boot_entries::{self, Partition};
use belvedere_kernel_stub::Image;
use belvedere_keys::KeyDirectory;
use belvedere_virtual_appliance::{Appliance, Builder, Colour, Error, Pattern, disk, variables};
use tempfile::TempDir;

pub const OPERATING: &str = "belvedere: operating (";
/// The first stage ends: the volumes are open, and the verified root image's programs run from here on.
pub const TAKES_OVER: &str = "takes over (";
pub const CLOSED: &str = "belvedere: volumes stay closed: ";
pub const FAST_RED: Pattern = Pattern::Fast(Colour::Red);
pub const GREEN: Pattern = Pattern::Solid(Colour::Green);
pub const BOOTLOADER: &str = "EFI/BOOT/BOOTAA64.EFI";
pub const KERNEL: &str = "EFI/belvedere/slot-a.efi";

/// A boot takes seconds; a machine that builds at the same time takes many times as long.
pub const BOOT: Duration = Duration::from_secs(300);

/// The image under test.
pub fn image() -> PathBuf {
    let Some(image) = std::env::var_os("BELVEDERE_IMAGE") else {
        panic!(
            "set BELVEDERE_IMAGE to the directory that scripts/build-appliance wrote (with disk.img, \
             firmware-variables.fd and firmware.fd): BELVEDERE_IMAGE=$PWD/build/appliance scripts/cargo test -p belvedere-virtual-appliance"
        );
    };
    let image = PathBuf::from(image);
    assert!(image.join("disk.img").is_file(), "{} has no disk.img", image.display());
    std::path::absolute(image).unwrap()
}

/// Has the firmware start this file on `esp-a` first, with these load options: a boot entry of somebody who can write its
/// variables.
pub fn start_instead(image: &Path, store: &Path, file: &str, options: &str) {
    let esp = must(disk::entry(&image.join("disk.img"), "esp-a"));
    let (first_block, blocks) = (esp.extent.offset / 512, esp.extent.length / 512);
    let partition = Partition { number: esp.number, first_block, blocks, guid: esp.guid };
    let options: Vec<u8> = options.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    must(variables::set(store, "Boot0007", variables::GLOBAL, &boot_entries::entry("entry", partition, file, &options)));
    must(variables::set(store, "BootOrder", variables::GLOBAL, &7u16.to_le_bytes()));
}

/// A directory that ends with the test.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("belvedere-").tempdir().unwrap()
}

/// A copy of the image whose disk may be changed. Sparse, so it costs what the image really holds.
pub fn copy(directory: &Path) -> PathBuf {
    let (from, to) = (image(), directory.join("image"));
    std::fs::create_dir(&to).unwrap();
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from.join("disk.img"), from.join("firmware-variables.fd"), from.join("firmware.fd"), from.join("root.erofs")])
        .arg(&to)
        .status()
        .unwrap();
    assert!(status.success());
    to
}

/// Copies an appliance that is switched off: its disk, its firmware's variables, its TPM.
pub fn copy_state(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    // A board without a TPM has none.
    let parts = ["disk.qcow2", "variables.fd", "tpm"].map(|name| from.join(name)).into_iter().filter(|part| part.exists());
    let copied = Command::new("cp").args(["-a", "--sparse=always", "--reflink=auto"]).args(parts).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Puts into `directory` the state of an appliance of [`image`] that was started once and then cut off: its TPM is ours, its
/// disk encrypted, `data` is made. The first call makes it, the others get copies.
pub fn started_once(directory: &Path) {
    static STARTED: OnceLock<TempDir> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let scratch = scratch();
        let mut appliance = must(appliance(&image(), scratch.path()).start());
        must(appliance.console_contains(OPERATING, BOOT));
        must(appliance.power_cut());
        scratch
    });
    copy_state(&started.path().join("state"), &directory.join("state"));
}

/// As [`started_once`], above another `image`, which differs from [`image`] in its boot partitions alone: a start writes
/// nothing there.
pub fn started_once_above(image: &Path, directory: &Path) {
    started_once(directory);
    let disk = directory.join("state/disk.qcow2");
    let mut command = Command::new("qemu-img");
    command.args(["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.join("disk.img")).arg(disk);
    assert!(command.status().unwrap().success());
}

/// An appliance from `image`, with its state beside it.
pub fn appliance(image: &Path, directory: &Path) -> Builder {
    Appliance::builder(image).state_dir(directory.join("state"))
}

/// Ends a test with what a person needs to see, line by line.
#[track_caller]
pub fn must<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// A small generator (xorshift): what it draws needs to be repeatable, not unpredictable.
pub struct Draw(u64);

impl Draw {
    /// Begins with `BELVEDERE_SEED`, or with the time, and says with what.
    pub fn begin() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        let seed = number("BELVEDERE_SEED", now).max(1);
        println!("BELVEDERE_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 up to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }

    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether everything is to run, or what fits into a daily run.
pub fn in_full() -> bool {
    let long = std::env::var_os("BELVEDERE_LONG").is_some();
    if !long {
        println!("left out; set BELVEDERE_LONG to run it");
    }
    long
}

/// Does all the work, two at a time: an appliance has more than one processor to do in a third of its time only.
pub fn two_at_a_time<T: Send>(work: Vec<T>, each: impl Fn(T) + Sync) {
    let left = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(next) = next else { break };
                    each(next);
                }
            });
        }
    });
}

/// The keys that the image was signed with, where scripts/build-appliance takes them from.
pub fn keys() -> KeyDirectory {
    let home = || {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        data.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share"))
            .join("belvedere/keys")
    };
    let directory = std::env::var_os("BELVEDERE_KEYS").map_or_else(home, PathBuf::from);
    KeyDirectory::open(&directory).unwrap_or_else(|error| panic!("set BELVEDERE_KEYS to the image's keys: {error}"))
}

/// Where a section of a unified kernel image lies in its file.
pub fn section(file: &[u8], name: &str) -> std::ops::Range<u64> {
    let found = Image::parse(file).unwrap().file_section(name).expect("a section");
    let start = (found.as_ptr() as usize - file.as_ptr() as usize) as u64;
    start..start + found.len() as u64
}

/// The last line that contains a text.
pub fn line_with(console: &str, text: &str) -> Option<String> {
    console.lines().rev().find(|line| line.contains(text)).map(|line| line.trim().to_owned())
}

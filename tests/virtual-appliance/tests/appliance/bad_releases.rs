//! A new release whose userland hangs, panics, kills PID 1, fills memory or never becomes ready: the appliance is back on its
//! last good one within 3 starts and 5 minutes by itself, and says why.
//!
//! Each bad release is a whole image, built and signed like a good one, with one bad program (`tests/misbehaving`) in the
//! place of a good one. It lies in slot b as an updater leaves it there, of an appliance that operated in slot a before.
//!
//! By default one case runs, the quickest; with `BELVEDERE_LONG` all of them, and two releases that are bad in another way: one
//! that meets a wrong block of its root image while it operates, and one whose services somebody has taken over.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance bad_releases:: -- --nocapture
//!
//! The programs of the image are taken from `BELVEDERE_PROGRAMS` (`programs` beside the image), the keys from
//! `BELVEDERE_KEYS` (where `scripts/build-appliance` has them).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Slot, State, TRIES, Table};
use belvedere_image::appliance::{Request, build};
use belvedere_image::cache;
use belvedere_image::programs::MissingParts;
use belvedere_image::{board, progress::Progress};
use belvedere_luks2::record::{self, FACTORY_OFFSET, VolumeState};
use belvedere_luks2::{DATA_OFFSET, RECORD_OFFSETS};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Light, Pattern};

use crate::common::{BOOT, OPERATING, appliance, copy, image, in_full, keys, must, scratch};

/// What the appliance has for the way back.
const PROMISED: Duration = Duration::from_secs(300);
/// How much longer it may take here: an emulated machine beside others that work.
const PATIENCE: u32 = 3;

/// A bad release, and what is said of it.
struct Bad {
    /// Program of `tests/misbehaving`, without `misbehaving-`.
    program: &'static str,
    /// The program of the image in whose place it comes.
    replaces: &'static str,
    /// What the console of the good release's start says of the start before: one line, from its beginning on; one of these.
    told: &'static [&'static str],
    /// Somebody pulls the power during the second start of the bad release.
    power_cut: bool,
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// Compiles the bad programs for the board; gives where they are.
fn misbehaving() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = variable("CARGO_TARGET_DIR").unwrap_or_else(|| top.join("target"));
    let mut cargo = Command::new(top.join("scripts/cargo"));
    cargo.args(["--board", "build", "--quiet", "-p", "belvedere-misbehaving"]).env("CARGO_TARGET_DIR", &target);
    assert!(cargo.current_dir(&top).status().unwrap().success());
    target.join("aarch64-unknown-linux-gnu/release")
}

/// Builds the release; gives the directory with `uki.efi` and `root.erofs`.
fn release(bad: &Bad, directory: &Path) -> PathBuf {
    built(directory, &[(bad.program, bad.replaces)], |_| {})
}

/// Builds an image with programs of `tests/misbehaving` (without `misbehaving-`), each in the place of a program of the image,
/// and with what `more` changes in the directory of the image's parts.
fn built(directory: &Path, replaced: &[(&str, &str)], more: impl FnOnce(&Path)) -> PathBuf {
    let (programs, output) = (directory.join("programs"), directory.join("release"));
    let good = variable("BELVEDERE_PROGRAMS").unwrap_or_else(|| image().join("../programs"));
    assert!(good.is_dir(), "{} is missing: run scripts/build-appliance", good.display());
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(&good).arg(&programs).status().unwrap();
    assert!(copied.success());
    let misbehaving = misbehaving();
    for (program, replaces) in replaced {
        let mut places = ["bin", "initramfs"].map(|of| programs.join(format!("{of}/belvedere-{replaces}"))).into_iter();
        let place = places.find(|place| place.is_file()).unwrap_or_else(|| panic!("the image has no {replaces}"));
        fs::copy(misbehaving.join(format!("misbehaving-{program}")), &place).unwrap();
    }
    more(&programs);
    let request = Request {
        board: board::find("qemu-aarch64").unwrap(),
        keys: keys().path().to_owned(),
        programs,
        output: output.clone(),
        cache: cache::default_directory(),
        version: "0.2.0".into(),
        rollback_level: 0,
        db_key: 1,
        missing_parts: MissingParts::Refuse,
        development: true,
    };
    if let Err(error) = build(&request, &mut Progress::new()) {
        panic!("{error}");
    }
    fs::copy(image().join("firmware.fd"), output.join("firmware.fd")).unwrap();
    output
}

/// Puts a release into slot b of an image: its kernel image on both ESPs, its root image as it comes from the factory.
fn put_into_slot_b(image: &Path, release: &Path) {
    let path = image.join("disk.img");
    let kernel = fs::read(release.join("uki.efi")).unwrap();
    for esp in ["esp-a", "esp-b"] {
        must(must(Fat::in_partition(&path, esp)).put("EFI/belvedere/slot-b.efi", &kernel));
    }
    let root = fs::read(release.join("root.erofs")).unwrap();
    let raw = File::options().write(true).open(&path).unwrap();
    let system_b = must(disk::partition(&path, "system-b")).offset;
    let factory = VolumeState::Factory { bytes: root.len() as u64 };
    for (block, offset) in record::initial(factory).iter().zip(RECORD_OFFSETS) {
        raw.write_all_at(block, system_b + offset).unwrap();
    }
    raw.write_all_at(&root, system_b + FACTORY_OFFSET).unwrap();
}

fn table(appliance: &Appliance, extent: Extent) -> Copies {
    let [first, second] = COPY_OFFSETS.map(|offset| {
        let extent = Extent { offset: extent.offset + offset, length: BLOCK as u64 };
        must(disk::read(&appliance.disk(), extent))
    });
    Copies::read(&first, &second)
}

/// What an updater writes last: slot b has a whole new release, and is to be started.
fn prefer_slot_b(appliance: &Appliance, extent: Extent) {
    let copies = table(appliance, extent);
    let current = copies.current().expect("a table");
    assert_eq!(current.record(Slot::A).state, State::Good);
    let mut next: Table = current.written(Slot::B, 0);
    next.preferred = Slot::B;
    for change in copies.durable_changes(next) {
        must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
    }
}

/// What the console said since byte `start` of its log, over all power-ons.
fn said_since(appliance: &Appliance, start: usize) -> String {
    let log = fs::read(appliance.console_log()).unwrap();
    String::from_utf8_lossy(&log[start..]).replace('\r', "")
}

fn starts(said: &str, slot: &str) -> usize {
    said.matches(&format!("belvedere: slot {slot}: starting ")).count()
}

/// Waits for a text after the last start of slot a.
fn slot_a_says(appliance: &mut Appliance, text: &str, deadline: Instant) {
    loop {
        let console = appliance.console();
        if console.rsplit_once("belvedere: slot a: starting ").is_some_and(|(_, said)| said.contains(text)) {
            return;
        }
        if Instant::now() > deadline || !appliance.is_on() {
            let end: Vec<&str> = console.lines().rev().take(60).collect();
            panic!("slot a did not say {text:?}:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn gives_way(bad: &Bad) {
    let scratch = scratch();
    let release = release(bad, scratch.path());
    let image = copy(scratch.path());
    put_into_slot_b(&image, &release);
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));

    // The appliance as it was before the update.
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains(OPERATING, BOOT));
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(BOOT));
    must(appliance.power_cut());
    prefer_slot_b(&appliance, extent);
    let before = fs::metadata(appliance.console_log()).unwrap().len() as usize;

    let begun = Instant::now();
    let deadline = begun + PATIENCE * PROMISED;
    must(appliance.power_on());
    if bad.power_cut {
        while starts(&said_since(&appliance, before), "b") < 2 {
            assert!(Instant::now() < deadline, "no second start");
            std::thread::sleep(Duration::from_millis(100));
        }
        must(appliance.power_cut());
        must(appliance.power_on());
    }
    slot_a_says(&mut appliance, OPERATING, deadline);
    let took = begun.elapsed();
    let said = said_since(&appliance, before);
    println!(
        "measured: {}: back on the good release after {} starts and {:.0} s",
        bad.program,
        starts(&said, "b"),
        took.as_secs_f64()
    );
    if let Some(directory) = variable("BELVEDERE_CONSOLES") {
        fs::write(directory.join(format!("{}.log", bad.program)), &said).unwrap();
    }
    assert!(took <= PATIENCE * PROMISED, "{took:?}");
    assert_eq!((starts(&said, "b"), starts(&said, "a")), (usize::from(TRIES), 1), "{said}");
    let (_, good) = said.rsplit_once("belvedere: slot a: starting ").unwrap();
    let told = |line: &str| {
        let how = line.strip_prefix("belvedere: the start before this one ");
        how.is_some_and(|how| bad.told.iter().any(|told| how.starts_with(told)))
    };
    assert!(good.lines().any(told), "not told {:?}:\n{good}", bad.told);

    must(appliance.console_contains("belvedere: slot b is bad: it was tried 3 times in vain", BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), BOOT));
    must(appliance.power_cut());
    let table = table(&appliance, extent).current().expect("a table");
    assert_eq!((table.record(Slot::A).state, table.record(Slot::B).state), (State::Good, State::Bad));
}

/// The quickest case: the kernel panics with PID 1, and starts again after its 5 seconds.
#[test]
fn a_release_whose_pid_1_ends_is_back_on_the_good_one_and_a_power_cut_gives_it_no_further_try() {
    gives_way(&Bad {
        program: "init-ends",
        replaces: "init",
        told: &["ended in a panic (Kernel panic - not syncing: Attempted to kill init!"],
        power_cut: true,
    });
}

#[test]
fn a_release_whose_pid_1_panics_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "init-panics",
            replaces: "init",
            told: &["ended in a panic (Kernel panic - not syncing: Attempted to kill init!"],
            power_cut: false,
        });
    }
}

/// What ends it is the watchdog, 60 s after its last sign of life in the first stage.
#[test]
fn a_release_whose_pid_1_hangs_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "init-hangs",
            replaces: "init",
            told: &["was ended by the watchdog: nothing was heard after it had reached the root image of 0.2.0; the kernel"],
            power_cut: false,
        });
    }
}

/// The kernel finds that nothing can be ended for memory, and panics; or it turns over pages of programs until the watchdog
/// ends that.
#[test]
fn a_release_whose_pid_1_fills_the_memory_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "init-fills-memory",
            replaces: "init",
            told: &[
                "ended in a panic (Kernel panic - not syncing: ",
                "was ended by the watchdog: nothing was heard after it had reached the root image of 0.2.0; the kernel",
            ],
            power_cut: false,
        });
    }
}

#[test]
fn a_release_with_a_service_that_is_never_ready_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "never-ready",
            replaces: "front-panel",
            told: &["gave up: front-panel did not become ready within "],
            power_cut: false,
        });
    }
}

#[test]
fn a_release_with_a_service_that_fills_the_memory_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "service-fills-memory",
            replaces: "network",
            told: &["gave up: network ends again and again; it ended by signal 9"],
            power_cut: false,
        });
    }
}

#[test]
fn a_release_with_a_service_that_panics_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "service-panics",
            replaces: "provisioning",
            told: &["gave up: provisioning ends again and again; it panicked: "],
            power_cut: false,
        });
    }
}

/// The first stage feeds the watchdog only while its storage program tells something.
#[test]
fn a_release_whose_storage_program_hangs_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "never-ready",
            replaces: "storage",
            told: &[
                "was ended by the watchdog: nothing was heard after it had reached the first stage of 0.2.0; the kernel",
            ],
            power_cut: false,
        });
    }
}

/// The bootloader armed the watchdog and locked it; the kernel's driver cannot switch it off, and nobody feeds it.
#[test]
fn a_release_whose_first_program_hangs_before_it_feeds_the_watchdog_is_back_on_the_good_one() {
    if in_full() {
        gives_way(&Bad {
            program: "init-hangs-early",
            replaces: "init",
            told: &["was ended by the watchdog: nothing was ever heard of PID 1; the kernel's last lines were:"],
            power_cut: false,
        });
    }
}

/// Bytes that cannot be compressed, so that they lie in the root image as they are (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// A block that is not as signed, met by a proven slot while the appliance operates: the kernel restarts at once, the next
/// start says so by light and console, the slot loses its turns, and the other good one tells why.
#[test]
fn a_wrong_block_met_while_a_proven_slot_runs_is_told_and_the_slot_gives_way() {
    if !in_full() {
        return;
    }
    let scratch = scratch();
    let late = noise(256 * 1024);
    // The release in slot a, which reads late; the good one is in slot b.
    let release = built(scratch.path(), &[("reads-late", "display")], |programs| {
        fs::write(programs.join("licences/read-late"), &late).unwrap();
    });
    let root = fs::read(release.join("root.erofs")).unwrap();
    // In its middle, where the file system has nothing of its own.
    let middle = &late[128 * 1024..][..4096];
    let place = root.windows(middle.len()).position(|window| window == middle).expect("the file, uncompressed");
    put_into_slot_b(&release, &image());
    let path = release.join("disk.img");
    let (extent, system_a) = (must(disk::partition(&path, PARTITION)), must(disk::partition(&path, "system-a")));
    let mut appliance = must(appliance(&release, scratch.path()).start());
    must(appliance.console_contains("[display] read Ok(262144)", BOOT));
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(BOOT));
    must(appliance.power_cut());
    for change in table(&appliance, extent).durable_changes(Table::made_anew(0)) {
        must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
    }
    // A flash cell that forgets, in the volume as it lies on the disk: encrypted.
    must(disk::write(&appliance.disk(), system_a.offset + DATA_OFFSET + place as u64, &[0x5a; 512]));

    let before = fs::metadata(appliance.console_log()).unwrap().len() as usize;
    let deadline = Instant::now() + PATIENCE * PROMISED;
    must(appliance.power_on());
    must(appliance.console_contains(OPERATING, BOOT));
    must(appliance.console_contains("dm-verity device corrupted", BOOT));
    must(appliance.console_contains("belvedere: root image refused: system-a: ", BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Red), BOOT));
    loop {
        let said = said_since(&appliance, before);
        if said.rsplit_once("belvedere: slot b: starting ").is_some_and(|(_, said)| said.contains(OPERATING)) {
            break;
        }
        assert!(Instant::now() < deadline, "slot b does not operate:\n{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = said_since(&appliance, before);
    println!("measured: {} starts of the slot with the wrong block", starts(&said, "a"));
    let (_, good) = said.rsplit_once("belvedere: slot b: starting ").unwrap();
    let told = "belvedere: the start before this one gave up: root image refused: system-a: ";
    assert!(good.lines().any(|line| line.starts_with(told)), "{good}");
    must(appliance.console_contains("belvedere: slot a is lost: ", BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), BOOT));
}

/// Where a mark that a service left may still be after a restart: in its own part of `data`, if it has one. Two services hold
/// rights with which they take away what hides the others' parts (`bootstrap/init`, "Two services hold rights…").
fn may_keep(service: &str, path: &str) -> bool {
    let Some(below) = path.strip_prefix("/var/lib/belvedere/") else { return false };
    let own = ["provisioning", "network", "agent", "applications"].contains(&service)
        && below.strip_prefix(service).is_some_and(|rest| rest.starts_with('/'));
    own || ["provisioning", "applications"].contains(&service)
}

/// Somebody has taken over every service of a running appliance, and leaves what they can for after the next restart.
#[test]
fn what_services_that_were_taken_over_leave_behind_does_not_outlive_a_restart_except_in_their_own_data() {
    const SERVICES: [&str; 9] =
        ["front-panel", "network", "provisioning", "decoder", "camera", "inference", "display", "applications", "agent"];
    if !in_full() {
        return;
    }
    let scratch = scratch();
    let release = built(scratch.path(), &SERVICES.map(|service| ("intruder", service)), |_| {});
    let mut appliance = must(appliance(&release, scratch.path()).start());
    must(appliance.console_contains(OPERATING, BOOT));
    let first = appliance.console();
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(BOOT));
    must(appliance.power_cut());
    must(appliance.power_on());
    must(appliance.console_contains(OPERATING, BOOT));
    let second = appliance.console();
    must(appliance.power_cut());
    if let Some(directory) = variable("BELVEDERE_CONSOLES") {
        fs::write(directory.join("intruder.log"), format!("{first}\n{second}")).unwrap();
    }
    // Service, what came of it, path.
    let done = |console: &str| -> Vec<[String; 3]> {
        let lines = console.lines().filter_map(|line| {
            let (service, said) = line.trim_start().strip_prefix('[')?.split_once("] intruder: ")?;
            let (what, path) = said.split_once(' ')?;
            (what != "tried").then(|| [service, what, path].map(str::to_owned))
        });
        lines.collect()
    };
    let (first, second) = (done(&first), done(&second));
    for service in SERVICES {
        // Every one can leave something until the end of the start, or nothing was tried.
        assert!(first.iter().any(|[by, what, _]| by == service && what == "left"), "{service} tried nothing: {first:?}");
    }
    assert!(!first.iter().any(|[_, what, _]| what == "found"), "a mark before anything was left: {first:?}");
    assert!(!first.iter().any(|[_, what, _]| what == "loose"), "a setting of the kernel is not what it must be: {first:?}");
    for setting in [
        "fs/protected_symlinks", "fs/protected_hardlinks", "fs/protected_fifos", "fs/protected_regular", "fs/suid_dumpable",
        "kernel/dmesg_restrict", "kernel/kptr_restrict", "kernel/unprivileged_bpf_disabled",
    ] {
        let read = first.iter().any(|[_, what, path]| what == "strict" && path.ends_with(setting));
        assert!(read, "no service could read {setting}: {first:?}");
    }
    for [service, _, path] in first.iter().chain(&second) {
        assert!(!path.contains("BelvedereIntruder"), "{service} made a variable of the firmware that stays: {path}");
    }
    for [service, what, reached] in first.iter().chain(&second) {
        assert!(what != "reached", "its device filter lets {service} open {reached}");
        assert!(what != "shows", "the kernel shows {service} {reached}");
        // docs/security.md, "What a taken-over `applications` could do".
        assert!(what != "outside" || service == "applications", "{service} is outside: {reached}");
    }
    // It does get as far as the volumes' tables, or nothing was tried.
    let hides = |[by, what, _]: &&[String; 3]| by == "applications" && what == "hides";
    assert!(first.iter().filter(hides).count() >= 2, "nobody asked for a volume's table: {first:?}");
    let left = first.iter().filter(|[_, what, _]| what == "left").count();
    let kept: Vec<_> = second.iter().filter(|[_, what, _]| what == "found").collect();
    println!("measured: {left} marks left, {} outlived the restart", kept.len());
    assert!(!kept.is_empty(), "not even its own data is kept");
    for [service, _, path] in &kept {
        assert!(may_keep(service, path), "{service} finds {path}");
    }
    for [service, what, path] in first.iter().chain(&second).filter(|[_, what, _]| what == "opened") {
        let of_this_start = ["/run/belvedere/", "/tmp/", "/dev/shm/"].iter().any(|top| path.starts_with(top));
        // The container runtime needs a whole `/proc` (`bootstrap/init`): what is set there is gone with the restart, and the
        // kernel starts no program that it names (CONFIG_STATIC_USERMODEHELPER).
        let settings = service == "applications" && path == "/run/belvedere-proc/sys/kernel/core_pattern";
        assert!(of_this_start || settings || may_keep(service, path), "{service} {what} {path}");
    }
}

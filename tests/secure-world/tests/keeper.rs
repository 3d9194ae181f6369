//! The keeper in a real OP-TEE, in QEMU: what it keeps, what it refuses, and what another board, a crash, a power cut and a disk
//! that was put back make of it.
//!
//!     scripts/cargo --board build -p belvedere-secure-world-test
//!     BELVEDERE_IMAGE=… BELVEDERE_SECURE_WORLD=$(firmware/secure-world/build) \
//!         BELVEDERE_CRASHING_SECURE_WORLD=$(firmware/secure-world/build --crash) \
//!         scripts/cargo test -p belvedere-secure-world-test -- --nocapture
//!
//! Does nothing without `BELVEDERE_SECURE_WORLD`. The kernel is the image's; it is started by itself, without Secure Boot.
//! `BELVEDERE_SEED` draws the power cuts' moments as an earlier run did.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use belvedere_kernel_stub::{Image, LINUX};
use belvedere_virtual_appliance::secure_world::SecureWorld;

/// Most that one start may take: alone it is ten seconds.
const START: Duration = Duration::from_secs(400);

/// A machine that is killed with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench {
    directory: tempfile::TempDir,
    firmware: PathBuf,
}

impl Bench {
    /// Nothing when there is no firmware to test with; `variable` says where it is.
    fn new(variable: &str) -> Option<Self> {
        let Some(firmware) = std::env::var_os(variable) else {
            println!("left out: set {variable}");
            return None;
        };
        let firmware = PathBuf::from(firmware);
        let image =
            PathBuf::from(std::env::var_os("BELVEDERE_IMAGE").expect("BELVEDERE_IMAGE: the kernel is taken from it"));
        let bench = Self { directory: tempfile::tempdir().unwrap(), firmware };
        let unified = fs::read(image.join("uki.efi")).unwrap();
        let kernel = Image::parse(&unified).unwrap().file_section(LINUX).unwrap().to_vec();
        fs::write(bench.path("kernel"), kernel).unwrap();
        bench.make_initramfs();
        let file = fs::File::create(bench.path("variables.fd")).unwrap();
        file.set_len(64 << 20).unwrap();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_initramfs(&self) {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
        let program = target.join("aarch64-unknown-linux-gnu/release/belvedere-secure-world-machine");
        let root = self.path("root");
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::copy(&program, root.join("init")).unwrap_or_else(|error| {
            panic!("{}: {error}; type: scripts/cargo --board build -p belvedere-secure-world-test", program.display())
        });
        let archive = fs::File::create(self.path("initramfs")).unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--quiet", "-o", "-H", "newc"])
            .current_dir(&root)
            .stdin(Stdio::piped())
            .stdout(archive)
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(b"dev\ninit\n").unwrap();
        assert!(cpio.wait().unwrap().success());
    }

    /// An empty disk for the secure world's storage.
    fn disk(&self, name: &str) {
        fs::File::create(self.path(name)).unwrap().set_len(4 << 20).unwrap();
    }

    /// Switches the board on, with a disk and what its one program is to ask for.
    fn power_on(&self, board: &str, disk: &str, script: &str) -> Machine {
        let state = self.path(board);
        fs::create_dir_all(&state).unwrap();
        let flash = SecureWorld::new(&self.firmware).flash(&state).unwrap();
        let _ = fs::remove_file(self.path("console.log"));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let machine = Command::new("qemu-system-aarch64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
            .args(["-machine", "virt,acpi=off,gic-version=3,secure=on", "-cpu", "cortex-a76", "-smp", "2", "-m", "1536"])
            .args(["-serial", &format!("file:{}", text(&self.path("console.log")))])
            .args(["-serial", &format!("file:{}", text(&self.path("secure-console.log")))])
            .args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", text(&flash))])
            .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", text(&self.path("variables.fd")))])
            .args(["-drive", &format!("if=none,id=disk,format=raw,file={}", text(&self.path(disk)))])
            .args(["-device", "virtio-blk-pci,drive=disk"])
            .args(["-kernel", &text(&self.path("kernel")), "-initrd", &text(&self.path("initramfs"))])
            .args(["-append", &format!("console=ttyAMA0 acpi=off panic=-1 loglevel=5 rdinit=/init keeper={script}")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Machine(machine)
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console.log")).unwrap_or_default()).into_owned()
    }

    /// Starts the board and lets it finish; gives an answer for each word of the script.
    fn start(&self, board: &str, disk: &str, script: &[&str]) -> Vec<String> {
        let mut machine = self.power_on(board, disk, &script.join(","));
        let begun = Instant::now();
        while machine.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < START, "{}", self.console());
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = self.console();
        println!("measured: power to off, {board} with {disk}: {:.1} s", begun.elapsed().as_secs_f32());
        assert!(ours(&said).any(|line| line == "end"), "{said}");
        for (index, word) in script.iter().enumerate() {
            if let Some(took) = line(&said, &format!("took {index} ")) {
                println!("measured: {took} ms, {}", word.chars().take(20).collect::<String>());
            }
        }
        let answers = (0..script.len()).map(|index| line(&said, &format!("{index} ")));
        answers.map(|answer| answer.unwrap_or_else(|| panic!("{said}"))).collect()
    }

    /// Starts the board, and takes its power away some time after its program began to ask. Gives what was answered until then.
    fn cut(&self, board: &str, disk: &str, word: &str, after: Duration) -> Option<String> {
        let machine = self.power_on(board, disk, word);
        let begun = Instant::now();
        while !ours(&self.console()).any(|line| line == "op-tee") {
            assert!(begun.elapsed() < START, "{}", self.console());
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(after);
        drop(machine);
        // The last line may be half of one.
        let said = self.console();
        line(&said[..said.rfind('\n').map_or(0, |end| end + 1)], "0 ")
    }
}

fn ours(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| line.trim().strip_prefix("keeper: "))
}

fn line(said: &str, begin: &str) -> Option<String> {
    ours(said).find_map(|line| line.strip_prefix(begin)).map(str::to_owned)
}

/// System secret, data secret, level.
fn secrets(answer: &str) -> [&str; 3] {
    let words: Vec<&str> = answer.split(' ').collect();
    let [system, data, level] = words[..] else { panic!("no secrets: {answer}") };
    assert!(system.len() == 64 && data.len() == 64 && system != data, "{answer}");
    [system, data, level]
}

const CLOSED: &str = "no: the keeper is closed until the machine starts again";
const NOT_OPENED: &str = "no: the keeper was not opened in this start";
const FOREIGN: &str = "no: this is no device key of this appliance as it is now";

#[test]
fn what_the_keeper_keeps_it_keeps_for_this_board_and_until_it_is_closed() {
    let Some(bench) = Bench::new("BELVEDERE_SECURE_WORLD") else { return };
    bench.disk("disk");
    let zeros = format!("sign:{}", "01".repeat(125));

    // The first start makes the secrets; the level goes up to the release's own and not down.
    let script = [
        "make", "raise:0", "level", "open:3", "open:4", "open:3", "level", "raise:4", "raise:2", "raise:1", "level",
        "open:65",
    ];
    let first = bench.start("board", "disk", &script);
    assert_eq!(first[..3], [NOT_OPENED, NOT_OPENED, "none open"]);
    let [system, data, level] = secrets(&first[3]);
    assert_eq!(level, "0");
    assert_eq!(first[4], "no: the keeper was opened for a release of another level in this start");
    assert_eq!((&first[5], first[6].as_str()), (&first[3], "0 open"));
    assert_eq!(first[7], "no: the rollback level cannot go above the release's own");
    assert_eq!(first[8], "raised");
    assert_eq!(first[9], "no: the rollback level cannot go down");
    assert_eq!(first[10..], ["2 open", "no: there is no such rollback level"]);
    fs::copy(bench.path("disk"), bench.path("copy")).unwrap();

    // The next: below the level nothing; the same secrets; once closed nothing but level, keys and signatures.
    let below = "no: a release of rollback level 1 is given nothing: the keeper keeps level 2";
    let script = [
        "level", "open:1", "renew:1", "open:3", "make", "sign:last", "close", "level", "open:3", "renew:3", "raise:3",
        "make", "sign:last", &zeros, "raw:99", "raw:1", "close", "level",
    ];
    let second = bench.start("board", "disk", &script);
    assert_eq!(second[..3], ["2 open", below, below]);
    assert_eq!(secrets(&second[3]), [system, data, "2"]);
    assert_eq!(second[6..11], ["closed", "2 closed", CLOSED, CLOSED, CLOSED]);
    assert_eq!(second[13], FOREIGN);
    assert!(second[14].contains("bad parameters") && second[15].contains("bad parameters"), "{second:#?}");
    assert_eq!(second[16..], ["closed", "2 closed"]);
    let (key, signature) = (&second[11], &second[12]);
    assert!(verify(&second[4], &second[5]) && verify(key, signature));
    assert!(!verify(key, &second[5]));
    let sign = format!("sign:{}", key.split(' ').next().unwrap());

    // Closed before anybody opened it: nothing.
    let third = bench.start("board", "disk", &["close", "level", "open:3", "make", &sign, "raise:3"]);
    assert_eq!(third, ["closed", "none closed", CLOSED, NOT_OPENED, NOT_OPENED, CLOSED]);

    // A full reset: another data secret, and no key of before signs. The level stays.
    let fourth = bench.start("board", "disk", &["open:3", &sign, "renew:3", &sign, "make", "sign:last"]);
    assert!(verify(key, &fourth[1]));
    let [same, new, level] = secrets(&fourth[2]);
    assert_eq!((same, level, fourth[3].as_str()), (system, "2", FOREIGN));
    assert_ne!(new, data);
    assert!(verify(&fourth[4], &fourth[5]));
    let fifth = bench.start("board", "disk", &["open:2", &sign]);
    assert_eq!((secrets(&fifth[0]), fifth[1].as_str()), ([system, new, "2"], FOREIGN));

    // What this board cannot know without RPMB, and what we say it does not stop: a disk that was put back.
    let put_back = bench.start("board", "copy", &["open:2", &sign]);
    assert_eq!(secrets(&put_back[0]), [system, data, "2"]);
    assert!(verify(key, &put_back[1]));

    // Another board has other fuses: nothing on the disk opens there.
    let foreign = bench.start("other-board", "disk", &["level", "open:3", "open:3", &sign]);
    for answer in &foreign {
        assert!(![system, data, new].iter().any(|secret| answer.contains(secret)), "{foreign:#?}");
    }
    assert!(foreign[3].starts_with("no: "), "{foreign:#?}");
    println!("another board says: {foreign:#?}");
}

/// The power goes at any moment of the first opening: what was given out once is what is given out for ever.
#[test]
fn a_power_cut_at_the_first_opening_changes_nothing_that_was_given_out() {
    let Some(bench) = Bench::new("BELVEDERE_SECURE_WORLD") else { return };
    let seed = std::env::var("BELVEDERE_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("BELVEDERE_SEED: a number"),
    );
    println!("BELVEDERE_SEED={seed}");
    bench.disk("whole");
    bench.start("board", "whole", &["open:1"]);
    let took: f64 = line(&bench.console(), "took 0 ").unwrap().parse().unwrap();
    let mut state = seed;
    for cut in 0..5 {
        // Knuth's MMIX generator; its high bits.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The square: the first opening of all takes longer than it does when the host is warm.
        let drawn = (state >> 40) as f64 / f64::from(1 << 24);
        let after = Duration::from_secs_f64(took / 1000.0 * 1.2 * drawn * drawn);
        bench.disk("disk");
        let given = bench.cut("board", "disk", "open:1", after);
        let next = bench.start("board", "disk", &["level", "open:1"]);
        println!("cut {cut} after {after:?}: given out before: {}, afterwards {}", given.is_some(), next[0]);
        secrets(&next[1]);
        if let Some(given) = given {
            assert_eq!((given, next[0].as_str()), (next[1].clone(), "0 open"));
        }
        let last = bench.start("board", "disk", &["open:1"]);
        assert_eq!(last[0], next[1]);
    }
}

/// One that crashed is not started again: else it would be open.
#[test]
fn a_keeper_that_crashed_stays_closed_until_the_next_start() {
    let Some(bench) = Bench::new("BELVEDERE_CRASHING_SECURE_WORLD") else { return };
    bench.disk("disk");
    let script = ["open:1", "close", "crash", "level", "open:1", "make", "close", "raw:0"];
    let first = bench.start("board", "disk", &script);
    secrets(&first[0]);
    assert_eq!(first[1], "closed");
    assert!(first[2].contains("the trusted application crashed"), "{first:#?}");
    for answer in &first[3..] {
        assert!(answer.starts_with("no: ") && answer.contains("crashed"), "{first:#?}");
    }
    assert_eq!(bench.start("board", "disk", &["open:1"])[0], first[0]);
}

/// Whether the program's signature is of the key that `made` tells of.
fn verify(made: &str, signature: &str) -> bool {
    let point = [&[4], &hex::decode(made.split(' ').nth(1).unwrap()).unwrap()[..]].concat();
    verify_digest(&point, &[0x5a; 32], &hex::decode(signature).unwrap_or_else(|_| panic!("{signature}")))
}

/// ECDSA over a digest, checked by openssl.
fn verify_digest(point: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // SubjectPublicKeyInfo of a P-256 key (RFC 5480).
    let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    fs::write(at("key.der"), [&head[..], point].concat()).unwrap();
    fs::write(at("digest"), digest).unwrap();
    fs::write(at("signature"), der(signature)).unwrap();
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey"])
        .arg(at("key.der"))
        .arg("-in")
        .arg(at("digest"))
        .arg("-sigfile")
        .arg(at("signature"))
        .output()
        .unwrap();
    output.status.success()
}

/// `ECDSA-Sig-Value` of r and s.
fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let bytes: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).collect();
        let sign = bytes.first().is_none_or(|&byte| byte >= 0x80);
        let bytes = if sign { [&[0], &bytes[..]].concat() } else { bytes };
        [&[2, bytes.len() as u8][..], &bytes].concat()
    };
    let (r, s) = signature.split_at(32);
    let both = [integer(r), integer(s)].concat();
    [&[0x30, both.len() as u8][..], &both].concat()
}

//! OP-TEE as a keeper, in QEMU: the rollback level goes up and not down, the device key is made once and signs, and both are
//! there again after a start. Another board's fuses open nothing.
//!
//!     scripts/cargo --board build -p belvedere-secure-world-test
//!     BELVEDERE_IMAGE=… BELVEDERE_SECURE_WORLD=$(firmware/secure-world/build) \
//!         scripts/cargo test -p belvedere-secure-world-test -- --nocapture
//!
//! Does nothing without `BELVEDERE_SECURE_WORLD`. The kernel is the image's; it is started by itself, without Secure Boot.

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
    /// Nothing when there is no firmware to test with.
    fn new() -> Option<Self> {
        let firmware = PathBuf::from(std::env::var_os("BELVEDERE_SECURE_WORLD")?);
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

    /// Starts the board `board` with a disk; gives what was said, without what is not ours.
    fn start(&self, board: &str, disk: &str) -> Vec<String> {
        let state = self.path(board);
        fs::create_dir_all(&state).unwrap();
        let flash = SecureWorld::new(&self.firmware).flash(&state).unwrap();
        let console = self.path("console.log");
        let _ = fs::remove_file(&console);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let machine = Command::new("qemu-system-aarch64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
            .args(["-machine", "virt,acpi=off,gic-version=3,secure=on", "-cpu", "cortex-a76", "-smp", "2", "-m", "1536"])
            .args(["-serial", &format!("file:{}", text(&console))])
            .args(["-serial", &format!("file:{}", text(&self.path("secure-console.log")))])
            .args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", text(&flash))])
            .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", text(&self.path("variables.fd")))])
            .args(["-drive", &format!("if=none,id=disk,format=raw,file={}", text(&self.path(disk)))])
            .args(["-device", "virtio-blk-pci,drive=disk"])
            .args(["-kernel", &text(&self.path("kernel")), "-initrd", &text(&self.path("initramfs"))])
            .args(["-append", "console=ttyAMA0 acpi=off panic=-1 loglevel=5 rdinit=/init"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut machine = Machine(machine);
        let begun = Instant::now();
        while machine.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < START, "{}", fs::read_to_string(&console).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap()).into_owned();
        println!("measured: power to off, {board} with {disk}: {:.1} s", begun.elapsed().as_secs_f32());
        let ours: Vec<String> =
            said.lines().filter_map(|line| line.trim().strip_prefix("keeper: ")).map(str::to_owned).collect();
        assert_eq!(ours.last().map(String::as_str), Some("end"), "{said}");
        ours
    }
}

fn value<'a>(said: &'a [String], name: &str) -> &'a str {
    said.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name:?} in {said:#?}")).trim()
}

#[test]
fn the_secure_world_keeps_level_and_key_for_this_board_alone() {
    let Some(bench) = Bench::new() else { return println!("left out: set BELVEDERE_SECURE_WORLD") };
    bench.disk("disk");
    let first = bench.start("board", "disk");
    assert_eq!(first[..3], ["op-tee", "level 0", "raised to 3"], "{first:#?}");
    assert!(value(&first, "not lowered:").contains("refused for security"), "{first:#?}");
    assert_eq!(first[4], "level 3", "{first:#?}");
    assert!(!first.iter().any(|line| line.starts_with("stolen") || line == "lowered"), "{first:#?}");
    value(&first, "not stolen:");
    let key = hex::decode(value(&first, "key")).unwrap();
    let verify = |said: &[String]| {
        let point = [&[4], &hex::decode(value(said, "key")).unwrap()[..]].concat();
        let signature = hex::decode(value(said, "signature")).unwrap();
        verify_digest(&point, &[0x5a; 32], &signature)
    };
    assert!(verify(&first));
    fs::copy(bench.path("disk"), bench.path("copy")).unwrap();

    // The next start: the same key, the level that it was.
    let second = bench.start("board", "disk");
    assert_eq!(second[..3], ["op-tee", "level 3", "raised to 6"], "{second:#?}");
    assert_eq!(hex::decode(value(&second, "key")).unwrap(), key);
    assert!(verify(&second));

    // What this board cannot know without RPMB, and what we say it does not stop: a disk that was put back.
    let put_back = bench.start("board", "copy");
    assert_eq!(put_back[1], "level 3", "{put_back:#?}");

    // Another board has other fuses: nothing on the disk opens there.
    let foreign = bench.start("other-board", "disk");
    assert!(!foreign.iter().any(|line| *line == format!("key {}", hex::encode(&key))), "{foreign:#?}");
    assert!(!foreign.contains(&"level 6".to_owned()), "{foreign:#?}");
    println!("another board says: {foreign:#?}");
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

//! The program as it is run in a factory, with scripts that stand in for NVIDIA's and a false board in a file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use belvedere_keys::jetson::{self, FuseSecret, Jetson};
use belvedere_keys::{KeyDirectory, Validity};

const NEW: &str = include_str!("../fixtures/new-orin.txt");
const NUMBER: &str = "0x80012344705DF1172C0000000D020080";

struct Factory {
    scratch: tempfile::TempDir,
}

impl Factory {
    fn new() -> Factory {
        let scratch = tempfile::tempdir().unwrap();
        let keys = belvedere_keys::create(scratch.path().join("keys"), Validity::default()).unwrap();
        jetson::create(&keys, Jetson::Orin).unwrap();
        let tools = scratch.path().join("Linux_for_Tegra");
        fs::create_dir_all(tools.join("bootloader")).unwrap();
        fs::create_dir(scratch.path().join("temporary")).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins");
        for name in ["odmfuseread.sh", "odmfuse.sh", "bootloader/tegrasign_v3.py"] {
            fs::copy(from.join(name), tools.join(name)).unwrap();
        }
        let factory = Factory { scratch };
        factory.put_board(NEW);
        factory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn put_board(&self, text: &str) {
        fs::write(self.path("Linux_for_Tegra/board.txt"), text).unwrap();
    }

    fn board(&self) -> String {
        fs::read_to_string(self.path("Linux_for_Tegra/board.txt")).unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("Linux_for_Tegra/calls")).unwrap_or_default()
    }

    /// Runs the program with a board on the bench.
    fn run(&self, more: &[&str], typed: &str) -> (bool, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_belvedere-factory-fuses"))
            .args(["--chip", "orin", "--target", "jetson-agx-orin-devkit"])
            .arg("--keys")
            .arg(self.path("keys"))
            .arg("--tools")
            .arg(self.path("Linux_for_Tegra"))
            .arg("--log")
            .arg(self.path("log"))
            .args(more)
            .env("TMPDIR", self.path("temporary"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that ends before it asks does not read what was typed.
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        self.nothing_leaks(&said);
        (status.success(), said)
    }

    /// No secret in what was said and logged, nothing left behind, and nobody else may read what the scripts wrote.
    fn nothing_leaks(&self, said: &str) {
        let keys = KeyDirectory::open(self.path("keys")).unwrap();
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        for kind in [FuseSecret::SecureBoot, FuseSecret::Oem] {
            let secret = keys.jetson_secret(Jetson::Orin, kind).unwrap();
            let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            for start in (0..digits.len() - 8).step_by(2) {
                let part = &digits[start..start + 8];
                for text in [said, &log] {
                    assert!(!text.to_ascii_lowercase().contains(part), "a part of {kind:?} is shown:\n{text}");
                }
            }
        }
        assert_eq!(fs::read_dir(self.path("temporary")).unwrap().count(), 0, "the configuration is still there");
        for line in self.calls().lines().filter(|line| line.contains("mode ")) {
            assert!(line.ends_with("mode 600"), "{line}");
        }
        if let Ok(log) = fs::metadata(self.path("log")) {
            assert_eq!(log.permissions().mode() & 0o777, 0o600);
        }
    }

    fn runs(&self) -> Vec<String> {
        self.calls().lines().filter(|line| line.contains(".sh ")).map(str::to_owned).collect()
    }
}

#[test]
fn without_burn_it_is_a_dry_run_that_touches_no_fuse() {
    let factory = Factory::new();
    let (worked, said) = factory.run(&["--level", "3"], "");
    assert!(worked, "{said}");
    assert!(said.contains("Dry run: nothing was burned."), "{said}");
    assert!(said.contains("SecurityMode") && said.contains("PublicKeyHash"), "{said}");
    assert_eq!(factory.board(), NEW);
    let runs = factory.runs();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[0], "odmfuseread.sh -i 0x23 jetson-agx-orin-devkit");
    assert!(runs[1].starts_with("odmfuse.sh --test -X /"), "{runs:?}");
    assert_eq!(factory.calls().lines().filter(|line| line.ends_with("mode 600")).count(), 2, "{}", factory.calls());
    assert!(!factory.path("log").exists(), "a dry run burns nothing that would have to be logged");
}

#[test]
fn burning_asks_twice_and_reads_the_board_again() {
    let factory = Factory::new();
    let development = ["--burn", "--development-board", "--level", "3"];
    // Keys of a development hierarchy are burned by who says so alone.
    let (worked, said) = factory.run(&["--burn"], "");
    assert!(!worked && said.contains("--development-board") && factory.runs().is_empty(), "{said}");

    // Another number; the right number and other words; nobody at all.
    let other = NUMBER.replace('8', "9");
    for typed in [format!("{other}\n"), format!("{NUMBER}\nburn it\n"), String::new()] {
        let (worked, said) = factory.run(&development, &typed);
        assert!(!worked && said.contains("no fuse was touched"), "{said}");
        assert_eq!(factory.board(), NEW);
    }
    assert!(factory.runs().iter().all(|line| line.contains("odmfuseread.sh") || line.contains("--test")));

    // What must be typed is said where it is asked for.
    let (_, said) = factory.run(&development, &format!("{NUMBER}\n\n"));
    let words = said.split("Type \"").nth(1).and_then(|rest| rest.split('"').next()).expect("the words").to_owned();
    assert!(words.starts_with("burn ") && words.ends_with(" fuses for ever"), "{words}");
    let (worked, said) = factory.run(&development, &format!("{NUMBER}\n{words}\n\n"));
    assert!(worked && said.contains("Burned, and read back as planned."), "{said}");
    let board = factory.board();
    for line in ["SecurityMode: 00000001", "ReservedOdm4: 00000007", "OptInEnable: 00000001"] {
        assert!(board.contains(line), "{line} is not in\n{board}");
    }
    let last = factory.runs().pop().unwrap();
    assert!(last.starts_with("odmfuseread.sh") && last.contains(" -k ") && last.contains(" -S "), "{last}");
    let log = fs::read_to_string(factory.path("log")).unwrap();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is not in the log:\n{log}"));
    assert!(at("before:") < at("burning begins") && at("burning begins") < at("burned, and read back as planned"));

    // Once more: there is nothing to do, and nothing is done.
    let (worked, said) = factory.run(&["--burn", "--development-board", "--level", "3", "--fused"], "");
    assert!(worked && said.contains("The board is as it should be."), "{said}");
    // And never down.
    let (worked, said) = factory.run(&["--level", "2", "--fused"], "");
    assert!(!worked && said.contains("not burned"), "{said}");
    assert_eq!(factory.board(), board);
}

#[test]
fn scripts_that_fail_or_disagree_stop_it_before_anything_burns() {
    let factory = Factory::new();
    let tools = factory.path("Linux_for_Tegra");
    let replace = |name: &str, text: &str| {
        fs::write(tools.join(name), text).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let good = fs::read_to_string(tools.join("odmfuse.sh")).unwrap();
    let burn = ["--burn", "--development-board"];

    replace("odmfuse.sh", "#!/bin/sh\necho 'fuse: failed to write' >&2\n");
    let (worked, said) = factory.run(&burn, "");
    assert!(!worked && said.contains("the test run says an error"), "{said}");
    // It ends badly, and has printed the configuration with its secrets before.
    replace(
        "odmfuse.sh",
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -X ] && cat \"$2\"; shift; done\necho no board; exit 7\n",
    );
    let (worked, said) = factory.run(&burn, "");
    assert!(!worked && said.contains("no board") && said.contains("exit status: 7"), "{said}");
    replace("odmfuse.sh", &good);

    replace(
        "bootloader/tegrasign_v3.py",
        &format!("#!/bin/sh\necho 'tegra-fuse format (big-endian): 0x{}'\n", "0".repeat(128)),
    );
    let (worked, said) = factory.run(&burn, "");
    assert!(!worked && said.contains("does not give the hash"), "{said}");
    factory.put_board("Error: no board in recovery mode\n");
    let (worked, said) = factory.run(&burn, "");
    assert!(!worked && said.contains("the board was not read"), "{said}");
}

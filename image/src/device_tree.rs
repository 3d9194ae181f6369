//! The board's device tree: what QEMU says about its machine, and what the board has beyond it.

use crate::board::Board;
use crate::cache::{Cache, Inputs, Stage};
use crate::error::{Error, Result};
use crate::program::{program, run};
use crate::progress::Progress;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A TPM emulator for as long as QEMU looks at it: the TPM's node is in the tree only if there is one.
struct Tpm(Child);

impl Tpm {
    fn start(directory: &Path) -> Result<Self> {
        let state = directory.join("tpm");
        fs::create_dir(&state).map_err(Error::file("create", &state))?;
        let socket = directory.join("tpm.sock");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| Error::ProgramMissing { program: "swtpm".into() })?;
        let tpm = Self(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            if Instant::now() > deadline {
                return Err(Error::invalid("swtpm", "made no socket within 60 s"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tpm)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // It may have ended together with QEMU.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The board's tree: the stage holds `device-tree.dtb`.
///
/// # Errors
/// When QEMU or the compiler fails.
pub fn build(cache: &Cache, board: &Board, progress: &mut Progress) -> Result<Stage> {
    let qemu_version = run(program("qemu-system-aarch64").arg("--version"), "asking for QEMU's version")?;
    let mut inputs = Inputs::new("device tree 1")
        .with("qemu", qemu_version)
        .with("machine", board.machine)
        .with("additions", board.device_tree_additions);
    for argument in board.machine_arguments {
        inputs = inputs.with("argument", argument);
    }
    let begun = progress.begin("device tree", board.name);
    let stage = cache.stage("device-tree", &inputs, |directory| {
        let dump = directory.join("machine.dtb");
        {
            let _tpm = Tpm::start(directory)?;
            run(
                program("qemu-system-aarch64")
                    .args(["-display", "none", "-nic", "none", "-machine"])
                    .arg(format!("{},dumpdtb={}", board.machine, dump.display()))
                    .args(board.machine_arguments)
                    .arg("-chardev")
                    .arg(format!("socket,id=tpm,path={}", directory.join("tpm.sock").display()))
                    .args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis-device,tpmdev=tpm0"]),
                "dumping the machine's device tree",
            )?;
        }
        let machine =
            run(program("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(&dump), "decompiling the machine's device tree")?;
        let source = directory.join("device-tree.dts");
        let whole = [machine.as_slice(), board.device_tree_additions.as_bytes()].concat();
        fs::write(&source, whole).map_err(Error::file("write", &source))?;
        let output = directory.join("device-tree.dtb");
        run(
            program("dtc").args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(&output).arg(&source),
            "compiling the board's device tree",
        )?;
        let state = directory.join("tpm");
        fs::remove_dir_all(&state).map_err(Error::file("remove", &state))?;
        let _ = fs::remove_file(directory.join("tpm.sock"));
        fs::remove_file(&dump).map_err(Error::file("remove", &dump))
    })?;
    progress.done("device tree", begun, if stage.warm { "from the cache" } else { "compiled" });
    Ok(stage)
}

//! A software TPM (swtpm, of the Debian package) of its own for a test, with the parent that an appliance's start makes.

use belvedere_tpm::layout::KEYS_PARENT;
use belvedere_tpm::{Authorization, commands};
use belvedere_tpm_device::{Device, Limit};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to come up on an overloaded machine.
const START: Duration = Duration::from_secs(60);

/// It ends with this value.
pub struct Swtpm {
    process: Child,
    directory: tempfile::TempDir,
}

impl Swtpm {
    pub fn start() -> Swtpm {
        let directory = tempfile::Builder::new().prefix("tpm").tempdir().unwrap();
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", directory.path().display()));
        for (option, socket) in [("--server", "server"), ("--ctrl", "control")] {
            command.arg(option).arg(format!("type=unixio,path={}", directory.path().join(socket).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("swtpm, of the Debian package swtpm");
        let mut tpm = Swtpm { process, directory };
        let began = Instant::now();
        while UnixStream::connect(tpm.node()).is_err() {
            assert!(tpm.process.try_wait().unwrap().is_none(), "swtpm ended");
            assert!(began.elapsed() < START, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut device = Device::open(&tpm.node(), Limit::All(START)).unwrap();
        commands::persist_storage_key(&mut device, Authorization::Password(&[]), KEYS_PARENT).unwrap();
        tpm
    }

    /// What stands for `/dev/tpmrm0`.
    pub fn node(&self) -> PathBuf {
        self.directory.path().join("server")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

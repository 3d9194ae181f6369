//! A software TPM (swtpm) for tests, with a power switch, and a signer of policies.

mod signer;

pub use signer::PolicySigner;

use belvedere_tpm::layout::{RELEASE_PCR, SECURE_BOOT_PCR};
use belvedere_tpm::policy::{extend, sha256};
use belvedere_tpm::{Authorization, Digest, MAXIMUM, Tpm, TpmError, commands};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long swtpm may take to come up, or to answer, on an overloaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A TPM with its power.
struct Power {
    process: Child,
    connection: UnixStream,
}

impl Drop for Power {
    fn drop(&mut self) {
        // Like a machine whose plug is pulled: what a TPM was told to keep, it wrote before it answered.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TPM of its own, new from the factory.
pub struct SoftwareTpm {
    directory: tempfile::TempDir,
    power: Option<Power>,
    cut_after: Option<usize>,
    commands: Vec<u32>,
}

impl SoftwareTpm {
    /// A new one, switched on.
    ///
    /// # Panics
    /// When swtpm cannot be started.
    #[expect(clippy::new_without_default, reason = "it starts a program")]
    pub fn new() -> SoftwareTpm {
        let directory = tempfile::Builder::new().prefix("tpm").tempdir().expect("a temporary directory");
        let mut tpm = SoftwareTpm { directory, power: None, cut_after: None, commands: Vec::new() };
        tpm.power_cycle();
        tpm
    }

    /// Takes the power and gives it again: PCRs, sessions and loaded objects are gone.
    ///
    /// # Panics
    /// When swtpm cannot be started.
    pub fn power_cycle(&mut self) {
        self.power = None;
        self.cut_after = None;
        self.commands.clear();
        let socket = |name: &str| self.directory.path().join(name);
        let (server, control) = (socket("server"), socket("control"));
        for old in [&server, &control] {
            let _ = std::fs::remove_file(old);
        }
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", self.directory.path().display()));
        command.arg("--server").arg(format!("type=unixio,path={}", server.display()));
        command.arg("--ctrl").arg(format!("type=unixio,path={}", control.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        // SAFETY: the closure runs in the child between fork and exec and makes one system call; it allocates nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        let mut process = command.spawn().expect("swtpm, of the Debian package swtpm");
        let began = Instant::now();
        let connection = loop {
            match UnixStream::connect(&server) {
                Ok(connection) => break connection,
                Err(error) if began.elapsed() > DEADLINE => panic!("swtpm does not listen: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
            if let Some(status) = process.try_wait().expect("a child of ours") {
                panic!("swtpm ended: {status}");
            }
        };
        connection.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        self.power = Some(Power { process, connection });
    }

    /// Takes the power when so many more commands were carried out; the answer of the last one is lost.
    pub fn cut_after(&mut self, commands: usize) {
        self.cut_after = Some(commands);
    }

    /// Whether the power is on.
    pub fn has_power(&self) -> bool {
        self.power.is_some()
    }

    /// The codes of the commands since the power was switched on.
    pub fn commands(&self) -> &[u32] {
        &self.commands
    }

    /// Starts the list of commands anew.
    pub fn forget_commands(&mut self) {
        self.commands.clear();
    }

    /// Measures what firmware and bootloader would: the keys of Secure Boot and the release.
    ///
    /// # Panics
    /// When the TPM refuses.
    pub fn start_release(&mut self, machine: &Machine) {
        commands::pcr_extend(self, SECURE_BOOT_PCR, &machine.secure_boot_keys).expect("PCR 7 can be extended");
        commands::pcr_extend(self, RELEASE_PCR, &machine.release).expect("PCR 11 can be extended");
        self.forget_commands();
    }

    /// Sends bytes as they are; gives the response code.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn raw(&mut self, command: &[u8]) -> u32 {
        let mut response = [0; MAXIMUM];
        let length = self.exchange(command, &mut response).expect("an answer");
        assert!(length >= 10);
        u32::from_be_bytes(response[6..10].try_into().expect("four bytes"))
    }

    /// TPM2_Clear, which nothing in Belvedere does.
    pub fn clear(&mut self, hierarchy: u32, auth: &[u8]) -> u32 {
        self.raw(&with_password(0x126, hierarchy, auth, &[]))
    }
}

/// A command with one handle and its authorisation value.
pub fn with_password(code: u32, handle: u32, auth: &[u8], parameters: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend_from_slice(&code.to_be_bytes());
    rest.extend_from_slice(&handle.to_be_bytes());
    rest.extend_from_slice(&(9 + auth.len() as u32).to_be_bytes());
    rest.extend_from_slice(&[0x40, 0, 0, 9, 0, 0, 1]);
    rest.extend_from_slice(&(auth.len() as u16).to_be_bytes());
    rest.extend_from_slice(auth);
    rest.extend_from_slice(parameters);
    let mut command = vec![0x80, 2];
    command.extend_from_slice(&(6 + rest.len() as u32).to_be_bytes());
    command.extend_from_slice(&rest);
    command
}

impl Tpm for SoftwareTpm {
    type Error = io::Error;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, io::Error> {
        if self.cut_after == Some(0) {
            self.power = None;
        }
        let power = self.power.as_mut().ok_or_else(|| io::Error::other("the power is off"))?;
        power.connection.write_all(command)?;
        power.connection.read_exact(&mut response[..10])?;
        let length = u32::from_be_bytes([response[2], response[3], response[4], response[5]]) as usize;
        let rest = response.get_mut(10..length).ok_or_else(|| io::Error::other("an answer of impossible length"))?;
        power.connection.read_exact(rest)?;
        self.commands.push(u32::from_be_bytes([command[6], command[7], command[8], command[9]]));
        if let Some(left) = &mut self.cut_after {
            *left -= 1;
            if *left == 0 {
                self.power = None;
                return Err(io::Error::other("the power went"));
            }
        }
        Ok(length)
    }
}

/// What a start measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Measured into PCR 7.
    pub secure_boot_keys: Digest,
    /// Measured into PCR 11.
    pub release: Digest,
}

impl Machine {
    /// A machine by names.
    pub fn new(secure_boot_keys: &str, release: &str) -> Machine {
        Machine { secure_boot_keys: sha256(&[secure_boot_keys.as_bytes()]), release: sha256(&[release.as_bytes()]) }
    }

    /// PCR 7 after the start.
    pub fn pcr7(&self) -> Digest {
        extend(&[0; 32], &self.secure_boot_keys)
    }

    /// PCR 11 after the start.
    pub fn pcr11(&self) -> Digest {
        extend(&[0; 32], &self.release)
    }
}

/// The authorisation of an owner that is not set.
pub const NO_PASSWORD: Authorization<'static> = Authorization::Password(&[]);

/// The code of a refusal; panics when it is something else.
///
/// # Panics
/// When it was no refusal.
pub fn refusal<R: std::fmt::Debug>(result: Result<R, TpmError>) -> belvedere_tpm::ResponseCode {
    match result {
        Err(TpmError::Refused { code, .. }) => code.reason(),
        other => panic!("a refusal was expected: {other:?}"),
    }
}

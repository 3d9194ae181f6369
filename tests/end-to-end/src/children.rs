//! Processes that end with us, and only those.

use crate::Trouble;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process we started. It is asked to end (SIGTERM), then made to, when this value is dropped; the kernel ends it
/// if we are killed ourselves.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Starts `command` with standard output and error going to `log` (appended).
///
/// # Errors
/// When the log cannot be opened or the program cannot be started.
pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Running, Trouble> {
    let doing = || format!("starting {name} ({:?})", command.get_program());
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| Trouble::new(format!("opening {}", log.display()), error))?;
    let copy = file.try_clone().map_err(|error| Trouble::new(doing(), error))?;
    let text = doing();
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    // SAFETY: between fork and exec only async-signal-safe calls: prctl and setpgid are plain system calls.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            // A group of its own, so that Ctrl-C at the terminal reaches us alone and we end things in order.
            rustix::process::setpgid(None, None)?;
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| Trouble::new(text, error))?;
    Ok(Running { name: name.to_owned(), child, log: log.to_owned() })
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails when the process has ended, with the end of its output.
    ///
    /// # Errors
    /// When it is not running any more.
    pub fn check(&mut self) -> Result<(), Trouble> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Trouble::new(
                format!("running {}", self.name),
                format!("it ended ({status}); its last words:\n{}", tail(&self.log, 30)),
            )),
            Err(error) => Err(Trouble::new(format!("looking after {}", self.name), error)),
        }
    }

    /// Waits until `ready` answers something.
    ///
    /// # Errors
    /// When the process ends or `timeout` passes first.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(Trouble::new(
                    format!("waiting for {} to {what}", self.name),
                    format!("nothing within {} s; its last words:\n{}", timeout.as_secs(), tail(&self.log, 30)),
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Suspends or continues the process, as a hung camera would.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(id) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(id, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `lines` lines of a file; empty when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(64 << 20).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

//! Child processes that never outlive us.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, not the process; so all children are made by
//! one thread that lives as long as the program.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, OnceLock, mpsc};

use crate::Error;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

fn spawner() -> &'static Mutex<mpsc::Sender<Order>> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = receiver.recv() {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    })
}

/// A child process; killed, by its own process id, when dropped.
#[derive(Debug)]
pub struct Owned {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Owned {
    /// Starts `command`.
    pub fn spawn(mut command: Command, package: &'static str) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let start = |source| Error::Start { program, package, source };
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only two system calls are made; both are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                if rustix::process::getppid() != Some(parent) {
                    // The parent ended before the signal was set up.
                    return Err(io::Error::other("parent ended"));
                }
                Ok(())
            });
        }
        let (reply, answer) = mpsc::channel();
        let sent = match spawner().lock() {
            Ok(sender) => sender.send((command, reply)).is_ok(),
            Err(_) => false,
        };
        let child = if sent { answer.recv().ok() } else { None };
        match child {
            Some(Ok(child)) => Ok(Self { child, ended: None }),
            Some(Err(source)) => Err(start(source)),
            None => Err(start(io::Error::other("the spawning thread is gone"))),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Ends it at once, without asking.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short-lived tool to its end.
pub fn run(command: &mut Command, package: &'static str) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    // mkfs lives in directories that an ordinary user's PATH lacks.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output().map_err(|source| Error::Start {
        program: program.clone(),
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Program {
        program,
        message: format!("{} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status),
    })
}

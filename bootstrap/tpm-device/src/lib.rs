//! The way to the TPM: the kernel's `/dev/tpmrm0`, or the socket of a software TPM on a development host.
//!
//! The kernel's device is the one with the resource manager, which gives each connection its own space: what was loaded over
//! it is unloaded when it closes, also when the process ends in the middle, and programs do not see each other's sessions.

use belvedere_tpm::{MAXIMUM, Tpm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Tag, length and code of every answer.
const HEADER: usize = 10;
/// Between two looks at a device that is ready and has nothing.
const PAUSE: Duration = Duration::from_millis(1);
/// The first pause before a command is sent again that the TPM had no time for; it doubles up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_millis(1280);

/// The kernel's device.
pub const DEVICE: &str = "/dev/tpmrm0";

/// How long a TPM may take.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// For each command.
    Command(Duration),
    /// For all that is done over a connection.
    All(Duration),
}

/// Opens a connection with so much time for everything that is done over it.
pub type Open = dyn Fn(Duration) -> Result<Box<dyn Tpm<Error = String>>, String> + Send + Sync;

/// Whether there is a TPM at this node. One that the kernel has found is there also while its node is not: it must not be
/// taken for a board without one.
///
/// # Errors
/// It cannot be told.
pub fn is_there(node: &Path, sys: &Path) -> Result<bool, String> {
    is_there_in(node, sys, "class/tpmrm")
}

/// The same for a node whose device belongs to this class of the kernel's.
///
/// # Errors
/// It cannot be told.
pub fn is_there_in(node: &Path, sys: &Path, class: &str) -> Result<bool, String> {
    let found = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("look for {}: {error}", path.display())),
    };
    let known = sys.join(class).join(node.file_name().unwrap_or_default());
    Ok(found(node)? || found(&known)?)
}

/// A connection.
pub struct Device {
    node: PathBuf,
    descriptor: OwnedFd,
    is_socket: bool,
    limit: Limit,
    /// When the command that was sent, or everything, must be over.
    deadline: Instant,
    /// An answer was not waited for: the next one to come would be another command's.
    late: bool,
}

impl Device {
    /// Opens [`DEVICE`], or connects to a software TPM's socket.
    ///
    /// # Errors
    /// One line with the node.
    pub fn open(node: &Path, limit: Limit) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("open the TPM at {}: {error}", node.display());
        let is_socket = std::fs::metadata(node).map_err(failed)?.file_type().is_socket();
        let descriptor = if is_socket {
            let stream = UnixStream::connect(node).map_err(failed)?;
            stream.set_nonblocking(true).map_err(failed)?;
            stream.into()
        } else {
            // Without NONBLOCK a write returns only when the command was carried out, however long that takes.
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            rustix::fs::open(node, flags, Mode::empty()).map_err(|error| failed(error.into()))?
        };
        let (Limit::Command(time) | Limit::All(time)) = limit;
        Ok(Self { node: node.to_owned(), descriptor, is_socket, limit, deadline: Instant::now() + time, late: false })
    }

    /// [`Device::open`], for one use within a time, for whoever opens more than once.
    pub fn opener(node: PathBuf) -> Box<Open> {
        Box::new(move |time| Ok(Box::new(Device::open(&node, Limit::All(time))?)))
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn failed(&self, what: &str, error: impl core::fmt::Display) -> String {
        format!("{what} the TPM at {}: {error}", self.node.display())
    }

    /// Until there is something to read.
    fn wait_readable(&self) -> Result<(), String> {
        let left = self.left();
        if left.is_zero() {
            return Err(self.failed("read from", "no answer in time"));
        }
        let left = Timespec::try_from(left).map_err(|error| self.failed("wait for", error))?;
        match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&left)) {
            Ok(0) => Err(self.failed("read from", "no answer in time")),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(self.failed("wait for", error)),
        }
    }
}

impl Tpm for Device {
    type Error = String;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, String> {
        if self.late {
            return Err(self.failed("write to", "an earlier command was not answered in time"));
        }
        if let Limit::Command(time) = self.limit {
            self.deadline = Instant::now() + time;
        }
        self.late = true;
        // The kernel takes a command in one write; so does a socket, for which it is far below its buffer.
        let written = loop {
            match rustix::io::write(&self.descriptor, command) {
                Err(Errno::INTR) => {}
                written => break written.map_err(|error| self.failed("write to", error))?,
            }
        };
        if written != command.len() {
            return Err(self.failed("write to", "it took a part of the command"));
        }
        let mut got = 0;
        loop {
            self.wait_readable()?;
            let room = response.get_mut(got..).unwrap_or_default();
            match rustix::io::read(&self.descriptor, room) {
                Ok(0) if self.is_socket => return Err(self.failed("read from", "it closed the connection")),
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => std::thread::sleep(PAUSE),
                Ok(more) => got += more,
                Err(error) => return Err(self.failed("read from", error)),
            }
            // A socket may give an answer in parts.
            if let Some(&[_, _, a, b, c, d, ..]) = response.first_chunk::<HEADER>().filter(|_| got >= HEADER)
                && got >= u32::from_be_bytes([a, b, c, d]) as usize
            {
                self.late = false;
                return Ok(got);
            }
            if got == MAXIMUM {
                return Err(self.failed("read from", "an answer that is too long"));
            }
        }
    }

    fn wait(&mut self, attempt: u32) {
        let pause = FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LAST_WAIT);
        // Between two commands nothing runs but the time for everything.
        std::thread::sleep(if let Limit::All(_) = self.limit { pause.min(self.left()) } else { pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// A TPM that gives these parts one after the other for each command, and then keeps still.
    fn played(parts: Vec<Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("tpm");
        let listener = UnixListener::bind(&node).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut command = [0; 64];
            for part in parts {
                let _ = stream.read(&mut command).unwrap();
                for some in part.chunks(part.len() / 2) {
                    // Whoever has heard enough hangs up.
                    let _ = stream.write_all(some);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            let _ = stream.read(&mut command);
            std::thread::sleep(Duration::from_secs(60));
        });
        (directory, node)
    }

    #[test]
    fn an_answer_may_come_in_parts_and_is_waited_for_until_the_deadline() {
        let answer = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];
        let (_directory, node) = played(vec![answer.to_vec()]);
        let began = Instant::now();
        let mut tpm = Device::open(&node, Limit::All(Duration::from_secs(3))).unwrap();
        let mut response = [0; MAXIMUM];
        assert_eq!(tpm.exchange(b"command", &mut response), Ok(12));
        assert_eq!(response[..12], answer);
        let error = tpm.exchange(b"another", &mut response).unwrap_err();
        assert!(error.contains("no answer in time") && error.contains(node.to_str().unwrap()), "{error}");
        // Its answer may still come, and is not taken for the next command's.
        let error = tpm.exchange(b"third", &mut response).unwrap_err();
        assert!(error.contains("earlier command"), "{error}");
        let passed = began.elapsed();
        assert!(passed >= Duration::from_secs(3) && passed < Duration::from_secs(20), "{passed:?}");
    }

    #[test]
    fn each_command_has_its_own_time_where_that_is_asked_for() {
        let answer = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];
        let (_directory, node) = played(vec![answer.to_vec(), answer.to_vec()]);
        let mut tpm = Device::open(&node, Limit::Command(Duration::from_secs(2))).unwrap();
        let mut response = [0; MAXIMUM];
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(1200));
            assert_eq!(tpm.exchange(b"command", &mut response), Ok(12));
        }
    }

    #[test]
    fn an_answer_that_never_ends_is_an_error() {
        let mut endless = vec![0xff; MAXIMUM + 10];
        endless[2..6].copy_from_slice(&u32::MAX.to_be_bytes());
        let (_directory, node) = played(vec![endless]);
        let mut tpm = Device::open(&node, Limit::All(Duration::from_secs(60))).unwrap();
        let error = tpm.exchange(b"command", &mut [0; MAXIMUM]).unwrap_err();
        assert!(error.contains("too long"), "{error}");
    }

    #[test]
    fn what_is_there_and_does_not_work_is_not_taken_for_no_tpm() {
        let directory = tempfile::tempdir().unwrap();
        let (node, sys) = (directory.path().join("tpmrm0"), directory.path().join("sys"));
        assert_eq!(is_there(&node, &sys), Ok(false));
        // The kernel has it, its node is not there yet, or was not given.
        std::fs::create_dir_all(sys.join("class/tpmrm/tpmrm0")).unwrap();
        assert_eq!(is_there(&node, &sys), Ok(true));
        std::fs::remove_dir_all(&sys).unwrap();
        std::os::unix::fs::symlink("nowhere", &node).unwrap();
        assert_eq!(is_there(&node, &sys), Ok(true));
        assert!(Device::open(&node, Limit::All(Duration::from_secs(1))).is_err());
        // A directory that cannot be looked into.
        assert!(is_there(&node.join("\0"), &sys).is_err());
    }
}

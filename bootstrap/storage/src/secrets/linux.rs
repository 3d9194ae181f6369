//! The kernel's TPM device: one write, one read, with a deadline.
//!
//! `/dev/tpmrm0`, the one with the resource manager: what a program that ends leaves loaded is unloaded, and programs do
//! not see each other's sessions.

use belvedere_tpm::{MAXIMUM, Tpm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The device.
pub const DEVICE: &str = "/dev/tpmrm0";
/// How long one command may take. The longest that are sent (a primary key, a signature) take a slow TPM under ten
/// seconds; the kernel itself gives up after 2 minutes.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A TPM behind a device file.
pub struct DeviceTpm {
    file: OwnedFd,
    deadline: Duration,
    /// An answer was not waited for: the next one to come would be another command's.
    late: bool,
}

impl DeviceTpm {
    /// Opens a device.
    ///
    /// # Errors
    /// When there is none, or the caller may not.
    pub fn open(path: impl AsRef<Path>, deadline: Duration) -> io::Result<DeviceTpm> {
        // Without NONBLOCK the write itself waits for the TPM, with no deadline.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(DeviceTpm::over(rustix::fs::open(path.as_ref(), flags, Mode::empty())?, deadline))
    }

    /// Over a file that is open already, not blocking.
    pub fn over(file: OwnedFd, deadline: Duration) -> DeviceTpm {
        DeviceTpm { file, deadline, late: false }
    }

    fn answer(&self, until: Instant, response: &mut [u8; MAXIMUM]) -> io::Result<usize> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, format!("none within {:?}", self.deadline))),
                Ok(_) => match rustix::io::read(&self.file, &mut response[..]) {
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an empty one")),
                    Ok(length) => return Ok(length),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Tpm for DeviceTpm {
    type Error = io::Error;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> io::Result<usize> {
        if self.late {
            return Err(io::Error::other("an earlier command was not answered in time"));
        }
        let until = Instant::now() + self.deadline;
        self.late = true;
        // The device takes a command in one write or not at all.
        let written = loop {
            match rustix::io::write(&self.file, command) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if written != command.len() {
            return Err(io::Error::other("the device took a part of the command"));
        }
        let length = self.answer(until, response)?;
        self.late = false;
        Ok(length)
    }

    fn wait(&mut self, attempt: u32) {
        // 20 ms, 40 ms, … 1.3 s: 2.5 s in all.
        std::thread::sleep(Duration::from_millis(20 << attempt.min(6)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_tpm::commands;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair(deadline: Duration) -> (DeviceTpm, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (DeviceTpm::over(ours.into(), deadline), theirs)
    }

    #[test]
    fn an_answer_that_comes_later_is_waited_for() {
        let (mut tpm, mut device) = pair(Duration::from_secs(60));
        let answering = std::thread::spawn(move || {
            let mut command = [0; 14];
            device.read_exact(&mut command).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            device.write_all(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]).unwrap();
            command
        });
        commands::flush(&mut tpm, 0x8000_0001).unwrap();
        assert_eq!(answering.join().unwrap(), [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 1]);
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_command() {
        let (mut tpm, mut device) = pair(Duration::from_millis(50));
        let error = commands::flush(&mut tpm, 1).unwrap_err().to_string();
        assert!(error.contains("FlushContext") && error.contains("50ms"), "{error}");
        device.write_all(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]).unwrap();
        let error = commands::flush(&mut tpm, 2).unwrap_err().to_string();
        assert!(error.contains("earlier command"), "{error}");
    }

    #[test]
    fn a_device_that_goes_away_is_an_error() {
        let (mut tpm, mut device) = pair(Duration::from_secs(60));
        let reading = std::thread::spawn(move || device.read_exact(&mut [0; 14]).unwrap());
        let error = commands::flush(&mut tpm, 1).unwrap_err().to_string();
        reading.join().unwrap();
        assert!(error.contains("empty"), "{error}");
    }
}

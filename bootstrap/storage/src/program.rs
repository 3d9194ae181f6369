//! Programs that work on a disk for a long time: what they print is read and bounded, what they do is told now and then,
//! and they have a deadline.

use crate::{StorageError, failed};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of the end of what a program prints is kept.
const KEPT: usize = 4096;
/// How often somebody is told what a program does.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// How a program ended, and what it said last.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The last [`KEPT`] bytes, standard output and error together, as text.
    pub said: String,
}

/// A program to run.
pub struct Program<'a> {
    /// Where it is.
    pub path: &'static str,
    /// Its name in messages.
    pub name: &'static str,
    /// What comes before the device.
    pub before: &'a [&'a str],
    /// What it works on.
    pub device: &'a Path,
    /// What comes behind the device.
    pub behind: &'a [&'a str],
    /// When it is ended.
    pub limit: Duration,
}

impl Program<'_> {
    /// Runs it to its end; `report` gets a line about it every [`REPORT_INTERVAL`].
    pub fn run(&self, report: &mut dyn FnMut(&str)) -> Result<Ended, StorageError> {
        self.run_reporting(REPORT_INTERVAL, report)
    }

    fn run_reporting(&self, interval: Duration, report: &mut dyn FnMut(&str)) -> Result<Ended, StorageError> {
        let io = |error: std::io::Error| failed::<std::io::Error>("run", self.path)(error);
        let (reader, writer) = std::io::pipe().map_err(io)?;
        rustix::io::ioctl_fionbio(&reader, true).map_err(|error| io(error.into()))?;
        let second = writer.try_clone().map_err(io)?;
        // Both ends for writing are moved into the command, which is dropped here: the child holds the only ones.
        let mut child = Command::new(self.path)
            .args(self.before)
            .arg(self.device)
            .args(self.behind)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .spawn()
            .map_err(io)?;
        let began = Instant::now();
        let mut next_report = interval;
        let mut tail = Tail::default();
        let mut ended = None;
        loop {
            let open = tail.read_from(&reader);
            if ended.is_some() {
                // Ended, and what it left in the pipe is read: whoever else holds the pipe is not waited for.
                return Ok(Ended { code: ended.and_then(|status: ExitStatus| status.code()), said: tail.text() });
            }
            ended = child.try_wait().map_err(io)?;
            if ended.is_some() {
                continue;
            }
            let worked = began.elapsed();
            if worked >= self.limit {
                return Err(self.end(&mut child, &tail));
            }
            if worked >= next_report {
                next_report = worked + interval;
                let line = tail.last_line();
                report(&format!("{} has worked on {} for {} s: {line}", self.name, self.device.display(), worked.as_secs()));
            }
            wait_for_output(open.then_some(&reader));
        }
    }

    /// Ends a program that took too long.
    fn end(&self, child: &mut Child, tail: &Tail) -> StorageError {
        let _ = child.kill();
        // A process that waits for a broken disk may not even be killed: it is given a moment, not waited for.
        for _ in 0..50 {
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let outcome = format!("did not end within {} s and was ended: {}", self.limit.as_secs(), tail.last_line());
        StorageError::Program { program: self.name, device: self.device.display().to_string(), outcome }
    }
}

/// Sleeps until there is output, a fifth of a second at most: the program's end is not output.
fn wait_for_output(reader: Option<&std::io::PipeReader>) {
    let time = Duration::from_millis(200);
    match reader {
        None => std::thread::sleep(time),
        Some(reader) => {
            let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            let _ = rustix::event::poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout));
        }
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    /// Reads what there is, a bounded part of it in one turn; says whether the pipe is still open.
    fn read_from(&mut self, reader: impl AsFd) -> bool {
        let mut buffer = [0u8; 4096];
        // A pipe holds 64 KiB: what a program that has ended left in it is read in one turn.
        for _ in 0..32 {
            match rustix::io::read(&reader, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.0.extend(&buffer[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => return false,
            }
            let surplus = self.0.len().saturating_sub(KEPT);
            self.0.drain(..surplus);
        }
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.iter().copied().collect::<Vec<u8>>()).into_owned()
    }

    fn last_line(&self) -> String {
        last_line(&self.text())
    }
}

/// The last line that says something, printable and short. `e2fsck`'s progress (`pass, done, of, device`) in words.
pub fn last_line(said: &str) -> String {
    let line = said.split(['\n', '\r']).rev().map(str::trim).find(|line| !line.is_empty());
    let Some(line) = line else { return "it said nothing".into() };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    if let [pass, done, of, _] = words[..]
        && [pass, done, of].iter().all(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return format!("pass {pass}, {done} of {of}");
    }
    line.chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell<'a>(script: &'a [&'a str; 2], limit: Duration) -> Program<'a> {
        Program { path: "/bin/sh", name: "sh", before: script, device: Path::new("/dev/null"), behind: &[], limit }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_program_ends_with_its_code_and_its_last_words() {
        let ended = shell(&["-c", "echo one; echo two >&2; exit 3"], LONG).run(&mut |_| ()).unwrap();
        assert_eq!((ended.code, ended.said.as_str()), (Some(3), "one\ntwo\n"));
        let ended = shell(&["-c", "kill -9 $$"], LONG).run(&mut |_| ()).unwrap();
        assert_eq!(ended.code, None);
        let mut missing = shell(&["-c", ""], LONG);
        missing.path = "/nonexistent";
        assert!(missing.run(&mut |_| ()).unwrap_err().to_string().contains("/nonexistent"));
    }

    /// boot L11: all that `e2fsck -y` printed was collected in PID 1.
    #[test]
    fn what_a_program_prints_is_bounded() {
        let ended = shell(&["-c", "yes | head -c 20000000; echo last"], LONG).run(&mut |_| ()).unwrap();
        assert_eq!((ended.code, last_line(&ended.said).as_str()), (Some(0), "last"));
        assert!(ended.said.len() <= KEPT);
    }

    /// boot D6: every program has a deadline, also one that prints all the time.
    #[test]
    fn a_program_that_does_not_end_is_ended() {
        for script in ["exec sleep 60", "exec yes"] {
            let began = Instant::now();
            let error = shell(&["-c", script], Duration::from_millis(300)).run(&mut |_| ()).unwrap_err();
            assert!(error.to_string().contains("did not end"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn what_takes_long_is_told_now_and_then() {
        let mut told = Vec::new();
        let script = ["-c", "echo 2 70 100 /dev/x; sleep 1"];
        shell(&script, LONG).run_reporting(Duration::from_millis(100), &mut |line| told.push(line.to_owned())).unwrap();
        assert!(told.len() >= 2, "{told:?}");
        assert!(told.iter().any(|line| line.ends_with("for 0 s: pass 2, 70 of 100")), "{told:?}");
    }

    #[test]
    fn lines_for_people_are_short_and_printable() {
        assert_eq!(last_line(""), "it said nothing");
        assert_eq!(last_line("a\n\x1b[2Jb \n\n"), "[2Jb");
        assert_eq!(last_line("1 2 3 4 5"), "1 2 3 4 5");
        assert_eq!(last_line(&"x".repeat(5000)).len(), 200);
    }
}

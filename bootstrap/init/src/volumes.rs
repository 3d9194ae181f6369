//! The volumes of the appliance's disk, opened by a program of their own: it parses what lies on the disk and holds the
//! keys, PID 1 does neither.

use crate::console::say;
use crate::{Result, kmsg, named};
use belvedere_storage::encrypt::ALIVE;
use belvedere_storage::measured::PREFIX;
use belvedere_storage::partitions::Partition;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// The storage program in the initial RAM file system.
pub const STORAGE: &str = "/belvedere-storage";
/// What it may answer in bytes: a line for each of a handful of volumes.
const MAXIMUM_ANSWER: u64 = 16 * 1024;

/// Runs the program with these arguments and gives the volumes that it opened. What it says to people goes to the console;
/// `told` is called for each line, the empty ones of [`belvedere_storage::encrypt::ALIVE`] as well.
pub fn open(arguments: &[&str], told: &dyn Fn()) -> Result<Vec<Partition>> {
    let mut child = Command::new(STORAGE)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(named("start", STORAGE))?;
    let mut last = String::new();
    if let Some(errors) = child.stderr.take() {
        // Ends with the program: nothing else holds the other end.
        for line in BufReader::new(errors).lines().map_while(std::result::Result::ok) {
            told();
            if line == ALIVE {
                continue;
            }
            if line.starts_with(PREFIX) {
                // On the console as well, and the next start that operates puts it into the log ([`crate::last_words`]).
                kmsg::critical(&line);
            } else {
                say(&line);
                last = line;
            }
        }
    }
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAXIMUM_ANSWER).read_to_string(&mut answer).map_err(named("read the answer of", STORAGE))?;
    }
    let status = child.wait().map_err(named("wait for", STORAGE))?;
    if !status.success() {
        return Err(if last.is_empty() { format!("{STORAGE}: {status}") } else { last });
    }
    parse(&answer)
}

/// Lines `NAME DEVICE BYTES`.
fn parse(answer: &str) -> Result<Vec<Partition>> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (name, device, size) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let whole = words.next().is_none() && !name.is_empty() && device.starts_with("/dev/");
        whole.then(|| Partition { name: name.to_owned(), device: device.into(), size })
    };
    answer
        .lines()
        .map(|text| line(text).ok_or_else(|| format!("{STORAGE} answered {text:?}, which names no volume")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_names_a_volume() {
        let volumes = parse("system-a /dev/dm-0 4096\ndata /dev/dm-1 8192\n").unwrap();
        assert_eq!(volumes[1], Partition { name: "data".into(), device: "/dev/dm-1".into(), size: 8192 });
        for wrong in ["x", "x /dev/dm-0", "x /dev/dm-0 y", "x dm-0 1", "x /dev/dm-0 1 2", " /dev/dm-0 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("").unwrap(), []);
    }
}

//! How a container's program ended, in words that tell its author what to do.

use crate::container::MEMORY;
use std::path::{Path, PathBuf};

/// Where the machine's control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Counts how many processes below a control group the kernel has ended because their memory was used up. The group must
/// be above the container's own, which is gone before anybody can look.
#[derive(Debug)]
pub struct MemoryWatch {
    file: PathBuf,
    before: u64,
}

impl MemoryWatch {
    /// Begins to count; `group` is a path below the root of the control groups.
    pub fn begin(group: &str) -> MemoryWatch {
        MemoryWatch::at(Path::new(CGROUPS).join(group.trim_start_matches('/')).join("memory.events"))
    }

    fn at(file: PathBuf) -> MemoryWatch {
        let before = killed(&file);
        MemoryWatch { file, before }
    }

    /// Whether there were some since.
    pub fn out_of_memory(&self) -> bool {
        killed(&self.file) > self.before
    }
}

fn killed(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// What signals mean, for those that programs end with.
const SIGNALS: &[(i32, &str)] = &[
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction: a library for another processor?"),
    (5, "trap"),
    (6, "aborted, by abort() or a failed assertion"),
    (7, "bus error: a mapped file was cut, or /dev/shm is full"),
    (8, "arithmetic error, such as a division by zero"),
    (9, "killed"),
    (11, "segmentation fault"),
    (13, "broken pipe"),
    (14, "alarm"),
    (15, "terminated"),
    (24, "processor time limit"),
    (25, "file size limit"),
    (31, "a system call that containers may not make"),
];

/// A sentence about an exit status as the runtime gives it: 128 and the signal for programs that a signal ended.
pub fn in_words(status: i32, out_of_memory: bool) -> String {
    let limit = format!("out of memory (limit {} GiB)", MEMORY >> 30);
    let signal = status.checked_sub(128).filter(|signal| *signal > 0);
    let meaning = signal.and_then(|signal| SIGNALS.iter().find(|(number, _)| *number == signal));
    match (signal, meaning) {
        (Some(9), _) if out_of_memory => format!("the program was ended: {limit}, exit status {status}"),
        (Some(signal), Some((_, meaning))) if !out_of_memory => {
            format!("the program was ended by signal {signal} ({meaning}), exit status {status}")
        }
        _ if out_of_memory => {
            format!("the program ended with exit status {status}, after one of its processes was ended: {limit}")
        }
        _ => format!("the program ended with exit status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tried applications A5: "exit status 137" and "139" were all that was said.
    #[test]
    fn the_common_ends_are_said_in_words() {
        assert_eq!(in_words(1, false), "the program ended with exit status 1");
        assert_eq!(in_words(137, true), "the program was ended: out of memory (limit 1 GiB), exit status 137");
        assert_eq!(in_words(137, false), "the program was ended by signal 9 (killed), exit status 137");
        assert_eq!(in_words(139, false), "the program was ended by signal 11 (segmentation fault), exit status 139");
        assert!(in_words(1, true).contains("one of its processes was ended: out of memory"));
        assert_eq!(in_words(200, false), "the program ended with exit status 200");
        assert_eq!(in_words(0, false), "the program ended with exit status 0");
    }

    #[test]
    fn memory_is_counted_from_the_beginning_of_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        assert!(!MemoryWatch::at(file.clone()).out_of_memory(), "no control groups");
        std::fs::write(&file, "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n").unwrap();
        let watch = MemoryWatch::at(file.clone());
        assert!(!watch.out_of_memory());
        std::fs::write(&file, "low 0\nhigh 0\nmax 12\noom 3\noom_kill 3\noom_group_kill 0\n").unwrap();
        assert!(watch.out_of_memory());
    }
}

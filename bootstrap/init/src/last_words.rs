//! Why the start before this one ended, when it did not end in order: what the kernel left in memory that a restart leaves
//! alone (`ramoops`, in the board's device tree). Gone with the power.

use crate::{Result, kmsg, named, watchdog};
use belvedere_storage::measured::PREFIX;
use belvedere_storage::mounts;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const PSTORE: &str = "/sys/fs/pstore";
/// What is read of one record, bytes: the board's records are 128 KiB.
const MAXIMUM_RECORD: u64 = 128 * 1024;
/// How many records are looked at.
const MAXIMUM_RECORDS: usize = 16;
/// How many lines of the console are told, the last ones.
const CONSOLE_LINES: usize = 30;
/// The kernel's last line when the machine is restarted or switched off in order.
const IN_ORDER: [&str; 2] = ["reboot: Restarting system", "reboot: Power down"];

/// Reads the records, forgets them, and gives the lines that people should be told.
pub fn take() -> Result<Vec<String>> {
    mounts::mount("pstore", PSTORE, "pstore", mounts::DATA_ONLY, "").map_err(|error| error.to_string())?;
    let records = read(Path::new(PSTORE));
    let _ = mounts::unmount(PSTORE, false);
    records.map(|records| told(&records, watchdog::ended_the_start_before()))
}

/// What the kernel says when it restarts the machine over a block of the root image that is not as signed.
const WRONG_BLOCK: &str = "dm-verity device corrupted";

/// What the first stage says, through [`crate::kmsg`], when it refuses one.
const REFUSED: &str = "belvedere: starting again: root image refused";

/// Whether the start before this one met a wrong block of its root image, while it ran or when it read the whole of it: one
/// that is found once is looked for until the slot works or has lost its turns. Forgets nothing.
pub fn met_a_wrong_block() -> bool {
    if mounts::mount("pstore", PSTORE, "pstore", mounts::DATA_ONLY, "").is_err() {
        return false;
    }
    let met = std::fs::read_dir(PSTORE).is_ok_and(|entries| {
        entries
            .flatten()
            .take(MAXIMUM_RECORDS)
            .any(|entry| text(&entry.path()).is_some_and(|text| tells_of_a_wrong_block(&text)))
    });
    let _ = mounts::unmount(PSTORE, false);
    met
}

fn tells_of_a_wrong_block(text: &str) -> bool {
    [WRONG_BLOCK, REFUSED].iter().any(|said| text.contains(said))
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAXIMUM_RECORD).read_to_end(&mut bytes)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Name and text of each record, each removed once it is read: the memory is for the next one.
fn read(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut records = Vec::new();
    let entries = std::fs::read_dir(directory).map_err(named("list", directory.display()))?;
    for entry in entries.flatten().take(MAXIMUM_RECORDS) {
        if let Some(text) = text(&entry.path()) {
            records.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
        let _ = std::fs::remove_file(entry.path());
    }
    records.sort();
    Ok(records)
}

/// How the lines begin that are not the kernel's.
const SUMMARY: &str = "the start before this one ";
/// How many lines of that table are told.
const MEASURED_LINES: usize = 64;
/// What the kernel says when it panics, before the reason.
const PANIC: &str = "Kernel panic - not syncing";
/// What PID 1 says to the kernel's log before it gives a start up ([`crate::kmsg`]).
const GAVE_UP: [&str; 2] = ["belvedere: starting again: ", "belvedere: start failed: "];

/// A start that PID 1 gave up ends in order, and its reason is what must not be lost. A panic's own record says all there is
/// to say. Without one, a console that does not end as a machine ends in order is that of one that hung or was reset;
/// `by_watchdog`: the watchdog's device says that it did that.
fn told(records: &[(String, String)], by_watchdog: bool) -> Vec<String> {
    let of = |kind: &'static str| records.iter().filter(move |(name, _)| name.starts_with(kind)).map(|(_, text)| text);
    let mut lines: Vec<String> = of("console").filter_map(|text| text.lines().rev().find_map(gave_up)).collect();
    // Which event kept the volumes closed: the table, line by line.
    lines.extend(of("console").flat_map(|text| text.lines()).filter_map(measured).take(MEASURED_LINES));
    let mut panicked = false;
    for text in of("dmesg") {
        panicked = true;
        // The reason is somewhere in the record, with the kernel's state before and behind it: it is said first.
        let reason = text.lines().find_map(|line| Some(line[line.find(PANIC)?..].trim_end().to_owned()));
        let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
        lines.push(format!("{SUMMARY}ended in a panic{reason}; the kernel's last words were:"));
        lines.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    }
    if panicked {
        return lines;
    }
    let mut cut_off = false;
    for text in of("console") {
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        // `Restarting system with command 'dm-verity device corrupted'` is not in order.
        let in_order = all.iter().rev().take(3).any(|line| IN_ORDER.iter().any(|end| line.trim_end().ends_with(end)));
        if !in_order && !all.is_empty() {
            cut_off = true;
            lines.push(format!("{SUMMARY}{}; the kernel's last lines were:", how_cut_off(&all, by_watchdog)));
            lines.extend(all.iter().skip(all.len().saturating_sub(CONSOLE_LINES)).map(|line| (*line).to_owned()));
        }
    }
    if by_watchdog && !cut_off {
        lines.push(format!("{SUMMARY}was ended by the watchdog, and its kernel had not said anything"));
    }
    lines
}

/// How a start ended that did not end in order, from the kernel's lines.
fn how_cut_off(lines: &[&str], by_watchdog: bool) -> String {
    if lines.iter().rev().take(3).any(|line| line.contains(WRONG_BLOCK)) {
        return "met a block of its root image that is not as signed".into();
    }
    if !by_watchdog {
        return "was cut off".into();
    }
    match lines.iter().rev().find_map(|line| line.split_once(kmsg::REACHED)) {
        Some((_, place)) => {
            format!("was ended by the watchdog: nothing was heard after it had reached {}", place.trim_end())
        }
        None => "was ended by the watchdog: nothing was ever heard of PID 1".into(),
    }
}

/// What the console has room for: what begins with `the start before` and the end of the rest, `most` lines of that. The last
/// lines are nearest to the reason; a kernel that panics says thousands of others before.
pub fn shown(lines: &[String], most: usize) -> impl Iterator<Item = &String> {
    let first = lines.len().saturating_sub(most);
    lines
        .iter()
        .enumerate()
        .filter(move |(number, line)| *number >= first || line.starts_with(SUMMARY))
        .map(|(_, line)| line)
}

/// A line of the table that says what was measured and what should have been.
fn measured(line: &str) -> Option<String> {
    let said = line.split_once("belvedere: ")?.1.strip_prefix(PREFIX)?;
    Some(format!("{SUMMARY}{PREFIX}{}", said.trim_end()))
}

/// The reason in a line with which PID 1 gave a start up.
fn gave_up(line: &str) -> Option<String> {
    let reason = GAVE_UP.iter().find_map(|said| line.split_once(said))?.1;
    Some(format!("{SUMMARY}gave up: {}", reason.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let records = [
            record("console-ramoops-0", "[1] Kernel panic\n"),
            record("dmesg-ramoops-0", "Panic#1 Part1\n<0>[1] Kernel panic - not syncing: Attempted to kill init!\n\n"),
        ];
        let lines = told(&records, false);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("ended in a panic (Kernel panic - not syncing: Attempted to kill init!); "), "{lines:?}");
        assert!(lines[2].contains("Attempted to kill init"));
        let without = told(&[record("dmesg-ramoops-0", "Oops#1 Part1\n")], false);
        assert!(without[0].ends_with("ended in a panic; the kernel's last words were:"), "{without:?}");
    }

    /// The console had the first lines of a panic's record, which are those from long before it.
    #[test]
    fn the_console_shows_the_summary_and_the_end() {
        let text: String = (0..100).map(|number| format!("[{number}] line\n")).collect();
        let lines = told(&[record("dmesg-ramoops-0", &text)], false);
        let shown: Vec<&String> = shown(&lines, 3).collect();
        assert_eq!(shown, [&lines[0], "[97] line", "[98] line", "[99] line"]);
        assert_eq!(super::shown(&lines[..1], 3).count(), 1);
    }

    /// A release that never becomes ready ends in order each time, and nobody was told why.
    #[test]
    fn a_start_that_was_given_up_is_told_with_its_reason_however_it_ended() {
        let said = "[1] line\n[80] belvedere: starting again: agent did not become ready within 80 s\n";
        let told_of = |end: &str| told(&[record("console-ramoops-0", &format!("{said}{end}"))], false);
        let reason = "the start before this one gave up: agent did not become ready within 80 s";
        assert_eq!(told_of("[81] reboot: Restarting system\n"), [reason]);
        let hung = told_of("[81] line\n");
        assert!(hung[0] == reason && hung[1].contains("cut off"), "{hung:?}");
        let records = [record("console-ramoops-0", said), record("dmesg-ramoops-0", "Panic#1 Part1\n")];
        let panicked = told(&records, false);
        assert!(panicked[0] == reason && panicked[1].contains("panic") && panicked.len() == 3, "{panicked:?}");
        let failed = "[2] belvedere: start failed: root image refused: system-b\n[10] reboot: Restarting system\n";
        assert_eq!(
            told(&[record("console-ramoops-0", failed)], false),
            ["the start before this one gave up: root image refused: system-b"]
        );
    }

    /// Volumes stayed closed, and which event was the reason was on the console alone, which nobody had looked at.
    #[test]
    fn what_was_measured_is_told_in_the_next_start_that_operates() {
        let said = "[1] belvedere: measured: register  7  db DIFFERENT 00\n[2] measured: of somebody else\n\
                    [3] belvedere: starting again: volumes stay closed: x\n[4] reboot: Restarting system\n";
        assert_eq!(
            told(&[record("console-ramoops-0", said)], false),
            [
                "the start before this one gave up: volumes stay closed: x",
                "the start before this one measured: register  7  db DIFFERENT 00",
            ]
        );
    }

    #[test]
    fn a_start_that_was_cut_off_is_told_and_one_that_ended_in_order_is_not() {
        let long: String = (0..100).map(|number| format!("[{number}] line\n")).collect();
        let lines = told(&[record("console-ramoops-0", &long)], false);
        assert_eq!(lines.len(), CONSOLE_LINES + 1);
        assert!(lines[0].contains("cut off") && lines[CONSOLE_LINES] == "[99] line");
        let ended = format!("{long}[100] reboot: Restarting system\n");
        assert_eq!(told(&[record("console-ramoops-0", &ended)], false), Vec::<String>::new());
        let damaged = ended.trim_end().to_owned() + " with command 'dm-verity device corrupted'\n";
        let lines = told(&[record("console-ramoops-0", &damaged)], false);
        assert!(lines[0].contains("met a block of its root image that is not as signed"), "{lines:?}");
        assert!(lines.last().unwrap().contains("corrupted"));
        assert_eq!(told(&[], false), Vec::<String>::new());
    }

    /// A hang's reason said "cut off" and no more.
    #[test]
    fn what_the_watchdog_ended_is_told_with_how_far_it_had_come() {
        let of = |text: &str| told(&[record("console-ramoops-0", text)], true);
        let said = "[1] line\n[2] belvedere: reached the first stage of 0.2.0\n\
                    [3] belvedere: reached the root image of 0.2.0\n[4] line\n";
        let how = "was ended by the watchdog: nothing was heard after it had reached the root image of 0.2.0; ";
        assert_eq!(
            of(said),
            [
                &format!("{SUMMARY}{how}the kernel's last lines were:"),
                "[1] line",
                "[2] belvedere: reached the first stage of 0.2.0",
                "[3] belvedere: reached the root image of 0.2.0",
                "[4] line",
            ]
        );
        assert!(of("[1] line\n")[0].contains("by the watchdog: nothing was ever heard of PID 1; the kernel's last"));
        // In the firmware: what memory holds is of a start before that.
        let silent = format!("{SUMMARY}was ended by the watchdog, and its kernel had not said anything");
        assert_eq!(of("[1] reboot: Restarting system\n"), [silent.as_str()]);
        assert_eq!(told(&[], true), [silent.as_str()]);
    }

    /// The start after one that refused its image did not read it, operated, met the block again: for ever, for an operating
    /// slot does not lose its turns.
    #[test]
    fn a_wrong_block_is_looked_for_again_after_a_start_that_found_it() {
        assert!(tells_of_a_wrong_block("[9] reboot: Restarting system with command 'dm-verity device corrupted'\n"));
        let refused = crate::kmsg::tests::critical_line("starting again: root image refused: system-a: read the image");
        assert!(tells_of_a_wrong_block(&refused));
        assert!(!tells_of_a_wrong_block("[9] belvedere: starting again: agent is silent\n[10] reboot: Restarting system\n"));
    }

    #[test]
    fn records_are_read_bounded_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("dmesg-ramoops-0"), vec![b'x'; 300_000]).unwrap();
        std::fs::write(directory.path().join("console-ramoops-0"), b"\xff one\n").unwrap();
        let records = read(directory.path()).unwrap();
        assert_eq!(records.iter().map(|(_, text)| text.len()).collect::<Vec<_>>(), [8, MAXIMUM_RECORD as usize]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

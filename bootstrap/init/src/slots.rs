//! The slot table, as far as `init` has to do with it: which slot was started, and that it operates.
//!
//! The bootloader counts the starts of a proven slot, and gives the next one its turn after
//! [`belvedere_boot_slots::STARTS`] of them. When the appliance operates, the count is cleared here.
//!
//! Write order, and what a power cut after each number leaves behind:
//! 1. the bootloader wrote the count and started the slot — the count stands, although nothing is wrong;
//! 2. the appliance operates — the same;
//! 3. one block of the table is written over the copy that does not hold, flushed and read back
//!    ([`belvedere_durable::write_block`]) — torn: the count stands; whole: it is cleared. When a reset ends with that, the
//!    other copy follows: it must not begin again because one copy was lost. A copy that cannot be written is left, and the
//!    one that holds is changed in place ([`Copies::changes`]).
//!
//! Nobody else writes the table meanwhile: the bootloader is gone, the updater waits until the appliance operates. An hour later
//! `init` writes it once more, which an updater has to know (`failing.rs`).

use crate::supervision::Trial;
use crate::{Result, named};
use belvedere_boot_slots::{
    BLOCK, COPY_OFFSETS, Change, Copies, MEASURED, MEASUREMENT_VARIABLE, Mark, PARTITION, Reset, SLOT_VARIABLE, STARTS,
    Slot, State, TABLE_VARIABLE, TRIES, Table, VENDOR_GUID, data_destroyed, given_up, operating, reset_done,
};
use belvedere_durable::{read_block, write_block};
use belvedere_storage::partitions::{self, Partition};
use belvedere_storage::{mapped, mounts};
use rustix::mount::MountFlags;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the firmware's variables are.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Attributes of a variable that only a boot program can have made in this start: boot services and run time, volatile.
const VOLATILE: [u8; 4] = [6, 0, 0, 0];

/// Mounts the firmware's variables, read-only: nobody in the running system changes what the firmware starts.
pub fn mount_variables() -> Result<()> {
    let flags = mounts::DATA_ONLY | MountFlags::RDONLY;
    mounts::mount("efivarfs", VARIABLES, "efivarfs", flags, "").map_err(|error| error.to_string())
}

/// The slot that the bootloader says it started. `None` when the kernel was started without it.
pub fn started() -> Option<Slot> {
    slot_of_variable(&variable(SLOT_VARIABLE)?)
}

/// What to tell of the measurement of the choice: nothing when all is well, or when no bootloader says anything.
fn measurement() -> Option<String> {
    measurement_of_variable(&variable(MEASUREMENT_VARIABLE)?)
}

fn measurement_of_variable(bytes: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(of_this_start(bytes)?);
    let why: String = said.chars().filter(|character| !character.is_control()).take(200).collect();
    (why != MEASURED).then(|| format!("the choice of the slot is not measured: {why}; what is sealed to it stays shut"))
}

/// One of the bootloader's variables, with its attributes.
fn variable(name: &str) -> Option<Vec<u8>> {
    let file = std::fs::File::open(format!("{VARIABLES}/{name}-{VENDOR_GUID}")).ok()?;
    let mut bytes = Vec::new();
    file.take(1024).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The content of a variable that only a boot program can have made in this start.
fn of_this_start(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&VOLATILE)
}

fn slot_of_variable(bytes: &[u8]) -> Option<Slot> {
    let name = of_this_start(bytes)?;
    Slot::ALL.into_iter().find(|slot| slot.name().as_bytes() == name)
}

pub(crate) fn read(device: &Path) -> Copies {
    let copy = |offset| read_block(device, offset, BLOCK).unwrap_or_default();
    Copies::read(&copy(COPY_OFFSETS[0]), &copy(COPY_OFFSETS[1]))
}

/// Writes a table to one copy. Gives a line when it was not the one that is to be written.
pub(crate) fn write_one(device: &Path, copies: &Copies, table: Table) -> Result<Option<String>> {
    let write = |change: &Change| write_block(device, change.offset, &change.block).map_err(|error| error.to_string());
    write_in_turn(copies, table, || read(device), write)
}

/// Tries one copy after the other until `write` took one, or `again`, which reads them, shows that an attempt left one torn.
fn write_in_turn(
    copies: &Copies,
    table: Table,
    again: impl Fn() -> Copies,
    mut write: impl FnMut(&Change) -> Result<()>,
) -> Result<Option<String>> {
    let mut failed = None;
    for change in copies.changes(table) {
        match write(&change) {
            Ok(()) => return Ok(failed),
            Err(error) => failed = Some(format!("the slot table: copy {} cannot be written: {error}", change.copy)),
        }
        if !copies.may_go_on(&change, &again()) {
            break;
        }
    }
    Err(failed.unwrap_or_else(|| "the slot table may not be written".to_owned()))
}

/// Writes a table to both copies. Gives a line when only one could be written.
fn write_both(device: &Path, copies: &Copies, table: Table) -> Result<Option<String>> {
    let mut failed = None;
    for change in copies.durable_changes(table) {
        if let Err(error) = write_block(device, change.offset, &change.block) {
            failed = Some(error.to_string());
            // When the first cannot be written the second still can, but for one that is torn now.
            if !copies.may_go_on(&change, &read(device)) {
                break;
            }
        }
    }
    let after = read(device);
    let holds = after.current().is_some_and(|current| current.says_the_same(&table));
    let why = || failed.unwrap_or_else(|| "a copy may not be written over".to_owned());
    match (holds, after.both_hold(table)) {
        (true, true) => Ok(None),
        (true, false) => Ok(Some(format!("the slot table is in one copy only: {}", why()))),
        (false, _) => Err(format!("the slot table: {}", why())),
    }
}

/// The partitions of the disk that the verified root is on; on a root that is not verified (development) those of all disks.
pub fn own_partitions() -> Result<Vec<Partition>> {
    let disk = root_device().and_then(partitions::disk_below);
    partitions::list_on(partitions::SYSFS, disk.as_deref()).map_err(|error| error.to_string())
}

/// The partition with the table.
pub fn partition() -> Result<Partition> {
    let found = own_partitions()?;
    partitions::find(&found, PARTITION).cloned().map_err(|error| error.to_string())
}

/// Which slot table the bootloader says it used. `None` when the kernel was started without it.
pub fn named_table() -> Option<Mark> {
    mark_of_variable(&variable(TABLE_VARIABLE)?)
}

fn mark_of_variable(bytes: &[u8]) -> Option<Mark> {
    of_this_start(bytes)?.try_into().ok()
}

/// The partition with the table that the bootloader used, for the first stage: nothing verified says yet which disk is ours,
/// and another one may have a table, too.
pub fn table_named(named: Option<Mark>) -> Result<Partition> {
    let mut found = partitions::list(partitions::SYSFS).map_err(|error| error.to_string())?;
    found.retain(|partition| partition.name == PARTITION);
    let tables = found.into_iter().map(|partition| {
        let marks = read(&partition.device).marks();
        (partition, marks)
    });
    choose(tables.collect(), named)
}

/// `tables` come with the marks of both their copies: the firmware may have been unable to read the newer one.
fn choose(mut tables: Vec<(Partition, [Option<Mark>; 2])>, named: Option<Mark>) -> Result<Partition> {
    if named.is_some() {
        tables.retain(|(_, marks)| marks.contains(&named));
    }
    let devices = || tables.iter().map(|(table, _)| table.device.display().to_string()).collect::<Vec<_>>().join(" and ");
    match (tables.as_slice(), named) {
        ([(table, _)], _) => Ok(table.clone()),
        ([], None) => Err(format!("there is no partition {PARTITION}")),
        ([], Some(_)) => Err(format!("no partition {PARTITION} has the slot table that the bootloader used")),
        (_, None) => Err(format!("{} have a slot table each, and the bootloader names none", devices())),
        (_, Some(_)) => Err(format!("{} have the same slot table: take the disk out that is a copy", devices())),
    }
}

/// The reset that is under way; none where there is no table.
pub fn reset_under_way(device: &Path) -> Reset {
    read(device).current().map_or(Reset::None, |table| table.reset)
}

/// Notes in the table that everything in `data` is destroyed.
pub fn note_data_destroyed(device: &Path) -> Result<Option<String>> {
    let copies = read(device);
    let table = copies.current().ok_or("the slot table cannot be read")?;
    data_destroyed(&table).map_or(Ok(None), |after| write_both(device, &copies, after))
}

/// Whether the table on `device` says that `slot` is proven. Without a table nothing is.
pub fn is_proven(device: &Path, slot: Slot) -> bool {
    read(device).current().is_some_and(|table| table.record(slot).state == State::Good)
}

/// What is known of the slot that was started. One that nothing is known of is taken for proven and gets the longer time to
/// operate.
pub fn started_trial() -> Trial {
    let table = partition().map_err(drop);
    started().zip(table.ok()).map_or(Trial::Proven, |(slot, table)| trial(&table.device, slot))
}

/// The bootloader counted this start already. Without a table nothing is proven.
fn trial(device: &Path, slot: Slot) -> Trial {
    match read(device).current().map(|table| table.record(slot).state) {
        Some(State::Good) => Trial::Proven,
        Some(State::Trying { left }) if left + 1 < TRIES => Trial::Later,
        _ => Trial::First,
    }
}

/// Notes in the table on `device` that `slot` operates. Gives what people should be told.
pub fn note_operating(device: &Path, slot: Slot) -> Result<Vec<String>> {
    let copies = read(device);
    let table = copies.current().ok_or("the slot table cannot be read; the bootloader makes it anew")?;
    let mut lines = Vec::new();
    let counted = operating(&table, slot);
    if let Some(after) = reset_done(&counted.unwrap_or(table)) {
        lines.extend(write_both(device, &copies, after)?);
        lines.push(format!("the reset is done, slot {} operates", slot.name()));
    } else if let Some(after) = counted {
        lines.extend(write_one(device, &copies, after)?);
    }
    if counted.is_some() && table.record(slot).state == State::Bad {
        lines.push(format!(
            "slot {} runs although it is bad, for no proven one came up; each of those has one more start at the next power-on; \
             write a release to one of them anew",
            slot.name()
        ));
    } else if counted.is_some() {
        lines.push(format!("slot {} operates after {} starts", slot.name(), table.record(slot).starts));
    }
    if table.failures(slot) > 0 {
        let failures = table.failures(slot);
        lines.push(format!("slot {} operated and failed all the same {failures} times before", slot.name()));
    }
    for lost in given_up(&table).filter(|lost| *lost != slot) {
        lines.push(format!(
            "slot {} is lost: it was started {STARTS} times in a row and never operated, or failed as often although it did, so \
             slot {} runs; write a release to it anew",
            lost.name(),
            slot.name()
        ));
    }
    for bad in Slot::ALL.into_iter().filter(|bad| *bad != slot && table.record(*bad).state == State::Bad) {
        lines.push(format!(
            "slot {} is bad: it was tried {TRIES} times in vain or refused, so slot {} runs; the log above says why; write a \
             release to it anew",
            bad.name(),
            slot.name()
        ));
    }
    Ok(lines)
}

/// The directory in sysfs of the device that the root is on.
fn root_device() -> Option<PathBuf> {
    let device = rustix::fs::stat("/").ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Some(format!("/sys/dev/block/{major}:{minor}").into())
}

/// The name of the partition that the root image comes from: of the opened volume below the verified device.
fn root_partition() -> Option<String> {
    let slaves = std::fs::read_dir(root_device()?.join("slaves")).ok()?;
    slaves.flatten().find_map(|slave| {
        let name = std::fs::read_to_string(slave.path().join("dm/name")).ok()?;
        name.trim_end().strip_prefix(mapped::PREFIX).map(str::to_owned)
    })
}

fn report() -> Result<Vec<String>> {
    let Some(slot) = started() else {
        return Ok(vec!["the bootloader did not say which slot it started; nothing is noted in the slot table".to_owned()]);
    };
    let mut lines: Vec<String> = measurement().into_iter().collect();
    if let Some(partition) = root_partition().filter(|partition| partition != slot.system()) {
        lines.push(format!(
            "slot {} runs with the root image in {partition}, for the one in {} was refused; write the release to it anew",
            slot.name(),
            slot.system()
        ));
    }
    lines.extend(note_operating(&partition()?.device, slot)?);
    Ok(lines)
}

/// The appliance operates: notes it in the slot table, in a thread of its own, for a disk may take its time and PID 1
/// must not wait for it. `say` is given what people should be told.
pub fn report_operating(say: impl Fn(&str) + Send + 'static) -> Result<()> {
    in_a_thread("that the appliance operates", report, say)
}

/// Notes something; `what` names it where that cannot be done.
pub(crate) fn in_a_thread(
    what: &'static str,
    note: impl FnOnce() -> Result<Vec<String>> + Send + 'static,
    say: impl Fn(&str) + Send + 'static,
) -> Result<()> {
    let work = move || match note() {
        Ok(lines) => lines.iter().for_each(|line| say(line)),
        Err(error) => say(&format!("{what} could not be noted: {error}")),
    };
    std::thread::Builder::new().name("slots".into()).spawn(work).map(drop).map_err(named("start", "a thread"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_boot_slots::{Buttons, Inputs, PARTITION_SIZE, Record, Table, decide, initial};

    fn device(table: Table) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(PARTITION_SIZE).unwrap();
        for (block, offset) in initial(table).iter().zip(COPY_OFFSETS) {
            write_block(file.path(), offset, block).unwrap();
        }
        file
    }

    fn copies(path: &Path) -> [Vec<u8>; 2] {
        COPY_OFFSETS.map(|offset| read_block(path, offset, BLOCK).unwrap())
    }

    fn table(path: &Path) -> Table {
        let [first, second] = copies(path);
        Copies::read(&first, &second).current().unwrap()
    }

    #[test]
    fn the_first_of_the_tries_is_told_from_the_later_ones() {
        let good = Table::empty(Slot::A).committed(Slot::A).written(Slot::B, 0);
        let mut now = good;
        now.preferred = Slot::B;
        let starts = [(); TRIES as usize].map(|()| {
            let [first, second] = initial(now);
            let copies = Copies::read(&first, &second);
            let (buttons, refused) = (Buttons::None, [false; 3]);
            now = decide(Inputs { copies: &copies, fuses: 0, buttons, refused, back_offs: 0 }).write.unwrap();
            trial(device(now).path(), Slot::B)
        });
        assert_eq!(starts, [Trial::First, Trial::Later, Trial::Later]);
        assert_eq!(trial(device(good).path(), Slot::A), Trial::Proven);
        assert_eq!(trial(tempfile::NamedTempFile::new().unwrap().path(), Slot::A), Trial::First);
    }

    /// Two flashed disks in one machine: which came first, or that there are two, used to decide.
    #[test]
    fn the_disk_is_the_one_whose_table_the_bootloader_used() {
        let disk =
            |name: &str| Partition { name: PARTITION.to_owned(), device: Path::new("/dev").join(name), size: 1 << 20 };
        let marks = |table: Table| {
            let [first, second] = initial(table);
            let copies = Copies::read(&first, &second);
            assert_eq!(copies.marks()[1], copies.mark());
            copies.marks()
        };
        let (own, other) = (marks(Table::empty(Slot::A)), marks(Table::empty(Slot::B)));
        let (one, two) = (own[1], other[1]);
        assert!(one.is_some() && one != two && one != own[0]);
        let both = || vec![(disk("vda4"), own), (disk("vdb4"), other)];
        assert_eq!(choose(both(), one), Ok(disk("vda4")));
        assert_eq!(choose(both(), two), Ok(disk("vdb4")));
        // The firmware could not read the newer copy.
        assert_eq!(choose(both(), own[0]), Ok(disk("vda4")));
        // Its disk is not there yet, or for good: another one is no substitute.
        assert!(choose(vec![(disk("vdb4"), other)], one).is_err());
        assert!(choose(Vec::new(), one).is_err() && choose(Vec::new(), None).is_err());
        // Nobody says which.
        assert_eq!(choose(vec![(disk("vdb4"), other)], None), Ok(disk("vdb4")));
        let error = choose(both(), None).unwrap_err();
        assert!(error.contains("names none"), "{error}");
        let error = choose(vec![(disk("vda4"), own), (disk("vdb4"), own)], one).unwrap_err();
        assert!(error.contains("/dev/vda4 and /dev/vdb4") && error.contains("take the disk out"), "{error}");
        // A table that cannot be read is nobody's.
        assert!(choose(vec![(disk("vda4"), [None; 2])], one).is_err());

        let named = one.unwrap();
        assert_eq!(mark_of_variable(&[&VOLATILE[..], &named].concat()), one);
        assert_eq!(mark_of_variable(&[&[7, 0, 0, 0], &named[..]].concat()), None);
        assert_eq!(mark_of_variable(&[&VOLATILE[..], &named[1..]].concat()), None);
    }

    #[test]
    fn the_variable_names_a_slot_only_as_the_bootloader_sets_it() {
        for slot in Slot::ALL {
            let bytes = [&VOLATILE[..], slot.name().as_bytes()].concat();
            assert_eq!(slot_of_variable(&bytes), Some(slot));
            // A non-volatile one was there before the power came on: somebody else made it.
            let stored = [&[7, 0, 0, 0], slot.name().as_bytes()].concat();
            assert_eq!(slot_of_variable(&stored), None);
        }
        for bytes in [&b""[..], &VOLATILE, b"\x06\0\0\0aa", b"\x06\0\0\0a\0", b"\x06\0\0\0c", b"a"] {
            assert_eq!(slot_of_variable(bytes), None, "{bytes:?}");
        }
    }

    /// boot D19: a measurement that failed was a line on the console, which nobody keeps.
    #[test]
    fn a_choice_that_was_not_measured_is_told() {
        let said = |text: &str| measurement_of_variable(&[&VOLATILE[..], text.as_bytes()].concat());
        assert_eq!(said(MEASURED), None);
        assert!(said("the firmware shows no TPM").unwrap().contains("not measured: the firmware shows no TPM;"));
        assert_eq!(said("a\nb").unwrap().lines().count(), 1);
        assert_eq!(measurement_of_variable(b"\x07\0\0\0somebody else's"), None);
    }

    /// boot D4, the other half: what operates is not given up.
    #[test]
    fn the_count_of_the_slot_that_operates_is_cleared_and_lost_ones_are_told() {
        let counted = Table::made_anew(0).with_starts(Slot::A, STARTS).with_starts(Slot::B, 2);
        let file = device(counted);
        let lines = note_operating(file.path(), Slot::B).unwrap();
        assert!(lines[0].contains("slot b operates after 2 starts"), "{lines:?}");
        assert!(lines[1].contains("slot a is lost"), "{lines:?}");
        let after = table(file.path());
        assert_eq!((after.record(Slot::A).starts, after.record(Slot::B).starts), (STARTS, 0));
        // Nothing to clear, nothing to write.
        let before = copies(file.path());
        assert_eq!(note_operating(file.path(), Slot::B).unwrap().len(), 1);
        assert_eq!(copies(file.path()), before);
    }

    #[test]
    fn a_reset_ends_in_both_copies_when_the_appliance_operates_and_a_full_one_not_before_the_data_is_destroyed() {
        for (reset, after) in [(Reset::Latest, Reset::None), (Reset::Minimum, Reset::None), (Reset::Full, Reset::Full)] {
            let mut table = Table::made_anew(0).with_starts(Slot::A, 1);
            table.reset = reset;
            let file = device(table);
            assert_eq!(reset_under_way(file.path()), reset);
            note_operating(file.path(), Slot::A).unwrap();
            assert_eq!((reset_under_way(file.path()), self::table(file.path()).record(Slot::A).starts), (after, 0));
            assert_eq!(read(file.path()).both_hold(self::table(file.path())), reset != Reset::Full);
            assert_eq!(note_data_destroyed(file.path()).unwrap(), None);
            note_operating(file.path(), Slot::A).unwrap();
            let done = read(file.path());
            assert!(done.found().iter().all(|copy| copy.unwrap().reset == Reset::None), "{reset:?}");
        }
        assert_eq!(reset_under_way(Path::new("/nonexistent")), Reset::None);
    }

    #[test]
    fn a_slot_that_was_tried_in_vain_is_told_at_each_start() {
        let bad = Record { state: State::Bad, ..Record::EMPTY };
        let file = device(Table::made_anew(0).with(Slot::B, bad));
        for _ in 0..2 {
            let lines = note_operating(file.path(), Slot::A).unwrap();
            assert!(
                lines.len() == 1 && lines[0].starts_with("slot b is bad") && lines[0].contains("slot a runs"),
                "{lines:?}"
            );
        }
        // Whoever runs it all the same, as the last resort, is not told to replace what runs, but why it does.
        let lines = note_operating(file.path(), Slot::B).unwrap();
        assert!(lines.len() == 1 && lines[0].starts_with("slot b runs although it is bad"), "{lines:?}");
        let after = table(file.path());
        let one_start_left = belvedere_boot_slots::STARTS_BEFORE_A_BAD_ONE - 1;
        assert_eq!((after.record(Slot::A).starts, after.record(Slot::B)), (one_start_left, bad));
    }

    #[test]
    fn an_unproven_slot_is_left_to_whoever_proves_it() {
        let mut written = Table::made_anew(0).with(Slot::B, Record { state: State::Trying { left: 1 }, ..Record::EMPTY });
        written.preferred = Slot::B;
        let file = device(written);
        assert_eq!(note_operating(file.path(), Slot::B).unwrap(), Vec::<String>::new());
        assert_eq!(table(file.path()).record(Slot::B).state, State::Trying { left: 1 });
    }

    #[test]
    fn a_power_cut_while_the_count_is_cleared_leaves_it_counted_or_cleared() {
        let counted = Table::made_anew(0).with_starts(Slot::A, 3);
        let file = device(counted);
        let before = copies(file.path());
        note_operating(file.path(), Slot::A).unwrap();
        let after = copies(file.path());
        let changed: Vec<usize> = (0..2).filter(|&copy| before[copy] != after[copy]).collect();
        let [copy] = changed[..] else { panic!("one block is written, not {changed:?}") };
        for length in (0..=BLOCK).step_by(8).chain([1, 17, 35, BLOCK - 1]) {
            let mut torn = before.clone();
            torn[copy][..length].copy_from_slice(&after[copy][..length]);
            let found = Copies::read(&torn[0], &torn[1]).current().expect("one copy is whole");
            assert!([0, 3].contains(&found.record(Slot::A).starts), "cut after {length} bytes");
        }
    }

    #[test]
    fn a_count_whose_write_was_torn_and_failed_leaves_the_only_good_copy_alone() {
        let file = device(Table::made_anew(0).with_starts(Slot::A, 3));
        let found = read(file.path());
        let after = operating(&found.current().unwrap(), Slot::A).unwrap();
        let again = || read(file.path());
        let torn = |change: &Change| {
            let half = &change.block[..BLOCK / 64];
            write_block(file.path(), change.offset, half).map_err(|error| error.to_string()).and(Err("no answer".to_owned()))
        };
        let error = write_in_turn(&found, after, again, torn).unwrap_err();
        assert!(error.contains("copy 0 cannot be written: no answer"), "{error}");
        assert!(again().found()[0].is_err(), "not torn");
        assert_eq!(table(file.path()).record(Slot::A).starts, 3);
        // The next attempt finds no table there, so it may go on.
        let write = |change: &Change| match change.copy {
            0 => torn(change),
            _ => write_block(file.path(), change.offset, &change.block).map_err(|error| error.to_string()),
        };
        write_in_turn(&again(), after, again, write).unwrap();
        assert_eq!(table(file.path()).record(Slot::A).starts, 0);
    }

    #[test]
    fn a_count_is_cleared_in_the_copy_that_can_be_written() {
        for broken in 0..2 {
            let file = device(Table::made_anew(0).with_starts(Slot::A, 3));
            let found = read(file.path());
            let after = operating(&found.current().unwrap(), Slot::A).unwrap();
            let again = || read(file.path());
            let said = write_in_turn(&found, after, again, |change| match change.copy == broken {
                true => Err("bad sector".to_owned()),
                false => write_block(file.path(), change.offset, &change.block).map_err(|error| error.to_string()),
            });
            assert_eq!(table(file.path()).record(Slot::A).starts, 0, "copy {broken}");
            // The copy that is to be written first is the older one, 0.
            let line = said.unwrap();
            assert_eq!(line.is_some_and(|line| line.contains("copy 0 cannot be written: bad sector")), broken == 0);
            let error = write_in_turn(&found, after, again, |_| Err("bad sector".to_owned())).unwrap_err();
            assert!(error.contains("cannot be written"), "{error}");
        }
    }

    #[test]
    fn a_table_that_is_lost_is_said_and_not_written() {
        let file = device(Table::made_anew(0));
        for offset in COPY_OFFSETS {
            write_block(file.path(), offset, &[0xff; BLOCK]).unwrap();
        }
        assert!(note_operating(file.path(), Slot::A).unwrap_err().contains("makes it anew"));
        assert!(copies(file.path()).iter().all(|copy| copy.iter().all(|&byte| byte == 0xff)));
        assert!(note_operating(Path::new("/nonexistent"), Slot::A).is_err());
    }
}

//! The slot table, as far as `init` has to do with it: which slot was started, and that it operates.
//!
//! The bootloader counts the starts of a proven slot, and gives the next one its turn after
//! [`belvedere_boot_slots::STARTS`] of them. When the appliance operates, the count is cleared here.
//!
//! Write order, and what a power cut after each number leaves behind:
//! 1. the bootloader wrote the count and started the slot — the count stands, although nothing is wrong;
//! 2. the appliance operates — the same;
//! 3. one block of the table is written over the copy that does not hold, flushed and read back
//!    ([`belvedere_durable::write_block`]) — torn: the count stands; whole: it is cleared.
//!
//! Nobody else writes the table meanwhile: the bootloader is gone, the updater waits until the appliance operates.

use crate::{Result, named};
use belvedere_boot_slots::{
    BLOCK, COPY_OFFSETS, Copies, PARTITION, SLOT_VARIABLE, STARTS, Slot, State, TRIES, VENDOR_GUID, given_up, operating,
};
use belvedere_durable::{read_block, write_block};
use belvedere_storage::{mounts, partitions};
use rustix::mount::MountFlags;
use std::io::Read;
use std::path::Path;

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
    let file = std::fs::File::open(format!("{VARIABLES}/{SLOT_VARIABLE}-{VENDOR_GUID}")).ok()?;
    let mut bytes = Vec::new();
    file.take(64).read_to_end(&mut bytes).ok()?;
    slot_of_variable(&bytes)
}

fn slot_of_variable(bytes: &[u8]) -> Option<Slot> {
    let name = bytes.strip_prefix(&VOLATILE)?;
    Slot::ALL.into_iter().find(|slot| slot.name().as_bytes() == name)
}

/// Notes in the table on `device` that `slot` operates. Gives what people should be told.
pub fn note_operating(device: &Path, slot: Slot) -> Result<Vec<String>> {
    let read = |offset| read_block(device, offset, BLOCK).unwrap_or_default();
    let copies = Copies::read(&read(COPY_OFFSETS[0]), &read(COPY_OFFSETS[1]));
    let table = copies.current().ok_or("the slot table cannot be read; the bootloader makes it anew")?;
    let mut lines = Vec::new();
    if let Some(after) = operating(&table, slot) {
        let change = copies.change(after).ok_or("the slot table may not be written")?;
        write_block(device, change.offset, &change.block).map_err(|error| format!("the slot table: {error}"))?;
        lines.push(format!("slot {} operates after {} starts", slot.name(), table.record(slot).starts));
    }
    for lost in given_up(&table).filter(|lost| *lost != slot) {
        lines.push(format!(
            "slot {} is lost: it was started {STARTS} times in a row and never operated, so slot {} runs; write a release \
             to it anew",
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

/// The name of the partition that the root image comes from, below the verified device.
fn root_partition() -> Option<String> {
    let device = rustix::fs::stat("/").ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let slaves = std::fs::read_dir(format!("/sys/dev/block/{major}:{minor}/slaves")).ok()?;
    slaves.flatten().find_map(|slave| {
        let event = std::fs::read_to_string(slave.path().join("uevent")).ok()?;
        event.lines().find_map(|line| line.strip_prefix("PARTNAME=")).map(str::to_owned)
    })
}

fn report() -> Result<Vec<String>> {
    let Some(slot) = started() else {
        return Ok(vec!["the bootloader did not say which slot it started; nothing is noted in the slot table".to_owned()]);
    };
    let mut lines = Vec::new();
    if let Some(partition) = root_partition().filter(|partition| partition != slot.system()) {
        lines.push(format!(
            "slot {} runs with the root image in {partition}, for the one in {} was refused; write the release to it anew",
            slot.name(),
            slot.system()
        ));
    }
    let found = partitions::list(partitions::SYSFS).map_err(|error| error.to_string())?;
    let partition = partitions::find(&found, PARTITION).map_err(|error| error.to_string())?;
    lines.extend(note_operating(&partition.device, slot)?);
    Ok(lines)
}

/// The appliance operates: notes it in the slot table, in a thread of its own, for a disk may take its time and PID 1
/// must not wait for it. `say` is given what people should be told.
pub fn report_operating(say: impl Fn(&str) + Send + 'static) -> Result<()> {
    let work = move || match report() {
        Ok(lines) => lines.iter().for_each(|line| say(line)),
        Err(error) => say(&format!("that the appliance operates could not be noted: {error}")),
    };
    std::thread::Builder::new().name("slots".into()).spawn(work).map(drop).map_err(named("start", "a thread"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_boot_slots::{PARTITION_SIZE, Table, initial};

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
    fn a_slot_that_was_tried_in_vain_is_told_at_each_start() {
        let file = device(Table::made_anew(0).with_state(Slot::B, State::Bad));
        for _ in 0..2 {
            let lines = note_operating(file.path(), Slot::A).unwrap();
            assert!(
                lines.len() == 1 && lines[0].starts_with("slot b is bad") && lines[0].contains("slot a runs"),
                "{lines:?}"
            );
        }
        // Whoever runs it all the same, as the last resort, is not told to replace what runs.
        assert_eq!(note_operating(file.path(), Slot::B).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_unproven_slot_is_left_to_whoever_proves_it() {
        let mut written = Table::made_anew(0).with_state(Slot::B, State::Trying { left: 1 });
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

//! The slot table on a real disk, under the real firmware.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance slots::

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Reset, STARTS, Slot, State, TRIES, Table};
use belvedere_luks2::record::{self, FACTORY_OFFSET, VolumeState};
use belvedere_luks2::{DATA_OFFSET, RECORD_OFFSETS};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Gesture, Light, Pattern};

use crate::common::{BOOT, GREEN, OPERATING, appliance, copy, image, must, scratch, started_once_above};

pub fn read(appliance: &Appliance, table: Extent) -> Copies {
    let [first, second] = COPY_OFFSETS.map(|offset| {
        let extent = Extent { offset: table.offset + offset, length: BLOCK as u64 };
        must(disk::read(&appliance.disk(), extent))
    });
    Copies::read(&first, &second)
}

fn state(appliance: &Appliance, table: Extent, slot: Slot) -> State {
    read(appliance, table).current().expect("a valid table").record(slot).state
}

fn change(appliance: &Appliance, extent: Extent, table: Table) {
    let change = read(appliance, extent).change(table).expect("a table that may be changed");
    must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
}

/// A table in which a new release in slot b waits for its first start.
fn new_release_in_b() -> Table {
    let mut table = Table::empty(Slot::A).committed(Slot::A).written(Slot::B, 0);
    table.preferred = Slot::B;
    table
}

/// Copies slot a's kernel image to slot b's place, changed by `change`.
fn fill_slot_b(image: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let disk = image.join("disk.img");
    let mut kernel = must(must(Fat::in_partition(&disk, "esp-a")).read("EFI/belvedere/slot-a.efi")).unwrap();
    change(&mut kernel);
    must(must(Fat::in_partition(&disk, "esp-b")).put("EFI/belvedere/slot-b.efi", &kernel));
}

/// Two flashed disks in one machine: the other one's partitions have the same names, and at first the same content.
#[test]
fn a_copy_of_its_disk_in_the_same_machine_neither_stops_it_nor_is_written_to() {
    let scratch = scratch();
    let image = image();
    let mut appliance = must(appliance(&image, scratch.path()).second_disk(image.join("disk.img")).start());
    must(appliance.console_contains(OPERATING, BOOT));
    assert_eq!(must(appliance.second_disk_bytes())[1], 0, "bytes written to the other disk");
}

/// What a stick's own slot table says would be done to this appliance's fuses and key databases.
#[test]
fn a_stick_with_a_whole_image_is_not_started_from_where_the_firmware_tries_it_first() {
    let scratch = scratch();
    let stick = copy(scratch.path()).join("disk.img");
    let mut appliance = must(appliance(&image(), scratch.path()).stick(stick).stick_first().start());
    must(appliance.console_contains("belvedere: this is a stick, which is not started from", BOOT));
    must(appliance.console_contains(OPERATING, BOOT));
}

#[test]
fn the_try_of_a_new_release_is_on_the_disk_before_it_starts_whatever_happens_to_the_power() {
    let scratch = scratch();
    let image = copy(scratch.path());
    fill_slot_b(&image, |_| {});
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    change(&appliance, extent, new_release_in_b());
    // Nobody marks it good before the power is cut: it is started TRIES times, and then the proven one.
    for left in (0..TRIES).rev() {
        must(appliance.power_on());
        must(appliance.console_contains("belvedere: slot b: starting \\EFI\\belvedere\\slot-b.efi on esp-b", BOOT));
        must(appliance.power_cut());
        assert_eq!(state(&appliance, extent, Slot::B), State::Trying { left });
    }
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.power_cut());
    assert_eq!(state(&appliance, extent, Slot::B), State::Bad);
    assert_eq!(state(&appliance, extent, Slot::A), State::Good);
}

#[test]
fn a_changed_new_release_is_marked_bad_and_the_proven_one_starts() {
    let scratch = scratch();
    let image = copy(scratch.path());
    fill_slot_b(&image, |kernel| {
        // Not the very last byte: it pads the signature itself, which nothing signs and nothing reads.
        let place = kernel.len() / 3;
        kernel[place] ^= 1;
    });
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    change(&appliance, extent, new_release_in_b());
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: refused by Secure Boot: ", BOOT));
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.power_cut());
    assert_eq!(state(&appliance, extent, Slot::B), State::Bad);
}

#[test]
fn with_one_copy_torn_it_starts_and_with_both_gone_it_starts_after_a_back_off() {
    let scratch = scratch();
    let image = image();
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    let garbage = |appliance: &Appliance, copy: usize, length: usize| {
        let place = extent.offset + COPY_OFFSETS[copy];
        must(disk::write(&appliance.disk(), place, &vec![0xa5; length]));
    };
    // The copy that holds, half written over.
    garbage(&appliance, 1, BLOCK / 2);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    assert!(!appliance.console().contains("no slot can be started"));
    must(appliance.power_cut());

    garbage(&appliance, 0, BLOCK);
    garbage(&appliance, 1, BLOCK);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: no valid slot table", BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Red), BOOT));
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.power_cut());
    // Made anew before the start, which is counted in it.
    assert_eq!(read(&appliance, extent).current().expect("a table").record(Slot::A).starts, 1);
}

/// The sector with the root file system's superblock, once the volume is encrypted: it is read whenever it is mounted.
fn superblock(image: &Path, partition: &str) -> Extent {
    let partition = must(disk::partition(&image.join("disk.img"), partition));
    Extent { offset: partition.offset + DATA_OFFSET + 1024, length: 512 }
}

/// boot D4, field case good-a-good-b: a slot that was proven once was started for ever, whatever became of its root.
#[test]
fn good_a_good_b_a_proven_slot_whose_root_is_damaged_gives_way_and_its_loss_is_told() {
    let scratch = scratch();
    let image = copy(scratch.path());
    fill_slot_b(&image, |_| {});
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    started_once_above(&image, scratch.path());
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    let superblock = superblock(&image, "system-a");
    let whole = must(disk::read(&appliance.disk(), superblock));
    must(disk::write(&appliance.disk(), superblock.offset, &[0x5a; 512]));
    // All its turns but one are used: the earlier ones would be like the last.
    change(&appliance, extent, Table::made_anew(0).with_starts(Slot::A, STARTS - 1));
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.console_contains("belvedere: root image refused: system-a: ", BOOT));
    must(appliance.console_contains("belvedere: slot b: starting", BOOT));
    must(appliance.power_cut());
    let table = read(&appliance, extent).current().expect("a table");
    assert_eq!((table.record(Slot::A).state, table.record(Slot::A).starts), (State::Good, STARTS));

    // Both slots of this disk hold one release, whose only root image is whole again. Slot a had its turns.
    must(disk::write(&appliance.disk(), superblock.offset, &whole));
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: starting", BOOT));
    must(appliance.console_contains("belvedere: slot a is lost: ", BOOT));
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
    must(appliance.power_cut());
    let table = read(&appliance, extent).current().expect("a table");
    assert_eq!((table.record(Slot::A).starts, table.record(Slot::B).starts), (STARTS, 0));
}

/// boot D5: the image was taken from the first partition that looked right, and damage in its middle ended the start.
#[test]
fn a_damaged_root_image_gives_way_to_the_same_one_in_another_partition() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let path = image.join("disk.img");
    let raw = File::options().write(true).open(&path).unwrap();
    let root = fs::read(image.join("root.erofs")).unwrap();
    let [system_a, system_b] = ["system-a", "system-b"].map(|name| must(disk::partition(&path, name)).offset);
    let factory = VolumeState::Factory { bytes: root.len() as u64 };
    for (block, offset) in record::initial(factory).iter().zip(RECORD_OFFSETS) {
        raw.write_all_at(block, system_b + offset).unwrap();
    }
    raw.write_all_at(&root, system_b + FACTORY_OFFSET).unwrap();
    raw.write_all_at(&[0x5a; 512], system_a + FACTORY_OFFSET + 1024).unwrap();
    let extent = must(disk::partition(&path, PARTITION));
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: root image refused: system-a: ", BOOT));
    must(appliance.console_contains("belvedere: root image accepted from system-b", BOOT));
    must(appliance.console_contains("belvedere: slot a runs with the root image in system-b", BOOT));
    must(appliance.console_contains("belvedere: slot a operates after 1 starts", BOOT));
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
    must(appliance.power_cut());
    assert_eq!(read(&appliance, extent).current().expect("a table").record(Slot::A).starts, 0);
}

/// The whole way of a reset, with a power cut in its middle; the minimum slot of a new appliance is empty.
#[test]
fn a_reset_that_was_asked_for_once_goes_on_after_a_power_cut_and_ends_when_the_appliance_operates() {
    let scratch = scratch();
    let image = image();
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    must(appliance.power_on_holding(Some(Gesture::LongPressPowerAndReset)));
    must(appliance.console_contains("belvedere: reset: Full, asked for by the buttons", BOOT));
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.power_cut());
    for copy in read(&appliance, extent).found() {
        assert_eq!(copy.expect("a table").reset, Reset::Full);
    }
    // Nothing is held any more.
    must(appliance.power_on());
    must(appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Orange), BOOT));
    must(appliance.console_contains("belvedere: full reset: everything that was stored is destroyed", BOOT));
    must(appliance.console_contains("belvedere: made the data file system", BOOT));
    must(appliance.console_contains("belvedere: the reset is done, slot a operates", BOOT));
    // Ready to be provisioned.
    must(appliance.wait_for_light(Light::Status, Pattern::Slow(Colour::Green), BOOT));
    must(appliance.power_cut());
    for copy in read(&appliance, extent).found() {
        assert_eq!(copy.expect("a table").reset, Reset::None);
    }
}

/// boot D12: letters that are none in the name of a partition made the bootloader switch the machine off.
#[test]
fn a_partition_name_that_is_no_text_starts_all_the_same() {
    const HEADER: u64 = 512;
    let scratch = scratch();
    let image = copy(scratch.path());
    let path = image.join("disk.img");
    let place = must(disk::entry(&path, "system-minimum")).place;
    let raw = File::options().read(true).write(true).open(&path).unwrap();
    raw.write_all_at(&[0x00, 0xd8, 0x3d, 0xd8, 0xff, 0xff], place + 56).unwrap();
    // The table's checksums are right: this is what somebody wrote, not damage.
    let mut header = [0u8; 92];
    raw.read_exact_at(&mut header, HEADER).unwrap();
    let number = |header: &[u8], at: usize, length| {
        header[at..at + length].iter().rev().fold(0u64, |all, &byte| all << 8 | u64::from(byte))
    };
    let mut entries = vec![0; usize::try_from(number(&header, 80, 4) * number(&header, 84, 4)).unwrap()];
    raw.read_exact_at(&mut entries, number(&header, 72, 8) * 512).unwrap();
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    raw.write_all_at(&header, HEADER).unwrap();
    drop(raw);
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    assert!(!appliance.console().contains("failed, starting again"));
}

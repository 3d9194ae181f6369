//! The slot table on a real disk, under the real firmware.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test slots

mod common;

use std::path::Path;

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Slot, State, TRIES, Table};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Light, Pattern};
use common::{BOOT, appliance, copy, image, must, scratch};

fn read(appliance: &Appliance, table: Extent) -> Copies {
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
    let change = read(appliance, extent).change(table);
    must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
}

/// A table in which a new release in slot b waits for its first start.
fn new_release_in_b() -> Table {
    let mut table = Table::empty(Slot::A).committed(Slot::A).with_state(Slot::B, State::Written);
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
}

//! Updates of the firmware's key databases that a release brings along: they are applied when it is proven, an old release
//! that they revoke does not start any more, and the appliance is not locked out of its volumes by what its TPM measures
//! then.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance revocation:: -- --nocapture
//!
//! Programs and keys are taken as in `bad_releases`. The firmware's own judgement is what counts here: the hash, the signature
//! of the update and the register are all worked out by us and checked by EDK2 and the TPM.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{BOOT, appliance, copy, image, must, scratch};
use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Record, Slot, State, Table};
use belvedere_image::appliance::{Request, build};
use belvedere_image::cache;
use belvedere_image::key_updates::{self, Addition};
use belvedere_image::programs::MissingParts;
use belvedere_image::{board, progress::Progress};
use belvedere_keys::{KeyDirectory, Validity, renew_db};
use belvedere_luks2::RECORD_OFFSETS;
use belvedere_luks2::record::{self, FACTORY_OFFSET, VolumeState};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Gesture, Light, Pattern};

const OPERATING: &str = "belvedere: operating (";

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// A copy of the image's keys, to which updates may be added.
fn keys(directory: &Path) -> KeyDirectory {
    let data = || variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    let keys = variable("BELVEDERE_KEYS").unwrap_or_else(|| data().expect("HOME is set").join("belvedere/keys"));
    let copy = directory.join("keys");
    assert!(Command::new("cp").arg("-a").arg(&keys).arg(&copy).status().unwrap().success());
    KeyDirectory::open(copy).unwrap()
}

/// Builds a release of the image's programs; gives the directory with what belongs to it.
fn release(directory: &Path, name: &str, keys: &KeyDirectory, db_key: u32) -> PathBuf {
    let output = directory.join(name);
    let programs = variable("BELVEDERE_PROGRAMS").unwrap_or_else(|| image().join("../programs"));
    let request = Request {
        board: board::find("qemu-aarch64").unwrap(),
        keys: keys.path().to_owned(),
        programs,
        output: output.clone(),
        cache: cache::default_directory(),
        version: env!("CARGO_PKG_VERSION").into(),
        rollback_level: 0,
        db_key,
        missing_parts: MissingParts::Refuse,
        development: true,
    };
    if let Err(error) = build(&request, &mut Progress::new()) {
        panic!("{error}");
    }
    output
}

/// Puts a release into a slot: its kernel image on both ESPs, its root image as it comes from the factory.
fn put(disk_image: &Path, slot: Slot, release: &Path) {
    put_kernel(disk_image, slot, release);
    let root = fs::read(release.join("root.erofs")).unwrap();
    let raw = File::options().write(true).open(disk_image).unwrap();
    let system = must(disk::partition(disk_image, slot.system())).offset;
    let factory = VolumeState::Factory { bytes: root.len() as u64 };
    for (block, offset) in record::initial(factory).iter().zip(RECORD_OFFSETS) {
        raw.write_all_at(block, system + offset).unwrap();
    }
    raw.write_all_at(&root, system + FACTORY_OFFSET).unwrap();
}

fn put_kernel(disk_image: &Path, slot: Slot, release: &Path) {
    let kernel = fs::read(release.join("uki.efi")).unwrap();
    let path = slot.kernel_path().trim_start_matches('\\').replace('\\', "/");
    for esp in ["esp-a", "esp-b"] {
        must(must(Fat::in_partition(disk_image, esp)).put(&path, &kernel));
    }
}

fn set_table(appliance: &Appliance, extent: Extent, change: impl Fn(Table) -> Table) {
    let [first, second] = COPY_OFFSETS
        .map(|offset| must(disk::read(&appliance.disk(), Extent { offset: extent.offset + offset, length: BLOCK as u64 })));
    let copies = Copies::read(&first, &second);
    let next = change(copies.current().expect("a table"));
    for change in copies.durable_changes(next) {
        must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
    }
}

fn preferring(mut table: Table, slot: Slot) -> Table {
    table.preferred = slot;
    table
}

fn mark(appliance: &Appliance) -> usize {
    fs::metadata(appliance.console_log()).unwrap().len() as usize
}

fn said_since(appliance: &Appliance, start: usize) -> String {
    let log = fs::read(appliance.console_log()).unwrap();
    String::from_utf8_lossy(&log[start..]).replace('\r', "")
}

fn operates(appliance: &mut Appliance) {
    must(appliance.console_contains(OPERATING, BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), BOOT));
}

fn off(appliance: &mut Appliance) {
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(BOOT));
    must(appliance.power_cut());
}

/// The release in slot a is revoked by one in slot b, which is in the minimum slot as well.
#[test]
fn a_revoked_release_starts_no_more_and_the_last_good_one_and_the_minimum_slot_open_their_volumes_as_before() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let keys = keys(scratch.path());
    fs::write(scratch.path().join("old.efi"), {
        let esp = must(Fat::in_partition(&image.join("disk.img"), "esp-a"));
        must(esp.read("EFI/belvedere/slot-a.efi")).unwrap()
    })
    .unwrap();
    let hash = key_updates::hash_of(&scratch.path().join("old.efi")).unwrap();
    key_updates::add(&keys, &Addition::RevokedProgram(hash)).unwrap().expect("a new update");
    let new = release(scratch.path(), "new", &keys, 1);
    for slot in [Slot::B, Slot::Minimum] {
        put(&image.join("disk.img"), slot, &new);
    }
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));

    // The appliance as it was before the update, and the first start of the new release, which is not proven yet.
    let mut appliance = must(appliance(&image, scratch.path()).start());
    operates(&mut appliance);
    off(&mut appliance);
    set_table(&appliance, extent, |table| preferring(table.written(Slot::B, 0), Slot::B));
    let start = mark(&appliance);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: starting ", BOOT));
    operates(&mut appliance);
    let said = said_since(&appliance, start);
    assert!(!said.contains("is updated"), "applied before it is proven:\n{said}");
    off(&mut appliance);

    // Committed: the firmware is told, and register 7 is another one from then on.
    let good = Record { state: State::Good, rollback_level: 0, starts: 0 };
    set_table(&appliance, extent, |table| table.committed(Slot::B).with(Slot::Minimum, good));
    let start = mark(&appliance);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: the firmware's dbx is updated", BOOT));
    must(appliance.console_contains("belvedere: slot b: starting ", BOOT));
    operates(&mut appliance);
    let said = said_since(&appliance, start);
    assert!(!said.contains("volumes stay closed") && said.matches("is updated").count() == 1, "{said}");
    off(&mut appliance);

    // Whoever prefers the old one gets the last good one, and nothing is applied twice.
    set_table(&appliance, extent, |table| preferring(table, Slot::A));
    let start = mark(&appliance);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot a: refused by Secure Boot: ", BOOT));
    must(appliance.console_contains("belvedere: slot b: starting ", BOOT));
    operates(&mut appliance);
    let said = said_since(&appliance, start);
    assert!(!said.contains("slot a: starting") && !said.contains("is updated"), "{said}");
    off(&mut appliance);

    // The minimum slot still starts, and opens its volumes.
    let start = mark(&appliance);
    must(appliance.power_on_holding(Some(Gesture::LongPressReset)));
    must(appliance.console_contains("belvedere: slot minimum: starting ", BOOT));
    must(appliance.console_contains(OPERATING, BOOT));
    // After a reset, and nobody owns it.
    must(appliance.wait_for_light(Light::Status, Pattern::Slow(Colour::Green), BOOT));
    let said = said_since(&appliance, start);
    assert!(!said.contains("volumes stay closed"), "{said}");
}

fn in_full() -> bool {
    let long = std::env::var_os("BELVEDERE_LONG").is_some();
    if !long {
        println!("left out; set BELVEDERE_LONG to run it");
    }
    long
}

/// The whole way from the factory's db key to a second one; what the first one signed starts no more, bootloaders included.
#[test]
fn a_revoked_key_starts_nothing_any_more_and_the_appliance_operates_with_the_next_one() {
    if !in_full() {
        return;
    }
    let scratch = scratch();
    let image = copy(scratch.path());
    let keys = keys(scratch.path());
    let disk_image = image.join("disk.img");
    let first = fs::read(keys.db_key(1).unwrap().certificate_der).unwrap();
    renew_db(&keys, Validity::default()).unwrap();
    let second = fs::read(keys.db_key(2).unwrap().certificate_der).unwrap();
    key_updates::add(&keys, &Addition::Trusted(second)).unwrap();
    let tells = release(scratch.path(), "tells", &keys, 1);
    key_updates::add(&keys, &Addition::Revoked(first)).unwrap();
    let revokes = release(scratch.path(), "revokes", &keys, 2);
    put(&disk_image, Slot::A, &tells);
    put(&disk_image, Slot::B, &revokes);
    let extent = must(disk::partition(&disk_image, PARTITION));

    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: slot a: the firmware's db is updated", BOOT));
    operates(&mut appliance);
    off(&mut appliance);

    // Committed, but the bootloaders are still of the first key: the revocation waits for them.
    set_table(&appliance, extent, |table| table.written(Slot::B, 0).committed(Slot::B));
    let start = mark(&appliance);
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: starting ", BOOT));
    operates(&mut appliance);
    let said = said_since(&appliance, start);
    assert!(said.contains("not updated") && said.contains("it would not start any more"), "{said}");
    off(&mut appliance);

    // Nothing has written to the ESPs, so what lies below the appliance's disk shows through.
    let bootloader = fs::read(revokes.join("bootloader.efi")).unwrap();
    for esp in ["esp-a", "esp-b"] {
        must(must(Fat::in_partition(&disk_image, esp)).put("EFI/BOOT/BOOTAA64.EFI", &bootloader));
    }
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot b: the firmware's dbx is updated", BOOT));
    operates(&mut appliance);
    off(&mut appliance);
    set_table(&appliance, extent, |table| preferring(table, Slot::A));
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: slot a: refused by Secure Boot: ", BOOT));
    must(appliance.console_contains("belvedere: slot b: starting ", BOOT));
    operates(&mut appliance);
}

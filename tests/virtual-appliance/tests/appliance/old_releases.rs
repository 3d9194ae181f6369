//! An old release, with a fault that is known, in the hands of somebody who has the disk: once the fuses have moved it does not
//! start, whatever the slot table says.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance old_releases::

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Record, Slot, Table};
use belvedere_image::{boot_policy, signing};
use belvedere_kernel_stub::{CMDLINE, DTB, INITRD, Image, LINUX, POLICY, RELEASE};
use belvedere_tpm::boot_policy::BootPolicy;
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Fat, Light};

use crate::common::{
    BOOT, CLOSED, FAST_RED, KERNEL, TAKES_OVER, appliance, copy, copy_state, in_full, keys, line_with, must, scratch,
    section, start_instead, started_once_above,
};

const OLDER_REFUSED: &str = "refused: its release has rollback level 0, and this machine has run releases of level 1";

/// A release like the image's, but of rollback level 1, signed by the same keys.
pub fn next_level(kernel: &[u8], directory: &Path) -> Vec<u8> {
    let mut kernel = kernel.to_vec();
    let level = section(&kernel, RELEASE);
    let text = belvedere_kernel_stub::release_section(1);
    assert_eq!(level.end - level.start, text.len() as u64);
    kernel[level.start as usize..level.end as usize].copy_from_slice(text.as_bytes());
    // A keeper that does not know what was measured is told by the command line.
    let (line, told) = (section(&kernel, CMDLINE), b"belvedere.rollback_level=");
    let line = &mut kernel[line.start as usize..line.end as usize];
    let digit = line.windows(told.len()).position(|word| word == told).unwrap() + told.len();
    assert_eq!(line[digit], b'0');
    line[digit] = b'1';
    let file = Image::parse(&kernel).unwrap();
    let secure_boot = BootPolicy::decode_section(file.file_section(POLICY).unwrap()).unwrap().entries[0].pcr7;
    let measured: Vec<(&str, &[u8])> =
        [LINUX, INITRD, CMDLINE, DTB, RELEASE].map(|name| (name, file.file_section(name).unwrap())).to_vec();
    let document = boot_policy::make(&keys(), &[secure_boot], &measured, 1).unwrap();
    let policy = section(&kernel, POLICY);
    assert_eq!(policy.end - policy.start, document.len() as u64);
    kernel[policy.start as usize..policy.end as usize].copy_from_slice(&document);
    let (unsigned, output) = (directory.join("unsigned.efi"), directory.join("signed.efi"));
    fs::write(&unsigned, &kernel).unwrap();
    assert!(Command::new("sbattach").arg("--remove").arg(&unsigned).status().unwrap().success());
    signing::sign(&keys().db_key(1).unwrap(), &unsigned, &output).unwrap();
    fs::read(output).unwrap()
}

/// An appliance whose ESPs hold a release of rollback level 0 in slot a and one of level 1 in slot b, both proven, at two
/// moments: after its first start, and after the newer release had started and moved the fuses. Made once for all tests.
struct TwoReleases {
    image: PathBuf,
    before: PathBuf,
    after: PathBuf,
}

fn two_releases() -> &'static TwoReleases {
    static MADE: OnceLock<TwoReleases> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("two-releases");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let image = copy(&directory);
        let path = image.join("disk.img");
        let older = must(must(Fat::in_partition(&path, "esp-a")).read(KERNEL)).expect("slot a's kernel");
        put_both(&path, &older, &next_level(&older, &directory));
        started_once_above(&image, &directory);
        let mut appliance = must(appliance(&image, &directory).prepare());
        let state = directory.join("state");
        copy_state(&state, &directory.join("before"));
        write_table(&appliance, &image, both_good(Slot::B));
        let console = starts(&mut appliance, Slot::B);
        assert!(console.contains("rollback fuses: level 1"), "{console}");
        drop(appliance);
        copy_state(&state, &directory.join("after"));
        TwoReleases { image, before: directory.join("before"), after: directory.join("after") }
    })
}

/// Puts the one kernel into slot a's places and the other into slot b's.
pub fn put_both(disk: &Path, older: &[u8], newer: &[u8]) {
    for esp in ["esp-a", "esp-b"] {
        for (slot, kernel) in [(Slot::A, older), (Slot::B, newer)] {
            let file = slot.kernel_path().trim_start_matches('\\').replace('\\', "/");
            must(must(Fat::in_partition(disk, esp)).put(&file, kernel));
        }
    }
}

pub fn write_table(appliance: &Appliance, image: &Path, table: Table) {
    let extent = must(disk::partition(&image.join("disk.img"), PARTITION));
    let [first, second] = COPY_OFFSETS
        .map(|offset| must(disk::read(&appliance.disk(), Extent { offset: extent.offset + offset, length: BLOCK as u64 })));
    for change in Copies::read(&first, &second).durable_changes(table) {
        must(disk::write(&appliance.disk(), extent.offset + change.offset, &change.block));
    }
}

/// Slots a and b are proven, and `slot` is preferred.
pub fn both_good(slot: Slot) -> Table {
    let mut table = Table::made_anew(0).emptied(Slot::Minimum);
    (table.preferred, table.last_good) = (slot, Some(slot));
    table
}

/// Switches on, and off again when the root image's programs run. Gives the console: the release in `slot` alone was started.
fn starts(appliance: &mut Appliance, slot: Slot) -> String {
    must(appliance.power_on());
    must(appliance.console_contains(TAKES_OVER, BOOT));
    let console = appliance.console();
    must(appliance.power_cut());
    for other in Slot::ALL {
        let line = format!("belvedere: slot {}: starting", other.name());
        assert_eq!(console.contains(&line), other == slot, "{line:?} on the console:\n{console}");
    }
    console
}

#[test]
fn a_forged_slot_table_cannot_start_an_older_release() {
    let scratch = scratch();
    let releases = two_releases();
    let state = scratch.path().join("state");
    copy_state(&releases.after, &state);
    let mut appliance = must(appliance(&releases.image, scratch.path()).prepare());
    // The table praises the old release, and slanders the new one.
    let mut forged = both_good(Slot::A);
    forged = forged.with(Slot::A, Record { rollback_level: 63, ..forged.record(Slot::A) });
    write_table(&appliance, &releases.image, forged);
    let console = starts(&mut appliance, Slot::B);
    assert!(console.contains(&format!("belvedere: slot a: {OLDER_REFUSED}")), "{console}");

    // Past the bootloader: a boot entry for the old release itself, which the firmware starts, for it is signed.
    let store = state.join("variables.fd");
    fs::copy(releases.image.join("firmware-variables.fd"), &store).unwrap();
    start_instead(&releases.image, &store, Slot::A.kernel_path(), "");
    must(appliance.power_on());
    must(appliance.console_contains(CLOSED, BOOT));
    let console = appliance.console();
    println!("{}", line_with(&console, CLOSED).unwrap_or_default());
    assert!(!console.contains("belvedere: slot "), "the bootloader ran, and not the entry:\n{console}");
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
}

#[test]
fn both_slot_tables_lost_after_the_fuses_moved_starts_the_newest_and_not_the_old_release() {
    if !in_full() {
        return;
    }
    let scratch = scratch();
    let releases = two_releases();
    copy_state(&releases.after, &scratch.path().join("state"));
    let mut appliance = must(appliance(&releases.image, scratch.path()).prepare());
    let extent = must(disk::partition(&releases.image.join("disk.img"), PARTITION));
    for offset in COPY_OFFSETS {
        must(disk::write(&appliance.disk(), extent.offset + offset, &[0xa5; BLOCK]));
    }
    // Whose turn comes first is slot a's, and it holds the old release.
    let console = starts(&mut appliance, Slot::B);
    assert!(console.contains("belvedere: no valid slot table"), "{console}");
    assert!(console.contains(&format!("belvedere: slot a: {OLDER_REFUSED}")), "{console}");
}

/// What a TPM does not forget keeps old releases out. So whoever can put back what it held at an earlier moment can start them:
/// the host of a virtual appliance, and nobody with a TPM of silicon (docs/threat-model.md). This shows that nothing else does.
#[test]
fn a_tpm_put_back_to_an_older_moment_forgets_the_fuses_that_moved_since() {
    if !in_full() {
        return;
    }
    let scratch = scratch();
    let releases = two_releases();
    let state = scratch.path().join("state");
    copy_state(&releases.after, &state);
    let mut appliance = must(appliance(&releases.image, scratch.path()).prepare());
    write_table(&appliance, &releases.image, both_good(Slot::A));
    fs::remove_dir_all(state.join("tpm")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(releases.before.join("tpm")).arg(&state).status().unwrap();
    assert!(copied.success());
    starts(&mut appliance, Slot::A);
}

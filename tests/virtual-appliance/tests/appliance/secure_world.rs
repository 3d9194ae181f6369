//! The same image on a board with a secure world (Trusted Firmware-A, OP-TEE, UEFI): what is signed starts to green light,
//! with Secure Boot, TPM and OP-TEE.
//!
//!     BELVEDERE_IMAGE=… BELVEDERE_SECURE_WORLD=$(firmware/secure-world/build) \
//!         scripts/cargo test -p belvedere-virtual-appliance --test appliance secure_world::
//!
//! Without `BELVEDERE_SECURE_WORLD` the firmware is built first when `BELVEDERE_LONG` is set (about ten minutes), and the
//! test does nothing otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{BOOT, CLOSED, GREEN, KERNEL, OPERATING, appliance, copy, copy_state, image, line_with, must, scratch};
use crate::old_releases::{both_good, next_level, put_both, write_table};
use belvedere_boot_slots::Slot;
use belvedere_virtual_appliance::{Appliance, Builder, Fat, Light};

/// The board's firmware; nothing when it is not to be tested.
fn firmware() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("BELVEDERE_SECURE_WORLD") {
        return Some(directory.into());
    }
    std::env::var_os("BELVEDERE_LONG")?;
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware/secure-world/build");
    let output = Command::new(&build).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{}", build.display());
    Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end()))
}

/// As [`firmware`], saying what a test that does nothing did.
macro_rules! firmware_or_leave {
    () => {
        match firmware() {
            Some(firmware) => firmware,
            None => return println!("left out: set BELVEDERE_SECURE_WORLD or BELVEDERE_LONG"),
        }
    };
}

/// Says so and shows it. The light alone may stand still on green for a while when the firmware hands over on a busy machine.
fn operates(appliance: &mut Appliance) {
    must(appliance.console_contains(OPERATING, 2 * BOOT));
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
}

fn board(firmware: &Path, image: &Path, directory: &Path) -> Builder {
    appliance(image, directory).secure_world(firmware)
}

#[test]
fn the_same_image_starts_to_green_light_with_secure_boot_tpm_and_op_tee() {
    let firmware = firmware_or_leave!();
    let scratch = scratch();
    let mut appliance = must(board(&firmware, &image(), scratch.path()).start());
    let begun = Instant::now();
    operates(&mut appliance);
    println!("measured: power to solid green light, with a secure world, {:.1} s", begun.elapsed().as_secs_f32());
    let console = appliance.console();
    assert!(!console.contains("OP-TEE, which keeps nothing here, is not closed"), "{console}");
    for said in ["UEFI Secure Boot is enabled", "TPM: measured as signed"] {
        assert!(console.contains(said), "{said:?} is not on the console:\n{console}");
    }
    // OP-TEE says this when Linux's driver asks what it can: the kernel found it.
    let secure = appliance.secure_console();
    assert!(secure.contains("Dynamic shared memory is enabled"), "{secure}");

    // What the first start made is opened again, and the power goes off through the trusted firmware.
    must(appliance.power_cut());
    must(appliance.power_on());
    operates(&mut appliance);
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(Duration::from_secs(60)));
}

/// What a start said of the keeper.
const GIVEN_OUT: &str = "OP-TEE: secrets given out; rollback level ";

/// Boards such as Jetson Xavier have no TPM: OP-TEE keeps the volumes' secrets and the rollback level then.
#[test]
fn without_a_tpm_op_tee_opens_the_volumes_for_this_board_and_for_no_older_release() {
    let firmware = firmware_or_leave!();
    let scratch = scratch();
    let image = copy(scratch.path());
    let disk = image.join("disk.img");
    let older = must(must(Fat::in_partition(&disk, "esp-a")).read(KERNEL)).expect("slot a's kernel");
    put_both(&disk, &older, &next_level(&older, scratch.path()));
    let begun = Instant::now();
    let mut appliance = must(board(&firmware, &image, scratch.path()).without_tpm().start());
    operates(&mut appliance);
    println!("measured: power to solid green light, first start with OP-TEE alone, {:.1} s", begun.elapsed().as_secs_f64());
    let console = appliance.console();
    assert!(console.contains(&format!("{GIVEN_OUT}0; fuses at level 0")), "{console}");
    assert!(console.contains("encrypting belvedere-system-a: 100 %"), "{console}");
    must(appliance.power_cut());

    // The newer release opens what the older one encrypted, and moves the fuses.
    write_table(&appliance, &image, both_good(Slot::B));
    must(appliance.power_on());
    operates(&mut appliance);
    let console = appliance.console();
    assert!(console.contains(&format!("{GIVEN_OUT}1; fuses at level 0")), "{console}");
    assert!(console.contains("rollback fuses: level 1"), "{console}");
    must(appliance.power_cut());
    let kept = scratch.path().join("kept");
    copy_state(&scratch.path().join("state"), &kept);

    // The bootloader cannot ask OP-TEE, so the older one begins; it gets no secret, and the newer one has its turn again.
    write_table(&appliance, &image, both_good(Slot::A));
    must(appliance.power_on());
    must(appliance.console_contains(CLOSED, 2 * BOOT));
    let line = line_with(&appliance.console(), CLOSED).unwrap_or_default();
    assert!(line.contains("release of rollback level 0") && line.contains("keeps level 1"), "{line}");
    println!("{line}");
    must(appliance.console_contains("belvedere: slot b: starting", 4 * BOOT));
    operates(&mut appliance);
    must(appliance.power_cut());
    drop(appliance);

    // The stolen disk in another board of the same kind, with other fuses.
    let foreign = scratch.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::rename(&kept, foreign.join("state")).unwrap();
    assert!(!foreign.join("state/board-fuses").exists());
    let mut appliance = must(board(&firmware, &image, &foreign).without_tpm().start());
    // It tries again and again, and does no harm: put back, the disk is what it was.
    let begun = Instant::now();
    while appliance.console().matches(CLOSED).count() < 2 {
        assert!(begun.elapsed() < 4 * BOOT, "{}", appliance.console());
        std::thread::sleep(Duration::from_millis(500));
    }
    let console = appliance.console();
    console.lines().filter(|line| line.contains(CLOSED)).for_each(|line| println!("{line}"));
    assert!(!console.contains(GIVEN_OUT) && console.contains("put it back there"), "{console}");
    must(appliance.power_cut());
    drop(appliance);
    fs::copy(foreign.join("state/disk.qcow2"), scratch.path().join("state/disk.qcow2")).unwrap();
    let mut appliance = must(board(&firmware, &image, scratch.path()).without_tpm().start());
    operates(&mut appliance);
    assert!(appliance.console().contains(&format!("{GIVEN_OUT}1; fuses at level 1")), "{}", appliance.console());
}

/// The keys in the variables are the ones that count here too.
#[test]
fn a_changed_bootloader_is_refused_on_this_board_too() {
    let firmware = firmware_or_leave!();
    let scratch = scratch();
    let image = copy(scratch.path());
    for name in ["esp-a", "esp-b"] {
        let esp = must(Fat::in_partition(&image.join("disk.img"), name));
        let mut program = must(esp.read("EFI/BOOT/BOOTAA64.EFI")).expect("each ESP has a bootloader");
        let place = program.len() / 2;
        program[place] ^= 1;
        must(esp.put("EFI/BOOT/BOOTAA64.EFI", &program));
    }
    let mut appliance = must(board(&firmware, &image, scratch.path()).start());
    must(appliance.console_contains_any(&["Access Denied", "Security Violation"], BOOT));
    std::thread::sleep(Duration::from_secs(5));
    let console = appliance.console();
    assert!(!console.contains("belvedere:"), "our bootloader ran:\n{console}");
}

//! With Secure Boot on: what is signed starts, and what was changed does not; lights and console say why.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance secure_boot::

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use belvedere_kernel_stub::{Image, LINUX};
use belvedere_keys::{UefiKey, Validity, create};
use belvedere_luks2::record::FACTORY_OFFSET;
use belvedere_virtual_appliance::{Appliance, Fat, Light, Pattern, disk};

use crate::common::{BOOT, BOOTLOADER, FAST_RED, KERNEL, appliance, copy, image, must, scratch, start_instead};

const STARTING: &str = "belvedere: slot a: starting";
const VERIFIED: &str = "UEFI Secure Boot is enabled";

/// Runs a signing tool on files in `directory`.
fn tool(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it: apt-get install sbsigntool"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Replaces the bootloader on both ESPs by what `change` makes of the signed one (`boot.efi` → `new.efi`).
fn with_bootloader(image: &Path, directory: &Path, change: impl FnOnce(&Path)) {
    let disk = image.join("disk.img");
    let esps = ["esp-a", "esp-b"].map(|name| must(Fat::in_partition(&disk, name)));
    let signed = must(esps[0].read(BOOTLOADER)).expect("the image has a bootloader on esp-a");
    fs::write(directory.join("boot.efi"), signed).unwrap();
    change(directory);
    let changed = fs::read(directory.join("new.efi")).unwrap();
    for esp in esps {
        must(esp.put(BOOTLOADER, &changed));
    }
}

/// The firmware says that it refused, and nothing of ours ever ran.
fn refused_by_firmware(appliance: &mut Appliance) {
    // EDK2's words for EFI_ACCESS_DENIED and EFI_SECURITY_VIOLATION.
    must(appliance.console_contains_any(&["Access Denied", "Security Violation"], BOOT));
    std::thread::sleep(Duration::from_secs(5));
    let console = appliance.console();
    assert!(!console.contains("belvedere:"), "our bootloader ran:\n{console}");
    assert_eq!(appliance.lights().of(Light::Status), Pattern::Off);
}

#[test]
fn the_signed_chain_starts_the_kernel() {
    let scratch = scratch();
    let mut appliance = must(appliance(&image(), scratch.path()).start());
    must(appliance.console_contains(STARTING, BOOT));
    must(appliance.console_contains(VERIFIED, BOOT));
    must(appliance.console_contains("Exiting boot services", BOOT));
    // Whoever gets root may not change the running kernel either.
    must(appliance.console_contains("belvedere: kernel lockdown: integrity", BOOT));
    let console = appliance.console();
    assert!(!console.contains("Secure Boot is off"), "{console}");
}

/// boot D1: a kernel with a signature of its own lay inside every release, and whoever cut it out could start it with a
/// command line of his.
#[test]
fn a_kernel_cut_out_of_a_unified_image_is_refused() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let unified = must(must(Fat::in_partition(&image.join("disk.img"), "esp-a")).read(KERNEL)).expect("slot a's kernel");
    let kernel = Image::parse(&unified).unwrap().file_section(LINUX).unwrap().to_vec();
    with_bootloader(&image, scratch.path(), |directory| fs::write(directory.join("new.efi"), kernel).unwrap());
    let mut appliance = must(appliance(&image, scratch.path()).start());
    refused_by_firmware(&mut appliance);
    let console = appliance.console();
    assert!(!console.contains("EFI stub") && !console.contains("Linux version"), "the kernel ran:\n{console}");
}

/// boot D1: what the firmware's own boot entries can start is our line and no other.
#[test]
fn a_boot_entry_with_foreign_load_options_starts_the_signed_command_line_and_no_other() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let options = "root=/dev/vda7 rw init=/foreign console=none belvedere.root_hash=00 belvedere.version=9.9.9";
    start_instead(&image, &image.join("firmware-variables.fd"), "\\EFI\\belvedere\\slot-a.efi", options);
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: root image accepted from system-a", BOOT));
    let console = appliance.console();
    assert!(!console.contains(STARTING), "the bootloader ran, and not the entry:\n{console}");
    assert!(!console.contains("9.9.9") && !console.contains("given twice"), "the options arrived:\n{console}");
}

/// The firmware had to be left to itself to find the second one: it started all its drivers first, and one of them could wait
/// for another for ever.
#[test]
fn a_bootloader_that_is_refused_on_one_esp_gives_way_to_the_one_on_the_other_and_to_no_search() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let esp = must(Fat::in_partition(&image.join("disk.img"), "esp-a"));
    let mut bootloader = must(esp.read(BOOTLOADER)).expect("esp-a has a bootloader");
    let place = bootloader.len() / 2;
    bootloader[place] ^= 1;
    must(esp.put(BOOTLOADER, &bootloader));
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains(STARTING, BOOT));
    let console = appliance.console();
    for said in ["failed to load Boot0000 \"Belvedere (esp-a)\"", "starting Boot0001 \"Belvedere (esp-b)\""] {
        assert!(console.contains(said), "{said} is not on the console:\n{console}");
    }
    // It searches when nothing is left that it was told to start.
    assert_eq!(console.matches("BdsDxe: failed to load").count(), 1, "{console}");
}

#[test]
fn an_unsigned_bootloader_is_refused() {
    let scratch = scratch();
    let image = copy(scratch.path());
    with_bootloader(&image, scratch.path(), |directory| {
        fs::copy(directory.join("boot.efi"), directory.join("new.efi")).unwrap();
        tool("sbattach", &["--remove", "new.efi"], directory);
    });
    refused_by_firmware(&mut must(appliance(&image, scratch.path()).start()));
}

#[test]
fn a_bootloader_signed_by_a_stranger_is_refused() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let stranger = create(scratch.path().join("stranger"), Validity::default()).unwrap();
    let (key, certificate) = (stranger.uefi_key(UefiKey::Db), stranger.uefi_certificate(UefiKey::Db));
    with_bootloader(&image, scratch.path(), |directory| {
        tool("sbattach", &["--remove", "boot.efi"], directory);
        let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
        tool("sbsign", &["--key", key, "--cert", certificate, "--output", "new.efi", "boot.efi"], directory);
    });
    refused_by_firmware(&mut must(appliance(&image, scratch.path()).start()));
}

#[test]
fn a_kernel_image_with_one_byte_changed_is_refused_and_lights_and_console_say_so() {
    let scratch = scratch();
    let image = copy(scratch.path());
    for name in ["esp-a", "esp-b"] {
        let esp = must(Fat::in_partition(&image.join("disk.img"), name));
        let mut kernel = must(esp.read(KERNEL)).expect("each ESP has slot a's kernel");
        let place = kernel.len() / 2;
        kernel[place] ^= 1;
        must(esp.put(KERNEL, &kernel));
    }

    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: slot a: refused by Secure Boot: ", BOOT));
    must(appliance.console_contains("belvedere: no slot can be started; trying again in", BOOT));
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
    let console = appliance.console();
    assert!(!console.contains(STARTING) && !console.contains("EFI stub"), "the kernel ran:\n{console}");
}

/// boot D18: each kernel was on one ESP only.
#[test]
fn a_changed_kernel_image_on_one_esp_gives_way_to_the_whole_one_on_the_other() {
    let scratch = scratch();
    let image = copy(scratch.path());
    let esp = must(Fat::in_partition(&image.join("disk.img"), "esp-a"));
    let mut kernel = must(esp.read(KERNEL)).expect("the image has slot a's kernel on esp-a");
    let place = kernel.len() / 2;
    kernel[place] ^= 1;
    must(esp.put(KERNEL, &kernel));
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: slot a: starting \\EFI\\belvedere\\slot-a.efi on esp-b", BOOT));
    must(appliance.console_contains("belvedere: root image accepted from system-a", BOOT));
}

#[test]
fn a_root_image_with_one_block_changed_is_refused_and_lights_and_console_say_so() {
    let scratch = scratch();
    let image = image();
    let system = must(disk::partition(&image.join("disk.img"), "system-a"));
    let appliance = must(appliance(&image, scratch.path()).prepare());
    // In the file system's first block, which is read whenever it is mounted.
    must(disk::invert_byte(&appliance.disk(), system.offset + FACTORY_OFFSET + 1024 + 16));

    let mut appliance = appliance;
    must(appliance.power_on());
    must(appliance.console_contains("root image refused", BOOT));
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
}

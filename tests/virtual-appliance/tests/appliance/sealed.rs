//! What lies on the disk is encrypted with keys of this appliance alone, which its TPM gives out to the signed start and to
//! nothing else.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance sealed::

use std::fs;
use std::path::Path;
use std::process::Command;

use belvedere_image::cache::{self, Cache};
use belvedere_image::progress::Progress;
use belvedere_image::{board, firmware_variables, python};
use belvedere_keys::{UefiKey, Validity, create};
use belvedere_luks2::DATA_OFFSET;
use belvedere_luks2::record::FACTORY_OFFSET;
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Gesture, Light, Pattern, variables};

use crate::common::{
    BOOT, CLOSED, FAST_RED, OPERATING, appliance, copy, image, must, scratch, started_once, started_once_above,
};

fn extent(image: &Path, partition: &str) -> Extent {
    must(disk::partition(&image.join("disk.img"), partition))
}

/// The first 64 KiB of a partition's encrypted part.
fn ciphertext(appliance: &Appliance, image: &Path, partition: &str) -> Vec<u8> {
    let partition = extent(image, partition);
    must(disk::read(&appliance.disk(), Extent { offset: partition.offset + DATA_OFFSET, length: 64 << 10 }))
}

/// Runs `cryptsetup` on the start of a partition and gives what it says.
fn cryptsetup(appliance: &Appliance, image: &Path, partition: &str, directory: &Path) -> String {
    let header = directory.join(format!("{partition}.header"));
    let partition = extent(image, partition);
    let start = Extent { offset: partition.offset, length: DATA_OFFSET };
    fs::write(&header, must(disk::read(&appliance.disk(), start))).unwrap();
    let output = Command::new("/usr/sbin/cryptsetup").arg("luksDump").arg(&header).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// tiiuae/ghaf#2200: every appliance flashed with one image had the same volume key.
#[test]
fn two_appliances_of_one_image_are_encrypted_with_different_keys_and_nothing_plain_is_left() {
    let scratch = scratch();
    let image = image();
    let root = fs::read(image.join("root.erofs")).unwrap();
    let mut seen = Vec::new();
    for name in ["one", "other"] {
        let directory = scratch.path().join(name);
        fs::create_dir(&directory).unwrap();
        let appliance = if name == "one" {
            started_once(&directory);
            must(appliance(&image, &directory).prepare())
        } else {
            let mut appliance = must(appliance(&image, &directory).start());
            must(appliance.console_contains(OPERATING, BOOT));
            must(appliance.power_cut());
            appliance
        };
        for partition in ["system-a", "data"] {
            let dump = cryptsetup(&appliance, &image, partition, &directory);
            assert!(dump.contains("Version:") && dump.contains("aes-xts-plain64") && dump.contains("512 bits"), "{dump}");
        }
        // From the header to the end of where the plain image was.
        let system = extent(&image, "system-a");
        let length = (FACTORY_OFFSET + root.len() as u64).next_multiple_of(1 << 20);
        let whole = must(disk::read(&appliance.disk(), Extent { offset: system.offset, length }));
        // Text of programs and names of files of the plain image, and blocks of it, sampled.
        let plain: Vec<&[u8]> = root.chunks(4096).step_by(37).filter(|block| block.iter().any(|&byte| byte != 0)).collect();
        assert!(plain.len() > 50);
        let blocks: std::collections::HashSet<&[u8]> = whole.chunks(4096).collect();
        assert_eq!(plain.iter().filter(|block| blocks.contains(*block)).count(), 0, "plain blocks are on the disk");
        assert!(!whole.windows(15).any(|window| window == b"belvedere-init\0" || window == b"front-panel\0\0\0\0"));
        seen.push(ciphertext(&appliance, &image, "system-a"));
    }
    assert!(seen[0] != seen[1], "the same image is the same on both disks");
}

#[test]
fn with_another_tpm_the_volumes_stay_closed_and_with_their_own_they_open_again() {
    let scratch = scratch();
    let image = image();
    started_once(scratch.path());
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    let before = ciphertext(&appliance, &image, "data");

    let (own, kept) = (scratch.path().join("state/tpm"), scratch.path().join("kept"));
    fs::rename(&own, &kept).unwrap();
    fs::create_dir(&own).unwrap();
    must(appliance.power_on());
    must(appliance.console_contains(CLOSED, BOOT));
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
    must(appliance.power_cut());
    assert!(ciphertext(&appliance, &image, "data") == before, "the volume was written to");

    fs::remove_dir_all(&own).unwrap();
    fs::rename(&kept, &own).unwrap();
    must(appliance.power_on());
    must(appliance.console_contains(OPERATING, BOOT));
}

/// A known class of attack: a volume that needs no key, in the place of one that does.
#[test]
fn a_plain_data_volume_in_the_place_of_ours_is_refused_and_left_as_it_is() {
    let scratch = scratch();
    let image = image();
    started_once(scratch.path());
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    let foreign = scratch.path().join("foreign");
    fs::File::create(&foreign).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("/usr/sbin/mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&foreign).status().unwrap();
    assert!(made.success());
    let bytes = fs::read(&foreign).unwrap();
    let start = extent(&image, "data").offset;
    must(disk::write(&appliance.disk(), start, &bytes[..4 << 20]));
    must(appliance.power_on());
    must(appliance.console_contains(CLOSED, BOOT));
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
    must(appliance.power_cut());
    let after = must(disk::read(&appliance.disk(), Extent { offset: start, length: 4 << 20 }));
    assert!(after == bytes[..4 << 20], "the foreign volume was written to");
}

/// Somebody enrols keys of his own in the firmware and signs our very programs with them: everything starts, and the TPM sees
/// the difference.
#[test]
fn with_other_secure_boot_keys_the_volumes_stay_closed() {
    let scratch = scratch();
    let image = copy(scratch.path());
    started_once_above(&image, scratch.path());

    let stranger = create(scratch.path().join("stranger"), Validity::default()).unwrap();
    let files = [("EFI/BOOT/BOOTAA64.EFI", "boot.efi"), ("EFI/belvedere/slot-a.efi", "slot.efi")];
    let disk = image.join("disk.img");
    for (path, name) in files {
        let esp = must(Fat::in_partition(&disk, "esp-a"));
        let file = scratch.path().join(name);
        fs::write(&file, must(esp.read(path)).unwrap()).unwrap();
        let (key, certificate) = (stranger.uefi_key(UefiKey::Db), stranger.uefi_certificate(UefiKey::Db));
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new("sbattach").arg("--remove").arg(&file));
        run(Command::new("sbsign")
            .arg("--key")
            .arg(&key)
            .arg("--cert")
            .arg(&certificate)
            .arg("--output")
            .arg(&file)
            .arg(&file));
        must(esp.put(path, &fs::read(&file).unwrap()));
    }
    let bootloader = fs::read(scratch.path().join("boot.efi")).unwrap();
    must(must(Fat::in_partition(&disk, "esp-b")).put("EFI/BOOT/BOOTAA64.EFI", &bootloader));
    let variables = scratch.path().join("state/variables.fd");
    let cache = Cache::open(&cache::default_directory()).unwrap();
    let tools = python::tools(&cache, &mut Progress::new()).unwrap();
    firmware_variables::make(&tools, &stranger, board::find("qemu-aarch64").unwrap(), &variables).unwrap();
    let mut appliance = must(appliance(&image, scratch.path()).start());
    must(appliance.console_contains("belvedere: slot a: starting", BOOT));
    must(appliance.console_contains(CLOSED, BOOT));
    let console = appliance.console();
    assert!(console.contains("PCR 7 differs"), "{console}");
    // Event by event, and which one is the reason.
    assert!(console.contains("measured: the reason is PK in register 7"), "{console}");
    let row = |register: u32, name: &str, verdict: &str| {
        let row = format!("measured: register {register:2}  {name} ");
        let mut verdicts = console.lines().filter_map(|line| line.split_once(&row).map(|(_, rest)| rest.trim_start()));
        verdicts.next().is_some_and(|found| found.starts_with(verdict)) && verdicts.next().is_none()
    };
    assert!(row(7, "SecureBoot", "same ") && row(7, "db", "DIFFERENT "), "{console}");
    assert!(row(11, ".linux", "same ") && row(11, ".initrd", "same "), "{console}");
}

/// The guide: a full reset deletes everything. What is on the disk afterwards is looked at from outside: nothing of the old
/// volume opens, also not with a copy of its header that somebody kept.
#[test]
fn after_a_full_reset_the_old_data_opens_with_nothing_not_even_with_a_kept_header() {
    let scratch = scratch();
    let image = image();
    started_once(scratch.path());
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    let data = extent(&image, "data");
    let header = Extent { offset: data.offset, length: DATA_OFFSET };
    let (kept, before) = (must(disk::read(&appliance.disk(), header)), ciphertext(&appliance, &image, "data"));

    must(appliance.power_on_holding(Some(Gesture::LongPressPowerAndReset)));
    must(appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Orange), BOOT));
    must(appliance.console_contains("belvedere: TPM: the data secret is a new one", BOOT));
    must(appliance.console_contains("belvedere: the reset is done, slot a operates", BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Slow(Colour::Green), BOOT));
    must(appliance.power_cut());
    let after = must(disk::read(&appliance.disk(), header));
    let same = kept
        .chunks(4096)
        .zip(after.chunks(4096))
        .filter(|(kept, after)| kept == after && kept.iter().any(|&byte| byte != 0));
    assert_eq!(same.count(), 0, "blocks of the old header and its key slots are still there");
    assert!(ciphertext(&appliance, &image, "data") != before);

    // The thief kept a copy of the old header, and puts it back.
    must(disk::write(&appliance.disk(), data.offset, &kept));
    must(appliance.power_on());
    must(appliance.console_contains(CLOSED, BOOT));
    must(appliance.console_contains("no key slot opens with this appliance's key", BOOT));
}

/// Trust item 3: with Secure Boot off a production image does not start.
#[test]
fn with_secure_boot_off_the_volumes_stay_closed() {
    let scratch = scratch();
    let image = image();
    started_once(scratch.path());
    let mut appliance = must(appliance(&image, scratch.path()).prepare());
    // What a visitor can do in the firmware's set-up menu.
    let off = "SecureBootEnable";
    must(variables::set_byte(&scratch.path().join("state/variables.fd"), off, 0));
    must(appliance.power_on());
    must(appliance.console_contains("belvedere: Secure Boot is off", BOOT));
    must(appliance.console_contains(CLOSED, BOOT));
    must(appliance.console_contains("measured: the reason is SecureBoot in register 7", BOOT));
    must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
}

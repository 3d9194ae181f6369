//! The three resets of the guide, by the buttons, on an appliance that is provisioned and runs an application; and what lies on
//! the disk after the last of them, seen from outside.
//!
//! Minutes of emulation, so `scripts/test --long` alone runs it (`slots` and `sealed` of the virtual appliance's tests have the
//! full reset of an appliance that was not provisioned); by hand:
//! `BELVEDERE_IMAGE=$PWD/build/appliance scripts/cargo test -p belvedere-end-to-end --test appliance resets:: -- --ignored --nocapture`

use belvedere_end_to_end::progress::Progress;
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble, picture};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Colour, Gesture, Light, Pattern};
use rustix::fs::SeekFrom;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const DEVICE: &str = "reset";
/// The same appliance once more: "Resetting an appliance does not delete it from the AWS Panorama service", so its old name is taken.
const AGAIN: &str = "reset-again";
const MINUTE: Duration = Duration::from_secs(60);
/// "The shutdown sequence takes about 10 seconds" (guide, "Power and reset buttons").
const SHUTDOWN: Duration = Duration::from_secs(10);

fn seen(doing: &str) -> impl Fn(belvedere_virtual_appliance::Error) -> Trouble + '_ {
    move |error| Trouble::new(doing, error)
}

/// Power off by the button, and on again while others are held. The status light tells of the reset.
fn reset(scene: &mut Scene, gesture: Gesture, light: Pattern) -> Result<(), Trouble> {
    let appliance = scene.appliance()?;
    let begun = Instant::now();
    appliance.press_power_button().map_err(seen("pressing the power button"))?;
    appliance.wait_for_power_off(MINUTE).map_err(seen("switching off"))?;
    println!("measured: power button to off {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() <= SHUTDOWN, "switching off took {:?}", begun.elapsed());
    appliance.power_on_holding(Some(gesture)).map_err(seen("switching on with buttons held"))?;
    appliance.wait_for_light(Light::Status, light, 2 * MINUTE).map_err(seen("restoring"))
}

/// The appliance's disk as one sparse file.
fn raw(scene: &Scene, disk: &Path) -> Result<File, Trouble> {
    let path = scene.file("disk.raw");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(disk).arg(&path);
    let converted = convert.status().map_err(|error| Trouble::new("running qemu-img", error))?;
    assert!(converted.success());
    let file = File::open(&path).map_err(|error| Trouble::new("opening the converted disk", error))?;
    // Nobody needs its name any more.
    let _ = std::fs::remove_file(&path);
    Ok(file)
}

/// The blocks of 4 KiB within an extent that are not zero, and where they are.
fn written(file: &File, extent: Extent) -> Result<Vec<(u64, Vec<u8>)>, Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::new("reading the converted disk", error);
    let (mut blocks, mut place, end) = (Vec::new(), extent.offset, extent.offset + extent.length);
    // From one piece that the sparse file holds to the next.
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(place))
        && start < end
    {
        let stop = rustix::fs::seek(file, SeekFrom::Hole(start)).map_err(|error| failed(&error))?.min(end);
        let start = start / 4096 * 4096;
        let mut bytes = vec![0; usize::try_from(stop - start).unwrap_or_default()];
        file.read_exact_at(&mut bytes, start).map_err(|error| failed(&error))?;
        let filled = bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|&byte| byte != 0));
        blocks.extend(filled.map(|(number, block)| (start - extent.offset + number as u64 * 4096, block.to_vec())));
        place = stop;
    }
    Ok(blocks)
}

/// Whether the bytes are among others; the first one is looked for fast.
fn memmem(block: &[u8], wanted: &[u8]) -> bool {
    let mut rest = block;
    while let Some(at) = rest.iter().position(|byte| Some(byte) == wanted.first()) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Bits of entropy of a byte: 8 for random ones.
fn entropy(blocks: &[(u64, Vec<u8>)]) -> f64 {
    let mut counts = [0u64; 256];
    for &byte in blocks.iter().flat_map(|(_, block)| block) {
        counts[usize::from(byte)] += 1;
    }
    let all = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / all).map(|share| -share * share.log2()).sum()
}

/// What `cryptsetup luksDump` says of the start of a partition.
fn luks_dump(scene: &Scene, disk: &Path, extent: Extent) -> Result<String, Trouble> {
    let header: PathBuf = scene.file("data.header");
    let bytes = disk::read(disk, Extent { offset: extent.offset, length: 16 << 20 }).map_err(seen("reading the disk"))?;
    std::fs::write(&header, bytes).map_err(|error| Trouble::new("writing the header", error))?;
    let output = Command::new("/usr/sbin/cryptsetup").arg("luksDump").arg(&header).output();
    let output = output.map_err(|error| Trouble::new("running cryptsetup", error))?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn field<'a>(dump: &'a str, name: &str) -> &'a str {
    dump.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default().trim()
}

fn live() -> Result<(), Trouble> {
    let mut progress = Progress::new();
    progress.stage("an appliance is provisioned and runs the sample");
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = top.join("build/end-to-end/resets");
    let _ = std::fs::remove_dir_all(&state);
    let configuration = SceneConfiguration::of_work_tree(&top, &state)?;
    let image = configuration.image.clone();
    let mut scene = Scene::open(configuration)?;
    scene.power_on()?;
    scene.start_camera()?;
    let stick = scene.make_stick(DEVICE)?;
    scene.appliance()?.plug_stick(&stick).map_err(seen("plugging in the stick"))?;
    let device = scene.wait_online(DEVICE, 5 * MINUTE)?;
    let device_id = device["DeviceId"].as_str().unwrap_or_default().to_owned();
    scene.appliance()?.unplug_stick().map_err(seen("pulling the stick out"))?;
    let project = scene.package_sample()?;
    scene.register_camera()?;
    let instance = scene.deploy(&project, &device_id)?;
    scene.wait_running(&instance, 10 * MINUTE, |_| ())?;
    let png = scene.file("monitor.png");
    picture::wait_right(&mut scene, &png, 5 * MINUTE)?;

    for (gesture, light, what) in [
        (Gesture::ShortPressReset, Pattern::Slow(Colour::Orange), "reset, 1 s: the latest software"),
        (Gesture::LongPressReset, Pattern::Fast(Colour::Orange), "reset, 5 s: the minimum software"),
    ] {
        progress.stage(&format!("{what}; applications and owner stay"));
        reset(&mut scene, gesture, light)?;
        let green = Pattern::Solid(Colour::Green);
        scene.appliance()?.wait_for_light(Light::Status, green, 5 * MINUTE).map_err(seen("operating again"))?;
        let verdict = picture::wait_right(&mut scene, &png, 5 * MINUTE)?;
        progress.note(&format!("measured: {verdict}"));
        scene.wait_online(DEVICE, 3 * MINUTE)?;
    }

    progress.stage("power and reset, 5 s: everything that was stored is deleted, and the light is ready for a stick");
    let data = disk::partition(&image.join("disk.img"), "data").map_err(seen("finding the data partition"))?;
    let path = scene.appliance()?.disk();
    reset(&mut scene, Gesture::LongPressPowerAndReset, Pattern::Fast(Colour::Orange))?;
    scene
        .appliance()?
        .wait_for_light(Light::Status, Pattern::Slow(Colour::Green), 5 * MINUTE)
        .map_err(seen("becoming ready for a stick"))?;
    let console = scene.appliance()?.console();
    assert!(console.contains("full reset: everything that was stored is destroyed"), "{}", scene.console_tail(60));
    assert!(console.contains("not provisioned: plug in a stick"), "{}", scene.console_tail(60));

    progress.stage("what is left on the disk, from outside");
    // What the application stored is not overwritten, but the key to it is gone: nothing of it can be told from noise.
    scene.appliance()?.power_cut().map_err(seen("pulling the power"))?;
    let dump = luks_dump(&scene, &path, data)?;
    let whole = written(&raw(&scene, &path)?, data)?;
    let encrypted: Vec<_> = whole.into_iter().filter(|(offset, _)| *offset >= 16 << 20).collect();
    let entropy = entropy(&encrypted);
    progress.note(&format!(
        "measured: {} MiB of the data partition are written, {entropy:.4} bits of entropy in a byte; {} key slots; UUID {}",
        encrypted.len() / 256,
        dump.matches(": luks2").count(),
        field(&dump, "UUID:")
    ));
    assert!(encrypted.len() > 40 * 256, "the application was stored: {} blocks", encrypted.len());
    assert!(entropy > 7.999, "{entropy}");
    let blocks: HashSet<&[u8]> = encrypted.iter().map(|(_, block)| block.as_slice()).collect();
    assert_eq!(blocks.len(), encrypted.len(), "two blocks are alike");
    for word in [device_id.as_str(), instance.as_str(), "-----BEGIN", "panoramasdk", "TEXT_FINDER"] {
        let found = encrypted.iter().any(|(_, block)| memmem(block, word.as_bytes()));
        assert!(!found, "{word} can be read on the disk");
    }

    progress.stage("the service knows the device still; it is provisioned again, under another name");
    scene.appliance()?.power_on().map_err(seen("switching on"))?;
    let again = scene.make_stick(AGAIN)?;
    scene.appliance()?.plug_stick(&again).map_err(seen("plugging in a new stick"))?;
    scene.appliance()?.console_contains("(provisioned)", 5 * MINUTE).map_err(seen("provisioning again"))?;
    scene.wait_online(AGAIN, 5 * MINUTE)?;
    assert_eq!(scene.describe_device(DEVICE)?["DeviceId"], *device_id, "a reset does not delete it from the service");
    let green = Pattern::Solid(Colour::Green);
    scene.appliance()?.wait_for_light(Light::Status, green, 2 * MINUTE).map_err(seen("operating again"))?;
    println!("{}", progress.summary());
    Ok(())
}

#[test]
#[ignore = "minutes of emulation: scripts/test --long runs it"]
fn the_three_resets_of_a_provisioned_appliance() {
    if let Err(trouble) = live() {
        panic!("{trouble}");
    }
}

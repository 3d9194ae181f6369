//! The board with OP-TEE and without a TPM, as its operator sees it: provisioned by a stick, again online after a power cut, and
//! new after a full reset. Its device key is made in OP-TEE, and each connection to the service is a signature there.
//!
//! Minutes of emulation, and the firmware is built the first time, so `scripts/test --long` alone runs it; by hand:
//! `BELVEDERE_IMAGE=$PWD/build/appliance scripts/cargo test -p belvedere-end-to-end --test appliance op_tee:: -- --ignored --nocapture`

use belvedere_end_to_end::progress::Progress;
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble};
use belvedere_virtual_appliance::{Colour, Gesture, Light, Pattern};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DEVICE: &str = "op-tee";
const AGAIN: &str = "op-tee-again";
const MINUTE: Duration = Duration::from_secs(60);

fn seen(doing: &str) -> impl Fn(belvedere_virtual_appliance::Error) -> Trouble + '_ {
    move |error| Trouble::new(doing, error)
}

/// The board's firmware; built unless `BELVEDERE_SECURE_WORLD` says where it is.
fn firmware(top: &Path) -> PathBuf {
    if let Some(directory) = std::env::var_os("BELVEDERE_SECURE_WORLD") {
        return directory.into();
    }
    let built = Command::new(top.join("firmware/secure-world/build")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success());
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
}

/// A stick in, and out again once the service hears of the appliance.
fn provision(scene: &mut Scene, device: &str) -> Result<(), Trouble> {
    let stick = scene.make_stick(device)?;
    scene.appliance()?.plug_stick(&stick).map_err(seen("plugging in the stick"))?;
    scene.wait_online(device, 5 * MINUTE)?;
    scene.appliance()?.unplug_stick().map_err(seen("pulling the stick out"))
}

fn live() -> Result<(), Trouble> {
    let mut progress = Progress::new();
    progress.stage("an appliance without a TPM is provisioned; its key is OP-TEE's");
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = top.join("build/end-to-end/op-tee");
    let _ = std::fs::remove_dir_all(&state);
    let configuration = SceneConfiguration::of_work_tree(&top, &state)?;
    let mut scene = Scene::open(SceneConfiguration { op_tee: Some(firmware(&top)), ..configuration })?;
    scene.power_on()?;
    provision(&mut scene, DEVICE)?;
    let console = scene.appliance()?.console();
    assert!(console.contains("OP-TEE: secrets given out") && !console.contains("TPM: "), "{}", scene.console_tail(80));
    assert!(!console.contains("the device's private key is made in software"), "{}", scene.console_tail(80));

    progress.stage("the power is cut; it comes back and signs with the same key");
    scene.appliance()?.power_cut().map_err(seen("pulling the power"))?;
    scene.power_on()?;
    let green = Pattern::Solid(Colour::Green);
    scene.appliance()?.wait_for_light(Light::Status, green, 5 * MINUTE).map_err(seen("operating again"))?;
    // Without a signature of that key there is no connection.
    scene.appliance()?.console_contains("connected", 3 * MINUTE).map_err(seen("reaching the service"))?;
    scene.wait_online(DEVICE, 3 * MINUTE)?;

    progress.stage("a full reset: new secrets, ready for a stick, and another identity");
    scene.appliance()?.press_power_button().map_err(seen("pressing the power button"))?;
    scene.appliance()?.wait_for_power_off(MINUTE).map_err(seen("switching off"))?;
    let held = Some(Gesture::LongPressPowerAndReset);
    scene.appliance()?.power_on_holding(held).map_err(seen("switching on with buttons held"))?;
    let ready = Pattern::Slow(Colour::Green);
    scene.appliance()?.wait_for_light(Light::Status, ready, 5 * MINUTE).map_err(seen("becoming ready for a stick"))?;
    let console = scene.appliance()?.console();
    for said in ["OP-TEE: writing a new data secret", "not provisioned: plug in a stick"] {
        assert!(console.contains(said), "{said:?}: {}", scene.console_tail(80));
    }
    provision(&mut scene, AGAIN)?;
    println!("measured: provisioned twice, one power cut, one full reset, with OP-TEE alone");
    Ok(())
}

#[test]
#[ignore = "minutes of emulation: scripts/test --long"]
fn an_appliance_without_a_tpm_is_provisioned_and_reset_with_op_tee() {
    if let Err(trouble) = live() {
        panic!("{trouble}");
    }
}

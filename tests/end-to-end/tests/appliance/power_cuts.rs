//! Someone pulls the power at any moment between power-on and provisioned.
//!
//! It always comes back, and provisioning either holds or can be repeated. `BELVEDERE_POWER_CUTS` says how often
//! (scripts/test: 4, with --long 20); the moments are drawn from a seed that is printed, and `BELVEDERE_SEED` repeats.

use crate::chance::{Chance, number};
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble};
use belvedere_virtual_appliance::{Appliance, Colour, Light, Pattern};
use std::path::Path;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn new_appliance(scene: &mut Scene, image: &Path, stick: &Path) -> Result<(), Trouble> {
    // The one before is switched off before its directory is emptied.
    scene.appliance = None;
    let appliance = Appliance::builder(image)
        .state_dir(scene.file("appliance"))
        .fresh()
        .stick(stick)
        .start()
        .map_err(|error| Trouble::new("switching a new appliance on", error))?;
    scene.appliance = Some(appliance);
    Ok(())
}

fn forget(scene: &Scene, device: &str) -> Result<(), Trouble> {
    let described = scene.describe_device(device)?;
    if let Some(id) = described["DeviceId"].as_str() {
        scene.tools.aws(&["panorama", "delete-device", "--device-id", id])?;
    }
    Ok(())
}

fn run() -> Result<(), Trouble> {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = top.join("build/end-to-end/power-cuts");
    let _ = std::fs::remove_dir_all(&state);
    let configuration = SceneConfiguration::of_work_tree(&top, &state)?;
    let image = configuration.image.clone();
    let mut scene = Scene::open(configuration)?;

    // How long an undisturbed start takes here and now.
    let stick = scene.make_stick("cut")?;
    let began = Instant::now();
    new_appliance(&mut scene, &image, &stick)?;
    scene.wait_online("cut", 5 * MINUTE)?;
    let whole = began.elapsed();
    println!("undisturbed: from power-on to provisioned in {:.1} s", whole.as_secs_f64());

    let mut chance = Chance::begin();
    let (mut held, mut repeated) = (0, 0);
    let count = number("BELVEDERE_POWER_CUTS", 4);
    for cut in 1..=count {
        forget(&scene, "cut")?;
        let stick = scene.make_stick("cut")?;
        new_appliance(&mut scene, &image, &stick)?;
        let moment = whole.mul_f64(chance.fraction() * 1.1);
        std::thread::sleep(moment);
        let before = scene.console_tail(3);
        let appliance = scene.appliance()?;
        appliance.power_cut().map_err(|error| Trouble::new("pulling the power", error))?;
        // The stick stays where it is, as it would.
        appliance.power_on().map_err(|error| Trouble::new("switching it on again", error))?;
        let outcome = |scene: &mut Scene| scene.wait_online("cut", 2 * MINUTE);
        let text = if outcome(&mut scene).is_ok() {
            held += 1;
            "holds"
        } else {
            // The claim was used up in the moment before the cut: the operator provisions again.
            forget(&scene, "cut")?;
            let again = scene.stick_again("cut")?;
            let appliance = scene.appliance()?;
            appliance.unplug_stick().map_err(|error| Trouble::new("pulling the stick out", error))?;
            appliance.plug_stick(&again).map_err(|error| Trouble::new("plugging in a new stick", error))?;
            scene.wait_online("cut", 3 * MINUTE).map_err(|trouble| {
                Trouble::new(format!("cut {cut} of {count} at {:.1} s", moment.as_secs_f64()), trouble)
            })?;
            repeated += 1;
            "was repeated"
        };
        scene
            .appliance()?
            .wait_for_light(Light::Status, Pattern::Solid(Colour::Green), 2 * MINUTE)
            .map_err(|error| Trouble::new("waiting for the green light", error))?;
        println!(
            "cut {cut} of {count} at {:.1} s: it came back, provisioning {text}; the console before:\n{before}",
            moment.as_secs_f64()
        );
    }
    println!(
        "measured: {count} power cuts, {held} after which provisioning held by itself, {repeated} after which it was repeated"
    );
    Ok(())
}

#[test]
fn power_cut_at_any_moment_of_provisioning_is_survived() {
    if let Err(trouble) = run() {
        panic!("{trouble}");
    }
}

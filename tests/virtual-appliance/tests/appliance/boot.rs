//! From power to green light, and back.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance boot::

use std::time::{Duration, Instant};

use belvedere_virtual_appliance::{Colour, Light, Pattern};

use crate::common::{BOOT, appliance, image, must, scratch};

const GREEN: Pattern = Pattern::Solid(Colour::Green);

#[test]
fn it_starts_survives_a_power_cut_and_shuts_down_at_the_press_of_a_button() {
    let scratch = scratch();
    let mut appliance = must(appliance(&image(), scratch.path()).start());
    let begun = Instant::now();
    must(appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Green), BOOT));
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
    println!("measured: power to solid green light {:.1} s", begun.elapsed().as_secs_f32());
    let picture = scratch.path().join("monitor.png");
    must(appliance.screenshot(&picture));
    assert_eq!(&std::fs::read(&picture).unwrap()[1..4], b"PNG");

    must(appliance.power_cut());
    must(appliance.power_on());
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));

    let begun = Instant::now();
    must(appliance.press_power_button());
    must(appliance.wait_for_power_off(Duration::from_secs(60)));
    println!("measured: power button to off {:.1} s", begun.elapsed().as_secs_f32());
}

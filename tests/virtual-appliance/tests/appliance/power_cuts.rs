//! Somebody pulls the power at any moment of a first start, in which the TPM is taken into use, the system is encrypted in place
//! and `data` is made, and of the starts after it. It always comes back by itself.
//!
//! `BELVEDERE_START_CUTS` says how often (4, beside those of the whole line; with BELVEDERE_LONG 200); the moments are drawn from a seed that is printed, and
//! `BELVEDERE_SEED` repeats.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance power_cuts:: -- --nocapture

use std::time::{Duration, Instant};

use belvedere_virtual_appliance::{Appliance, Light};

use crate::common::{BOOT, Draw, GREEN, OPERATING, appliance, image, must, number, scratch, two_at_a_time};

/// How many cuts one appliance suffers before there is a new one: the first of them in its first start.
const CUTS_OF_ONE: u64 = 4;

/// Waits until it operates, shows it, and was told nothing that should not be.
fn comes_back(appliance: &mut Appliance) {
    must(appliance.console_contains(OPERATING, BOOT));
    must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
}

#[test]
fn power_cut_at_any_moment_of_a_first_start_and_of_later_ones_is_survived() {
    let count = number("BELVEDERE_START_CUTS", if std::env::var_os("BELVEDERE_LONG").is_some() { 200 } else { 4 });
    let mut draw = Draw::begin();
    let image = image();

    // How long an undisturbed first start takes here and now, and a later one.
    let directory = scratch();
    let mut first = must(appliance(&image, directory.path()).prepare());
    let mut timed = || {
        let begun = Instant::now();
        must(first.power_on());
        comes_back(&mut first);
        let whole = begun.elapsed();
        must(first.power_cut());
        whole
    };
    let times = [timed(), timed()];
    println!("undisturbed: first start {:.1} s, later {:.1} s", times[0].as_secs_f64(), times[1].as_secs_f64());

    // What one appliance suffers: when its power is cut in its first start, and in the later ones.
    let mut lives = Vec::new();
    for begin in (0..count).step_by(CUTS_OF_ONE as usize) {
        let cuts = (begin..count.min(begin + CUTS_OF_ONE)).map(|cut| {
            let whole = times[usize::from(cut != begin)];
            (cut + 1, whole.mul_f64(draw.fraction() * 1.05).max(Duration::from_millis(50)))
        });
        lives.push(cuts.collect::<Vec<_>>());
    }
    two_at_a_time(lives, |cuts| {
        let directory = scratch();
        let mut appliance = must(appliance(&image, directory.path()).prepare());
        for (cut, moment) in cuts {
            must(appliance.power_on());
            std::thread::sleep(moment);
            let console = appliance.console();
            let before = console.lines().last().unwrap_or("nothing yet").to_owned();
            must(appliance.power_cut());
            println!("cut {cut} of {count} at {:.2} s: {before}", moment.as_secs_f64());
            must(appliance.power_on());
            comes_back(&mut appliance);
            must(appliance.power_cut());
        }
    });
    println!("measured: {count} power cuts of starts, after each it came back by itself");
}

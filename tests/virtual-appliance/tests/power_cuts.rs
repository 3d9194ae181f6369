//! Somebody pulls the power at any moment of a first start, in which the TPM is taken into use, the system is encrypted in place
//! and `data` is made, and of the starts after it. It always comes back by itself.
//!
//! `BELVEDERE_START_CUTS` says how often (4, beside those of the whole line; with BELVEDERE_LONG 200); the moments are drawn from a seed that is printed, and
//! `BELVEDERE_SEED` repeats.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test power_cuts -- --nocapture

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use belvedere_virtual_appliance::{Appliance, Colour, Light, Pattern};
use common::{BOOT, appliance, image, must, scratch};

const OPERATING: &str = "belvedere: operating";
/// How many cuts one appliance suffers before there is a new one: the first of them in its first start.
const CUTS_OF_ONE: u64 = 4;

/// A small generator (xorshift): the moments need to be repeatable, not unpredictable.
struct Moments(u64);
impl Moments {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Waits until it operates, shows it, and was told nothing that should not be.
fn comes_back(appliance: &mut Appliance) {
    must(appliance.console_contains(OPERATING, BOOT));
    must(appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), BOOT));
}

#[test]
fn power_cut_at_any_moment_of_a_first_start_and_of_later_ones_is_survived() {
    let count = number("BELVEDERE_START_CUTS", if std::env::var_os("BELVEDERE_LONG").is_some() { 200 } else { 4 });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = number("BELVEDERE_SEED", now).max(1);
    println!("BELVEDERE_SEED={seed}");
    let mut moments = Moments(seed);

    let scratch = scratch();
    let image = image();
    let new = || appliance(&image, scratch.path()).fresh();
    // How long an undisturbed first start takes here and now, and a later one.
    let timed = |appliance: &mut Appliance| {
        let begun = Instant::now();
        must(appliance.power_on());
        comes_back(appliance);
        let whole = begun.elapsed();
        must(appliance.power_cut());
        whole
    };
    let mut first = must(new().prepare());
    let (first_time, later_time) = (timed(&mut first), timed(&mut first));
    drop(first);
    println!("undisturbed: first start {:.1} s, later {:.1} s", first_time.as_secs_f64(), later_time.as_secs_f64());

    let mut current: Option<Appliance> = None;
    for cut in 0..count {
        let is_first = cut % CUTS_OF_ONE == 0;
        if is_first {
            // The one before is switched off before its directory is emptied.
            drop(current.take());
            current = Some(must(new().prepare()));
        }
        let Some(appliance) = &mut current else { continue };
        let whole = if is_first { first_time } else { later_time };
        let moment = whole.mul_f64(moments.next() * 1.05).max(Duration::from_millis(50));
        must(appliance.power_on());
        std::thread::sleep(moment);
        let console = appliance.console();
        let before = console.lines().last().unwrap_or("nothing yet").to_owned();
        must(appliance.power_cut());
        println!("cut {} of {count} at {:.2} s: {before}", cut + 1, moment.as_secs_f64());
        must(appliance.power_on());
        comes_back(appliance);
        must(appliance.power_cut());
    }
    println!("measured: {count} power cuts of starts, after each it came back by itself");
}

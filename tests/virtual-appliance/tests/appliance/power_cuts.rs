//! Somebody pulls the power at any moment: of a first start, in which the TPM is taken into use, the system is encrypted in
//! place and `data` is made; of later starts; of the three resets; of the start after a change of slots. It always comes back by
//! itself, and nothing is left half done.
//!
//! `BELVEDERE_START_CUTS` says how often (4, beside those of the whole line; with BELVEDERE_LONG 200); what happens and the
//! moments are drawn from a seed that is printed, and `BELVEDERE_SEED` repeats.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance power_cuts:: -- --nocapture

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use belvedere_boot_slots::{PARTITION, Reset, Slot, Table};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Colour, Fat, Gesture, Light, Pattern};

use crate::common::{BOOT, Draw, GREEN, KERNEL, OPERATING, appliance, copy, image, must, number, scratch, two_at_a_time};
use crate::old_releases::{put_both, write_table};
use crate::slots::read;

/// How many cuts one appliance suffers before there is a new one: the first of them in its first start.
const CUTS_OF_ONE: u64 = 4;
/// The bootloader, which the firmware found to be signed.
const STARTS_A_SLOT: &str = "belvedere: slot a: starting";
const READY_TO_PROVISION: Pattern = Pattern::Slow(Colour::Green);

/// What the start is that the power is cut in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    First,
    Plain,
    Reset(Gesture),
    /// As the updater leaves it: a new release in the other slot, to be tried.
    Change,
}

/// What may come after a first start.
const LATER: [Event; 6] = [
    Event::Plain,
    Event::Change,
    Event::Reset(Gesture::ShortPressReset),
    Event::Reset(Gesture::LongPressReset),
    Event::Reset(Gesture::LongPressPowerAndReset),
    Event::Change,
];

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::First => f.write_str("first start"),
            Event::Plain => f.write_str("start"),
            Event::Reset(gesture) => write!(f, "{gesture:?}"),
            Event::Change => f.write_str("change of slots"),
        }
    }
}

/// An appliance, and where its slot table is.
struct Life {
    appliance: Appliance,
    table: Extent,
}

impl Life {
    fn new(image: &Path, directory: &Path) -> Life {
        let table = must(disk::partition(&image.join("disk.img"), PARTITION));
        Life { appliance: must(appliance(image, directory).prepare()), table }
    }

    fn table(&self) -> Table {
        read(&self.appliance, self.table).current().expect("a valid table")
    }

    /// Switches on for what is to happen.
    fn begin(&mut self, image: &Path, event: Event) {
        match event {
            Event::First | Event::Plain => must(self.appliance.power_on()),
            Event::Reset(gesture) => must(self.appliance.power_on_holding(Some(gesture))),
            Event::Change => {
                let table = self.table();
                let other = if table.last_good == Some(Slot::A) { Slot::B } else { Slot::A };
                let mut table = table.written(other, 0);
                table.preferred = other;
                write_table(&self.appliance, image, table);
                must(self.appliance.power_on());
            }
        }
    }

    /// Waits until it operates and shows it, and cuts the power; then nothing may be half done. `pending`: the reset that was
    /// noted, or asked for.
    fn ends_well(&mut self, pending: Reset) {
        must(self.appliance.console_contains(OPERATING, BOOT));
        if pending != Reset::None {
            must(self.appliance.console_contains("belvedere: the reset is done", BOOT));
        }
        // Nobody owns it. What a cut left to do of a full reset may be all of it, or what comes after the data is destroyed.
        let light = if pending.restores_the_minimum() { READY_TO_PROVISION } else { GREEN };
        must(self.appliance.wait_for_light(Light::Status, light, BOOT));
        let console = self.appliance.console();
        must(self.appliance.power_cut());
        for wrong in ["volumes stay closed", "root image refused", "no valid slot table", "is left as it is"] {
            assert!(!console.contains(wrong), "{wrong:?}:\n{console}");
        }
        assert_eq!(self.table().reset, Reset::None, "{console}");
    }
}

#[test]
fn power_cut_at_any_moment_of_a_start_a_reset_or_a_change_of_slots_is_survived() {
    let count = number("BELVEDERE_START_CUTS", if std::env::var_os("BELVEDERE_LONG").is_some() { 200 } else { 4 });
    let mut draw = Draw::begin();
    let original = scratch();
    let image = copy(original.path());
    let path = image.join("disk.img");
    let kernel = must(must(Fat::in_partition(&path, "esp-a")).read(KERNEL)).expect("slot a's kernel");
    put_both(&path, &kernel, &kernel);

    // How long each takes here and now when nobody disturbs it.
    let directory = scratch();
    let mut life = Life::new(&image, directory.path());
    let mut timed = |event| {
        let begun = Instant::now();
        life.begin(&image, event);
        life.ends_well(if event == Event::First || event == Event::Plain { Reset::None } else { Reset::Full });
        begun.elapsed()
    };
    let full = Event::Reset(Gesture::LongPressPowerAndReset);
    let [first, later, reset] = [Event::First, Event::Plain, full].map(&mut timed);
    println!(
        "undisturbed: first start {:.1} s, later {:.1} s, full reset {:.1} s",
        first.as_secs_f64(),
        later.as_secs_f64(),
        reset.as_secs_f64()
    );

    // What each appliance suffers, and when.
    let mut lives = Vec::new();
    for begin in (0..count).step_by(CUTS_OF_ONE as usize) {
        let cuts = (begin..count.min(begin + CUTS_OF_ONE)).map(|cut| {
            let event = if cut == begin { Event::First } else { *draw.of(&LATER) };
            let whole = match event {
                Event::First => first,
                event if event == full => reset,
                _ => later,
            };
            (cut + 1, event, whole.mul_f64(draw.fraction() * 1.05).max(Duration::from_millis(50)))
        });
        lives.push(cuts.collect::<Vec<_>>());
    }
    two_at_a_time(lives, |cuts| {
        let directory = scratch();
        let mut life = Life::new(&image, directory.path());
        for (cut, event, moment) in cuts {
            life.begin(&image, event);
            std::thread::sleep(moment);
            let console = life.appliance.console();
            let before = console.lines().last().unwrap_or("nothing yet").to_owned();
            must(life.appliance.power_cut());
            println!("cut {cut} of {count}, {event}, at {:.2} s: {before}", moment.as_secs_f64());
            let pending = life.table().reset;
            must(life.appliance.power_on());
            life.ends_well(pending);
        }
    });
    println!("measured: {count} power cuts of starts, resets and changes of slots; after each it came back by itself");
}

/// The firmware writes its variables, Secure Boot's keys among them, before anything of ours runs. Found by a cut at 1.5 s of a
/// first start: an appliance whose firmware refused everything for ever (`firmware/virtual-board/README.md`).
#[test]
fn power_cut_while_the_firmware_writes_its_variables_loses_no_key() {
    let count = number("BELVEDERE_FIRMWARE_CUTS", if std::env::var_os("BELVEDERE_LONG").is_some() { 100 } else { 4 });
    let mut draw = Draw::begin();
    let image = image();
    // How long the firmware takes here and now.
    let directory = scratch();
    let mut undisturbed = must(appliance(&image, directory.path()).prepare());
    let begun = Instant::now();
    must(undisturbed.power_on());
    must(undisturbed.console_contains(STARTS_A_SLOT, BOOT));
    let whole = begun.elapsed();
    drop(undisturbed);
    let moments: Vec<_> = (0..count).map(|cut| (cut + 1, whole.mul_f64(0.1 + draw.fraction()))).collect();
    two_at_a_time(moments, |(cut, moment)| {
        let directory = scratch();
        let mut appliance = must(appliance(&image, directory.path()).prepare());
        must(appliance.power_on());
        std::thread::sleep(moment);
        must(appliance.power_cut());
        println!("cut {cut} of {count} at {:.2} s", moment.as_secs_f64());
        must(appliance.power_on());
        must(appliance.console_contains(STARTS_A_SLOT, BOOT));
    });
    println!("measured: {count} power cuts in the firmware's part of a first start ({:.1} s)", whole.as_secs_f64());
}

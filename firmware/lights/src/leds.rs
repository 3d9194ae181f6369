//! The kernel's LED class.
//!
//! Every LED gets the `timer` trigger once, by whoever has the right to ([`Leds::prepare`]; `init` does it), and is
//! from then on told only how long to be lit and dark: the trigger's two files can be given to an unprivileged user,
//! which the trigger itself cannot, since choosing one makes new files that belong to root.

use crate::{Colour, Light, Lights};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One LED; a light of several colours is several LEDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Led {
    /// Of the status light.
    StatusGreen,
    /// Of the status light.
    StatusRed,
    /// Of the status light.
    StatusBlue,
    /// Of the network light.
    NetworkGreen,
    /// Of the network light.
    NetworkRed,
}

impl Led {
    /// All of them.
    pub const ALL: [Led; 5] = [Led::StatusGreen, Led::StatusRed, Led::StatusBlue, Led::NetworkGreen, Led::NetworkRed];

    /// Its name in the LED class, the same on every board (the device tree says which pin it is).
    pub fn name(self) -> &'static str {
        match self {
            Led::StatusGreen => "belvedere:green:status",
            Led::StatusRed => "belvedere:red:status",
            Led::StatusBlue => "belvedere:blue:status",
            Led::NetworkGreen => "belvedere:green:network",
            Led::NetworkRed => "belvedere:red:network",
        }
    }
}

/// The LED class, as far as it is needed.
pub trait LedClass {
    /// Whether the LED has this file.
    fn has(&self, led: Led, file: &str) -> bool;
    /// Writes one file of an LED.
    fn write(&mut self, led: Led, file: &str, value: &str) -> io::Result<()>;
}

/// `/sys/class/leds`, or a directory that looks like it.
#[derive(Debug, Clone)]
pub struct SysfsLeds {
    root: PathBuf,
}

impl SysfsLeds {
    /// The kernel's directory.
    pub const ROOT: &'static str = "/sys/class/leds";

    /// Works below `root`.
    pub fn new(root: impl Into<PathBuf>) -> SysfsLeds {
        SysfsLeds { root: root.into() }
    }

    /// Where an LED's file is.
    pub fn path(&self, led: Led, file: &str) -> PathBuf {
        self.root.join(led.name()).join(file)
    }
}

impl LedClass for SysfsLeds {
    fn has(&self, led: Led, file: &str) -> bool {
        self.path(led, file).exists()
    }

    fn write(&mut self, led: Led, file: &str, value: &str) -> io::Result<()> {
        let path = self.path(led, file);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display()));
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).map_err(named)?;
        file.write_all(value.as_bytes()).map_err(named)
    }
}

/// How long lit, how long dark, in milliseconds; never both 0, which the trigger takes for "blink as you like".
type Times = (u64, u64);

const DARK: Times = (0, 1000);
const LIT: Times = (1000, 0);

fn times(light: Light) -> Times {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(1000);
    light.rhythm.times().map_or(LIT, |(on, off)| (milliseconds(on), milliseconds(off)))
}

/// What every LED does to make these lights.
fn plan(lights: Lights) -> [(Led, Times); 5] {
    let lit = |light: Option<Light>, colours: &[Colour]| match light {
        Some(light) if colours.contains(&light.colour) => times(light),
        _ => DARK,
    };
    [
        (Led::StatusGreen, lit(lights.status, &[Colour::Green, Colour::Orange])),
        (Led::StatusRed, lit(lights.status, &[Colour::Red, Colour::Orange])),
        (Led::StatusBlue, lit(lights.status, &[Colour::Blue])),
        (Led::NetworkGreen, lit(lights.network, &[Colour::Green, Colour::Orange])),
        (Led::NetworkRed, lit(lights.network, &[Colour::Red, Colour::Orange])),
    ]
}

/// The panel's LEDs.
#[derive(Debug)]
pub struct Leds<C> {
    class: C,
    shown: Option<Lights>,
}

impl<C: LedClass> Leds<C> {
    /// Nothing is touched yet.
    pub fn new(class: C) -> Leds<C> {
        Leds { class, shown: None }
    }

    /// The LEDs that this board has.
    pub fn present(&self) -> Vec<Led> {
        Led::ALL.into_iter().filter(|&led| self.class.has(led, "brightness")).collect()
    }

    /// Gives every LED its timer; needs the right to write `trigger`. LEDs that have it are left as they are.
    pub fn prepare(&mut self) -> io::Result<()> {
        for led in self.present() {
            if !self.class.has(led, "delay_on") {
                self.class.write(led, "trigger", "timer")?;
            }
        }
        Ok(())
    }

    /// Shows the lights. What is shown already is not written again: blinking would start anew.
    ///
    /// All LEDs are tried; the first error is returned.
    pub fn show(&mut self, lights: Lights) -> io::Result<()> {
        if self.shown == Some(lights) {
            return Ok(());
        }
        let present = self.present();
        let steps: Vec<(Led, Times)> = plan(lights).into_iter().filter(|(led, _)| present.contains(led)).collect();
        let of = |wanted: fn(Times) -> bool| steps.iter().copied().filter(move |&(_, times)| wanted(times));
        let mut result = Ok(());
        // Dark ones first, so that no mixed colour flashes up.
        for (led, (on, off)) in of(|times| times == DARK) {
            // In these orders the two are never 0 at once.
            self.write_all([(led, "delay_off", off), (led, "delay_on", on)], &mut result);
        }
        for (led, (on, off)) in of(|times| times == LIT) {
            self.write_all([(led, "delay_on", on), (led, "delay_off", off)], &mut result);
        }
        let blinking: Vec<(Led, Times)> = of(|times| times != DARK && times != LIT).collect();
        for _ in 0..TRIES_TO_KEEP_STEP {
            // The kernel's timer turns over whatever an LED is when its times are written. So it is made dark for certain,
            // and then one write starts it: red and green of one light begin with the same half.
            for &(led, (_, off)) in &blinking {
                self.write_all([(led, "delay_off", off), (led, "delay_on", 0)], &mut result);
            }
            let begun = Instant::now();
            self.write_all(blinking.iter().map(|&(led, (on, _))| (led, "delay_on", on)), &mut result);
            if begun.elapsed() < OUT_OF_STEP {
                break;
            }
        }
        self.shown = result.is_ok().then_some(lights);
        result
    }

    fn write_all(&mut self, writes: impl IntoIterator<Item = (Led, &'static str, u64)>, result: &mut io::Result<()>) {
        for (led, file, value) in writes {
            if let Err(error) = self.class.write(led, file, &value.to_string())
                && result.is_ok()
            {
                *result = Err(error);
            }
        }
    }
}

/// What a person begins to see between the two colours of one light.
const OUT_OF_STEP: Duration = Duration::from_millis(40);
/// How often LEDs that did not start together are started anew, for instance when the processor was taken away in between.
const TRIES_TO_KEEP_STEP: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern;
    use belvedere_interfaces::front_panel::{Condition, NetworkCondition};
    use std::collections::{BTreeMap, BTreeSet};

    /// An LED class whose timer works as the kernel's (`led_set_software_blink`, `led_timer_function` of `led-core.c`): every
    /// write of a time lets the LED turn over one tick later, unless one of the two is 0. Checks that both never are.
    #[derive(Default)]
    struct FakeLeds {
        present: BTreeSet<Led>,
        times: BTreeMap<Led, Times>,
        /// Which are lit, and whether one turns over at the next tick.
        state: BTreeMap<Led, (bool, bool)>,
        writes: usize,
        fail_at: Option<usize>,
        /// Before which writes a tick passes: bit by bit, again and again.
        ticks: u64,
        /// Before which write the processor is taken away for a while.
        sleep_at: Option<usize>,
    }

    impl FakeLeds {
        fn tick(&mut self) {
            for (lit, turns) in self.state.values_mut() {
                *lit ^= std::mem::take(turns);
            }
        }
    }

    impl LedClass for FakeLeds {
        fn has(&self, led: Led, file: &str) -> bool {
            self.present.contains(&led) && (!file.starts_with("delay") || self.times.contains_key(&led))
        }

        fn write(&mut self, led: Led, file: &str, value: &str) -> io::Result<()> {
            self.writes += 1;
            if self.fail_at == Some(self.writes) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            if self.sleep_at == Some(self.writes) {
                std::thread::sleep(OUT_OF_STEP);
            }
            if self.ticks >> (self.writes % 64) & 1 == 1 {
                self.tick();
            }
            if file == "trigger" {
                assert_eq!(value, "timer");
                self.times.insert(led, (500, 500));
                return Ok(());
            }
            let times = self.times.get_mut(&led).ok_or(io::ErrorKind::NotFound)?;
            let value = value.parse().unwrap();
            if file == "delay_on" {
                times.0 = value
            } else {
                times.1 = value
            }
            assert_ne!(*times, (0, 0));
            let times = *times;
            let (lit, turns) = self.state.entry(led).or_default();
            (*lit, *turns) = match times {
                (0, _) => (false, false),
                (_, 0) => (true, false),
                _ => (*lit, true),
            };
            Ok(())
        }
    }

    fn all() -> Leds<FakeLeds> {
        let mut leds = Leds::new(FakeLeds { present: Led::ALL.into(), ..FakeLeds::default() });
        leds.prepare().unwrap();
        leds
    }

    #[test]
    fn orange_is_red_and_green_in_step() {
        let mut leds = all();
        leds.show(pattern([Condition::RestoringLatest], [NetworkCondition::NoCable])).unwrap();
        let times = &leds.class.times;
        assert_eq!(times[&Led::StatusGreen], (1500, 1500));
        assert_eq!(times[&Led::StatusRed], (1500, 1500));
        assert_eq!(times[&Led::StatusBlue], DARK);
        assert_eq!(times[&Led::NetworkGreen], DARK);
        assert_eq!(times[&Led::NetworkRed], LIT);
    }

    /// Seen on a busy machine: a tick between two writes of one LED and none between those of the other, and the light is red
    /// and green in turn.
    #[test]
    fn red_and_green_begin_with_the_same_half_whatever_was_shown_and_however_long_the_writes_take() {
        let before = [Condition::Booting, Condition::Operating, Condition::Error, Condition::RestoringLatest];
        let mut ticks = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000 {
            ticks ^= ticks << 13;
            ticks ^= ticks >> 7;
            ticks ^= ticks << 17;
            let mut leds = all();
            leds.class.ticks = ticks;
            leds.show(pattern([before[round % before.len()]], [])).unwrap();
            leds.show(pattern([Condition::RestoringMinimum], [])).unwrap();
            leds.class.tick();
            let lit = |led| leds.class.state[&led];
            assert_eq!((lit(Led::StatusRed), lit(Led::StatusGreen)), ((true, false), (true, false)), "{round}");
        }
    }

    #[test]
    fn leds_that_did_not_start_together_are_started_anew() {
        let writes = |sleep_at: Option<usize>| {
            let mut leds = all();
            let before = leds.class.writes;
            leds.class.sleep_at = sleep_at.map(|write| before + write);
            leds.show(pattern([Condition::RestoringMinimum], [])).unwrap();
            leds.class.writes - before
        };
        let once = writes(None);
        // The last write is the second LED's start.
        assert!(writes(Some(once)) > once);
        assert_eq!(writes(Some(1)), once);
    }

    #[test]
    fn every_change_of_pattern_passes_without_both_times_at_zero() {
        let conditions = [Condition::Booting, Condition::Operating, Condition::Registering, Condition::Error];
        for one in conditions {
            for other in conditions {
                let mut leds = all();
                leds.show(pattern([one], [])).unwrap();
                leds.show(pattern([other], [NetworkCondition::Communicating])).unwrap();
                leds.show(Lights::default()).unwrap();
                assert!(leds.class.times.values().all(|times| *times == DARK));
            }
        }
    }

    #[test]
    fn the_same_lights_are_not_written_again_but_failed_ones_are() {
        let mut leds = all();
        let lights = pattern([Condition::Operating], []);
        leds.class.fail_at = Some(leds.class.writes + 4);
        assert!(leds.show(lights).is_err());
        leds.show(lights).unwrap();
        let writes = leds.class.writes;
        leds.show(lights).unwrap();
        assert_eq!(leds.class.writes, writes);
        assert_eq!(leds.class.times[&Led::StatusGreen], LIT);
    }

    #[test]
    fn a_board_without_lights_or_with_some_works() {
        let mut none = Leds::new(FakeLeds::default());
        none.prepare().unwrap();
        none.show(pattern([Condition::Error], [])).unwrap();
        assert_eq!(none.class.writes, 0);
        let mut one = Leds::new(FakeLeds { present: [Led::StatusRed].into(), ..FakeLeds::default() });
        one.prepare().unwrap();
        one.show(pattern([Condition::Error], [])).unwrap();
        assert_eq!(one.class.times, BTreeMap::from([(Led::StatusRed, (500, 500))]));
    }

    #[test]
    fn the_files_of_the_led_class_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut class = SysfsLeds::new(directory.path());
        let led = directory.path().join("belvedere:red:status");
        std::fs::create_dir(&led).unwrap();
        for file in ["brightness", "trigger", "delay_on", "delay_off"] {
            std::fs::write(led.join(file), "").unwrap();
        }
        assert!(class.has(Led::StatusRed, "brightness") && !class.has(Led::StatusBlue, "brightness"));
        class.write(Led::StatusRed, "delay_on", "500").unwrap();
        assert_eq!(std::fs::read_to_string(led.join("delay_on")).unwrap(), "500");
        assert!(class.write(Led::StatusBlue, "delay_on", "500").unwrap_err().to_string().contains("belvedere:blue:status"));
    }
}

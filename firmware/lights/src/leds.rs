//! The kernel's LED class.
//!
//! Every LED gets the `timer` trigger once, by whoever has the right to ([`Leds::prepare`]; `init` does it), and is
//! from then on told only how long to be lit and dark: the trigger's two files can be given to an unprivileged user,
//! which the trigger itself cannot, since choosing one makes new files that belong to root.

use crate::{Colour, Light, Lights};
use std::io::{self, Write};
use std::path::PathBuf;

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
        let mut steps: Vec<(Led, Times)> = plan(lights).into_iter().filter(|(led, _)| present.contains(led)).collect();
        // Dark ones first, so that no mixed colour flashes up; the blinking ones close together, so that they keep step.
        steps.sort_by_key(|(_, times)| *times != DARK);
        let mut result = Ok(());
        for (led, (on, off)) in steps {
            // In this order the two are never 0 at once.
            let writes =
                if on == 0 { [("delay_off", off), ("delay_on", on)] } else { [("delay_on", on), ("delay_off", off)] };
            for (file, value) in writes {
                if let Err(error) = self.class.write(led, file, &value.to_string()) {
                    result = result.and(Err(error));
                }
            }
        }
        self.shown = result.is_ok().then_some(lights);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern;
    use belvedere_interfaces::front_panel::{Condition, NetworkCondition};
    use std::collections::{BTreeMap, BTreeSet};

    /// An LED class whose timer works as the kernel's, checking that both times are never 0.
    #[derive(Default)]
    struct FakeLeds {
        present: BTreeSet<Led>,
        times: BTreeMap<Led, Times>,
        writes: usize,
        fail_at: Option<usize>,
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

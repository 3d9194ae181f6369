//! One boot, measured.

use std::path::Path;
use std::time::{Duration, Instant};

use belvedere_virtual_appliance::{Appliance, Colour, Error, Light, Pattern};

/// A boot that takes longer is broken, even on a badly overloaded machine that encrypts a gigabyte.
const LIMIT: Duration = Duration::from_secs(3600);
/// How often the console is looked at: the resolution of every time.
const LOOK: Duration = Duration::from_millis(20);
/// How long the light must have stood still to be called solid; half a slow blink is 1.5 s.
const STILL: Duration = Duration::from_secs(2);
/// The bootloader has chosen: from here on the two differ.
pub const HANDED_OVER: &str = "belvedere: slot a: starting";

/// What the appliance says on its way, and what was done when it says it.
pub const MILESTONES: [(&str, &str); 8] = [
    ("UEFI firmware", "QEMU, TPM and flash"),
    (HANDED_OVER, "firmware; bootloader: slot table, fuses, verified and measured kernel image"),
    ("EFI stub: Booting Linux", "kernel stub: measures its sections"),
    ("belvedere: version ", "Linux to /init"),
    ("belvedere: TPM: measured as signed", "TPM: policy, secrets"),
    ("belvedere: root image accepted", "volumes opened, root under dm-verity"),
    (" takes over (", "second stage: mounts, control groups, data"),
    ("belvedere: operating", "nine services"),
];

/// What is booted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// The appliance, to its green light.
    Appliance,
    /// Debian, to the login prompt.
    Debian,
    /// The appliance, until it runs from its verified root image. Then the power is cut.
    ApplianceToRoot,
}

impl System {
    /// What the console says when it is ready.
    fn ready(self) -> &'static str {
        match self {
            Self::Appliance => "belvedere: operating",
            Self::Debian => " login: ",
            Self::ApplianceToRoot => " takes over (",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Appliance | Self::ApplianceToRoot => "appliance",
            Self::Debian => "Debian",
        }
    }
}

/// One moment: wall time since power-on, and the CPU time that QEMU had used by then.
#[derive(Clone, Copy, Default)]
pub struct Moment {
    pub wall: f64,
    pub processor: f64,
}

/// One boot.
pub struct Boot {
    pub system: System,
    pub first: bool,
    pub handed_over: Moment,
    pub ready: Moment,
    /// When the console said what [`MILESTONES`] names; the appliance only.
    pub milestones: [Option<Moment>; MILESTONES.len()],
    /// When the light had become solid green; the appliance only.
    pub light: Option<f64>,
    /// Bytes that it had read from its disk by then.
    pub read: u64,
    /// What it had said.
    pub console: String,
}

impl Boot {
    /// The appliance is ready when it says so *and* its light stands: a light that blinked may have stood a little
    /// earlier.
    pub fn ready_at(&self) -> f64 {
        self.ready.wall.max(self.light.unwrap_or_default())
    }
}

/// Boots once and shuts down as a person does, by the power button. `first`: with a fresh disk.
pub fn measure(system: System, image: &Path, state: &Path, first: bool) -> Result<Boot, Error> {
    let builder = Appliance::builder(image).state_dir(state);
    let mut appliance = if first { builder.fresh() } else { builder }.prepare()?;
    measure_prepared(system, &mut appliance, first)
}

/// The same of an appliance that is switched off.
pub fn measure_prepared(system: System, appliance: &mut Appliance, first: bool) -> Result<Boot, Error> {
    let begun = Instant::now();
    appliance.power_on()?;
    let wall = || begun.elapsed().as_secs_f64();
    let (mut handed_over, mut ready) = (None, None);
    let mut milestones = [None; MILESTONES.len()];
    // Since when the light is green without a break.
    let mut green: Option<f64> = None;
    loop {
        let console = appliance.console();
        let both = [(HANDED_OVER, &mut handed_over), (system.ready(), &mut ready)];
        let stages = MILESTONES.iter().map(|&(text, _)| text).zip(&mut milestones);
        for (text, seen) in both.into_iter().chain(stages) {
            if seen.is_none() && console.contains(text) {
                *seen = Some(Moment { wall: wall(), processor: appliance.processor_time() });
            }
        }
        match (appliance.status_is_green_now(), green) {
            (true, None) => green = Some(wall()),
            (false, Some(_)) => green = None,
            _ => {}
        }
        let settled = match system {
            System::Appliance => green.is_some_and(|since| wall() - since > STILL.as_secs_f64()),
            System::Debian | System::ApplianceToRoot => true,
        };
        if ready.is_some() && settled {
            break;
        }
        if !appliance.is_on() || begun.elapsed() > LIMIT {
            // Waiting for what did not come gives the error that shows lights and console.
            appliance.console_contains(system.ready(), Duration::ZERO)?;
            appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), Duration::ZERO)?;
        }
        std::thread::sleep(LOOK);
    }
    let ([read, _], console) = (appliance.disk_bytes()?, appliance.console());
    if system == System::ApplianceToRoot {
        appliance.power_cut()?;
    } else {
        appliance.press_power_button()?;
        if appliance.wait_for_power_off(Duration::from_secs(120)).is_err() {
            println!("{} did not switch itself off: the power is cut", system.name());
            appliance.power_cut()?;
        }
    }
    let light = match system {
        System::Appliance => green,
        System::Debian | System::ApplianceToRoot => None,
    };
    let (handed_over, ready) = (handed_over.unwrap_or_default(), ready.unwrap_or_default());
    Ok(Boot { system, first, handed_over, ready, milestones, light, read, console })
}

/// Lowest, median, highest.
pub fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    (at(0), (at(last / 2) + at(values.len() / 2)) / 2.0, at(last))
}

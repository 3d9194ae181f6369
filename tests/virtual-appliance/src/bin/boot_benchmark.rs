//! `belvedere-boot-benchmark`: how long the appliance takes to its green light, and the same kernel with Debian's
//! initramfs and systemd to a login prompt, in turns. Started by `tests/benchmark/boot`, which makes the Debian half.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use belvedere_virtual_appliance::{Appliance, Colour, Error, Fat, Light, Pattern, disk};
use clap::Parser;

/// Boots the appliance and Debian in turns and prints a table. Nothing fails because it took long.
#[derive(Parser)]
#[command(name = "belvedere-boot-benchmark")]
struct Arguments {
    /// Directory with the appliance's disk.img and firmware-variables.fd. Only read.
    #[arg(long)]
    appliance: PathBuf,
    /// Signed UKI of the same kernel with Debian's initramfs; takes the place of slot a's.
    #[arg(long)]
    debian_kernel: PathBuf,
    /// ext4 image of Debian's root; takes the place of the data partition's content.
    #[arg(long)]
    debian_root: PathBuf,
    /// Directory for the disks and logs of this run.
    #[arg(long)]
    state: PathBuf,
    /// Rounds; each boots both systems twice: with a fresh disk, and again.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// A boot that takes longer is broken, even on a badly overloaded machine.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the console is looked at: the resolution of every time.
const LOOK: Duration = Duration::from_millis(20);
/// How long the light must have stood still to be called solid; half a slow blink is 1.5 s.
const STILL: Duration = Duration::from_secs(2);
/// The bootloader has chosen: from here on the two differ.
const HANDED_OVER: &str = "belvedere: slot a: starting";

/// What the appliance says on its way, and what was done when it says it.
const MILESTONES: [(&str, &str); 8] = [
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
enum System {
    /// The appliance, to its green light.
    Appliance,
    /// Debian, to the login prompt.
    Debian,
}

impl System {
    /// What the console says when it is ready.
    fn ready(self) -> &'static str {
        match self {
            Self::Appliance => "belvedere: operating",
            Self::Debian => " login: ",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Appliance => "appliance",
            Self::Debian => "Debian",
        }
    }
}

/// One moment: wall time since power-on, and the CPU time that QEMU had used by then.
#[derive(Clone, Copy, Default)]
struct Moment {
    wall: f64,
    processor: f64,
}

/// One boot.
struct Boot {
    system: System,
    first: bool,
    handed_over: Moment,
    ready: Moment,
    /// When the console said what [`MILESTONES`] names; the appliance only.
    milestones: [Option<Moment>; MILESTONES.len()],
    /// When the light had become solid green; the appliance only.
    light: Option<f64>,
}

impl Boot {
    /// The appliance is ready when it says so *and* its light stands: a light that blinked may have stood a little
    /// earlier.
    fn ready_at(&self) -> f64 {
        self.ready.wall.max(self.light.unwrap_or_default())
    }
}

/// One column of the table.
type Column = (&'static str, fn(&Boot) -> f64);

const COLUMNS: [Column; 3] = [
    ("hand-over to ready", |boot| boot.ready_at() - boot.handed_over.wall),
    ("hand-over to ready, CPU", |boot| boot.ready.processor - boot.handed_over.processor),
    ("power-on to ready", Boot::ready_at),
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belvedere-boot-benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let debian = debian_image(arguments)?;
    let mut boots = Vec::new();
    for round in 1..=arguments.rounds {
        for first in [true, false] {
            for system in [System::Appliance, System::Debian] {
                let image = match system {
                    System::Appliance => &arguments.appliance,
                    System::Debian => &debian,
                };
                let state = arguments.state.join(system.name());
                let boot = measure(system, image, &state, first)?;
                println!(
                    "round {round}: {:9} {:6} boot: {:5.1} s to hand-over, {:5.1} s to ready{}",
                    system.name(),
                    if first { "first" } else { "second" },
                    boot.handed_over.wall,
                    boot.ready.wall,
                    boot.light.map(|light| format!(" (light {light:.1} s)")).unwrap_or_default(),
                );
                boots.push(boot);
            }
        }
    }
    print!("{}", table(&boots));
    print!("{}", stages(&boots));
    Ok(())
}

/// The appliance's own disk with Debian's kernel image in slot a and Debian's root in the data partition: the firmware,
/// its variables, the bootloader and every device stay the same.
fn debian_image(arguments: &Arguments) -> Result<PathBuf, Error> {
    let directory = arguments.state.join("debian-image");
    let failed = |program: &str, message: String| Error::Program { program: program.to_owned(), message };
    let run = |command: &mut Command| {
        let program = command.get_program().to_string_lossy().into_owned();
        match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(failed(&program, String::from_utf8_lossy(&output.stderr).into_owned())),
            Err(error) => Err(failed(&program, error.to_string())),
        }
    };
    run(Command::new("mkdir").arg("-p").arg(&directory))?;
    let image = directory.join("disk.img");
    run(Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(arguments.appliance.join("disk.img"))
        .arg(arguments.appliance.join("firmware-variables.fd"))
        .arg(&directory))?;
    let kernel = std::fs::read(&arguments.debian_kernel).map_err(|source| Error::File {
        operation: "read",
        path: arguments.debian_kernel.clone(),
        source,
    })?;
    Fat::in_partition(&image, "esp-a")?.put("EFI/belvedere/slot-a.efi", &kernel)?;
    let data = disk::partition(&image, "data")?;
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    run(Command::new("dd")
        .args(["bs=1M", "conv=notrunc,sparse", "oflag=seek_bytes"])
        .arg(option("if", &arguments.debian_root))
        .arg(option("of", &image))
        .arg(format!("seek={}", data.offset)))?;
    Ok(directory)
}

/// Boots once and shuts down as a person does, by the power button.
fn measure(system: System, image: &Path, state: &Path, first: bool) -> Result<Boot, Error> {
    let mut builder = Appliance::builder(image).state_dir(state);
    if first {
        builder = builder.fresh();
    }
    let mut appliance = builder.prepare()?;
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
            System::Debian => true,
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
    appliance.press_power_button()?;
    if appliance.wait_for_power_off(Duration::from_secs(120)).is_err() {
        println!("{} did not switch itself off: the power is cut", system.name());
        appliance.power_cut()?;
    }
    let light = match system {
        System::Appliance => green,
        System::Debian => None,
    };
    let (handed_over, ready) = (handed_over.unwrap_or_default(), ready.unwrap_or_default());
    Ok(Boot { system, first, handed_over, ready, milestones, light })
}

/// Medians in Markdown, and how many times longer Debian takes.
fn table(boots: &[Boot]) -> String {
    let mut text = String::from("\n| boot |");
    for (name, _) in COLUMNS {
        text += &format!(" {name} |");
    }
    text += "\n|---|---|---|---|\n";
    for first in [true, false] {
        let of = |system: System, value: fn(&Boot) -> f64| {
            let chosen = boots.iter().filter(|boot| boot.system == system && boot.first == first);
            chosen.map(value).collect::<Vec<f64>>()
        };
        let which = if first { "first" } else { "second" };
        for system in [System::Appliance, System::Debian] {
            text += &format!("| {}, {which} |", system.name());
            for (_, value) in COLUMNS {
                let mut all = of(system, value);
                let (low, middle, high) = spread(&mut all);
                text += &format!(" {middle:.1} s ({low:.1} to {high:.1}) |");
            }
            text += "\n";
        }
        text += &format!("| Debian ÷ appliance, {which} |");
        for (_, value) in COLUMNS {
            let (_, debian, _) = spread(&mut of(System::Debian, value));
            let (_, appliance, _) = spread(&mut of(System::Appliance, value));
            text += &format!(" {:.2} |", debian / appliance);
        }
        text += "\n";
    }
    text
}

/// Where the appliance's time goes: medians of each stage, in Markdown.
fn stages(boots: &[Boot]) -> String {
    let mut text =
        String::from("\n| stage of the appliance's start | first: s, CPU s | second: s, CPU s |\n|---|---|---|\n");
    for (stage, (_, what)) in MILESTONES.iter().enumerate() {
        text += &format!("| {what} |");
        for first in [true, false] {
            let of = |value: fn(Moment) -> f64| {
                let chosen = boots.iter().filter(|boot| boot.system == System::Appliance && boot.first == first);
                let mut all: Vec<f64> = chosen
                    .filter_map(|boot| {
                        let before = stage.checked_sub(1).map_or(Some(Moment::default()), |before| boot.milestones[before]);
                        Some(value(boot.milestones[stage]?) - value(before?))
                    })
                    .collect();
                spread(&mut all).1
            };
            text += &format!(" {:.2}, {:.2} |", of(|moment| moment.wall), of(|moment| moment.processor));
        }
        text += "\n";
    }
    text
}

/// Lowest, median, highest.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    (at(0), (at(last / 2) + at(values.len() / 2)) / 2.0, at(last))
}

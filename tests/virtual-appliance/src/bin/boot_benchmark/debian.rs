//! The appliance beside Debian, which `tests/benchmark/boot` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use belvedere_virtual_appliance::{Error, Fat, disk};

use crate::measure::{Boot, MILESTONES, Moment, System, measure, spread};

/// Boots the appliance and Debian in turns and prints a table. Nothing fails because it took long.
#[derive(clap::Args)]
pub struct Arguments {
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

/// One column of the table.
type Column = (&'static str, fn(&Boot) -> f64);

const COLUMNS: [Column; 3] = [
    ("hand-over to ready", |boot| boot.ready_at() - boot.handed_over.wall),
    ("hand-over to ready, CPU", |boot| boot.ready.processor - boot.handed_over.processor),
    ("power-on to ready", Boot::ready_at),
];

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let debian = debian_image(arguments)?;
    let mut boots = Vec::new();
    for round in 1..=arguments.rounds {
        for first in [true, false] {
            for system in [System::Appliance, System::Debian] {
                let image = match system {
                    System::Appliance | System::ApplianceToRoot => &arguments.appliance,
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
        .arg(arguments.appliance.join("firmware.fd"))
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

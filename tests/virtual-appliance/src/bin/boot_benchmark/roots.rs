//! Whether a start grows with the root image.
//!
//! Three kinds of starts of each appliance: the first one, which encrypts the image as it came from the factory; starts of the
//! proven slot, which read of the image what they need; and, for comparison, one of the slot when it is not proven, which reads
//! every block. What decides is how much a start reads from the disk: that is the same however busy this machine is.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Slot, Table};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Error};

use crate::measure::{Boot, HANDED_OVER, System, measure, measure_prepared, spread};

/// Where the images are.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory with disk.img, root.erofs and firmware-variables.fd of the appliance with the small root image. Only read.
    #[arg(long)]
    small: PathBuf,
    /// The same of the one with the large root image.
    #[arg(long)]
    large: PathBuf,
    /// Directory for the disks and logs of this run.
    #[arg(long)]
    state: PathBuf,
    /// How many pairs of starts of the proven slot.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Ends each boot, by a power cut, when the appliance runs from its root image: for a machine so busy that its services do
    /// not become ready in time. What comes after does not depend on the image's size.
    #[arg(long)]
    until_root: bool,
}

/// Where noise goes.
#[derive(clap::Args)]
pub struct Noise {
    /// How much, MiB.
    #[arg(long)]
    mebibytes: u64,
    /// The file.
    file: PathBuf,
}

/// What a start says that read every block of its root image.
const READ_WHOLE: &str = "belvedere: every block of the root image is as signed";
/// By how much more a start of the proven slot may read with the large root image: directories of its file system, the levels of
/// its hash tree, and what the kernel reads ahead. Bytes.
const MORE: u64 = 2 << 20;

/// A kind of start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    First,
    Proven,
    Unproven,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::First, Kind::Proven, Kind::Unproven];

    fn name(self) -> &'static str {
        match self {
            Kind::First => "first start, encrypts the image",
            Kind::Proven => "proven slot",
            Kind::Unproven => "slot not proven, reads every block",
        }
    }
}

/// A boot of the small appliance (0) or of the large one (1).
type Measured = (Kind, usize, Boot);

/// A column of the table.
type Column = (&'static str, fn(&Boot) -> f64);

const COLUMNS: [Column; 4] = [
    ("power-on to ready: s", Boot::ready_at),
    ("the same, CPU s", |boot| boot.ready.processor),
    ("hand-over to ready, CPU s", |boot| boot.ready.processor - boot.handed_over.processor),
    ("read from the disk: MB", |boot| boot.read as f64 / 1e6),
];

/// Measures, prints, judges.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let images = [&arguments.small, &arguments.large];
    let system = if arguments.until_root { System::ApplianceToRoot } else { System::Appliance };
    let states = ["small", "large"].map(|name| arguments.state.join(name));
    let mut sizes = [0; 2];
    for (size, image) in sizes.iter_mut().zip(images) {
        let path = image.join("root.erofs");
        let found = std::fs::metadata(&path);
        *size = found.map_err(|source| Error::File { operation: "look at", path, source })?.len();
    }
    let mut boots: Vec<Measured> = Vec::new();
    let one = |kind: Kind, number: usize, boots: &mut Vec<Measured>| -> Result<(), Error> {
        let (image, state) = (images[number], &states[number]);
        let boot = match kind {
            Kind::First => measure(system, image, state, true)?,
            Kind::Proven => measure(system, image, state, false)?,
            Kind::Unproven => {
                let mut appliance = Appliance::builder(image).state_dir(state).prepare()?;
                forget_the_proof(image, &appliance)?;
                measure_prepared(system, &mut appliance, false)?
            }
        };
        let size = sizes[number] as f64 / 1e6;
        let (wall, processor, read) = (boot.ready_at(), boot.ready.processor, boot.read as f64 / 1e6);
        println!("root image of {size:.0} MB, {}: {wall:.1} s, CPU {processor:.1} s, {read:.1} MB read", kind.name());
        if !boot.console.contains(HANDED_OVER) || boot.console.contains(READ_WHOLE) != (kind == Kind::Unproven) {
            return Err(Error::Input(format!("this was no such start:\n{}", boot.console)));
        }
        boots.push((kind, number, boot));
        Ok(())
    };
    for number in [0, 1] {
        one(Kind::First, number, &mut boots)?;
    }
    for round in 0..arguments.rounds {
        for number in [round % 2, 1 - round % 2] {
            one(Kind::Proven, number, &mut boots)?;
        }
    }
    for number in [0, 1] {
        one(Kind::Unproven, number, &mut boots)?;
    }
    println!("ready: {}", if arguments.until_root { "runs from its root image" } else { "solid green" });
    print!("{}", table(&boots, sizes));
    judge(&boots, sizes)
}

/// Makes the slot one that a new release was written to.
fn forget_the_proof(image: &Path, appliance: &Appliance) -> Result<(), Error> {
    let partition = disk::partition(&image.join("disk.img"), PARTITION)?;
    let mut found = Vec::new();
    for offset in COPY_OFFSETS {
        found.push(disk::read(&appliance.disk(), Extent { offset: partition.offset + offset, length: BLOCK as u64 })?);
    }
    let copies = Copies::read(&found[0], &found[1]);
    let table = copies.current().ok_or_else(|| Error::Input("the disk has no slot table".into()))?;
    let mut next: Table = table.written(Slot::A, 0);
    (next.preferred, next.last_good) = (Slot::A, None);
    for change in copies.durable_changes(next) {
        disk::write(&appliance.disk(), partition.offset + change.offset, &change.block)?;
    }
    Ok(())
}

fn of(boots: &[Measured], kind: Kind, number: usize, value: fn(&Boot) -> f64) -> (f64, f64, f64) {
    let chosen = boots.iter().filter(|(of_kind, of_number, _)| (*of_kind, *of_number) == (kind, number));
    spread(&mut chosen.map(|(_, _, boot)| value(boot)).collect::<Vec<f64>>())
}

/// Medians in Markdown, with lowest and highest, and how many times more it is with the large root image.
fn table(boots: &[Measured], sizes: [u64; 2]) -> String {
    let mut text = String::from("\n| start | root image |");
    for (name, _) in COLUMNS {
        text += &format!(" {name} |");
    }
    text += "\n|---|---|---|---|---|---|\n";
    for kind in Kind::ALL {
        for (number, size) in sizes.iter().enumerate() {
            text += &format!("| {} | {:.0} MB |", kind.name(), *size as f64 / 1e6);
            for (_, value) in COLUMNS {
                let (low, middle, high) = of(boots, kind, number, value);
                text += &format!(" {middle:.1} ({low:.1} to {high:.1}) |");
            }
            text += "\n";
        }
        text += &format!("| large ÷ small, {} | {:.1} |", kind.name(), sizes[1] as f64 / sizes[0] as f64);
        for (_, value) in COLUMNS {
            let [small, large] = [0, 1].map(|number| of(boots, kind, number, value).1);
            text += &format!(" {:.2} |", large / small);
        }
        text += "\n";
    }
    text
}

/// A start of the proven slot reads as much with either root image; one that reads all of it shows that this would be seen.
fn judge(boots: &[Measured], sizes: [u64; 2]) -> Result<(), Error> {
    let more = |kind: Kind| {
        let read = |number| of(boots, kind, number, |boot| boot.read as f64).1;
        read(1) - read(0)
    };
    let larger = sizes[1].saturating_sub(sizes[0]);
    if larger <= 4 * MORE || more(Kind::Unproven) < 0.9 * larger as f64 {
        return Err(Error::Input(
            "one root image must be larger than the other, and a start that reads all of it must show".into(),
        ));
    }
    let more = more(Kind::Proven);
    if more > MORE as f64 {
        let text = format!(
            "a start of the proven slot reads {:.1} MB more when the root image has {larger} bytes more",
            more / 1e6
        );
        return Err(Error::Input(text));
    }
    println!(
        "a start of the proven slot reads {:+.1} MB with a root image that has {:.0} MB more",
        more / 1e6,
        larger as f64 / 1e6
    );
    Ok(())
}

/// Writes bytes that cannot be compressed (xorshift64), the same every time.
pub fn write_noise(arguments: &Noise) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "write", path: arguments.file.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&arguments.file).map_err(failed)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..arguments.mebibytes << 17 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).map_err(failed)?;
    }
    file.flush().map_err(failed)
}

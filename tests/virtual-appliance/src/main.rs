//! `belvedere-virtual-appliance`: a virtual appliance on the desk.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use belvedere_virtual_appliance::{Appliance, Error};
use clap::{Parser, Subcommand};

/// Runs the virtual appliance in QEMU, without root.
#[derive(Parser)]
#[command(name = "belvedere-virtual-appliance")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Switch an appliance on; show its console on standard output and its lights on standard error. Ctrl-C cuts the
    /// power.
    Run {
        /// Directory with disk.img, firmware-variables.fd and firmware.fd, made by scripts/build-appliance. Only read.
        #[arg(long)]
        image: PathBuf,
        /// Directory for what the appliance writes. Started again with the same one, it is the same appliance.
        #[arg(long)]
        state: PathBuf,
        /// A stick's image that is in the port from the start.
        #[arg(long)]
        stick: Option<PathBuf>,
        /// A board with a secure world: the directory that firmware/secure-world/build printed.
        #[arg(long)]
        secure_world: Option<PathBuf>,
        /// A board without a TPM; only with a secure world is there another keeper of its secrets.
        #[arg(long)]
        without_tpm: bool,
        /// Forget an earlier appliance in the state directory.
        #[arg(long)]
        fresh: bool,
        /// Keep a picture of the monitor in this PNG file, renewed every few seconds.
        #[arg(long)]
        monitor: Option<PathBuf>,
        /// Put before each line of the console when it came (s since power-on), and how much of the processor QEMU had used by
        /// then (s).
        #[arg(long)]
        times: bool,
        /// End after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

fn main() -> ExitCode {
    let Command::Run { image, state, stick, secure_world, without_tpm, fresh, monitor, times, seconds } =
        Arguments::parse().command;
    let mut builder = Appliance::builder(image).state_dir(state);
    if fresh {
        builder = builder.fresh();
    }
    if let Some(stick) = stick {
        builder = builder.stick(stick);
    }
    if without_tpm {
        builder = builder.without_tpm();
    }
    if let Some(firmware) = secure_world {
        builder = builder.secure_world(firmware);
    }
    match builder.start().and_then(|appliance| run(appliance, monitor, times, seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belvedere-virtual-appliance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut appliance: Appliance, monitor: Option<PathBuf>, times: bool, seconds: Option<u64>) -> Result<(), Error> {
    let begun = Instant::now();
    let (mut shown, mut lights, mut next_picture) = (0, String::new(), begun);
    loop {
        let on = appliance.is_on();
        let console = appliance.console();
        let mut new = console.get(shown..).unwrap_or_default();
        if times {
            // Whole lines.
            new = new.get(..=new.rfind('\n').unwrap_or_default()).filter(|new| new.ends_with('\n')).unwrap_or_default();
            for line in new.lines() {
                println!("[{:6.2} s {:6.2} s] {line}", begun.elapsed().as_secs_f32(), appliance.processor_time());
            }
        } else {
            print!("{new}");
        }
        let _ = std::io::stdout().flush();
        shown += new.len();
        let now = appliance.lights().to_string();
        if now != lights {
            eprintln!("[{:7.1} s] lights: {now}", begun.elapsed().as_secs_f32());
            lights = now;
        }
        if !on {
            eprintln!("[{:7.1} s] the appliance switched itself off", begun.elapsed().as_secs_f32());
            return Ok(());
        }
        if seconds.is_some_and(|limit| begun.elapsed().as_secs() >= limit) {
            return appliance.power_cut();
        }
        if let Some(picture) = monitor.as_ref().filter(|_| Instant::now() >= next_picture) {
            if let Err(error) = appliance.screenshot(picture) {
                eprintln!("[{:7.1} s] no picture: {error}", begun.elapsed().as_secs_f32());
            }
            next_picture = Instant::now() + Duration::from_secs(3);
        }
        std::thread::sleep(Duration::from_millis(if times { 10 } else { 250 }));
    }
}

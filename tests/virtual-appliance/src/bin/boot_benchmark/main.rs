//! `belvedere-boot-benchmark`: how long the appliance takes to its green light. Started by `tests/benchmark/boot`.
//!
//! * `debian`: beside the same kernel with Debian's initramfs and systemd to a login prompt, in turns;
//! * `roots`: with a small root image and with a large one, in turns;
//! * `noise`: writes a file that does not compress, with which a root image is made large.

mod debian;
mod measure;
mod roots;

use std::process::ExitCode;

use belvedere_virtual_appliance::Error;
use clap::Parser;

/// Measures boots.
#[derive(Parser)]
#[command(name = "belvedere-boot-benchmark")]
enum Command {
    /// Boots the appliance and Debian in turns and prints a table. Nothing fails because it took long.
    Debian(debian::Arguments),
    /// Boots two appliances in turns that differ in the size of their root image. Fails when what a start of the proven slot
    /// reads grows with it.
    Roots(roots::Arguments),
    /// Writes a file of pseudo-random bytes.
    Noise(roots::Noise),
}

fn main() -> ExitCode {
    let done: Result<(), Error> = match Command::parse() {
        Command::Debian(arguments) => debian::run(&arguments),
        Command::Roots(arguments) => roots::run(&arguments),
        Command::Noise(arguments) => roots::write_noise(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belvedere-boot-benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

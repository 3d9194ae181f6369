//! `belvedere-image`: makes signed disk images.

use belvedere_image::appliance::{Request, build};
use belvedere_image::board;
use belvedere_image::cache::default_directory;
use belvedere_image::programs::MissingParts;
use belvedere_image::progress::Progress;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes signed disk images of the Belvedere appliance.
#[derive(Parser)]
#[command(name = "belvedere-image", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds an image from compiled programs, Debian packages and keys. A second run is warm.
    Build {
        /// For which board (qemu-aarch64).
        #[arg(long)]
        board: String,
        /// Key directory made by `belvedere-keys init`.
        #[arg(long)]
        keys: PathBuf,
        /// Directory with bin/, efi/, lib/ and python/ as gathered by scripts/build-appliance.
        #[arg(long)]
        programs: PathBuf,
        /// Where disk.img and what belongs to it go.
        #[arg(long)]
        output: PathBuf,
        /// Where results of stages are kept (default: belvedere in the user's cache directory).
        #[arg(long)]
        cache: Option<PathBuf>,
        /// The release's version, as in 1.2.3.
        #[arg(long = "version", default_value = env!("CARGO_PKG_VERSION"))]
        release: String,
        /// The release's rollback level: on an appliance whose fuses are above it, it never starts.
        #[arg(long, default_value_t = 0)]
        rollback_level: u32,
        /// Leaves out programs that are not there, for development. Without init, bootloader and kernel stub there is no image.
        #[arg(long)]
        allow_missing: bool,
        /// Makes an image for development: with a console, and of development keys.
        #[arg(long)]
        development: bool,
    },
}

fn main() -> ExitCode {
    let Command::Build { board: name, keys, programs, output, cache, release, rollback_level, allow_missing, development } =
        Arguments::parse().command;
    let Some(board) = board::find(&name) else {
        let names: Vec<&str> = board::BOARDS.iter().map(|board| board.name).collect();
        eprintln!("belvedere-image: there is no board {name}; there is {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    let missing_parts = if allow_missing { MissingParts::Leave } else { MissingParts::Refuse };
    let cache = cache.unwrap_or_else(default_directory);
    let request =
        Request { board, keys, programs, output, cache, version: release, rollback_level, missing_parts, development };
    match build(&request, &mut Progress::new()) {
        Ok(()) => {
            println!("{}", request.output.join("disk.img").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("belvedere-image: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `belvedere-image`: makes signed disk images.

use belvedere_image::appliance::{self, Request};
use belvedere_image::board;
use belvedere_image::cache::default_directory;
use belvedere_image::error::{Error, Result};
use belvedere_image::key_updates::{self, Addition};
use belvedere_image::measured;
use belvedere_image::programs::MissingParts;
use belvedere_image::progress::Progress;
use belvedere_keys::KeyDirectory;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
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
    Build(Build),
    /// Prints what a start of a release measures into the TPM, event by event, and which values open the volumes.
    Measured {
        /// The release's uki.efi.
        image: PathBuf,
    },
    /// Has every release from now on tell the firmware (`dbx`) what it may not start any more. Cannot be taken back.
    Revoke {
        /// Key directory made by `belvedere-keys init`.
        #[arg(long)]
        keys: PathBuf,
        #[command(flatten)]
        what: Revoked,
    },
    /// Has every release from now on tell the firmware (`db`) of a further certificate whose programs it may start.
    Trust {
        /// Key directory made by `belvedere-keys init`.
        #[arg(long)]
        keys: PathBuf,
        /// The certificate, PEM or DER.
        #[arg(long)]
        certificate: PathBuf,
    },
}

/// What to build and from what.
#[derive(clap::Args)]
struct Build {
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
    /// Which db key of the key directory signs bootloader and unified kernel image; 1 is the factory's.
    #[arg(long, default_value_t = 1)]
    db_key: u32,
    /// Leaves out programs that are not there, for development. Without init, bootloader and kernel stub there is no image.
    #[arg(long)]
    allow_missing: bool,
    /// Makes an image for development: with a console, and of development keys.
    #[arg(long)]
    development: bool,
    /// Makes the system partitions larger than the board's, so many MiB: for measurements with a large root image.
    #[arg(long, requires = "development")]
    system_mebibytes: Option<u64>,
}

/// One of the three.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Revoked {
    /// A program: a release's uki.efi or bootloader.efi.
    #[arg(long)]
    image: Option<PathBuf>,
    /// The hash of a program, as Authenticode takes it: 64 hexadecimal digits.
    #[arg(long)]
    sha256: Option<String>,
    /// A certificate, PEM or DER: everything that was signed with its key.
    #[arg(long)]
    certificate: Option<PathBuf>,
}

impl Revoked {
    fn addition(self) -> Result<Addition> {
        if let Some(path) = self.image {
            return key_updates::hash_of(&path).map(Addition::RevokedProgram);
        }
        if let Some(path) = self.certificate {
            return key_updates::certificate(&path).map(Addition::Revoked);
        }
        let text = self.sha256.unwrap_or_default();
        let hash = hex::decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        hash.map(Addition::RevokedProgram).ok_or_else(|| Error::invalid(text, "is no SHA-256"))
    }
}

fn add(keys: &Path, addition: Result<Addition>) -> Result<Vec<String>> {
    let added = key_updates::add(&KeyDirectory::open(keys)?, &addition?)?;
    Ok(vec![match added {
        Some(path) => format!("{}: in every release from now on", path.display()),
        None => "it is in every release already".to_owned(),
    }])
}

fn build_image(build: Build) -> Result<PathBuf> {
    let Some(board) = board::find(&build.board) else {
        let names: Vec<&str> = board::BOARDS.iter().map(|board| board.name).collect();
        return Err(Error::invalid(
            format!("board {}", build.board),
            format!("there is no such one; there is {}", names.join(", ")),
        ));
    };
    let board = match build.system_mebibytes {
        // As long as the program runs.
        Some(mebibytes) => Box::leak(Box::new(board.with_system_partitions(mebibytes)?)),
        None => board,
    };
    let request = Request {
        board,
        keys: build.keys,
        programs: build.programs,
        output: build.output,
        cache: build.cache.unwrap_or_else(default_directory),
        version: build.release,
        rollback_level: build.rollback_level,
        db_key: build.db_key,
        missing_parts: if build.allow_missing { MissingParts::Leave } else { MissingParts::Refuse },
        development: build.development,
    };
    appliance::build(&request, &mut Progress::new())?;
    Ok(request.output.join("disk.img"))
}

fn main() -> ExitCode {
    let printed = match Arguments::parse().command {
        Command::Build(build) => build_image(build).map(|path| vec![path.display().to_string()]),
        Command::Measured { image } => measured::describe(&image),
        Command::Revoke { keys, what } => add(&keys, what.addition()),
        Command::Trust { keys, certificate } => add(&keys, key_updates::certificate(&certificate).map(Addition::Trusted)),
    };
    match printed {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("belvedere-image: {error}");
            ExitCode::FAILURE
        }
    }
}

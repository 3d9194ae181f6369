//! `belvedere-keys`: makes and shows a development key hierarchy.

use std::path::PathBuf;
use std::process::ExitCode;

use belvedere_keys::jetson::{self, Jetson};
use belvedere_keys::{Error, KeyDirectory, KeyFile, Validity, complete, create, describe, renew_db};
use clap::{Parser, Subcommand};

/// Make and show a development key hierarchy: UEFI Secure Boot keys, release signing key, device certificate
/// authority, log key. The files are as precious as the fleet that trusts them: never commit them.
#[derive(Parser)]
#[command(name = "belvedere-keys")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new hierarchy in a directory that does not exist yet or is empty. Never overwrites anything.
    Init {
        /// Where the keys go (mode 0700, files 0600).
        directory: PathBuf,
    },
    /// Add the keys that an earlier version did not make. Changes nothing that is there.
    Complete {
        /// A directory made by `init`.
        directory: PathBuf,
    },
    /// Add the keys that a Jetson board's boot ROM asks for: firmware signing keys, and the secrets that are burned into
    /// its fuses. Changes nothing that is there.
    Jetson {
        /// A directory made by `init`.
        directory: PathBuf,
        /// Which generation.
        #[arg(value_parser = |name: &str| Jetson::named(name).ok_or("orin or xavier"))]
        generation: Jetson,
    },
    /// Make a further key that signs what the firmware starts. Releases tell the firmware of it after
    /// `belvedere-image trust`, and are signed with it by `belvedere-image build --db-key`.
    RenewDb {
        /// A directory made by `init`.
        directory: PathBuf,
    },
    /// List the files of a hierarchy with fingerprints and expiry. Shows no private key.
    Show {
        /// A directory made by `init`.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belvedere-keys: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::Init { directory } => {
            let keys = create(&directory, Validity::default())?;
            println!("New development keys in {}:", keys.path().display());
            show(&keys)
        }
        Command::Complete { directory } => {
            for name in complete(&directory)? {
                println!("New: {}", directory.join(name).display());
            }
            Ok(())
        }
        Command::Jetson { directory, generation } => {
            for name in jetson::create(&KeyDirectory::open(&directory)?, generation)? {
                println!("New: {}", directory.join(name).display());
            }
            Ok(())
        }
        Command::RenewDb { directory } => {
            let keys = KeyDirectory::open(&directory)?;
            let number = renew_db(&keys, Validity::default())?;
            println!("New: {}", keys.db_key(number)?.certificate.display());
            Ok(())
        }
        Command::Show { directory } => show(&KeyDirectory::open(&directory)?),
    }
}

fn show(keys: &KeyDirectory) -> Result<(), Error> {
    for file in describe(keys)? {
        let kind = match file.kind {
            KeyFile::Private => "private",
            KeyFile::Public => "public",
        };
        let fingerprint = file.fingerprint.map(|print| format!("sha256 {print}"));
        let expires = file.expires.map(|end| format!("until {end}"));
        let details: Vec<String> = [file.value, fingerprint, expires].into_iter().flatten().collect();
        println!("{:15} {kind:8} {}", file.name, details.join("  "));
    }
    Ok(())
}

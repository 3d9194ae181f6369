//! `belvedere-factory-fuses`: burns the fuses of a Jetson board. Does not, unless told to.

use belvedere_factory_fuses::bench::{Fused, Run};
use belvedere_factory_fuses::chip::{Chip, Jetson};
use belvedere_factory_fuses::nvidia::{Nvidia, burn_command, read_command, typed};
use belvedere_factory_fuses::plan::{Wanted, plan};
use belvedere_factory_fuses::procedure::{Done, Order, carry_out};
use belvedere_factory_fuses::reading::parse;
use belvedere_factory_fuses::secret::Secret;
use belvedere_factory_fuses::table;
use belvedere_keys::jetson::FuseSecret;
use belvedere_keys::{KeyDirectory, Purpose};
use clap::Parser;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Burn the fuses of a Jetson board for Belvedere. Without --burn it is a dry run: nothing is burned. Without --tools it
/// only shows the plan. Burning cannot be undone, by anybody.
#[derive(Parser)]
#[command(name = "belvedere-factory-fuses")]
struct Arguments {
    /// Generation of the board: orin or xavier.
    #[arg(long, value_parser = |name: &str| Jetson::named(name).ok_or("orin or xavier"))]
    chip: Jetson,
    /// Key directory, with the keys that `belvedere-keys jetson` made.
    #[arg(long)]
    keys: PathBuf,
    /// Rollback level.
    #[arg(long, default_value_t = 0)]
    level: u32,
    /// The owner's own number for the board, such as its serial number: up to 16 hexadecimal digits.
    #[arg(long, value_parser = |digits: &str| u64::from_str_radix(digits.trim_start_matches("0x"), 16))]
    odm_id: Option<u64>,
    /// Do not encrypt the firmware: leave the SBK out.
    #[arg(long)]
    without_encryption: bool,
    /// Leave the key out that wraps OP-TEE's keys.
    #[arg(long)]
    without_oem_key: bool,
    /// Leave the debug port open.
    #[arg(long)]
    keep_debug_port: bool,
    /// Do not burn SecurityMode yet.
    #[arg(long)]
    leave_open: bool,
    /// What is in the fuses, as odmfuseread.sh said it into a file: for a plan without a board.
    #[arg(long, conflicts_with = "tools")]
    current: Option<PathBuf>,
    /// NVIDIA's Linux_for_Tegra, with a board in recovery mode connected. Run as root.
    #[arg(long, requires_all = ["target", "log"])]
    tools: Option<PathBuf>,
    /// NVIDIA's name of board and carrier, such as jetson-agx-orin-devkit.
    #[arg(long)]
    target: Option<String>,
    /// The board has our key already.
    #[arg(long)]
    fused: bool,
    /// File that what was burned is added to.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Burn, after two questions.
    #[arg(long, requires = "tools")]
    burn: bool,
    /// Burn the keys of a development hierarchy: the board is for development for ever.
    #[arg(long)]
    development_board: bool,
}

fn main() -> ExitCode {
    // NVIDIA's scripts copy the configuration around; nobody else shall read the copies.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match run(Arguments::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("belvedere-factory-fuses: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<&'static str, Box<dyn Error>> {
    let chip = arguments.chip;
    let keys = KeyDirectory::open(&arguments.keys)?;
    if arguments.burn && keys.purpose()? == Purpose::Development && !arguments.development_board {
        return Err("these are development keys: --development-board makes a board that trusts them for ever".into());
    }
    let moduli: Result<Vec<_>, _> = chip.signing_keys().iter().map(|stem| keys.jetson_modulus(chip, stem)).collect();
    let moduli = moduli?;
    let secret = |kind, left_out| match left_out {
        true => Ok(None),
        false => keys.jetson_secret(chip, kind).map(|bytes| Some(Secret::new(bytes))),
    };
    let wanted = Wanted {
        chip,
        key_hashes: moduli.iter().map(|modulus| chip.key_hash(modulus)).collect(),
        secure_boot_key: secret(FuseSecret::SecureBoot, arguments.without_encryption)?,
        oem_key: secret(FuseSecret::Oem, arguments.without_oem_key)?,
        level: arguments.level,
        odm_id: arguments.odm_id,
        close_debug: !arguments.keep_debug_port,
        close: !arguments.leave_open,
    };
    let encrypted = wanted.secure_boot_key.is_some();
    let fused = Fused { signed: arguments.fused, encrypted: arguments.fused && encrypted };
    let first = chip.signing_keys().first().ok_or("no signing key")?;
    // NVIDIA's scripts change their directory.
    let signing_key = std::path::absolute(keys.jetson_signing_key(first))?;
    let sbk = std::path::absolute(keys.jetson_secret_file(chip, FuseSecret::SecureBoot))?;
    let sbk = encrypted.then_some(sbk);

    let (Some(tools), Some(target), Some(log)) = (arguments.tools, arguments.target.clone(), arguments.log) else {
        let reading = arguments.current.map(|path| read_file(chip, &path)).transpose()?;
        let plan = plan(&wanted, reading.as_ref())?;
        let target = arguments.target.as_deref().unwrap_or("TARGET");
        print!("{}", table::text(&plan));
        let read = read_command(chip, target, fused, &signing_key, sbk.as_deref());
        let xml = Path::new("FUSES.xml");
        println!("\nWith --tools it would run, in NVIDIA's Linux_for_Tegra:\n  {}", typed(&read));
        for run in [Run::Test, Run::Burn] {
            println!("  {}", typed(&burn_command(chip, target, run, xml, fused, &signing_key, sbk.as_deref())));
        }
        return Ok("Only a plan: no board was read, and nothing was burned.");
    };
    let secrets = wanted.secure_boot_key.iter().chain(&wanted.oem_key).cloned().collect();
    let scratch = tempfile::tempdir()?;
    let tools = std::path::absolute(tools)?;
    let mut bench = Nvidia { chip, tools, target, signing_key, secure_boot_key: sbk, scratch, log, secrets };
    let order = Order { wanted, moduli, fused, burn: arguments.burn };
    Ok(match carry_out(&mut bench, &order)? {
        Done::Nothing => "The board is as it should be.",
        Done::Tried => "The dry run found nothing wrong.",
        Done::Burned => "Burned, and read back as planned.",
    })
}

fn read_file(chip: Jetson, path: &Path) -> Result<belvedere_factory_fuses::reading::Reading, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(parse(chip, &bytes)?)
}

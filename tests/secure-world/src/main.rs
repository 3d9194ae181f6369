//! The first and only program of a machine in QEMU: asks the keeper for what `keeper=` on the kernel's command line says, a
//! comma between, prints a line for each, and switches the machine off. `tests/keeper.rs` starts it.
//!
//! | word | | line |
//! |---|---|---|
//! | `level` | | level, `closed` or `open` |
//! | `open:N`, `renew:N` | for a release of level N | system secret, data secret, level |
//! | `raise:N` | | |
//! | `close` | | |
//! | `make` | | wrapped key, point |
//! | `sign:HEX` | with a wrapped key, or `last` for the one made last | signature of [`DIGEST`] |
//! | `crash` | only with the keeper that has this command | |
//! | `raw:N` | a command by number, without parameters | |

use belvedere_durable::DeviceFile;
use belvedere_secure_world::device::OpTee;
use belvedere_secure_world::keeper::{Keeper, KeeperError, Secrets};
use belvedere_secure_world::store::Store;
use belvedere_secure_world::{Argument, SecureWorld, Session, supplicant};
use belvedere_tee::keeper::APPLICATION;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// What is signed: in place of a digest.
const DIGEST: [u8; 32] = [0x5a; 32];
/// Where the secure world's storage lies.
const DISK: &str = "/dev/vda";

fn main() {
    if std::process::id() != 1 {
        eprintln!("belvedere-secure-world-machine: only as the first program of a machine in QEMU");
        return;
    }
    if let Err(error) = everything() {
        println!("keeper: failed: {error}");
    }
    println!("keeper: end");
    std::thread::sleep(Duration::from_millis(200));
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}

fn words<E: Display>(error: E) -> String {
    error.to_string()
}

fn everything() -> Result<(), String> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None).map_err(words)?;
    let script = std::env::var("keeper").map_err(words)?;
    let begun = Instant::now();
    let device = loop {
        match DeviceFile::open(DISK) {
            Ok(device) => break device,
            Err(error) if begun.elapsed() > Duration::from_secs(20) => return Err(error.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut files = Store::open(device).map_err(words)?;
    let helper = supplicant::Device::open().map_err(words)?;
    std::thread::spawn(move || println!("keeper: helper: {}", supplicant::serve(&helper, &mut files)));
    let world = OpTee::open().map_err(words)?;
    println!("keeper: op-tee");
    let mut last = Vec::new();
    for (index, word) in script.split(',').enumerate() {
        let begun = Instant::now();
        let answer = ask(&world, word, &mut last);
        let took = begun.elapsed().as_micros() as f64 / 1000.0;
        match answer {
            Ok(answer) => println!("keeper: {index} {answer}"),
            Err(error) => println!("keeper: {index} no: {error}"),
        }
        println!("keeper: took {index} {took:.1}");
    }
    Ok(())
}

/// A session for each, so that none is a way around another.
fn ask(world: &OpTee, word: &str, last: &mut Vec<u8>) -> Result<String, String> {
    let (word, value) = word.split_once(':').unwrap_or((word, ""));
    let number = || value.parse::<u32>().map_err(words);
    let both = |secrets: Result<Secrets, KeeperError>| {
        let secrets = secrets.map_err(words)?;
        Ok::<_, String>(format!("{} {} {}", hex::encode(*secrets.system), hex::encode(*secrets.data), secrets.level))
    };
    if let "raw" | "crash" = word {
        let number = if word == "crash" { 0xdead } else { number()? };
        let mut session = world.open(&APPLICATION).map_err(words)?;
        session.command("ask for anything", number, [const { Argument::None }; 4]).map_err(words)?;
        return Ok("done".to_owned());
    }
    let mut keeper = Keeper::open(world).map_err(words)?;
    Ok(match word {
        "level" => {
            let standing = keeper.level().map_err(words)?;
            let level = standing.level.map_or_else(|| "none".to_owned(), |level| level.to_string());
            format!("{level} {}", if standing.closed { "closed" } else { "open" })
        }
        "open" => both(keeper.secrets(number()?))?,
        "renew" => both(keeper.renew_data(number()?))?,
        "raise" => keeper.raise(number()?).map(|()| "raised".to_owned()).map_err(words)?,
        "close" => keeper.close().map(|()| "closed".to_owned()).map_err(words)?,
        "make" => {
            let made = keeper.make_key().map_err(words)?;
            let line = format!("{} {}", hex::encode(&made.wrapped), hex::encode(made.point));
            *last = made.wrapped;
            line
        }
        "sign" => {
            let wrapped = if value == "last" { last.clone() } else { hex::decode(value).map_err(words)? };
            hex::encode(keeper.sign(&wrapped, &DIGEST).map_err(words)?)
        }
        other => return Err(format!("there is no {other}")),
    })
}

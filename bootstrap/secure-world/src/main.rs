//! `belvedere-secure-world`: looks into the secure world, for people. What it changes is said in its usage.

use belvedere_secure_world::device::OpTee;
use belvedere_secure_world::device_key::DeviceKey;
use belvedere_secure_world::files::{Directory, Files};
use belvedere_secure_world::store::Store;
use belvedere_secure_world::{rollback, supplicant};
use std::process::ExitCode;

const USAGE: &str = "usage: belvedere-secure-world FILES COMMAND
FILES is where the secure world's storage lies: a directory, or a block device with a store.
COMMAND: level            prints the rollback level
         raise LEVEL      raises it, for ever
         key              prints the device key's point; makes the key when there is none
         sign DIGEST      signs a SHA-256 digest (64 hexadecimal digits) with it
         steal            asks for the private key, which must be refused";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("belvedere-secure-world: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<String, String> {
    let text = |error: belvedere_secure_world::Error| error.to_string();
    let [files, command @ ..] = words else { return Err(USAGE.to_owned()) };
    let mut files: Box<dyn Files + Send> = if std::path::Path::new(files).is_dir() {
        Box::new(Directory::new(files))
    } else {
        let device = belvedere_durable::DeviceFile::open(files).map_err(|error| error.to_string())?;
        Box::new(Store::open(device).map_err(|error| error.to_string())?)
    };
    let device = supplicant::Device::open().map_err(text)?;
    std::thread::spawn(move || eprintln!("belvedere-secure-world: {}", supplicant::serve(&device, &mut *files)));
    let world = OpTee::open().map_err(text)?;
    match command {
        ["level"] => rollback::read(&world).map(|level| level.to_string()).map_err(text),
        ["raise", level] => {
            let level = level.parse().map_err(|_| USAGE.to_owned())?;
            rollback::raise(&world, level).map(|()| format!("raised to {level}")).map_err(text)
        }
        ["key"] => DeviceKey::ensure(&world).and_then(|mut key| key.point()).map(hex::encode).map_err(text),
        ["sign", digest] => {
            let digest: [u8; 32] =
                hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| USAGE.to_owned())?;
            DeviceKey::ensure(&world).and_then(|mut key| key.sign(&digest)).map(hex::encode).map_err(text)
        }
        ["steal"] => DeviceKey::ensure(&world).and_then(|mut key| key.steal()).map(hex::encode).map_err(text),
        _ => Err(USAGE.to_owned()),
    }
}

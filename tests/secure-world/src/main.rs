//! The first and only program of a machine in QEMU: asks the secure world for everything that the appliance wants of it, says
//! what came, a line each, and switches the machine off. `tests/keeper.rs` starts it.

use belvedere_durable::DeviceFile;
use belvedere_secure_world::device::OpTee;
use belvedere_secure_world::device_key::DeviceKey;
use belvedere_secure_world::store::Store;
use belvedere_secure_world::{rollback, supplicant};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// What is signed: in place of a digest.
const DIGEST: [u8; 32] = [0x5a; 32];
/// The second disk line of the machine: where the secure world's storage lies.
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

    let level = rollback::read(&world).map_err(words)?;
    println!("keeper: level {level}");
    match rollback::raise(&world, level + 3) {
        Ok(()) => println!("keeper: raised to {}", level + 3),
        Err(error) => println!("keeper: not raised: {error}"),
    }
    match rollback::raise(&world, level) {
        Ok(()) => println!("keeper: lowered"),
        Err(error) => println!("keeper: not lowered: {error}"),
    }
    println!("keeper: level {}", rollback::read(&world).map_err(words)?);

    let mut key = DeviceKey::ensure(&world).map_err(words)?;
    println!("keeper: key {}", hex::encode(key.point().map_err(words)?));
    println!("keeper: signature {}", hex::encode(key.sign(&DIGEST).map_err(words)?));
    match key.steal() {
        Ok(bytes) => println!("keeper: stolen {}", hex::encode(bytes)),
        Err(error) => println!("keeper: not stolen: {error}"),
    }
    Ok(())
}

//! `belvedere-storage`: opens the volumes of the appliance's disk. Runs once, in the initial RAM file system, as a program of
//! its own: it parses what lies on the disk and holds the keys, and ends; PID 1 does neither.
//!
//! Order:
//! 1. wait for the disk's partitions;
//! 2. get the storage secrets from their keeper, the TPM or OP-TEE (`keeper`), which makes them at the first start; for a full
//!    reset the secret of `data` is written anew, and everything that was encrypted with the old one is gone;
//! 3. open each system volume, encrypting in place what left the factory plain; one that cannot be opened is told and left
//!    out, for another slot may start;
//! 4. open the `data` volume, making it at the first start;
//! 5. move the rollback fuses to the level of this release, when the slot table says that it is proven;
//! 6. close the phase: from here on the keeper gives out nothing until the next start.
//!
//! A power cut after any of them: the next start does it again, from where it was. What was opened is written to standard
//! output, a line `NAME DEVICE BYTES` for each volume; what people should know goes to standard error.

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, Copies, PARTITION, Slot};
use belvedere_durable::{DeviceFile, read_block};
use belvedere_luks2::Passphrase;
use belvedere_storage::StorageError;
use belvedere_storage::crypt;
use belvedere_storage::device_mapper::Access;
use belvedere_storage::encrypt::{self, Prepared, Request, Surroundings, kernel_random};
use belvedere_storage::keeper::{
    Has, Keeper, Kind, RunningRelease, SecureWorldKeeper, TpmKeeper, kind, names_tpm, secure_world,
};
use belvedere_storage::mapped::PREFIX;
use belvedere_storage::partitions::{self, Partition};
use belvedere_storage::secrets::Secrets;
use belvedere_storage::volume::{Geometry, Purpose};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long to wait for the disk, and then for further partitions once there is one: they appear together.
const DISK_TIME: Duration = Duration::from_secs(20);
const SETTLE_TIME: Duration = Duration::from_secs(1);
const USAGE: &str = "usage: belvedere-storage open --policy-key FILE --policy FILE --level NUMBER [--expected FILE] \
                     [--table DEVICE] [--slot a|b|minimum] [--destroy data]";

type Result<T> = std::result::Result<T, String>;

fn words<E: Display>(error: E) -> String {
    error.to_string()
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let opened = Arguments::parse(&arguments).and_then(|arguments| open(&arguments));
    match opened {
        Ok(volumes) => {
            for volume in volumes {
                println!("{} {} {}", volume.name, volume.device.display(), volume.size);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// What `init` asks for.
struct Arguments {
    release: RunningRelease,
    /// The partition with the slot table, on the appliance's disk: another disk may have one, too.
    table: Option<PathBuf>,
    slot: Option<Slot>,
    /// Everything in `data` is destroyed first: its secret in the TPM, and its header.
    destroy_data: bool,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Arguments> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((&"open", options)) = words.split_first() else { return Err(USAGE.to_owned()) };
        let value = |name: &str| options.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1).copied());
        let known = |pair: &[&str]| {
            pair.len() == 2
                && ["--policy-key", "--policy", "--level", "--expected", "--table", "--slot", "--destroy"].contains(&pair[0])
        };
        if !options.chunks(2).all(known) {
            return Err(USAGE.to_owned());
        }
        let file = |name: &str| value(name).map(PathBuf::from).ok_or_else(|| USAGE.to_owned());
        let slot = value("--slot").map(|name| Slot::from_name(name).ok_or_else(|| USAGE.to_owned())).transpose()?;
        let destroy_data = match value("--destroy") {
            None => false,
            Some("data") => true,
            Some(_) => return Err(USAGE.to_owned()),
        };
        let release = RunningRelease {
            policy_key: file("--policy-key")?,
            policy: file("--policy")?,
            level: value("--level").and_then(|level| level.parse().ok()).ok_or_else(|| USAGE.to_owned())?,
            expected: value("--expected").map(PathBuf::from),
        };
        Ok(Arguments { release, table: value("--table").map(PathBuf::from), slot, destroy_data })
    }
}

/// Everything, in the order that the head of this file gives.
fn open(arguments: &Arguments) -> Result<Vec<Partition>> {
    let disk = arguments.table.as_deref().and_then(disk_with);
    let found = wait_for_disk(disk.as_deref())?;
    let mut keeper = keeper(&arguments.release, &found)?;
    let secrets = keeper.secrets(arguments.destroy_data, &mut say)?;

    let mut volumes = Vec::new();
    for slot in Slot::ALL {
        // The updater writes to the others.
        let access = if Some(slot) == arguments.slot { Access::ReadOnly } else { Access::Writable };
        let opened = partitions::find(&found, slot.system())
            .map_err(words)
            .and_then(|partition| open_volume(partition, (Purpose::System, access), &secrets, encrypt::prepare));
        match opened {
            Ok(volume) => volumes.push(volume),
            Err(error) => say(&format!("{}: left out: {error}", slot.system())),
        }
    }
    let data = partitions::find(&found, "data").map_err(words)?;
    let prepare = if arguments.destroy_data { encrypt::recreate } else { encrypt::prepare };
    volumes.push(open_volume(data, (Purpose::Data, Access::Writable), &secrets, prepare)?);
    drop(secrets);

    if arguments.slot.is_some_and(|slot| is_proven(&found, slot)) {
        // What keeps an old release out is no reason to keep this one from starting.
        if let Err(error) = keeper.raise_fuses(&mut say) {
            say(&error);
        }
    }
    keeper.close()?;
    if has_tpm()
        && has_op_tee()
        && let Err(error) = secure_world::close_unused()
    {
        say(&format!("OP-TEE, which keeps nothing here, is not closed: {error}"));
    }
    Ok(volumes)
}

fn has_tpm() -> bool {
    Path::new(belvedere_tpm_device::DEVICE).exists()
}

fn has_op_tee() -> bool {
    Path::new(belvedere_secure_world::DEVICE).exists()
}

/// Who keeps the secrets on this board.
fn keeper(release: &RunningRelease, found: &[Partition]) -> Result<Box<dyn Keeper>> {
    Ok(match kind(Has { tpm: has_tpm(), tpm_named: names_tpm(Path::new("/sys")), op_tee: has_op_tee() })? {
        Kind::Tpm => Box::new(TpmKeeper::open(release)?),
        Kind::SecureWorld => Box::new(SecureWorldKeeper::open(release, found)?),
    })
}

/// The directory in sysfs of a partition's disk.
fn disk_with(partition: &Path) -> Option<PathBuf> {
    partitions::disk_below(Path::new(partitions::SYSFS).join(partition.file_name()?))
}

/// The disk's partitions, once all that an appliance has are there: what another disk calls `data` is not the appliance's.
/// Without one those of all disks (development), which then may not have two of a name.
fn wait_for_disk(disk: Option<&Path>) -> Result<Vec<Partition>> {
    let begun = Instant::now();
    let mut first_seen: Option<Instant> = None;
    loop {
        let found = partitions::list_on(partitions::SYSFS, disk).map_err(words)?;
        let is_there = |name: &str| found.iter().any(|partition| partition.name == name);
        let wanted = Slot::ALL.map(Slot::system);
        if is_there("data") && is_there(PARTITION) && wanted.iter().all(|name| is_there(name)) {
            return Ok(found);
        }
        if is_there("data") || wanted.iter().any(|name| is_there(name)) {
            first_seen.get_or_insert_with(Instant::now);
        }
        if first_seen.is_some_and(|seen| seen.elapsed() >= SETTLE_TIME) {
            return Ok(found);
        }
        if begun.elapsed() >= DISK_TIME {
            return Err(format!("no partition named {} or data; is the disk there?", wanted.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`encrypt::prepare`], or [`encrypt::recreate`].
type Prepare = fn(&mut DeviceFile, &Request<'_>, &mut Surroundings<'_>) -> std::result::Result<Prepared, StorageError>;

/// Makes, encrypts or mends the volume as need be, and opens it.
fn open_volume(
    partition: &Partition,
    (purpose, access): (Purpose, Access),
    secrets: &Secrets,
    prepare: Prepare,
) -> Result<Partition> {
    let label = format!("{PREFIX}{}", partition.name);
    let passphrase = Passphrase::new(secrets.volume_passphrase(&partition.name).to_vec());
    let request = Request { purpose, label: &label, passphrase: &passphrase, geometry: Geometry::APPLIANCE };
    let mut surroundings = Surroundings { random: &mut kernel_random, report: &mut say, now: &Instant::now };
    let mut device = DeviceFile::open(&partition.device).map_err(words)?;
    let prepared = prepare(&mut device, &request, &mut surroundings).map_err(words)?;
    // The mapping claims the partition for itself.
    drop(device);
    if prepared.created {
        say(&format!("{}: made a new encrypted volume", partition.name));
    }
    let opened = crypt::open(&label, partition, &prepared, access).map_err(words)?;
    Ok(Partition { name: partition.name.clone(), device: opened.path, size: opened.size })
}

fn is_proven(found: &[Partition], slot: Slot) -> bool {
    let Ok(partition) = partitions::find(found, PARTITION) else { return false };
    let read = |offset| read_block(&partition.device, offset, BLOCK).unwrap_or_default();
    let copies = Copies::read(&read(COPY_OFFSETS[0]), &read(COPY_OFFSETS[1]));
    copies.current().is_some_and(|table| table.proves(slot))
}

//! All stages in order: what `belvedere-image build` does.

use crate::board::{Board, Sizes};
use crate::cache::{Cache, Inputs, Stage, digest_file};
use crate::error::{Error, Result};
use crate::manifest::{DebianPackage, Kernel, Manifest};
use crate::programs::{MissingParts, Programs};
use crate::progress::Progress;
use crate::root_image::Facts;
use crate::root_tree::Ingredients;
use crate::secure_boot_measurement::{SecureBootVariables, Start};
use crate::unified_kernel::{Parts, Release};
use crate::{
    boot_partition, debian, device_tree, disk, firmware_variables, initramfs, kernel, key_updates, python, root_image,
    root_tree, secure_boot_measurement, signing, unified_kernel,
};
use belvedere_boot_slots::{self as boot_slots, Record, Slot, State, Table};
use belvedere_keys::{KeyDirectory, Purpose, UefiKey};
use belvedere_secure_boot::program::Program;
use belvedere_secure_boot::updates::{self, Update};
use belvedere_secure_boot::{Database, Malformed, lists};
use belvedere_tpm::boot_policy::MAXIMUM_ENTRIES;
use std::fs;
use std::path::{Path, PathBuf};

/// What to build.
pub struct Request {
    /// For which board.
    pub board: &'static Board,
    /// Made by `belvedere-keys init`.
    pub keys: PathBuf,
    /// See [`crate::programs`].
    pub programs: PathBuf,
    /// Where the results go; made if need be.
    pub output: PathBuf,
    /// Where results of stages are kept.
    pub cache: PathBuf,
    /// As in `1.2.3`.
    pub version: String,
    /// On an appliance whose fuses are above it, the release never starts.
    pub rollback_level: u32,
    /// Which key of the key directory signs bootloader and unified kernel image; 1 is the factory's.
    pub db_key: u32,
    /// What to do about parts that are not there.
    pub missing_parts: MissingParts,
    /// Whether the image is for development: it has a console, may lack parts, and may be signed with development keys.
    pub development: bool,
}

/// Builds the image. `output` then holds `disk.img`, `firmware-variables.fd`, `uki.efi`, `bootloader.efi`, `root.erofs` (with its
/// verity tree), `root-hash`, `device-tree.dtb`, `manifest.json` and `build-report.txt`.
///
/// # Errors
/// See [`Error`].
pub fn build(request: &Request, progress: &mut Progress) -> Result<()> {
    check_version(&request.version)?;
    let keys = KeyDirectory::open(&request.keys)?;
    check_purpose(request.development, request.missing_parts, keys.purpose()?)?;
    let programs = Programs::open(&request.programs, request.missing_parts)?;
    for part in &programs.missing {
        progress.warn(&format!("{part} is missing; the image is made without it"));
    }
    let cache = Cache::open(&request.cache)?;
    let _lock = cache.lock()?;
    let board = request.board;

    let begun = progress.begin("packages", "which versions Debian offers");
    let mut names = vec![kernel::SOURCE_PACKAGE.to_owned()];
    let wanted = root_tree::wanted(root_tree::PACKAGES);
    names.extend(wanted.iter().map(|wanted| format!("{}:arm64", wanted.package)));
    let mut packages = debian::resolve(&names)?;
    let kernel_source = packages.remove(0);
    progress.done("packages", begun, &format!("{} of them", packages.len()));

    let tools = python::tools(&cache, progress)?;
    let kernel = kernel::build(&cache, board, &kernel_source, progress)?;
    let device_tree = device_tree::build(&cache, board, progress)?;
    let onnx_runtime = python::onnx_runtime(&cache, &tools, progress)?;
    let initramfs = initial_ram_disk(&cache, &keys, &programs)?;

    let manifest = Manifest {
        version: request.version.clone(),
        board: board.name.into(),
        kernel: Kernel {
            source_package: DebianPackage::from(&kernel_source),
            configuration_sha256: hex::encode(digest_file(&kernel.file("config"))?),
            image_sha256: hex::encode(digest_file(&kernel.file("Image"))?),
        },
        debian_packages: packages.iter().map(DebianPackage::from).collect(),
        python_wheels: python::WHEELS.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect(),
        files: Vec::new(),
    };
    let ingredients = Ingredients {
        packages: &packages,
        programs: &programs,
        onnx_runtime: &onnx_runtime.directory,
        version: &request.version,
        board: board.name,
    };
    let (root, facts) = root_image::build(&cache, &ingredients, manifest, progress)?;

    let parts = Parts {
        stub: &programs.kernel_stub(),
        kernel: &kernel.file("Image"),
        initramfs: &initramfs.file("initramfs.zst"),
        device_tree: &device_tree.file("device-tree.dtb"),
    };
    let mut line =
        unified_kernel::command_line(board, &facts, &request.version, request.rollback_level, request.development);
    if !programs.missing.is_empty() {
        // `init` does not take the missing programs for a fault.
        line += " belvedere.development";
    }
    let signed = sign_all(&cache, &keys, &tools, request, &parts, &programs, &line, progress)?;

    let bytes = |path: PathBuf| fs::metadata(&path).map(|found| found.len()).map_err(Error::file("look at", path));
    board.sizes.check(board.name, bytes(signed.file("uki.efi"))?, bytes(root.file("root.erofs"))?)?;
    let begun = progress.begin("disk", "boot partitions and partition table");
    let output = &request.output;
    fs::create_dir_all(output).map_err(Error::file("create", output))?;
    for (from, name) in [
        (root.file("root.erofs"), "root.erofs"),
        (root.file("manifest.json"), "manifest.json"),
        (signed.file("uki.efi"), "uki.efi"),
        (signed.file("bootloader.efi"), "bootloader.efi"),
        (signed.file("firmware-variables.fd"), "firmware-variables.fd"),
        (device_tree.file("device-tree.dtb"), "device-tree.dtb"),
    ] {
        replace(&output.join(name), |path| fs::copy(&from, path).map(|_| ()).map_err(Error::file("copy", &from)))?;
    }
    let hash_text = format!("{}\n", facts.root_hash);
    replace(&output.join("root-hash"), |path| fs::write(path, &hash_text).map_err(Error::file("write", path)))?;
    replace(&output.join("disk.img"), |path| make_disk(path, board.sizes, &signed, &root, &facts, request.rollback_level))?;
    progress.done("disk", begun, "written");

    let report = output.join("build-report.txt");
    fs::write(&report, progress.report()).map_err(Error::file("write", &report))
}

/// An image that is handed out is whole and signed with keys that are for that.
fn check_purpose(development: bool, missing_parts: MissingParts, keys: Purpose) -> Result<()> {
    let refuse = |reason: &str| Err(Error::invalid("an image for production", reason));
    match (development, missing_parts, keys) {
        (true, ..) => Ok(()),
        (false, MissingParts::Leave, _) => refuse("must have every part: leave out --allow-missing, or say --development"),
        (false, _, Purpose::Development) => refuse(
            "cannot be signed with development keys: give a directory whose file `purpose` says production, or say --development",
        ),
        (false, MissingParts::Refuse, Purpose::Production) => Ok(()),
    }
}

fn check_version(version: &str) -> Result<()> {
    let parts: Vec<&str> = version.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(number) {
        return Ok(());
    }
    Err(Error::invalid(format!("version {version:?}"), "must be three numbers, as in 1.2.3"))
}

fn initial_ram_disk(cache: &Cache, keys: &KeyDirectory, programs: &Programs) -> Result<Stage> {
    let (init, storage, policy_key) = (programs.init(), programs.storage(), keys.policy_modulus()?);
    let inputs = Inputs::new("initramfs 2")
        .with_file("init", &init)?
        .with_file("storage", &storage)?
        .with("policy key", policy_key.as_slice());
    let contents = initramfs::Contents { init: &init, storage: &storage, policy_key: &policy_key };
    cache.stage("initramfs", &inputs, |directory| initramfs::make(&contents, &directory.join("initramfs.zst")))
}

/// Everything that is signed: the stage holds `bootloader.efi`, `uki.efi` and `firmware-variables.fd`.
#[expect(clippy::too_many_arguments, reason = "each is a result of another stage")]
fn sign_all(
    cache: &Cache,
    keys: &KeyDirectory,
    tools: &Path,
    request: &Request,
    parts: &Parts<'_>,
    programs: &Programs,
    command_line: &str,
    progress: &mut Progress,
) -> Result<Stage> {
    let board = request.board;
    let begun = progress.begin("signing", "bootloader, unified kernel image, firmware variables");
    let db_key = keys.db_key(request.db_key)?;
    let updates = key_updates::read(keys)?;
    if request.db_key > 1 {
        progress.warn("firmware that was never told of this db key does not start this: disk.img is for no new appliance");
    }
    let mut inputs = Inputs::new("signed 6")
        .with("policy key", keys.policy_modulus()?.as_slice())
        .with("command line", command_line)
        .with("rollback level", request.rollback_level.to_string())
        .with("guid", keys.owner_guid()?)
        .with("variables", firmware_variables::settings_text(board));
    for key in UefiKey::ALL {
        inputs = inputs.with_file("certificate", &keys.uefi_certificate(key))?;
    }
    for number in 1..=request.db_key {
        inputs = inputs.with_file("db key", &keys.db_key(number)?.certificate)?;
    }
    for (database, update) in &updates {
        inputs = inputs.with("update", database.name()).with("update", update.as_slice());
    }
    for (label, path) in
        [("stub", parts.stub), ("kernel", parts.kernel), ("initramfs", parts.initramfs), ("device tree", parts.device_tree)]
    {
        inputs = inputs.with_file(label, path)?;
    }
    inputs = inputs.with_file("bootloader", &programs.bootloader())?;
    inputs = inputs.with_file("firmware variables", Path::new(board.firmware_variables_template))?;
    inputs = inputs.with("tools", tools.as_os_str().as_encoded_bytes());
    let stage = cache.stage("signed", &inputs, |directory| {
        let bootloader = directory.join("bootloader.efi");
        signing::sign(&db_key, &programs.bootloader(), &bootloader)?;
        let factory = firmware_variables::make(tools, keys, board, &directory.join("firmware-variables.fd"))?;
        let (updates, starts) = known_updates(keys, &updates, request.db_key, &factory, &bootloader)?;
        let release = Release {
            command_line,
            rollback_level: request.rollback_level,
            starts: &starts,
            updates: updates.as_deref(),
            db_key: &db_key,
        };
        unified_kernel::make(keys, parts, &release, directory, &directory.join("uki.efi"))
    })?;
    progress.done("signing", begun, if stage.warm { "from the cache" } else { "done" });
    Ok(stage)
}

/// The section with updates, if there are any, and every way in which the release starts.
fn known_updates(
    keys: &KeyDirectory,
    updates: &[(Database, Vec<u8>)],
    db_key: u32,
    factory: &SecureBootVariables,
    bootloader: &Path,
) -> Result<(Option<Vec<u8>>, Vec<Start>)> {
    let invalid = |error: Malformed| Error::invalid("the updates of the firmware's key databases", error.to_string());
    let updates =
        updates.iter().map(|(database, bytes)| Update::new(*database, bytes)).collect::<std::result::Result<Vec<_>, _>>();
    let updates = updates.map_err(invalid)?;
    let certificates = (1..=db_key)
        .map(|number| {
            let path = keys.db_key(number)?.certificate_der;
            Ok((number, fs::read(&path).map_err(Error::file("read", path))?))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut starts = secure_boot_measurement::starts(factory, &updates, &certificates)?;
    // A policy has room for the latest ones. An appliance that is further behind keeps its release until it got one between.
    starts.drain(..starts.len().saturating_sub(MAXIMUM_ENTRIES));
    let program = fs::read(bootloader).map_err(Error::file("read", bootloader))?;
    let program = Program::read(&program);
    for update in updates.iter().filter(|update| update.database == Database::Dbx) {
        let revoked = lists::signatures(update.lists).map_err(invalid)?;
        if program.is_none_or(|program| program.is_forbidden_by(&revoked)) {
            return Err(Error::invalid("the bootloader", "is revoked by the updates in the key directory"));
        }
    }
    let section = if updates.is_empty() { None } else { Some(updates::encode(&updates).map_err(invalid)?) };
    Ok((section, starts))
}

fn make_disk(path: &Path, sizes: Sizes, signed: &Stage, root: &Stage, facts: &Facts, rollback_level: u32) -> Result<()> {
    let (bootloader, uki) = (signed.file("bootloader.efi"), signed.file("uki.efi"));
    let mut partitions = Vec::new();
    let files = boot_files(&bootloader, &uki);
    let files: Vec<(&str, &Path)> = files.iter().map(|(name, source)| (name.as_str(), *source)).collect();
    for (slot, serial) in [(Slot::A, 0xbe1f_000a), (Slot::B, 0xbe1f_000b)] {
        let partition = path.with_extension(slot.esp());
        boot_partition::make(&partition, sizes.esp, &slot.esp().to_uppercase(), serial, &files)?;
        partitions.push(partition);
    }
    let slices = disk::layout(
        sizes,
        partitions[0].clone(),
        partitions[1].clone(),
        slot_table(rollback_level),
        root.file("root.erofs"),
    );
    disk::make(path, &slices, facts.root_hash.as_bytes())?;
    for partition in partitions {
        fs::remove_file(&partition).map_err(Error::file("remove", &partition))?;
    }
    Ok(())
}

/// What each ESP of a new appliance holds, path and source: the bootloader, and the kernel image of every slot that is not
/// empty. Both hold the same: one can be lost and the appliance starts from the other.
fn boot_files<'a>(bootloader: &'a Path, uki: &'a Path) -> Vec<(String, &'a Path)> {
    let kernel = |slot: Slot| slot.kernel_path().trim_start_matches('\\').replace('\\', "/");
    // Slots b and minimum are empty until the first update.
    vec![("EFI/BOOT/BOOTAA64.EFI".to_owned(), bootloader), (kernel(Slot::A), uki)]
}

/// The table of a new appliance: slot a is good, the others are empty.
fn slot_table(rollback_level: u32) -> Vec<u8> {
    let record = Record { state: State::Written, rollback_level, starts: 0 };
    let table = Table::empty(Slot::A).with(Slot::A, record).committed(Slot::A);
    let mut bytes = vec![0; boot_slots::PARTITION_SIZE as usize];
    for (copy, offset) in boot_slots::initial(table).iter().zip(boot_slots::COPY_OFFSETS) {
        let start = offset as usize;
        bytes[start..start + copy.len()].copy_from_slice(copy);
    }
    bytes
}

/// Makes a file beside its place and moves it there, so that an interrupted build leaves the old one.
fn replace(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = path.with_extension("new");
    make(&temporary)?;
    fs::rename(&temporary, path).map_err(Error::file("rename", &temporary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{program, run};

    #[test]
    fn a_new_appliance_starts_slot_a() {
        let bytes = slot_table(7);
        let [first, second] =
            boot_slots::COPY_OFFSETS.map(|offset| &bytes[offset as usize..offset as usize + boot_slots::BLOCK]);
        let table = boot_slots::Copies::read(first, second).current().unwrap();
        assert_eq!((table.preferred, table.last_good, table.generation), (Slot::A, Some(Slot::A), 2));
        assert_eq!(table.record(Slot::A), Record { state: State::Good, rollback_level: 7, starts: 0 });
        assert_eq!(table.record(Slot::B).state, State::Empty);
    }

    /// boot D18: of a new appliance's ESPs one had the only kernel image of the whole disk.
    #[test]
    fn either_esp_alone_has_what_a_start_needs() {
        let directory = tempfile::tempdir().unwrap();
        let stage = Stage { directory: directory.path().to_owned(), hash: String::new(), warm: false };
        for name in ["bootloader.efi", "uki.efi", "root.erofs"] {
            fs::write(stage.file(name), name).unwrap();
        }
        let facts = Facts { root_hash: "00".into(), data_blocks: 1, salt: String::new() };
        let (path, sizes) = (directory.path().join("disk.img"), crate::board::find("qemu-aarch64").unwrap().sizes);
        make_disk(&path, sizes, &stage, &stage, &facts, 0).unwrap();
        for (number, esp) in [Slot::A, Slot::B].map(Slot::esp).into_iter().enumerate() {
            // The first partition begins at 1 MiB, the second one follows it.
            let start = (1 << 20) + number as u64 * sizes.esp;
            let read = |name: &str| {
                let image = format!("{}@@{start}", path.display());
                run(program("mtype").args(["-i", &image, &format!("::{name}")]), "reading").unwrap()
            };
            assert_eq!(read("EFI/BOOT/BOOTAA64.EFI"), b"bootloader.efi", "{esp}");
            let table = slot_table(0);
            let table = boot_slots::decode(&table[..boot_slots::BLOCK]).unwrap();
            for slot in Slot::ALL.into_iter().filter(|slot| table.record(*slot).state != State::Empty) {
                assert_eq!(read(&slot.kernel_path().replace('\\', "/")), b"uki.efi", "{esp}");
            }
        }
    }

    /// boot L14.
    #[test]
    fn an_image_for_production_is_whole_and_not_signed_with_development_keys() {
        for missing in [MissingParts::Leave, MissingParts::Refuse] {
            for keys in [Purpose::Development, Purpose::Production] {
                assert!(check_purpose(true, missing, keys).is_ok());
                let whole = missing == MissingParts::Refuse && keys == Purpose::Production;
                assert_eq!(check_purpose(false, missing, keys).is_ok(), whole, "{missing:?} {keys:?}");
            }
        }
    }

    #[test]
    fn versions_are_three_numbers() {
        for right in ["0.1.0", "10.20.30"] {
            assert!(check_version(right).is_ok(), "{right}");
        }
        for wrong in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1..3", "1.2.3 init=/bin/sh", "1.2.999999"] {
            assert!(check_version(wrong).is_err(), "{wrong}");
        }
    }
}

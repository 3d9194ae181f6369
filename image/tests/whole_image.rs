//! The whole image from the parts that `scripts/build-appliance` gathered; run by
//! `scripts/cargo test -p belvedere-image -- --ignored` after it.

use belvedere_image::appliance::{Request, build};
use belvedere_image::program::{program, run};
use belvedere_image::programs::MissingParts;
use belvedere_image::progress::Progress;
use belvedere_image::root_image::Facts;
use belvedere_image::{board, verity};
use belvedere_kernel_stub::{Image, LINUX};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What takes long or comes from outside is taken from the user's cache; what this project makes is made anew.
const KEPT: &[&str] = &["kernel", "kernel-tree", "debian-packages", "onnxruntime", "build-tools"];

fn user_cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.expect("HOME is set").join("belvedere")
}

fn programs() -> PathBuf {
    let gathered = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/programs");
    let directory = std::env::var_os("BELVEDERE_PROGRAMS").map_or(gathered, PathBuf::from);
    assert!(directory.is_dir(), "{} is missing: run scripts/build-appliance", directory.display());
    directory
}

/// Builds with a cache that holds nothing of what this project makes.
fn build_anew(directory: &Path, name: &str, keys: &Path) -> PathBuf {
    let cache = directory.join(format!("cache-{name}"));
    fs::create_dir(&cache).unwrap();
    for kept in KEPT {
        let source = user_cache().join(kept);
        fs::create_dir_all(&source).unwrap();
        symlink(&source, cache.join(kept)).unwrap();
    }
    let output = directory.join(name);
    let request = Request {
        board: board::find("qemu-aarch64").unwrap(),
        keys: keys.to_owned(),
        programs: programs(),
        output: output.clone(),
        cache,
        version: "0.1.0".into(),
        rollback_level: 0,
        db_key: 1,
        missing_parts: match std::env::var_os("BELVEDERE_ALLOW_MISSING") {
            Some(_) => MissingParts::Leave,
            None => MissingParts::Refuse,
        },
        development: true,
    };
    build(&request, &mut Progress::new()).unwrap();
    output
}

fn same(first: &Path, second: &Path) -> bool {
    Command::new("cmp").arg("-s").args([first, second]).status().unwrap().success()
}

fn veritysetup_verify(image: &Path, facts: &Facts) -> bool {
    Command::new("veritysetup")
        .args(["verify", &format!("--hash-offset={}", facts.data_blocks * verity::BLOCK as u64)])
        .args([image, image])
        .arg(&facts.root_hash)
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
#[ignore = "needs the parts that scripts/build-appliance gathers"]
fn the_same_parts_give_the_same_bytes_and_one_flipped_bit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    belvedere_keys::create(&keys, belvedere_keys::Validity::default()).unwrap();

    let first = build_anew(directory.path(), "first", &keys);
    let second = build_anew(directory.path(), "second", &keys);
    for name in ["root.erofs", "uki.efi", "device-tree.dtb", "manifest.json", "firmware-variables.fd", "disk.img"] {
        assert!(same(&first.join(name), &second.join(name)), "{name} differs");
    }

    // The root image: the reference implementation accepts it, and no changed block.
    let image = first.join("root.erofs");
    let root_hash = fs::read_to_string(first.join("root-hash")).unwrap().trim().to_owned();
    let whole = fs::read(&image).unwrap();
    // The tree of n blocks begins behind the superblock, which is where the magic is.
    let superblock = whole.chunks(verity::BLOCK).position(|block| block.starts_with(b"verity\0\0")).unwrap();
    let facts = Facts { data_blocks: superblock as u64, root_hash, salt: hex::encode(verity::SALT) };
    assert!(veritysetup_verify(&image, &facts));
    let mut changed = whole.clone();
    changed[superblock / 2 * verity::BLOCK + 77] ^= 1;
    let tampered = directory.path().join("tampered");
    fs::write(&tampered, changed).unwrap();
    assert!(!veritysetup_verify(&tampered, &facts));

    // The disk: its table is right, and the system partition holds the root image.
    let disk = first.join("disk.img");
    let verdict = run(program("sgdisk").arg("-v").arg(&disk), "checking the partition table").unwrap();
    assert!(String::from_utf8_lossy(&verdict).contains("No problems found"));
    let table = gpt::GptConfig::new().open(&disk).unwrap();
    let names: Vec<&str> = table.partitions().values().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["esp-a", "esp-b", "boot-slots", "secure-world", "system-a", "system-b", "system-minimum", "data"]);
    let system = table.partitions().values().find(|partition| partition.name == "system-a").unwrap();
    // Plain, as it leaves the factory.
    let offset = system.first_lba * 512 + belvedere_luks2::record::FACTORY_OFFSET;
    let comparison = Command::new("cmp")
        .args(["-s", "-n", &whole.len().to_string(), "-i", &format!("{offset}:0")])
        .args([&disk, &image])
        .status()
        .unwrap();
    assert!(comparison.success(), "system-a is not the root image");

    // What the firmware starts is signed with our key, and with no stranger's.
    let strangers = directory.path().join("strangers");
    belvedere_keys::create(&strangers, belvedere_keys::Validity::default()).unwrap();
    let verifies = |keys: &Path, image: &Path| {
        let certificate = keys.join("uefi-db.crt");
        Command::new("sbverify").arg("--cert").arg(certificate).arg(image).output().unwrap().status.success()
    };
    let uki = first.join("uki.efi");
    assert!(verifies(&keys, &uki));
    assert!(!verifies(&strangers, &uki));

    // boot D1: what is inside it is signed by nobody.
    let bytes = fs::read(&uki).unwrap();
    let kernel = Image::parse(&bytes).unwrap().file_section(LINUX).unwrap();
    assert!(Image::parse(kernel).is_ok_and(|kernel| !kernel.is_signed()));
    let cut_out = directory.path().join("kernel.efi");
    fs::write(&cut_out, kernel).unwrap();
    assert!(!verifies(&keys, &cut_out));
}

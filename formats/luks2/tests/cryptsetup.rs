//! The real `cryptsetup` as the peer, in both directions. No root, no device-mapper: it works on files.

use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Header, KEYSLOTS_END, Malformed, Passphrase, RECORD_OFFSETS, Randomness};
use belvedere_luks2::{SECTOR, SLOT_SIZE, VolumeKey, Xts};
use std::path::Path;
use std::process::{Command, Output};

/// Different bytes at every call, the same in every run.
fn random() -> impl FnMut(&mut [u8]) -> Result<(), std::convert::Infallible> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |bytes| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        Ok(())
    }
}

const PASSPHRASE: [u8; 32] = *b"thirty-two bytes from a TPM\n\0\xff\x80!";

fn key() -> VolumeKey {
    let mut random = random();
    let Ok(key) = VolumeKey::fill(&mut random);
    key
}

fn run(arguments: &[&str]) -> Output {
    Command::new("cryptsetup").args(arguments).output().expect("cryptsetup is one of the required packages")
}

fn good(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "cryptsetup {arguments:?}: {} {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory with a key file, and the paths of volume and key file.
fn place() -> (tempfile::TempDir, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (volume, key_file) = (path("volume"), path("passphrase"));
    std::fs::write(&key_file, PASSPHRASE).unwrap();
    (directory, volume, key_file)
}

/// A volume of ours whose data segment holds `plain`.
fn our_volume(plain: &[u8]) -> Vec<u8> {
    let Ok(random) = Randomness::fill(random());
    let mut bytes = Header::create("belvedere-test", &Passphrase::new(PASSPHRASE.to_vec()), &key(), &random);
    bytes.resize(DATA_OFFSET as usize, 0);
    let mut data = plain.to_vec();
    Xts::new(key().bytes()).encrypt(0, SECTOR, &mut data).unwrap();
    bytes.extend(data);
    bytes
}

fn plain(sectors: usize) -> Vec<u8> {
    (0..sectors * SECTOR).map(|at| (at / 7 + at / SECTOR) as u8).collect()
}

/// With the data segment's place and size in the profile, and `luksFormat`'s random volume key.
fn theirs(volume: &str, key_file: &str, more: &[&str]) {
    let parameters = "luksFormat --type luks2 --batch-mode --cipher aes-xts-plain64 --key-size 512 --hash sha256 \
                      --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --luks2-metadata-size 16k --luks2-keyslots-size 756k \
                      --offset 2048 --sector-size 4096 --key-file";
    let arguments: Vec<&str> = parameters.split_whitespace().chain([key_file]).chain(more.iter().copied()).collect();
    good(&[&arguments[..], &[volume]].concat());
}

#[test]
fn what_we_make_cryptsetup_opens() {
    let (_directory, volume, key_file) = place();
    std::fs::write(&volume, our_volume(&plain(16))).unwrap();
    good(&["open", "--test-passphrase", "--type", "luks2", "--key-file", &key_file, &volume]);
    // Either of the two key slots opens, also where the other one is lost.
    for (lost, left) in [(0, "1"), (1, "0")] {
        let mut bytes = our_volume(&plain(16));
        good(&["open", "--test-passphrase", "--key-slot", left, "--key-file", &key_file, &volume]);
        bytes[2 * HEADER_SIZE + lost * SLOT_SIZE + 5000] ^= 1;
        let damaged = format!("{volume}-damaged");
        std::fs::write(&damaged, bytes).unwrap();
        good(&["open", "--test-passphrase", "--key-file", &key_file, &damaged]);
        let refused =
            run(&["open", "--test-passphrase", "--key-slot", &lost.to_string(), "--key-file", &key_file, &damaged]);
        assert_eq!(refused.status.code(), Some(2), "key slot {lost} was altered");
    }
    let dump = good(&["luksDump", &volume]);
    for line in ["Version:       \t2", "Label:         \tbelvedere-test", "cipher: aes-xts-plain64", "sector: 4096 [bytes]"]
    {
        assert!(dump.contains(line), "{line}: {dump}");
    }
    assert!(dump.contains("Epoch:         \t1\n"), "{dump}");
    // The volume key is the one we meant.
    let other = format!("{key_file}-of-volume");
    good(&["luksDump", "--dump-volume-key", "--batch-mode", "--key-file", &key_file, "--volume-key-file", &other, &volume]);
    assert_eq!(std::fs::read(&other).unwrap(), key().bytes());
    std::fs::write(&key_file, [1; 32]).unwrap();
    let refused = run(&["open", "--test-passphrase", "--key-file", &key_file, &volume]);
    assert_eq!(refused.status.code(), Some(2), "a wrong passphrase");
}

#[test]
fn what_cryptsetup_makes_we_open() {
    let (_directory, volume, key_file) = place();
    std::fs::File::create(&volume).unwrap().set_len(4 << 20).unwrap();
    let key_of_volume = format!("{key_file}-of-volume");
    std::fs::write(&key_of_volume, key().bytes()).unwrap();
    theirs(&volume, &key_file, &["--label", "by-cryptsetup", "--volume-key-file", &key_of_volume]);
    let bytes = std::fs::read(&volume).unwrap();
    let header = Header::decode(&bytes).unwrap();
    assert_eq!((header.label(), header.repair()), ("by-cryptsetup", None));
    assert_eq!(header.unlock(&bytes, &Passphrase::new(PASSPHRASE.to_vec())).unwrap().bytes(), key().bytes());
    assert!(header.unlock(&bytes, &Passphrase::new(b"another".to_vec())).is_err());
    assert!(header.slots().all(|slot| slot.end <= KEYSLOTS_END as u64));
    // Key slots added and removed.
    let second = format!("{key_file}-second");
    std::fs::write(&second, "the second").unwrap();
    let add = "luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --hash sha256 --key-file";
    let add: Vec<&str> = add.split_whitespace().chain([key_file.as_str(), &volume, &second]).collect();
    good(&add);
    let bytes = std::fs::read(&volume).unwrap();
    let header = Header::decode(&bytes).unwrap();
    assert_eq!(header.slots().count(), 2);
    for passphrase in [&PASSPHRASE[..], b"the second"] {
        assert_eq!(header.unlock(&bytes, &Passphrase::new(passphrase.to_vec())).unwrap().bytes(), key().bytes());
    }
    good(&["luksKillSlot", "--batch-mode", "--key-file", &second, &volume, "0"]);
    let bytes = std::fs::read(&volume).unwrap();
    let header = Header::decode(&bytes).unwrap();
    assert!(header.unlock(&bytes, &Passphrase::new(PASSPHRASE.to_vec())).is_err());
    header.unlock(&bytes, &Passphrase::new(b"the second".to_vec())).unwrap();
    good(&["luksErase", "--batch-mode", &volume]);
    let bytes = std::fs::read(&volume).unwrap();
    let header = Header::decode(&bytes).unwrap();
    assert!(header.unlock(&bytes, &Passphrase::new(b"the second".to_vec())).is_err());
}

/// `reencrypt --decrypt` reads the data segment with cryptsetup's own idea of sectors and tweaks.
#[test]
fn data_that_we_encrypt_cryptsetup_decrypts() {
    let (directory, volume, key_file) = place();
    let plain = plain(64);
    std::fs::write(&volume, our_volume(&plain)).unwrap();
    let header = directory.path().join("header").to_str().unwrap().to_owned();
    // It exports the header and shifts the data to the start of the file; on files it does so without device-mapper.
    good(&[
        "reencrypt", "--decrypt", "--batch-mode", "--force-offline-reencrypt", "--disable-locks", "--header", &header,
        "--key-file", &key_file, &volume,
    ]);
    let found = std::fs::read(&volume).unwrap();
    assert!(found.starts_with(&plain), "decrypted to something else");
}

/// It writes over what we damaged: our repair is left in peace by it, and the other way round.
#[test]
fn a_copy_that_we_repaired_is_one_that_cryptsetup_believes() {
    for damaged in [0, HEADER_SIZE] {
        let (_directory, volume, key_file) = place();
        let mut bytes = our_volume(&[]);
        bytes[damaged + 100] ^= 1;
        let repair = Header::decode(&bytes).unwrap().repair().unwrap();
        assert_eq!(repair.offset, damaged as u64);
        bytes[damaged..damaged + HEADER_SIZE].copy_from_slice(&repair.bytes);
        assert_eq!(Header::decode(&bytes).unwrap().repair(), None);
        // With the other copy gone, cryptsetup has only the one that was repaired.
        let other = HEADER_SIZE - damaged;
        bytes[other..other + HEADER_SIZE].fill(0);
        std::fs::write(&volume, &bytes).unwrap();
        good(&["open", "--test-passphrase", "--key-file", &key_file, &volume]);
    }
}

#[test]
fn our_record_is_left_alone_by_cryptsetup() {
    let (_directory, volume, key_file) = place();
    let mut bytes = our_volume(&plain(4));
    bytes[RECORD_OFFSETS[0] as usize..DATA_OFFSET as usize].fill(0xab);
    std::fs::write(&volume, &bytes).unwrap();
    let second = format!("{key_file}-second");
    std::fs::write(&second, "the second").unwrap();
    let add = "luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file";
    let add: Vec<&str> = add.split_whitespace().chain([key_file.as_str(), &volume, &second]).collect();
    good(&add);
    let full = run(&["luksAddKey", "--batch-mode", "--key-file", &key_file, &volume, &second]);
    assert!(!full.status.success(), "a fourth key slot was made");
    let found = std::fs::read(&volume).unwrap();
    assert_eq!(found[RECORD_OFFSETS[0] as usize..], bytes[RECORD_OFFSETS[0] as usize..]);
}

#[test]
fn what_is_not_our_profile_is_refused_in_words() {
    let refused = |parameters: &str| {
        let (_directory, volume, key_file) = place();
        std::fs::File::create(&volume).unwrap().set_len(20 << 20).unwrap();
        let arguments: Vec<&str> = "luksFormat --batch-mode --key-file"
            .split(' ')
            .chain([key_file.as_str()])
            .chain(parameters.split_whitespace())
            .chain([volume.as_str()])
            .collect();
        good(&arguments);
        Header::decode(&std::fs::read(Path::new(&volume)).unwrap()).unwrap_err()
    };
    let ours = "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --luks2-metadata-size 16k --luks2-keyslots-size \
                756k --offset 2048 --sector-size 4096 --cipher aes-xts-plain64 --hash sha256";
    for (parameters, words) in [
        ("--type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 32", "argon2id"),
        ("--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --sector-size 4096", "16744448"),
        (&format!("{ours} --key-size 256"), "32"),
        (&format!("{ours} --key-size 512 --sector-size 512"), "512"),
        (&format!("{ours} --key-size 512 --hash sha512"), "sha512"),
        (&format!("{ours} --key-size 256 --cipher aes-cbc-essiv:sha256"), "aes-cbc-essiv:sha256"),
        (&format!("{ours} --key-size 512 --subsystem other"), "subsystem"),
    ] {
        let error = refused(parameters);
        assert!(matches!(&error, Malformed::NotUnderstood(_)), "{parameters}: {error}");
        assert!(error.to_string().contains(words), "{parameters}: {error}");
    }
    let one = refused("--type luks1 --pbkdf-force-iterations 1000");
    assert!(one.to_string().contains("version 1"), "{one}");
}

//! What the executor makes on real files, held against the real `cryptsetup`.

use belvedere_durable::DeviceFile;
use belvedere_luks2::record::{VolumeState, initial};
use belvedere_luks2::{DATA_OFFSET, Passphrase, RECORD_OFFSETS};
use belvedere_storage::StorageError;
use belvedere_storage::encrypt::{Prepared, Request, Surroundings, kernel_random, prepare, recreate};
use belvedere_storage::volume::{Geometry, Purpose, Refusal};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const PASSPHRASE: [u8; 32] = [0xc3; 32];

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(size: u64) -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap() };
        std::fs::File::create(place.volume()).unwrap().set_len(size).unwrap();
        std::fs::write(place.path("passphrase"), PASSPHRASE).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn volume(&self) -> PathBuf {
        self.path("volume")
    }

    /// Runs it with the key file, and says whether it succeeded.
    fn cryptsetup(&self, arguments: &str) -> bool {
        let key_file = self.path("passphrase");
        let mut command = Command::new("cryptsetup");
        command.args(arguments.split_whitespace()).arg("--key-file").arg(key_file).arg(self.volume());
        command.output().expect("cryptsetup is one of the required packages").status.success()
    }

    fn prepare(&self, purpose: Purpose) -> Result<Prepared, StorageError> {
        run(&self.volume(), purpose, prepare)
    }
}

type Work = fn(&mut DeviceFile, &Request<'_>, &mut Surroundings<'_>) -> Result<Prepared, StorageError>;

fn run(volume: &Path, purpose: Purpose, work: Work) -> Result<Prepared, StorageError> {
    let passphrase = Passphrase::new(PASSPHRASE.to_vec());
    let request = Request { purpose, label: "belvedere-test", passphrase: &passphrase, geometry: Geometry::APPLIANCE };
    let mut surroundings = Surroundings { random: &mut kernel_random, report: &mut |_| (), now: &Instant::now };
    work(&mut DeviceFile::open(volume)?, &request, &mut surroundings)
}

#[test]
fn an_image_that_was_encrypted_in_place_is_what_cryptsetup_decrypts() {
    let place = Place::new(24 << 20);
    // Two whole chunks and a piece.
    let image: Vec<u8> = (0..(9 << 20) + 4096).map(|at: u32| (at ^ at >> 9).to_le_bytes()[at as usize % 3]).collect();
    let file = std::fs::OpenOptions::new().write(true).open(place.volume()).unwrap();
    file.write_all_at(&image, 5 << 20).unwrap();
    let blocks = initial(VolumeState::Factory { bytes: image.len() as u64 });
    for (offset, block) in RECORD_OFFSETS.into_iter().zip(blocks) {
        file.write_all_at(&block, offset).unwrap();
    }
    let prepared = place.prepare(Purpose::System).unwrap();
    assert!(place.cryptsetup("open --test-passphrase --type luks2"));
    assert_eq!(place.prepare(Purpose::System).unwrap().volume, prepared.volume);
    let header = format!("--header {}", place.path("header").display());
    assert!(
        place.cryptsetup(&format!("reencrypt --decrypt --batch-mode --force-offline-reencrypt --disable-locks {header}"))
    );
    let found = std::fs::read(place.volume()).unwrap();
    assert!(found.starts_with(&image), "it decrypts to something else");
    assert!(found[image.len()..image.len() + (4 << 20)].iter().all(|&byte| byte == 0), "the rest reads as zeros");
}

#[test]
fn a_new_data_volume_opens_and_after_a_full_reset_only_the_new_one_does() {
    let place = Place::new(32 << 20);
    let first = place.prepare(Purpose::Data).unwrap();
    assert!(first.created && place.cryptsetup("open --test-passphrase --type luks2"));
    let again = place.prepare(Purpose::Data).unwrap();
    assert_eq!((again.volume, again.created, again.key.bytes()), (first.volume, false, first.key.bytes()));
    let second = run(&place.volume(), Purpose::Data, recreate).unwrap();
    assert!(second.created && second.volume != first.volume && second.key.bytes() != first.key.bytes());
    assert!(place.cryptsetup("open --test-passphrase --type luks2"));
    // The old header's secondary copy is not found by its repair either.
    assert!(place.cryptsetup("repair --batch-mode") && place.prepare(Purpose::Data).unwrap().volume == second.volume);
}

#[test]
fn a_volume_that_cryptsetup_made_is_not_taken_for_a_blank_partition() {
    let place = Place::new(32 << 20);
    let other = place.path("other-passphrase");
    std::fs::write(&other, [1; 32]).unwrap();
    let made = Command::new("cryptsetup")
        .args("luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file".split(' '))
        .arg(&other)
        .arg(place.volume())
        .status()
        .unwrap();
    assert!(made.success());
    let before = std::fs::read(place.volume()).unwrap();
    let error = place.prepare(Purpose::Data).unwrap_err();
    assert!(matches!(error, StorageError::Volume { refusal: Refusal::ForeignVolume(_), .. }), "{error}");
    assert!(error.to_string().contains("not this appliance's"), "{error}");
    assert!(std::fs::read(place.volume()).unwrap() == before);
    assert!(before.len() as u64 > DATA_OFFSET);
}

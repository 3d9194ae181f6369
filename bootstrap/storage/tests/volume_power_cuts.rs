//! Encrypted volumes on a disk whose power goes off at every write, and again while it is being mended.

use belvedere_durable::BlockDevice;
use belvedere_durable::block_model::{Fate, ModelDevice, Seeded, cut_everywhere, finish_through_cuts};
use belvedere_luks2::record::{RecordCopies, VolumeState, decode, initial};
use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Header, Passphrase, RECORD_OFFSETS, SECTOR, SLOT_SIZE, TWINS, Xts};
use belvedere_storage::StorageError;
use belvedere_storage::encrypt::{self, Prepared, Request, Surroundings, prepare, recreate};
use belvedere_storage::volume::{Geometry, Purpose, Refusal};
use std::time::Instant;

const CHUNK: u64 = 16 * 1024;
const SMALL: Geometry = Geometry { shift: CHUNK, chunk: CHUNK, blank: 12 * 1024 };
/// Begins every sector of what must not stay on the disk.
const MARK: &[u8; 16] = b"PLAIN TEXT HERE!";

fn passphrase() -> Passphrase {
    Passphrase::new(vec![0x3c; 32])
}

type Work = fn(&mut ModelDevice, &Request<'_>, &mut Surroundings<'_>) -> Result<Prepared, StorageError>;

/// `work` with random bytes that depend on the number of the start: another start has another key.
fn run(
    device: &mut ModelDevice,
    purpose: Purpose,
    geometry: Geometry,
    start: &mut u64,
    work: Work,
) -> Result<Prepared, StorageError> {
    *start += 1;
    let mut random = Seeded::new(*start << 32);
    let mut random = |bytes: &mut [u8]| {
        random.fill(bytes);
        Ok(())
    };
    let mut surroundings = Surroundings { random: &mut random, report: &mut |_| (), now: &Instant::now };
    let request = Request { purpose, label: "belvedere-test", passphrase: &passphrase(), geometry };
    work(device, &request, &mut surroundings)
}

fn records(device: &ModelDevice) -> RecordCopies {
    let block = |at: u64| &device.medium()[at as usize..at as usize + 4096];
    RecordCopies::read(block(RECORD_OFFSETS[0]), block(RECORD_OFFSETS[1]))
}

fn state(device: &ModelDevice) -> Option<VolumeState> {
    records(device).current().map(|record| record.state)
}

/// What the opened volume holds.
fn payload(device: &ModelDevice, prepared: &Prepared) -> Vec<u8> {
    let length = belvedere_luks2::dm_crypt_length(device.size()) as usize * 512;
    let mut bytes = device.medium()[DATA_OFFSET as usize..DATA_OFFSET as usize + length].to_vec();
    Xts::new(prepared.key.bytes()).decrypt(0, SECTOR, &mut bytes).unwrap();
    bytes
}

/// A plain image: every sector is marked and different.
fn image(bytes: usize) -> Vec<u8> {
    let mut image = vec![0; bytes];
    Seeded::new(9).fill(&mut image);
    for sector in image.chunks_mut(512) {
        sector[..16].copy_from_slice(MARK);
    }
    image
}

/// A system partition as the image tool writes it.
fn factory(image: &[u8], room: usize, shift: u64) -> ModelDevice {
    let start = (DATA_OFFSET + shift) as usize;
    let mut disk = vec![0; start + image.len() + room];
    disk[start..start + image.len()].copy_from_slice(image);
    put_records(&mut disk, VolumeState::Factory { bytes: image.len() as u64 });
    ModelDevice::new(disk)
}

fn put_records(disk: &mut [u8], state: VolumeState) {
    for (offset, block) in RECORD_OFFSETS.into_iter().zip(initial(state)) {
        disk[offset as usize..offset as usize + 4096].copy_from_slice(&block);
    }
}

fn is_plain(disk: &[u8]) -> bool {
    disk.chunks_exact(16).any(|part| part == MARK)
}

fn fates(number: u64) -> impl Fn(usize) -> Vec<Fate> {
    // Other seeds at every operation.
    move |operation| {
        (0..number).map(|fate| Fate::numbered(if fate < 3 { fate } else { fate + 1000 * operation as u64 })).collect()
    }
}

/// Cuts `work` everywhere, half of the time again and again while it goes on, and gives the end to `check`. Returns the
/// number of cut points.
fn survive(
    start: &ModelDevice,
    purpose: Purpose,
    geometry: Geometry,
    number: u64,
    work: Work,
    mut between: impl FnMut(&ModelDevice, bool, &str),
    mut check: impl FnMut(&ModelDevice, &Prepared, &str),
) -> usize {
    let mut starts = 0;
    let mut further = 0;
    let mut random = Seeded::new(5);
    let mut first_starts = 0;
    let cuts = cut_everywhere(
        start,
        fates(number),
        |device| run(device, purpose, geometry, &mut first_starts, work).map(|_| ()),
        |device, finished, when| {
            between(&device, finished, when);
            let mut when = when.to_owned();
            let again = random.below(8).saturating_sub(4);
            let mut prepared = None;
            starts += 1000;
            let (device, more) = finish_through_cuts(device, again, 30, &mut random, &mut when, |device| {
                // What was asked for once is not asked for again: every next start only prepares.
                prepared = Some(run(device, purpose, geometry, &mut starts, prepare)?);
                Ok::<(), StorageError>(())
            });
            further += more;
            let prepared = prepared.unwrap();
            assert_eq!(state(&device), Some(VolumeState::Encrypted { volume: prepared.volume }), "{when}");
            assert!(records(&device).settled(), "one copy of the record alone says so: {when}");
            check(&device, &prepared, &when);
        },
    );
    cuts + further
}

#[test]
fn encryption_in_place_stands_every_power_cut() {
    let mut count = 0;
    for (bytes, room, geometry, number) in [
        // Some whole chunks and a piece; room behind. What is asked for is more than can be done without a journal.
        (3 * CHUNK as usize + 4096, 8192, Geometry { chunk: 4 * CHUNK, ..SMALL }, 90),
        // Chunks smaller than the shift; no room behind.
        (5 * 8192, 0, Geometry { chunk: 8192, ..SMALL }, 60),
        // Less than one chunk.
        (4096, 512, SMALL, 40),
    ] {
        let image = image(bytes);
        let start = factory(&image, room, geometry.shift);
        count += survive(
            &start,
            Purpose::System,
            geometry,
            number,
            prepare,
            |_, _, _| (),
            |device, prepared, when| {
                let found = payload(device, prepared);
                assert!(found[..bytes] == image, "the image is another one: {when}");
                let tail = &found[bytes..bytes + geometry.shift as usize];
                assert!(tail.iter().all(|&byte| byte == 0), "the rest was not wiped: {when}");
                assert!(!is_plain(device.medium()), "plain text is left: {when}");
            },
        );
    }
    println!("measured: {count} cut points in encryption in place, 0 images lost");
    assert!(count > 6000, "{count}");
}

/// Sectors of the header and key slots on this disk, but for those that are alike in every volume: empty ones, and text.
fn secrets(disk: &[u8]) -> Vec<Vec<u8>> {
    let mut other = blank(DATA_SIZE);
    run(&mut other, Purpose::Data, SMALL, &mut (1 << 20), prepare).unwrap();
    let everywhere: std::collections::HashSet<&[u8]> = other.medium()[..RECORD_OFFSETS[0] as usize].chunks(512).collect();
    let sectors = disk[..RECORD_OFFSETS[0] as usize].chunks(512).filter(|sector| !everywhere.contains(sector));
    sectors.map(<[u8]>::to_vec).collect()
}

fn blank(size: usize) -> ModelDevice {
    ModelDevice::new(vec![0; size])
}

const DATA_SIZE: usize = DATA_OFFSET as usize + 96 * 1024;

#[test]
fn making_a_volume_stands_every_power_cut() {
    let empty = {
        let mut disk = vec![0; DATA_SIZE];
        put_records(&mut disk, VolumeState::Empty);
        ModelDevice::new(disk)
    };
    let mut count = 0;
    for (purpose, start) in [(Purpose::Data, blank(DATA_SIZE)), (Purpose::System, empty)] {
        count += survive(
            &start,
            purpose,
            SMALL,
            70,
            prepare,
            |_, _, _| (),
            |device, prepared, when| {
                let found = payload(device, prepared);
                let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
                let blank = SMALL.blank as usize;
                assert!(zero(&found[..blank]) && zero(&found[found.len() - blank..]), "it does not read as blank: {when}");
                let secret =
                    |secret: &[u8]| device.medium().windows(16).any(|found| found[0] == secret[0] && found == &secret[..16]);
                assert!(!secret(prepared.key.bytes()) && !secret(&[0x3c; 16]), "a key is on the disk: {when}");
            },
        );
    }
    println!("measured: {count} cut points in making volumes, 0 volumes lost");
    assert!(count > 2000, "{count}");
}

/// A volume in use, with marked data in it.
fn in_use() -> (ModelDevice, [u8; 16], Vec<u8>) {
    let mut device = blank(DATA_SIZE);
    let prepared = run(&mut device, Purpose::Data, SMALL, &mut 0, prepare).unwrap();
    let plain = image(DATA_SIZE - DATA_OFFSET as usize);
    let mut data = plain.clone();
    Xts::new(prepared.key.bytes()).encrypt(0, SECTOR, &mut data).unwrap();
    device.write_durably(DATA_OFFSET, &data).unwrap();
    (device, prepared.volume, plain)
}

/// Whether every key slot opens the volume.
fn both_slots_open(disk: &[u8]) -> bool {
    let header = Header::decode(disk).unwrap();
    let (_, slot) = header.unlock_by(disk, &passphrase()).unwrap();
    header.slots().count() == TWINS && header.lost_slots(disk, &passphrase(), slot).is_empty()
}

/// A copy of the header is rubbish, or one or both of the record, or one of the key slots: whatever happens while they are
/// written anew, the data is what it was.
#[test]
fn mending_a_volume_in_use_stands_every_power_cut_and_never_touches_its_data() {
    let (device, volume, plain) = in_use();
    let header = [0, HEADER_SIZE];
    let record = RECORD_OFFSETS.map(|offset| offset as usize);
    let mut count = 0;
    // A sector of each key slot, and one behind what the first one holds, in its last block.
    let slots = [2 * HEADER_SIZE + 512 * 77, 2 * HEADER_SIZE + SLOT_SIZE + 512 * 499];
    let end = 2 * HEADER_SIZE + SLOT_SIZE - 512;
    let damages = [
        &[][..],
        &header[..1],
        &header[1..],
        &record[..1],
        &record[1..],
        &record[..],
        &[header[0], record[1]],
        &slots[..1],
        &slots[1..],
        &[header[1], record[0], slots[0]],
        &[end],
    ];
    for (purpose, damage) in damages.into_iter().flat_map(|damage| [(Purpose::Data, damage), (Purpose::System, damage)]) {
        let mut damaged = device.clone();
        for &at in damage {
            damaged.write_durably(at as u64, &[0xee; 512]).unwrap();
        }
        // Without its record nobody knows how far the encryption of a system partition had come.
        if purpose == Purpose::System && damage == &record[..] {
            assert!(matches!(refusal(&mut damaged.power_on(Fate::Lost), purpose), Refusal::ForeignVolume(_)));
            continue;
        }
        for broken in [damaged.clone(), damage.iter().fold(damaged, |device, at| device.with_unreadable(at / 512))] {
            count += survive(
                &broken,
                purpose,
                SMALL,
                20,
                prepare,
                |_, _, _| (),
                |device, prepared, when| {
                    assert_eq!(prepared.volume, volume, "{when}");
                    assert!(payload(device, prepared) == plain, "the data is another: {when}");
                    let header = Header::decode(device.medium()).unwrap();
                    assert_eq!(header.repair(), None, "{when}");
                    assert!(both_slots_open(device.medium()), "a key slot is lost still: {when}");
                },
            );
        }
    }
    println!("measured: {count} cut points in mending, 0 volumes lost");
    assert!(count > 1200, "{count}");
}

#[test]
fn a_full_reset_is_finished_after_every_power_cut_and_leaves_nothing_of_the_old_key() {
    let (device, volume, _) = in_use();
    let old = secrets(device.medium());
    assert!(old.len() > 1000, "{}", old.len());
    let before = device.medium()[..RECORD_OFFSETS[0] as usize].to_vec();
    let mut began = [0, 0];
    let count = survive(
        &device,
        Purpose::Data,
        SMALL,
        80,
        recreate,
        |device, finished, when| {
            // Either it did not begin and all is as it was, or it goes on.
            let begun = state(device) != Some(VolumeState::Encrypted { volume });
            assert!(begun || !finished, "{when}");
            began[usize::from(begun)] += 1;
            // The loss of one block does not bring the old state back when the header is going.
            let whole = device.medium()[..RECORD_OFFSETS[0] as usize] == before[..];
            let old_copy = |at: &u64| decode(&device.medium()[*at as usize..]).map(|record| record.state);
            let back = RECORD_OFFSETS.iter().any(|at| old_copy(at) == Ok(VolumeState::Encrypted { volume }));
            assert!(whole || !back, "a copy of the record still says encrypted: {when}");
        },
        |device, prepared, when| {
            if prepared.volume == volume {
                return;
            }
            let now: std::collections::HashSet<&[u8]> = device.medium()[..RECORD_OFFSETS[0] as usize].chunks(512).collect();
            assert!(old.iter().all(|sector| !now.contains(&sector[..])), "a sector of the old header is left: {when}");
            let found = payload(device, prepared);
            assert!(!is_plain(&found) && found[..SMALL.blank as usize].iter().all(|&byte| byte == 0), "{when}");
        },
    );
    println!("measured: {count} cut points in full resets, {began:?} before and after they began, 0 half done");
    assert!(count > 1000 && began.iter().all(|&number| number > 30), "{count} {began:?}");
}

fn refusal(device: &mut ModelDevice, purpose: Purpose) -> Refusal {
    let before = device.medium().to_vec();
    let error = run(device, purpose, SMALL, &mut 0, prepare).unwrap_err();
    assert!(device.medium() == before && device.operations() == 0, "a refused partition was written to: {error}");
    assert!(error.to_string().starts_with("/model/device is left as it is: "), "{error}");
    match error {
        StorageError::Volume { refusal, .. } => refusal,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_ours_is_refused_in_words_and_not_written_to() {
    // Plain ext4.
    let mut disk = vec![0; DATA_SIZE];
    disk[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    assert_eq!(refusal(&mut ModelDevice::new(disk.clone()), Purpose::Data), Refusal::Plain);
    // In place of a volume that was encrypted.
    put_records(&mut disk, VolumeState::Encrypted { volume: [1; 16] });
    assert_eq!(refusal(&mut ModelDevice::new(disk), Purpose::Data), Refusal::Exchanged(Purpose::Data));
    // One byte anywhere in the first two MiB.
    for at in [0, RECORD_OFFSETS[0] - 1, DATA_OFFSET, DATA_SIZE as u64 - 1] {
        let mut disk = vec![0; DATA_SIZE];
        disk[at as usize] = 1;
        assert_eq!(refusal(&mut ModelDevice::new(disk), Purpose::Data), Refusal::Foreign, "byte {at}");
    }
    // A sector that cannot be read is not blank.
    assert_eq!(refusal(&mut blank(DATA_SIZE).with_unreadable(7), Purpose::Data), Refusal::Foreign);
    assert_eq!(refusal(&mut blank(DATA_SIZE), Purpose::System), Refusal::NoRecord);
    // Another appliance's volume, with and without its record.
    let (other, ..) = in_use();
    let mut disk = other.medium().to_vec();
    let slot = 2 * HEADER_SIZE + 100;
    disk[slot] ^= 1;
    disk[slot + SLOT_SIZE] ^= 1;
    assert_eq!(refusal(&mut ModelDevice::new(disk.clone()), Purpose::Data), Refusal::Closed(Purpose::Data));
    disk[RECORD_OFFSETS[0] as usize..DATA_OFFSET as usize].fill(0);
    assert!(matches!(refusal(&mut ModelDevice::new(disk), Purpose::Data), Refusal::ForeignVolume(_)));
    // Both copies of the header lost.
    let mut disk = other.medium().to_vec();
    disk[..2 * HEADER_SIZE].fill(0x11);
    assert!(matches!(refusal(&mut ModelDevice::new(disk), Purpose::Data), Refusal::HeaderLost(..)));
    // A header that opens and is another volume's.
    let mut disk = other.medium().to_vec();
    put_records(&mut disk, VolumeState::Encrypted { volume: [2; 16] });
    assert_eq!(refusal(&mut ModelDevice::new(disk), Purpose::Data), Refusal::OtherVolume);
    // An image without room, and `data` that claims to be one.
    let image = image(4096);
    let short = factory(&image, 0, SMALL.shift - 4096);
    assert!(matches!(refusal(&mut short.clone(), Purpose::System), Refusal::TooSmall { .. }));
    assert_eq!(refusal(&mut factory(&image, 0, SMALL.shift), Purpose::Data), Refusal::Plain);
    assert!(matches!(refusal(&mut blank(DATA_OFFSET as usize), Purpose::Data), Refusal::TooSmall { .. }));
}

#[test]
fn a_later_releases_record_is_left_alone_until_a_full_reset() {
    let (device, ..) = in_use();
    let mut disk = device.medium().to_vec();
    for offset in RECORD_OFFSETS {
        let block = &mut disk[offset as usize..offset as usize + 4096];
        block[8] = 2;
        let checksum = <sha2::Sha256 as sha2::Digest>::digest(&block[..4064]);
        block[4064..].copy_from_slice(&checksum);
    }
    let device = ModelDevice::new(disk);
    assert_eq!(refusal(&mut device.clone(), Purpose::Data), Refusal::Newer);
    let mut reset = device.clone();
    run(&mut reset, Purpose::Data, SMALL, &mut 0, recreate).unwrap();
    assert!(matches!(state(&reset), Some(VolumeState::Encrypted { .. })));
    // The reset's first record landed, and the other copy is the later release's.
    let mut begun = device;
    begun.cut_at(2);
    run(&mut begun, Purpose::Data, SMALL, &mut 0, recreate).unwrap_err();
    let mut begun = begun.power_on(Fate::Lost);
    assert_eq!(state(&begun), Some(VolumeState::Destroying));
    run(&mut begun, Purpose::Data, SMALL, &mut 1, prepare).unwrap();
}

#[test]
fn progress_is_told_at_each_tenth_and_a_sign_of_life_at_each_chunk() {
    let image = image(20 * 4096);
    let mut device = factory(&image, 0, SMALL.shift);
    let mut told = Vec::new();
    let mut report = |line: &str| told.push(line.to_owned());
    let mut random = |bytes: &mut [u8]| {
        Seeded::new(1).fill(bytes);
        Ok(())
    };
    let mut surroundings = Surroundings { random: &mut random, report: &mut report, now: &Instant::now };
    let geometry = Geometry { chunk: 4096, ..SMALL };
    let request = Request { purpose: Purpose::System, label: "system-a", passphrase: &passphrase(), geometry };
    prepare(&mut device, &request, &mut surroundings).unwrap();
    assert_eq!(told.len(), 20, "each chunk: {told:?}");
    let expected: Vec<String> = (1..=10).map(|tenth| format!("encrypting system-a: {} %", tenth * 10)).collect();
    told.retain(|line| line != encrypt::ALIVE);
    assert_eq!(told, expected);
}

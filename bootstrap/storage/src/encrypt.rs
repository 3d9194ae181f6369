//! Carries out what [`volume::plan`](crate::volume::plan) decides: makes, encrypts in place, mends, destroys, opens.
//!
//! Everything is written so that the power may go at any write. "Durably" means written, flushed and read back. What a
//! cut after each number leaves:
//!
//! # A new volume (`data` on first use, an empty system partition)
//!
//! 1. record `Creating`, durably — a torn one is none: the partition is still blank, and begun again
//! 2. header and key slots for a new random key, durably — begun again with another key; nobody stored anything
//! 3. encrypted zeros over beginning and end of the volume, flushed — the same
//! 4. record `Encrypted`, durably — the volume is there
//! 5. the same in the record's other copy, durably
//!
//! # Encryption in place
//!
//! The plain image lies one shift behind the place of its encrypted form; each chunk is written over space whose plain
//! content was encrypted before. So no journal is needed.
//!
//! 1. header and key slots for a new random key, durably — record still `Factory`: the plain image is whole, the header is
//!    made anew with another key. A header, whole or torn, is worth nothing while the record says `Factory`.
//! 2. record `Encrypting`, 0 done, durably — from here on the header is never written again
//! 3. for each chunk: encrypted, written one shift forward, flushed and read back — the chunk's plain form is still
//!    whole, because the shift is at least a chunk; it is encrypted again, with the same key
//! 4. record `Encrypting`, so much done, durably; then 3 for the next chunk
//! 5. encrypted zeros over what remains of the plain image behind the end of its encrypted form, flushed — done again
//! 6. record `Encrypted`, durably — the volume is there
//! 7. the same in the record's other copy, durably
//!
//! # A key slot that was lost
//!
//! Two key slots open with the same passphrase, and the header names both for good. Where one of them does not open, its area
//! is written anew, durably, under the other one, which is not touched: a cut leaves it lost, and the next start does it
//! again. A medium that does not take it is told, and the volume is used all the same.
//!
//! # A full reset
//!
//! 1. record `Destroying` in both copies, each durably — from the first on the reset is finished by whoever starts next
//! 2. random bytes over header and key slots, durably — done again. The key is gone, and with it all data
//! 3. record `Creating`, durably; then as a new volume
//!
//! Not covered: flash keeps old blocks where only its controller sees them. Encryption from the factory on and a key slot
//! that needs the TPM are the answer to that, and that the reset renews what the TPM keeps.

use crate::patience::{Watched, patience};
use crate::volume::{BLANK, Found, Geometry, HeaderFound, Purpose, Refusal, Start, Step, plan};
use crate::{StorageError, data};
use belvedere_durable::BlockDevice;
use belvedere_luks2::record::{BLOCK, RecordCopies, VolumeState};
use belvedere_luks2::{
    DATA_OFFSET, HEADER_SIZE, Header, Malformed, Passphrase, RECORD_OFFSETS, Randomness, SECTOR, VolumeKey, Xts,
};
use std::cell::RefCell;
use std::io;
use std::time::Instant;

/// A partition's part in this.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// Its volume's label, and its name in what is reported; such as `belvedere-data`.
    pub label: &'a str,
    /// The appliance's key.
    pub passphrase: &'a Passphrase,
    /// [`Geometry::APPLIANCE`], but in tests.
    pub geometry: Geometry,
}

/// Where random bytes come from and where progress goes to.
pub struct Surroundings<'a> {
    /// Fills with random bytes: [`kernel_random`].
    pub random: &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    /// Gets a line for people now and then.
    pub report: &'a mut dyn FnMut(&str),
    /// The time: `Instant::now`, but in tests.
    pub now: &'a dyn Fn() -> Instant,
}

/// A volume that may be opened.
#[derive(Debug)]
pub struct Prepared {
    /// Its key.
    pub key: VolumeKey,
    /// Its UUID.
    pub volume: [u8; 16],
    /// Whether it was made now; it then begins and ends with zeros.
    pub created: bool,
}

/// The kernel's random numbers; waits until it has enough of them.
///
/// # Errors
/// The kernel refuses.
pub fn kernel_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Brings a partition to where it can be opened, from wherever the last power cut left it. Takes as long as encrypting
/// the whole image, the first time. [`ALIVE`] is told for each read that fails or is slow.
///
/// # Errors
/// [`StorageError::Volume`]: it is refused, and was not touched. Others: the device fails, or such reads took longer than
/// [`patience`] allows; begin again.
pub fn prepare<D: BlockDevice>(
    device: &mut D,
    request: &Request<'_>,
    surroundings: &mut Surroundings<'_>,
) -> Result<Prepared, StorageError> {
    let report = RefCell::new(&mut *surroundings.report);
    let tell = |line: &str| (report.borrow_mut())(line);
    let (device, mut say) = (&mut Watched::new(device, &tell, surroundings.now), &tell);
    let surroundings = &mut Surroundings { random: &mut *surroundings.random, report: &mut say, now: surroundings.now };
    let (mut created, mut renewed) = (false, false);
    // Each step leads nearer to the end: destroy, create, mend, renew a key slot, open is the longest way.
    for _ in 0..6 {
        let (found, opened) = look(device, request)?;
        let step = plan(request.purpose, &found, &request.geometry).map_err(|refusal| refused(device, refusal))?;
        match (step, opened) {
            (Step::Destroy, _) => destroy(device, surroundings)?,
            (Step::Create, _) => {
                create(device, request, surroundings)?;
                created = true;
            }
            (Step::BeginEncryption { bytes }, _) => {
                let volume = new_header(device, request, surroundings)?.1;
                write_record(device, VolumeState::Encrypting { volume, bytes, done: 0 })?;
            }
            (Step::ContinueEncryption { volume, bytes, done }, Some(Opened { key, .. })) => {
                encrypt(device, request, &Xts::new(key.bytes()), volume, bytes, done, surroundings.report)?;
            }
            (Step::Mend { volume }, Some(Opened { header, key, .. })) => {
                let Err(error) = mend(device, &header, volume) else { continue };
                // What opens is used, also where the medium has no block left for the copy that was lost: but not where an
                // older state stands in it, which would come back with the loss of one more block.
                let copies = records(device);
                let holds = copies.current().map(|record| record.state) == Some(VolumeState::Encrypted { volume });
                if !holds || copies.contradicted() {
                    return Err(error);
                }
                let words = "a copy of its header or of its record is lost and cannot be written anew, replace the medium";
                (surroundings.report)(&format!("{}: {words}: {error}", request.label));
                return Ok(Prepared { key, volume, created });
            }
            (Step::Open, Some(opened)) => {
                // Once: what was written is read again, and a medium that lies is no reason to refuse.
                if renewed || !renew_key_slots(device, request, &opened, surroundings)? {
                    return Ok(Prepared { key: opened.key, volume: opened.header.uuid(), created });
                }
                renewed = true;
            }
            // `plan` asks for these only where the header opens.
            (Step::ContinueEncryption { .. } | Step::Mend { .. } | Step::Open, None) => {
                return Err(refused(device, Refusal::Closed(request.purpose)));
            }
        }
    }
    let words = "it reads differently every time; replace the medium".into();
    Err(refused(device, Refusal::HeaderLost(request.purpose, words)))
}

/// Destroys a volume with all its data, whatever state it is in, and makes a new one. Begins by recording that: after
/// a power cut [`prepare`] goes on with it.
///
/// # Errors
/// Those of [`prepare`].
pub fn recreate<D: BlockDevice>(
    device: &mut D,
    request: &Request<'_>,
    surroundings: &mut Surroundings<'_>,
) -> Result<Prepared, StorageError> {
    let needed = DATA_OFFSET + SECTOR as u64;
    if device.size() < needed {
        return Err(refused(device, Refusal::TooSmall { size: device.size(), needed }));
    }
    write_record(device, VolumeState::Destroying)?;
    prepare(device, request, surroundings)
}

fn refused(device: &impl BlockDevice, refusal: Refusal) -> StorageError {
    StorageError::Volume { device: device.path().display().to_string(), refusal }
}

/// How much is read at once of what may have bad blocks, bytes: one costs two reads that fail, this one and its own.
const PIECE: usize = 64 * 1024;

/// Reads the first `length` bytes, block by block where a piece cannot be read whole: zeros stand for the blocks that cannot,
/// whose offsets are given.
fn read_what_can_be_read<D: BlockDevice>(
    device: &Watched<'_, D>,
    length: usize,
    purpose: Purpose,
) -> Result<(Vec<u8>, Vec<u64>), StorageError> {
    let (mut bytes, mut unreadable) = (vec![0; length], Vec::new());
    let read = |offset: usize, bytes: &mut [u8]| {
        let given_up = || Err(given_up(device, purpose));
        if device.lost() > patience(purpose) { given_up() } else { Ok(device.read_counted(offset as u64, bytes).is_ok()) }
    };
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
        let start = number * PIECE;
        if read(start, piece)? {
            continue;
        }
        for (number, block) in piece.chunks_mut(BLOCK).enumerate() {
            let offset = start + number * BLOCK;
            if !read(offset, block)? {
                block.fill(0);
                unreadable.push(offset as u64);
            }
        }
    }
    Ok((bytes, unreadable))
}

fn given_up(device: &impl BlockDevice, purpose: Purpose) -> StorageError {
    let words = format!("its beginning took longer than {} s; replace the medium", patience(purpose).as_secs());
    StorageError::Io { operation: "read", object: device.path().display().to_string(), source: io::Error::other(words) }
}

fn records(device: &impl BlockDevice) -> RecordCopies {
    let [first, second] = RECORD_OFFSETS.map(|offset| {
        let mut block = vec![0; BLOCK];
        // A copy that a power cut left unreadable is no copy.
        device.read_at(offset, &mut block).map(|()| block).unwrap_or_default()
    });
    RecordCopies::read(&first, &second)
}

fn write_record(device: &mut impl BlockDevice, state: VolumeState) -> Result<(), StorageError> {
    let change = records(device).change(state);
    Ok(device.write_durably(change.offset, &change.block)?)
}

/// A header that opens.
struct Opened {
    key: VolumeKey,
    header: Header,
    /// The number of the key slot that opened.
    slot: u8,
    /// What the partition begins with, key slots too.
    start: Vec<u8>,
}

fn look<D: BlockDevice>(device: &Watched<'_, D>, request: &Request<'_>) -> Result<(Found, Option<Opened>), StorageError> {
    let size = device.size();
    let length = usize::try_from(size.min(BLANK)).unwrap_or_default();
    let (mut start, unreadable) = read_what_can_be_read(device, length, request.purpose)?;
    let [first, second] = RECORD_OFFSETS.map(|offset| {
        // A copy that a power cut left unreadable is no copy.
        let block = start.get(offset as usize..offset as usize + BLOCK).filter(|_| !unreadable.contains(&offset));
        block.unwrap_or_default()
    });
    let copies = RecordCopies::read(first, second);
    let decoded = match Header::decode(&start) {
        Ok(header) => match header.unlock_by(&start, request.passphrase) {
            Ok((key, slot)) => Ok((key, slot, header)),
            Err(_) if unreadable.is_empty() => Err(HeaderFound::Closed),
            Err(_) => Err(HeaderFound::Unusable("a part of its key slots cannot be read; replace the medium".into())),
        },
        Err(Malformed::Absent | Malformed::Short(_)) => Err(HeaderFound::Absent),
        Err(error) => Err(HeaderFound::Unusable(error.to_string())),
    };
    if let Some(places) = start.get_mut(RECORD_OFFSETS[0] as usize..DATA_OFFSET as usize) {
        places.fill(0);
    }
    let blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    // Unreadable blocks beside the record are no sign of a blank partition.
    let readable = unreadable.iter().all(|offset| (RECORD_OFFSETS[0]..DATA_OFFSET).contains(offset));
    let begins = if data::is_ext4(&start) {
        Start::Ext4
    } else if readable && blank(&start) {
        Start::Blank
    } else {
        Start::Other
    };
    let (header, opened) = match decoded {
        Ok((key, slot, header)) => {
            let found = HeaderFound::Opens { volume: header.uuid(), damaged: header.repair().is_some() };
            (found, Some(Opened { key, header, slot, start }))
        }
        Err(found) => (found, None),
    };
    let (newer, settled) = (copies.newer(), copies.settled());
    let record = copies.current().map(|record| record.state);
    Ok((Found { record, newer, settled, header, start: begins, size }, opened))
}

/// Writes a header with a new key over whatever there was.
fn new_header(
    device: &mut impl BlockDevice,
    request: &Request<'_>,
    surroundings: &mut Surroundings<'_>,
) -> Result<(VolumeKey, [u8; 16]), StorageError> {
    let no_random =
        |error| StorageError::Io { operation: "get random bytes for", object: request.label.into(), source: error };
    let key = VolumeKey::fill(&mut *surroundings.random).map_err(no_random)?;
    let random = Randomness::fill(&mut *surroundings.random).map_err(no_random)?;
    let bytes = Header::create(request.label, request.passphrase, &key, &random);
    // The order does not matter: in the states in which this is done the header is worth nothing before it is all there.
    let (copies, slots) = bytes.split_at(2 * HEADER_SIZE);
    device.write_at(2 * HEADER_SIZE as u64, slots)?;
    device.write_at(0, &copies[..HEADER_SIZE])?;
    device.write_at(HEADER_SIZE as u64, &copies[HEADER_SIZE..])?;
    device.flush()?;
    device.verify(0, &bytes)?;
    // What is on the medium is what will be read at the next start; better to find a fault now than then.
    let header =
        Header::decode(&bytes).map_err(|error| refused(device, Refusal::HeaderLost(request.purpose, error.to_string())))?;
    Ok((key, header.uuid()))
}

fn create(
    device: &mut impl BlockDevice,
    request: &Request<'_>,
    surroundings: &mut Surroundings<'_>,
) -> Result<(), StorageError> {
    write_record(device, VolumeState::Creating)?;
    let (key, volume) = new_header(device, request, surroundings)?;
    let xts = Xts::new(key.bytes());
    let length = volume_length(device.size());
    let blank = request.geometry.blank.min(length);
    write_zeros(device, &xts, 0, blank, request.geometry.chunk)?;
    write_zeros(device, &xts, length - blank, blank, request.geometry.chunk)?;
    device.flush()?;
    write_record(device, VolumeState::Encrypted { volume })
}

/// Bytes that the opened volume has.
fn volume_length(size: u64) -> u64 {
    belvedere_luks2::dm_crypt_length(size) * 512
}

/// Encrypted zeros, `length` bytes from `offset` of the volume on. Not flushed.
fn write_zeros(device: &mut impl BlockDevice, xts: &Xts, offset: u64, length: u64, chunk: u64) -> Result<(), StorageError> {
    let mut done = 0;
    while done < length {
        let part = chunk.min(length - done);
        let mut bytes = vec![0; usize::try_from(part).unwrap_or_default()];
        in_sectors(device, xts.encrypt(offset + done, SECTOR, &mut bytes))?;
        device.write_at(DATA_OFFSET + offset + done, &bytes)?;
        done += part;
    }
    Ok(())
}

/// Every length here is of whole sectors; if one were not, nothing must be written.
fn in_sectors(device: &impl BlockDevice, outcome: Result<(), belvedere_luks2::Unaligned>) -> Result<(), StorageError> {
    outcome.map_err(|error| StorageError::Io {
        operation: "encrypt",
        object: device.path().display().to_string(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

/// Reported in place of words: the work gets on.
pub const ALIVE: &str = "";

/// Encrypts from `done` on, wipes what remains of the plain image, and records the end.
fn encrypt(
    device: &mut impl BlockDevice,
    request: &Request<'_>,
    xts: &Xts,
    volume: [u8; 16],
    bytes: u64,
    mut done: u64,
    report: &mut dyn FnMut(&str),
) -> Result<(), StorageError> {
    let Geometry { shift, chunk, .. } = request.geometry;
    let tenth = |done: u64| u128::from(done) * 10 / u128::from(bytes.max(1));
    // A chunk longer than the shift would be written over its own plain form.
    let chunk = chunk.min(shift);
    while done < bytes {
        let before = tenth(done);
        let mut data = vec![0; usize::try_from(chunk.min(bytes - done)).unwrap_or_default()];
        device.read_at(DATA_OFFSET + shift + done, &mut data)?;
        in_sectors(device, xts.encrypt(done, SECTOR, &mut data))?;
        device.write_at(DATA_OFFSET + done, &data)?;
        device.flush()?;
        // The plain form is overwritten by the next chunk: this is the last moment to find that the medium lies.
        device.verify(DATA_OFFSET + done, &data)?;
        done += data.len() as u64;
        write_record(device, VolumeState::Encrypting { volume, bytes, done })?;
        if tenth(done) > before {
            report(&format!("encrypting {}: {} %", request.label, tenth(done) * 10));
        } else {
            report(ALIVE);
        }
    }
    write_zeros(device, xts, bytes, shift, chunk)?;
    device.flush()?;
    write_record(device, VolumeState::Encrypted { volume })
}

fn mend(device: &mut impl BlockDevice, header: &Header, volume: [u8; 16]) -> Result<(), StorageError> {
    // First the record: an older one is worse than none.
    if !records(device).settled()
        || records(device).current().map(|record| record.state) != Some(VolumeState::Encrypted { volume })
    {
        write_record(device, VolumeState::Encrypted { volume })?;
    }
    if !records(device).settled() {
        write_record(device, VolumeState::Encrypted { volume })?;
    }
    if let Some(repair) = header.repair() {
        // Over the copy that is worth nothing: the other one is not touched.
        device.write_durably(repair.offset, &repair.bytes)?;
    }
    Ok(())
}

/// Writes the key slots anew that do not open any more; says whether anything was written. What fails here is told: the volume
/// opens.
///
/// # Errors
/// The device does not answer any more.
fn renew_key_slots(
    device: &mut impl BlockDevice,
    request: &Request<'_>,
    opened: &Opened,
    surroundings: &mut Surroundings<'_>,
) -> Result<bool, StorageError> {
    let Opened { key, header, slot, start } = opened;
    let lost = header.lost_slots(start, request.passphrase, *slot);
    let mut any_written = false;
    for number in &lost {
        let renewed = header.renewed_slot(*number, request.passphrase, key, &mut *surroundings.random);
        let written = renewed.map_err(|error| error.to_string()).and_then(|slot| match slot {
            Some(slot) => device.write_durably(slot.offset, &slot.bytes).map_err(|error| error.to_string()),
            None => Ok(()),
        });
        let end = match written {
            Ok(()) => {
                any_written = true;
                "is written anew".to_owned()
            }
            Err(error) => format!("cannot be written anew, replace the medium: {error}"),
        };
        (surroundings.report)(&format!("{}: key slot {number} does not open, and {end}", request.label));
    }
    if !lost.is_empty() && !any_written && records(device).current().is_none() {
        // Not this place alone takes no write: it is gone, and would not be found by whoever opens it.
        let source = io::Error::other("it answers no more");
        return Err(StorageError::Io { operation: "read", object: device.path().display().to_string(), source });
    }
    Ok(any_written)
}

fn destroy(device: &mut impl BlockDevice, surroundings: &mut Surroundings<'_>) -> Result<(), StorageError> {
    // Into both copies, whatever is in them: a later release's too.
    for _ in 0..2 {
        write_record(device, VolumeState::Destroying)?;
    }
    let mut bytes = vec![0; RECORD_OFFSETS[0] as usize];
    (surroundings.random)(&mut bytes).map_err(|error| StorageError::Io {
        operation: "get random bytes for",
        object: device.path().display().to_string(),
        source: error,
    })?;
    device.write_durably(0, &bytes)?;
    write_record(device, VolumeState::Creating)
}

//! Files on a raw block device, for a time when no file system is there yet: before the volumes are open.
//!
//! The device is cut into places of [`PLACE`] bytes. Each begins with two blocks of 4 KiB, a copy each of what is in it, of which
//! the newer whole one counts; the file's bytes follow from [`HEAD`] on. A copy is the first sector of its block:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `BVSWFILE` |
//! | 8 | 8 | how often this head was written, little-endian |
//! | 16 | 8 | the file's length, bytes |
//! | 24 | 2 | length of the name; 0: no file here |
//! | 26 | 350 | the name |
//! | 508 | 4 | CRC-32 of what is before |
//!
//! Behind the heads of the first place, 2048 bytes into each block, two copies of a sector say that what is stored is in use
//! ([`mark`]): `BVSWUSED`, zeros, CRC-32. Whoever serves the store reads and writes them beside it.
//!
//! A head is written to the copy that does not count, and flushed: a power cut leaves the old head or the new one. Bytes of a
//! file are written in their place, whole sectors, and flushed before anything else is done; OP-TEE keeps two versions of
//! everything inside its files and counts on no more than that.

use crate::files::Files;
use belvedere_durable::{BlockDevice, DurableError};
use belvedere_tee::Code;
use belvedere_tee::supplicant::NAME;
use std::collections::BTreeMap;

/// Bytes of a place, with its head.
pub const PLACE: u64 = 128 << 10;
/// Where a file's bytes begin in a place.
pub const HEAD: u64 = 2 * BLOCK;
/// What a medium may lose at once when the power goes, bytes: the two copies of anything are in different ones.
const BLOCK: u64 = 4096;
/// Bytes of one copy of a head: reaches the medium whole or not at all.
const SECTOR: usize = 512;
const MAGIC: &[u8; 8] = b"BVSWFILE";
const USED: &[u8; 8] = b"BVSWUSED";
/// Where two copies of [`mark`] are, bytes. One that is right is enough.
pub const MARKS: [u64; 2] = [2048, BLOCK + 2048];
/// Bytes of a mark.
pub const MARK_SIZE: usize = SECTOR;

/// What says that something was encrypted with what is stored there.
pub fn mark() -> [u8; MARK_SIZE] {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(USED);
    let sum = crc32fast::hash(&sector[..SECTOR - 4]);
    sector[SECTOR - 4..].copy_from_slice(&sum.to_le_bytes());
    sector
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Head {
    /// 0: never written.
    count: u64,
    length: u64,
    /// Empty: no file here.
    name: String,
}

impl Head {
    fn decode(sector: &[u8; SECTOR]) -> Option<Head> {
        let number = |at: usize| sector.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (content, sum) = sector.split_at(SECTOR - 4);
        let whole = content.starts_with(MAGIC) && sum == crc32fast::hash(content).to_le_bytes();
        let (count, length) = (number(8)?, number(16)?);
        let name = usize::from(u16::from_le_bytes([sector[24], sector[25]]));
        let name = std::str::from_utf8(sector.get(26..26 + name.min(NAME))?).ok()?;
        (whole && length <= PLACE - HEAD).then(|| Head { count, length, name: name.to_owned() })
    }

    fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(MAGIC);
        sector[8..16].copy_from_slice(&self.count.to_le_bytes());
        sector[16..24].copy_from_slice(&self.length.to_le_bytes());
        sector[24..26].copy_from_slice(&(self.name.len() as u16).to_le_bytes());
        sector[26..26 + self.name.len()].copy_from_slice(self.name.as_bytes());
        let sum = crc32fast::hash(&sector[..SECTOR - 4]);
        sector[SECTOR - 4..].copy_from_slice(&sum.to_le_bytes());
        sector
    }
}

/// Files on a device.
#[derive(Debug)]
pub struct Store<D> {
    device: D,
    heads: Vec<Head>,
    /// Which place a handle is for.
    open: BTreeMap<u32, usize>,
    next: u32,
}

impl<D: BlockDevice> Store<D> {
    /// Reads what files there are; a device that is empty has none.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn open(device: D) -> Result<Self, DurableError> {
        let mut heads = Vec::new();
        for place in 0..device.size() / PLACE {
            let mut copies = [[0; SECTOR]; 2];
            for (index, copy) in (0..).zip(&mut copies) {
                // A sector that cannot be read was being written when the power went.
                if device.read_at(place * PLACE + index * BLOCK, copy).is_err() {
                    *copy = [0; SECTOR];
                }
            }
            let [first, second] = copies.map(|copy| Head::decode(&copy).unwrap_or_default());
            heads.push(if second.count > first.count { second } else { first });
        }
        Ok(Self { device, heads, open: BTreeMap::new(), next: 1 })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.heads.iter().position(|head| head.name == name)
    }

    fn set_head(&mut self, place: usize, name: &str, length: u64) -> Result<(), Code> {
        let head = self.heads.get(place).ok_or(Code::BAD_PARAMETERS)?;
        let count = head.count.checked_add(1).ok_or(Code::GENERIC)?;
        let new = Head { count, length, name: name.to_owned() };
        // Odd counts go to the first copy: never over the one that counts.
        let copy = if count % 2 == 1 { 0 } else { BLOCK };
        self.device.write_durably(place as u64 * PLACE + copy, &new.encode()).map_err(|_| Code::GENERIC)?;
        self.heads[place] = new;
        Ok(())
    }

    fn place(&self, handle: u32) -> Result<usize, Code> {
        self.open.get(&handle).copied().ok_or(Code::BAD_PARAMETERS)
    }

    /// Writes bytes of a file: whole sectors, what is beside them as it was.
    fn write_sectors(&mut self, place: usize, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let sector = SECTOR as u64;
        let (begin, end) = (offset / sector * sector, (offset + bytes.len() as u64).next_multiple_of(sector));
        let base = place as u64 * PLACE + HEAD;
        let mut whole = vec![0; (end - begin) as usize];
        for (at, sector) in (base + begin..).step_by(SECTOR).zip(whole.chunks_exact_mut(SECTOR)) {
            // One that was being written when the power went may not be readable; it is mended by writing it.
            if self.device.read_at(at, sector).is_err() {
                sector.fill(0);
            }
        }
        let start = (offset - begin) as usize;
        whole.get_mut(start..start + bytes.len()).ok_or(Code::GENERIC)?.copy_from_slice(bytes);
        self.device.write_durably(base + begin, &whole).map_err(|_| Code::GENERIC)
    }

    /// Makes a file longer, its new bytes zero.
    fn extend(&mut self, place: usize, length: u64) -> Result<(), Code> {
        let Head { length: before, name, .. } = self.heads[place].clone();
        if length > PLACE - HEAD {
            return Err(Code(0xffff_3041));
        }
        let zeros = vec![0; length.saturating_sub(before) as usize];
        self.write_sectors(place, before, &zeros)?;
        self.set_head(place, &name, length)
    }

    fn remove_place(&mut self, place: usize) -> Result<(), Code> {
        let length = self.heads.get(place).ok_or(Code::BAD_PARAMETERS)?.length;
        self.set_head(place, "", 0)?;
        self.open.retain(|_, other| *other != place);
        // Whoever has the disk later must not find an older state by damaging the newer one.
        self.set_head(place, "", 0)?;
        self.write_sectors(place, 0, &vec![0; length as usize])
    }
}

impl<D: BlockDevice> Files for Store<D> {
    fn open(&mut self, name: &str, create: bool) -> Result<u32, Code> {
        if name.is_empty() || name.len() > NAME {
            return Err(Code::BAD_PARAMETERS);
        }
        let place = match (self.find(name), create) {
            (Some(place), true) => {
                self.set_head(place, name, 0)?;
                place
            }
            (Some(place), false) => place,
            (None, false) => return Err(Code::NOT_FOUND),
            (None, true) => {
                let place = self.find("").ok_or(Code(0xffff_3041))?;
                self.set_head(place, name, 0)?;
                place
            }
        };
        let handle = self.next;
        self.next = handle.checked_add(1).ok_or(Code::OUT_OF_MEMORY)?;
        self.open.insert(handle, place);
        Ok(handle)
    }

    fn close(&mut self, handle: u32) {
        self.open.remove(&handle);
    }

    fn read(&mut self, handle: u32, offset: u64, into: &mut [u8]) -> Result<usize, Code> {
        let place = self.place(handle)?;
        let length = self.heads[place].length.saturating_sub(offset).min(into.len() as u64) as usize;
        let Some(into) = into.get_mut(..length).filter(|into| !into.is_empty()) else { return Ok(0) };
        // Whole sectors, as with writing.
        let sector = SECTOR as u64;
        let (begin, end) = (offset / sector * sector, (offset + length as u64).next_multiple_of(sector));
        let mut whole = vec![0; (end - begin) as usize];
        self.device.read_at(place as u64 * PLACE + HEAD + begin, &mut whole).map_err(|_| Code::GENERIC)?;
        let start = (offset - begin) as usize;
        into.copy_from_slice(whole.get(start..start + length).ok_or(Code::GENERIC)?);
        Ok(length)
    }

    fn write(&mut self, handle: u32, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let place = self.place(handle)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= PLACE - HEAD).ok_or(Code(0xffff_3041))?;
        if end > self.heads[place].length {
            self.extend(place, end)?;
        }
        self.write_sectors(place, offset, bytes)
    }

    fn truncate(&mut self, handle: u32, length: u64) -> Result<(), Code> {
        let place = self.place(handle)?;
        if length > self.heads[place].length {
            return self.extend(place, length);
        }
        let name = self.heads[place].name.clone();
        self.set_head(place, &name, length)
    }

    fn remove(&mut self, name: &str) -> Result<(), Code> {
        let place = self.find(name).filter(|_| !name.is_empty()).ok_or(Code::NOT_FOUND)?;
        self.remove_place(place)
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<(), Code> {
        let place = self.find(from).filter(|_| !from.is_empty()).ok_or(Code::NOT_FOUND)?;
        if to.is_empty() || to.len() > NAME {
            return Err(Code::BAD_PARAMETERS);
        }
        match self.find(to) {
            Some(other) if other == place => return Ok(()),
            Some(_) if !replace => return Err(Code(0xffff_0003)),
            // Two writes, and a power cut between them leaves the old name alone: OP-TEE 4.10 renames nothing.
            Some(other) => self.remove_place(other)?,
            None => {}
        }
        let length = self.heads[place].length;
        self.set_head(place, to, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_durable::block_model::{Fate, ModelDevice};

    /// A file's bytes; none when there is no such file.
    fn read_all<D: BlockDevice>(store: &mut Store<D>, name: &str) -> Option<Result<Vec<u8>, Code>> {
        let handle = store.open(name, false).ok()?;
        let mut bytes = vec![0; (PLACE - HEAD) as usize];
        let length = store.read(handle, 0, &mut bytes);
        store.close(handle);
        Some(length.map(|length| {
            bytes.truncate(length);
            bytes
        }))
    }

    fn content<D: BlockDevice>(store: &mut Store<D>, name: &str) -> Option<Vec<u8>> {
        read_all(store, name).map(Result::unwrap)
    }

    fn put<D: BlockDevice>(store: &mut Store<D>, name: &str, bytes: &[u8]) -> Result<(), Code> {
        let handle = store.open(name, true)?;
        store.write(handle, 0, bytes)?;
        store.close(handle);
        Ok(())
    }

    #[test]
    fn files_leave_the_marks_alone() {
        let mut device = device(1);
        for place in MARKS {
            device.write_durably(place, &mark()).unwrap();
        }
        let mut store = Store::open(device).unwrap();
        for size in [5000, (PLACE - HEAD) as usize, 1] {
            put(&mut store, "file", &vec![7; size]).unwrap();
        }
        let after = store.device.power_on(Fate::Lost);
        for place in MARKS {
            let mut sector = [0; MARK_SIZE];
            after.read_at(place, &mut sector).unwrap();
            assert_eq!(sector, mark());
        }
        assert_eq!(Store::open(after).unwrap().heads[0].name, "file");
    }

    fn device(places: usize) -> ModelDevice {
        ModelDevice::new(vec![0; places * PLACE as usize])
    }

    #[test]
    fn files_are_there_again_after_a_start() {
        let mut store = Store::open(device(3)).unwrap();
        put(&mut store, "dirf.db", b"first").unwrap();
        put(&mut store, "1", &[7; 5000]).unwrap();
        let handle = store.open("1", false).unwrap();
        store.write(handle, 6000, b"end").unwrap();
        store.truncate(handle, 6002).unwrap();
        assert_eq!(put(&mut store, "2", b"x").and_then(|()| put(&mut store, "3", b"x")), Err(Code(0xffff_3041)));
        store.remove("2").unwrap();
        let mut again = Store::open(store.device.power_on(Fate::Lost)).unwrap();
        assert_eq!(content(&mut again, "dirf.db").unwrap(), b"first");
        let one = content(&mut again, "1").unwrap();
        assert_eq!((one.len(), &one[4999..5001], &one[6000..]), (6002, &[7, 0][..], &b"en"[..]));
        assert_eq!(content(&mut again, "2"), None);
        again.rename("1", "2", false).unwrap();
        assert_eq!(again.rename("2", "dirf.db", false), Err(Code(0xffff_0003)));
        again.rename("2", "dirf.db", true).unwrap();
        assert_eq!(content(&mut again, "dirf.db"), Some(one));
        assert_eq!(again.open("1", false), Err(Code::NOT_FOUND));
    }

    #[test]
    fn nothing_is_written_into_the_neighbour() {
        let mut store = Store::open(device(2)).unwrap();
        put(&mut store, "a", b"a").unwrap();
        put(&mut store, "b", b"b").unwrap();
        let handle = store.open("a", false).unwrap();
        let full = vec![1; (PLACE - HEAD) as usize];
        store.write(handle, 0, &full).unwrap();
        assert!(store.write(handle, 1, &full).is_err() && store.write(handle, u64::MAX, &[1]).is_err());
        assert!(store.truncate(handle, PLACE - HEAD + 1).is_err());
        assert_eq!(content(&mut store, "b").unwrap(), b"b");
    }

    /// Whatever the power does: the files that were not being changed are whole, and the one that was has its old head or its new.
    #[test]
    fn a_power_cut_leaves_the_old_or_the_new() {
        let mut before = Store::open(device(3)).unwrap();
        put(&mut before, "kept", b"kept").unwrap();
        put(&mut before, "changed", &[1; SECTOR]).unwrap();
        let medium = before.device.power_on(Fate::Kept);
        let change = |store: &mut Store<ModelDevice>| {
            let handle = store.open("changed", false)?;
            // Not in a sector with old bytes: one that was being written may hold rubbish.
            store.write(handle, SECTOR as u64, &[2; 8])?;
            put(store, "made", b"made")?;
            store.remove("changed")
        };
        let mut whole = Store::open(medium.power_on(Fate::Kept)).unwrap();
        change(&mut whole).unwrap();
        let operations = whole.device.operations();
        assert!(operations > 10);
        for cut in 0..=operations {
            for fate in (0..40).map(Fate::numbered) {
                let mut device = medium.power_on(Fate::Kept);
                device.cut_at(cut);
                let mut store = Store::open(device).unwrap();
                let outcome = change(&mut store);
                assert_eq!(outcome.is_ok(), !store.device.is_off());
                let mut after = Store::open(store.device.power_on(fate)).unwrap();
                assert_eq!(content(&mut after, "kept").unwrap(), b"kept", "{cut} {fate:?}");
                // The sector that was being written may not be readable: then nothing is read instead of something wrong.
                if let Some(changed) = read_all(&mut after, "changed") {
                    let Ok(changed) = changed else { continue };
                    let whole = changed.starts_with(&[1; SECTOR]) && [SECTOR, SECTOR + 8].contains(&changed.len());
                    assert!(whole, "{cut} {fate:?} {changed:?}");
                } else {
                    assert_eq!(content(&mut after, "made").unwrap(), b"made", "{cut} {fate:?}");
                }
                // And it goes on.
                put(&mut after, "made", b"again").unwrap();
                assert_eq!(content(&mut after, "made").unwrap(), b"again");
            }
        }
    }
}

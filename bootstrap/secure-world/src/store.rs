//! Files on a raw block device, for a time when no file system is there yet: before the volumes are open.
//!
//! The device is cut into places of [`PLACE`] bytes, one for a file: two blocks of 4 KiB with its head, then, from [`HEAD`] on,
//! 15 blocks with its bytes, and the same 15 once more. A head is the first sector of its block:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `BVSWFIL2` |
//! | 8 | 8 | how often this head was written, little-endian |
//! | 16 | 8 | the file's length, bytes |
//! | 24 | 2 | length of the name; 0: no file here |
//! | 26 | 350 | the name |
//! | 508 | 4 | CRC-32 of what is before |
//!
//! A block of a file:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4084 | the file's bytes |
//! | 4084 | 8 | how often this block was written, little-endian |
//! | 4092 | 4 | CRC-32 of what is before |
//!
//! Behind the heads of the first place, 2048 bytes into each block, two copies of a sector say that what is stored is in use
//! ([`mark`]): `BVSWUSED`, zeros, CRC-32. Whoever serves the store reads and writes them beside it.
//!
//! So everything is there twice, and the newer whole copy counts. What is new is written to the copy that does not count, and
//! flushed, and then to the other one: a power cut leaves each block as it was or as it is to be, and one copy that cannot be
//! read any more, or was altered, loses nothing. [`Store::mend`] writes that one anew. Of several blocks some may be new and
//! some old after a power cut; OP-TEE keeps two versions of everything inside its files, and stands that.
//!
//! A file may have 59 KiB. OP-TEE 4.10 makes two, of 16 KiB each: its directory, and the keeper's one object.
//!
//! A block that can be read and not written is not worked around: the write fails, and what counted before still does.

use crate::files::Files;
use belvedere_durable::{BlockDevice, DurableError};
use belvedere_tee::Code;
use belvedere_tee::supplicant::NAME;
use std::collections::BTreeMap;

/// Bytes of a place, with its head.
pub const PLACE: u64 = 128 << 10;
/// Where a file's bytes begin in a place.
pub const HEAD: u64 = 2 * BLOCK;
/// From the first copy of a file's bytes to the second.
const COPY: u64 = (PLACE - HEAD) / 2;
/// Bytes of a file in a block.
const CONTENT: usize = BLOCK as usize - 12;
/// Bytes of the largest file.
pub const LARGEST: u64 = COPY / BLOCK * CONTENT as u64;
/// What a medium may lose at once when the power goes, bytes: the two copies of anything are in different ones.
const BLOCK: u64 = 4096;
/// Bytes of one copy of a head: reaches the medium whole or not at all.
const SECTOR: usize = 512;
const MAGIC: &[u8; 8] = b"BVSWFIL2";
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
        (whole && length <= LARGEST).then(|| Head { count, length, name: name.to_owned() })
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

/// A block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// 0: never written.
    count: u64,
    content: Vec<u8>,
}

impl Block {
    fn decode(bytes: &[u8]) -> Option<Block> {
        let (whole, sum) = bytes.split_last_chunk::<4>()?;
        let (content, count) = whole.split_last_chunk::<8>()?;
        let block = Block { count: u64::from_le_bytes(*count), content: content.to_vec() };
        (crc32fast::hash(whole) == u32::from_le_bytes(*sum)).then_some(block)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = [&self.content[..], &self.count.to_le_bytes()].concat();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }
}

/// Which of two copies counts: the newer whole one. None: neither is whole.
fn counting<T>(copies: &[Option<T>; 2], count: impl Fn(&T) -> u64) -> Option<usize> {
    match copies {
        [Some(first), Some(second)] => Some(usize::from(count(second) > count(first))),
        [first, second] => first.as_ref().map(|_| 0).or(second.as_ref().map(|_| 1)),
    }
}

/// Where a copy of a file's block is.
const fn address(place: usize, copy: usize, number: usize) -> u64 {
    place as u64 * PLACE + HEAD + copy as u64 * COPY + number as u64 * BLOCK
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
        let places = usize::try_from(device.size() / PLACE).unwrap_or(0);
        let mut store = Self { device, heads: Vec::new(), open: BTreeMap::new(), next: 1 };
        for place in 0..places {
            let mut copies = store.head_copies(place);
            let head = counting(&copies, |head| head.count).and_then(|copy| copies[copy].take());
            store.heads.push(head.unwrap_or_default());
        }
        Ok(store)
    }

    /// Writes anew the copies that are not whole, or older than the other: gives how many. Never over a copy that counts, and
    /// what is read from the store stays the same.
    ///
    /// # Errors
    /// When one cannot be written. Then nothing that is written through this device later is believed: open it anew.
    pub fn mend(&mut self) -> Result<usize, DurableError> {
        let mut mended = 0;
        for place in 0..self.heads.len() {
            let heads = self.head_copies(place);
            if let Some(copy) = counting(&heads, |head| head.count)
                && heads[0] != heads[1]
            {
                let head = heads[copy].clone().unwrap_or_default();
                self.write_head(place, 1 - copy, &head)?;
                mended += 1;
            }
            for number in 0..self.heads[place].length.div_ceil(CONTENT as u64) as usize {
                let copies = self.copies(place, number);
                if let Some(copy) = counting(&copies, |block| block.count)
                    && copies[0] != copies[1]
                    && let Some(block) = &copies[copy]
                {
                    self.device.write_durably(address(place, 1 - copy, number), &block.encode())?;
                    mended += 1;
                }
            }
        }
        let marked = MARKS.map(|place| self.is_marked(place));
        if let [true, false] | [false, true] = marked {
            self.device.write_durably(MARKS[usize::from(marked[0])], &mark())?;
            mended += 1;
        }
        Ok(mended)
    }

    fn is_marked(&self, place: u64) -> bool {
        let mut sector = [0; MARK_SIZE];
        self.device.read_at(place, &mut sector).is_ok() && sector == mark()
    }

    fn head_copies(&self, place: usize) -> [Option<Head>; 2] {
        [0, BLOCK].map(|copy| {
            let mut sector = [0; SECTOR];
            self.device.read_at(place as u64 * PLACE + copy, &mut sector).ok()?;
            Head::decode(&sector)
        })
    }

    /// The copies of a file's block, as far as they are whole.
    fn copies(&self, place: usize, number: usize) -> [Option<Block>; 2] {
        [0, 1].map(|copy| {
            let mut bytes = vec![0; BLOCK as usize];
            self.device.read_at(address(place, copy, number), &mut bytes).ok()?;
            Block::decode(&bytes)
        })
    }

    fn write_head(&mut self, place: usize, copy: usize, head: &Head) -> Result<(), DurableError> {
        let at = place as u64 * PLACE + copy as u64 * BLOCK;
        let mut block = vec![0; BLOCK as usize];
        if self.device.read_at(at, &mut block).is_ok() {
            return self.device.write_durably(at, &head.encode());
        }
        // The kernel reads what a write leaves of a block: one that cannot be read is written as a whole. Its mark is lost with it;
        // the other one says the same, and `mend` makes it two again.
        block.fill(0);
        block[..SECTOR].copy_from_slice(&head.encode());
        self.device.write_durably(at, &block)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.heads.iter().position(|head| head.name == name)
    }

    fn set_head(&mut self, place: usize, name: &str, length: u64) -> Result<(), Code> {
        let head = self.heads.get(place).ok_or(Code::BAD_PARAMETERS)?;
        let count = head.count.checked_add(1).ok_or(Code::GENERIC)?;
        let new = Head { count, length, name: name.to_owned() };
        // First the copy that does not count; when that one is on the medium, the other.
        let counts = counting(&self.head_copies(place), |head| head.count).unwrap_or(1);
        self.write_head(place, 1 - counts, &new).map_err(|_| Code::GENERIC)?;
        self.heads[place] = new.clone();
        self.write_head(place, counts, &new).map_err(|_| Code::GENERIC)
    }

    fn place(&self, handle: u32) -> Result<usize, Code> {
        self.open.get(&handle).copied().ok_or(Code::BAD_PARAMETERS)
    }

    /// Writes bytes of a file.
    fn write_bytes(&mut self, place: usize, mut offset: u64, mut bytes: &[u8]) -> Result<(), Code> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let (number, start) = ((offset / CONTENT as u64) as usize, (offset % CONTENT as u64) as usize);
            let (now, rest) = bytes.split_at(bytes.len().min(CONTENT - start));
            let mut copies = self.copies(place, number);
            let counts = counting(&copies, |block| block.count);
            // One that is whole nowhere is mended by writing it: OP-TEE finds out what is missing.
            let block = counts.and_then(|copy| copies[copy].take());
            let mut block = block.unwrap_or_else(|| Block { count: 0, content: vec![0; CONTENT] });
            block.count = block.count.checked_add(1).ok_or(Code::GENERIC)?;
            block.content[start..start + now.len()].copy_from_slice(now);
            blocks.push((number, counts.unwrap_or(1), block.encode()));
            (offset, bytes) = (offset + now.len() as u64, rest);
        }
        // First those that do not count, then, when these are on the medium, the others.
        self.write_copies(place, &blocks, 1).and_then(|()| self.write_copies(place, &blocks, 0)).map_err(|_| Code::GENERIC)
    }

    /// Writes one copy of each of the blocks, durably: with `other` 0 the one that counts, with 1 the other.
    fn write_copies(&mut self, place: usize, blocks: &[(usize, usize, Vec<u8>)], other: usize) -> Result<(), DurableError> {
        for (number, counts, bytes) in blocks {
            self.device.write_at(address(place, counts ^ other, *number), bytes)?;
        }
        self.device.flush()?;
        blocks
            .iter()
            .try_for_each(|(number, counts, bytes)| self.device.verify(address(place, counts ^ other, *number), bytes))
    }

    /// Makes a file longer, its new bytes zero.
    fn extend(&mut self, place: usize, length: u64) -> Result<(), Code> {
        let Head { length: before, name, .. } = self.heads[place].clone();
        if length > LARGEST {
            return Err(Code(0xffff_3041));
        }
        let zeros = vec![0; length.saturating_sub(before) as usize];
        self.write_bytes(place, before, &zeros)?;
        self.set_head(place, &name, length)
    }

    fn remove_place(&mut self, place: usize) -> Result<(), Code> {
        let length = self.heads.get(place).ok_or(Code::BAD_PARAMETERS)?.length;
        self.set_head(place, "", 0)?;
        self.open.retain(|_, other| *other != place);
        // Whoever has the disk later must not find an older state: both copies are written over.
        self.write_bytes(place, 0, &vec![0; length as usize])
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
        let (mut offset, mut rest) = (offset, into);
        while !rest.is_empty() {
            let (number, start) = ((offset / CONTENT as u64) as usize, (offset % CONTENT as u64) as usize);
            let now = rest.len().min(CONTENT - start);
            let (part, behind) = rest.split_at_mut(now);
            let copies = self.copies(place, number);
            let copy = counting(&copies, |block| block.count).and_then(|copy| copies[copy].as_ref()).ok_or(Code::GENERIC)?;
            part.copy_from_slice(copy.content.get(start..start + now).ok_or(Code::GENERIC)?);
            (offset, rest) = (offset + now as u64, behind);
        }
        Ok(length)
    }

    fn write(&mut self, handle: u32, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let place = self.place(handle)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= LARGEST).ok_or(Code(0xffff_3041))?;
        if end > self.heads[place].length {
            self.extend(place, end)?;
        }
        self.write_bytes(place, offset, bytes)
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
#[path = "store_tests.rs"]
mod tests;

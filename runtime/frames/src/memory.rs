//! The memory of a ring: a sealed memfd that its producer alone can write.

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Pictures are at most 1920×1080 (larger ones are scaled down before they get here), with room for tall ones.
pub const MAXIMUM_PIXELS: u64 = 1920 * 1080;
/// The longest side of a picture, in pixels.
pub const MAXIMUM_SIDE: u32 = 4096;
/// Slots begin on borders of this many bytes: a page of every machine whose pages are 4 kB.
const ALIGNMENT: u64 = 4096;

/// How pictures lie in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Slots.
    pub slots: u32,
}

impl Layout {
    /// Bytes from one row to the next: rows of BGR24 without padding, so that a row-major array of the picture is
    /// contiguous and every library takes it without a copy.
    pub fn stride(&self) -> u32 {
        self.width * 3
    }

    /// Bytes of a picture.
    pub fn picture_bytes(&self) -> u64 {
        u64::from(self.stride()) * u64::from(self.height)
    }

    /// Bytes per slot.
    pub fn slot_bytes(&self) -> u64 {
        self.picture_bytes().next_multiple_of(ALIGNMENT)
    }

    /// Whether a ring can be made for it.
    pub fn valid(&self) -> bool {
        (1..=MAXIMUM_SIDE).contains(&self.width)
            && (1..=MAXIMUM_SIDE).contains(&self.height)
            && u64::from(self.width) * u64::from(self.height) <= MAXIMUM_PIXELS
            && (1..=1024).contains(&self.slots)
    }
}

/// A mapping of this process, undone when dropped.
struct Mapping {
    start: *mut c_void,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value; it is reached through `&mut self` (writing) or read-only views.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives shared, read-only access only.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and bytes come from the mmap call that made this value, and no view outlives it.
        let _ = unsafe { rustix::mm::munmap(self.start, self.bytes) };
    }
}

/// The producer's side.
pub struct Producer {
    memory: OwnedFd,
    mapping: Mapping,
    layout: Layout,
    allocated: Vec<bool>,
}

impl Producer {
    /// Makes the memory: created, sized, mapped for writing, and only then sealed, so that this mapping is the only one
    /// that can ever write (`F_SEAL_FUTURE_WRITE`) and no one can shrink it under a reader (`SIGBUS`).
    pub fn new(layout: Layout) -> Result<Self, Errno> {
        if !layout.valid() {
            return Err(Errno::INVAL);
        }
        let bytes = layout.slot_bytes() * u64::from(layout.slots);
        let memory = rustix::fs::memfd_create("belvedere-frames", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&memory, bytes)?;
        let bytes = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &memory, 0)?
        };
        let mapping = Mapping { start, bytes };
        rustix::fs::fcntl_add_seals(
            &memory,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?;
        Ok(Producer { memory, mapping, layout, allocated: vec![false; layout.slots as usize] })
    }

    /// How pictures lie in it.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// To be sent to clients.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Bytes that [`Producer::slot`] will take for a slot that was never used; 0 for one that was.
    pub fn missing(&self, slot: u32) -> u64 {
        match self.allocated.get(slot as usize) {
            Some(false) => self.layout.slot_bytes(),
            _ => 0,
        }
    }

    /// The bytes of one picture, to be written. Memory for a slot is taken when it is used for the first time, so that
    /// a ring costs what is really in use; `NOMEM` or `NOSPC` when there is none (instead of a `SIGBUS` while writing).
    pub fn slot(&mut self, slot: u32) -> Result<&mut [u8], Errno> {
        let allocated = self.allocated.get_mut(slot as usize).ok_or(Errno::INVAL)?;
        let offset = u64::from(slot) * self.layout.slot_bytes();
        if !*allocated {
            rustix::fs::fallocate(&self.memory, FallocateFlags::empty(), offset, self.layout.slot_bytes())?;
            *allocated = true;
        }
        // SAFETY: the slot lies inside the mapping (slot < slots), which lives as long as `self`; `&mut self` makes this
        // the only view in the process. Other processes map the memory read-only or privately, so they cannot change it.
        Ok(unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.start.cast::<u8>().add(offset as usize),
                self.layout.picture_bytes() as usize,
            )
        })
    }
}

/// A client's side: the whole ring, read-only.
pub struct Consumer {
    mapping: Mapping,
    layout: Layout,
}

impl Consumer {
    /// Maps what a server sent. `INVAL` when its announcement contradicts itself or the memory.
    pub fn new(memory: impl AsFd, layout: Layout, slot_bytes: u64, stride: u32) -> Result<Self, Errno> {
        if !layout.valid() || slot_bytes != layout.slot_bytes() || stride != layout.stride() {
            return Err(Errno::INVAL);
        }
        let bytes = slot_bytes * u64::from(layout.slots);
        let seals = rustix::fs::fcntl_get_seals(&memory)?;
        if !seals.contains(SealFlags::SHRINK)
            || u64::try_from(rustix::fs::fstat(&memory)?.st_size).is_ok_and(|size| size < bytes)
        {
            return Err(Errno::INVAL);
        }
        let bytes = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice; the memory cannot shrink (checked above).
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &memory, 0)? };
        Ok(Consumer { mapping: Mapping { start, bytes }, layout })
    }

    /// How pictures lie in it.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// One picture's bytes. Meaningful while the caller has a lease on the slot: the producer leaves it alone then.
    pub fn slot(&self, slot: u32) -> Option<&[u8]> {
        if slot >= self.layout.slots {
            return None;
        }
        let offset = u64::from(slot) * self.layout.slot_bytes();
        // SAFETY: inside the mapping, which lives as long as `self`. Bytes are plain data: should the producer break the
        // protocol and write, the reader sees a mixed picture and nothing worse.
        Some(unsafe {
            std::slice::from_raw_parts(
                self.mapping.start.cast::<u8>().add(offset as usize),
                self.layout.picture_bytes() as usize,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { width: 50, height: 40, slots: 3 };

    #[test]
    fn what_is_written_is_read_on_the_other_side() {
        let mut producer = Producer::new(LAYOUT).unwrap();
        let consumer = Consumer::new(producer.memory(), LAYOUT, LAYOUT.slot_bytes(), LAYOUT.stride()).unwrap();
        for slot in 0..3 {
            producer.slot(slot).unwrap().fill(slot as u8 + 1);
        }
        for slot in 0..3 {
            let bytes = consumer.slot(slot).unwrap();
            assert_eq!(bytes.len(), 50 * 40 * 3);
            assert!(bytes.iter().all(|byte| *byte == slot as u8 + 1));
        }
        assert!(consumer.slot(3).is_none());
        assert_eq!(producer.slot(3).err(), Some(Errno::INVAL));
    }

    #[test]
    fn a_client_can_neither_write_nor_resize_it() {
        let producer = Producer::new(LAYOUT).unwrap();
        let memory = producer.memory();
        assert_eq!(rustix::fs::ftruncate(memory, 1), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(memory, 1 << 30), Err(Errno::PERM));
        assert_eq!(rustix::io::pwrite(memory, b"x", 0), Err(Errno::PERM));
        // SAFETY: a new mapping at an address of the kernel's choice; it is refused.
        let shared = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, 0)
        };
        assert_eq!(shared.err(), Some(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(memory, SealFlags::WRITE), Err(Errno::PERM), "sealed for good");
    }

    #[test]
    fn an_announcement_that_contradicts_the_memory_is_refused() {
        let producer = Producer::new(LAYOUT).unwrap();
        let more = Layout { slots: 4, ..LAYOUT };
        for (layout, slot_bytes, stride) in [
            (more, LAYOUT.slot_bytes(), LAYOUT.stride()),
            (LAYOUT, LAYOUT.slot_bytes() + 1, LAYOUT.stride()),
            (LAYOUT, LAYOUT.slot_bytes(), LAYOUT.stride() + 1),
            (Layout { width: 0, ..LAYOUT }, 0, 0),
        ] {
            assert_eq!(Consumer::new(producer.memory(), layout, slot_bytes, stride).err(), Some(Errno::INVAL));
        }
        let unsealed = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, 1 << 20).unwrap();
        assert!(Consumer::new(&unsealed, LAYOUT, LAYOUT.slot_bytes(), LAYOUT.stride()).is_err());
    }

    #[test]
    fn only_pictures_within_the_bounds_get_a_ring() {
        for (width, height, fits) in
            [(1920, 1080, true), (1921, 1080, false), (4096, 506, true), (4097, 2, false), (0, 5, false)]
        {
            assert_eq!(Layout { width, height, slots: 2 }.valid(), fits, "{width}×{height}");
        }
    }
}

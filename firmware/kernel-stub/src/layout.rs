//! Where a kernel's parts go in memory. No I/O, no `unsafe`: the stub carries out what this decides.
//!
//! The kernel carries no signature, so the firmware's `LoadImage` would refuse it, and that is the point: nothing but
//! this stub starts it. The bytes are part of the stub's own image, which the firmware verified as one; they are checked
//! here all the same, so that a kernel that this loader does not fit is refused in words and not half started.
//!
//! It is a loader for one kind of image: an arm64 Linux kernel with its EFI stub (PE32+, position-independent, sections
//! aligned to pages). What such a kernel does not need (relocations, imports, sections that are writable and
//! executable) is refused.

use alloc::vec::Vec;
use core::ops::Range;

use crate::image::{Image, SECTION_HEADER};
use crate::{u16_at, u32_at};

/// Most bytes of a kernel in memory. Four times what any of ours will need in ten years.
const MAXIMUM_SIZE: usize = 256 << 20;
const MAXIMUM_SECTIONS: usize = 16;
const PAGE: usize = 4096;
const MAXIMUM_ALIGNMENT: usize = 2 << 20;

const MACHINE_ARM64: u16 = 0xaa64;
const SUBSYSTEM_EFI_APPLICATION: u16 = 10;
const EXECUTABLE: u32 = 0x2000_0000;
const WRITABLE: u32 = 0x8000_0000;

/// Why a kernel cannot be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutError {
    /// No 64-bit PE image, or one whose headers point outside themselves.
    Malformed,
    /// Not an EFI application for arm64.
    Kind,
    /// Too large, or sizes and alignments that cannot be.
    Size,
    /// It carries a signature: whoever cuts it out could start it by itself.
    Signed,
    /// It wants to be relocated, which this loader does not do.
    Relocations,
    /// A section lies outside the image, over another one, or outside the file.
    Section,
    /// A section is writable and executable.
    WritableCode,
    /// The entry point is in no executable section.
    Entry,
}

impl LayoutError {
    /// For the console.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Malformed => "the kernel is no well-formed 64-bit PE image",
            Self::Kind => "the kernel is no EFI application for arm64",
            Self::Size => "the kernel's sizes or alignments are impossible",
            Self::Signed => "the kernel carries a signature of its own; assemble the image from an unsigned kernel",
            Self::Relocations => "the kernel wants to be relocated",
            Self::Section => "a section of the kernel lies outside it or over another one",
            Self::WritableCode => "a section of the kernel is writable and executable",
            Self::Entry => "the kernel's entry point is in no executable section",
        }
    }
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it is in memory, from the base; whole pages.
    pub memory: Range<usize>,
    /// Where its bytes are in the file; the rest of it in memory is zero.
    pub file: Range<usize>,
    /// Whether it holds code. It is not writable then.
    pub executable: bool,
}

/// A kernel in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes in memory, whole pages.
    pub size: usize,
    /// The base is a multiple of this, which is a multiple of a page.
    pub alignment: usize,
    /// The entry point, from the base.
    pub entry: usize,
    /// So many bytes of the file go to the base as they are.
    pub headers: usize,
    /// In ascending order, not overlapping.
    pub segments: Vec<Segment>,
}

impl Layout {
    /// Decides.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn of(kernel: &[u8]) -> Result<Self, LayoutError> {
        let image = Image::parse(kernel).map_err(|_| LayoutError::Malformed)?;
        let half = |at: usize| u16_at(kernel, at).ok_or(LayoutError::Malformed);
        let word = |at: usize| u32_at(kernel, at).map(|word| word as usize).ok_or(LayoutError::Malformed);
        let optional = image.optional;
        if half(image.coff)? != MACHINE_ARM64 || half(optional + 68)? != SUBSYSTEM_EFI_APPLICATION {
            return Err(LayoutError::Kind);
        }
        let (alignment, size, headers) = (word(optional + 32)?, word(optional + 56)?, word(optional + 60)?);
        let possible = alignment.is_power_of_two()
            && (PAGE..=MAXIMUM_ALIGNMENT).contains(&alignment)
            && size <= MAXIMUM_SIZE
            && image.sections <= MAXIMUM_SECTIONS
            && headers <= size
            && headers <= kernel.len();
        if !possible {
            return Err(LayoutError::Size);
        }
        let size = size.next_multiple_of(PAGE);
        if image.is_signed() {
            return Err(LayoutError::Signed);
        }
        if image.data_directory(5).is_some_and(|(_, length)| length != 0) {
            return Err(LayoutError::Relocations);
        }

        let mut segments: Vec<Segment> = Vec::new();
        let mut end = headers.next_multiple_of(PAGE);
        for index in 0..image.sections {
            let header = image.table + index * SECTION_HEADER;
            let (virtual_size, address) = (word(header + 8)?, word(header + 12)?);
            let (stored, offset) = (word(header + 16)?, word(header + 20)?);
            let kind = u32_at(kernel, header + 36).ok_or(LayoutError::Malformed)?;
            let memory = address..address.checked_add(virtual_size).ok_or(LayoutError::Section)?.next_multiple_of(PAGE);
            let file = offset..offset.checked_add(stored.min(virtual_size)).ok_or(LayoutError::Section)?;
            let inside = memory.start >= end
                && memory.start.is_multiple_of(PAGE)
                && memory.end <= size
                && kernel.get(file.clone()).is_some();
            if !inside {
                return Err(LayoutError::Section);
            }
            if kind & EXECUTABLE != 0 && kind & WRITABLE != 0 {
                return Err(LayoutError::WritableCode);
            }
            end = memory.end;
            segments.push(Segment { memory, file, executable: kind & EXECUTABLE != 0 });
        }
        let entry = word(optional + 16)?;
        if !segments.iter().any(|segment| segment.executable && segment.memory.contains(&entry)) {
            return Err(LayoutError::Entry);
        }
        Ok(Self { size, alignment, entry, headers, segments })
    }

    /// Fills `memory`, which is [`Layout::size`] bytes of zeros. False when `kernel` or `memory` is not the one that
    /// this layout is of.
    #[must_use]
    pub fn fill(&self, kernel: &[u8], memory: &mut [u8]) -> bool {
        let copy = |memory: &mut [u8], to: usize, from: Range<usize>| {
            let source = kernel.get(from)?;
            memory.get_mut(to..to.checked_add(source.len())?)?.copy_from_slice(source);
            Some(())
        };
        copy(memory, 0, 0..self.headers).is_some()
            && self.segments.iter().all(|segment| copy(memory, segment.memory.start, segment.file.clone()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const OPTIONAL: usize = 0x58;
    const TABLE: usize = OPTIONAL + 160;

    fn put(file: &mut [u8], at: usize, value: u32) {
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// As arm64's `efi-header.S` lays a kernel out, in small: headers, `.text`, `.data` with more memory than file.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0u8; 0x5000];
        file[..2].copy_from_slice(b"MZ");
        put(&mut file, 0x3c, 0x40);
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        file[0x44..0x46].copy_from_slice(&MACHINE_ARM64.to_le_bytes());
        file[0x46..0x48].copy_from_slice(&2u16.to_le_bytes());
        file[0x54..0x56].copy_from_slice(&160u16.to_le_bytes());
        file[OPTIONAL..OPTIONAL + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        for (at, value) in [(16, 0x1200), (32, 0x1000), (36, 0x200), (56, 0x9000), (60, 0x1000), (108, 6)] {
            put(&mut file, OPTIONAL + at, value);
        }
        file[OPTIONAL + 68..OPTIONAL + 70].copy_from_slice(&10u16.to_le_bytes());
        for (index, (address, memory, stored, kind)) in
            [(0x1000, 0x2000, 0x2000, 0x6000_0020u32), (0x3000, 0x6000, 0x1800, 0xc000_0040)].into_iter().enumerate()
        {
            let header = TABLE + 40 * index;
            for (at, value) in [(8, memory), (12, address), (16, stored), (20, address), (36, kind)] {
                put(&mut file, header + at, value);
            }
        }
        file[0x1000..0x3000].fill(0xc0);
        file[0x3000..0x4800].fill(0xda);
        file
    }

    #[test]
    fn a_kernel_is_laid_out_as_its_headers_say() {
        let file = kernel();
        let layout = Layout::of(&file).unwrap();
        assert_eq!((layout.size, layout.alignment, layout.entry, layout.headers), (0x9000, 0x1000, 0x1200, 0x1000));
        assert_eq!(layout.segments[0], Segment { memory: 0x1000..0x3000, file: 0x1000..0x3000, executable: true });
        assert_eq!(layout.segments[1], Segment { memory: 0x3000..0x9000, file: 0x3000..0x4800, executable: false });
        let mut memory = vec![0; layout.size];
        assert!(layout.fill(&file, &mut memory));
        assert_eq!(memory[..0x4800], file[..0x4800]);
        assert!(memory[0x4800..].iter().all(|&byte| byte == 0));
        assert!(!layout.fill(&file, &mut memory[..0x4000]));
        assert!(!layout.fill(&file[..0x4000], &mut vec![0; layout.size]));
    }

    #[test]
    fn what_is_no_kernel_of_ours_is_refused_with_the_reason() {
        use LayoutError::*;
        let text = TABLE;
        let data = TABLE + 40;
        for (at, value, error) in [
            (0x40, 0, Malformed),
            (0x44, 0x0002_8664, Kind),
            (OPTIONAL + 68, 11, Kind),
            (OPTIONAL + 32, 0x200, Size),
            (OPTIONAL + 32, 0x3000, Size),
            (OPTIONAL + 56, u32::MAX, Size),
            (OPTIONAL + 60, 0x6000, Size),
            (0x46, 17, Size),
            (OPTIONAL + 112 + 4 * 8 + 4, 1, Signed),
            (OPTIONAL + 112 + 5 * 8 + 4, 8, Relocations),
            (text + 12, 0x800, Section),
            (text + 12, 0, Section),
            (text + 8, u32::MAX, Section),
            (text + 12, u32::MAX, Section),
            (text + 20, 0x4000, Section),
            (text + 20, u32::MAX, Section),
            (data + 12, 0x2000, Section),
            (data + 8, 0x6001, Section),
            (text + 36, 0xe000_0020, WritableCode),
            (OPTIONAL + 16, 0, Entry),
            (OPTIONAL + 16, 0x3000, Entry),
            (OPTIONAL + 16, u32::MAX, Entry),
        ] {
            let mut file = kernel();
            let kept = u16_at(&file, at + 2).unwrap();
            put(&mut file, at, value);
            // Fields of two bytes keep their neighbour.
            if at == OPTIONAL + 68 || at == 0x46 {
                file[at + 2..at + 4].copy_from_slice(&kept.to_le_bytes());
            }
            assert_eq!(Layout::of(&file), Err(error), "{at:#x} {value:#x}");
        }
        let file = kernel();
        for length in 0..0x4800 {
            assert!(Layout::of(&file[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn whatever_the_headers_say_the_layout_stays_inside_its_bounds() {
        let file = kernel();
        for at in 0x40..TABLE + 80 {
            for value in [0u8, 1, 0x7f, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                if let Ok(layout) = Layout::of(&file) {
                    let mut memory = vec![0; layout.size];
                    assert!(layout.fill(&file, &mut memory));
                    assert!(layout.entry < layout.size);
                }
            }
        }
    }
}

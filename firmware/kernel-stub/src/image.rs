//! Finds sections in a PE image, in a file or as the firmware laid it out in memory.
//!
//! Offsets are those of Microsoft's "PE Format" page; everything is checked against the slice, although in the stub
//! the firmware has verified the bytes already.

use crate::{u16_at, u32_at};

/// Not a 64-bit PE image, or one whose headers point outside themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("not a well-formed 64-bit PE image")
    }
}

/// The headers of a PE image.
#[derive(Debug, Clone, Copy)]
pub struct Image<'bytes> {
    bytes: &'bytes [u8],
    pub(crate) coff: usize,
    pub(crate) optional: usize,
    pub(crate) table: usize,
    pub(crate) sections: usize,
}

pub(crate) const SECTION_HEADER: usize = 40;

impl<'bytes> Image<'bytes> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`Malformed`] when this is no PE32+ image.
    pub fn parse(bytes: &'bytes [u8]) -> Result<Self, Malformed> {
        let parse = || {
            (bytes.get(..2)? == b"MZ").then_some(())?;
            let signature = u32_at(bytes, 0x3c)? as usize;
            (bytes.get(signature..signature.checked_add(4)?)? == b"PE\0\0").then_some(())?;
            let coff = signature + 4;
            let sections = u16_at(bytes, coff + 2)? as usize;
            let optional = coff + 20;
            (u16_at(bytes, optional)? == 0x20b).then_some(())?;
            let table = optional + u16_at(bytes, coff + 16)? as usize;
            bytes.get(table..table.checked_add(sections * SECTION_HEADER)?)?;
            Some(Self { bytes, coff, optional, table, sections })
        };
        parse().ok_or(Malformed)
    }

    /// The content of the section `name` in an image that was **loaded**: addresses count from the image's base.
    /// Its length is the section's virtual size, without the padding in the file.
    pub fn loaded_section(&self, name: &str) -> Option<&'bytes [u8]> {
        let header = self.header(name)?;
        let size = u32_at(self.bytes, header + 8)? as usize;
        let address = u32_at(self.bytes, header + 12)? as usize;
        self.bytes.get(address..address.checked_add(size)?)
    }

    /// The content of the section `name` in an image **file**.
    pub fn file_section(&self, name: &str) -> Option<&'bytes [u8]> {
        let header = self.header(name)?;
        let size = u32_at(self.bytes, header + 8)?;
        let stored = u32_at(self.bytes, header + 16)?;
        let offset = u32_at(self.bytes, header + 20)? as usize;
        self.bytes.get(offset..offset.checked_add(size.min(stored) as usize)?)
    }

    /// Address and length of a data directory (4: signatures, 5: relocations); nothing when the image has fewer.
    pub(crate) fn data_directory(&self, number: usize) -> Option<(u32, u32)> {
        let count = u32_at(self.bytes, self.optional + 108)? as usize;
        let at = self.optional + 112 + 8 * number;
        if number >= count || at + 8 > self.table {
            return None;
        }
        Some((u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?))
    }

    /// Whether it carries a signature.
    pub fn is_signed(&self) -> bool {
        self.data_directory(4).is_some_and(|signatures| signatures != (0, 0))
    }

    fn header(&self, name: &str) -> Option<usize> {
        let mut wanted = [0u8; 8];
        wanted.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (0..self.sections)
            .map(|index| self.table + index * SECTION_HEADER)
            .find(|&header| self.bytes.get(header..header + 8) == Some(&wanted[..]))
    }
}

//! The firmware's key databases `db` and `dbx`, and the updates of them that a release brings along. No I/O.
//!
//! | module | what | source |
//! |---|---|---|
//! | [`lists`] | what the variables hold: lists of signatures | UEFI 2.10, 32.4.1 |
//! | [`update`] | an update that the firmware checks itself, signed with the key exchange key | UEFI 2.10, 8.2.2 and 8.2.6 |
//! | [`updates`] | the section of a release's image with all of them, in their order | our own |
//! | [`program`] | what of a signed program a list can name | Microsoft's "PE Format" and "Authenticode Portable Executable Signature Format" |
#![no_std]

extern crate alloc;

pub mod lists;
pub mod program;
pub mod update;
pub mod updates;

/// A GUID as it is stored.
pub type Guid = [u8; 16];

/// A database of the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// What may be started.
    Db,
    /// What may not, whatever else says so.
    Dbx,
}

impl Database {
    /// The variable's name, also in the names of files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Dbx => "dbx",
        }
    }

    /// The database of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Db, Self::Dbx].into_iter().find(|database| database.name() == name)
    }
}

/// EFI_IMAGE_SECURITY_DATABASE_GUID, the vendor of both variables, as text and as it is stored.
pub const VENDOR: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// See [`VENDOR`].
pub const VENDOR_GUID: Guid =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];

/// Bytes are not what they should be; the words say what they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

/// Takes `N` bytes from the front.
pub(crate) fn take<'a, const N: usize>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8; N], Malformed> {
    let (front, behind) = rest.split_first_chunk().ok_or(Malformed(what))?;
    *rest = behind;
    Ok(front)
}

/// Takes so many bytes from the front.
pub(crate) fn take_slice<'a>(rest: &mut &'a [u8], length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
    let (front, behind) = rest.split_at_checked(length).ok_or(Malformed(what))?;
    *rest = behind;
    Ok(front)
}

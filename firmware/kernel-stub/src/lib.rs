//! The unified kernel image: what is in it and how it is put together and taken apart. No I/O.
//!
//! [`assemble`] runs where images are built, [`Image`] in the stub itself. See the README of this folder.
#![no_std]

extern crate alloc;

mod assemble;
pub mod exchange;
mod image;
mod layout;
pub mod measured;
mod release;

pub use assemble::{AssembleError, assemble};
pub use image::{Image, Malformed};
pub use layout::{Layout, LayoutError, Segment};
pub use release::{release_section, rollback_level};

/// Section with the kernel, which carries no signature of its own: nobody can start it by itself.
pub const LINUX: &str = ".linux";
/// Section with the initramfs.
pub const INITRD: &str = ".initrd";
/// Section with the command line.
pub const CMDLINE: &str = ".cmdline";
/// Section with the flattened device tree.
pub const DTB: &str = ".dtb";
/// Section with what the bootloader must know of the release: [`release_section`].
pub const RELEASE: &str = ".belvrel";

/// Section with the signed policy of the release (`belvedere-tpm`'s boot policy): what the TPM's registers hold when it, and
/// only it, has started.
pub const POLICY: &str = ".belvpol";

/// Section with the updates of the firmware's key databases (`belvedere-secure-boot`).
pub const UPDATES: &str = ".belvupd";

/// Section with the events that should be measured when the release starts (`belvedere-event-log`). Not measured itself.
pub const EXPECTED: &str = ".belvexp";

/// The command line of a `.cmdline` section without the newline or NULs an editor or linker left behind; nothing when
/// it is not UTF-8 or holds a NUL inside.
pub fn command_line(section: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(section).ok()?;
    let text = text.trim_end_matches(['\0', '\n', '\r', ' ']);
    if text.contains(['\0', '\n', '\r']) {
        return None;
    }
    Some(text)
}

/// Little-endian numbers at an offset, `None` outside the slice.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests {
    use super::command_line;

    #[test]
    fn a_command_line_is_one_line() {
        assert_eq!(command_line(b"quiet root=x\n\0\0"), Some("quiet root=x"));
        assert_eq!(command_line(b""), Some(""));
        assert_eq!(command_line(b"a\nb"), None);
        assert_eq!(command_line(b"a\0b"), None);
        assert_eq!(command_line(b"\xff"), None);
    }
}

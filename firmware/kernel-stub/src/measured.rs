//! What the stub measures into the TPM: each section of its own image, so that the value of [`PCR`] says which release
//! started, and can be worked out where the release is made.
//!
//! One event a section, in the order of [`MEASURED`]: a line of text that names the section and the SHA-256 of its content.
//! The text itself is what the firmware hashes into the register and what it writes into its event log, so the log can be
//! read by people, and a section of megabytes is hashed once and here, with the processor's own instructions (firmware
//! hashes slowly, once for each of the TPM's banks).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::{CMDLINE, DTB, INITRD, LINUX, RELEASE, UPDATES};

/// The TPM's register for a unified kernel image and what follows its start, as in the UAPI group's list.
pub const PCR: u32 = 11;

/// Every section that decides what runs, in this start or the next one. [`crate::POLICY`] is not among them: it holds the signature over the result.
pub const MEASURED: [&str; 6] = [LINUX, INITRD, CMDLINE, DTB, RELEASE, UPDATES];

/// The event of one section.
pub fn event(section: &str, content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let mut text = format!("belvedere section {section} sha256 ");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The events of an image, in the order in which they are measured. `section` gives the content of a section that is there.
pub fn events<'content>(section: impl Fn(&str) -> Option<&'content [u8]>) -> Vec<String> {
    MEASURED.iter().filter_map(|name| section(name).map(|content| event(name, content))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_the_section_and_its_hash() {
        // SHA-256("abc"): FIPS 180-2, B.1.
        assert_eq!(
            event(".linux", b"abc"),
            "belvedere section .linux sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn sections_are_measured_in_their_order_and_only_those_that_are_there() {
        let events = events(|name| match name {
            CMDLINE => Some(b"quiet".as_slice()),
            LINUX => Some(b"kernel"),
            _ => None,
        });
        assert_eq!(events.len(), 2);
        assert!(events[0].contains(".linux") && events[1].contains(".cmdline"));
    }
}

//! What of a signed UEFI program (PE32+) the firmware's databases can name: its hash as Authenticode takes it, and the
//! certificates in its signature.

use crate::lists::{SHA256, Signature, X509};
use alloc::vec::Vec;
use sha2::{Digest, Sha256};

/// A program in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program<'a> {
    /// SHA-256 without checksum and signatures.
    pub hash: [u8; 32],
    /// The signatures, each a WIN_CERTIFICATE; empty when it has none.
    pub signatures: &'a [u8],
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()
}

fn small(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(field.try_into().ok()?)))
}

impl<'a> Program<'a> {
    /// Reads a file; nothing when it is no PE32+ program.
    ///
    /// The hash is that of EDK2's `HashPeImage`: headers without checksum and the entry of the signatures, the sections in the
    /// order of the file, and what lies behind them up to the signatures.
    pub fn read(file: &'a [u8]) -> Option<Self> {
        (file.get(..2)? == b"MZ").then_some(())?;
        let signature = number(file, 0x3c)?;
        let coff = signature.checked_add(4)?;
        (file.get(signature..coff)? == b"PE\0\0").then_some(())?;
        let sections = small(file, coff.checked_add(2)?)?;
        let optional = coff.checked_add(20)?;
        (small(file, optional)? == 0x20b).then_some(())?;
        let table = optional.checked_add(small(file, coff + 16)?)?;
        let (headers, checksum, directory) = (number(file, optional + 60)?, optional + 64, optional + 144);
        // Fewer than five directories: there is none for signatures.
        (number(file, optional + 108)? >= 5).then_some(())?;
        let (start, length) = (number(file, directory)?, number(file, directory + 4)?);
        let signatures = if length == 0 { &[][..] } else { file.get(start..start.checked_add(length)?)? };
        let end = if length == 0 { file.len() } else { start };

        let mut hash = Sha256::new();
        hash.update(file.get(..checksum)?);
        hash.update(file.get(checksum + 4..directory)?);
        hash.update(file.get(directory + 8..headers)?);
        let mut contents = Vec::with_capacity(sections);
        for index in 0..sections {
            let header = table.checked_add(40 * index)?;
            let (size, place) = (number(file, header.checked_add(16)?)?, number(file, header.checked_add(20)?)?);
            if size > 0 {
                contents.push((place, size));
            }
        }
        contents.sort_unstable();
        // Sections that lie over each other would have the same bytes hashed again and again.
        let together = contents.iter().try_fold(headers, |all, (_, size)| all.checked_add(*size))?;
        (together <= file.len()).then_some(())?;
        let mut hashed = headers;
        for (place, size) in contents {
            hash.update(file.get(place..place.checked_add(size)?)?);
            hashed = hashed.checked_add(size)?;
        }
        hash.update(file.get(hashed..end.max(hashed))?);
        Some(Self { hash: hash.finalize().into(), signatures })
    }

    /// Whether one of these signatures of `dbx` keeps it from starting. A certificate is looked for anywhere in the program's
    /// signatures: one that is there without having signed counts as well, and what is not told apart is refused.
    pub fn is_forbidden_by(&self, signatures: &[Signature<'_>]) -> bool {
        signatures.iter().any(|signature| match signature.kind {
            SHA256 => signature.data == self.hash,
            X509 => {
                !signature.data.is_empty()
                    && self.signatures.windows(signature.data.len()).any(|bytes| bytes == signature.data)
            }
            _ => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Headers of 0x200 bytes and one section of 0x200, then signatures.
    fn sample(signatures: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        let (coff, optional, table) = (0x44, 0x58, 0x58 + 0xf0);
        file[coff + 2] = 1;
        file[coff + 16] = 0xf0;
        file[optional..optional + 2].copy_from_slice(&[0x0b, 2]);
        file[optional + 61] = 2;
        file[optional + 108] = 16;
        file[table + 17] = 2;
        file[table + 21] = 2;
        file[0x300] = 0xaa;
        if !signatures.is_empty() {
            file[optional + 144..optional + 148].copy_from_slice(&0x400u32.to_le_bytes());
            file[optional + 148..optional + 152].copy_from_slice(&(signatures.len() as u32).to_le_bytes());
            file.extend(signatures);
        }
        file
    }

    #[test]
    fn the_hash_depends_on_all_but_checksum_and_signatures() {
        let plain = sample(&[]);
        let hash = Program::read(&plain).unwrap().hash;
        assert_eq!(Program::read(&sample(b"signed")).unwrap().hash, hash);
        let optional = 0x58;
        for at in (0..plain.len()).filter(|at| !(optional + 144..optional + 152).contains(at)) {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            let other = Program::read(&changed).map(|program| program.hash);
            assert_eq!(other == Some(hash), (optional + 64..optional + 68).contains(&at), "{at:#x}");
        }
    }

    #[test]
    fn a_hash_or_a_certificate_in_its_signatures_forbids_it() {
        let file = sample(b"...CERTIFICATE...");
        let program = Program::read(&file).unwrap();
        let forbids = |kind, data: &[u8]| program.is_forbidden_by(&[Signature { kind, owner: [0; 16], data }]);
        assert!(forbids(SHA256, &program.hash) && forbids(X509, b"CERTIFICATE") && forbids([1; 16], b"?"));
        assert!(!forbids(SHA256, &[0; 32]) && !forbids(X509, b"ANOTHER") && !forbids(X509, b""));
        assert!(!program.is_forbidden_by(&[]));
    }

    #[test]
    fn what_is_cut_or_points_outside_is_no_program() {
        let file = sample(b"signed");
        for length in 0..file.len() {
            assert_eq!(Program::read(&file[..length]), None, "{length}");
        }
        let mut wrong = file.clone();
        wrong[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(Program::read(&wrong), None);
        // A second section over the first one: more bytes than the file has.
        let mut twice = sample(b"");
        twice[0x46] = 2;
        twice.copy_within(0x148..0x170, 0x170);
        assert_eq!(Program::read(&twice), None);
    }
}

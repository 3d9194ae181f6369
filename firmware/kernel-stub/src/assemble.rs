//! Appends sections to the stub.

use alloc::string::String;
use alloc::vec::Vec;

use crate::image::{Image, Malformed, SECTION_HEADER};
use crate::{u16_at, u32_at};

/// Why a unified kernel image cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssembleError {
    /// The stub is no PE image.
    Stub(Malformed),
    /// The stub is signed already; a signature over less than the whole would not verify.
    StubIsSigned,
    /// A part is a signed UEFI program: whoever cuts it out could start it by itself, with a command line of his.
    SignedPart(String),
    /// A section's name is longer than eight bytes, empty, or there already.
    Name(String),
    /// A section has nothing in it.
    Empty(String),
    /// The stub's header has no room for another section.
    HeaderFull,
    /// Over 1 GiB in all: more than firmware can be expected to load.
    TooLarge,
}

impl core::fmt::Display for AssembleError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Stub(malformed) => write!(formatter, "the stub is {malformed}"),
            Self::StubIsSigned => formatter.write_str("the stub is signed already: give the unsigned one"),
            Self::SignedPart(name) => {
                write!(
                    formatter,
                    "section {name} is a signed UEFI program, which could be cut out and started: give the unsigned one"
                )
            }
            Self::Name(name) => write!(formatter, "section name {name:?} is not usable or used twice"),
            Self::Empty(name) => write!(formatter, "section {name} is empty"),
            Self::HeaderFull => formatter.write_str("the stub's header has no room for another section"),
            Self::TooLarge => formatter.write_str("the image would be larger than 1 GiB"),
        }
    }
}

impl core::error::Error for AssembleError {}

const LIMIT: usize = 1 << 30;
/// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
const READABLE_DATA: u32 = 0x4000_0040;

/// The stub with `sections` (name, content) appended in the order given. Same inputs, same bytes.
///
/// # Errors
/// See [`AssembleError`].
pub fn assemble(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, AssembleError> {
    let mut output = stub.to_vec();
    for &(name, content) in sections {
        if Image::parse(content).is_ok_and(|part| part.is_signed()) {
            return Err(AssembleError::SignedPart(name.into()));
        }
        append(&mut output, name, content)?;
    }
    Ok(output)
}

fn append(output: &mut Vec<u8>, name: &str, content: &[u8]) -> Result<(), AssembleError> {
    let stub = |malformed| AssembleError::Stub(malformed);
    let image = Image::parse(output).map_err(stub)?;
    let (coff, optional, table, count) = (image.coff, image.optional, image.table, image.sections);
    let field = |offset| u32_at(output, optional + offset).ok_or(AssembleError::Stub(Malformed));

    // Data directory 4, the certificate table: offsets 112 + 4 × 8 in a PE32+ optional header.
    if field(144)? != 0 || field(148)? != 0 {
        return Err(AssembleError::StubIsSigned);
    }
    let mut short_name = [0u8; 8];
    match short_name.get_mut(..name.len()) {
        Some(target) if !name.is_empty() && !taken(output, table, count, name) => {
            target.copy_from_slice(name.as_bytes());
        }
        _ => return Err(AssembleError::Name(name.into())),
    }
    if content.is_empty() {
        return Err(AssembleError::Empty(name.into()));
    }
    let section_alignment = field(32)?.max(1) as usize;
    let file_alignment = field(36)?.max(1) as usize;
    let (initialized, image_size, headers_size) = (field(8)?, field(56)?, field(60)? as usize);

    let header = table + count * SECTION_HEADER;
    if header + SECTION_HEADER > headers_size {
        return Err(AssembleError::HeaderFull);
    }
    let address = (image_size as usize).next_multiple_of(section_alignment);
    let offset = output.len().next_multiple_of(file_alignment);
    let stored = content.len().next_multiple_of(file_alignment);
    let end = address.saturating_add(content.len()).next_multiple_of(section_alignment);
    if end > LIMIT || offset.saturating_add(stored) > LIMIT {
        return Err(AssembleError::TooLarge);
    }

    output.resize(offset, 0);
    output.extend_from_slice(content);
    output.resize(offset + stored, 0);

    // All values are below LIMIT, so they fit.
    let mut entry = [0u8; SECTION_HEADER];
    entry[..8].copy_from_slice(&short_name);
    entry[8..12].copy_from_slice(&(content.len() as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&(address as u32).to_le_bytes());
    entry[16..20].copy_from_slice(&(stored as u32).to_le_bytes());
    entry[20..24].copy_from_slice(&(offset as u32).to_le_bytes());
    entry[36..40].copy_from_slice(&READABLE_DATA.to_le_bytes());
    output[header..header + SECTION_HEADER].copy_from_slice(&entry);

    let sections = u16_at(output, coff + 2).ok_or(AssembleError::Stub(Malformed))? + 1;
    output[coff + 2..coff + 4].copy_from_slice(&sections.to_le_bytes());
    let mut set = |offset: usize, value: u32| {
        output[optional + offset..optional + offset + 4].copy_from_slice(&value.to_le_bytes());
    };
    set(8, initialized.saturating_add(stored as u32));
    set(56, end as u32);
    // The checksum would be wrong now; UEFI does not look at it and the signing tool writes a new one.
    set(64, 0);
    Ok(())
}

fn taken(output: &[u8], table: usize, count: usize, name: &str) -> bool {
    let mut wanted = [0u8; 8];
    wanted[..name.len().min(8)].copy_from_slice(&name.as_bytes()[..name.len().min(8)]);
    (0..count).any(|index| {
        let header = table + index * SECTION_HEADER;
        output.get(header..header + 8) == Some(&wanted[..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// The smallest PE32+ with one section, laid out as lld-link does.
    fn stub() -> Vec<u8> {
        let mut file = vec![0u8; 0x600];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c..0x40].copy_from_slice(&0x78u32.to_le_bytes());
        file[0x78..0x7c].copy_from_slice(b"PE\0\0");
        let (coff, optional) = (0x7c, 0x90);
        file[coff + 2..coff + 4].copy_from_slice(&1u16.to_le_bytes());
        file[coff + 16..coff + 18].copy_from_slice(&240u16.to_le_bytes());
        file[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        for (offset, value) in [(32, 4096u32), (36, 512), (56, 0x2000), (60, 0x400)] {
            file[optional + offset..optional + offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        let table = optional + 240;
        file[table..table + 5].copy_from_slice(b".text");
        for (offset, value) in [(8, 0x10u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            file[table + offset..table + offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        file
    }

    /// What the firmware makes of a file: each section at its address.
    fn load(file: &[u8]) -> Vec<u8> {
        let image = Image::parse(file).unwrap();
        let size = u32_at(file, image.optional + 56).unwrap() as usize;
        let mut memory = vec![0u8; size];
        memory[..0x400].copy_from_slice(&file[..0x400]);
        for index in 0..image.sections {
            let header = image.table + index * SECTION_HEADER;
            let at = |offset| u32_at(file, header + offset).unwrap() as usize;
            let length = at(8).min(at(16));
            memory[at(12)..at(12) + length].copy_from_slice(&file[at(20)..at(20) + length]);
        }
        memory
    }

    #[test]
    fn sections_are_found_again_in_the_file_and_in_memory() {
        let kernel = vec![7u8; 5000];
        let parts: [(&str, &[u8]); 3] = [(".linux", &kernel), (".cmdline", b"quiet"), (".dtb", &[1])];
        let file = assemble(&stub(), &parts).unwrap();
        let memory = load(&file);
        for (name, content) in parts {
            assert_eq!(Image::parse(&file).unwrap().file_section(name), Some(content));
            assert_eq!(Image::parse(&memory).unwrap().loaded_section(name), Some(content));
        }
        assert_eq!(Image::parse(&file).unwrap().file_section(".initrd"), None);
        assert_eq!(file.len() % 512, 0);
    }

    #[test]
    fn nonsense_is_refused() {
        let stub = stub();
        assert!(matches!(assemble(b"MZ", &[(".linux", b"x")]), Err(AssembleError::Stub(_))));
        assert!(matches!(assemble(&stub, &[(".linux", b"")]), Err(AssembleError::Empty(_))));
        assert!(matches!(assemble(&stub, &[(".linux", b"x"), (".linux", b"x")]), Err(AssembleError::Name(_))));
        assert!(matches!(assemble(&stub, &[(".muchtoolong", b"x")]), Err(AssembleError::Name(_))));
        let mut signed = stub.clone();
        signed[0x90 + 144] = 1;
        assert_eq!(assemble(&signed, &[(".linux", b"x")]), Err(AssembleError::StubIsSigned));
        // boot D1: nothing inside an image may be startable by itself.
        let mut part = stub.clone();
        part[0x90 + 108] = 6;
        assert!(assemble(&stub, &[(".linux", &part)]).is_ok());
        part[0x90 + 144] = 1;
        assert_eq!(assemble(&stub, &[(".linux", &part)]), Err(AssembleError::SignedPart(".linux".into())));
        let many: Vec<(alloc::string::String, &[u8])> =
            (0..20).map(|index| (alloc::format!(".s{index}"), &b"x"[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        assert_eq!(assemble(&stub, &many), Err(AssembleError::HeaderFull));
    }

    #[test]
    fn no_prefix_of_an_image_makes_the_reader_fall_over() {
        let file = assemble(&stub(), &[(".linux", b"kernel")]).unwrap();
        for length in 0..file.len() {
            if let Ok(image) = Image::parse(&file[..length]) {
                let _ = (image.loaded_section(".linux"), image.file_section(".linux"));
            }
        }
    }
}

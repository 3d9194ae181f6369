//! The firmware's boot entries: the bootloader on the one EFI system partition, and then on the other.
//!
//! The firmware finds it without them, too, as it finds any disk's `EFI/BOOT`. But when it refuses the one on `esp-a`, it has
//! nothing left that it was told to try: it starts every driver that it has and looks at every device, which takes its time
//! and, on the virtual board, did not always end (`firmware/virtual-board`). With entries it goes on to `esp-b`.

/// A partition as a boot entry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// In the partition table, from 1.
    pub number: u32,
    /// Its first block, of 512 bytes.
    pub first_block: u64,
    /// How many it has.
    pub blocks: u64,
    /// Its own GUID, as it is stored.
    pub guid: [u8; 16],
}

/// Where the firmware looks by itself on a disk that it knows nothing about (UEFI 2.10, 3.5.1.1, for this architecture).
pub const BOOTLOADER: &str = "\\EFI\\BOOT\\BOOTAA64.EFI";

/// An EFI_LOAD_OPTION (UEFI 2.10, 3.1.3) for a file on a GPT partition. What it starts is handed `options`.
pub fn entry(description: &str, partition: Partition, file: &str, options: &[u8]) -> Vec<u8> {
    let wide = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let size = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes();
    // Media device path, hard drive, 42 bytes; a GPT and a GUID at its end.
    let mut path = vec![4, 1, 42, 0];
    path.extend(partition.number.to_le_bytes());
    path.extend(partition.first_block.to_le_bytes());
    path.extend(partition.blocks.to_le_bytes());
    path.extend(partition.guid);
    path.extend([2, 2]);
    // Media device path, file; and the end of the whole path.
    let file = wide(file);
    path.extend([4, 4]);
    path.extend(size(file.len() + 4));
    path.extend(file);
    path.extend([0x7f, 0xff, 4, 0]);
    // LOAD_OPTION_ACTIVE.
    let mut entry = 1u32.to_le_bytes().to_vec();
    entry.extend(size(path.len()));
    entry.extend(wide(description));
    entry.extend(path);
    entry.extend(options);
    entry
}

/// The variables: name and content.
pub fn variables([a, b]: [Partition; 2]) -> [(&'static str, Vec<u8>); 3] {
    [
        ("Boot0000", entry("Belvedere (esp-a)", a, BOOTLOADER, &[])),
        ("Boot0001", entry("Belvedere (esp-b)", b, BOOTLOADER, &[])),
        ("BootOrder", [0u16, 1].iter().flat_map(|number| number.to_le_bytes()).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_specification_says() {
        let partition = Partition { number: 1, first_block: 0x800, blocks: 0x9_0000, guid: [0xab; 16] };
        let entry = entry("A", partition, "\\B", &[7]);
        let mut wanted = vec![1, 0, 0, 0, 56, 0, b'A', 0, 0, 0];
        wanted.extend([4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0]);
        wanted.extend([0xab; 16]);
        wanted.extend([2, 2, 4, 4, 10, 0, b'\\', 0, b'B', 0, 0, 0, 0x7f, 0xff, 4, 0, 7]);
        assert_eq!(entry, wanted);
    }
}

//! Which volume of a stick is looked at: a stick may have several, and the first one need not be the one that a person
//! sees. macOS puts an EFI system partition in front; an extended partition shows as a volume of two sectors.

/// One volume, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Kernel name, such as `sda1`.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Names of archives in its root folder, or why it cannot be read.
    pub archives: Result<Vec<String>, String>,
}

/// What is elsewhere on the stick than on the volume that is worked with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elsewhere {
    /// Archives on other volumes.
    pub archives: Vec<String>,
    /// Lines about volumes that could not be read.
    pub notes: Vec<String>,
    /// Why the largest volume cannot be read, where no archive was found: whoever plugged the stick in means that volume.
    pub larger: Option<String>,
}

/// Smaller ones hold no file system: the container of logical partitions, boot code.
const SMALLEST: u64 = 64 << 10;

/// The volume to work with. Archives on several volumes are as bad as several on one.
///
/// # Errors
/// None can be read: what the largest says.
pub fn choose_volume(volumes: &[Surveyed]) -> Result<(&Surveyed, Elsewhere), String> {
    let readable = |volume: &&Surveyed| volume.archives.is_ok();
    let with_archive = volumes.iter().find(|volume| volume.archives.as_ref().is_ok_and(|names| !names.is_empty()));
    // Without an archive the result goes where a person finds it. The first of equals.
    let largest = volumes.iter().filter(readable).rev().max_by_key(|volume| volume.bytes);
    let Some(chosen) = with_archive.or(largest) else {
        let worst = volumes.iter().rev().max_by_key(|volume| volume.bytes).and_then(|v| v.archives.as_ref().err());
        return Err(worst.cloned().unwrap_or_else(|| "the stick has no volume: format it with FAT32".into()));
    };
    let mut elsewhere = Elsewhere::default();
    if with_archive.is_none() {
        let unreadable = volumes.iter().filter(|other| other.archives.is_err() && other.bytes > chosen.bytes);
        elsewhere.larger = unreadable.rev().max_by_key(|other| other.bytes).and_then(|other| other.archives.clone().err());
    }
    for other in volumes.iter().filter(|other| other.name != chosen.name) {
        match &other.archives {
            Ok(names) => elsewhere.archives.extend(names.iter().map(|name| format!("{name} on volume {}", other.name))),
            Err(why) if other.bytes >= SMALLEST => elsewhere.notes.push(format!("Volume {}: {why}", other.name)),
            Err(_) => {}
        }
    }
    Ok((chosen, elsewhere))
}

/// What a volume is formatted with that is not FAT, by its first bytes.
pub fn file_system(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 9] = [
        (3, b"EXFAT   ", "exFAT"),
        (3, b"NTFS    ", "NTFS"),
        (3, b"-FVE-FS-", "BitLocker"),
        (1080, b"\x53\xef", "ext4"),
        (1024, b"H+", "HFS+"),
        (1024, b"HX", "HFS+"),
        (32, b"NXSB", "APFS"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (32_769, b"CD001", "ISO 9660"),
    ];
    let is = |at: &usize, magic: &[u8]| start.get(*at..*at + magic.len()) == Some(magic);
    KNOWN.iter().find(|(at, magic, _)| is(at, magic)).map(|(_, _, name)| *name)
}

/// How much [`file_system`] looks at.
pub const START_BYTES: usize = 33 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, megabytes: u64, archives: Result<&[&str], &str>) -> Surveyed {
        let archives = archives.map(|names| names.iter().map(|n| (*n).to_owned()).collect()).map_err(str::to_owned);
        Surveyed { name: name.into(), bytes: megabytes << 20, archives }
    }

    #[test]
    fn field_case_gpt_with_an_efi_system_partition_in_front() {
        let volumes = [volume("sda1", 200, Ok(&[])), volume("sda2", 15_000, Ok(&["a.zip"]))];
        let (chosen, elsewhere) = choose_volume(&volumes).unwrap();
        assert_eq!((chosen.name.as_str(), elsewhere), ("sda2", Elsewhere::default()));
    }

    #[test]
    fn field_case_mbr_with_a_logical_partition() {
        let mut volumes = [volume("sda1", 0, Err("not formatted")), volume("sda5", 15_000, Ok(&["a.zip"]))];
        volumes[0].bytes = 1024;
        let (chosen, elsewhere) = choose_volume(&volumes).unwrap();
        assert_eq!((chosen.name.as_str(), elsewhere), ("sda5", Elsewhere::default()));
    }

    #[test]
    fn a_volume_that_cannot_be_read_does_not_hide_the_next_and_is_told_of() {
        let volumes = [volume("sda1", 9000, Err("formatted with NTFS")), volume("sda2", 100, Ok(&[]))];
        let (chosen, elsewhere) = choose_volume(&volumes).unwrap();
        assert_eq!(chosen.name, "sda2");
        assert_eq!(elsewhere.notes, ["Volume sda1: formatted with NTFS"]);
    }

    #[test]
    fn field_case_an_efi_system_partition_in_front_of_exfat() {
        let larger = |volumes: &[Surveyed]| choose_volume(volumes).unwrap().1.larger;
        let exfat = volume("sda2", 15_000, Err("formatted with exFAT"));
        let efi = volume("sda1", 200, Ok(&[]));
        assert_eq!(larger(&[efi.clone(), exfat.clone()]), Some("formatted with exFAT".into()));
        let more = volume("sda3", 9000, Err("formatted with APFS"));
        assert_eq!(larger(&[more, efi, exfat.clone()]), Some("formatted with exFAT".into()), "the largest");
        // Whoever put the archive there knows which volume it is; and a smaller one is not where a person would put it.
        assert_eq!(larger(&[volume("sda1", 200, Ok(&["a.zip"])), exfat.clone()]), None);
        assert_eq!(larger(&[volume("sda1", 16_000, Ok(&[])), exfat]), None);
    }

    #[test]
    fn without_an_archive_the_result_goes_to_the_largest_volume() {
        let volumes = [volume("sda1", 200, Ok(&[])), volume("sda2", 9000, Ok(&[])), volume("sda3", 9000, Ok(&[]))];
        assert_eq!(choose_volume(&volumes).unwrap().0.name, "sda2");
    }

    #[test]
    fn archives_on_two_volumes_are_both_known() {
        let volumes = [volume("sda1", 1, Ok(&["a.zip"])), volume("sda2", 1, Ok(&["b.zip"]))];
        let (chosen, elsewhere) = choose_volume(&volumes).unwrap();
        assert_eq!((chosen.name.as_str(), elsewhere.archives), ("sda1", vec!["b.zip on volume sda2".to_owned()]));
    }

    #[test]
    fn nothing_readable_says_what_the_largest_volume_is() {
        let volumes = [volume("sda1", 1, Err("small")), volume("sda2", 2, Err("formatted with exFAT"))];
        assert_eq!(choose_volume(&volumes), Err("formatted with exFAT".into()));
        assert!(choose_volume(&[]).is_err());
    }

    #[test]
    fn file_systems_of_shops_and_computers_are_named() {
        let with = |at: usize, magic: &[u8]| {
            let mut start = vec![0; START_BYTES];
            start[at..at + magic.len()].copy_from_slice(magic);
            start
        };
        assert_eq!(file_system(&with(3, b"EXFAT   ")), Some("exFAT"));
        assert_eq!(file_system(&with(3, b"NTFS    ")), Some("NTFS"));
        assert_eq!(file_system(&with(1024, b"H+")), Some("HFS+"));
        assert_eq!(file_system(&with(32, b"NXSB")), Some("APFS"));
        assert_eq!(file_system(&with(1080, b"\x53\xef")), Some("ext4"));
        assert_eq!(file_system(&with(32_769, b"CD001")), Some("ISO 9660"));
        assert_eq!(file_system(&with(0, b"\xeb\x58\x90mkfs.fat")), None);
        assert_eq!(file_system(b""), None);
    }
}

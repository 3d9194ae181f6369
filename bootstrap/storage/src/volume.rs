//! What to do with a partition that is, or is to become, a LUKS2 volume. Decides without touching anything; `encrypt`
//! carries it out.
//!
//! Layout of a partition: [`belvedere_luks2`] (header, key slots, our [volume record](belvedere_luks2::record)), then the
//! data from [`DATA_OFFSET`](belvedere_luks2::DATA_OFFSET) on.
//!
//! # Rules
//!
//! 1. What the record says is believed before anything else; where there is none, only what is blank is taken into use,
//!    and on `data` what opens with the sealed key.
//! 2. A header is made anew only in the states `Empty`, `Factory`, `Creating` and `Destroying`, in which no data is
//!    encrypted with the key of whatever header may be there. The record leaves them only when the new header is on the
//!    medium. So no start ever uses another key than the one that data was encrypted with; the record's volume UUID
//!    shows it if one did.
//! 3. What does not open is refused in words and left as it is. Nothing is ever formatted over.
//! 4. Where the record says encrypted, nothing plain is used. Where `data` is plain, it is refused whatever the record
//!    says: a volume that was exchanged for a plain one must not be filled with secrets.
//! 5. A volume is given out when both copies of the record say that it is encrypted: one lost block can then not bring
//!    back a state in which the header would be made anew.

use belvedere_luks2::record::{SHIFT, VolumeState};
use belvedere_luks2::{DATA_OFFSET, SECTOR};

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A root image with its dm-verity tree: leaves the factory plain, is encrypted in place, and is trusted for its root
    /// hash.
    System,
    /// What the appliance stores: never plain, made empty on first use.
    Data,
}

/// Lengths that tests make small. All are multiples of 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How far the plain image lies behind its encrypted form, bytes.
    pub shift: u64,
    /// How much is encrypted between two records, bytes; at most `shift`.
    pub chunk: u64,
    /// How much of the beginning and of the end of a new volume reads as zeros, bytes. File systems and our own record of
    /// the formatting are recognised by what is there.
    pub blank: u64,
}

impl Geometry {
    /// The appliance's.
    pub const APPLIANCE: Geometry = Geometry { shift: SHIFT, chunk: SHIFT, blank: 2 * 1024 * 1024 };
}

/// How much of a partition's start must be zero for it to be blank, bytes. The places of our record do not count: a torn
/// first record may be there.
pub const BLANK: u64 = 2 * 1024 * 1024;

/// What there is in place of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderFound {
    /// One of ours that opens.
    Opens {
        /// Its UUID.
        volume: [u8; 16],
        /// Whether one of its copies has to be written anew.
        damaged: bool,
    },
    /// A LUKS2 header that does not open with our key.
    Closed,
    /// A header that is damaged or not of our profile, in words.
    Unusable(String),
    /// None.
    Absent,
}

/// What the first [`BLANK`] bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All zero.
    Blank,
    /// A plain ext4 file system.
    Ext4,
    /// Anything else.
    Other,
}

/// All that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record that holds, if any.
    pub record: Option<VolumeState>,
    /// Whether a later release's record is there.
    pub newer: bool,
    /// Whether both copies of the record are valid and say the same.
    pub settled: bool,
    /// What there is in place of a header.
    pub header: HeaderFound,
    /// What the partition begins with.
    pub start: Start,
    /// Size of the partition in bytes.
    pub size: u64,
}

/// What to do next; then look again and decide again, until it is [`Open`](Step::Open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Overwrite header and key slots with random bytes.
    Destroy,
    /// Make a volume whose beginning and end read as zeros.
    Create,
    /// Make a header with a new key for the image that is to be encrypted.
    BeginEncryption {
        /// The image's length in bytes.
        bytes: u64,
    },
    /// Encrypt what is left of the image.
    ContinueEncryption {
        /// UUID of the header whose key is used.
        volume: [u8; 16],
        /// The image's length in bytes.
        bytes: u64,
        /// How much of it is encrypted.
        done: u64,
    },
    /// Write damaged copies of header and record anew.
    Mend {
        /// UUID of the header.
        volume: [u8; 16],
    },
    /// Use it.
    Open,
}

/// Why a partition is left as it is. Words for a person, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A record that is not understood.
    #[error("a later release wrote its volume record; start that release, or write the disk image anew")]
    Newer,
    /// No room.
    #[error("it has {size} bytes, and {needed} are needed; write a disk image with a larger partition")]
    TooSmall {
        /// Size in bytes.
        size: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The header does not open.
    #[error(
        "its LUKS2 volume is closed: no key slot opens with this appliance's key; if the disk is another appliance's, \
             put it back there; if the TPM was cleared, its key is gone for good: {}", anew(*.0)
    )]
    Closed(Purpose),
    /// The header of an encrypted volume is lost.
    #[error("it was encrypted, and its header cannot be used: {reason}; {advice}", reason = .1, advice = anew(*.0))]
    HeaderLost(Purpose, String),
    /// A plain file system in place of an encrypted volume.
    #[error(
        "it was encrypted, and there is a plain file system in its place, which is not used; somebody exchanged it: {}",
        anew(*.0)
    )]
    Exchanged(Purpose),
    /// The header is another volume's.
    #[error("its header is not the one that its record names; write the disk image anew")]
    OtherVolume,
    /// Plain data.
    #[error("it holds plain data, which this appliance does not use; write the disk image anew, or erase the partition")]
    Plain,
    /// Somebody else's volume.
    #[error(
        "it holds an encrypted volume that is not this appliance's ({0}); write the disk image anew, or erase the \
             partition"
    )]
    ForeignVolume(String),
    /// Anything else.
    #[error("it holds data that is not ours; write the disk image anew, or erase the partition")]
    Foreign,
    /// A system partition that nobody wrote.
    #[error("the image tool never wrote it: there is no volume record; write the disk image anew")]
    NoRecord,
}

/// What makes a volume anew that is lost. A full reset does so with `data` alone; a system volume's image is nowhere else.
fn anew(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Data => "a full reset makes the volume anew, without its data",
        Purpose::System => "write the disk image anew; a full reset does not help",
    }
}

/// Decides (the module's rules).
///
/// # Errors
/// The partition is to be left as it is.
pub fn plan(purpose: Purpose, found: &Found, geometry: &Geometry) -> Result<Step, Refusal> {
    let needs =
        |needed: u64| if found.size >= needed { Ok(()) } else { Err(Refusal::TooSmall { size: found.size, needed }) };
    needs(DATA_OFFSET + SECTOR as u64)?;
    // Where the plain image of a system partition ends.
    let image_end = |bytes: u64| (DATA_OFFSET + geometry.shift).saturating_add(bytes);
    match (found.record, purpose) {
        // Whoever asked for a full reset meant all releases.
        (Some(VolumeState::Destroying), _) => Ok(Step::Destroy),
        _ if found.newer => Err(Refusal::Newer),
        (Some(VolumeState::Creating), _) => Ok(Step::Create),
        (Some(VolumeState::Empty), _) => match found.start {
            Start::Blank => Ok(Step::Create),
            Start::Ext4 | Start::Other => Err(foreign(found)),
        },
        (Some(VolumeState::Factory { .. } | VolumeState::Encrypting { .. }), Purpose::Data) => Err(Refusal::Plain),
        (Some(VolumeState::Factory { bytes }), Purpose::System) => {
            needs(image_end(bytes))?;
            Ok(Step::BeginEncryption { bytes })
        }
        (Some(VolumeState::Encrypting { volume, bytes, done }), Purpose::System) => {
            needs(image_end(bytes))?;
            opens(purpose, found, volume)?;
            Ok(Step::ContinueEncryption { volume, bytes, done })
        }
        (Some(VolumeState::Encrypted { volume }), _) => {
            let damaged = opens(purpose, found, volume)?;
            Ok(if damaged || !found.settled { Step::Mend { volume } } else { Step::Open })
        }
        (None, Purpose::System) => Err(match found.start {
            Start::Blank => Refusal::NoRecord,
            Start::Ext4 | Start::Other => foreign(found),
        }),
        (None, Purpose::Data) => match (&found.header, found.start) {
            // Both copies of the record are damaged: none of our writes can do that, so the volume was in use.
            (HeaderFound::Opens { volume, .. }, _) => Ok(Step::Mend { volume: *volume }),
            (HeaderFound::Absent, Start::Blank) => Ok(Step::Create),
            _ => Err(foreign(found)),
        },
    }
}

/// Whether a copy of the header is damaged; an error unless it opens and is the volume's.
fn opens(purpose: Purpose, found: &Found, named: [u8; 16]) -> Result<bool, Refusal> {
    match &found.header {
        HeaderFound::Opens { volume, damaged } if *volume == named => Ok(*damaged),
        HeaderFound::Opens { .. } => Err(Refusal::OtherVolume),
        HeaderFound::Closed => Err(Refusal::Closed(purpose)),
        HeaderFound::Unusable(_) | HeaderFound::Absent if found.start == Start::Ext4 => Err(Refusal::Exchanged(purpose)),
        HeaderFound::Unusable(words) => Err(Refusal::HeaderLost(purpose, words.clone())),
        HeaderFound::Absent => Err(Refusal::HeaderLost(purpose, "it is not there".into())),
    }
}

/// What there is where nothing of ours is.
fn foreign(found: &Found) -> Refusal {
    match (&found.header, found.start) {
        (HeaderFound::Opens { .. }, _) => Refusal::ForeignVolume("it opens, and its volume record is lost".into()),
        (HeaderFound::Closed, _) => Refusal::ForeignVolume("no key slot opens with this appliance's key".into()),
        (HeaderFound::Unusable(words), _) => Refusal::ForeignVolume(words.clone()),
        (HeaderFound::Absent, Start::Ext4) => Refusal::Plain,
        (HeaderFound::Absent, _) => Refusal::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Purpose::{Data, System};

    const VOLUME: [u8; 16] = [7; 16];

    fn headers() -> [HeaderFound; 6] {
        [
            HeaderFound::Opens { volume: VOLUME, damaged: false },
            HeaderFound::Opens { volume: VOLUME, damaged: true },
            HeaderFound::Opens { volume: [8; 16], damaged: false },
            HeaderFound::Closed,
            HeaderFound::Unusable("damaged".into()),
            HeaderFound::Absent,
        ]
    }

    fn records() -> [Option<VolumeState>; 8] {
        [
            None,
            Some(VolumeState::Encrypting { volume: VOLUME, bytes: 1 << 20, done: 0 }),
            Some(VolumeState::Empty),
            Some(VolumeState::Factory { bytes: 1 << 20 }),
            Some(VolumeState::Creating),
            Some(VolumeState::Encrypting { volume: VOLUME, bytes: 1 << 20, done: 4096 }),
            Some(VolumeState::Encrypted { volume: VOLUME }),
            Some(VolumeState::Destroying),
        ]
    }

    /// Every combination.
    fn all() -> Vec<(Purpose, Found)> {
        let mut all = Vec::new();
        for purpose in [System, Data] {
            for record in records() {
                for header in headers() {
                    for start in [Start::Blank, Start::Ext4, Start::Other] {
                        for (newer, settled) in [(false, true), (false, false), (true, false)] {
                            let (header, size) = (header.clone(), 32 << 20);
                            all.push((purpose, Found { record, newer, settled, header, start, size }));
                        }
                    }
                }
            }
        }
        all
    }

    fn decide(purpose: Purpose, found: &Found) -> Result<Step, Refusal> {
        plan(purpose, found, &Geometry::APPLIANCE)
    }

    #[test]
    fn a_header_is_made_anew_only_where_no_data_is_encrypted_with_its_key() {
        let (mut made, mut opened) = (0, 0);
        for (purpose, found) in all() {
            let header = &found.header;
            match decide(purpose, &found) {
                Ok(Step::Create | Step::BeginEncryption { .. }) => {
                    let blank = found.start == Start::Blank;
                    let allowed = match found.record {
                        Some(VolumeState::Creating | VolumeState::Factory { .. }) => true,
                        Some(VolumeState::Empty) => blank,
                        None => blank && *header == HeaderFound::Absent && purpose == Data,
                        _ => false,
                    };
                    assert!(allowed && !found.newer, "{purpose:?} {found:?}");
                    made += 1;
                }
                Ok(Step::ContinueEncryption { volume, .. } | Step::Mend { volume }) => {
                    assert!(matches!(header, HeaderFound::Opens { volume: found, .. } if *found == volume), "{found:?}");
                    assert!(purpose == Data || found.record.is_some(), "{found:?}");
                    opened += 1;
                }
                Ok(Step::Open) => {
                    assert_eq!(found.record, Some(VolumeState::Encrypted { volume: VOLUME }), "{found:?}");
                    assert_eq!(*header, HeaderFound::Opens { volume: VOLUME, damaged: false }, "{found:?}");
                    assert!(found.settled && !found.newer);
                    opened += 1;
                }
                Ok(Step::Destroy) => assert_eq!(found.record, Some(VolumeState::Destroying)),
                Err(_) => {}
            }
        }
        assert!(made > 20 && opened > 20, "{made} {opened}");
    }

    #[test]
    fn nothing_plain_on_the_data_partition_is_ever_used() {
        for (_, found) in all().into_iter().filter(|(purpose, _)| *purpose == Data) {
            let outcome = decide(Data, &found);
            let plain = matches!(found.record, Some(VolumeState::Factory { .. } | VolumeState::Encrypting { .. }));
            assert!(!plain || outcome.is_err(), "{found:?}");
            let exchanged = found.header == HeaderFound::Absent && found.start == Start::Ext4;
            let ours = matches!(found.record, Some(VolumeState::Creating | VolumeState::Destroying));
            assert!(!exchanged || ours || outcome.is_err(), "{found:?}");
        }
    }

    #[test]
    fn refusals_say_what_was_found() {
        let found = |record, header, start| Found { record, newer: false, settled: true, header, start, size: 32 << 20 };
        let encrypted = Some(VolumeState::Encrypted { volume: VOLUME });
        let is = |purpose, found: &Found, refusal| assert_eq!(decide(purpose, found), Err(refusal), "{found:?}");
        is(Data, &found(encrypted, HeaderFound::Closed, Start::Other), Refusal::Closed(Data));
        is(Data, &found(encrypted, HeaderFound::Absent, Start::Ext4), Refusal::Exchanged(Data));
        let lost = Refusal::HeaderLost(System, "it is not there".into());
        is(System, &found(encrypted, HeaderFound::Absent, Start::Blank), lost);
        is(Data, &found(None, HeaderFound::Absent, Start::Ext4), Refusal::Plain);
        is(Data, &found(None, HeaderFound::Absent, Start::Other), Refusal::Foreign);
        is(System, &found(None, HeaderFound::Absent, Start::Blank), Refusal::NoRecord);
        let closed = Refusal::ForeignVolume("no key slot opens with this appliance's key".into());
        is(Data, &found(None, HeaderFound::Closed, Start::Other), closed);
        let other = HeaderFound::Opens { volume: [8; 16], damaged: false };
        is(Data, &found(encrypted, other, Start::Other), Refusal::OtherVolume);
        let newer = Found { newer: true, ..found(encrypted, HeaderFound::Closed, Start::Other) };
        is(Data, &newer, Refusal::Newer);
    }

    #[test]
    fn a_full_reset_is_advised_for_data_alone() {
        for refusal in [Refusal::Closed, |purpose| Refusal::HeaderLost(purpose, "damaged".into()), Refusal::Exchanged] {
            let (data, system) = (refusal(Data).to_string(), refusal(System).to_string());
            assert!(data.ends_with("a full reset makes the volume anew, without its data"), "{data}");
            assert!(system.ends_with("write the disk image anew; a full reset does not help"), "{system}");
        }
    }

    #[test]
    fn sizes_are_checked_at_the_limit_and_one_below() {
        let bytes = 1 << 20;
        let needed = DATA_OFFSET + SHIFT + bytes;
        let found = |size| Found {
            record: Some(VolumeState::Factory { bytes }),
            newer: false,
            settled: true,
            header: HeaderFound::Absent,
            start: Start::Blank,
            size,
        };
        assert_eq!(decide(System, &found(needed)), Ok(Step::BeginEncryption { bytes }));
        assert_eq!(decide(System, &found(needed - 1)), Err(Refusal::TooSmall { size: needed - 1, needed }));
        let endless = Found { record: Some(VolumeState::Factory { bytes: u64::MAX }), ..found(needed) };
        assert!(matches!(decide(System, &endless), Err(Refusal::TooSmall { .. })));
        let smallest = Found { record: None, ..found(DATA_OFFSET + 4096) };
        assert_eq!(decide(Data, &smallest), Ok(Step::Create));
        assert!(decide(Data, &Found { size: DATA_OFFSET + 4095, ..smallest }).is_err());
    }
}

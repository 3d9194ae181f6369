//! LUKS2 as the appliance uses it: one profile, decoded strictly, encoded, unlocked; and the record beside it that says
//! what a partition holds. Pure: bytes in, bytes out.
//!
//! Source: *LUKS2 On-Disk Format Specification* 1.1 (cited as "spec" with its section). `cryptsetup` opens what
//! [`Header::create`] makes, and [`Header::decode`] reads what `cryptsetup luksFormat` makes with the same parameters;
//! the tests do both. There is no libcryptsetup on the appliance: an initramfs of 4 MB has no room for it and its
//! libraries, and encryption in place has to stand every power cut, which only code can be tested for that runs on our
//! model of a disk.
//!
//! # The profile
//!
//! | bytes of the partition | content |
//! |---|---|
//! | 0 .. 16 KiB | primary header: 4096 bytes binary, 12 KiB JSON |
//! | 16 .. 32 KiB | secondary header, the same with its own salt and offset |
//! | 32 KiB .. [`KEYSLOTS_END`] | room for [`SLOTS`] key slots of [`SLOT_SIZE`] bytes; the first [`TWINS`] are ours |
//! | .. [`RECORD_OFFSETS`] | zero |
//! | the last 8 KiB before [`DATA_OFFSET`] | two copies of our volume record ([`record`]) |
//! | [`DATA_OFFSET`] .. | the data segment |
//!
//! Data: aes-xts-plain64 with a volume key of 64 bytes, sectors of 4096 bytes, sector numbers counted in units of 512
//! bytes (dm-crypt without `iv_large_sectors`). Key slots: type luks2, 4000 stripes with SHA-256, aes-xts-plain64;
//! two of them for the same passphrase, each with a salt of its own.
//!
//! Key derivation is PBKDF2 with SHA-256 and only [`ITERATIONS`] iterations. Iterations make *guessing* dear, and there
//! is nothing to guess: the passphrase is 32 random bytes that a TPM keeps. **Never use this profile with a
//! passphrase that a person made up.**

mod binary;
mod dm_crypt;
mod header;
mod keyslot;
mod metadata;
pub mod record;
mod secret;
mod xts;

pub use dm_crypt::{dm_crypt_length, dm_crypt_table};
pub use header::{Header, Randomness, Repair};
pub use secret::{Passphrase, VolumeKey};
pub use xts::{Unaligned, Xts};

/// Where the data segment begins, bytes from the start of the partition.
pub const DATA_OFFSET: u64 = 1024 * 1024;
/// Sector of the data segment, bytes.
pub const SECTOR: usize = 4096;
/// Size of one header copy (binary and JSON), bytes. The secondary copy follows the primary one.
pub const HEADER_SIZE: usize = 16 * 1024;
/// Key slots that there is room for.
pub const SLOTS: usize = 3;
/// Key slots of a new header, numbered from 0: each opens with the same passphrase, so that one lost block of either is not
/// the loss of the volume.
pub const TWINS: usize = 2;
/// Room of one key slot, bytes: 64 × 4000 bytes of key material, rounded up to 4096.
pub const SLOT_SIZE: usize = 258_048;
/// End of the key slots' room, bytes from the start of the partition.
pub const KEYSLOTS_END: usize = 2 * HEADER_SIZE + SLOTS * SLOT_SIZE;
/// Where the two copies of the [volume record](record) are, bytes from the start of the partition.
pub const RECORD_OFFSETS: [u64; 2] = [DATA_OFFSET - 8192, DATA_OFFSET - 4096];
/// Bytes of a volume key: two AES-256 keys.
pub const KEY_SIZE: usize = 64;
/// PBKDF2 iterations that [`Header::create`] writes: the fewest that `cryptsetup` takes.
pub const ITERATIONS: u32 = 1000;
/// The most PBKDF2 iterations that are read. `cryptsetup` measures the machine for its digest; more than this would only
/// keep a start from getting anywhere.
pub const MAXIMUM_ITERATIONS: u32 = 1 << 23;

const _: () = assert!(KEYSLOTS_END as u64 <= RECORD_OFFSETS[0] && SLOT_SIZE.is_multiple_of(4096));

/// Why a header could not be read. What is not understood is said in words: it may be a newer release's, or another's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than two headers.
    #[error("{0} bytes are too few for two LUKS2 headers")]
    Short(usize),
    /// Neither copy has LUKS's magic number: there is no header.
    #[error("there is no LUKS header")]
    Absent,
    /// Both copies are damaged, or one is and the other is not there.
    #[error("no intact LUKS2 header: the first copy {first}, the second {second}")]
    Damaged {
        /// What is wrong with the primary copy.
        first: String,
        /// What is wrong with the secondary copy.
        second: String,
    },
    /// The checksum is right, and the content is outside the profile.
    #[error("the LUKS2 header is not one of ours: {0}")]
    NotUnderstood(String),
    /// Both copies are intact and of the same age, and say different things.
    #[error("the two copies of the LUKS2 header have the same sequence number and say different things")]
    Contradiction,
}

/// No key slot of the header opens with the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key slot opens with this passphrase")]
pub struct WrongKey;

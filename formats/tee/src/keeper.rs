//! The keeper, our own trusted application (`firmware/secure-world/keeper`): what goes to it and comes back, what it stores, and
//! what it decides. It and its client (`bootstrap/secure-world`) are both built from this.
//!
//! | number | command | parameters | |
//! |---|---|---|---|
//! | 0 | level | numbers back: [`Standing`] | always |
//! | 1 | open | numbers: release's level, 0; 64 bytes back: system secret, data secret; numbers back: kept level, 0 | until closed |
//! | 2 | renew data | the same | until closed; a new data secret and wrapping key first |
//! | 3 | raise | numbers: level, 0; numbers back: level as read back, 0 | between open and close, up to the release's level |
//! | 4 | close | – | always; lasts until the machine starts again |
//! | 5 | make key | [`WRAPPED`] bytes back; 64 bytes back: X, Y | once opened, also when closed |
//! | 6 | sign | [`WRAPPED`] bytes; digest of 32 bytes; 64 bytes back: r, s | the same |

use crate::{Code, Malformed, Uuid, u32_at};
use core::fmt;

/// bcf379b2-8939-4ed3-bea5-872f8309d165, random (version 4).
pub const APPLICATION: Uuid =
    [0xbc, 0xf3, 0x79, 0xb2, 0x89, 0x39, 0x4e, 0xd3, 0xbe, 0xa5, 0x87, 0x2f, 0x83, 0x09, 0xd1, 0x65];
/// The highest rollback level: as with the TPM's fuses (`belvedere_tpm::layout`).
pub const HIGHEST_LEVEL: u32 = 64;
/// Bytes of a secret, and of the wrapping key (AES-256).
pub const SECRET: usize = 32;
/// Bytes of a P-256 point: X and Y.
pub const POINT: usize = 64;
/// Bytes of a signature: r and s.
pub const SIGNATURE: usize = 64;
/// Bytes of what is signed: a SHA-256 digest.
pub const DIGEST: usize = 32;
/// Bytes of a key pair: private value, X, Y, 32 each, big-endian.
pub const KEY_PAIR: usize = 96;
/// Bytes of a nonce of AES-GCM.
pub const NONCE: usize = 12;
/// Bytes of an authentication tag of AES-GCM.
pub const TAG: usize = 16;
/// Bytes of a wrapped key: [`WRAPPED_VERSION`], nonce, encrypted key pair, tag.
pub const WRAPPED: usize = 1 + NONCE + KEY_PAIR + TAG;
/// First byte of a wrapped key, and all of its associated data.
pub const WRAPPED_VERSION: u8 = 1;
/// Random bytes that new secrets are made of: all three.
pub const FRESH: usize = 3 * SECRET;

/// What is asked of the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Command {
    /// Where it stands.
    Level = 0,
    /// The secrets, for a release; made when there are none.
    Open = 1,
    /// The same with another data secret and wrapping key.
    RenewData = 2,
    /// Raises the level.
    Raise = 3,
    /// Nothing of the above until the machine starts again.
    Close = 4,
    /// Makes a device key.
    MakeKey = 5,
    /// Signs with one.
    Sign = 6,
}

/// What one of a command's four parameters is; memory with its exact size, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    None,
    /// Two numbers for the keeper.
    Numbers,
    /// Two numbers from it.
    NumbersBack,
    /// Memory that it reads.
    Read(usize),
    /// Memory that it writes.
    Written(usize),
}

impl Kind {
    /// Its number (`TEE_PARAM_TYPE_…`, GlobalPlatform TEE Internal Core API 1.3, table 4-8).
    pub const fn number(self) -> u32 {
        match self {
            Kind::None => 0,
            Kind::Numbers => 1,
            Kind::NumbersBack => 2,
            Kind::Read(_) => 5,
            Kind::Written(_) => 6,
        }
    }
}

impl Command {
    /// The command of a number.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Level,
            1 => Self::Open,
            2 => Self::RenewData,
            3 => Self::Raise,
            4 => Self::Close,
            5 => Self::MakeKey,
            6 => Self::Sign,
            _ => return None,
        })
    }

    /// What its parameters are.
    pub const fn parameters(self) -> [Kind; 4] {
        use Kind::{None, Numbers, NumbersBack, Read, Written};
        match self {
            Self::Level => [NumbersBack, None, None, None],
            Self::Open | Self::RenewData => [Numbers, Written(2 * SECRET), NumbersBack, None],
            Self::Raise => [Numbers, NumbersBack, None, None],
            Self::Close => [None; 4],
            Self::MakeKey => [Written(WRAPPED), Written(POINT), None, None],
            Self::Sign => [Read(WRAPPED), Read(DIGEST), Written(SIGNATURE), None],
        }
    }

    /// The numbers of its parameters in one, four bits each (`TEE_PARAM_TYPES`).
    pub const fn types(self) -> u32 {
        let [a, b, c, d] = self.parameters();
        a.number() | b.number() << 4 | c.number() << 8 | d.number() << 12
    }
}

/// Why the keeper does not do it. The codes are from the range for an implementation's own errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// It was closed in this start.
    Closed = 0x8be1_0001,
    /// The release's level is below the kept one.
    BelowLevel = 0x8be1_0002,
    /// It was not opened in this start.
    NotOpened = 0x8be1_0003,
    /// A level above that of the release it was opened for.
    AboveRelease = 0x8be1_0004,
    /// A level below the kept one cannot be kept.
    Lower = 0x8be1_0005,
    /// It was opened for a release of another level in this start.
    OtherRelease = 0x8be1_0006,
    /// These bytes are no key that was made with what is kept now.
    ForeignKey = 0x8be1_0007,
    /// What is stored is not what a keeper of this version stores, or reads differently than it was written.
    Damaged = 0x8be1_0008,
    /// There is no such level.
    NoSuchLevel = 0x8be1_0009,
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Closed,
        Self::BelowLevel,
        Self::NotOpened,
        Self::AboveRelease,
        Self::Lower,
        Self::OtherRelease,
        Self::ForeignKey,
        Self::Damaged,
        Self::NoSuchLevel,
    ];

    /// As what it is answered.
    pub const fn code(self) -> Code {
        Code(self as u32)
    }

    /// The refusal of a code; none when it is another's.
    pub fn from_code(code: Code) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the keeper is closed until the machine starts again",
            Self::BelowLevel => "the release is below the rollback level that is kept",
            Self::NotOpened => "the keeper was not opened in this start",
            Self::AboveRelease => "the rollback level cannot go above the release's own",
            Self::Lower => "the rollback level cannot go down",
            Self::OtherRelease => "the keeper was opened for a release of another level in this start",
            Self::ForeignKey => "this is no device key of this appliance as it is now",
            Self::Damaged => "what the keeper has stored is damaged, or of another version",
            Self::NoSuchLevel => "there is no such rollback level",
        })
    }
}

impl core::error::Error for Refusal {}

/// What the keeper stores: one object of the secure world's storage.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | `BVKEEPER` |
/// | 8 | 4 | version, 1, little-endian |
/// | 12 | 4 | rollback level, 0 to 64, little-endian |
/// | 16 | 32 | system secret |
/// | 48 | 32 | data secret |
/// | 80 | 32 | wrapping key |
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// No release below this is given the secrets.
    pub level: u32,
    /// For everything but the `data` partition.
    pub system: [u8; SECRET],
    /// For the `data` partition.
    pub data: [u8; SECRET],
    /// What device keys are wrapped with.
    pub wrapping: [u8; SECRET],
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("level", &self.level).finish_non_exhaustive()
    }
}

const MAGIC: &[u8; 8] = b"BVKEEPER";
const VERSION: u32 = 1;

impl Kept {
    /// The object's name in the keeper's storage.
    pub const NAME: &'static [u8] = b"kept";
    /// The object's bytes.
    pub const SIZE: usize = 16 + 3 * SECRET;

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.level.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.system);
        bytes[48..80].copy_from_slice(&self.data);
        bytes[80..].copy_from_slice(&self.wrapping);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not exactly such an object.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let cut = Malformed("the keeper's object is cut off");
        let secret = |at: usize| -> Result<[u8; SECRET], Malformed> {
            bytes.get(at..at + SECRET).and_then(|secret| secret.try_into().ok()).ok_or(cut)
        };
        if !bytes.starts_with(MAGIC) || u32_at(bytes, 8) != Some(VERSION) {
            return Err(Malformed("the keeper's object is of no known version"));
        }
        if bytes.len() != Self::SIZE {
            return Err(Malformed("the keeper's object has another size"));
        }
        let level = u32_at(bytes, 12).ok_or(cut)?;
        if level > HIGHEST_LEVEL {
            return Err(Malformed("the keeper's object has a level that does not exist"));
        }
        Ok(Self { level, system: secret(16)?, data: secret(48)?, wrapping: secret(80)? })
    }

    /// System and data secret, as they are given out.
    pub fn secrets(&self) -> [u8; 2 * SECRET] {
        let mut both = [0; 2 * SECRET];
        both[..SECRET].copy_from_slice(&self.system);
        both[SECRET..].copy_from_slice(&self.data);
        both
    }
}

/// Where the keeper stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The rollback level. None: the secrets were never made, or, when closed, nobody opened it in this start.
    pub level: Option<u32>,
    /// Whether it is closed until the machine starts again.
    pub closed: bool,
}

impl Standing {
    const MADE: u32 = 1;
    const CLOSED: u32 = 2;

    /// As two numbers: the level, and bits: 0 made, 1 closed.
    pub fn encode(self) -> (u32, u32) {
        let made = if self.level.is_some() { Self::MADE } else { 0 };
        let closed = if self.closed { Self::CLOSED } else { 0 };
        (self.level.unwrap_or(0), made | closed)
    }

    /// From two numbers.
    ///
    /// # Errors
    /// When they are none of a keeper's.
    pub fn decode((level, flags): (u64, u64)) -> Result<Self, Malformed> {
        let wrong = Malformed("the keeper stands nowhere that is known");
        let flags = u32::try_from(flags).ok().filter(|flags| flags & !(Self::MADE | Self::CLOSED) == 0).ok_or(wrong)?;
        let level = u32::try_from(level).ok().filter(|&level| level <= HIGHEST_LEVEL).ok_or(wrong)?;
        let made = flags & Self::MADE != 0;
        if !made && level != 0 {
            return Err(wrong);
        }
        Ok(Self { level: made.then_some(level), closed: flags & Self::CLOSED != 0 })
    }
}

/// Which secrets are made anew before any is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// None: they are as kept.
    Nothing,
    /// Data secret and wrapping key.
    Data,
    /// All, for the first time.
    All,
}

/// Decides what a release of this level is given, from what is kept.
///
/// # Errors
/// [`Refusal::BelowLevel`].
pub fn opening(kept: Option<&Kept>, release: u32, renew: bool) -> Result<Fresh, Refusal> {
    match kept {
        None => Ok(Fresh::All),
        Some(kept) if release < kept.level => Err(Refusal::BelowLevel),
        Some(_) if renew => Ok(Fresh::Data),
        Some(_) => Ok(Fresh::Nothing),
    }
}

impl Fresh {
    /// What is kept then, with random bytes for what is made anew. Out of nothing: all anew, at level 0.
    pub fn apply(self, kept: Option<Kept>, random: &[u8; FRESH]) -> Kept {
        let piece = |index: usize| {
            let mut secret = [0; SECRET];
            secret.copy_from_slice(&random[index * SECRET..(index + 1) * SECRET]);
            secret
        };
        match (self, kept) {
            (Self::Nothing, Some(kept)) => kept,
            (Self::Data, Some(kept)) => Kept { data: piece(1), wrapping: piece(2), ..kept },
            (Self::All, _) | (_, None) => Kept { level: 0, system: piece(0), data: piece(1), wrapping: piece(2) },
        }
    }
}

/// What the keeper knows in this start of the machine.
#[derive(Debug)]
pub struct State {
    closed: bool,
    /// The release's level and what is kept, from when it was opened on.
    opened: Option<(u32, Kept)>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// As the machine starts.
    pub const fn new() -> Self {
        Self { closed: false, opened: None }
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What is kept; none before it is opened.
    pub fn kept(&self) -> Option<&Kept> {
        self.opened.as_ref().map(|(_, kept)| kept)
    }

    /// Whether a release of this level may ask for secrets at all: not when closed, and each start is of one release.
    ///
    /// # Errors
    /// [`Refusal::Closed`], [`Refusal::NoSuchLevel`], [`Refusal::OtherRelease`].
    pub fn may_open(&self, release: u32) -> Result<(), Refusal> {
        match self.opened {
            _ if self.closed => Err(Refusal::Closed),
            _ if release > HIGHEST_LEVEL => Err(Refusal::NoSuchLevel),
            Some((other, _)) if other != release => Err(Refusal::OtherRelease),
            _ => Ok(()),
        }
    }

    /// The secrets were given to a release of this level.
    pub fn open(&mut self, release: u32, kept: Kept) {
        self.opened = Some((release, kept));
    }

    /// What is stored is not known any more: it must be opened again.
    pub fn forget(&mut self) {
        self.opened = None;
    }

    /// What to keep so that the level is this one; what is kept already when it is.
    ///
    /// # Errors
    /// [`Refusal::Closed`], [`Refusal::NotOpened`], [`Refusal::AboveRelease`], [`Refusal::Lower`].
    pub fn raised(&self, to: u32) -> Result<Kept, Refusal> {
        match &self.opened {
            _ if self.closed => Err(Refusal::Closed),
            None => Err(Refusal::NotOpened),
            Some((release, _)) if to > *release => Err(Refusal::AboveRelease),
            Some((_, kept)) if to < kept.level => Err(Refusal::Lower),
            Some((_, kept)) => Ok(Kept { level: to, ..kept.clone() }),
        }
    }

    /// A level was stored.
    pub fn raise(&mut self, to: Kept) {
        if let Some((_, kept)) = &mut self.opened {
            *kept = to;
        }
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What device keys are wrapped with.
    ///
    /// # Errors
    /// [`Refusal::NotOpened`].
    pub fn wrapping(&self) -> Result<&[u8; SECRET], Refusal> {
        self.kept().map(|kept| &kept.wrapping).ok_or(Refusal::NotOpened)
    }
}

/// The parts of a wrapped key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapped {
    /// Of AES-GCM.
    pub nonce: [u8; NONCE],
    /// The key pair, encrypted.
    pub sealed: [u8; KEY_PAIR],
    /// Of AES-GCM, over the key pair and [`WRAPPED_VERSION`].
    pub tag: [u8; TAG],
}

impl Wrapped {
    /// As bytes.
    pub fn encode(&self) -> [u8; WRAPPED] {
        let mut bytes = [WRAPPED_VERSION; WRAPPED];
        bytes[1..1 + NONCE].copy_from_slice(&self.nonce);
        bytes[1 + NONCE..1 + NONCE + KEY_PAIR].copy_from_slice(&self.sealed);
        bytes[1 + NONCE + KEY_PAIR..].copy_from_slice(&self.tag);
        bytes
    }

    /// From bytes; they may be anybody's.
    ///
    /// # Errors
    /// [`Refusal::ForeignKey`] when they have another size or version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let part = |at: usize, size: usize| bytes.get(at..at + size).ok_or(Refusal::ForeignKey);
        if bytes.len() != WRAPPED || bytes.first() != Some(&WRAPPED_VERSION) {
            return Err(Refusal::ForeignKey);
        }
        let foreign = |_| Refusal::ForeignKey;
        Ok(Self {
            nonce: part(1, NONCE)?.try_into().map_err(foreign)?,
            sealed: part(1 + NONCE, KEY_PAIR)?.try_into().map_err(foreign)?,
            tag: part(1 + NONCE + KEY_PAIR, TAG)?.try_into().map_err(foreign)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(level: u32) -> Kept {
        Kept { level, system: [1; 32], data: [2; 32], wrapping: [3; 32] }
    }

    #[test]
    fn what_is_kept_is_read_exactly_as_it_was_stored() {
        let bytes = kept(64).encode();
        assert_eq!(bytes[..16], *b"BVKEEPER\x01\0\0\0\x40\0\0\0");
        assert_eq!((&bytes[16..48], &bytes[48..80], &bytes[80..]), (&[1; 32][..], &[2; 32][..], &[3; 32][..]));
        assert_eq!(Kept::decode(&bytes), Ok(kept(64)));
        for length in 0..bytes.len() {
            assert!(Kept::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Kept::decode(&[&bytes[..], &[0]].concat()).is_err());
        for place in 0..12 {
            let mut damaged = bytes;
            damaged[place] ^= 1;
            assert!(Kept::decode(&damaged).is_err(), "{place}");
        }
        assert!(Kept::decode(&kept(65).encode()).is_err());
        assert!(!format!("{:?}", kept(7)).contains("1, 1"), "{:?}", kept(7));
    }

    #[test]
    fn a_standing_is_two_numbers() {
        for level in [None, Some(0), Some(64)] {
            for closed in [false, true] {
                let standing = Standing { level, closed };
                let (a, b) = standing.encode();
                assert_eq!(Standing::decode((a.into(), b.into())), Ok(standing));
            }
        }
        for wrong in [(65, 1), (1, 0), (0, 4), (1 << 32, 1), (0, 1 << 32)] {
            assert!(Standing::decode(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_release_below_the_level_is_given_nothing() {
        assert_eq!(opening(None, 0, false), Ok(Fresh::All));
        assert_eq!(opening(None, 0, true), Ok(Fresh::All));
        assert_eq!(opening(Some(&kept(3)), 3, false), Ok(Fresh::Nothing));
        assert_eq!(opening(Some(&kept(3)), 4, true), Ok(Fresh::Data));
        for renew in [false, true] {
            assert_eq!(opening(Some(&kept(3)), 2, renew), Err(Refusal::BelowLevel));
        }
    }

    #[test]
    fn what_is_made_anew_is_random_and_the_rest_stays() {
        let mut random = [7; FRESH];
        random[32..64].fill(8);
        random[64..].fill(9);
        assert_eq!(Fresh::Nothing.apply(Some(kept(3)), &random), kept(3));
        let renewed = Fresh::Data.apply(Some(kept(3)), &random);
        assert_eq!(renewed, Kept { level: 3, system: [1; 32], data: [8; 32], wrapping: [9; 32] });
        let made = Kept { level: 0, system: [7; 32], data: [8; 32], wrapping: [9; 32] };
        assert_eq!(Fresh::All.apply(None, &random), made);
        assert_eq!(made.secrets()[31..33], [7, 8]);
    }

    #[test]
    fn a_start_is_of_one_release_and_ends_with_closing() {
        let mut state = State::new();
        assert_eq!(state.may_open(65), Err(Refusal::NoSuchLevel));
        assert_eq!(state.raised(0), Err(Refusal::NotOpened));
        assert_eq!(state.wrapping(), Err(Refusal::NotOpened));
        assert_eq!(state.may_open(5), Ok(()));
        state.open(5, kept(3));
        assert_eq!((state.may_open(5), state.may_open(6)), (Ok(()), Err(Refusal::OtherRelease)));
        assert_eq!(state.raised(2), Err(Refusal::Lower));
        assert_eq!(state.raised(6), Err(Refusal::AboveRelease));
        assert_eq!(state.raised(3), Ok(kept(3)));
        let raised = state.raised(5).unwrap();
        assert_eq!(raised, kept(5));
        state.raise(raised);
        assert_eq!(state.kept(), Some(&kept(5)));
        state.close();
        assert!(state.is_closed());
        assert_eq!((state.may_open(5), state.raised(5)), (Err(Refusal::Closed), Err(Refusal::Closed)));
        assert_eq!(state.wrapping(), Ok(&[3; 32]));
        // Closed before it was opened: nothing at all.
        let mut state = State::new();
        state.close();
        assert_eq!((state.may_open(0), state.wrapping()), (Err(Refusal::Closed), Err(Refusal::NotOpened)));
    }

    #[test]
    fn a_wrapped_key_has_one_size_and_one_version() {
        let wrapped = Wrapped { nonce: [1; 12], sealed: [2; 96], tag: [3; 16] };
        let bytes = wrapped.encode();
        assert_eq!((bytes.len(), bytes[0]), (125, 1));
        assert_eq!(Wrapped::decode(&bytes), Ok(wrapped));
        assert_eq!(Wrapped::decode(&bytes[..124]), Err(Refusal::ForeignKey));
        assert_eq!(Wrapped::decode(&[&bytes[..], &[0]].concat()), Err(Refusal::ForeignKey));
        assert_eq!(Wrapped::decode(&[&[2], &bytes[1..]].concat()), Err(Refusal::ForeignKey));
    }

    #[test]
    fn commands_and_refusals_are_known_by_number() {
        for number in 0..7 {
            assert_eq!(Command::from_number(number).map(|command| command as u32), Some(number));
        }
        assert_eq!(Command::from_number(7), None);
        assert_eq!([Command::Open.types(), Command::Sign.types(), Command::Close.types()], [0x261, 0x655, 0]);
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        }
        assert_eq!(Refusal::from_code(Code::SECURITY), None);
    }
}

//! The rollback fuses in the TPM: reading them, and raising them for ever.
#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::layout::{self, DATA_SECRET, Difference, FUSES, HIGHEST_LEVEL, Purpose, SYSTEM_SECRET};
use belvedere_tpm::{Authorization, Name, PolicyKey, Tpm, TpmError, commands};
use core::fmt;

/// What the fuses say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuses {
    /// Nothing of ours is in the TPM: a machine that was never started, or whose first start was cut short before it
    /// kept anything. Every release may start.
    Factory,
    /// Releases below this level must not start.
    Level(u32),
}

impl Fuses {
    /// The level; 0 of a new machine.
    pub fn level(self) -> u32 {
        match self {
            Fuses::Factory => 0,
            Fuses::Level(level) => level,
        }
    }
}

/// Why the fuses could not be read or raised. When reading, each of these means: closed, nothing starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FuseError {
    /// The TPM did not do it.
    Tpm(TpmError),
    /// The fuses are gone, or were never written, although a secret is there that is made after them.
    Lost,
    /// The index is there and not as we define it.
    Foreign(Difference),
    /// The owner's hierarchy is switched off: nothing in it can be seen.
    Hidden,
    /// Raising: a new machine has no fuses yet; its first start makes them.
    Factory,
    /// Raising: the release that runs is none of the signed policy's.
    UnknownRelease,
    /// Raising: there are no more fuses than [`HIGHEST_LEVEL`].
    TooHigh(u32),
    /// Raising: above what is signed for the running release, which would be the last to start here.
    AboveRelease {
        /// Asked for.
        wanted: u32,
        /// The running release's level.
        signed: u32,
    },
    /// Raising: the words were others.
    NotConfirmed,
    /// Raising: the TPM agreed, and reads another level.
    NotRaised {
        /// Asked for.
        wanted: u32,
        /// Read back.
        found: u32,
    },
}

impl From<TpmError> for FuseError {
    fn from(error: TpmError) -> FuseError {
        FuseError::Tpm(error)
    }
}

impl fmt::Display for FuseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rollback fuses: ")?;
        match self {
            FuseError::Tpm(error) => error.fmt(f),
            FuseError::Lost => f.write_str(
                "they are gone from the TPM, although its secrets are there; clear the TPM in the firmware's setup and \
                 write the disk image anew, which gives up all data",
            ),
            FuseError::Foreign(difference) => write!(
                f,
                "the TPM's index {FUSES:#x} is not ours: {difference}; clear the TPM in the firmware's setup and, unless \
                 this disk was never started, write the disk image anew; that gives up all data"
            ),
            FuseError::Hidden => {
                f.write_str("the TPM's owner hierarchy is switched off; switch it on in the firmware's setup")
            }
            FuseError::Factory => f.write_str("there are none yet; the first start makes them"),
            FuseError::UnknownRelease => {
                f.write_str("not raised: what was measured at this start is none of the releases that are signed")
            }
            FuseError::TooHigh(level) => write!(f, "not raised: level {level} is above {HIGHEST_LEVEL}, the highest"),
            FuseError::AboveRelease { wanted, signed } => {
                write!(f, "not raised: level {wanted} is above {signed}, the level of the release that runs")
            }
            FuseError::NotConfirmed => f.write_str("not raised: it was not confirmed with the right words"),
            FuseError::NotRaised { wanted, found } => {
                write!(f, "the TPM agreed to level {wanted} and then reads level {found}")
            }
        }
    }
}

impl core::error::Error for FuseError {}

/// Reads the fuses; changes nothing. Two commands, four on a new machine.
///
/// `policy_key`: the name of the key that signs our policies ([`PolicyKey::name`]). Who has none to expect, the
/// bootloader, leaves it out; then attributes and size alone are compared.
///
/// # Errors
/// For everything but fuses that were written, and a machine that is new.
pub fn read(tpm: &mut (impl Tpm + ?Sized), policy_key: Option<&Name>) -> Result<Fuses, FuseError> {
    let found = commands::nv_read_public(tpm, FUSES)?;
    if let Some(found) = &found {
        let ours = layout::fuses(policy_key.unwrap_or(&[0; 34]));
        layout::same(found, &ours, policy_key.is_some()).map_err(FuseError::Foreign)?;
        if found.written() {
            return read_level(tpm).map(Fuses::Level);
        }
    }
    for secret in [SYSTEM_SECRET, DATA_SECRET] {
        if commands::nv_read_public(tpm, secret)?.is_some() {
            return Err(FuseError::Lost);
        }
    }
    // With the hierarchy off, all three are invisible on a machine that has them.
    if commands::state(tpm)?.owner_enabled { Ok(Fuses::Factory) } else { Err(FuseError::Hidden) }
}

/// Reads fuses of which it is known that they are ours and were written.
fn read_level(tpm: &mut (impl Tpm + ?Sized)) -> Result<u32, FuseError> {
    let bytes = commands::nv_read(tpm, Authorization::Password(&[]), FUSES, 8)?;
    let bits = bytes.first_chunk().copied().ok_or(TpmError::Malformed { command: "NV_Read", what: "it is too short" })?;
    Ok(layout::level_of(u64::from_be_bytes(bits)))
}

/// Fuses about to be raised. Nothing happens until [`Raise::confirm`].
#[derive(Debug)]
#[must_use]
pub struct Raise {
    from: u32,
    to: u32,
    key: PolicyKey,
    entry: Entry,
}

/// Words with which somebody, or a rule that was written down, agrees to what cannot be taken back.
#[derive(Debug)]
pub struct Confirmation(String);

/// What a [`Confirmation`] must say, wherever the fuses are: in the TPM or in OP-TEE.
pub fn words(from: u32, to: u32) -> String {
    format!("raise the rollback fuses from level {from} to level {to} for ever")
}

impl Confirmation {
    /// The words; they are compared with [`Raise::words`].
    pub fn words(words: impl Into<String>) -> Confirmation {
        Confirmation(words.into())
    }

    /// Whether they are the [`words`] for this.
    ///
    /// # Errors
    /// [`FuseError::NotConfirmed`] when they are others.
    pub fn agrees(&self, from: u32, to: u32) -> Result<(), FuseError> {
        if self.0 == words(from, to) { Ok(()) } else { Err(FuseError::NotConfirmed) }
    }
}

/// Looks whether the fuses must be raised to a level, and may; changes nothing. Nothing when they are that high already.
///
/// # Errors
/// When the fuses cannot be read, the running release is none of the policy's, or the level is above its own.
pub fn prepare(
    tpm: &mut (impl Tpm + ?Sized),
    policy: &BootPolicy,
    to_level: u32,
    log: &mut dyn FnMut(&str),
) -> Result<Option<Raise>, FuseError> {
    if to_level > HIGHEST_LEVEL {
        return Err(FuseError::TooHigh(to_level));
    }
    let [pcr7, pcr11] = commands::pcr_read(tpm, [layout::SECURE_BOOT_PCR, layout::RELEASE_PCR])?;
    let entry = *policy.entry(&pcr7, &pcr11).ok_or(FuseError::UnknownRelease)?;
    if to_level > entry.level {
        return Err(FuseError::AboveRelease { wanted: to_level, signed: entry.level });
    }
    match read(tpm, Some(&policy.key.name()))? {
        Fuses::Factory => Err(FuseError::Factory),
        Fuses::Level(from) if from >= to_level => {
            log(&format!("rollback fuses: level {from}, nothing to raise (asked for: {to_level})"));
            Ok(None)
        }
        Fuses::Level(from) => Ok(Some(Raise { from, to: to_level, key: policy.key, entry })),
    }
}

impl Raise {
    /// The level now.
    pub fn from(&self) -> u32 {
        self.from
    }

    /// The level to come.
    pub fn to(&self) -> u32 {
        self.to
    }

    /// What a [`Confirmation`] must say.
    pub fn words(&self) -> String {
        words(self.from, self.to)
    }

    /// Sets the fuses, reads them back and gives their level. A power cut leaves the old level or the new one.
    ///
    /// # Errors
    /// When the words are others, the TPM refuses, or the fuses do not read as they were set.
    pub fn confirm(
        self,
        tpm: &mut (impl Tpm + ?Sized),
        confirmation: Confirmation,
        log: &mut dyn FnMut(&str),
    ) -> Result<u32, FuseError> {
        confirmation.agrees(self.from, self.to)?;
        log(&format!("rollback fuses: raising from level {} to level {}, for ever", self.from, self.to));
        let approval = Approval::verify(tpm, &self.key, &self.entry, Purpose::Fuses)?;
        let bits = layout::level_bits(self.to);
        approval.with_session(tpm, FusesState::Written, |tpm, session| {
            commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, bits)
        })?;
        let found = read_level(tpm)?;
        if found != self.to {
            return Err(FuseError::NotRaised { wanted: self.to, found });
        }
        log(&format!("rollback fuses: level {found}"));
        Ok(found)
    }
}

//! The appliance's secrets in the TPM, from which every volume's passphrase is derived, and who owns the TPM.
//!
//! # The first start, and what a power cut after each step leaves
//!
//! 1. the fuses' index is defined — the bootloader takes it for a new machine
//! 2. NV_SetBits(0): the fuses are written — they read as level 0
//! 3. SYSTEM_SECRET is defined — it cannot be read, as it was never written
//! 4. 32 random bytes are written to it — a secret that nothing was encrypted with yet
//! 5. DATA_SECRET is defined
//! 6. 32 random bytes are written to it — from here on the secrets can be read at each start
//! 7. TPM2_Clear is disabled — only the firmware's setup clears the TPM
//! 8. the lockout authorisation becomes a value derived from SYSTEM_SECRET
//! 9. whatever is at the place of the keys' parent is removed: nobody knows who put it there
//! 10. the keys' parent is made and kept there ([`layout::KEYS_PARENT`]) — the next start makes it once more, and as it comes
//!     from the owner's seed it is the same one
//! 11. the owner's authorisation becomes a value derived from SYSTEM_SECRET, last of what counts, because 1, 3, 5, 9 and 10
//!     need the empty one here — nobody else can undefine an index or remove the parent any more
//! 12. the endorsement hierarchy's does. Nothing of ours depends on it; with the empty one a service that was taken over
//!     could leave something behind in the TPM
//!
//! Each step is one command that the TPM does wholly or not at all (the writes behind a policy session, which a power cut
//! just ends). The next start looks what is there and goes on with the first step that is not ([`plan::next`]): no record
//! of our own is needed. [`ensure`] gives no secret out before step 11, so nothing is ever encrypted with a secret that
//! somebody could still undefine.
//!
//! Once the TPM is ours, 7, 9, 10 and 12 are done again at each start where it is needed, with the owner's authorisation. What
//! the TPM refuses then is told, and no reason to keep the volumes closed.
//!
//! A full reset writes DATA_SECRET once more ([`renew_data_secret`]): one command, and everything that was encrypted with
//! what it held is gone.

pub mod closed;
pub mod plan;

pub use crate::encrypt::kernel_random;
pub use closed::{Closed, PcrDifference};
pub use plan::Refusal;

use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::boot_policy::BootPolicy;
use belvedere_tpm::commands::{self, Hierarchy, LoadedObject};
use belvedere_tpm::layout::{
    self, DATA_SECRET, FUSES, KEYS_PARENT, Purpose, RELEASE_PCR, SECRET, SECURE_BOOT_PCR, SYSTEM_SECRET,
};
use belvedere_tpm::policy::sha256;
use belvedere_tpm::{Authorization, Name, NvPublic, PolicyKey, ResponseCode, Tpm, TpmError};
use hmac::{Hmac, KeyInit, Mac};
use plan::{Found, Index, Parent, Step};
use sha2::Sha256;
use std::{fmt, io};
use zeroize::Zeroizing;

/// Fills a buffer with random bytes.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>;
/// Takes a line for the log.
pub type Log<'a> = &'a mut dyn FnMut(&str);

const EMPTY: Authorization<'static> = Authorization::Password(&[]);

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The TPM did not do it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// No random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Random(#[source] io::Error),
    /// The document was signed by somebody else.
    #[error("the policies of this release are signed by another key than the one that this release names")]
    OtherKey,
    /// What is in the TPM is not ours, or not whole.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The TPM keeps the secrets from what runs.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The TPM agreed to a write and reads something else.
    #[error("the TPM took a new data secret and reads another one")]
    NotWritten,
}

/// The secrets. Wiped when dropped; never shown.
pub struct Secrets {
    system: Zeroizing<[u8; SECRET]>,
    data: Zeroizing<[u8; SECRET]>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets { .. }")
    }
}

fn derive(secret: &[u8; SECRET], pieces: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).expect("a key of any length");
    for piece in pieces {
        mac.update(piece);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

impl Secrets {
    /// What another keeper than the TPM has kept.
    pub fn kept(system: Zeroizing<[u8; SECRET]>, data: Zeroizing<[u8; SECRET]>) -> Secrets {
        Secrets { system, data }
    }

    /// The passphrase of an encrypted partition: HMAC-SHA256 over `belvedere luks ` and its name, with the data secret for
    /// the partition `data` and with the system secret for all others.
    pub fn volume_passphrase(&self, partition_name: &str) -> Zeroizing<[u8; 32]> {
        let secret = if partition_name == "data" { &self.data } else { &self.system };
        derive(secret, &[b"belvedere luks ", partition_name.as_bytes()])
    }

    /// The authorisation value of the TPM's owner: whoever creates primary keys or defines indices needs it.
    pub fn owner_auth(&self) -> Zeroizing<[u8; 32]> {
        derive(&self.system, &[b"belvedere owner auth"])
    }

    fn endorsement_auth(&self) -> Zeroizing<[u8; 32]> {
        derive(&self.system, &[b"belvedere endorsement auth"])
    }

    fn lockout_auth(&self) -> Zeroizing<[u8; 32]> {
        derive(&self.system, &[b"belvedere lockout auth"])
    }
}

/// Reads the secrets; at the first start makes them and takes ownership of the TPM, at a start after a power cut goes on
/// with that. Nothing is written to a TPM that is not ours or that the running release may not use.
///
/// `policy_key` is the key that the caller expects; the document must be of the same one.
///
/// # Errors
/// [`SecretsError::Closed`] when the TPM keeps them from what runs, [`SecretsError::Refused`] when what it holds is not ours.
pub fn ensure(
    tpm: &mut (impl Tpm + ?Sized),
    boot_policy: &BootPolicy,
    policy_key: &PolicyKey,
    random: Random<'_>,
    log: Log<'_>,
) -> Result<Secrets, SecretsError> {
    Access::open(tpm, boot_policy, policy_key)?.ensure(random, log)
}

/// Writes fresh random bytes to the data secret: after this one command nobody can read what was encrypted with the old
/// one. Gives the secrets as they are then; the system secret is the same.
///
/// # Errors
/// As [`ensure`], which comes first.
pub fn renew_data_secret(
    tpm: &mut (impl Tpm + ?Sized),
    boot_policy: &BootPolicy,
    policy_key: &PolicyKey,
    random: Random<'_>,
    log: Log<'_>,
) -> Result<Secrets, SecretsError> {
    let mut access = Access::open(tpm, boot_policy, policy_key)?;
    let Secrets { system, .. } = access.ensure(random, log)?;
    log("TPM: writing a new data secret; what was encrypted with the old one is gone");
    let fresh = access.write_secret(DATA_SECRET, random)?;
    let data = access.read_secret(DATA_SECRET)?;
    if *data != *fresh {
        return Err(SecretsError::NotWritten);
    }
    log("TPM: the data secret is a new one");
    Ok(Secrets { system, data })
}

/// Ends the time in which secrets can be read and written, and fuses raised, until the next start: measures
/// [`layout::OPERATING_PHASE`] into PCR 11. The platform's hierarchy, which could clear the TPM, is the firmware's to close;
/// where the firmware left it open it is switched off until then.
///
/// # Errors
/// When the TPM does not do it: then whatever runs could still ask for the secrets.
pub fn close_phase(tpm: &mut (impl Tpm + ?Sized)) -> Result<(), TpmError> {
    commands::pcr_extend(tpm, RELEASE_PCR, &sha256(&[layout::OPERATING_PHASE]))?;
    // It is closed already, or cannot be, or the TPM answers no more: no secret depends on it, and none is given out now.
    let _ = commands::disable_platform(tpm);
    Ok(())
}

/// A TPM in which the running release may use the secrets, or make them.
struct Access<'a, T: ?Sized> {
    tpm: &'a mut T,
    key: PolicyKey,
    entry: belvedere_tpm::boot_policy::Entry,
    found: Found,
    storage: Approval,
}

impl<'a, T: Tpm + ?Sized> Access<'a, T> {
    fn open(tpm: &'a mut T, boot_policy: &BootPolicy, policy_key: &PolicyKey) -> Result<Self, SecretsError> {
        if boot_policy.key != *policy_key {
            return Err(SecretsError::OtherKey);
        }
        let (found, fuses) = look(tpm, &policy_key.name())?;
        // Before anything is written: is there anything to refuse?
        plan::next(&found)?;
        let [pcr7, pcr11] = commands::pcr_read(tpm, [SECURE_BOOT_PCR, RELEASE_PCR])?;
        let entry = *closed::entry(boot_policy, &pcr7, &pcr11, fuses)?;
        let storage = Approval::verify(tpm, policy_key, &entry, Purpose::Storage)?;
        Ok(Access { tpm, key: *policy_key, entry, found, storage })
    }

    fn ensure(&mut self, random: Random<'_>, log: Log<'_>) -> Result<Secrets, SecretsError> {
        let endorsement_was_set = self.found.state.endorsement_auth_set;
        let mut secrets = None;
        if self.found.state.owner_auth_set {
            // All indices are written, or the plan had refused. Somebody at hand while the power was cut before step 11 could
            // have set it, and later have made the fuses anew.
            let read = self.read()?;
            match commands::check_owner(self.tpm, Authorization::Password(read.owner_auth().as_slice())) {
                Err(error) if error.is(ResponseCode::BAD_AUTH) => return Err(Refusal::Owned.into()),
                checked => checked?,
            }
            secrets = Some(read);
        }
        while let Some(step) = plan::next(&self.found)? {
            if step.needs_secrets() && secrets.is_none() {
                secrets = Some(self.read()?);
            }
            log(&format!("TPM: {step}"));
            match self.carry_out(step, secrets.as_ref(), random) {
                // It is ours already, or has no room: the secrets are safe whether or not this was done. A parent that is not
                // there is made at a later start, and the device's key says until then what it lacks.
                Err(error) if self.found.state.owner_auth_set || step == Step::MakeParent => {
                    log(&format!("TPM: {step}: {error}; the start goes on"))
                }
                done => done?,
            }
            self.found.after(step);
        }
        let secrets = match secrets {
            Some(secrets) => secrets,
            None => self.read()?,
        };
        if endorsement_was_set {
            self.check_endorsement(&secrets, log);
        }
        Ok(secrets)
    }

    /// Tells when the endorsement hierarchy's authorisation is not ours. Nothing of ours depends on it.
    fn check_endorsement(&mut self, secrets: &Secrets, log: Log<'_>) {
        let auth = secrets.endorsement_auth();
        let checked = commands::start_policy_session(self.tpm).and_then(|session| {
            let hierarchy = Hierarchy::Endorsement;
            let checked = commands::policy_secret(self.tpm, session, hierarchy, Authorization::Password(auth.as_slice()));
            checked.and(commands::flush(self.tpm, session.0))
        });
        match checked {
            Ok(()) => {}
            Err(error) if error.is(ResponseCode::BAD_AUTH) => log(
                "TPM: somebody else set the endorsement hierarchy's authorisation; the start goes on, for nothing of this \
                 appliance depends on it",
            ),
            Err(error) => log(&format!("TPM: the endorsement hierarchy's authorisation is not checked: {error}")),
        }
    }

    fn carry_out(&mut self, step: Step, secrets: Option<&Secrets>, random: Random<'_>) -> Result<(), SecretsError> {
        let name = self.key.name();
        let owned = secrets.filter(|_| self.found.state.owner_auth_set).map(Secrets::owner_auth);
        let owner = Authorization::Password(owned.as_ref().map_or(&[], |auth| auth.as_slice()));
        match step {
            Step::DefineFuses => commands::nv_define(self.tpm, EMPTY, &layout::fuses(&name))?,
            Step::WriteFuses => {
                let approval = Approval::verify(self.tpm, &self.key, &self.entry, Purpose::Fuses)?;
                approval.with_session(self.tpm, FusesState::NeverWritten, |tpm, session| {
                    commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, 0)
                })?;
            }
            Step::DefineSystem => commands::nv_define(self.tpm, EMPTY, &layout::system_secret(&name))?,
            Step::WriteSystem => drop(self.write_secret(SYSTEM_SECRET, random)?),
            Step::DefineData => commands::nv_define(self.tpm, EMPTY, &layout::data_secret(&name))?,
            Step::WriteData => drop(self.write_secret(DATA_SECRET, random)?),
            Step::DisableClear { lockout_is_set } => {
                let lockout = secrets.filter(|_| lockout_is_set).map(Secrets::lockout_auth);
                let authorization = Authorization::Password(lockout.as_ref().map_or(&[], |auth| auth.as_slice()));
                commands::disable_clear(self.tpm, authorization)?;
            }
            Step::SetLockout => self.set_auth(Hierarchy::Lockout, secrets.map(Secrets::lockout_auth))?,
            Step::RemoveParent => commands::evict_control(self.tpm, owner, LoadedObject(KEYS_PARENT), KEYS_PARENT)?,
            Step::MakeParent => commands::persist_storage_key(self.tpm, owner, KEYS_PARENT)?,
            Step::SetOwner => self.set_auth(Hierarchy::Owner, secrets.map(Secrets::owner_auth))?,
            Step::SetEndorsement => self.set_auth(Hierarchy::Endorsement, secrets.map(Secrets::endorsement_auth))?,
        }
        Ok(())
    }

    fn set_auth(&mut self, hierarchy: Hierarchy, auth: Option<Zeroizing<[u8; 32]>>) -> Result<(), TpmError> {
        // The plan's steps that need secrets get them.
        let auth =
            auth.ok_or(TpmError::Malformed { command: "HierarchyChangeAuth", what: "no secrets to derive it from" })?;
        commands::hierarchy_change_auth(self.tpm, hierarchy, EMPTY, auth.as_slice())
    }

    fn write_secret(&mut self, index: u32, random: Random<'_>) -> Result<Zeroizing<[u8; SECRET]>, SecretsError> {
        let mut secret = Zeroizing::new([0; SECRET]);
        random(secret.as_mut_slice()).map_err(SecretsError::Random)?;
        self.storage.with_session(self.tpm, FusesState::Written, |tpm, session| {
            commands::nv_write(tpm, Authorization::Policy(session), index, secret.as_slice())
        })?;
        Ok(secret)
    }

    fn read_secret(&mut self, index: u32) -> Result<Zeroizing<[u8; SECRET]>, TpmError> {
        let bytes = self.storage.with_session(self.tpm, FusesState::Written, |tpm, session| {
            commands::nv_read(tpm, Authorization::Policy(session), index, SECRET as u16)
        })?;
        let bytes = bytes.first_chunk().ok_or(TpmError::Malformed { command: "NV_Read", what: "it is too short" })?;
        Ok(Zeroizing::new(*bytes))
    }

    fn read(&mut self) -> Result<Secrets, SecretsError> {
        Ok(Secrets { system: self.read_secret(SYSTEM_SECRET)?, data: self.read_secret(DATA_SECRET)? })
    }
}

/// What is in the TPM, and the level of the fuses (0 when they are not written).
fn look(tpm: &mut (impl Tpm + ?Sized), policy_key: &Name) -> Result<(Found, u32), SecretsError> {
    let mut index = |ours: NvPublic| -> Result<Index, TpmError> {
        Ok(match commands::nv_read_public(tpm, ours.index)? {
            None => Index::Undefined,
            Some(found) => match layout::same(&found, &ours, true) {
                Err(difference) => Index::Foreign(difference),
                Ok(()) if found.written() => Index::Written,
                Ok(()) => Index::Unwritten,
            },
        })
    };
    let fuses = index(layout::fuses(policy_key))?;
    let (system, data) = (index(layout::system_secret(policy_key))?, index(layout::data_secret(policy_key))?);
    let state = commands::state(tpm)?;
    let parent = match commands::has_storage_key(tpm, KEYS_PARENT)? {
        None => Parent::Absent,
        // What looks like ours may have an authorisation value, which nobody sees.
        Some(ours) if ours && state.owner_auth_set => Parent::Ours,
        Some(_) => Parent::Foreign,
    };
    let level = if fuses == Index::Written {
        let bytes = commands::nv_read(tpm, EMPTY, FUSES, 8)?;
        layout::level_of(u64::from_be_bytes(bytes.first_chunk().copied().unwrap_or([0xff; 8])))
    } else {
        0
    };
    Ok((Found { fuses, system, data, parent, state }, level))
}

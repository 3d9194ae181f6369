//! A policy session for what a release's signed policy allows.

use crate::boot_policy::Entry;
use crate::commands::{self, VerifiedTicket};
use crate::layout::{FUSES, Purpose, approved, fuses_branches, fuses_name, level_bits, release_pcrs};
use crate::policy::{Comparison, pcr_digest, sha256, to_be_signed};
use crate::{Name, PolicyKey, PolicySession, ResponseCode, Tpm, TpmError};

/// How often a policy is checked anew because a PCR changed meanwhile: others may measure (IMA) at any time.
const ATTEMPTS: u32 = 4;

/// A policy whose signature the TPM has verified.
pub struct Approval {
    entry: Entry,
    purpose: Purpose,
    key: Name,
    ticket: VerifiedTicket,
}

/// Whether the fuses were written when a session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusesState {
    /// Defined, but never set, not even to 0. Only for [`Purpose::Fuses`].
    NeverWritten,
    /// Written.
    Written,
}

impl Approval {
    /// Has the TPM verify the entry's signature. Three commands; leaves nothing loaded.
    ///
    /// # Errors
    /// [`ResponseCode::SIGNATURE`] when the key did not sign this for this purpose.
    pub fn verify(
        tpm: &mut (impl Tpm + ?Sized),
        key: &PolicyKey,
        entry: &Entry,
        purpose: Purpose,
    ) -> Result<Approval, TpmError> {
        let name = key.name();
        let approved = approved(purpose, &entry.pcr7, &entry.pcr11, entry.level, &fuses_name(&name));
        let digest = sha256(&[&to_be_signed(&approved, purpose.policy_ref())]);
        let loaded = commands::load_policy_key(tpm, key)?;
        let verified = commands::verify_signature(tpm, loaded, &digest, entry.signature(purpose));
        let flushed = commands::flush(tpm, loaded.0);
        let ticket = verified?;
        flushed?;
        Ok(Approval { entry: *entry, purpose, key: name, ticket })
    }

    /// Opens a session that fulfils the policy and lets `action` use it; ends it, whatever comes of it. Four commands
    /// (five for the fuses) beside the action's. `action` runs again when a PCR changed meanwhile, of which the TPM says
    /// that it did nothing.
    ///
    /// # Errors
    /// [`ResponseCode::VALUE`] (PolicyPCR) when other values are in the PCRs, [`ResponseCode::POLICY`] (PolicyNV) when the
    /// fuses are above the entry's level; what the action says.
    pub fn with_session<T: Tpm + ?Sized, R>(
        &self,
        tpm: &mut T,
        fuses: FusesState,
        mut action: impl FnMut(&mut T, PolicySession) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let mut attempt = 1;
        loop {
            let session = commands::start_policy_session(tpm)?;
            let result = self.fulfil(tpm, session, fuses).and_then(|()| action(tpm, session));
            if result.is_err() {
                // It would stay; what counts is the first error.
                let _ = commands::flush(tpm, session.0);
            }
            match result {
                Err(error) if error.is(ResponseCode::PCR_CHANGED) && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    fn fulfil(&self, tpm: &mut (impl Tpm + ?Sized), session: PolicySession, fuses: FusesState) -> Result<(), TpmError> {
        let Entry { pcr7, pcr11, level, .. } = &self.entry;
        let pcrs = release_pcrs(pcr7, pcr11);
        commands::policy_pcr(tpm, session, &pcrs.map(|(pcr, _)| pcr), &pcr_digest(&pcrs))?;
        match fuses {
            FusesState::Written => {
                commands::policy_nv(tpm, session, FUSES, &level_bits(*level).to_be_bytes(), Comparison::AtMost)?;
            }
            FusesState::NeverWritten => commands::policy_nv_written(tpm, session, false)?,
        }
        let fuses_name = fuses_name(&self.key);
        if self.purpose == Purpose::Fuses {
            commands::policy_or(tpm, session, &fuses_branches(pcr7, pcr11, *level, &fuses_name))?;
        }
        let approved = approved(self.purpose, pcr7, pcr11, *level, &fuses_name);
        commands::policy_authorize(tpm, session, &approved, self.purpose.policy_ref(), &self.key, &self.ticket)
    }
}

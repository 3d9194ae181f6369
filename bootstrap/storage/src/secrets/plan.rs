//! What is still to be done in a TPM until it is ours. Pure.
//!
//! The first rule that applies:
//! 1. The owner's hierarchy is switched off: refused, nothing can be seen.
//! 2. An index is not ours: refused.
//! 3. An index is not written although a later one in the order exists: refused. No power cut leaves that.
//! 4. The owner's or the lockout authorisation is set before all three are written: refused, somebody else owns the TPM.
//! 5. The first index that is not defined is defined; the first that is not written is written.
//! 6. TPM2_Clear is disabled.
//! 7. The lockout authorisation is set.
//! 8. Until the owner's is set, whatever is at the place of the keys' parent is somebody else's: it is removed. So is what
//!    has other attributes than ours. Where nothing is, our parent is made.
//! 9. The owner's authorisation is set, then that of the endorsement hierarchy. One that is set there is nobody's concern.

use belvedere_tpm::commands::TpmState;
use belvedere_tpm::layout::{DATA_SECRET, Difference, FUSES, SYSTEM_SECRET};
use std::fmt;

/// One of our NV indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// Not there.
    Undefined,
    /// As we define it, never written.
    Unwritten,
    /// As we define it, and written.
    Written,
    /// Another one at the same place.
    Foreign(Difference),
}

/// What is at [`KEYS_PARENT`](belvedere_tpm::layout::KEYS_PARENT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// Nothing.
    Absent,
    /// Something that is not to stay.
    Foreign,
    /// The owner's storage key.
    Ours,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The rollback fuses.
    pub fuses: Index,
    /// The system secret.
    pub system: Index,
    /// The data secret.
    pub data: Index,
    /// What the device's key is kept under.
    pub parent: Parent,
    /// Who owns the TPM.
    pub state: TpmState,
}

/// One command, with what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// 1
    DefineFuses,
    /// 2
    WriteFuses,
    /// 3
    DefineSystem,
    /// 4
    WriteSystem,
    /// 5
    DefineData,
    /// 6
    WriteData,
    /// 7
    DisableClear {
        /// The lockout authorisation is ours already.
        lockout_is_set: bool,
    },
    /// 8
    SetLockout,
    /// 9
    RemoveParent,
    /// 10
    MakeParent,
    /// 11
    SetOwner,
    /// 12
    SetEndorsement,
}

impl Step {
    /// Whether it needs a value derived from the secrets.
    pub fn needs_secrets(self) -> bool {
        matches!(self, Step::DisableClear { .. } | Step::SetLockout | Step::SetOwner | Step::SetEndorsement)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::DefineFuses => "defining the rollback fuses",
            Step::WriteFuses => "writing the rollback fuses: level 0",
            Step::DefineSystem => "defining the system secret",
            Step::WriteSystem => "writing the system secret",
            Step::DefineData => "defining the data secret",
            Step::WriteData => "writing the data secret",
            Step::DisableClear { .. } => "disabling TPM2_Clear",
            Step::SetLockout => "setting the lockout authorisation",
            Step::RemoveParent => "removing what is at the place of the keys' parent and not known to be ours",
            Step::MakeParent => "making the keys' parent",
            Step::SetOwner => "setting the owner's authorisation: the TPM is ours",
            Step::SetEndorsement => "setting the endorsement hierarchy's authorisation",
        })
    }
}

/// Why the TPM is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Something else is where one of ours belongs.
    Foreign {
        /// The handle.
        index: u32,
        /// How it differs.
        difference: Difference,
    },
    /// One of ours is gone, or was never written, although a later one is there.
    Lost {
        /// The handle.
        index: u32,
    },
    /// Somebody else set the authorisation of the owner or against lockout.
    Owned,
    /// The owner's hierarchy is switched off.
    Hidden,
}

fn name(index: u32) -> &'static str {
    match index {
        FUSES => "rollback fuses",
        SYSTEM_SECRET => "system secret",
        _ => "data secret",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Foreign { index, difference } => {
                write!(f, "the TPM's index {index:#x} (for the {}) is not ours: {difference}; ", name(*index))?;
            }
            Refusal::Lost { index } => write!(f, "gone from the TPM, or never written: {index:#x}, the {}; ", name(*index))?,
            Refusal::Owned => f.write_str("the TPM belongs to somebody else: an authorisation is set that is not ours; ")?,
            Refusal::Hidden => {
                return f.write_str("the TPM's owner hierarchy is switched off; switch it on in the firmware's setup");
            }
        }
        f.write_str(
            "clear the TPM in the firmware's setup and, unless this disk was never started, write the disk image anew; that \
             gives up all data",
        )
    }
}

impl std::error::Error for Refusal {}

/// The next step; none when the TPM is ours.
///
/// # Errors
/// When the TPM is not to be touched.
pub fn next(found: &Found) -> Result<Option<Step>, Refusal> {
    let TpmState { owner_auth_set, endorsement_auth_set, lockout_auth_set, clear_disabled, owner_enabled, .. } = found.state;
    if !owner_enabled {
        return Err(Refusal::Hidden);
    }
    let indices = [
        (FUSES, found.fuses, Step::DefineFuses, Step::WriteFuses),
        (SYSTEM_SECRET, found.system, Step::DefineSystem, Step::WriteSystem),
        (DATA_SECRET, found.data, Step::DefineData, Step::WriteData),
    ];
    let mut to_do = None;
    for (index, state, define, write) in indices {
        match state {
            Index::Foreign(difference) => return Err(Refusal::Foreign { index, difference }),
            Index::Undefined => _ = to_do.get_or_insert((index, define)),
            Index::Unwritten | Index::Written => {
                if let Some((index, _)) = to_do {
                    return Err(Refusal::Lost { index });
                }
                if state == Index::Unwritten {
                    to_do = Some((index, write));
                }
            }
        }
    }
    if let Some((_, step)) = to_do {
        return if owner_auth_set || lockout_auth_set { Err(Refusal::Owned) } else { Ok(Some(step)) };
    }
    Ok(if !clear_disabled {
        Some(Step::DisableClear { lockout_is_set: lockout_auth_set })
    } else if !lockout_auth_set {
        Some(Step::SetLockout)
    } else {
        match found.parent {
            Parent::Foreign => Some(Step::RemoveParent),
            Parent::Absent => Some(Step::MakeParent),
            Parent::Ours if !owner_auth_set => Some(Step::SetOwner),
            Parent::Ours if !endorsement_auth_set => Some(Step::SetEndorsement),
            Parent::Ours => None,
        }
    })
}

impl Found {
    /// What is there after a step.
    pub fn after(&mut self, step: Step) {
        match step {
            Step::DefineFuses => self.fuses = Index::Unwritten,
            Step::WriteFuses => self.fuses = Index::Written,
            Step::DefineSystem => self.system = Index::Unwritten,
            Step::WriteSystem => self.system = Index::Written,
            Step::DefineData => self.data = Index::Unwritten,
            Step::WriteData => self.data = Index::Written,
            Step::DisableClear { .. } => self.state.clear_disabled = true,
            Step::SetLockout => self.state.lockout_auth_set = true,
            Step::RemoveParent => self.parent = Parent::Absent,
            Step::MakeParent => self.parent = Parent::Ours,
            Step::SetOwner => self.state.owner_auth_set = true,
            Step::SetEndorsement => self.state.endorsement_auth_set = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Found = Found {
        fuses: Index::Undefined,
        system: Index::Undefined,
        data: Index::Undefined,
        parent: Parent::Absent,
        state: TpmState {
            owner_auth_set: false,
            endorsement_auth_set: false,
            lockout_auth_set: false,
            clear_disabled: false,
            in_lockout: false,
            owner_enabled: true,
        },
    };

    #[test]
    fn a_new_tpm_is_taken_in_the_written_order() {
        let (mut found, mut steps) = (NEW, Vec::new());
        while let Some(step) = next(&found).unwrap() {
            found.after(step);
            steps.push(step);
        }
        assert_eq!(
            steps,
            [
                Step::DefineFuses,
                Step::WriteFuses,
                Step::DefineSystem,
                Step::WriteSystem,
                Step::DefineData,
                Step::WriteData,
                Step::DisableClear { lockout_is_set: false },
                Step::SetLockout,
                Step::MakeParent,
                Step::SetOwner,
                Step::SetEndorsement,
            ]
        );
    }

    /// All states there are: whatever is not refused is on a way that ends, and never defines an index anew that could
    /// have held something.
    #[test]
    fn every_state_is_refused_or_ends_as_ours() {
        let indices = [Index::Undefined, Index::Unwritten, Index::Written, Index::Foreign(Difference::Policy)];
        let (mut refused, mut taken) = (0, 0);
        for number in 0..64usize * 32 * 3 {
            let bit = |at: usize| number >> (6 + at) & 1 == 1;
            let state = TpmState {
                owner_auth_set: bit(0),
                lockout_auth_set: bit(1),
                clear_disabled: bit(2),
                owner_enabled: bit(3),
                endorsement_auth_set: bit(4),
                in_lockout: false,
            };
            let index = |at: usize| indices[number >> (2 * at) & 3];
            let parent = [Parent::Absent, Parent::Foreign, Parent::Ours][number >> 11];
            let start = Found { fuses: index(0), system: index(1), data: index(2), parent, state };
            let mut found = start;
            let mut steps = Vec::new();
            let end = loop {
                match next(&found) {
                    Ok(Some(step)) => {
                        assert!(steps.len() < 12, "{start:?} {steps:?}");
                        found.after(step);
                        steps.push(step);
                    }
                    Ok(None) => break Ok(()),
                    Err(refusal) => break Err(refusal),
                }
            };
            match end {
                Ok(()) => {
                    taken += 1;
                    assert!(found.state.owner_auth_set && found.state.lockout_auth_set && found.state.clear_disabled);
                    assert!(found.parent == Parent::Ours && found.state.endorsement_auth_set);
                    // From the moment that the TPM is ours on, its owner's authorisation alone makes and removes the parent.
                    let at = |wanted| steps.iter().position(|&step| step == wanted);
                    assert!(at(Step::SetOwner).is_none() || at(Step::MakeParent) < at(Step::SetOwner), "{steps:?}");
                    assert_eq!(at(Step::RemoveParent).is_some(), start.parent == Parent::Foreign);
                    assert_eq!([found.fuses, found.system, found.data], [Index::Written; 3]);
                    let whole = [start.fuses, start.system, start.data] == [Index::Written; 3];
                    assert!(whole || !start.state.owner_auth_set && !start.state.lockout_auth_set, "{start:?}");
                    if start.system == Index::Written {
                        assert!(!steps.contains(&Step::WriteSystem));
                        assert_eq!(start.fuses, Index::Written);
                    }
                }
                Err(_) => {
                    refused += 1;
                    assert!(steps.is_empty(), "refused after something was written: {start:?} {steps:?}");
                }
            }
        }
        // Seven states of the indices that the order leaves, of which one is whole: 6 x 2 with no authorisation, 8. Each with
        // and without an endorsement authorisation, and with three parents.
        assert_eq!((taken, refused), (20 * 6, 1004 * 6));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let lost = Found { fuses: Index::Undefined, system: Index::Written, ..NEW };
        let text = next(&lost).unwrap_err().to_string();
        assert!(text.contains("rollback fuses") && text.contains("clear the TPM in the firmware's setup"), "{text}");
        let foreign = Found { data: Index::Foreign(Difference::Attributes), ..NEW };
        let text = next(&foreign).unwrap_err().to_string();
        assert!(text.contains("0x180be02") && text.contains("attributes") && text.contains("clear the TPM"), "{text}");
        // A TPM that was cleared opens none of the encrypted volumes: the disk has to start anew with it.
        assert!(text.contains("write the disk image anew"), "{text}");
    }
}

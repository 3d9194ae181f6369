//! What to do about a stick: decided from what is seen, without touching anything.

use crate::identity::StoredIdentity;
use belvedere_provisioning_archive::{Archive, ArchiveError};

/// Everything the decision rests on.
#[derive(Debug, Clone)]
pub struct Observation<'a> {
    /// The archive on the stick and its SHA-256, or why there is none to use.
    pub archive: Result<(&'a Archive, &'a str), &'a ArchiveError>,
    /// Whether the stick already carries a result of an earlier provisioning.
    pub has_result: bool,
    /// The appliance's clock, seconds since 1970.
    pub now: i64,
    /// The appliance's identity so far.
    pub identity: Option<&'a StoredIdentity>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The stick is not about us; nothing is written to it.
    Ignore,
    /// Say why on the stick. `error_light` is off where the appliance is in operation and the stick merely holds no archive.
    Refuse {
        /// Stable word.
        reason: &'static str,
        /// One line.
        message: String,
        /// Whether the status light shows an error until the stick is removed.
        error_light: bool,
    },
    /// These steps in this order; the first that fails is followed by going back.
    Carry(Vec<Step>),
}

/// One step. The order is that of [`crate::identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The status light says that the appliance registers.
    ShowRegistering,
    /// Ports get the configuration of the archive.
    TryNetwork,
    /// The clock is behind the archive's issue time: set it (seconds since 1970).
    SetClock(i64),
    /// A new key, made here.
    MakeKey,
    /// Key and claim become a device certificate.
    Register,
    /// The one step that makes the new identity the appliance's.
    StoreIdentity,
    /// The network configuration becomes the durable one.
    KeepNetwork,
    /// The claim is used up; its key leaves the stick.
    WipeArchive,
}

/// Decides.
pub fn plan(observation: &Observation<'_>) -> Plan {
    let (archive, digest) = match observation.archive {
        Ok(found) => found,
        Err(ArchiveError::NoArchive) => return no_archive(observation),
        Err(error) => {
            return Plan::Refuse { reason: error.reason(), message: error.to_string(), error_light: true };
        }
    };
    // The stick that provisioned us, from which power was cut before it was wiped.
    if let Some(stored) = observation.identity
        && stored.archive_sha256 == digest
    {
        let mut steps = Vec::new();
        if !stored.network_kept {
            steps.extend([Step::TryNetwork, Step::KeepNetwork]);
        }
        steps.push(Step::WipeArchive);
        return Plan::Carry(steps);
    }
    let behind = observation.now < archive.configuration.issued;
    if !behind && archive.claim_expired(observation.now) {
        return Plan::Refuse {
            reason: "claim_expired",
            message: "the provisioning archive has expired: it is good for a few minutes only; delete the device in the service, provision it again and use the new archive at once".into(),
            error_light: true,
        };
    }
    let mut steps = vec![Step::ShowRegistering, Step::TryNetwork];
    if behind {
        steps.push(Step::SetClock(archive.configuration.issued));
    }
    steps.extend([Step::MakeKey, Step::Register, Step::StoreIdentity, Step::KeepNetwork, Step::WipeArchive]);
    Plan::Carry(steps)
}

/// A stick without an archive is an operator's mistake on a new appliance. On one in operation it may be any stick: that
/// is no reason to show an error, and none to overwrite the good result of the provisioning that it was used for.
fn no_archive(observation: &Observation<'_>) -> Plan {
    let error = ArchiveError::NoArchive;
    match observation.identity {
        Some(_) if observation.has_result => Plan::Ignore,
        identity => Plan::Refuse { reason: error.reason(), message: error.to_string(), error_light: identity.is_none() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{ISSUED, archive, stored};

    fn observe<'a>(archive: Result<(&'a Archive, &'a str), &'a ArchiveError>, now: i64) -> Observation<'a> {
        Observation { archive, has_result: false, now, identity: None }
    }

    #[test]
    fn a_good_archive_is_carried_out_in_the_documented_order() {
        let archive = archive();
        use Step::*;
        assert_eq!(
            plan(&observe(Ok((&archive, "a")), ISSUED + 1)),
            Plan::Carry(vec![ShowRegistering, TryNetwork, MakeKey, Register, StoreIdentity, KeepNetwork, WipeArchive])
        );
    }

    #[test]
    fn a_clock_that_is_behind_is_set_before_the_claim_is_used() {
        let archive = archive();
        let Plan::Carry(steps) = plan(&observe(Ok((&archive, "a")), 0)) else { panic!("carried out") };
        let position = |wanted: Step| steps.iter().position(|step| *step == wanted).unwrap();
        assert!(position(Step::SetClock(ISSUED)) < position(Step::Register));
    }

    #[test]
    fn an_expired_claim_is_refused() {
        let archive = archive();
        let Plan::Refuse { reason, error_light, .. } = plan(&observe(Ok((&archive, "a")), ISSUED + 300)) else {
            panic!("refused")
        };
        assert_eq!((reason, error_light), ("claim_expired", true));
    }

    #[test]
    fn no_archive_is_an_error_on_a_new_appliance_and_none_on_one_in_operation() {
        let light = |observation| match plan(&observation) {
            Plan::Refuse { reason: "no_archive", error_light, .. } => error_light,
            other => panic!("{other:?}"),
        };
        let new = observe(Err(&ArchiveError::NoArchive), ISSUED);
        assert!(light(new.clone()));
        assert!(light(Observation { has_result: true, ..new.clone() }));
        let stored = stored(1);
        let operating = Observation { identity: Some(&stored), ..new };
        assert!(!light(operating.clone()));
        assert_eq!(plan(&Observation { has_result: true, ..operating }), Plan::Ignore);
    }

    #[test]
    fn a_bad_archive_is_an_error_also_in_operation() {
        let stored = stored(1);
        let error = ArchiveError::Encrypted;
        let observation = Observation { identity: Some(&stored), ..observe(Err(&error), ISSUED) };
        assert!(matches!(plan(&observation), Plan::Refuse { error_light: true, .. }));
    }

    #[test]
    fn the_archive_that_provisioned_us_is_only_finished_even_when_it_has_expired() {
        let archive = archive();
        let mut stored = stored(1);
        let observe = |stored: &StoredIdentity| {
            plan(&Observation { identity: Some(stored), ..observe(Ok((&archive, "digest-1")), ISSUED + 9999) })
        };
        assert_eq!(observe(&stored), Plan::Carry(vec![Step::TryNetwork, Step::KeepNetwork, Step::WipeArchive]));
        stored.network_kept = true;
        assert_eq!(observe(&stored), Plan::Carry(vec![Step::WipeArchive]));
    }
}

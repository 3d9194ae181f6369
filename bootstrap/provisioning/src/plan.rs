//! What to do about a stick: decided from what is seen, without touching anything.

use crate::clock;
use crate::identity::Standing;
use belvedere_provisioning_archive::{Archive, ArchiveError};

/// Everything the decision rests on.
#[derive(Debug, Clone)]
pub struct Observation<'a> {
    /// The archive on the stick and its SHA-256, or why there is none to use.
    pub archive: Result<(&'a Archive, &'a str), &'a ArchiveError>,
    /// Whether the stick already carries a result of an earlier provisioning.
    pub has_result: bool,
    /// Whose the appliance is so far.
    pub standing: &'a Standing,
    /// Whether the owner signed the archive's claim ([`crate::owner`]).
    pub signed_by_owner: bool,
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
    /// A new key, made here.
    MakeKey,
    /// Key and claim become a device certificate.
    Register,
    /// The one step that makes the new identity the appliance's.
    StoreIdentity,
    /// The clock is set if it cannot be right; see [`crate::clock`].
    SetClock,
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
    if let Some(stored) = observation.standing.identity()
        && stored.archive_sha256 == digest
    {
        let mut steps = Vec::new();
        if !stored.network_kept {
            steps.extend([Step::TryNetwork, Step::KeepNetwork]);
        }
        steps.push(Step::WipeArchive);
        return Plan::Carry(steps);
    }
    let refuse = |reason, message| Plan::Refuse { reason, message, error_light: true };
    if matches!(observation.standing, Standing::Released(released) if !released.cleared) {
        let message = "the appliance is being released, and still removes its earlier owner's applications: wait a minute, then plug the stick in again";
        return refuse("release_unfinished", message.into());
    }
    if !observation.signed_by_owner
        && let Some(message) = observation.standing.with_owner(|owner| owner.refusal())
    {
        return refuse("already_provisioned", message);
    }
    if let Err(message) = clock::check(archive.configuration.issued) {
        return refuse("clock", message);
    }
    use Step::*;
    Plan::Carry(vec![ShowRegistering, TryNetwork, MakeKey, Register, StoreIdentity, SetClock, KeepNetwork, WipeArchive])
}

/// A stick without an archive is an operator's mistake on a new appliance. On one in operation it may be any stick: that
/// is no reason to show an error, and none to overwrite the good result of the provisioning that it was used for.
fn no_archive(observation: &Observation<'_>) -> Plan {
    let error = ArchiveError::NoArchive;
    match observation.standing.identity() {
        Some(_) if observation.has_result => Plan::Ignore,
        identity => Plan::Refuse { reason: error.reason(), message: error.to_string(), error_light: identity.is_none() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{archive, stored};
    use crate::identity::{Released, Unreadable};

    fn observe<'a>(archive: Result<(&'a Archive, &'a str), &'a ArchiveError>, standing: &'a Standing) -> Observation<'a> {
        Observation { archive, has_result: false, standing, signed_by_owner: false }
    }

    const NEW: Standing = Standing::New;

    #[test]
    fn a_good_archive_is_carried_out_in_the_documented_order() {
        let archive = archive();
        use Step::*;
        assert_eq!(
            plan(&observe(Ok((&archive, "a")), &NEW)),
            Plan::Carry(vec![
                ShowRegistering, TryNetwork, MakeKey, Register, StoreIdentity, SetClock, KeepNetwork, WipeArchive
            ])
        );
    }

    #[test]
    fn boot_d13_an_archive_of_an_impossible_time_is_refused() {
        let mut archive = archive();
        for issued in [clock::RELEASE_DATE - 1, clock::RELEASE_DATE + clock::HORIZON] {
            archive.configuration.issued = issued;
            let Plan::Refuse { reason, .. } = plan(&observe(Ok((&archive, "a")), &NEW)) else { panic!("refused") };
            assert_eq!(reason, "clock");
        }
    }

    #[test]
    fn no_archive_is_an_error_on_a_new_appliance_and_none_on_one_in_operation() {
        let light = |observation| match plan(&observation) {
            Plan::Refuse { reason: "no_archive", error_light, .. } => error_light,
            other => panic!("{other:?}"),
        };
        let new = observe(Err(&ArchiveError::NoArchive), &NEW);
        assert!(light(new.clone()));
        assert!(light(Observation { has_result: true, ..new.clone() }));
        let stored = Standing::Owned(stored(1));
        let operating = Observation { standing: &stored, ..new };
        assert!(!light(operating.clone()));
        assert_eq!(plan(&Observation { has_result: true, ..operating }), Plan::Ignore);
    }

    #[test]
    fn a_bad_archive_is_an_error_also_in_operation() {
        let stored = Standing::Owned(stored(1));
        let error = ArchiveError::Encrypted;
        assert!(matches!(plan(&observe(Err(&error), &stored)), Plan::Refuse { error_light: true, .. }));
    }

    #[test]
    fn boot_d8_an_operating_appliance_takes_its_owners_stick_only() {
        let archive = archive();
        let owned = Standing::Owned(stored(1));
        let newer = Standing::Unreadable(Unreadable {
            generation: 1,
            owner: Some(("10.0.2.2:8883".into(), "device-old".into(), "ca".into())),
        });
        for standing in [&owned, &newer] {
            let observation = observe(Ok((&archive, "a")), standing);
            let Plan::Refuse { reason, message, error_light } = plan(&observation) else { panic!("refused") };
            assert_eq!((reason, error_light), ("already_provisioned", true));
            assert!(message.contains("10.0.2.2:8883") && message.contains("device-old"), "{message}");
            assert!(matches!(plan(&Observation { signed_by_owner: true, ..observation }), Plan::Carry(_)));
        }
    }

    #[test]
    fn boot_d8_a_released_appliance_takes_any_stick_once_it_is_cleared() {
        let archive = archive();
        let released =
            |cleared| Standing::Released(Released { format_version: 1, released_thing: "x".into(), generation: 1, cleared });
        let Plan::Refuse { reason, .. } = plan(&observe(Ok((&archive, "a")), &released(false))) else { panic!("refused") };
        assert_eq!(reason, "release_unfinished");
        assert!(matches!(plan(&observe(Ok((&archive, "a")), &released(true))), Plan::Carry(_)));
        // A damaged file of which nothing can be made out stops nobody: nothing else repairs it.
        let damaged = Standing::Unreadable(Unreadable::default());
        assert!(matches!(plan(&observe(Ok((&archive, "a")), &damaged)), Plan::Carry(_)));
    }

    #[test]
    fn the_archive_that_provisioned_us_is_only_finished() {
        let archive = archive();
        let mut stored = stored(1);
        let observe = |stored: &crate::identity::StoredIdentity| {
            plan(&observe(Ok((&archive, "digest-1")), &Standing::Owned(stored.clone())))
        };
        assert_eq!(observe(&stored), Plan::Carry(vec![Step::TryNetwork, Step::KeepNetwork, Step::WipeArchive]));
        stored.network_kept = true;
        assert_eq!(observe(&stored), Plan::Carry(vec![Step::WipeArchive]));
    }
}

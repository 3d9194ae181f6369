//! Carrying a plan out, and going back when a step fails.

use crate::claim::ClaimError;
use crate::clock;
use crate::identity::StoredIdentity;
use crate::key::{DeviceKey, KeptKey};
use crate::plan::{Observation, Plan, Step, plan};
use crate::result::{Outcome, RESULT_FILE, log_files};
use crate::survey::Elsewhere;
use crate::world::{Stick, World};
use belvedere_device_protocol::{ConnectionStatus, NetworkStatus};
use belvedere_interfaces::front_panel::Condition;
use belvedere_interfaces::provisioning::{DeviceKeyReference, Identity};
use belvedere_provisioning_archive::{Archive, ArchiveError, Limits, choose, parse};
use sha2::{Digest, Sha256};

/// Said on the stick.
const SOFTWARE_KEY: &str = "Note: there is no TPM; the device's private key is a file on the appliance's disk";

struct StepError {
    reason: &'static str,
    message: String,
}

fn error(reason: &'static str, message: impl Into<String>) -> StepError {
    StepError { reason, message: message.into() }
}

/// Does everything that a readable stick asks for, and leaves result and logs on it. `elsewhere` is what other volumes of
/// the stick hold.
///
/// Answers the outcome, or `None` for a stick that is not about us. The error light is on afterwards where it should be;
/// the caller takes it back when the stick is removed.
pub fn provision(world: &mut impl World, stick: &mut impl Stick, elsewhere: &Elsewhere) -> Option<Outcome> {
    // What a power cut left of an archive that is used up says nothing any more.
    if let Err(message) = stick.erase_retired() {
        log::warn!("{message}");
    }
    let found = find(stick, elsewhere);
    let (name, archive) = match &found {
        Ok((name, digest, archive)) => (Some(name.as_str()), Ok((archive, digest.as_str()))),
        Err(Problem::Archive(error)) => (None, Err(error)),
        Err(Problem::Stick(message)) => {
            let outcome = Outcome {
                succeeded: false,
                reason: "stick_unreadable",
                message: format!("{message}; try another USB stick"),
                details: Vec::new(),
            };
            world.light(Condition::Error, true);
            return Some(finish(world, stick, outcome));
        }
    };
    let standing = world.standing();
    let has_result = stick.has_ours(RESULT_FILE);
    let signed_by_owner =
        archive.is_ok_and(|(archive, _)| standing.with_owner(|owner| owner.signed(archive)).unwrap_or(false));
    let observation = Observation { archive, has_result, standing: &standing, signed_by_owner };
    let mut outcome = match plan(&observation) {
        Plan::Ignore => {
            log::info!("the stick holds no provisioning archive; nothing to do");
            return None;
        }
        Plan::Refuse { reason, message, error_light } => {
            if error_light {
                world.light(Condition::Error, true);
            }
            // The archive is where it should be, as far as a person can see: on the volume that a computer shows.
            let (reason, message) = match (&elsewhere.larger, archive) {
                (Some(why), Err(ArchiveError::NoArchive)) => ("stick_unreadable", why.clone()),
                _ => (reason, message),
            };
            Outcome { succeeded: false, reason, message, details: Vec::new() }
        }
        Plan::Carry(steps) => {
            log::info!("plan: {steps:?}");
            match (archive, name) {
                (Ok((archive, digest)), Some(name)) => carry_out(world, stick, &steps, archive, digest, name),
                _ => return None,
            }
        }
    };
    outcome.details.extend(elsewhere.notes.iter().cloned());
    Some(finish(world, stick, outcome))
}

enum Problem {
    Stick(String),
    Archive(ArchiveError),
}

/// The archive's file name, SHA-256 and content.
fn find(stick: &mut impl Stick, elsewhere: &Elsewhere) -> Result<(String, String, Archive), Problem> {
    let limits = Limits::default();
    let listing = stick.list().map_err(Problem::Stick)?;
    let first = listing.iter().find(|entry| entry.is_file).map(|entry| entry.name.clone());
    if let (Some(first), Some(second)) = (first, elsewhere.archives.first().cloned()) {
        return Err(Problem::Archive(ArchiveError::SeveralArchives { first, second }));
    }
    let name = choose(&listing).map_err(Problem::Archive)?.to_owned();
    let bytes = stick.read(&name, limits.archive_bytes).map_err(Problem::Stick)?;
    let archive = parse(&bytes, &limits).map_err(Problem::Archive)?;
    let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((name, digest, archive))
}

/// What the steps hand to one another.
#[derive(Default)]
struct Progress {
    status: Option<NetworkStatus>,
    key: Option<Box<dyn DeviceKey>>,
    identity: Option<(Identity, Option<KeptKey>)>,
    tried: bool,
    committed: bool,
    details: Vec<String>,
}

fn carry_out(
    world: &mut impl World,
    stick: &mut impl Stick,
    steps: &[Step],
    archive: &Archive,
    digest: &str,
    name: &str,
) -> Outcome {
    // Only the tail of an earlier provisioning is left: the identity is there already.
    let mut progress = Progress { committed: !steps.contains(&Step::StoreIdentity), ..Progress::default() };
    let mut failed = None;
    for step in steps {
        log::info!("{step:?}");
        if let Err(problem) = carry_out_step(world, stick, *step, archive, digest, name, &mut progress) {
            log::error!("{step:?}: {} ({})", problem.message, problem.reason);
            // Before the commit every failure ends it; after it there is no way back, and none is wanted.
            if !progress.committed {
                failed = Some(problem);
                break;
            }
            progress.details.push(format!("Note: {}", problem.message));
        }
    }
    world.light(Condition::Registering, false);
    if progress.committed {
        world.light(Condition::ReadyToProvision, false);
    }
    if let Some(problem) = failed {
        if progress.tried
            && let Err(message) = world.network_revert()
        {
            log::error!("{message}");
        }
        world.light(Condition::Error, true);
        return Outcome {
            succeeded: false,
            reason: problem.reason,
            message: problem.message,
            details: [details(archive, progress.status.as_ref()), progress.details].concat(),
        };
    }
    success(archive, &progress)
}

fn success(archive: &Archive, progress: &Progress) -> Outcome {
    Outcome {
        succeeded: true,
        reason: "provisioned",
        message: format!(
            "the appliance is provisioned as \"{}\" ({}); remove the stick",
            archive.configuration.device_name, archive.configuration.device_id
        ),
        details: [details(archive, progress.status.as_ref()), progress.details.clone()].concat(),
    }
}

fn details(archive: &Archive, status: Option<&NetworkStatus>) -> Vec<String> {
    let c = &archive.configuration;
    let mut lines = vec![
        format!("Device: {} ({})", c.device_name, c.device_id),
        format!(
            "Service: {}:{} and {}:{}",
            c.endpoints.mqtt.host, c.endpoints.mqtt.port, c.endpoints.https.host, c.endpoints.https.port
        ),
    ];
    if let Some(status) = status {
        for (port, status) in [("Ethernet0", &status.ethernet0_status), ("Ethernet1", &status.ethernet1_status)] {
            lines.push(match status {
                Some(s) => {
                    format!("{port}: {:?}, address {}, hardware address {}", s.connection_status, s.ip_address, s.hw_address)
                }
                None => format!("{port}: not there"),
            });
        }
    }
    lines
}

fn carry_out_step(
    world: &mut impl World,
    stick: &mut impl Stick,
    step: Step,
    archive: &Archive,
    digest: &str,
    name: &str,
    progress: &mut Progress,
) -> Result<(), StepError> {
    match step {
        Step::ShowRegistering => {
            // A new attempt: what an earlier stick showed is over.
            world.light(Condition::Error, false);
            world.light(Condition::Registering, true);
            Ok(())
        }
        Step::TryNetwork => {
            progress.tried = true;
            let status = world
                .network_try(&archive.configuration.network, &archive.configuration.endpoints.mqtt)
                .map_err(|message| error("network_configuration", message))?;
            let up = [&status.ethernet0_status, &status.ethernet1_status]
                .into_iter()
                .flatten()
                .any(|port| port.connection_status == ConnectionStatus::Connected);
            progress.status = Some(status);
            if up {
                return Ok(());
            }
            Err(error(
                "network_down",
                "the network is not up: no port has a cable and an address; check the cable and the DHCP server or the static settings, make a new archive and try again",
            ))
        }
        Step::SetClock => match corrected(world, archive, progress) {
            Some(seconds) => world.set_clock(seconds).map_err(|message| error("clock", message)),
            None => Ok(()),
        },
        Step::MakeKey => {
            let key = world.make_key().map_err(|message| error("key", message))?;
            if let DeviceKeyReference::Software { .. } = key.reference() {
                progress.details.push(SOFTWARE_KEY.into());
            }
            progress.key = Some(key);
            Ok(())
        }
        Step::Register => register(world, archive, progress),
        Step::StoreIdentity => {
            let (identity, wrapped_key) =
                progress.identity.take().ok_or_else(|| error("internal", "no identity to store"))?;
            let network = archive.configuration.network.clone();
            let time = corrected(world, archive, progress).unwrap_or_else(|| world.now());
            let stored = StoredIdentity::new(identity, wrapped_key, digest.to_owned(), network, time);
            world.store_identity(&stored).map_err(|message| error("storage", message))?;
            progress.committed = true;
            Ok(())
        }
        Step::KeepNetwork => keep_network(world).map_err(|message| error("network_keep", message)),
        Step::WipeArchive => {
            // The good news first: a stick without an archive and without a result would be taken for a mistake.
            let result = success(archive, progress).text(world.now());
            let wiped = stick.write_ours(RESULT_FILE, result.as_bytes());
            let wiped = wiped.and_then(|()| stick.retire(name)).and_then(|()| stick.erase_retired());
            wiped.map_err(|message| {
                error(
                    "wipe",
                    format!("the archive could not be wiped from the stick ({message}): delete it yourself, it holds a key"),
                )
            })
        }
    }
}

/// What the clock should be set to, after the service took the claim.
fn corrected(world: &impl World, archive: &Archive, progress: &Progress) -> Option<i64> {
    let kept = progress.status.as_ref().and_then(|status| status.ntp_status.as_ref());
    if kept.is_some_and(|status| status.connection_status == ConnectionStatus::Connected) {
        return None;
    }
    clock::correction(world.now(), archive.configuration.issued, archive.configuration.claim_expires)
}

/// Makes the network configuration of the stored identity the durable one, and notes that. Also done at start, when a
/// power cut came between the two.
pub fn keep_network(world: &mut impl World) -> Result<(), String> {
    let Some(mut stored) = world.standing().identity().cloned() else { return Ok(()) };
    world.network_keep()?;
    stored.network_kept = true;
    world.store_identity(&stored)
}

fn register(world: &mut impl World, archive: &Archive, progress: &mut Progress) -> Result<(), StepError> {
    let key = progress.key.take().ok_or_else(|| error("internal", "no key"))?;
    let request = key.certificate_request_pem(&archive.configuration.device_id).map_err(|m| error("key", m))?;
    let hardware = |s: &NetworkStatus| Some(s.ethernet0_status.as_ref().or(s.ethernet1_status.as_ref())?.hw_address.clone());
    let serial_number = progress.status.as_ref().and_then(hardware).unwrap_or_default();
    let standing = world.standing();
    // An owner's authorities hold, whatever a stick brings: see `owner`.
    let authorities_pem = standing.authorities_pem().unwrap_or(&archive.service_ca_pem);
    let looks_late = archive.claim_expired(world.now());
    let registration = world.register(archive, authorities_pem, &request, &serial_number).map_err(|problem| {
        let reason = match &problem {
            ClaimError::Unreachable { .. } => "service_unreachable",
            // The appliance's clock alone is no reason. Together with a refusal it is the likely one.
            ClaimError::Untrusted { what, .. } | ClaimError::Refused { what } if looks_late => {
                return error("claim_expired", expired(what));
            }
            ClaimError::Untrusted { .. } => "service_untrusted",
            ClaimError::Refused { .. } => "service_refused",
            ClaimError::Answer { .. } => "service_answer",
        };
        error(reason, problem.to_string())
    })?;
    registration
        .check(&key.public_key_der())
        .map_err(|what| error("service_answer", ClaimError::Answer { what: what.into() }.to_string()))?;
    let mut endpoints = archive.configuration.endpoints.clone();
    let mqtt_password = registration.broker.map(|broker| {
        endpoints.mqtt = broker.endpoint;
        broker.password
    });
    let identity = Identity {
        device_id: archive.configuration.device_id.clone(),
        thing_name: registration.thing_name,
        endpoints,
        service_ca_pem: authorities_pem.to_owned(),
        certificate_pem: registration.certificate_pem,
        key: key.reference(),
        mqtt_password,
        generation: standing.generation() + 1,
    };
    progress.identity = Some((identity, key.kept()));
    Ok(())
}

fn expired(what: &str) -> String {
    format!(
        "the provisioning archive has expired ({what}): it is good for a few minutes only; delete the device in the service, provision it again and use the new archive at once"
    )
}

/// Leaves result and logs on the stick.
fn finish(world: &mut impl World, stick: &mut impl Stick, outcome: Outcome) -> Outcome {
    log::info!("provisioning: {} ({})", outcome.message, outcome.reason);
    match world.logs() {
        Ok(entries) => {
            for (name, text) in log_files(&entries) {
                if let Err(message) = stick.write_ours(name, text.as_bytes()) {
                    log::warn!("{message}");
                    break;
                }
            }
        }
        Err(message) => log::warn!("{message}"),
    }
    // Last, so that a result means that everything else is there.
    if let Err(message) = stick.write_ours(RESULT_FILE, outcome.text(world.now()).as_bytes()) {
        log::warn!("{message}");
    }
    outcome
}

#[cfg(test)]
#[path = "executor_tests.rs"]
pub(crate) mod tests;

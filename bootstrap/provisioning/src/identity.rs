//! What the appliance keeps of its provisioning: one file, written as one step.
//!
//! # Write order, and what a power cut after each number leaves
//!
//! 1. The tried network configuration is in force, not kept — the old identity, the old network.
//! 2. The claim was exchanged at the service, which uses it up — the same; the stick's result says that the claim was used:
//!    the device is deleted in the service and provisioned again. (AWS IoT Core lets a claim be used more often.)
//! 3. **`identity.json` is replaced** (one durable rename; the network configuration that belongs to it is in it, with
//!    `network_kept: false`) — the new identity. At the next start the network configuration is tried and kept from there.
//! 4. The network service keeps the configuration — the same.
//! 5. `network_kept: true` — the same, done.
//! 6. The result is written on the stick, and its archive gets the name that marks it as used — a stick plugged in again
//!    before that is recognised by the archive's SHA-256, and only this step is repeated.
//! 7. The used archive is overwritten and removed — the stick is no archive's any more; what is left of the used one is
//!    erased when the stick is looked at again.
//!
//! # Release, and what a power cut after each number leaves
//!
//! 1. The service deleted the device and locked its certificate out — the appliance has not heard of it: it hears when it
//!    next reaches the service, as long as its certificate lasts. Until then it works as before, and belongs to its owner.
//! 2. **`identity.json` becomes a [`Released`]** (one durable rename): key, certificate and network configuration are gone
//!    from it — no identity. No stick is taken before 5. The agent carries on from here at the next start.
//! 3. `applications` keeps an empty desired set: deployments with cameras' passwords are gone — the same.
//! 4. Applications are stopped and removed with their storage and logs, the agent's own files are removed — the same.
//! 5. `cleared: true` — a stick of any service is taken.
//! 6. The machine restarts: what services hold in memory (lines of logs, frames) goes — the same.
//!
//! The key needs no step of its own: the TPM keeps nothing of it, and what makes it usable ([`KeptKey`]) comes and goes with
//! `identity.json`. One that was made before a power cut and not stored is nothing.
//!
//! What stays: the network's kept configuration, until the next stick brings another, and the count of identities. Files are
//! removed, not overwritten: who takes the disk out may find old bytes, until it is encrypted.

use crate::key::KeptKey;
use crate::owner::Owner;
use belvedere_device_protocol::NetworkConfiguration;
use belvedere_interfaces::provisioning::{DeviceKeyReference, Identity};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// File in the state directory.
pub const FILE: &str = "identity.json";
const LIMIT: usize = 512 << 10;
const FORMAT_VERSION: u32 = 1;
/// Of a [`StoredIdentity`] whose key is in the TPM: a release that does not know of such keys takes it for a newer one's.
const FORMAT_VERSION_TPM: u32 = 2;
/// The same of one whose key is in OP-TEE.
const FORMAT_VERSION_SECURE_WORLD: u32 = 3;

fn format_of(key: Option<&KeptKey>) -> u32 {
    match key {
        None => FORMAT_VERSION,
        Some(KeptKey::Tpm(_)) => FORMAT_VERSION_TPM,
        Some(KeptKey::SecureWorld(_)) => FORMAT_VERSION_SECURE_WORLD,
    }
}

/// The content of [`FILE`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIdentity {
    /// 1 with a key in software, 2 with one in the TPM, 3 with one in OP-TEE.
    pub format_version: u32,
    /// What [`belvedere_interfaces::provisioning::GetIdentity`] answers.
    pub identity: Identity,
    /// The archive that it came from; 64 hexadecimal digits.
    pub archive_sha256: String,
    /// The network configuration that came with it.
    pub network: NetworkConfiguration,
    /// Whether the network service has kept it.
    pub network_kept: bool,
    /// Seconds since 1970.
    pub provisioned: i64,
    /// Of a key in the TPM or in OP-TEE: what makes it usable. Never leaves this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped_key: Option<KeptKey>,
}

impl core::fmt::Debug for StoredIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StoredIdentity")
            .field("identity", &self.identity)
            .field("network_kept", &self.network_kept)
            .finish_non_exhaustive()
    }
}

impl StoredIdentity {
    /// A new one. `identity` names the key that `wrapped_key` is.
    pub fn new(
        identity: Identity,
        wrapped_key: Option<KeptKey>,
        archive_sha256: String,
        network: NetworkConfiguration,
        provisioned: i64,
    ) -> Self {
        let format_version = format_of(wrapped_key.as_ref());
        Self { format_version, identity, archive_sha256, network, network_kept: false, provisioned, wrapped_key }
    }

    /// Whether this release wrote it: the format, the kind of the key and where that is go together.
    fn is_ours(&self) -> bool {
        let is_software = matches!(self.identity.key, DeviceKeyReference::Software { .. });
        self.format_version == format_of(self.wrapped_key.as_ref()) && is_software == self.wrapped_key.is_none()
    }
}

/// What is left in [`FILE`] of an identity that its service released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// 1.
    pub format_version: u32,
    /// The identity's name, so that a release that is heard twice is known.
    pub released_thing: String,
    /// The identity's number: the next one has the next.
    pub generation: u64,
    /// Whether the earlier owner's applications are gone.
    pub cleared: bool,
}

/// What is known of an identity whose file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unreadable {
    /// A number that is no smaller than that of the identity, and not the same if that is not known.
    pub generation: u64,
    /// What could be made out of its service and device: those and its authorities, PEM.
    pub owner: Option<(String, String, String)>,
}

/// Whose the appliance is, as [`FILE`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Standing {
    /// Never provisioned.
    New,
    /// Provisioned.
    Owned(StoredIdentity),
    /// Provisioned once, and free.
    Released(Released),
    /// The file is damaged, or of a newer release. The agent gets no identity; a new archive repairs it.
    Unreadable(Unreadable),
}

impl Standing {
    /// The identity.
    pub fn identity(&self) -> Option<&StoredIdentity> {
        match self {
            Self::Owned(stored) => Some(stored),
            _ => None,
        }
    }

    /// The number of the newest identity there was; the next one has a larger number.
    pub fn generation(&self) -> u64 {
        match self {
            Self::New => 0,
            Self::Owned(stored) => stored.identity.generation,
            Self::Released(released) => released.generation,
            Self::Unreadable(unreadable) => unreadable.generation,
        }
    }

    /// Where the owner's service is, for people, and the device there.
    fn owners_words(&self) -> Option<(String, &str)> {
        match self {
            Self::Owned(stored) => {
                let endpoint = &stored.identity.endpoints.mqtt;
                Some((format!("{}:{}", endpoint.host, endpoint.port), &stored.identity.device_id))
            }
            Self::Unreadable(Unreadable { owner: Some((service, device_id, _)), .. }) => Some((service.clone(), device_id)),
            _ => None,
        }
    }

    /// Calls with the owner, if there is one.
    pub fn with_owner<T>(&self, call: impl FnOnce(Owner<'_>) -> T) -> Option<T> {
        let (service, device_id) = self.owners_words()?;
        Some(call(Owner { authorities_pem: self.authorities_pem()?, service: &service, device_id }))
    }

    /// The authorities that stand for the owner's service, PEM.
    pub fn authorities_pem(&self) -> Option<&str> {
        match self {
            Self::Owned(stored) => Some(&stored.identity.service_ca_pem),
            Self::Unreadable(Unreadable { owner: Some((_, _, authorities_pem)), .. }) => Some(authorities_pem),
            _ => None,
        }
    }

    /// What it is after [`belvedere_interfaces::provisioning::Release`]; `None` where there is nothing to do any more.
    ///
    /// # Errors
    /// It is another identity's release.
    pub fn after_release(&self, thing_name: &str, generation: u64) -> Result<Option<Standing>, String> {
        let refused = || Err(format!("{thing_name} (generation {generation}) is not this appliance's identity"));
        match self {
            Self::Owned(stored) if stored.identity.thing_name == thing_name && stored.identity.generation == generation => {
                let (format_version, released_thing) = (FORMAT_VERSION, thing_name.to_owned());
                Ok(Some(Self::Released(Released { format_version, released_thing, generation, cleared: false })))
            }
            Self::Released(released) if released.released_thing == thing_name && released.generation == generation => {
                Ok(None)
            }
            _ => refused(),
        }
    }
}

/// Reads what the appliance keeps. A file that cannot be read is [`Standing::Unreadable`], and said in the log.
pub fn read(directory: &Path) -> Standing {
    let bytes = match belvedere_durable::read_file(directory, FILE, LIMIT) {
        Ok(None) => return Standing::New,
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            log::error!("{error}; provision again");
            return Standing::Unreadable(salvage(b""));
        }
    };
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Released(Released),
        Owned(Box<StoredIdentity>),
    }
    match serde_json::from_slice(&bytes) {
        Ok(Content::Released(released)) if released.format_version == FORMAT_VERSION => return Standing::Released(released),
        Ok(Content::Owned(stored)) if stored.is_ours() => return Standing::Owned(*stored),
        Ok(_) => log::error!("{FILE} is of a newer release; provision again"),
        // serde_json quotes no more than a wrong value's type or a name, but a key is in this file: say the place only.
        Err(e) => log::error!("{FILE} cannot be read (line {}, column {}); provision again", e.line(), e.column()),
    }
    Standing::Unreadable(salvage(&bytes))
}

/// What can be made out of a file that is not what this release writes. The owner stays the owner as far as that is known.
fn salvage(bytes: &[u8]) -> Unreadable {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let identity = &value["identity"];
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let known = identity["generation"].as_u64().or(value["generation"].as_u64()).filter(|known| *known < u64::MAX / 2);
    // Larger than any that was counted, and another one each time.
    let unheard = || {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        (1 << 40) | u64::from(time)
    };
    Unreadable {
        generation: known.unwrap_or_else(unheard),
        owner: text(&identity["service_ca_pem"]).map(|authorities_pem| {
            let service = text(&identity["endpoints"]["mqtt"]["host"]).unwrap_or_default();
            (service, text(&identity["device_id"]).unwrap_or_default(), authorities_pem)
        }),
    }
}

/// Replaces what the appliance keeps as one step. There is no way back to never having been provisioned.
pub fn write(directory: &Path, standing: &Standing) -> Result<(), String> {
    let failed = |error: serde_json::Error| format!("write {FILE}: {error}");
    let bytes = match standing {
        Standing::Owned(stored) => serde_json::to_vec_pretty(stored).map_err(failed)?,
        Standing::Released(released) => serde_json::to_vec_pretty(released).map_err(failed)?,
        Standing::New | Standing::Unreadable(_) => return Err(format!("write {FILE}: there is nothing to write")),
    };
    belvedere_durable::write_file(directory, FILE, &bytes, 0o600).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{FakeTpmKey, stored};

    #[test]
    fn an_identity_is_read_back_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), Standing::New);
        write(directory.path(), &Standing::Owned(stored(1))).unwrap();
        write(directory.path(), &Standing::Owned(stored(2))).unwrap();
        assert_eq!(read(directory.path()), Standing::Owned(stored(2)));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(directory.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn boot_l7_the_count_goes_on_after_a_file_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        for damage in ["", "{", "{\"format_version\": \"SECRET\"}"] {
            std::fs::write(&file, damage).unwrap();
            let standing = read(directory.path());
            assert!(matches!(standing, Standing::Unreadable(Unreadable { owner: None, .. })), "{standing:?}");
            assert!(standing.generation() > u64::from(u32::MAX), "no number that an agent may remember");
            assert!(!format!("{standing:?}").contains("SECRET"));
        }
    }

    #[test]
    fn boot_d8_what_a_newer_release_wrote_still_has_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let mut value = serde_json::to_value(stored(7)).unwrap();
        value["format_version"] = 3.into();
        std::fs::write(directory.path().join(FILE), value.to_string()).unwrap();
        let standing = read(directory.path());
        assert_eq!(
            (standing.generation(), standing.authorities_pem()),
            (7, Some(stored(7).identity.service_ca_pem.as_str()))
        );
        assert_eq!(standing.with_owner(|owner| owner.device_id.to_owned()), Some("device-old".into()));
        assert!(standing.identity().is_none());
    }

    #[test]
    fn a_key_in_the_tpm_is_read_back_and_no_private_key_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        let mut stored = stored(1);
        stored.keep_key(&FakeTpmKey::new());
        write(directory.path(), &Standing::Owned(stored.clone())).unwrap();
        assert_eq!(read(directory.path()), Standing::Owned(stored));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("PRIVATE KEY") && !text.contains("private_key_pem"), "{text}");
        assert!(text.contains(r#""format_version": 2"#), "a release that does not know of it must not take it: {text}");
        // What does not go together is nothing that this release wrote.
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        let damages: [fn(&mut serde_json::Value); 3] = [
            |value| value["format_version"] = 1.into(),
            |value| drop(value.as_object_mut().unwrap().remove("wrapped_key")),
            |value| value["wrapped_key"]["authorization"] = "00".into(),
        ];
        for damage in damages {
            let mut value = whole.clone();
            damage(&mut value);
            std::fs::write(&file, value.to_string()).unwrap();
            assert!(matches!(read(directory.path()), Standing::Unreadable(Unreadable { owner: Some(_), .. })));
        }
    }

    #[test]
    fn an_identity_with_a_key_in_the_file_is_read_as_earlier_releases_wrote_it() {
        let directory = tempfile::tempdir().unwrap();
        let text = include_str!("../fixtures/identity-of-0.1.json");
        std::fs::write(directory.path().join(FILE), text).unwrap();
        let standing = read(directory.path());
        let identity = &standing.identity().unwrap().identity;
        let DeviceKeyReference::Software { private_key_pem } = &identity.key else { panic!("{identity:?}") };
        assert_eq!((private_key_pem.as_str(), identity.generation), ("not a key", 4));
        // And written the same way: the release before this one can start again.
        write(directory.path(), &standing).unwrap();
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&std::fs::read_to_string(directory.path().join(FILE)).unwrap()), value(text));
    }

    #[test]
    fn boot_d8_a_release_leaves_no_key_and_is_only_its_own_identitys() {
        let directory = tempfile::tempdir().unwrap();
        let mut stored = stored(3);
        stored.keep_key(&FakeTpmKey::new());
        let owned = Standing::Owned(stored);
        write(directory.path(), &owned).unwrap();
        let thing = "panorama_old_Thing_00000001";
        for (thing, generation) in [(thing, 2), ("panorama_other_Thing_00000001", 3)] {
            assert!(owned.after_release(thing, generation).is_err());
        }
        assert!(Standing::New.after_release(thing, 3).is_err());
        let released = owned.after_release(thing, 3).unwrap().unwrap();
        write(directory.path(), &released).unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(!text.contains("key") && !text.to_lowercase().contains("certificate"), "{text}");
        let read = read(directory.path());
        assert_eq!(read, released);
        assert_eq!((read.generation(), read.authorities_pem()), (3, None));
        assert_eq!(read.after_release(thing, 3), Ok(None), "heard twice");
        assert!(read.after_release(thing, 4).is_err());
    }
}

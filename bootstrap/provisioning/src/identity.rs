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

use belvedere_device_protocol::NetworkConfiguration;
use belvedere_interfaces::provisioning::Identity;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// File in the state directory.
pub const FILE: &str = "identity.json";
const LIMIT: usize = 512 << 10;
const FORMAT_VERSION: u32 = 1;

/// The content of [`FILE`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIdentity {
    /// 1.
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
    /// A new one, of this format version.
    pub fn new(identity: Identity, archive_sha256: String, network: NetworkConfiguration, provisioned: i64) -> Self {
        let format_version = FORMAT_VERSION;
        Self { format_version, identity, archive_sha256, network, network_kept: false, provisioned }
    }
}

/// Reads the identity; `Ok(None)` before the first provisioning.
///
/// # Errors
/// One line. The appliance then counts as not provisioned, and a new archive repairs it.
pub fn read(directory: &Path) -> Result<Option<StoredIdentity>, String> {
    let Some(bytes) = belvedere_durable::read_file(directory, FILE, LIMIT).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let stored: StoredIdentity = serde_json::from_slice(&bytes)
        // serde_json quotes no more than a wrong value's type or a name, but a key is in this file: say the place only.
        .map_err(|e| format!("{FILE} cannot be read (line {}, column {}); provision again", e.line(), e.column()))?;
    if stored.format_version != FORMAT_VERSION {
        return Err(format!(
            "{FILE} has format version {}, known is {FORMAT_VERSION}; provision again",
            stored.format_version
        ));
    }
    Ok(Some(stored))
}

/// Replaces the identity as one step.
pub fn write(directory: &Path, stored: &StoredIdentity) -> Result<(), String> {
    let bytes = serde_json::to_vec_pretty(stored).map_err(|error| format!("write {FILE}: {error}"))?;
    belvedere_durable::write_file(directory, FILE, &bytes, 0o600).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::stored;

    #[test]
    fn an_identity_is_read_back_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), Ok(None));
        write(directory.path(), &stored(1)).unwrap();
        write(directory.path(), &stored(2)).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(stored(2)));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(directory.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_reported_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{\"format_version\": \"SECRET\"}").unwrap();
        let error = read(directory.path()).unwrap_err();
        assert!(!error.contains("SECRET"), "{error}");
    }
}

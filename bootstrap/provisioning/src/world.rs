//! What provisioning does to the appliance, as traits.

use crate::claim::{ClaimError, Registration};
use crate::identity::{Standing, StoredIdentity};
use crate::key::DeviceKey;
use belvedere_device_protocol::{Endpoint, NetworkConfiguration, NetworkStatus};
use belvedere_interfaces::front_panel::Condition;
use belvedere_interfaces::logs::LogEntry;
use belvedere_provisioning_archive::{Archive, Listed};

/// Everything but the stick. Errors are one line that names operation and object.
pub trait World {
    /// Seconds since 1970.
    fn now(&self) -> i64;
    /// Sets the clock, seconds since 1970.
    fn set_clock(&mut self, seconds: i64) -> Result<(), String>;
    /// States a fact for the status light, or takes it back.
    fn light(&mut self, condition: Condition, active: bool);
    /// Applies a network configuration without keeping it, and waits for addresses. `service` is what must be reached.
    fn network_try(&mut self, configuration: &NetworkConfiguration, service: &Endpoint) -> Result<NetworkStatus, String>;
    /// Keeps it.
    fn network_keep(&mut self) -> Result<(), String>;
    /// Goes back.
    fn network_revert(&mut self) -> Result<(), String>;
    /// A new key.
    fn make_key(&mut self) -> Result<Box<dyn DeviceKey>, String>;
    /// Exchanges the claim for a device certificate, with a server that `authorities_pem` stand for. `serial_number`
    /// identifies the hardware.
    fn register(
        &mut self,
        archive: &Archive,
        authorities_pem: &str,
        request_pem: &str,
        serial_number: &str,
    ) -> Result<Registration, ClaimError>;
    /// Whose the appliance is so far.
    fn standing(&self) -> Standing;
    /// Replaces the identity as one durable step. Refused if that identity was released meanwhile.
    fn store_identity(&mut self, stored: &StoredIdentity) -> Result<(), String>;
    /// What the appliance's services printed lately, oldest first.
    fn logs(&mut self) -> Result<Vec<LogEntry>, String>;
}

/// A readable stick.
pub trait Stick {
    /// Its root folder.
    fn list(&mut self) -> Result<Vec<Listed>, String>;
    /// A file of the root folder, at most `limit` bytes and one more (to tell "too large").
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String>;
    /// Whether `panorama/<name>` exists.
    fn has_ours(&mut self, name: &str) -> bool;
    /// Writes `panorama/<name>`, on the medium when it returns.
    fn write_ours(&mut self, name: &str, bytes: &[u8]) -> Result<(), String>;
    /// Gives an archive of the root folder the one name that marks it as used, on the medium when it returns. From then
    /// on nothing takes it for an archive, whatever a power cut leaves of it.
    fn retire(&mut self, name: &str) -> Result<(), String>;
    /// Overwrites the retired archive and removes it; does nothing where there is none.
    fn erase_retired(&mut self) -> Result<(), String>;
}

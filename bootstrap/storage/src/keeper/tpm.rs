//! The TPM as the keeper: it compares what was measured with what is signed, by itself.

use super::{Keeper, RunningRelease, Say, read_bounded, words};
use crate::encrypt::kernel_random;
use crate::secrets::{self, Closed, Secrets, SecretsError};
use crate::{measured, mounts};
use belvedere_fuses::Confirmation;
use belvedere_tpm::boot_policy::{BootPolicy, LIMIT};
use belvedere_tpm::layout::{RELEASE_PCR, SECURE_BOOT_PCR};
use belvedere_tpm::{PolicyKey, commands};
use belvedere_tpm_device::{DEVICE, Device, Limit};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Attributes that come before the content of a firmware variable in `efivarfs`, bytes.
const ATTRIBUTES: usize = 4;

/// How long one command may take. The longest that are sent (a primary key, a signature) take a slow TPM under ten
/// seconds; the kernel itself gives up after 2 minutes.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// The machine's TPM, and what the running release is to it.
pub struct TpmKeeper {
    tpm: Device,
    key: PolicyKey,
    policy: BootPolicy,
    expected: Option<PathBuf>,
    /// The running release's, once the TPM gave out the secrets.
    level: u32,
}

impl TpmKeeper {
    /// Opens the kernel's device, and reads what is known of the release.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn open(release: &RunningRelease) -> Result<Self, String> {
        let (key, policy) = (read_key(&release.policy_key)?, read_policy(&release.policy)?);
        let tpm = Device::open(Path::new(DEVICE), Limit::Command(COMMAND_TIME))?;
        Ok(Self { tpm, key, policy, expected: release.expected.clone(), level: 0 })
    }

    /// Says what was measured and what of it is signed, for people who compare. Gives the rollback level of the running
    /// release.
    ///
    /// That both are the same is certain here: else the TPM had given out no secret, and what differs would have been said.
    fn report_measured(&mut self, say: Say<'_>) -> Result<u32, String> {
        let [secure_boot, release] = commands::pcr_read(&mut self.tpm, [SECURE_BOOT_PCR, RELEASE_PCR]).map_err(words)?;
        let entry = self.policy.entry(&secure_boot, &release).ok_or("what was measured is not what is signed")?;
        let fuses = belvedere_fuses::read(&mut self.tpm, Some(&self.policy.key.name())).map_err(words)?.level();
        say(&format!(
            "TPM: measured as signed: register {SECURE_BOOT_PCR} (Secure Boot) {}, register {RELEASE_PCR} (release) {}, \
             rollback level {}; fuses at level {fuses}",
            hex::encode(secure_boot),
            hex::encode(release),
            entry.level
        ));
        Ok(entry.level)
    }

    /// Says which event is the reason. What cannot be read is said instead.
    fn tell_measured(&mut self, say: Say<'_>) {
        let registers = [SECURE_BOOT_PCR, RELEASE_PCR];
        let values = commands::pcr_read(&mut self.tpm, registers)
            .map(|values| [0, 1].map(|at| (u32::from(registers[at]), values[at])));
        let told = values.map_err(words).and_then(|values| {
            let expected = self.expected.as_deref().ok_or("the boot program did not say what should be measured")?;
            let expected = read_bounded(expected, belvedere_event_log::expected::LIMIT + ATTRIBUTES)?;
            Ok(measured::lines(&event_log()?, expected.get(ATTRIBUTES..).unwrap_or_default(), &values))
        });
        match told {
            Ok(lines) => lines.iter().for_each(|line| say(line)),
            Err(error) => say(&format!("{}no event can be compared: {error}", measured::PREFIX)),
        }
    }
}

impl Keeper for TpmKeeper {
    fn secrets(&mut self, renew_data: bool, say: Say<'_>) -> Result<Secrets, String> {
        let (tpm, policy, key) = (&mut self.tpm, &self.policy, &self.key);
        let secrets = if renew_data {
            secrets::renew_data_secret(tpm, policy, key, &mut kernel_random, say)
        } else {
            secrets::ensure(tpm, policy, key, &mut kernel_random, say)
        };
        if let Err(SecretsError::Closed(Closed::Measured(_))) = &secrets {
            self.tell_measured(say);
        }
        let secrets = secrets.map_err(words)?;
        self.level = self.report_measured(say)?;
        Ok(secrets)
    }

    fn raise_fuses(&mut self, say: Say<'_>) -> Result<(), String> {
        let (tpm, policy, level) = (&mut self.tpm, &self.policy, self.level);
        if belvedere_fuses::read(tpm, Some(&policy.key.name())).map_err(words)?.level() >= level {
            return Ok(());
        }
        let Some(raise) = belvedere_fuses::prepare(tpm, policy, level, say).map_err(words)? else { return Ok(()) };
        let agreed = Confirmation::words(raise.words());
        raise.confirm(tpm, agreed, say).map(drop).map_err(words)
    }

    fn close(&mut self) -> Result<(), String> {
        secrets::close_phase(&mut self.tpm).map_err(|error| format!("the TPM still gives out keys: {error}"))
    }
}

fn read_key(path: &Path) -> Result<PolicyKey, String> {
    let bytes = read_bounded(path, 256)?;
    let modulus = bytes.try_into().map_err(|_| format!("{} is no policy key of 256 bytes", path.display()))?;
    Ok(PolicyKey(modulus))
}

fn read_policy(path: &Path) -> Result<BootPolicy, String> {
    let bytes = read_bounded(path, LIMIT + ATTRIBUTES)
        .map_err(|error| format!("the boot program handed over no signed policy: {error}"))?;
    BootPolicy::decode_section(bytes.get(ATTRIBUTES..).unwrap_or_default()).map_err(words)
}

/// The firmware's event log, as the kernel keeps it.
fn event_log() -> Result<Vec<u8>, String> {
    const SECURITY: &str = "/sys/kernel/security";
    let flags = mounts::DATA_ONLY | rustix::mount::MountFlags::RDONLY;
    mounts::mount("securityfs", SECURITY, "securityfs", flags, "").map_err(words)?;
    let path = Path::new(SECURITY).join("tpm0/binary_bios_measurements");
    let log = read_bounded(&path, belvedere_event_log::log::LIMIT);
    let _ = mounts::unmount(SECURITY, false);
    log
}

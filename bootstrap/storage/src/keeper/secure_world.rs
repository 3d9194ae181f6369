//! OP-TEE as the keeper, on boards without a TPM: our trusted application there, which gives the secrets to whoever asks
//! before the phase is closed and is of a release that it has not left behind.
//!
//! It knows nothing of what was measured: what asks is what Secure Boot let start.

use super::{Keeper, RunningRelease, Say, words};
use crate::partitions::{self, Partition};
use crate::secrets::Secrets;
use belvedere_durable::DeviceFile;
use belvedere_fuses::Confirmation;
use belvedere_secure_world::device::OpTee;
use belvedere_secure_world::keeper::{Keeper as Application, Secrets as Kept};
use belvedere_secure_world::store::Store;
use belvedere_secure_world::{SecureWorld, supplicant};
use belvedere_tee::STORE;

/// OP-TEE's keeper, and what the running release is to it.
pub struct SecureWorldKeeper<W: SecureWorld> {
    application: Application<W::Session>,
    /// The running release's.
    level: u32,
    /// What the keeper has kept out up to now.
    fuses: u32,
}

impl SecureWorldKeeper<OpTee> {
    /// Gives OP-TEE its storage on the disk, for as long as this program runs, and opens a session with the application.
    ///
    /// # Errors
    /// When there is no such partition, or OP-TEE has no such application.
    pub fn open(release: &RunningRelease, found: &[Partition]) -> Result<Self, String> {
        let partition = partitions::find(found, STORE).map_err(words)?;
        let mut store = Store::open(DeviceFile::open(&partition.device).map_err(words)?).map_err(words)?;
        let helper = supplicant::Device::open().map_err(words)?;
        // It ends with this program; every write of a command is durable before the command is answered.
        std::thread::spawn(move || eprintln!("OP-TEE's storage: {}", supplicant::serve(&helper, &mut store)));
        Self::of(&OpTee::open().map_err(words)?, release.level)
    }
}

impl<W: SecureWorld> SecureWorldKeeper<W> {
    /// In this secure world, for a release of this level.
    ///
    /// # Errors
    /// When it has no such application.
    pub fn of(world: &W, level: u32) -> Result<Self, String> {
        Ok(Self { application: Application::open(world).map_err(words)?, level, fuses: 0 })
    }
}

impl<W: SecureWorld> Keeper for SecureWorldKeeper<W> {
    fn secrets(&mut self, renew_data: bool, say: Say<'_>) -> Result<Secrets, String> {
        let kept = if renew_data {
            say("OP-TEE: writing a new data secret; what was encrypted with the old one is gone");
            self.application.renew_data(self.level)
        } else {
            self.application.secrets(self.level)
        };
        let Kept { system, data, level } = kept.map_err(|error| format!("OP-TEE gives out no secrets: {error}"))?;
        self.fuses = level;
        say(&format!("OP-TEE: secrets given out; rollback level {}; fuses at level {level}", self.level));
        Ok(Secrets::kept(system, data))
    }

    fn raise_fuses(&mut self, say: Say<'_>) -> Result<(), String> {
        let (from, to) = (self.fuses, self.level);
        if from >= to {
            return Ok(());
        }
        // The rule that was written down agrees: a proven release, its own level.
        Confirmation::words(belvedere_fuses::words(from, to)).agrees(from, to).map_err(words)?;
        say(&format!("rollback fuses: raising from level {from} to level {to}, for ever"));
        self.application.raise(to).map_err(|error| format!("rollback fuses: not raised: {error}"))?;
        self.fuses = to;
        say(&format!("rollback fuses: level {to}"));
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.application.close().map_err(|error| format!("OP-TEE still gives out keys: {error}"))
    }
}

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
use belvedere_secure_world::keeper::{Keeper as Application, KeeperError, Secrets as Kept};
use belvedere_secure_world::store::Store;
use belvedere_secure_world::{Error, SecureWorld, supplicant};
use belvedere_tee::{Code, STORE};

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
        let application = Application::open(world).map_err(|error| {
            if is_missing(&error) {
                "there is no TPM, and this board's OP-TEE has no keeper; build its firmware with firmware/secure-world/keeper, \
                 or nothing gives out the volumes' keys"
                    .to_owned()
            } else {
                format!("OP-TEE's keeper cannot be asked: {error}")
            }
        })?;
        Ok(Self { application, level, fuses: 0 })
    }
}

/// That this OP-TEE has no such application.
fn is_missing(error: &KeeperError) -> bool {
    matches!(error, KeeperError::World(Error::Refused { code: Code::NOT_FOUND, .. }))
}

/// Closes the application on a board whose TPM keeps the secrets, so that nobody has it make any or raise its level. Nothing to
/// do where this OP-TEE has no such application.
///
/// # Errors
/// When it could not be closed.
pub fn close_unused() -> Result<(), String> {
    match Application::open(&OpTee::open().map_err(words)?) {
        Ok(mut application) => application.close().map_err(words),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(words(error)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_secure_world::fake::World;

    fn keeper(world: &World, level: u32) -> SecureWorldKeeper<World> {
        SecureWorldKeeper::of(world, level).unwrap()
    }

    fn passphrases(secrets: &Secrets) -> [[u8; 32]; 2] {
        ["system-a", "data"].map(|name| *secrets.volume_passphrase(name))
    }

    /// A start up to where the phase is closed: what the volumes were opened with, and what was said.
    fn start(world: &World, level: u32, renew: bool, proven: bool) -> Result<([[u8; 32]; 2], String), String> {
        world.restart();
        let mut said = String::new();
        let mut say = |line: &str| said.push_str(&format!("{line}\n"));
        let mut keeper = keeper(world, level);
        let secrets = keeper.secrets(renew, &mut say)?;
        if proven {
            keeper.raise_fuses(&mut say)?;
        }
        keeper.close()?;
        Ok((passphrases(&secrets), said))
    }

    #[test]
    fn each_start_has_the_same_secrets_and_each_board_its_own() {
        let (world, other) = (World::new(), World::new());
        let first = start(&world, 0, false, false).unwrap().0;
        assert_eq!(start(&world, 0, false, true).unwrap().0, first);
        assert_ne!(start(&other, 0, false, false).unwrap().0, first);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_full_reset_changes_the_secret_of_data_alone() {
        let world = World::new();
        let [system, data] = start(&world, 0, false, true).unwrap().0;
        let after = start(&world, 0, true, true).unwrap();
        assert!(after.0[0] == system && after.0[1] != data, "the system stays, the data is lost");
        assert!(after.1.contains("new data secret"), "{}", after.1);
        assert_eq!(start(&world, 0, false, true).unwrap().0, after.0);
    }

    #[test]
    fn a_proven_release_moves_the_fuses_and_an_older_one_gets_no_secret_then() {
        let world = World::new();
        let first = start(&world, 1, false, false).unwrap();
        assert!(start(&world, 0, false, true).is_ok(), "not proven: the older one still starts");
        let second = start(&world, 1, false, true).unwrap();
        assert_eq!(second.0, first.0);
        for line in ["raising from level 0 to level 1, for ever", "rollback fuses: level 1"] {
            assert!(second.1.contains(line), "{}", second.1);
        }
        let error = start(&world, 0, false, true).unwrap_err();
        assert!(error.contains("OP-TEE gives out no secrets") && error.contains("level 0"), "{error}");
        assert!(!start(&world, 1, false, true).unwrap().1.contains("raising"), "they are there");
    }

    #[test]
    fn a_board_without_the_application_says_what_to_do_and_one_that_crashed_what_happened() {
        /// OP-TEE as others build it.
        struct Other;
        impl SecureWorld for Other {
            type Session = belvedere_secure_world::fake::Session;
            fn open(&self, _: &belvedere_tee::Uuid) -> Result<Self::Session, Error> {
                Err(Error::Refused { what: "open", code: Code::NOT_FOUND })
            }
        }
        let error = SecureWorldKeeper::of(&Other, 0).err().unwrap();
        assert!(error.contains("has no keeper") && error.contains("firmware/secure-world"), "{error}");
        let world = World::new();
        world.crash();
        let error = SecureWorldKeeper::of(&world, 0).err().unwrap();
        assert!(error.contains("crashed"), "{error}");
    }

    #[test]
    fn once_closed_nobody_is_given_anything_until_the_next_start() {
        let world = World::new();
        start(&world, 1, false, false).unwrap();
        let mut later = keeper(&world, 1);
        for renew in [false, true] {
            assert!(later.secrets(renew, &mut |_| ()).unwrap_err().contains("closed"));
        }
        later.fuses = 0;
        assert!(later.raise_fuses(&mut |_| ()).unwrap_err().contains("closed"));
    }
}

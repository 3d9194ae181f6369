//! OP-TEE as the keeper, on boards without a TPM: our trusted application there, which gives the secrets to whoever asks
//! before the phase is closed and is of a release that it has not left behind.
//!
//! It knows nothing of what was measured: what asks is what Secure Boot let start.

use super::{Keeper, RunningRelease, Say, words};
use crate::partitions::{self, Partition};
use crate::secrets::Secrets;
use belvedere_durable::{DeviceFile, read_block, write_block};
use belvedere_fuses::Confirmation;
use belvedere_secure_world::device::OpTee;
use belvedere_secure_world::files::{Nothing, Protected};
use belvedere_secure_world::keeper::{Keeper as Application, KeeperError, Secrets as Kept};
use belvedere_secure_world::store::{self, MARK_SIZE, MARKS, Store};
use belvedere_secure_world::{Error, SecureWorld, supplicant};
use belvedere_tee::{Code, STORE};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of OP-TEE's storage on the disk.
pub trait Storage {
    /// Whether something was encrypted with what is kept there.
    ///
    /// # Errors
    /// When it cannot be told: then nothing may be changed.
    fn is_used(&self) -> Result<bool, String>;
    /// Notes that, durably and before it is so.
    ///
    /// # Errors
    /// When it may not be noted.
    fn mark_used(&mut self) -> Result<(), String>;
    /// OP-TEE may change what is there: until now it could only read.
    fn allow_changes(&mut self);
}

/// The partition.
struct OnDisk {
    partition: PathBuf,
    writable: Arc<AtomicBool>,
}

impl Storage for OnDisk {
    fn is_used(&self) -> Result<bool, String> {
        // Both: one that cannot be read may be the one that says so.
        let read = MARKS.map(|place| read_block(&self.partition, place, MARK_SIZE));
        let used = read.iter().flatten().any(|sector| *sector == store::mark());
        match read.into_iter().find_map(Result::err).filter(|_| !used) {
            Some(error) => Err(error.to_string()),
            None => Ok(used),
        }
    }

    fn mark_used(&mut self) -> Result<(), String> {
        // Beside the files, which are open for OP-TEE alone.
        MARKS.iter().try_for_each(|&place| write_block(&self.partition, place, &store::mark())).map_err(words)
    }

    fn allow_changes(&mut self) {
        self.writable.store(true, Ordering::Release);
    }
}

/// OP-TEE's keeper, and what the running release is to it.
pub struct SecureWorldKeeper<W: SecureWorld> {
    application: Application<W::Session>,
    storage: Box<dyn Storage>,
    /// The running release's.
    level: u32,
    /// What the keeper has kept out up to now.
    fuses: u32,
}

/// Writes anew what of the storage is damaged in one of its two copies. What OP-TEE reads is the same before and after, so this
/// needs no leave to change anything; and a start goes on with one copy.
fn mend(partition: &Path) {
    // A device of its own: after a write that failed, nothing that is written through one is believed.
    let mended = DeviceFile::open(partition).and_then(Store::open).and_then(|mut store| store.mend());
    match mended {
        Ok(0) => {}
        Ok(count) => eprintln!("partition {STORE}: {count} damaged or unfinished copies of a block were written anew"),
        Err(error) => eprintln!("partition {STORE}: one copy stays damaged, the other is used: {error}"),
    }
}

/// Without its helper OP-TEE answers nothing any more: a command would wait for ever.
struct EndsWithIt;

impl Drop for EndsWithIt {
    fn drop(&mut self) {
        std::process::exit(1);
    }
}

impl SecureWorldKeeper<OpTee> {
    /// Gives OP-TEE its storage on the disk, for as long as this program runs, and opens a session with the application.
    ///
    /// # Errors
    /// When there is no such partition, or OP-TEE has no such application.
    pub fn open(release: &RunningRelease, found: &[Partition]) -> Result<Self, String> {
        let partition = partitions::find(found, STORE).map_err(words)?;
        let writable = Arc::new(AtomicBool::new(false));
        let storage = OnDisk { partition: partition.device.clone(), writable: Arc::clone(&writable) };
        // One of which it cannot be told is not asked for anything, either.
        let in_use = storage.is_used().unwrap_or(true);
        mend(&partition.device);
        let mut files = Protected::new(
            Store::open(DeviceFile::open(&partition.device).map_err(words)?).map_err(words)?,
            writable,
            in_use,
        );
        let helper = supplicant::Device::open().map_err(words)?;
        // It ends with this program; every write of a command is durable before the command is answered.
        std::thread::spawn(move || {
            let _ends = EndsWithIt;
            eprintln!("OP-TEE's storage: {}", supplicant::serve(&helper, &mut files));
        });
        Self::of(&OpTee::open().map_err(words)?, Box::new(storage), release.level)
    }
}

impl<W: SecureWorld> SecureWorldKeeper<W> {
    /// In this secure world, for a release of this level.
    ///
    /// # Errors
    /// When it has no such application.
    pub fn of(world: &W, storage: Box<dyn Storage>, level: u32) -> Result<Self, String> {
        let application = Application::open(world).map_err(|error| {
            if is_missing(&error) {
                "there is no TPM, and this board's OP-TEE has no keeper; build its firmware with firmware/secure-world/keeper, \
                 or nothing gives out the volumes' keys"
                    .to_owned()
            } else {
                format!("OP-TEE's keeper cannot be asked: {error}")
            }
        })?;
        Ok(Self { application, storage, level, fuses: 0 })
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
    // An OP-TEE that loads applications asks for this one, and waits for somebody who has it.
    let helper = supplicant::Device::open().map_err(words)?;
    std::thread::spawn(move || supplicant::serve(&helper, &mut Nothing));
    match Application::open(&OpTee::open().map_err(words)?) {
        Ok(mut application) => application.close().map_err(words),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(words(error)),
    }
}

impl<W: SecureWorld> Keeper for SecureWorldKeeper<W> {
    fn secrets(&mut self, renew_data: bool, say: Say<'_>) -> Result<Secrets, String> {
        let used = self.storage.is_used().map_err(|error| format!("partition {STORE}: {error}; nothing was changed"))?;
        if used {
            // OP-TEE deletes what it cannot decrypt; on another board that would be what this disk's own board keeps.
            let standing = self.application.level();
            if !standing.as_ref().is_ok_and(|standing| standing.level.is_some()) {
                let why = standing.map_or_else(words, |_| "there is nothing".to_owned());
                return Err(format!(
                    "this board's OP-TEE does not know what the disk's partition {STORE} holds ({why}); nothing was changed: \
                     if the disk is another board's, put it back there, otherwise write the disk image anew; a full reset does not \
                     help, for the system's volumes are closed without it"
                ));
            }
        }
        // A start that needs to change nothing cannot lose anything: OP-TEE deletes what it fails to read.
        if !used || renew_data {
            self.storage.allow_changes();
        }
        let kept = if renew_data {
            say("OP-TEE: writing a new data secret; what was encrypted with the old one is gone");
            self.application.renew_data(self.level)
        } else {
            self.application.secrets(self.level)
        };
        let Kept { system, data, level } = kept.map_err(|error| format!("OP-TEE gives out no secrets: {error}"))?;
        if !used {
            self.storage.mark_used()?;
        }
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
        self.storage.allow_changes();
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
    use belvedere_secure_world::files::Files;
    use std::sync::Mutex;

    /// What is on a disk beside OP-TEE's files.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<Marks>>);

    #[derive(Default)]
    struct Marks {
        used: bool,
        writable: bool,
        full: bool,
        unreadable: bool,
    }

    impl Storage for Disk {
        fn is_used(&self) -> Result<bool, String> {
            let marks = self.0.lock().unwrap();
            if marks.unreadable { Err("played: no read".into()) } else { Ok(marks.used) }
        }

        fn mark_used(&mut self) -> Result<(), String> {
            let mut marks = self.0.lock().unwrap();
            marks.used = !marks.full;
            if marks.full { Err("played: no write".into()) } else { Ok(()) }
        }

        fn allow_changes(&mut self) {
            self.0.lock().unwrap().writable = true;
        }
    }

    fn keeper(world: &World, level: u32) -> SecureWorldKeeper<World> {
        SecureWorldKeeper::of(world, Box::new(Disk::default()), level).unwrap()
    }

    /// A disk in another board, for once: its own board still has everything on it afterwards.
    #[test]
    fn storage_that_is_in_use_is_not_changed_by_a_board_that_cannot_read_it() {
        let (world, disk) = (World::new(), Disk::default());
        let first = SecureWorldKeeper::of(&world, Box::new(disk.clone()), 0).unwrap().secrets(false, &mut |_| ()).unwrap();
        assert!(disk.is_used().unwrap());
        // What another board makes of it; and one from which it was taken away.
        for there in [Some(b"rubbish".to_vec()), None] {
            let other = World::new();
            other.put_disk(there.clone());
            disk.0.lock().unwrap().writable = false;
            for renew in [false, true] {
                let mut keeper = SecureWorldKeeper::of(&other, Box::new(disk.clone()), 0).unwrap();
                let error = keeper.secrets(renew, &mut |_| ()).unwrap_err();
                assert!(error.contains("put it back") && error.contains("nothing was changed"), "{error}");
                assert!(error.contains("disk image anew") && error.contains("a full reset does not help"), "{error}");
            }
            assert!(!disk.0.lock().unwrap().writable);
            assert_eq!(other.disk(), there);
        }
        world.restart();
        let mut again = SecureWorldKeeper::of(&world, Box::new(disk.clone()), 1).unwrap();
        assert_eq!(passphrases(&again.secrets(false, &mut |_| ()).unwrap()), passphrases(&first));
        assert!(!disk.0.lock().unwrap().writable, "an ordinary start changes nothing");
        again.raise_fuses(&mut |_| ()).unwrap();
        assert!(disk.0.lock().unwrap().writable);
        world.restart();
        *disk.0.lock().unwrap() = Marks { used: true, ..Marks::default() };
        let mut reset = SecureWorldKeeper::of(&world, Box::new(disk.clone()), 1).unwrap();
        reset.secrets(true, &mut |_| ()).unwrap();
        assert!(disk.0.lock().unwrap().writable);
    }

    /// A bad block in one copy is made anew before the other one gets one, too; nothing else on the partition changes.
    #[test]
    fn a_damaged_copy_of_what_op_tee_keeps_is_written_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * store::PLACE).unwrap();
        let mut files = Store::open(DeviceFile::open(file.path()).unwrap()).unwrap();
        let handle = files.open("dirf.db", true).unwrap();
        files.write(handle, 0, &[7; 16384]).unwrap();
        drop(files);
        MARKS.iter().for_each(|&place| write_block(file.path(), place, &store::mark()).unwrap());
        let whole = std::fs::read(file.path()).unwrap();
        // Head, mark, and bytes of the file.
        for place in [0, MARKS[0], store::HEAD, store::HEAD + 8192] {
            write_block(file.path(), place, &[0xee; MARK_SIZE]).unwrap();
            assert!(std::fs::read(file.path()).unwrap() != whole);
            mend(file.path());
            assert!(std::fs::read(file.path()).unwrap() == whole, "{place}");
        }
        mend(Path::new("/nonexistent/partition"));
    }

    /// What cannot be read may be in use.
    #[test]
    fn storage_of_which_nothing_is_known_is_not_changed() {
        let (world, disk) = (World::new(), Disk::default());
        disk.0.lock().unwrap().unreadable = true;
        let mut keeper = SecureWorldKeeper::of(&world, Box::new(disk.clone()), 0).unwrap();
        for renew in [false, true] {
            let error = keeper.secrets(renew, &mut |_| ()).unwrap_err();
            assert!(error.contains("no read") && error.contains("nothing was changed"), "{error}");
        }
        assert!(!disk.0.lock().unwrap().writable && world.disk().is_none());
    }

    #[test]
    fn secrets_are_given_out_only_once_it_is_noted_that_they_are_in_use() {
        let (world, disk) = (World::new(), Disk::default());
        disk.0.lock().unwrap().full = true;
        let mut keeper = SecureWorldKeeper::of(&world, Box::new(disk.clone()), 0).unwrap();
        assert!(keeper.secrets(false, &mut |_| ()).unwrap_err().contains("no write"));
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
        let error = SecureWorldKeeper::of(&Other, Box::new(Disk::default()), 0).err().unwrap();
        assert!(error.contains("has no keeper") && error.contains("firmware/secure-world"), "{error}");
        let world = World::new();
        world.crash();
        let error = SecureWorldKeeper::of(&world, Box::new(Disk::default()), 0).err().unwrap();
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

//! The keeper, our trusted application: the disk's secrets and the rollback level before it is closed, device keys afterwards.
//!
//! `init` asks it for the secrets, raises the level when the release is proven, and closes it before the first service runs. From
//! then on, until the machine starts again, it makes keys and signs, and whoever else may open `/dev/tee0` gets no more of it.

use crate::{Argument, Error, SecureWorld, Session};
use belvedere_tee::keeper::{APPLICATION, Command, DIGEST, POINT, Refusal, SECRET, SIGNATURE, Standing, WRAPPED};
use belvedere_tee::{Code, Malformed};
use std::fmt;
use zeroize::Zeroizing;

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It is closed until the machine starts again.
    #[error("the keeper is closed until the machine starts again")]
    Closed,
    /// The release's level is below the kept one.
    #[error("a release of rollback level {release} is given nothing: the keeper keeps level {kept}")]
    BelowLevel {
        /// The release's.
        release: u32,
        /// The kept one.
        kept: u32,
    },
    /// The wrapped key is none of this appliance as it is now: of another board, of before a full reset, or altered.
    #[error("this is no device key of this appliance as it is now")]
    ForeignKey,
    /// It crashed, and does nothing until the machine starts again.
    #[error("the keeper crashed, and does nothing until the machine starts again")]
    Crashed,
    /// It refused for another reason: asked in the wrong order, or what it has stored is damaged.
    #[error("{0}")]
    Refused(Refusal),
    /// The secure world did not do it, or was never asked.
    #[error(transparent)]
    World(#[from] Error),
}

impl From<Malformed> for KeeperError {
    fn from(error: Malformed) -> Self {
        Self::World(error.into())
    }
}

/// `TEE_ERROR_TARGET_DEAD`.
const CRASHED: Code = Code(0xffff_3024);

/// The secrets of the disk. Debug output has neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// For everything but the `data` partition.
    pub system: Zeroizing<[u8; SECRET]>,
    /// For the `data` partition.
    pub data: Zeroizing<[u8; SECRET]>,
    /// The rollback level that is kept.
    pub level: u32,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("level", &self.level).finish_non_exhaustive()
    }
}

/// A device key that the keeper made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeKey {
    /// The private half, encrypted: worth something to this keeper alone, until a full reset.
    pub wrapped: Vec<u8>,
    /// The public half: X and Y, 32 bytes each, big-endian.
    pub point: [u8; POINT],
}

/// A session with the keeper.
#[derive(Debug)]
pub struct Keeper<S> {
    session: S,
}

impl<S: Session> Keeper<S> {
    /// Opens a session. Nothing is asked yet.
    ///
    /// # Errors
    /// [`KeeperError::Crashed`] when it crashed in this start; [`Error::Refused`] with [`Code::NOT_FOUND`] inside when this
    /// secure world has no keeper.
    pub fn open(world: &impl SecureWorld<Session = S>) -> Result<Self, KeeperError> {
        Ok(Self { session: world.open(&APPLICATION).map_err(understand)? })
    }

    /// Where it stands. Reads the secure world's storage as long as it was not opened in this start.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with [`Refusal::Damaged`]; [`KeeperError::World`], also when there is no helper for the storage.
    pub fn level(&mut self) -> Result<Standing, KeeperError> {
        let back = self.ask(
            "ask the keeper where it stands",
            Command::Level,
            [Argument::NumbersBack, Argument::None, Argument::None, Argument::None],
        )?;
        Ok(Standing::decode(back[0])?)
    }

    /// The secrets, for a release of this level; made when there are none yet.
    ///
    /// # Errors
    /// [`KeeperError::Closed`]; [`KeeperError::BelowLevel`]; others as [`Keeper::level`].
    pub fn secrets(&mut self, release: u32) -> Result<Secrets, KeeperError> {
        self.secrets_by(Command::Open, "ask the keeper for the secrets", release)
    }

    /// The secrets after a full reset: the data secret and what device keys are wrapped with are others now, so that what was
    /// encrypted or wrapped before is lost for ever. After a failure it is either so or not, and [`Keeper::secrets`] tells which.
    ///
    /// # Errors
    /// As [`Keeper::secrets`].
    pub fn renew_data(&mut self, release: u32) -> Result<Secrets, KeeperError> {
        self.secrets_by(Command::RenewData, "have the keeper renew the data secret", release)
    }

    fn secrets_by(&mut self, command: Command, what: &'static str, release: u32) -> Result<Secrets, KeeperError> {
        let mut both = Zeroizing::new(vec![0; 2 * SECRET]);
        let arguments =
            [Argument::Numbers(release.into(), 0), Argument::Written(&mut both), Argument::NumbersBack, Argument::None];
        let back = match self.ask(what, command, arguments) {
            Err(KeeperError::Refused(Refusal::BelowLevel)) => {
                let kept = self.level()?.level.ok_or(Malformed("the keeper keeps no level, and refuses one"))?;
                return Err(KeeperError::BelowLevel { release, kept });
            }
            other => other?,
        };
        if both.len() != 2 * SECRET {
            return Err(Malformed("the keeper's secrets are cut off").into());
        }
        let (system, data) = both.split_at(SECRET);
        let mut secrets = Secrets { system: Zeroizing::default(), data: Zeroizing::default(), level: level(back[2])? };
        secrets.system.copy_from_slice(system);
        secrets.data.copy_from_slice(data);
        Ok(secrets)
    }

    /// Raises the rollback level, durably; nothing happens when it is there already.
    ///
    /// # Errors
    /// [`KeeperError::Closed`]; [`KeeperError::Refused`] with [`Refusal::NotOpened`], [`Refusal::AboveRelease`] (of the release
    /// that was given the secrets in this start), or [`Refusal::Lower`]; [`KeeperError::World`].
    pub fn raise(&mut self, to: u32) -> Result<(), KeeperError> {
        let arguments = [Argument::Numbers(to.into(), 0), Argument::NumbersBack, Argument::None, Argument::None];
        let back = self.ask("raise the keeper's rollback level", Command::Raise, arguments)?;
        if level(back[1])? == to { Ok(()) } else { Err(Malformed("the keeper agreed, and has another level").into()) }
    }

    /// Closes it: nobody is given a secret, or raises the level, until the machine starts again. Closing twice is closing once.
    ///
    /// # Errors
    /// [`KeeperError::World`]: then nothing may run that must not have the secrets.
    pub fn close(&mut self) -> Result<(), KeeperError> {
        self.ask("close the keeper", Command::Close, [const { Argument::None }; 4]).map(drop)
    }

    /// Makes a device key (P-256). Also when it is closed, but not when it was closed before anybody opened it.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with [`Refusal::NotOpened`]; [`KeeperError::World`].
    pub fn make_key(&mut self) -> Result<MadeKey, KeeperError> {
        let (mut wrapped, mut point) = (vec![0; WRAPPED], vec![0; POINT]);
        let arguments = [Argument::Written(&mut wrapped), Argument::Written(&mut point), Argument::None, Argument::None];
        self.ask("have the keeper make a device key", Command::MakeKey, arguments)?;
        let point = point.try_into().map_err(|_| Malformed("the keeper's point has not 64 bytes"))?;
        if wrapped.len() == WRAPPED {
            Ok(MadeKey { wrapped, point })
        } else {
            Err(Malformed("the keeper's wrapped key has another size").into())
        }
    }

    /// Signs a SHA-256 digest (ECDSA) with a key that [`Keeper::make_key`] made: r and s, 32 bytes each, big-endian.
    ///
    /// # Errors
    /// [`KeeperError::ForeignKey`]; others as [`Keeper::make_key`].
    pub fn sign(&mut self, wrapped: &[u8], digest: &[u8; DIGEST]) -> Result<[u8; SIGNATURE], KeeperError> {
        if wrapped.len() != WRAPPED {
            return Err(KeeperError::ForeignKey);
        }
        let mut signature = vec![0; SIGNATURE];
        let arguments = [Argument::Read(wrapped), Argument::Read(digest), Argument::Written(&mut signature), Argument::None];
        self.ask("have the keeper sign", Command::Sign, arguments)?;
        signature.try_into().map_err(|_| Malformed("the keeper's signature has not 64 bytes").into())
    }

    fn ask(
        &mut self,
        what: &'static str,
        command: Command,
        arguments: [Argument<'_>; 4],
    ) -> Result<[(u64, u64); 4], KeeperError> {
        self.session.command(what, command as u32, arguments).map_err(understand)
    }
}

fn level((level, _): (u64, u64)) -> Result<u32, Malformed> {
    let standing = Standing::decode((level, 1))?;
    standing.level.ok_or(Malformed("the keeper's level is missing"))
}

fn understand(error: Error) -> KeeperError {
    let Error::Refused { code, .. } = error else { return error.into() };
    match Refusal::from_code(code) {
        Some(Refusal::Closed) => KeeperError::Closed,
        Some(Refusal::ForeignKey) => KeeperError::ForeignKey,
        Some(refusal) => KeeperError::Refused(refusal),
        None if code == CRASHED => KeeperError::Crashed,
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Step, World, verifies};

    #[test]
    fn the_first_start_makes_the_secrets_and_the_next_has_the_same() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        assert_eq!(keeper.level().unwrap(), Standing { level: None, closed: false });
        let first = keeper.secrets(2).unwrap();
        assert_eq!(first.level, 0);
        assert_ne!(first.system, first.data);
        assert_ne!(*first.system, [0; 32]);
        assert_eq!(format!("{first:?}"), "Secrets { level: 0, .. }");
        assert_eq!(keeper.secrets(2).unwrap(), first);
        world.restart();
        let mut keeper = Keeper::open(&world).unwrap();
        assert_eq!(keeper.level().unwrap(), Standing { level: Some(0), closed: false });
        assert_eq!(keeper.secrets(2).unwrap(), first);
        // Another board has others.
        assert_ne!(Keeper::open(&World::new()).unwrap().secrets(2).unwrap().system, first.system);
    }

    #[test]
    fn the_level_goes_up_to_the_release_and_never_down() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        assert!(matches!(keeper.raise(0), Err(KeeperError::Refused(Refusal::NotOpened))));
        assert!(matches!(keeper.secrets(65), Err(KeeperError::Refused(Refusal::NoSuchLevel))));
        keeper.secrets(3).unwrap();
        assert!(matches!(keeper.raise(4), Err(KeeperError::Refused(Refusal::AboveRelease))));
        assert!(matches!(keeper.secrets(4), Err(KeeperError::Refused(Refusal::OtherRelease))));
        keeper.raise(3).unwrap();
        assert!(matches!(keeper.raise(2), Err(KeeperError::Refused(Refusal::Lower))));
        world.restart();
        let mut keeper = Keeper::open(&world).unwrap();
        assert!(matches!(keeper.secrets(2), Err(KeeperError::BelowLevel { release: 2, kept: 3 })));
        assert!(matches!(keeper.renew_data(2), Err(KeeperError::BelowLevel { release: 2, kept: 3 })));
        assert_eq!(keeper.secrets(3).unwrap().level, 3);
    }

    #[test]
    fn once_closed_it_makes_keys_and_signs_and_no_more() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        keeper.secrets(1).unwrap();
        keeper.close().unwrap();
        keeper.close().unwrap();
        // Another session is no way around it, and no storage is needed any more.
        let mut keeper = Keeper::open(&world).unwrap();
        world.take_helper_away();
        assert!(matches!(keeper.secrets(1), Err(KeeperError::Closed)));
        assert!(matches!(keeper.renew_data(1), Err(KeeperError::Closed)));
        assert!(matches!(keeper.raise(1), Err(KeeperError::Closed)));
        assert_eq!(keeper.level().unwrap(), Standing { level: Some(0), closed: true });
        let key = keeper.make_key().unwrap();
        let signature = keeper.sign(&key.wrapped, &[7; 32]).unwrap();
        assert!(verifies(&key.point, &[7; 32], &signature));
        assert!(!verifies(&key.point, &[8; 32], &signature));
        assert_ne!(keeper.make_key().unwrap(), key);
        world.restart();
        assert!(!Keeper::open(&world).unwrap().level().unwrap().closed);
    }

    #[test]
    fn closed_before_it_was_opened_it_does_nothing() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        keeper.secrets(1).unwrap();
        let key = keeper.make_key().unwrap();
        world.restart();
        let mut keeper = Keeper::open(&world).unwrap();
        assert!(matches!(keeper.make_key(), Err(KeeperError::Refused(Refusal::NotOpened))));
        keeper.close().unwrap();
        assert!(matches!(keeper.make_key(), Err(KeeperError::Refused(Refusal::NotOpened))));
        assert!(matches!(keeper.sign(&key.wrapped, &[7; 32]), Err(KeeperError::Refused(Refusal::NotOpened))));
        assert_eq!(keeper.level().unwrap(), Standing { level: None, closed: true });
    }

    #[test]
    fn a_key_that_is_altered_or_another_board_s_does_not_sign() {
        let (world, other) = (World::new(), World::new());
        let mut keeper = Keeper::open(&world).unwrap();
        keeper.secrets(1).unwrap();
        let key = keeper.make_key().unwrap();
        for place in 0..key.wrapped.len() {
            let mut altered = key.wrapped.clone();
            altered[place] ^= 1;
            assert!(matches!(keeper.sign(&altered, &[7; 32]), Err(KeeperError::ForeignKey)), "{place}");
        }
        for bytes in [&key.wrapped[1..], &[], &[1; 4000]] {
            assert!(matches!(keeper.sign(bytes, &[7; 32]), Err(KeeperError::ForeignKey)));
        }
        let mut foreign = Keeper::open(&other).unwrap();
        foreign.secrets(1).unwrap();
        assert!(matches!(foreign.sign(&key.wrapped, &[7; 32]), Err(KeeperError::ForeignKey)));
        keeper.sign(&key.wrapped, &[7; 32]).unwrap();
    }

    #[test]
    fn a_full_reset_leaves_nothing_of_the_data_and_the_keys() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        let before = keeper.secrets(1).unwrap();
        keeper.raise(1).unwrap();
        let key = keeper.make_key().unwrap();
        world.restart();
        let mut keeper = Keeper::open(&world).unwrap();
        let after = keeper.renew_data(1).unwrap();
        assert_eq!((&after.system, after.level), (&before.system, 1));
        assert_ne!(after.data, before.data);
        assert!(matches!(keeper.sign(&key.wrapped, &[7; 32]), Err(KeeperError::ForeignKey)));
        assert_eq!(keeper.secrets(1).unwrap(), after);
        world.restart();
        assert_eq!(Keeper::open(&world).unwrap().secrets(1).unwrap(), after);
    }

    /// Whatever fails, and whenever the power goes: what was given out once is what is given out afterwards.
    #[test]
    fn nothing_that_was_given_out_changes_by_a_failure() {
        type Change = fn(&mut Keeper<crate::fake::Session>) -> Result<Option<Secrets>, KeeperError>;
        let changes: [(bool, Change); 3] = [
            (false, |keeper| keeper.secrets(5).map(Some)),
            (true, |keeper| keeper.renew_data(5).map(Some)),
            (true, |keeper| {
                keeper.secrets(5)?;
                keeper.raise(5).map(|()| None)
            }),
        ];
        // The most that any of them takes: load, random, store, load, store, load.
        for step in 0..8 {
            for (used, change) in changes {
                for outcome in [Step::Refused, Step::Lost, Step::DoneAndRefused] {
                    let world = World::new();
                    let before = used.then(|| Keeper::open(&world).unwrap().secrets(5).unwrap());
                    world.restart();
                    world.fail_at(step, outcome);
                    let given = change(&mut Keeper::open(&world).unwrap());
                    assert!(given.is_ok() || step < 6);
                    world.restart();
                    let after = Keeper::open(&world).unwrap().secrets(5).unwrap();
                    if let Ok(Some(given)) = &given {
                        assert_eq!(&after, given, "{step} {outcome:?}");
                    }
                    if let Ok(None) = given {
                        assert_eq!(after.level, 5);
                    }
                    if let Some(before) = before {
                        assert_eq!(after.system, before.system);
                        assert!(given.is_ok() || after.data == before.data || after.level == 0, "{step} {outcome:?}");
                    }
                    assert!(after.level == 0 || after.level == 5);
                }
            }
        }
    }

    #[test]
    fn without_its_helper_or_with_damaged_storage_it_makes_no_secrets() {
        let world = World::new();
        let first = Keeper::open(&world).unwrap().secrets(1).unwrap();
        let disk = world.disk();
        world.restart();
        world.take_helper_away();
        let mut keeper = Keeper::open(&world).unwrap();
        assert!(matches!(keeper.secrets(1), Err(KeeperError::World(Error::Refused { .. }))));
        assert!(matches!(keeper.level(), Err(KeeperError::World(Error::Refused { .. }))));
        world.restart();
        world.put_disk(Some(b"BVKEEPER rubbish".to_vec()));
        let mut keeper = Keeper::open(&world).unwrap();
        assert!(matches!(keeper.secrets(1), Err(KeeperError::Refused(Refusal::Damaged))));
        assert!(matches!(keeper.level(), Err(KeeperError::Refused(Refusal::Damaged))));
        world.put_disk(Some([disk.clone().unwrap(), vec![0; 100]].concat()));
        assert!(matches!(keeper.secrets(1), Err(KeeperError::Refused(Refusal::Damaged))));
        world.put_disk(disk);
        assert_eq!(keeper.secrets(1).unwrap(), first);
    }

    #[test]
    fn a_keeper_that_crashed_gives_nothing_until_the_machine_starts_again() {
        let world = World::new();
        let mut keeper = Keeper::open(&world).unwrap();
        keeper.secrets(1).unwrap();
        world.crash();
        assert!(matches!(keeper.secrets(1), Err(KeeperError::Crashed)));
        assert!(matches!(Keeper::open(&world), Err(KeeperError::Crashed)));
        world.restart();
        Keeper::open(&world).unwrap().secrets(1).unwrap();
    }
}

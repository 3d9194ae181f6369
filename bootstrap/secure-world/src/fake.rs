//! A secure world in this process, with the real keeper in it (`belvedere_keeper`, what OP-TEE runs) over a storage that can be
//! cut off, damaged, copied and put back: for tests of what stands on [`crate::keeper`].
//!
//! A [`World`] is a board. Clones are the same board.

use crate::{Argument, Error, SecureWorld};
use belvedere_keeper::{Keeper, Parameter, Platform, Sealing};
use belvedere_tee::keeper::{APPLICATION, DIGEST, KEY_PAIR, Kept, POINT, SIGNATURE, TAG};
use belvedere_tee::{Code, Uuid};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::{Arc, Mutex, MutexGuard};

/// What becomes of the step that fails: one call of the keeper to the secure world below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is refused; the next ones succeed.
    Refused,
    /// It is refused, and so are all after it until the machine starts again.
    Lost,
    /// It is done, and said to have failed.
    DoneAndRefused,
}

const NO_HELPER: Code = Code(0xffff_000e);
const DEAD: Code = Code(0xffff_3024);

#[derive(Debug, Default)]
struct Board {
    disk: Option<Vec<u8>>,
    no_helper: bool,
    /// Steps until one fails.
    fails: Option<(u32, Step)>,
    lost: bool,
}

impl Board {
    /// Whether the step is done, and what is answered.
    fn step(&mut self) -> (bool, Result<(), Code>) {
        if self.lost {
            return (false, Err(Code::GENERIC));
        }
        match &mut self.fails {
            Some((0, how)) => {
                let how = *how;
                self.fails = None;
                self.lost = how == Step::Lost;
                (how == Step::DoneAndRefused, Err(Code::GENERIC))
            }
            Some((left, _)) => {
                *left -= 1;
                (true, Ok(()))
            }
            None => (true, Ok(())),
        }
    }
}

#[derive(Debug, Default)]
struct Fake(Arc<Mutex<Board>>);

impl Fake {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sealing(sealing: &Sealing<'_>) -> Result<(LessSafeKey, Nonce), Code> {
        let key = UnboundKey::new(&AES_256_GCM, sealing.key).map_err(|_| Code::GENERIC)?;
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(*sealing.nonce)))
    }
}

impl Platform for Fake {
    fn random(&mut self, into: &mut [u8]) -> Result<(), Code> {
        self.board().step().1?;
        SystemRandom::new().fill(into).map_err(|_| Code::GENERIC)
    }

    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, Code> {
        let mut board = self.board();
        if board.no_helper {
            return Err(NO_HELPER);
        }
        board.step().1?;
        let Some(object) = &board.disk else { return Ok(None) };
        let length = object.len().min(into.len());
        into[..length].copy_from_slice(&object[..length]);
        Ok(Some(object.len()))
    }

    fn store(&mut self, object: &[u8; Kept::SIZE]) -> Result<(), Code> {
        let mut board = self.board();
        if board.no_helper {
            return Err(NO_HELPER);
        }
        let (done, answer) = board.step();
        if done {
            board.disk = Some(object.to_vec());
        }
        answer
    }

    fn make_key(&mut self) -> Result<[u8; KEY_PAIR], Code> {
        loop {
            let mut private = [0; 32];
            self.random(&mut private)?;
            let Ok(key) = SigningKey::from_slice(&private) else { continue };
            let mut pair = [0; KEY_PAIR];
            pair[..32].copy_from_slice(&private);
            pair[32..].copy_from_slice(&key.verifying_key().to_sec1_point(false).as_bytes()[1..]);
            return Ok(pair);
        }
    }

    fn sign(&mut self, pair: &[u8; KEY_PAIR], digest: &[u8; DIGEST]) -> Result<[u8; SIGNATURE], Code> {
        let key = SigningKey::from_slice(&pair[..32]).map_err(|_| Code::GENERIC)?;
        let signature: Signature = key.sign_prehash(digest).map_err(|_| Code::GENERIC)?;
        Ok(signature.to_bytes().into())
    }

    fn seal(&mut self, sealing: &Sealing<'_>, plain: &[u8; KEY_PAIR]) -> Result<([u8; KEY_PAIR], [u8; TAG]), Code> {
        let (key, nonce) = Self::sealing(sealing)?;
        let mut text = *plain;
        let tag =
            key.seal_in_place_separate_tag(nonce, Aad::from(sealing.associated), &mut text).map_err(|_| Code::GENERIC)?;
        Ok((text, tag.as_ref().try_into().map_err(|_| Code::GENERIC)?))
    }

    fn unseal(
        &mut self,
        sealing: &Sealing<'_>,
        sealed: &[u8; KEY_PAIR],
        tag: &[u8; TAG],
    ) -> Result<Option<[u8; KEY_PAIR]>, Code> {
        let (key, nonce) = Self::sealing(sealing)?;
        let mut text = [&sealed[..], tag].concat();
        let plain = key.open_in_place(nonce, Aad::from(sealing.associated), &mut text);
        Ok(plain.ok().and_then(|plain| (&*plain).try_into().ok()))
    }
}

#[derive(Debug)]
struct Machine {
    board: Arc<Mutex<Board>>,
    keeper: Keeper<Fake>,
    crashed: bool,
}

/// A board with OP-TEE and the keeper, switched on.
#[derive(Debug, Clone)]
pub struct World(Arc<Mutex<Machine>>);

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A new board, with nothing on its disk.
    pub fn new() -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let keeper = Keeper::new(Fake(Arc::clone(&board)));
        Self(Arc::new(Mutex::new(Machine { board, keeper, crashed: false })))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let machine = self.machine();
        change(&mut machine.board.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Starts the machine again: the keeper knows nothing but what is stored; what failed works again.
    pub fn restart(&self) {
        let mut machine = self.machine();
        machine.keeper = Keeper::new(Fake(Arc::clone(&machine.board)));
        machine.crashed = false;
        drop(machine);
        self.with(|board| (board.no_helper, board.fails, board.lost) = (false, None, false));
    }

    /// As when the helper's thread ended: no storage until the machine starts again.
    pub fn take_helper_away(&self) {
        self.with(|board| board.no_helper = true);
    }

    /// Lets the step after `steps` others fail.
    pub fn fail_at(&self, steps: u32, how: Step) {
        self.with(|board| board.fails = Some((steps, how)));
    }

    /// Lets the keeper crash: it answers nothing until the machine starts again.
    pub fn crash(&self) {
        self.machine().crashed = true;
    }

    /// What is stored; none: nothing was ever.
    pub fn disk(&self) -> Option<Vec<u8>> {
        self.with(|board| board.disk.clone())
    }

    /// Puts something there in its place, such as an older copy.
    pub fn put_disk(&self, disk: Option<Vec<u8>>) {
        self.with(|board| board.disk = disk);
    }
}

/// A session with this world's keeper.
#[derive(Debug)]
pub struct Session(World);

impl SecureWorld for World {
    type Session = Session;

    fn open(&self, application: &Uuid) -> Result<Session, Error> {
        let what = "open a session with a trusted application";
        if *application != APPLICATION {
            return Err(Error::Refused { what, code: Code::NOT_FOUND });
        }
        if self.machine().crashed {
            return Err(Error::Refused { what, code: DEAD });
        }
        Ok(Session(self.clone()))
    }
}

impl crate::Session for Session {
    fn command(
        &mut self,
        what: &'static str,
        number: u32,
        mut arguments: [Argument<'_>; 4],
    ) -> Result<[(u64, u64); 4], Error> {
        let mut machine = self.0.machine();
        if machine.crashed {
            return Err(Error::Refused { what, code: DEAD });
        }
        let refused = |code| Error::Refused { what, code };
        let mut numbers = [(0, 0); 4];
        {
            let mut parameters = [const { Parameter::None }; 4];
            for ((argument, parameter), back) in arguments.iter_mut().zip(&mut parameters).zip(&mut numbers) {
                let half = |number: u64| u32::try_from(number).map_err(|_| refused(Code::BAD_PARAMETERS));
                *parameter = match argument {
                    Argument::None => Parameter::None,
                    Argument::Numbers(a, b) => Parameter::Numbers(half(*a)?, half(*b)?),
                    Argument::NumbersBack => Parameter::NumbersBack(back),
                    Argument::Read(bytes) => Parameter::Read(bytes),
                    Argument::Written(bytes) => Parameter::Written(bytes),
                    Argument::Shared(_) => return Err(refused(Code::BAD_PARAMETERS)),
                };
            }
            machine.keeper.invoke(number, &mut parameters).map_err(refused)?;
        }
        Ok(numbers.map(|(a, b)| (a.into(), b.into())))
    }
}

/// Whether it is the signature of this digest by the key of this point.
pub fn verifies(point: &[u8; POINT], digest: &[u8; DIGEST], signature: &[u8; SIGNATURE]) -> bool {
    let key = VerifyingKey::from_sec1_bytes(&[&[4], &point[..]].concat());
    let signature = Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify_prehash(digest, &signature).is_ok())
}

//! The keeper: the trusted application that keeps the disk's secrets and the rollback level, and makes device keys. See the
//! README. What it decides is in `belvedere_tee::keeper`; here is what it does, over [`Platform`]. The same runs in OP-TEE
//! and, for tests, in any process.
#![no_std]

#[cfg(target_os = "none")]
mod op_tee;

use belvedere_tee::Code;
use belvedere_tee::keeper::{
    Command, DIGEST, FRESH, Fresh, KEY_PAIR, Kept, Kind, NONCE, POINT, Refusal, SECRET, SIGNATURE, Standing, State, TAG,
    WRAPPED, WRAPPED_VERSION, Wrapped, opening,
};

/// What the keeper needs of the secure world.
pub trait Platform {
    /// Fills with random bytes.
    ///
    /// # Errors
    /// When there are none; so with all of these.
    fn random(&mut self, into: &mut [u8]) -> Result<(), Code>;
    /// Reads the object [`Kept::NAME`]; gives its size, of which as much as there is room for was read. None: there is no such
    /// object, and this is sure.
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, Code>;
    /// Writes the object, all of it or nothing, durably.
    fn store(&mut self, object: &[u8; Kept::SIZE]) -> Result<(), Code>;
    /// Makes a P-256 key pair: private value, X, Y.
    fn make_key(&mut self) -> Result<[u8; KEY_PAIR], Code>;
    /// Signs a digest (ECDSA): r, s.
    fn sign(&mut self, pair: &[u8; KEY_PAIR], digest: &[u8; DIGEST]) -> Result<[u8; SIGNATURE], Code>;
    /// Encrypts with AES-256-GCM.
    fn seal(&mut self, sealing: &Sealing<'_>, plain: &[u8; KEY_PAIR]) -> Result<([u8; KEY_PAIR], [u8; TAG]), Code>;
    /// Decrypts; none when it was not encrypted so.
    fn unseal(
        &mut self,
        sealing: &Sealing<'_>,
        sealed: &[u8; KEY_PAIR],
        tag: &[u8; TAG],
    ) -> Result<Option<[u8; KEY_PAIR]>, Code>;
}

/// What AES-256-GCM needs beside the text.
#[derive(Clone, Copy)]
pub struct Sealing<'a> {
    /// Key.
    pub key: &'a [u8; SECRET],
    /// Nonce.
    pub nonce: &'a [u8; NONCE],
    /// Associated data.
    pub associated: &'a [u8],
}

/// One of a command's parameters.
#[derive(Debug)]
pub enum Parameter<'a> {
    /// Nothing.
    None,
    /// Numbers for the keeper.
    Numbers(u32, u32),
    /// Numbers from it.
    NumbersBack(&'a mut (u32, u32)),
    /// Bytes for it.
    Read(&'a [u8]),
    /// Bytes from it: all of them.
    Written(&'a mut [u8]),
}

/// Why a command was not done.
enum Failure {
    Refused(Refusal),
    Platform(Code),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Platform(code)
    }
}

/// The keeper, from when the machine starts on.
#[derive(Debug)]
pub struct Keeper<P> {
    platform: P,
    state: State,
}

impl<P: Platform> Keeper<P> {
    /// As the machine starts.
    pub const fn new(platform: P) -> Self {
        Self { platform, state: State::new() }
    }

    /// Carries out a command. Nothing is written to the parameters unless it succeeds.
    ///
    /// # Errors
    /// A [`Refusal`]'s code, the secure world's, or [`Code::BAD_PARAMETERS`] when there is no such command.
    pub fn invoke(&mut self, number: u32, parameters: &mut [Parameter<'_>; 4]) -> Result<(), Code> {
        let command = Command::from_number(number).ok_or(Code::BAD_PARAMETERS)?;
        let fits = parameters.iter().zip(command.parameters()).all(|(parameter, kind)| match (parameter, kind) {
            (Parameter::None, Kind::None)
            | (Parameter::Numbers(..), Kind::Numbers)
            | (Parameter::NumbersBack(_), Kind::NumbersBack) => true,
            (Parameter::Read(bytes), Kind::Read(size)) => bytes.len() == size,
            (Parameter::Written(bytes), Kind::Written(size)) => bytes.len() == size,
            _ => false,
        });
        if !fits {
            return Err(Code::BAD_PARAMETERS);
        }
        self.carry_out(command, parameters).map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal.code(),
            Failure::Platform(code) => code,
        })
    }

    fn carry_out(&mut self, command: Command, parameters: &mut [Parameter<'_>; 4]) -> Result<(), Failure> {
        match (command, parameters) {
            (Command::Level, [Parameter::NumbersBack(back), ..]) => **back = self.standing()?.encode(),
            (
                Command::Open | Command::RenewData,
                [Parameter::Numbers(release, 0), Parameter::Written(secrets), Parameter::NumbersBack(level), _],
            ) => {
                let kept = self.open(*release, command == Command::RenewData)?;
                secrets.copy_from_slice(&kept.secrets());
                **level = (kept.level, 0);
            }
            (Command::Raise, [Parameter::Numbers(to, 0), Parameter::NumbersBack(level), ..]) => {
                **level = (self.raise(*to)?, 0);
            }
            (Command::Close, _) => self.state.close(),
            (Command::MakeKey, [Parameter::Written(wrapped), Parameter::Written(point), ..]) => {
                let (key, public) = self.make_key()?;
                wrapped.copy_from_slice(&key);
                point.copy_from_slice(&public);
            }
            (Command::Sign, [Parameter::Read(wrapped), Parameter::Read(digest), Parameter::Written(signature), _]) => {
                let digest = (*digest).try_into().map_err(|_| Code::BAD_PARAMETERS)?;
                signature.copy_from_slice(&self.sign(wrapped, digest)?);
            }
            _ => return Err(Code::BAD_PARAMETERS.into()),
        }
        Ok(())
    }

    /// What is stored.
    fn load(&mut self) -> Result<Option<Kept>, Failure> {
        // One byte more than there should be, so that what is too long is seen.
        let mut bytes = [0; Kept::SIZE + 1];
        let Some(length) = self.platform.load(&mut bytes)? else { return Ok(None) };
        let object = bytes.get(..length).ok_or(Refusal::Damaged)?;
        Ok(Some(Kept::decode(object).map_err(|_| Refusal::Damaged)?))
    }

    /// Stores it and reads it back.
    fn store(&mut self, kept: &Kept) -> Result<(), Failure> {
        self.platform.store(&kept.encode())?;
        if self.load()?.as_ref() == Some(kept) { Ok(()) } else { Err(Refusal::Damaged.into()) }
    }

    fn standing(&mut self) -> Result<Standing, Failure> {
        let level = match self.state.kept() {
            Some(kept) => Some(kept.level),
            None if self.state.is_closed() => None,
            None => self.load()?.map(|kept| kept.level),
        };
        Ok(Standing { level, closed: self.state.is_closed() })
    }

    fn open(&mut self, release: u32, renew: bool) -> Result<Kept, Failure> {
        self.state.may_open(release)?;
        let kept = match self.state.kept() {
            Some(kept) => Some(kept.clone()),
            None => self.load()?,
        };
        let fresh = opening(kept.as_ref(), release, renew)?;
        let mut random = [0; FRESH];
        if fresh != Fresh::Nothing {
            self.platform.random(&mut random)?;
        }
        let kept = fresh.apply(kept, &random);
        if fresh != Fresh::Nothing {
            // Until it is read back it is not known which secrets hold; and none is given out that does not.
            self.state.forget();
            self.store(&kept)?;
        }
        self.state.open(release, kept.clone());
        Ok(kept)
    }

    fn raise(&mut self, to: u32) -> Result<u32, Failure> {
        let raised = self.state.raised(to)?;
        if Some(&raised) != self.state.kept() {
            self.store(&raised)?;
            self.state.raise(raised);
        }
        Ok(to)
    }

    fn make_key(&mut self) -> Result<([u8; WRAPPED], [u8; POINT]), Failure> {
        let key = self.state.wrapping()?;
        let pair = self.platform.make_key()?;
        let mut nonce = [0; NONCE];
        self.platform.random(&mut nonce)?;
        let sealing = Sealing { key, nonce: &nonce, associated: &[WRAPPED_VERSION] };
        let (sealed, tag) = self.platform.seal(&sealing, &pair)?;
        let mut point = [0; POINT];
        point.copy_from_slice(&pair[KEY_PAIR - POINT..]);
        Ok((Wrapped { nonce, sealed, tag }.encode(), point))
    }

    fn sign(&mut self, wrapped: &[u8], digest: &[u8; DIGEST]) -> Result<[u8; SIGNATURE], Failure> {
        let key = self.state.wrapping()?;
        let Wrapped { nonce, sealed, tag } = Wrapped::decode(wrapped)?;
        let sealing = Sealing { key, nonce: &nonce, associated: &[WRAPPED_VERSION] };
        let pair = self.platform.unseal(&sealing, &sealed, &tag)?.ok_or(Refusal::ForeignKey)?;
        Ok(self.platform.sign(&pair, digest)?)
    }
}

//! The device's own key in the secure world: P-256, made inside, signs inside, never comes out.
//!
//! # The first time, and what a power cut after each step leaves
//!
//! 1. the token is set up, which empties it — a token without a user
//! 2. the officer sets the user's PIN — a token without a key
//! 3. the key pair is made, one command — the key
//!
//! [`DeviceKey::ensure`] looks for the key first and starts from 1 when it cannot log in, so an earlier cut is made good. A token
//! with a user is never emptied.
//!
//! The PINs are no secret and keep nobody out: whoever may open `/dev/tee0` may sign. What the secure world adds is that the key
//! cannot be copied.

use crate::{Argument, Error, SecureWorld, Session};
use belvedere_tee::keys::{self, Command, Half, Result32, User};

const SLOT: u32 = 0;
const NAME: &[u8] = b"belvedere device key";
const LABEL: &[u8; 32] = b"belvedere                       ";
const OFFICER_PIN: &[u8] = b"belvedere officer";
const USER_PIN: &[u8] = b"belvedere user";

/// The key, for as long as its session is open.
#[derive(Debug)]
pub struct DeviceKey<S> {
    session: S,
    token: u32,
    private: u32,
    public: u32,
}

fn run(session: &mut impl Session, what: &'static str, command: Command) -> Result<Result<Vec<u8>, Result32>, Error> {
    let mut arguments = command.arguments;
    // The result comes back in the arguments' place.
    arguments.resize(arguments.len().max(4), 0);
    let mut output = vec![0; command.output];
    let data = if command.data.is_empty() { Argument::None } else { Argument::Read(&command.data) };
    let out = if command.output == 0 { Argument::None } else { Argument::Written(&mut output) };
    session.command(what, command.number, [Argument::Shared(&mut arguments), data, out, Argument::None])?;
    let result = keys::result(&arguments)?;
    Ok(if result == Result32::OK { Ok(output) } else { Err(result) })
}

fn must(session: &mut impl Session, what: &'static str, command: Command) -> Result<Vec<u8>, Error> {
    run(session, what, command)?.map_err(|result| Error::Key { what, result })
}

/// One handle that must be there.
fn one(what: &'static str, output: &[u8]) -> Result<u32, Error> {
    keys::handle(output)?.ok_or(Error::Key { what, result: Result32(0x82) })
}

fn find(session: &mut impl Session, token: u32, half: Half) -> Result<Option<u32>, Error> {
    let [begin, next, end] = keys::find(token, half, NAME);
    must(session, "look for the device key", begin)?;
    let found = must(session, "look for the device key", next)?;
    must(session, "look for the device key", end)?;
    Ok(keys::handle(&found)?)
}

impl<S: Session> DeviceKey<S> {
    /// The key; made when there is none.
    ///
    /// # Errors
    /// When the secure world does not do it.
    pub fn ensure(world: &impl SecureWorld<Session = S>) -> Result<Self, Error> {
        let mut session = world.open(&keys::APPLICATION)?;
        let open = |session: &mut S| {
            let what = "open a session with the token";
            one(what, &must(session, what, keys::open_session(SLOT))?)
        };
        let first = open(&mut session)?;
        let token = match run(&mut session, "log in", keys::login(first, User::User, USER_PIN))? {
            Ok(_) | Err(Result32::ALREADY_LOGGED_IN) => first,
            // Never set up (0xe0, 0xe1), or without a user yet (0x102).
            Err(Result32(0xe0 | 0xe1 | 0x102)) => {
                must(&mut session, "close the session", keys::close_session(first))?;
                must(&mut session, "set the token up", keys::init_token(SLOT, OFFICER_PIN, LABEL))?;
                let token = open(&mut session)?;
                must(&mut session, "log in as officer", keys::login(token, User::Officer, OFFICER_PIN))?;
                must(&mut session, "set the user's PIN", keys::init_pin(token, USER_PIN))?;
                must(&mut session, "log out", keys::logout(token))?;
                must(&mut session, "log in", keys::login(token, User::User, USER_PIN))?;
                token
            }
            Err(result) => return Err(Error::Key { what: "log in", result }),
        };
        let halves = (find(&mut session, token, Half::Private)?, find(&mut session, token, Half::Public)?);
        let (private, public) = match halves {
            (Some(private), Some(public)) => (private, public),
            _ => {
                let made = must(&mut session, "make the device key", keys::make_key(token, NAME))?;
                let (public, private) = made.split_at(made.len().min(4));
                (one("make the device key", private)?, one("make the device key", public)?)
            }
        };
        Ok(Self { session, token, private, public })
    }

    /// The public key's point: X and Y, 32 bytes each.
    ///
    /// # Errors
    /// When the secure world does not do it.
    pub fn point(&mut self) -> Result<[u8; 64], Error> {
        let answer = must(&mut self.session, "read the public key", keys::read_point(self.token, self.public))?;
        Ok(keys::point(&answer)?)
    }

    /// Signs a SHA-256 digest (ECDSA): r and s, 32 bytes each.
    ///
    /// # Errors
    /// When the secure world does not do it.
    pub fn sign(&mut self, digest: &[u8; 32]) -> Result<[u8; 64], Error> {
        let [begin, sign] = keys::sign(self.token, self.private, digest);
        must(&mut self.session, "sign", begin)?;
        Ok(keys::signature(&must(&mut self.session, "sign", sign)?)?)
    }

    /// Asks for the private key, which the secure world must refuse: for tests.
    ///
    /// # Errors
    /// Its refusal.
    pub fn steal(&mut self) -> Result<Vec<u8>, Error> {
        must(&mut self.session, "read the private key", keys::read_private_value(self.token, self.private))
    }
}

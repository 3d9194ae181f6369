//! Commands and responses as bytes (part 1, 18; part 3, 5 and 6). Everything is big-endian.

use crate::{ResponseCode, Tpm, TpmError};
use alloc::format;
use alloc::vec::Vec;
use zeroize::{Zeroize, Zeroizing};

/// No command and no response is longer, in bytes (`TPM2_MAX_COMMAND_SIZE` of every TPM is this or less).
pub const MAXIMUM: usize = 4096;
/// How often a command is sent that the TPM had no time for.
const ATTEMPTS: u32 = 8;
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// The session handle that stands for a password (`TPM_RS_PW`).
const PASSWORD: u32 = 0x4000_0009;
/// Bit 0 of a session's attributes: the session lives on after the command.
const CONTINUE: u8 = 1;

/// The handle of a policy session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySession(pub u32);

/// What allows a command to use what its handle names.
#[derive(Clone, Copy)]
pub enum Authorization<'a> {
    /// The authorisation value itself; empty where none was set.
    Password(&'a [u8]),
    /// A policy session. The TPM ends it with the command when that succeeds.
    Policy(PolicySession),
}

/// A command under construction: handles first, then the authorisation, then parameters.
pub(crate) struct Command {
    name: &'static str,
    bytes: Zeroizing<Vec<u8>>,
    sessions: bool,
    too_long: bool,
}

impl Command {
    pub fn new(name: &'static str, code: u32) -> Command {
        // All at once: a buffer that grows leaves copies of secrets behind.
        let mut command =
            Command { name, bytes: Zeroizing::new(Vec::with_capacity(MAXIMUM)), sessions: false, too_long: false };
        command.put(&NO_SESSIONS.to_be_bytes());
        command.put(&[0; 4]);
        command.put(&code.to_be_bytes());
        command
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > MAXIMUM {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Command {
        self.put(bytes);
        self
    }

    pub fn u8(self, value: u8) -> Command {
        self.bytes(&[value])
    }

    pub fn u16(self, value: u16) -> Command {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u32(self, value: u32) -> Command {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u64(self, value: u64) -> Command {
        self.bytes(&value.to_be_bytes())
    }

    /// A `TPM2B`: two bytes of length, then the bytes.
    pub fn sized(mut self, bytes: &[u8]) -> Command {
        let Ok(length) = u16::try_from(bytes.len()) else {
            self.too_long = true;
            return self;
        };
        self.u16(length).bytes(bytes)
    }

    /// The authorisation area, of one session.
    pub fn authorized(mut self, authorization: Authorization<'_>) -> Command {
        self.sessions = true;
        self.bytes[..2].copy_from_slice(&SESSIONS.to_be_bytes());
        let (handle, attributes, value) = match authorization {
            Authorization::Password(value) => (PASSWORD, CONTINUE, value),
            // Without `CONTINUE`; a policy that asks for no authorisation value needs no HMAC either (part 1, 19.6.5).
            Authorization::Policy(PolicySession(handle)) => (handle, 0, &[][..]),
        };
        // handle 4, empty nonce 2, attributes 1, length 2, value
        let Ok(size) = u32::try_from(9 + value.len()) else {
            self.too_long = true;
            return self;
        };
        self.u32(size).u32(handle).u16(0).u8(attributes).sized(value)
    }

    /// Sends it, again when the TPM had no time, and reads the answer's frame.
    pub fn run<T: Tpm + ?Sized>(mut self, tpm: &mut T, handle: HandleExpected) -> Result<Response, TpmError> {
        let command = self.name;
        if self.too_long {
            return Err(TpmError::TooLong { command });
        }
        // At most `MAXIMUM`.
        let length = self.bytes.len() as u32;
        self.bytes[2..6].copy_from_slice(&length.to_be_bytes());
        let mut buffer = Zeroizing::new([0; MAXIMUM]);
        let mut attempt = 0;
        loop {
            buffer.zeroize();
            let length = tpm
                .exchange(&self.bytes, &mut buffer)
                .map_err(|error| TpmError::Transport { command, reason: format!("{error}") })?;
            let bytes = buffer.get(..length).ok_or(TpmError::Malformed { command, what: "longer than its buffer" })?;
            match Response::parse(command, bytes, handle, self.sessions) {
                Err(TpmError::Refused { code, .. }) if code.is_passing() && attempt + 1 < ATTEMPTS => {
                    tpm.wait(attempt);
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

/// Whether the answer to a command starts with a handle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleExpected {
    Yes,
    No,
}

/// An answer that is no refusal, its frame taken off.
pub(crate) struct Response {
    command: &'static str,
    handle: u32,
    parameters: Zeroizing<Vec<u8>>,
}

impl Response {
    fn parse(command: &'static str, bytes: &[u8], handle: HandleExpected, sessions: bool) -> Result<Response, TpmError> {
        let mut reader = Reader { command, rest: bytes };
        let tag = reader.u16()?;
        if reader.u32()? as usize != bytes.len() {
            return Err(reader.malformed("its length is not what it says"));
        }
        let code = reader.u32()?;
        if code != 0 {
            return Err(TpmError::Refused { command, code: ResponseCode(code) });
        }
        if tag != if sessions { SESSIONS } else { NO_SESSIONS } {
            return Err(reader.malformed("its tag"));
        }
        let handle = if handle == HandleExpected::Yes { reader.u32()? } else { 0 };
        let parameters = if sessions {
            let size = reader.u32()? as usize;
            let parameters = reader.take(size)?;
            // The session's nonce, attributes and HMAC: of a password and of a policy without HMAC they say nothing.
            reader.sized()?;
            reader.u8()?;
            reader.sized()?;
            reader.end()?;
            parameters
        } else {
            reader.rest
        };
        Ok(Response { command, handle, parameters: Zeroizing::new(parameters.to_vec()) })
    }

    pub fn handle(&self) -> u32 {
        self.handle
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { command: self.command, rest: &self.parameters }
    }

    /// For answers without parameters.
    pub fn empty(&self) -> Result<(), TpmError> {
        self.reader().end()
    }
}

/// Reads from the front of bytes that came from outside.
pub(crate) struct Reader<'a> {
    pub command: &'static str,
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn malformed(&self, what: &'static str) -> TpmError {
        TpmError::Malformed { command: self.command, what }
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], TpmError> {
        let (front, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed("it ends too early"))?;
        self.rest = rest;
        Ok(front)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let (front, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*front)
    }

    pub fn u8(&mut self) -> Result<u8, TpmError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `TPM2B`.
    pub fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A `TPM2B` of exactly so many bytes.
    pub fn sized_array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let bytes = self.sized()?;
        bytes.try_into().map_err(|_| self.malformed("a value has an unexpected size"))
    }

    /// A `TPM2B` of at most so many bytes that is a number: zeros are put in front.
    pub fn sized_number<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let bytes = self.sized()?;
        let mut number = [0; N];
        let at = N.checked_sub(bytes.len()).ok_or_else(|| self.malformed("a number is too large"))?;
        number[at..].copy_from_slice(bytes);
        Ok(number)
    }

    pub fn end(&self) -> Result<(), TpmError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("it goes on behind its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one after the other; the commands it got.
    struct Script(Vec<Vec<u8>>, Vec<Vec<u8>>);

    impl Tpm for Script {
        type Error = &'static str;

        fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, &'static str> {
            self.1.push(command.to_vec());
            if self.0.is_empty() {
                return Err("the cable is cut");
            }
            let answer = self.0.remove(0);
            response[..answer.len()].copy_from_slice(&answer);
            Ok(answer.len())
        }
    }

    fn answer(code: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 1, 0, 0, 0, 10];
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes
    }

    fn flush(tpm: &mut Script) -> Result<Response, TpmError> {
        Command::new("FlushContext", 0x165).u32(7).run(tpm, HandleExpected::No)
    }

    #[test]
    fn a_busy_tpm_is_asked_again_but_not_for_ever() {
        let busy = || answer(ResponseCode::RETRY.0);
        let mut tpm = Script(vec![busy(), answer(ResponseCode::YIELDED.0), answer(0)], vec![]);
        assert!(flush(&mut tpm).is_ok());
        assert_eq!(tpm.1.len(), 3);
        assert_eq!(tpm.1[0], [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0, 0, 0, 7]);
        assert_eq!(tpm.1[0], tpm.1[2]);
        let mut tpm = Script(core::iter::repeat_with(busy).take(100).collect(), vec![]);
        assert!(flush(&mut tpm).is_err_and(|error| error.is(ResponseCode::RETRY)));
        assert_eq!(tpm.1.len(), ATTEMPTS as usize);
    }

    #[test]
    fn a_password_stands_between_handles_and_parameters() {
        let sessions = |mut bytes: Vec<u8>| {
            bytes[1] = 2;
            bytes[5] = 19;
            bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0, 0]);
            bytes
        };
        let mut tpm = Script(vec![sessions(answer(0))], vec![]);
        let command = Command::new("x", 0x127).u32(0x4000_000a).authorized(Authorization::Password(b"ab")).u8(1);
        assert!(command.run(&mut tpm, HandleExpected::No).is_ok());
        let expected = "80020000001e00000127".to_owned()
            + "4000000a"
            + "0000000b"
            + "40000009"
            + "0000"
            + "01"
            + "0002"
            + "6162"
            + "01";
        assert_eq!(hex::encode(&tpm.1[0]), expected);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let mut long = answer(0);
        long.push(0);
        for (bytes, what) in
            [(vec![], "early"), (vec![0x80], "early"), (long, "length"), (vec![0x80, 1, 0, 0, 0, 9, 0, 0, 0], "early")]
        {
            let mut tpm = Script(vec![bytes], vec![]);
            let error = flush(&mut tpm).err().unwrap().to_string();
            assert!(error.contains(what) && error.contains("FlushContext"), "{error}");
        }
        let error = flush(&mut Script(vec![], vec![])).err().unwrap().to_string();
        assert!(error.contains("the cable is cut"), "{error}");
    }

    #[test]
    fn a_short_number_gets_zeros_in_front_and_a_long_one_is_refused() {
        let number = |bytes: &[u8]| Reader { command: "x", rest: bytes }.sized_number::<4>();
        assert_eq!(number(&[0, 2, 1, 2]), Ok([0, 0, 1, 2]));
        assert_eq!(number(&[0, 4, 1, 2, 3, 4]), Ok([1, 2, 3, 4]));
        assert_eq!(number(&[0, 0]), Ok([0; 4]));
        assert!(number(&[0, 5, 0, 1, 2, 3, 4]).is_err());
        assert!(number(&[0, 2, 1]).is_err());
    }

    #[test]
    fn a_command_that_is_too_long_is_not_sent() {
        let mut tpm = Script(vec![answer(0)], vec![]);
        let result = Command::new("x", 1).bytes(&[0; MAXIMUM - 9]).run(&mut tpm, HandleExpected::No);
        assert!(matches!(result, Err(TpmError::TooLong { .. })));
        assert!(Command::new("x", 1).bytes(&[0; MAXIMUM - 10]).run(&mut tpm, HandleExpected::No).is_ok());
        assert!(matches!(
            Command::new("x", 1).sized(&[0; 70000]).run(&mut tpm, HandleExpected::No),
            Err(TpmError::TooLong { .. })
        ));
        assert_eq!(tpm.1.len(), 1);
    }
}

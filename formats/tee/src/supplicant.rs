//! What the secure world asks of the normal one (`core/include/optee_rpc_cmd.h`, OP-TEE 4.10), as Linux hands it to whoever has
//! `/dev/teepriv0` open: memory that both see, and files for its secure storage.
//!
//! What is in the files is encrypted and authenticated in the secure world; their names say nothing. So this needs to be
//! durable and correct, not secret. A name is nevertheless no path of ours until [`file_name`] let it through.

use crate::call::{META, Memory, PARAMETER_SIZE, PARAMETERS, Parameter};
use crate::{Code, Malformed, u32_at};
use alloc::vec::Vec;

/// Longest name of a file with its final NUL, bytes (`TEE_FS_NAME_MAX`).
pub const NAME: usize = 350;
/// Bytes of `struct tee_iocl_supp_recv_arg` and `tee_iocl_supp_send_arg` without parameters.
const HEADER: usize = 8;
/// `OPTEE_RPC_SHM_TYPE_APPL`: memory that a program has mapped.
const FOR_PROGRAMS: u64 = 0;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Memory of so many bytes that both worlds see.
    Allocate(u64),
    /// That memory is not needed any more.
    Free(u64),
    /// Something with files.
    File(FileCall),
    /// Anything else.
    Unknown,
}

/// Something with files. Names lie in memory, as [`file_name`] reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCall {
    /// Opens a file that is there.
    Open(Memory),
    /// Makes a file, or empties it.
    Create(Memory),
    /// Forgets a handle.
    Close(u32),
    /// Reads from a place on, as much as there is and fits.
    Read {
        /// Which file.
        handle: u32,
        /// From where, bytes.
        offset: u64,
        /// Where to.
        into: Memory,
    },
    /// Writes all of it; it must be durable before the answer.
    Write {
        /// Which file.
        handle: u32,
        /// To where, bytes.
        offset: u64,
        /// What.
        from: Memory,
    },
    /// Sets a file's length, bytes.
    Truncate(u32, u64),
    /// Removes a file.
    Remove(Memory),
    /// Gives a file another name.
    Rename {
        /// Whether a file that has the new name gives way.
        replace: bool,
        /// The old name.
        from: Memory,
        /// The new one.
        to: Memory,
    },
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Belongs to the message: it goes back as it came.
    meta: Option<Parameter>,
    parameters: Vec<Parameter>,
    /// What is asked.
    pub call: Call,
}

/// What a request is answered with, beside its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// The handle of an opened file.
    Handle(u32),
    /// How many bytes were read.
    Length(u64),
    /// The number of allocated memory.
    Memory(u64),
}

/// An empty message, as Linux wants it to put a request into.
pub fn receive() -> Vec<u8> {
    let count = PARAMETERS + 1;
    let mut bytes = Vec::with_capacity(HEADER + count * PARAMETER_SIZE);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(count as u32).to_le_bytes());
    Parameter::None.encode(META, &mut bytes);
    for _ in 0..PARAMETERS {
        Parameter::None.encode(0, &mut bytes);
    }
    bytes
}

impl Request {
    /// Understands a message that Linux put a request into.
    ///
    /// # Errors
    /// When it is damaged. What is asked may still be [`Call::Unknown`].
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let number = |at| u32_at(bytes, at).ok_or(Malformed("a request is cut off"));
        let (function, count) = (number(0)?, number(4)? as usize);
        if count > PARAMETERS + 1 {
            return Err(Malformed("a request has too many parameters"));
        }
        let (mut meta, mut parameters) = (None, Vec::with_capacity(count));
        for index in 0..count {
            let (parameter, is_meta) = Parameter::decode(bytes, HEADER + index * PARAMETER_SIZE)?;
            match (is_meta, index) {
                (true, 0) => meta = Some(parameter),
                (true, _) => return Err(Malformed("a request belongs to more than one message")),
                (false, _) => parameters.push(parameter),
            }
        }
        let call = call(function, &parameters);
        Ok(Request { meta, parameters, call })
    }

    /// The message that answers it.
    pub fn answer(&self, code: Code, value: Value) -> Vec<u8> {
        let count = self.parameters.len() + usize::from(self.meta.is_some());
        let mut bytes = Vec::with_capacity(HEADER + count * PARAMETER_SIZE);
        for number in [code.0, count as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(meta) = self.meta {
            meta.encode(META, &mut bytes);
        }
        for &parameter in &self.parameters {
            let parameter = match (parameter, value) {
                (Parameter::Output(..), Value::Handle(handle)) => Parameter::Output(handle.into(), 0, 0),
                (Parameter::Written(memory), Value::Length(size)) => Parameter::Written(Memory { size, ..memory }),
                // Nothing was read: nothing may be taken for it.
                (Parameter::Written(memory), _) => Parameter::Written(Memory { size: 0, ..memory }),
                (Parameter::Both(a, b, _), Value::Memory(id)) => Parameter::Both(a, b, id),
                (other, _) => other,
            };
            parameter.encode(0, &mut bytes);
        }
        bytes
    }
}

fn call(function: u32, parameters: &[Parameter]) -> Call {
    let handle = |number: u64| u32::try_from(number).ok();
    match (function, parameters) {
        (2, [Parameter::Input(what, a, b), rest @ ..]) => match (what, rest) {
            (0, [Parameter::Read(name), Parameter::Output(..)]) => Some(FileCall::Open(*name)),
            (1, [Parameter::Read(name), Parameter::Output(..)]) => Some(FileCall::Create(*name)),
            (2, []) => handle(*a).map(FileCall::Close),
            (3, [Parameter::Written(into)]) => handle(*a).map(|handle| FileCall::Read { handle, offset: *b, into: *into }),
            (4, [Parameter::Read(from)]) => handle(*a).map(|handle| FileCall::Write { handle, offset: *b, from: *from }),
            (5, []) => handle(*a).map(|handle| FileCall::Truncate(handle, *b)),
            (6, [Parameter::Read(name)]) => Some(FileCall::Remove(*name)),
            (7, [Parameter::Read(from), Parameter::Read(to)]) => {
                Some(FileCall::Rename { replace: *a != 0, from: *from, to: *to })
            }
            _ => None,
        }
        .map_or(Call::Unknown, Call::File),
        (6, [Parameter::Both(FOR_PROGRAMS, size, _)]) => Call::Allocate(*size),
        (7, [Parameter::Both(FOR_PROGRAMS, id, _) | Parameter::Input(FOR_PROGRAMS, id, _)]) => Call::Free(*id),
        _ => Call::Unknown,
    }
}

/// The name of a file in memory: up to the first NUL, without the first slash; letters, digits, `.`, `_` and `-`, and no dot in
/// front. So it can be a file's name in one directory, and nothing else.
pub fn file_name(memory: &[u8]) -> Option<&str> {
    let end = memory.iter().take(NAME).position(|&byte| byte == 0)?;
    let name = core::str::from_utf8(memory.get(..end)?).ok()?;
    let name = name.strip_prefix('/').unwrap_or(name);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as Linux makes it.
    fn message(function: u32, parameters: &[Parameter]) -> Vec<u8> {
        let mut bytes = function.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(parameters.len() as u32 + 1).to_le_bytes());
        Parameter::Both(42, 0, 0).encode(META, &mut bytes);
        parameters.iter().for_each(|parameter| parameter.encode(0, &mut bytes));
        bytes.resize(receive().len(), 0);
        bytes
    }

    const MEMORY: Memory = Memory { id: 1, offset: 0, size: 350 };

    #[test]
    fn room_for_a_request_is_what_linux_wants() {
        let bytes = receive();
        assert_eq!(bytes.len(), 8 + 5 * 32);
        assert_eq!(bytes[4..16], [5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_request_is_answered_with_what_it_came_with() {
        let output = Parameter::Output(0, 0, 0);
        let request = Request::decode(&message(2, &[Parameter::Input(0, 0, 0), Parameter::Read(MEMORY), output])).unwrap();
        assert_eq!(request.call, Call::File(FileCall::Open(MEMORY)));
        let answer = request.answer(Code::SUCCESS, Value::Handle(7));
        assert_eq!(answer.len(), 8 + 4 * 32);
        assert_eq!(answer[..8], [0, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(Parameter::decode(&answer, 8), Ok((Parameter::Both(42, 0, 0), true)));
        assert_eq!(Parameter::decode(&answer, 8 + 96), Ok((Parameter::Output(7, 0, 0), false)));
        let refused = request.answer(Code::NOT_FOUND, Value::None);
        assert_eq!(refused[..4], [8, 0, 0xff, 0xff]);
    }

    #[test]
    fn what_was_read_is_said_and_nothing_when_it_failed() {
        let request = Request::decode(&message(2, &[Parameter::Input(3, 5, 4096), Parameter::Written(MEMORY)])).unwrap();
        assert_eq!(request.call, Call::File(FileCall::Read { handle: 5, offset: 4096, into: MEMORY }));
        let size = |answer: Vec<u8>| match Parameter::decode(&answer, 8 + 64).unwrap().0 {
            Parameter::Written(memory) => memory.size,
            other => panic!("{other:?}"),
        };
        assert_eq!(size(request.answer(Code::SUCCESS, Value::Length(17))), 17);
        assert_eq!(size(request.answer(Code::GENERIC, Value::None)), 0);
    }

    #[test]
    fn memory_is_for_programs_alone() {
        let both = |kind| Request::decode(&message(6, &[Parameter::Both(kind, 8192, 0)])).unwrap();
        assert_eq!(both(0).call, Call::Allocate(8192));
        assert_eq!(both(1).call, Call::Unknown);
        let answer = both(0).answer(Code::SUCCESS, Value::Memory(9));
        assert_eq!(Parameter::decode(&answer, 8 + 32), Ok((Parameter::Both(0, 8192, 9), false)));
        assert_eq!(Request::decode(&message(7, &[Parameter::Both(0, 9, 0)])).unwrap().call, Call::Free(9));
        // A trusted application from the normal world's disk, RPMB: not here.
        assert_eq!(Request::decode(&message(0, &[Parameter::Input(0, 0, 0)])).unwrap().call, Call::Unknown);
    }

    #[test]
    fn a_damaged_request_is_an_error_and_no_harm() {
        let whole = message(2, &[Parameter::Input(7, 1, 0), Parameter::Read(MEMORY), Parameter::Read(MEMORY)]);
        for length in 0..8 + 4 * 32 {
            assert!(Request::decode(&whole[..length]).is_err());
        }
        let mut many = whole.clone();
        many[4] = 6;
        assert!(Request::decode(&many).is_err());
        let mut twice = whole.clone();
        twice[8 + 32 + 1] = 1;
        assert!(Request::decode(&twice).is_err());
        assert!(matches!(Request::decode(&whole).unwrap().call, Call::File(FileCall::Rename { replace: true, .. })));
    }

    #[test]
    fn a_file_s_name_stays_in_its_directory() {
        assert_eq!(file_name(b"/dirf.db\0rest"), Some("dirf.db"));
        assert_eq!(file_name(b"1a\0"), Some("1a"));
        for name in ["/../x\0", "/\0", "\0", "a/b\0", "//a\0", ".\0", "/.hidden\0", "no end", "a\u{e4}\0", "a b\0"] {
            assert_eq!(file_name(name.as_bytes()), None, "{name}");
        }
        let mut long = vec![b'a'; NAME];
        long.push(0);
        assert_eq!(file_name(&long), None);
        assert!(file_name(&long[2..]).is_some());
    }
}

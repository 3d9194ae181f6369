//! Sessions with trusted applications and commands to them: the structures of `include/uapi/linux/tee.h`, Linux 6.12, in the
//! byte order of arm64 (little).

use crate::{Code, Malformed, Uuid, u32_at, u64_at};
use alloc::vec::Vec;

/// `TEE_IOC_VERSION`: [`VERSION_SIZE`] bytes, written.
pub const VERSION: u32 = 0x800c_a400;
/// `TEE_IOC_SHM_ALLOC`: [`allocation`], read and written; the result is a file to map.
pub const ALLOCATE: u32 = 0xc010_a401;
/// `TEE_IOC_OPEN_SESSION`: a [`reference`](reference()) to [`open`].
pub const OPEN_SESSION: u32 = 0x8010_a402;
/// `TEE_IOC_INVOKE`: a [`reference`](reference()) to [`invoke`].
pub const INVOKE: u32 = 0x8010_a403;
/// `TEE_IOC_CLOSE_SESSION`: the session's number, 4 bytes.
pub const CLOSE_SESSION: u32 = 0x8004_a405;
/// `TEE_IOC_SUPPL_RECV`: a [`reference`](reference()) to [`crate::supplicant::receive`].
pub const RECEIVE: u32 = 0x8010_a406;
/// `TEE_IOC_SUPPL_SEND`: a [`reference`](reference()) to [`crate::supplicant::Request::answer`].
pub const SEND: u32 = 0x8010_a407;

/// Bytes of `struct tee_ioctl_version_data`.
pub const VERSION_SIZE: usize = 12;
/// Parameters that a command has at most.
pub const PARAMETERS: usize = 4;
/// Bytes of `struct tee_ioctl_param`.
pub(crate) const PARAMETER_SIZE: usize = 32;
/// Bytes of `struct tee_ioctl_open_session_arg` without parameters.
const OPEN_HEADER: usize = 56;
/// Bytes of `struct tee_ioctl_invoke_arg` without parameters.
const INVOKE_HEADER: usize = 24;

/// A part of memory that both worlds see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Which memory: the number that [`allocated`] gave.
    pub id: u64,
    /// From its start, bytes.
    pub offset: u64,
    /// How much of it, bytes. After a command: how much was written.
    pub size: u64,
}

/// One of a command's parameters (`struct tee_ioctl_param`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// None.
    None,
    /// Numbers for the other side.
    Input(u64, u64, u64),
    /// Numbers from the other side.
    Output(u64, u64, u64),
    /// Both.
    Both(u64, u64, u64),
    /// Memory that the other side reads.
    Read(Memory),
    /// Memory that it writes.
    Written(Memory),
    /// Memory that it does both with.
    Shared(Memory),
}

/// The attribute of a parameter that belongs to the message and not to its command.
pub(crate) const META: u64 = 0x100;

impl Parameter {
    pub(crate) fn encode(self, meta: u64, to: &mut Vec<u8>) {
        let memory = |kind, Memory { id, offset, size }| (kind, offset, size, id);
        let (kind, a, b, c) = match self {
            Self::None => (0, 0, 0, 0),
            Self::Input(a, b, c) => (1, a, b, c),
            Self::Output(a, b, c) => (2, a, b, c),
            Self::Both(a, b, c) => (3, a, b, c),
            Self::Read(part) => memory(5, part),
            Self::Written(part) => memory(6, part),
            Self::Shared(part) => memory(7, part),
        };
        for number in [kind | meta, a, b, c] {
            to.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// The parameter at `at`, and whether it belongs to the message.
    pub(crate) fn decode(bytes: &[u8], at: usize) -> Result<(Self, bool), Malformed> {
        let number = |index: usize| u64_at(bytes, at + 8 * index).ok_or(Malformed("a parameter is cut off"));
        let (kind, a, b, c) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let memory = Memory { id: c, offset: a, size: b };
        let parameter = match kind & !META {
            0 => Self::None,
            1 => Self::Input(a, b, c),
            2 => Self::Output(a, b, c),
            3 => Self::Both(a, b, c),
            5 => Self::Read(memory),
            6 => Self::Written(memory),
            7 => Self::Shared(memory),
            _ => return Err(Malformed("a parameter is of no known kind")),
        };
        Ok((parameter, kind & META != 0))
    }
}

/// `struct tee_ioctl_buf_data`: where a message lies and how long it is.
pub fn reference(address: u64, length: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

/// `struct tee_ioctl_shm_alloc_data` for memory of `size` bytes.
pub fn allocation(size: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// What became of an [`allocation`]: the memory's number and its size, bytes.
pub fn allocated(bytes: &[u8; 16]) -> (i32, u64) {
    let [a, b, c, d, e, f, g, h, _, _, _, _, i, j, k, l] = *bytes;
    (i32::from_le_bytes([i, j, k, l]), u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// Whether `struct tee_ioctl_version_data` is OP-TEE's (`TEE_IMPL_ID_OPTEE`).
pub fn is_op_tee(version: &[u8; VERSION_SIZE]) -> bool {
    version.starts_with(&1u32.to_le_bytes())
}

fn numbers(to: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
}

fn parameters(to: &mut Vec<u8>, all: &[Parameter; PARAMETERS]) {
    all.iter().for_each(|parameter| parameter.encode(0, to));
}

/// `struct tee_ioctl_open_session_arg`: a session with the trusted application `uuid`, as nobody in particular.
pub fn open(uuid: &Uuid) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OPEN_HEADER + PARAMETERS * PARAMETER_SIZE);
    bytes.extend_from_slice(uuid);
    bytes.extend_from_slice(&[0; 16]);
    // Login (public), cancellation number, session, result, origin, parameters.
    numbers(&mut bytes, &[0, 0, 0, 0, 0, PARAMETERS as u32]);
    parameters(&mut bytes, &[Parameter::None; PARAMETERS]);
    bytes
}

/// The session that was opened.
///
/// # Errors
/// Inside, what the secure world answered instead of success; outside, when the message is cut off.
pub fn opened(bytes: &[u8]) -> Result<Result<u32, Code>, Malformed> {
    let number = |at| u32_at(bytes, at).ok_or(Malformed("a session's answer is cut off"));
    let (session, code) = (number(40)?, Code(number(44)?));
    Ok(if code == Code::SUCCESS { Ok(session) } else { Err(code) })
}

/// `struct tee_ioctl_invoke_arg`: a command in a session.
pub fn invoke(session: u32, command: u32, all: &[Parameter; PARAMETERS]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(INVOKE_HEADER + PARAMETERS * PARAMETER_SIZE);
    numbers(&mut bytes, &[command, session, 0, 0, 0, PARAMETERS as u32]);
    parameters(&mut bytes, all);
    bytes
}

/// The parameters of a command after it was carried out.
///
/// # Errors
/// Inside, what the trusted application or OP-TEE answered instead of success; outside, when the message is damaged.
pub fn invoked(bytes: &[u8]) -> Result<Result<[Parameter; PARAMETERS], Code>, Malformed> {
    let code = Code(u32_at(bytes, 12).ok_or(Malformed("a command's answer is cut off"))?);
    if code != Code::SUCCESS {
        return Ok(Err(code));
    }
    let mut all = [Parameter::None; PARAMETERS];
    for (index, parameter) in all.iter_mut().enumerate() {
        *parameter = Parameter::decode(bytes, INVOKE_HEADER + index * PARAMETER_SIZE)?.0;
    }
    Ok(Ok(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_IOC(direction, 0xa4, number, size)` of `asm-generic/ioctl.h`.
    const fn command(direction: u32, number: u32, size: u32) -> u32 {
        direction << 30 | size << 16 | 0xa4 << 8 | number
    }

    #[test]
    fn the_commands_are_those_of_the_kernel_s_header() {
        assert_eq!(VERSION, command(2, 0, 12));
        assert_eq!(ALLOCATE, command(3, 1, 16));
        assert_eq!([OPEN_SESSION, INVOKE, CLOSE_SESSION], [command(2, 2, 16), command(2, 3, 16), command(2, 5, 4)]);
        assert_eq!([RECEIVE, SEND], [command(2, 6, 16), command(2, 7, 16)]);
    }

    #[test]
    fn a_session_is_asked_for_by_uuid_and_its_number_read() {
        let mut message = open(&[7; 16]);
        assert_eq!(message.len(), 56 + 4 * 32);
        assert_eq!(message[..16], [7; 16]);
        assert_eq!(message[52..56], [4, 0, 0, 0]);
        message[40] = 9;
        assert_eq!(opened(&message), Ok(Ok(9)));
        message[44..48].copy_from_slice(&0xffff_0008u32.to_le_bytes());
        assert_eq!(opened(&message), Ok(Err(Code::NOT_FOUND)));
        assert!(opened(&message[..47]).is_err());
    }

    #[test]
    fn a_command_s_parameters_come_back_as_they_went() {
        let memory = Memory { id: 3, offset: 4096, size: 77 };
        let all =
            [Parameter::Input(1, 2, 3), Parameter::Output(0, 0, 0), Parameter::Read(memory), Parameter::Written(memory)];
        let mut message = invoke(5, 6, &all);
        assert_eq!(message[..8], [6, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(message.len(), 24 + 4 * 32);
        assert_eq!(invoked(&message), Ok(Ok(all)));
        // The layout: kind, then for memory offset, size, number.
        assert_eq!(message[24 + 64..24 + 96], [[5u64, 4096, 77, 3].map(u64::to_le_bytes).concat()].concat());
        message[24 + 32 + 8] = 8;
        assert_eq!(invoked(&message).unwrap().unwrap()[1], Parameter::Output(8, 0, 0));
        assert!(invoked(&message[..24 + 127]).is_err());
        message[24] = 4;
        assert!(invoked(&message).is_err());
        message[12..16].copy_from_slice(&0xffff_000fu32.to_le_bytes());
        assert_eq!(invoked(&message), Ok(Err(Code::SECURITY)));
    }

    #[test]
    fn memory_is_known_by_the_number_that_the_kernel_gave() {
        let mut bytes = allocation(4096);
        bytes[12] = 5;
        assert_eq!(allocated(&bytes), (5, 4096));
        assert_eq!(reference(1, 2)[..], [1u64, 2].map(u64::to_le_bytes).concat());
    }
}

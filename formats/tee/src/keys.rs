//! What a device key needs of OP-TEE's trusted application PKCS#11 (`ta/pkcs11/include/pkcs11_ta.h`, OP-TEE 4.10; names as in
//! PKCS#11 2.40): a P-256 key that is made inside, signs inside, and does not come out.
//!
//! Each command has up to three pieces of memory: 0 carries the arguments there and the result back (four bytes), 1 what is
//! signed, 2 what comes out.

use crate::{Malformed, Uuid, u32_at};
use alloc::vec::Vec;
use core::fmt;

/// fd02c9da-306c-48c7-a49c-bbd827ae86ee.
pub const APPLICATION: Uuid =
    [0xfd, 0x02, 0xc9, 0xda, 0x30, 0x6c, 0x48, 0xc7, 0xa4, 0x9c, 0xbb, 0xd8, 0x27, 0xae, 0x86, 0xee];

/// A result of the trusted application; 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Result32(pub u32);

impl Result32 {
    /// `CKR_OK`.
    pub const OK: Self = Self(0);
    /// `CKR_USER_ALREADY_LOGGED_IN`.
    pub const ALREADY_LOGGED_IN: Self = Self(0x100);
}

impl fmt::Display for Result32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "success",
            0x82 => "there is no such key",
            0xa0 | 0xa1 | 0xa4 => "the PIN is another one",
            0xe0 | 0xe1 => "the token was never set up",
            0x101 => "nobody is logged in",
            0x102 => "the PIN was never set",
            _ => return write!(f, "PKCS#11 result {:#x}", self.0),
        };
        write!(f, "{name} (PKCS#11 result {:#x})", self.0)
    }
}

/// A command: its number, its arguments, what is signed, and how many bytes come out at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its number.
    pub number: u32,
    /// For memory 0.
    pub arguments: Vec<u8>,
    /// For memory 1.
    pub data: Vec<u8>,
    /// Size of memory 2, bytes; none when 0.
    pub output: usize,
}

/// Who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum User {
    /// `CKU_SO`, who sets the token up.
    Officer = 0,
    /// `CKU_USER`, who uses the key.
    User = 1,
}

const PRIVATE_KEY: u32 = 3;
const PUBLIC_KEY: u32 = 2;
const EC: u32 = 3;
const MAKE_EC_KEY: u32 = 0x1040;
const ECDSA: u32 = 0x1041;
/// The object identifier of P-256, 1.2.840.10045.3.1.7, in DER.
const P256: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// `CKA_…`.
mod attribute {
    pub const CLASS: u32 = 0;
    pub const TOKEN: u32 = 1;
    pub const PRIVATE: u32 = 2;
    pub const LABEL: u32 = 3;
    pub const KEY_TYPE: u32 = 0x100;
    pub const ID: u32 = 0x102;
    pub const SENSITIVE: u32 = 0x103;
    pub const SIGN: u32 = 0x108;
    pub const VERIFY: u32 = 0x10a;
    pub const EXTRACTABLE: u32 = 0x162;
    pub const EC_PARAMS: u32 = 0x180;
    pub const EC_POINT: u32 = 0x181;
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// `struct pkcs11_object_head` and the attributes.
fn object(attributes: &[(u32, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (id, value) in attributes {
        list.extend(words(&[*id, value.len() as u32]));
        list.extend_from_slice(value);
    }
    let mut bytes = words(&[list.len() as u32, attributes.len() as u32]);
    bytes.extend(list);
    bytes
}

fn command(number: u32, arguments: Vec<u8>, output: usize) -> Command {
    Command { number, arguments, data: Vec::new(), output }
}

/// Sets a token up, emptying it (`C_InitToken`).
pub fn init_token(slot: u32, pin: &[u8], label: &[u8; 32]) -> Command {
    let mut arguments = words(&[slot, pin.len() as u32]);
    arguments.extend_from_slice(label);
    arguments.extend_from_slice(pin);
    command(10, arguments, 0)
}

/// Opens a session that may write (`C_OpenSession`); [`handle`] understands the answer.
pub fn open_session(slot: u32) -> Command {
    const SERIAL: u32 = 1 << 2;
    const WRITABLE: u32 = 1 << 1;
    command(6, words(&[slot, SERIAL | WRITABLE]), 4)
}

/// Closes a session (`C_CloseSession`).
pub fn close_session(session: u32) -> Command {
    command(7, words(&[session]), 0)
}

/// Logs in (`C_Login`).
pub fn login(session: u32, user: User, pin: &[u8]) -> Command {
    let mut arguments = words(&[session, user as u32, pin.len() as u32]);
    arguments.extend_from_slice(pin);
    command(13, arguments, 0)
}

/// Logs out (`C_Logout`).
pub fn logout(session: u32) -> Command {
    command(14, words(&[session]), 0)
}

/// Sets the user's PIN, as the officer (`C_InitPIN`).
pub fn init_pin(session: u32, pin: &[u8]) -> Command {
    let mut arguments = words(&[session, pin.len() as u32]);
    arguments.extend_from_slice(pin);
    command(11, arguments, 0)
}

/// Makes a P-256 key that stays (`C_GenerateKeyPair`). The private half is sensitive and not extractable.
pub fn make_key(session: u32, name: &[u8]) -> Command {
    let mut arguments = words(&[session, MAKE_EC_KEY, 0]);
    arguments.extend(object(&[
        (attribute::CLASS, &PUBLIC_KEY.to_le_bytes()),
        (attribute::KEY_TYPE, &EC.to_le_bytes()),
        (attribute::TOKEN, &[1]),
        (attribute::VERIFY, &[1]),
        (attribute::LABEL, name),
        (attribute::ID, name),
        (attribute::EC_PARAMS, &P256),
    ]));
    arguments.extend(object(&[
        (attribute::CLASS, &PRIVATE_KEY.to_le_bytes()),
        (attribute::KEY_TYPE, &EC.to_le_bytes()),
        (attribute::TOKEN, &[1]),
        (attribute::PRIVATE, &[1]),
        (attribute::SENSITIVE, &[1]),
        (attribute::EXTRACTABLE, &[0]),
        (attribute::SIGN, &[1]),
        (attribute::LABEL, name),
        (attribute::ID, name),
    ]));
    command(50, arguments, 8)
}

/// Which half of a key is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// What verifies.
    Public,
    /// What signs.
    Private,
}

/// The three commands that look for a key by name (`C_FindObjectsInit`, `C_FindObjects`, `C_FindObjectsFinal`); the answer to the
/// second is a [`handle`], or nothing.
pub fn find(session: u32, half: Half, name: &[u8]) -> [Command; 3] {
    let class = if half == Half::Public { PUBLIC_KEY } else { PRIVATE_KEY };
    let mut arguments = words(&[session]);
    arguments.extend(object(&[(attribute::CLASS, &class.to_le_bytes()), (attribute::TOKEN, &[1]), (attribute::ID, name)]));
    [command(34, arguments, 0), command(35, words(&[session]), 4), command(36, words(&[session]), 0)]
}

/// Asks for a public key's point (`C_GetAttributeValue`); [`point`] understands the answer.
pub fn read_point(session: u32, public: u32) -> Command {
    let mut arguments = words(&[session, public]);
    // The template has room for the value.
    arguments.extend(object(&[(attribute::EC_POINT, &[0; 67])]));
    let output = arguments.len() - 8;
    command(38, arguments, output)
}

/// Asks for an attribute that never leaves: the private value (`CKA_VALUE`). For tests, which want to be refused.
pub fn read_private_value(session: u32, private: u32) -> Command {
    const VALUE: u32 = 0x11;
    let mut arguments = words(&[session, private]);
    arguments.extend(object(&[(VALUE, &[0; 32])]));
    let output = arguments.len() - 8;
    command(38, arguments, output)
}

/// The two commands that sign a SHA-256 digest (`C_SignInit`, `C_Sign`); the answer to the second is a [`signature`].
pub fn sign(session: u32, private: u32, digest: &[u8; 32]) -> [Command; 2] {
    let begin = command(25, words(&[session, private, ECDSA, 0]), 0);
    [begin, Command { number: 31, arguments: words(&[session]), data: digest.to_vec(), output: 64 }]
}

/// The result in memory 0.
///
/// # Errors
/// When there is none.
pub fn result(memory: &[u8]) -> Result<Result32, Malformed> {
    u32_at(memory, 0).map(Result32).ok_or(Malformed("a PKCS#11 result is cut off"))
}

/// One handle in memory 2; none when it is empty.
///
/// # Errors
/// When it is cut off.
pub fn handle(output: &[u8]) -> Result<Option<u32>, Malformed> {
    if output.is_empty() {
        return Ok(None);
    }
    u32_at(output, 0).map(Some).ok_or(Malformed("a PKCS#11 handle is cut off"))
}

/// The point of a P-256 key, X and Y of 32 bytes each, in the answer to [`read_point`].
///
/// # Errors
/// When it is no uncompressed point of this curve, as a DER octet string.
pub fn point(output: &[u8]) -> Result<[u8; 64], Malformed> {
    let wrong = Malformed("a public key is no point of P-256");
    let number = |at| u32_at(output, at).ok_or(wrong);
    // Size and number of attributes, then identifier and size of the one.
    let (count, id, size) = (number(4)?, number(8)?, number(12)?);
    let value = output.get(16..).and_then(|rest| rest.get(..size as usize)).ok_or(wrong)?;
    match value {
        [4, 65, 4, point @ ..] if count == 1 && id == attribute::EC_POINT => point.try_into().map_err(|_| wrong),
        _ => Err(wrong),
    }
}

/// A signature, r and s of 32 bytes each, in memory 2.
///
/// # Errors
/// When it has another size.
pub fn signature(output: &[u8]) -> Result<[u8; 64], Malformed> {
    output.try_into().map_err(|_| Malformed("a signature has not 64 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_little_endian_words_and_then_bytes() {
        let command = login(7, User::User, b"pin");
        assert_eq!((command.number, command.output), (13, 0));
        assert_eq!(command.arguments, [&words(&[7, 1, 3])[..], b"pin"].concat());
        let token = init_token(0, b"so", &[b' '; 32]);
        assert_eq!(token.arguments.len(), 8 + 32 + 2);
        let [begin, sign] = sign(7, 9, &[1; 32]);
        assert_eq!(begin.arguments, words(&[7, 9, 0x1041, 0]));
        assert_eq!((sign.data.len(), sign.output), (32, 64));
    }

    #[test]
    fn an_object_says_how_many_attributes_it_has_and_how_long_they_are() {
        assert_eq!(object(&[]), [0; 8]);
        assert_eq!(object(&[(1, &[1]), (3, b"ab")]), [&words(&[19, 2, 1, 1])[..], &[1], &words(&[3, 2]), b"ab"].concat());
        let [begin, next, end] = find(7, Half::Private, b"device");
        assert_eq!([begin.number, next.number, end.number], [34, 35, 36]);
        assert!(begin.arguments.ends_with(b"device"));
        assert_eq!(next.output, 4);
    }

    #[test]
    fn a_point_is_taken_only_as_this_curve_has_them() {
        let mut answer = read_point(1, 2).arguments.split_off(8);
        assert_eq!(answer.len(), 16 + 67);
        assert!(point(&answer).is_err());
        answer[16..19].copy_from_slice(&[4, 65, 4]);
        answer[19..].fill(9);
        assert_eq!(point(&answer), Ok([9; 64]));
        for place in [4, 8, 12, 16, 17, 18] {
            let mut damaged = answer.clone();
            damaged[place] ^= 1;
            assert!(point(&damaged).is_err(), "{place}");
        }
        for length in 0..answer.len() {
            assert!(point(&answer[..length]).is_err());
        }
    }

    #[test]
    fn answers_are_read_with_bounds() {
        assert_eq!(result(&[0x82, 0, 0, 0]), Ok(Result32(0x82)));
        assert!(result(&[0; 3]).is_err());
        assert_eq!(handle(&[]), Ok(None));
        assert_eq!(handle(&[5, 0, 0, 0]), Ok(Some(5)));
        assert!(handle(&[5, 0, 0]).is_err());
        assert!(signature(&[0; 63]).is_err());
        assert_eq!(signature(&[1; 64]), Ok([1; 64]));
    }
}

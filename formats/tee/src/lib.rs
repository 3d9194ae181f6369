//! What goes between Linux and OP-TEE: calls of trusted applications, what the secure world asks of the normal one, and the
//! keeper, a trusted application of ours. Bytes and decisions alone; no I/O.
#![cfg_attr(not(test), no_std)]

#[cfg(feature = "messages")]
extern crate alloc;

#[cfg(feature = "messages")]
pub mod call;
pub mod keeper;
#[cfg(feature = "messages")]
pub mod supplicant;

use core::fmt;

/// The partition that holds the secure world's storage, by its name.
pub const STORE: &str = "secure-world";

/// A trusted application's UUID, its 16 bytes in the order of its text.
pub type Uuid = [u8; 16];

/// Bytes that are not what they must be, and what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an answer from the secure world is malformed: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// A result of the GlobalPlatform TEE specifications (Internal Core API 1.3, table 3-3); 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// `TEE_SUCCESS`.
    pub const SUCCESS: Code = Code(0);
    /// `TEE_ERROR_GENERIC`.
    pub const GENERIC: Code = Code(0xffff_0000);
    /// `TEE_ERROR_ACCESS_DENIED`.
    pub const ACCESS_DENIED: Code = Code(0xffff_0001);
    /// `TEE_ERROR_BAD_PARAMETERS`.
    pub const BAD_PARAMETERS: Code = Code(0xffff_0006);
    /// `TEE_ERROR_ITEM_NOT_FOUND`.
    pub const NOT_FOUND: Code = Code(0xffff_0008);
    /// `TEE_ERROR_NOT_SUPPORTED`.
    pub const NOT_SUPPORTED: Code = Code(0xffff_000a);
    /// `TEE_ERROR_OUT_OF_MEMORY`.
    pub const OUT_OF_MEMORY: Code = Code(0xffff_000c);
    /// `TEE_ERROR_SECURITY`.
    pub const SECURITY: Code = Code(0xffff_000f);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Code::SUCCESS => "success",
            Code::GENERIC => "generic error",
            Code::ACCESS_DENIED => "access denied",
            Code::BAD_PARAMETERS => "bad parameters",
            Code::NOT_FOUND => "not found",
            Code::NOT_SUPPORTED => "not supported",
            Code::OUT_OF_MEMORY => "out of memory",
            Code::SECURITY => "refused for security",
            Code(0xffff_000e) => "no answer from the normal world's helper",
            Code(0xffff_3024) => "the trusted application crashed",
            Code(0xf010_0001 | 0xf010_0002) => "stored data is corrupt",
            Code(0xffff_3041) => "no space in secure storage",
            _ => return write!(f, "{:#010x}", self.0),
        };
        write!(f, "{name} ({:#010x})", self.0)
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(feature = "messages")]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

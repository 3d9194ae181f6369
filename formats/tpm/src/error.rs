//! What can go wrong, in words.

use alloc::string::String;
use core::fmt;

/// Why a command gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmError {
    /// No answer came.
    Transport {
        /// The command.
        command: &'static str,
        /// What the way to the TPM said.
        reason: String,
    },
    /// The TPM refused.
    Refused {
        /// The command.
        command: &'static str,
        /// Its answer.
        code: ResponseCode,
    },
    /// The answer is not one to this command.
    Malformed {
        /// The command.
        command: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// The command would be longer than a TPM takes.
    TooLong {
        /// The command.
        command: &'static str,
    },
}

impl TpmError {
    /// Whether the TPM refused for this reason, whichever parameter or handle it names.
    pub fn is(&self, reason: ResponseCode) -> bool {
        matches!(self, TpmError::Refused { code, .. } if code.reason() == reason)
    }
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TpmError::Transport { command, reason } => write!(f, "no answer from the TPM to {command}: {reason}"),
            TpmError::Refused { command, code } => write!(f, "the TPM refuses {command}: {code}"),
            TpmError::Malformed { command, what } => write!(f, "the TPM's answer to {command} is not understood: {what}"),
            TpmError::TooLong { command } => write!(f, "{command} is longer than the TPM takes"),
        }
    }
}

impl core::error::Error for TpmError {}

/// A response code that is not success (part 2, 6.6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

/// Bit 7: the code has "format one" and says which handle, session or parameter it is about.
const FORMAT_ONE: u32 = 0x80;

macro_rules! codes {
    ($($name:ident = $code:literal: $words:literal,)*) => {
        impl ResponseCode {
            $(#[doc = $words] pub const $name: ResponseCode = ResponseCode($code);)*

            /// The specification's name without `TPM_RC_`, and what it means.
            fn described(self) -> Option<(&'static str, &'static str)> {
                match self.reason().0 {
                    $($code => Some((stringify!($name), $words)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    ATTRIBUTES = 0x082: "attributes that do not go together",
    VALUE = 0x084: "a value that does not fit (of PolicyPCR: other values are in the PCRs, or the TPM has no SHA-256 PCRs)",
    HIERARCHY = 0x085: "the hierarchy is disabled or the wrong one",
    HANDLE = 0x08b: "nothing is at this handle",
    AUTH_FAIL = 0x08e: "wrong authorisation value; the attempt counts against dictionary attacks",
    SIZE = 0x095: "a structure has the wrong size",
    INSUFFICIENT = 0x09a: "the command ended too early",
    SIGNATURE = 0x09b: "the signature is not valid",
    POLICY_FAIL = 0x09d: "the policy is not fulfilled",
    INTEGRITY = 0x09f: "what the TPM wrapped was altered, or wrapped under another parent",
    TICKET = 0x0a0: "the ticket is not valid",
    BAD_AUTH = 0x0a2: "wrong authorisation value",
    POLICY_CC = 0x0a4: "the policy is for another command",
    CURVE = 0x0a6: "the curve is not known",
    ECC_POINT = 0x0a7: "the point is not on the curve",
    INITIALIZE = 0x100: "the TPM was not started",
    FAILURE = 0x101: "the TPM is in failure mode; it needs a restart",
    DISABLED = 0x120: "the command is disabled",
    AUTH_TYPE = 0x124: "this way of authorisation is not allowed here",
    AUTH_MISSING = 0x125: "an authorisation is missing",
    POLICY = 0x126: "a condition of the policy does not hold",
    PCR = 0x127: "the PCR is not there",
    PCR_CHANGED = 0x128: "a PCR changed since the policy was checked",
    AUTH_UNAVAILABLE = 0x12f: "this way of authorisation is not allowed for this object",
    REBOOT = 0x130: "the TPM needs a restart",
    COMMAND_SIZE = 0x142: "the command's length is not what it says",
    COMMAND_CODE = 0x143: "the TPM does not know the command",
    NV_RANGE = 0x146: "outside of the index",
    NV_SIZE = 0x147: "the index has another size",
    NV_LOCKED = 0x148: "the index is locked",
    NV_AUTHORIZATION = 0x149: "the index may not be used with this authorisation",
    NV_UNINITIALIZED = 0x14a: "the index was never written",
    NV_SPACE = 0x14b: "the TPM has no room for the index",
    NV_DEFINED = 0x14c: "the index exists already",
    CONTEXT_GAP = 0x901: "too many contexts are saved",
    OBJECT_MEMORY = 0x902: "no room for another loaded object",
    SESSION_MEMORY = 0x903: "no room for another session",
    MEMORY = 0x904: "out of memory",
    SESSION_HANDLES = 0x905: "too many sessions",
    OBJECT_HANDLES = 0x906: "too many objects",
    LOCALITY = 0x907: "wrong locality",
    YIELDED = 0x908: "interrupted; to be sent again",
    CANCELED = 0x909: "cancelled",
    TESTING = 0x90a: "the TPM is testing itself",
    NV_RATE = 0x920: "written too often; later again",
    LOCKOUT = 0x921: "locked after too many wrong authorisations; it ends by itself",
    RETRY = 0x922: "busy; to be sent again",
    NV_UNAVAILABLE = 0x923: "the TPM's storage cannot be used now",
}

impl ResponseCode {
    /// The code without the number of the handle, session or parameter that it is about.
    pub fn reason(self) -> ResponseCode {
        if self.0 & FORMAT_ONE != 0 { ResponseCode(self.0 & 0xbf) } else { self }
    }

    /// Whether the same command may be carried out when it is sent again.
    pub(crate) fn is_passing(self) -> bool {
        [Self::RETRY, Self::YIELDED, Self::TESTING, Self::NV_RATE, Self::CANCELED].contains(&self)
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.described() {
            Some((name, words)) => write!(f, "{words} (TPM_RC_{name}, {:#x})", self.0),
            None => write!(f, "response code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_named_whatever_it_is_about() {
        // The session, a handle, a parameter; a warning has its number as it is.
        for (code, name) in
            [(0x99d, "POLICY_FAIL"), (0x18b, "HANDLE"), (0x2c4, "VALUE"), (0x922, "RETRY"), (0x14a, "NV_UNINIT")]
        {
            let text = ResponseCode(code).to_string();
            assert!(text.contains(&format!("TPM_RC_{name}")), "{text}");
        }
        assert_eq!(ResponseCode(0x0bf).to_string(), "response code 0xbf");
    }

    #[test]
    fn a_warning_is_not_taken_for_a_code_about_a_parameter() {
        assert!(!TpmError::Refused { command: "x", code: ResponseCode(0x904) }.is(ResponseCode::VALUE));
        assert!(TpmError::Refused { command: "x", code: ResponseCode(0x5c4) }.is(ResponseCode::VALUE));
    }
}

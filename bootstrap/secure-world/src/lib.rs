//! The way to OP-TEE: trusted applications are called through `/dev/tee0`, and what the secure world needs of the normal one,
//! memory and files, is given to it through `/dev/teepriv0`.
//!
//! On top: the keeper ([`keeper`]), our trusted application.

pub mod device;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod files;
pub mod keeper;
pub mod store;
pub mod supplicant;

use belvedere_tee::{Code, Malformed, Uuid};
use std::io;

/// Clients of trusted applications.
pub const DEVICE: &str = "/dev/tee0";
/// The helper of the secure world; one process at a time.
pub const PRIVILEGED_DEVICE: &str = "/dev/teepriv0";

/// Why the secure world did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's driver refused.
    #[error("{what}: {source}")]
    Driver {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Behind the device is another secure world than OP-TEE.
    #[error("{DEVICE} is not OP-TEE's")]
    Other,
    /// OP-TEE or the trusted application refused.
    #[error("{what}: {code}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The answer.
        code: Code,
    },
    /// The answer is not what it must be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// More than fits the memory that both worlds see.
    #[error("{0}: it is too long")]
    TooLong(&'static str),
}

/// One of the four arguments of a command.
#[derive(Debug)]
pub enum Argument<'a> {
    /// None.
    None,
    /// Numbers for the trusted application.
    Numbers(u64, u64),
    /// Numbers from it.
    NumbersBack,
    /// Bytes for it.
    Read(&'a [u8]),
    /// Bytes from it: as many as there is room for, cut to what came.
    Written(&'a mut Vec<u8>),
    /// Bytes for it, which it writes over: cut to what came.
    Shared(&'a mut Vec<u8>),
}

/// A session with a trusted application; it ends when this is dropped.
pub trait Session {
    /// Carries out a command; gives the numbers that came back for each argument, (0, 0) where none did.
    ///
    /// # Errors
    /// [`Error::Refused`] when the trusted application refuses; others when it was never asked, or its answer is damaged.
    fn command(&mut self, what: &'static str, number: u32, arguments: [Argument<'_>; 4]) -> Result<[(u64, u64); 4], Error>;
}

/// A secure world in which sessions can be opened.
pub trait SecureWorld {
    /// What a session is here.
    type Session: Session;

    /// Opens a session.
    ///
    /// # Errors
    /// As [`Session::command`].
    fn open(&self, application: &Uuid) -> Result<Self::Session, Error>;
}

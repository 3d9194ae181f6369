//! What can go wrong while an image is made.

use std::path::{Path, PathBuf};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program that does part of the work is not installed.
    #[error("{program} is not installed; type: scripts/install-packages")]
    ProgramMissing {
        /// Its name.
        program: String,
    },
    /// A program that does part of the work failed.
    #[error("{program} failed ({status}) while {task}:\n{output}")]
    Program {
        /// Its name.
        program: String,
        /// What it was to do.
        task: String,
        /// Exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something that an image must hold is not there.
    #[error("{what} is missing: {advice}")]
    Missing {
        /// What.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Something has not the form it must have.
    #[error("{what}: {reason}")]
    Invalid {
        /// What.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key directory cannot be used.
    #[error(transparent)]
    Keys(#[from] belvedere_keys::Error),
}

impl Error {
    /// For `map_err`: attaches operation and path to an input/output error.
    pub fn file(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { operation, path, source }
    }

    /// Something has not the form it must have.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

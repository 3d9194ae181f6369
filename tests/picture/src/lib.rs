//! Reads a captured picture of the monitor and says whether the boxes stand where the words are.
//!
//! Nothing but the picture and the rendered truth is looked at: the frame's number is read from the picture's own row of
//! black and white cells, the boxes are found by the colour in which the display draws them.

pub mod boxes;
pub mod check;
pub mod picture;
pub mod truth;

pub use check::{Report, check};
pub use picture::Picture;
pub use truth::Truth;

/// Why a picture cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a PNG of 8-bit colours.
    #[error("{path} is no PNG picture of 8-bit RGB or RGBA: {reason}")]
    Picture {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not a truth document.
    #[error("{path} is no truth document: {reason}")]
    Truth {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No tile of the monitor shows a frame of the clip.
    #[error("no frame number can be read from the picture: does the monitor show the camera?")]
    NoFrame,
}

//! What is right for every frame of the clip; written by `samples/camera/clip.py`, which describes the document.

use crate::Error;
use serde::Deserialize;
use std::path::Path;

/// The whole document.
#[derive(Debug, Clone, Deserialize)]
pub struct Truth {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The row of cells that carries the frame's number.
    pub code: Code,
    /// All frames.
    pub frames: Vec<Frame>,
}

/// Where the cells are.
#[derive(Debug, Clone, Deserialize)]
pub struct Code {
    /// Pixels from the picture's top.
    pub top: u32,
    /// Pixels.
    pub height: u32,
    /// How many, side by side over the picture's whole width.
    pub cells: u32,
}

/// One frame.
#[derive(Debug, Clone, Deserialize)]
pub struct Frame {
    /// Index in the clip.
    pub number: u32,
    /// `1` white, `0` black.
    pub cells: String,
    /// Every word in it.
    pub words: Vec<Word>,
}

/// One word.
#[derive(Debug, Clone, Deserialize)]
pub struct Word {
    /// As written.
    pub text: String,
    /// Left, top, right, bottom of its ink in pixels; right and bottom exclusive.
    #[serde(rename = "box")]
    pub edges: [f32; 4],
}

impl Truth {
    /// Reads a document and checks that its frames can be told apart.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|reason| Error::Truth { path: path.into(), reason })
    }

    /// As [`Truth::read`], from text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let truth: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if truth.width == 0
            || truth.height == 0
            || truth.code.cells == 0
            || truth.code.top + truth.code.height > truth.height
        {
            return Err("its sizes do not fit together".into());
        }
        let mut seen = std::collections::BTreeSet::new();
        for frame in &truth.frames {
            if frame.cells.len() != truth.code.cells as usize || !seen.insert(&frame.cells) {
                return Err(format!("the cells of frame {} are too few, too many, or those of another", frame.number));
            }
            if frame.words.is_empty() {
                return Err(format!("frame {} has no word", frame.number));
            }
        }
        Ok(truth)
    }
}

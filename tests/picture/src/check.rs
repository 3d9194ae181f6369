//! Compares what stands on the monitor with what is right for the frame that it shows.

use crate::boxes::{self, Found};
use crate::truth::{Frame, Truth};
use crate::{Error, Picture};
use belvedere_display::compose::box_on_monitor;
use belvedere_display::layout::{self, Area, Size};
use serde::Serialize;

/// A word counts as found when a box of its own overlaps it at least so well (intersection over union).
pub const FOUND: f64 = 0.5;
/// A box whose best overlap with any word is below this stands where no word is.
pub const ELSEWHERE: f64 = 0.25;
/// The share of words that must be found.
pub const REQUIRED_RECALL: f64 = 0.9;
/// A monitor may show so many streams beside the camera's.
const MOST_TILES: usize = 16;

/// What was seen in one picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The frame that the picture shows.
    pub frame: u32,
    /// Words in that frame.
    pub words: usize,
    /// Words with a box of their own.
    pub found: usize,
    /// `found / words`.
    pub recall: f64,
    /// Boxes on the monitor.
    pub boxes: usize,
    /// Boxes where no word is, second boxes on one word, and patches of box colour that are no box.
    pub false_boxes: Vec<FalseBox>,
    /// Words without a box of their own, and their best overlap.
    pub missed: Vec<Missed>,
    /// Mean overlap of the found words.
    pub mean_overlap: f64,
}

/// A box that should not be there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FalseBox {
    /// Left, top, right, bottom in the monitor's pixels.
    pub edges: [u32; 4],
    /// `no word`, `second box on a word`, `not one box`.
    pub why: &'static str,
}

/// A word without its box.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Missed {
    /// The word.
    pub text: String,
    /// Its best overlap with any box.
    pub overlap: f64,
}

impl Report {
    /// Whether this picture alone is right.
    pub fn passed(&self) -> bool {
        self.recall >= REQUIRED_RECALL && self.false_boxes.is_empty()
    }
}

/// Judges a captured picture.
pub fn check(picture: &Picture, truth: &Truth) -> Result<Report, Error> {
    let (frame, area) = find_frame(picture, truth).ok_or(Error::NoFrame)?;
    Ok(compare(frame, truth, area, &boxes::find(picture, area)))
}

/// The tile that shows the clip, and which frame of it.
fn find_frame<'a>(picture: &Picture, truth: &'a Truth) -> Option<(&'a Frame, Area)> {
    let size = Size { width: truth.width, height: truth.height };
    (1..=MOST_TILES).find_map(|count| {
        (0..count).find_map(|index| {
            let area = layout::fit(size, layout::tile(picture.size, index, count));
            let cells = read_cells(picture, truth, area)?;
            truth.frames.iter().find(|frame| frame.cells == cells).map(|frame| (frame, area))
        })
    })
}

/// The cells in an area; `None` when one is neither black nor white.
fn read_cells(picture: &Picture, truth: &Truth, area: Area) -> Option<String> {
    let code = &truth.code;
    let y = area.y + (2 * code.top + code.height) * area.height / (2 * truth.height);
    (0..code.cells)
        .map(|cell| {
            let x = area.x + (2 * cell + 1) * area.width / (2 * code.cells);
            let [_, red, green, blue] = picture.at(x, y).to_be_bytes().map(u32::from);
            match (red + green + blue) / 3 {
                0..80 => Some('0'),
                176.. => Some('1'),
                _ => None,
            }
        })
        .collect()
}

fn compare(frame: &Frame, truth: &Truth, area: Area, found: &[Found]) -> Report {
    let (width, height) = (truth.width as f32, truth.height as f32);
    let words: Vec<[u32; 4]> = frame
        .words
        .iter()
        .map(|word| {
            let [left, top, right, bottom] = word.edges;
            box_on_monitor([left / width, top / height, right / width, bottom / height], area)
        })
        .collect();
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (index, candidate) in found.iter().enumerate().filter(|(_, candidate)| candidate.clear) {
        for (word, edges) in words.iter().enumerate() {
            pairs.push((overlap(candidate.edges, *edges), index, word));
        }
    }
    // Best pairs first; every word and every box belongs to one pair.
    pairs.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut box_of_word = vec![None; words.len()];
    let mut word_of_box = vec![None; found.len()];
    for (value, index, word) in &pairs {
        if *value >= FOUND && box_of_word[*word].is_none() && word_of_box[*index].is_none() {
            box_of_word[*word] = Some(*value);
            word_of_box[*index] = Some(*word);
        }
    }
    let best = |matches: &dyn Fn(&(f64, usize, usize)) -> bool| {
        pairs.iter().find(|pair| matches(pair)).map_or((0.0, None), |pair| (pair.0, Some(pair.2)))
    };
    let mut false_boxes = Vec::new();
    for (index, candidate) in found.iter().enumerate() {
        let why = if !candidate.clear {
            "not one box"
        } else if word_of_box[index].is_some() {
            continue;
        } else {
            match best(&|pair| pair.1 == index) {
                (value, _) if value < ELSEWHERE => "no word",
                (_, Some(word)) if box_of_word[word].is_some() => "second box on a word",
                // Badly placed, but on a word: the word counts as missed.
                _ => continue,
            }
        };
        false_boxes.push(FalseBox { edges: candidate.edges, why });
    }
    let overlaps: Vec<f64> = box_of_word.iter().flatten().copied().collect();
    let missed = (0..words.len())
        .filter(|word| box_of_word[*word].is_none())
        .map(|word| Missed { text: frame.words[word].text.clone(), overlap: best(&|pair| pair.2 == word).0 })
        .collect();
    Report {
        frame: frame.number,
        words: words.len(),
        found: overlaps.len(),
        recall: overlaps.len() as f64 / words.len() as f64,
        boxes: found.len(),
        false_boxes,
        missed,
        mean_overlap: overlaps.iter().sum::<f64>() / (overlaps.len().max(1) as f64),
    }
}

/// Intersection over union.
fn overlap(one: [u32; 4], other: [u32; 4]) -> f64 {
    let area = |edges: [u32; 4]| f64::from(edges[2].saturating_sub(edges[0])) * f64::from(edges[3].saturating_sub(edges[1]));
    let both = area([one[0].max(other[0]), one[1].max(other[1]), one[2].min(other[2]), one[3].min(other[3])]);
    both / (area(one) + area(other) - both).max(1.0)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

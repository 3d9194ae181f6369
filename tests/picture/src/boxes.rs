//! Finds the boxes that the display drew, by their colour.

use crate::Picture;
use belvedere_display::layout::Area;
use belvedere_display::{BOX_COLOR, BOX_THICKNESS};

/// What of one connected patch of box colour was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Left, top, right, bottom in the monitor's pixels; right and bottom exclusive.
    pub edges: [u32; 4],
    /// Whether the patch is exactly the outline of one box. Boxes that touch each other are none.
    pub clear: bool,
}

/// All patches of box colour inside an area.
pub fn find(picture: &Picture, area: Area) -> Vec<Found> {
    let (width, height) = (area.width as usize, area.height as usize);
    let colored = |x: usize, y: usize| picture.at(area.x + x as u32, area.y + y as u32) == BOX_COLOR;
    let mut seen = vec![false; width * height];
    let mut found = Vec::new();
    for y in 0..height {
        for x in 0..width {
            if seen[y * width + x] || !colored(x, y) {
                continue;
            }
            seen[y * width + x] = true;
            let mut waiting = vec![(x, y)];
            let (mut left, mut top, mut right, mut bottom, mut count) = (x, y, x + 1, y + 1, 0usize);
            while let Some((x, y)) = waiting.pop() {
                count += 1;
                (left, top) = (left.min(x), top.min(y));
                (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
                for (x, y) in [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)] {
                    if x < width && y < height && !seen[y * width + x] && colored(x, y) {
                        seen[y * width + x] = true;
                        waiting.push((x, y));
                    }
                }
            }
            found.push(Found {
                edges: [area.x + left as u32, area.y + top as u32, area.x + right as u32, area.y + bottom as u32],
                clear: count == outline_pixels(right - left, bottom - top)
                    && (left..right).all(|x| colored(x, top) && colored(x, bottom - 1))
                    && (top..bottom).all(|y| colored(left, y) && colored(right - 1, y)),
            });
        }
    }
    found
}

/// How many pixels the outline of a box has.
fn outline_pixels(width: usize, height: usize) -> usize {
    let lines = 2 * BOX_THICKNESS as usize;
    width * height - width.saturating_sub(lines) * height.saturating_sub(lines)
}

//! Pictures and marks become pixels. Pure: the same input gives the same bytes.

use crate::layout::{self, Area, Size};
use crate::{BACKGROUND, BOX_COLOR, BOX_THICKNESS, LABEL_BACKGROUND, LABEL_COLOR};
use font8x8::UnicodeFonts;

/// Characters of labels that are drawn in one picture: more than fit legibly into a tile.
const LABEL_CHARACTERS: usize = 4096;

/// A picture of an application with what it marked in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// In pixels.
    pub size: Size,
    /// BGR, one byte each, rows without padding: `3 × width × height` bytes.
    pub pixels: Vec<u8>,
    /// Left, top, right, bottom in 0…1.
    pub rectangles: Vec<[f32; 4]>,
    /// Text and its lower left corner in 0…1.
    pub labels: Vec<(String, f32, f32)>,
}

/// Memory that a monitor shows: XRGB, little endian, 4 bytes a pixel.
pub struct Canvas<'a> {
    /// In pixels.
    pub size: Size,
    /// Bytes from row to row.
    pub stride: usize,
    /// At least `stride × height` bytes. Written only, never read: it may be slow to read.
    pub pixels: &'a mut [u8],
}

impl Canvas<'_> {
    /// Fills what of an area lies on the canvas.
    fn fill(&mut self, left: i64, top: i64, right: i64, bottom: i64, color: u32) {
        let (left, right) = (left.clamp(0, self.size.width.into()), right.clamp(0, self.size.width.into()));
        let (top, bottom) = (top.clamp(0, self.size.height.into()), bottom.clamp(0, self.size.height.into()));
        if left >= right {
            return;
        }
        let color = color.to_le_bytes();
        for row in top..bottom {
            let begin = row as usize * self.stride;
            for pixel in self.pixels[begin + left as usize * 4..begin + right as usize * 4].chunks_exact_mut(4) {
                pixel.copy_from_slice(&color);
            }
        }
    }

    /// One picture, scaled to an area by taking the nearest pixel.
    fn picture(&mut self, picture: &Picture, area: Area) {
        let (from, columns) = (picture.size, area.width as usize);
        if columns == 0 || picture.pixels.len() != from.width as usize * from.height as usize * 3 {
            return;
        }
        let nearest = |position: u32, to: u32, of: u32| (u64::from(position) * u64::from(of) / u64::from(to)) as usize;
        let sources: Vec<usize> = (0..area.width).map(|x| nearest(x, area.width, from.width) * 3).collect();
        // A row of the monitor is made in ordinary memory, once for all rows that show the same row of the picture.
        let mut row = vec![0u8; columns * 4];
        let mut made = usize::MAX;
        for y in 0..area.height {
            let source_row = nearest(y, area.height, from.height);
            if source_row != made {
                made = source_row;
                let begin = source_row * from.width as usize * 3;
                let source = &picture.pixels[begin..begin + from.width as usize * 3];
                for (pixel, at) in row.chunks_exact_mut(4).zip(&sources) {
                    pixel[..3].copy_from_slice(&source[*at..at + 3]);
                }
            }
            let begin = (area.y + y) as usize * self.stride + area.x as usize * 4;
            self.pixels[begin..begin + row.len()].copy_from_slice(&row);
        }
    }

    /// Text with its upper left corner at a place; every dot of the 8×8 font is `scale` pixels wide. Cut at the
    /// borders of `within`. Draws at most `characters`, and counts them.
    #[expect(clippy::too_many_arguments, reason = "a drawing call: what, where, how")]
    fn text(&mut self, text: &str, x: i64, y: i64, scale: i64, color: u32, within: Area, characters: &mut usize) {
        let (left, right) = (i64::from(within.x), i64::from(within.x + within.width));
        let (top, bottom) = (i64::from(within.y), i64::from(within.y + within.height));
        for (index, character) in text.chars().enumerate() {
            let at = x + index as i64 * 8 * scale;
            if at >= right || *characters == 0 {
                break;
            }
            *characters -= 1;
            for (row, bits) in glyph(character).into_iter().enumerate() {
                for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                    let (dot_x, dot_y) = (at + column * scale, y + row as i64 * scale);
                    self.fill(
                        dot_x.max(left),
                        dot_y.max(top),
                        (dot_x + scale).min(right),
                        (dot_y + scale).min(bottom),
                        color,
                    );
                }
            }
        }
    }
}

/// A character's dots; a hollow box for what the font lacks.
fn glyph(character: char) -> [u8; 8] {
    font8x8::BASIC_FONTS
        .get(character)
        .or_else(|| font8x8::LATIN_FONTS.get(character))
        .or_else(|| font8x8::GREEK_FONTS.get(character))
        .or_else(|| font8x8::BOX_FONTS.get(character))
        .unwrap_or([0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0])
}

/// Where the rectangle of a mark lies on the monitor: left, top, right, bottom in pixels, right and bottom exclusive,
/// at least one pixel each way. Whoever reads a captured picture expects the lines there.
pub fn box_on_monitor(rectangle: [f32; 4], area: Area) -> [u32; 4] {
    let place = |value: f32, begin: u32, length: u32| {
        let value = if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
        begin + (f64::from(value) * f64::from(length)).round() as u32
    };
    let [left, top, right, bottom] = rectangle;
    let (left, right) = (place(left.min(right), area.x, area.width), place(left.max(right), area.x, area.width));
    let (top, bottom) = (place(top.min(bottom), area.y, area.height), place(top.max(bottom), area.y, area.height));
    [left, top, right.max(left + 1), bottom.max(top + 1)]
}

/// Draws pictures side by side, each with its marks: labels below, boxes above them.
pub fn compose(canvas: &mut Canvas<'_>, pictures: &[&Picture]) {
    let size = canvas.size;
    for (index, picture) in pictures.iter().enumerate() {
        let tile = layout::tile(size, index, pictures.len());
        let area = layout::fit(picture.size, tile);
        frame_around(canvas, tile, area);
        canvas.picture(picture, area);
        let mut characters = LABEL_CHARACTERS;
        for (text, x, y) in &picture.labels {
            // Nobody reads so many; what an application marks must not keep the display from the others.
            if characters == 0 {
                break;
            }
            label(canvas, text, *x, *y, area, &mut characters);
        }
        for rectangle in &picture.rectangles {
            let [left, top, right, bottom] = box_on_monitor(*rectangle, area).map(i64::from);
            let (right, bottom) = (right.min((area.x + area.width).into()), bottom.min((area.y + area.height).into()));
            let thickness = i64::from(BOX_THICKNESS);
            canvas.fill(left, top, right, (top + thickness).min(bottom), BOX_COLOR);
            canvas.fill(left, (bottom - thickness).max(top), right, bottom, BOX_COLOR);
            canvas.fill(left, top, (left + thickness).min(right), bottom, BOX_COLOR);
            canvas.fill((right - thickness).max(left), top, right, bottom, BOX_COLOR);
        }
    }
    // Tiles without a picture, at the end of the last row.
    for index in pictures.len()..layout::tiles(pictures.len()) {
        let tile = layout::tile(size, index, pictures.len());
        frame_around(canvas, tile, Area { width: 0, height: 0, ..tile });
    }
}

/// What of a tile its picture does not cover.
fn frame_around(canvas: &mut Canvas<'_>, tile: Area, area: Area) {
    let (left, top) = (i64::from(tile.x), i64::from(tile.y));
    let (right, bottom) = (left + i64::from(tile.width), top + i64::from(tile.height));
    let (inner_left, inner_top) = (i64::from(area.x), i64::from(area.y));
    let (inner_right, inner_bottom) = (inner_left + i64::from(area.width), inner_top + i64::from(area.height));
    canvas.fill(left, top, right, inner_top, BACKGROUND);
    canvas.fill(left, inner_bottom, right, bottom, BACKGROUND);
    canvas.fill(left, inner_top, inner_left, inner_bottom, BACKGROUND);
    canvas.fill(inner_right, inner_top, right, inner_bottom, BACKGROUND);
}

fn label(canvas: &mut Canvas<'_>, text: &str, x: f32, y: f32, area: Area, characters: &mut usize) {
    const SCALE: i64 = 2;
    const MARGIN: i64 = 2;
    let place = |value: f32, length: u32| (f64::from(value.clamp(0.0, 1.0)) * f64::from(length)).round() as i64;
    let (area_left, area_top) = (i64::from(area.x), i64::from(area.y));
    let (area_right, area_bottom) = (area_left + i64::from(area.width), area_top + i64::from(area.height));
    let (width, height) = (text.chars().count() as i64 * 8 * SCALE + 2 * MARGIN, 8 * SCALE + 2 * MARGIN);
    // Moved inwards when it would stick out, so that it can be read.
    let left = (area_left + place(x, area.width)).min(area_right - width).max(area_left);
    let bottom = (area_top + place(y, area.height)).max(area_top + height).min(area_bottom);
    canvas.fill(left, (bottom - height).max(area_top), (left + width).min(area_right), bottom, LABEL_BACKGROUND);
    canvas.text(text, left + MARGIN, bottom - height + MARGIN, SCALE, LABEL_COLOR, area, characters);
}

/// What is shown when no application shows anything: the product's name and one line.
pub fn idle(canvas: &mut Canvas<'_>, line: &str) {
    let size = canvas.size;
    let (width, height) = (i64::from(size.width), i64::from(size.height));
    canvas.fill(0, 0, width, height, BACKGROUND);
    let whole = Area { x: 0, y: 0, width: size.width, height: size.height };
    let name = "Belvedere";
    let scale = (width / (name.len() as i64 * 8 * 2)).clamp(1, 8);
    let name_width = name.len() as i64 * 8 * scale;
    let name_top = height / 2 - 8 * scale;
    canvas.text(name, (width - name_width) / 2, name_top, scale, 0x00e8_eef4, whole, &mut LABEL_CHARACTERS.clone());
    canvas.fill(
        (width - name_width) / 2,
        name_top + 9 * scale,
        (width + name_width) / 2,
        name_top + 9 * scale + (scale / 3).max(1),
        0x0030_80c0,
    );
    let small = (scale / 4).max(1);
    let line_width = line.chars().count() as i64 * 8 * small;
    canvas.text(
        line,
        (width - line_width) / 2,
        name_top + 11 * scale,
        small,
        0x0098_a8b8,
        whole,
        &mut LABEL_CHARACTERS.clone(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONITOR: Size = Size { width: 64, height: 40 };

    fn drawn(draw: impl FnOnce(&mut Canvas<'_>)) -> Vec<u32> {
        // Poisoned, so that a pixel nobody drew is seen; rows are longer than the monitor is wide.
        let stride = (MONITOR.width as usize + 3) * 4;
        let mut bytes = vec![0xEE; stride * MONITOR.height as usize];
        draw(&mut Canvas { size: MONITOR, stride, pixels: &mut bytes });
        bytes
            .chunks_exact(stride)
            .flat_map(|row| {
                assert!(row[MONITOR.width as usize * 4..].iter().all(|byte| *byte == 0xEE), "padding was written");
                row[..MONITOR.width as usize * 4]
                    .chunks_exact(4)
                    .map(|pixel| u32::from_le_bytes(pixel.try_into().unwrap()) & 0xff_ffff)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn at(pixels: &[u32], x: u32, y: u32) -> u32 {
        pixels[(y * MONITOR.width + x) as usize]
    }

    fn plain(width: u32, height: u32, color: [u8; 3]) -> Picture {
        let size = Size { width, height };
        Picture { size, pixels: color.repeat((width * height) as usize), rectangles: vec![], labels: vec![] }
    }

    #[test]
    fn every_pixel_of_the_monitor_is_drawn() {
        for count in 1..12 {
            let pictures = vec![plain(16, 9, [1, 2, 3]); count];
            let pixels = drawn(|canvas| compose(canvas, &pictures.iter().collect::<Vec<_>>()));
            assert!(pixels.iter().all(|pixel| [0x03_0201, BACKGROUND].contains(pixel)), "{count} pictures");
        }
        let pixels = drawn(|canvas| idle(canvas, "ready"));
        assert!(!pixels.contains(&0xEE_EEEE) && pixels.iter().any(|pixel| *pixel == 0xe8_eef4));
    }

    #[test]
    fn pixels_keep_their_colour_and_place() {
        let mut picture = plain(32, 20, [0, 0, 0]);
        let begin = (5 * 32 + 7) * 3;
        picture.pixels[begin..begin + 3].copy_from_slice(&[10, 20, 30]);
        let pixels = drawn(|canvas| compose(canvas, &[&picture]));
        for (x, y) in [(14, 10), (15, 10), (14, 11), (15, 11)] {
            assert_eq!(at(&pixels, x, y), 0x1e_140a, "blue, green, red become XRGB");
        }
        assert_eq!(pixels.iter().filter(|pixel| **pixel != 0).count(), 4);
    }

    #[test]
    fn a_box_is_an_outline_inside_its_rectangle() {
        let mut picture = plain(64, 40, [0, 0, 0]);
        picture.rectangles.push([0.25, 0.25, 0.75, 0.75]);
        let pixels = drawn(|canvas| compose(canvas, &[&picture]));
        assert_eq!(box_on_monitor([0.25, 0.25, 0.75, 0.75], Area { x: 0, y: 0, width: 64, height: 40 }), [16, 10, 48, 30]);
        for y in 0..40 {
            for x in 0..64 {
                let inside = (16..48).contains(&x) && (10..30).contains(&y);
                let hollow = (19..45).contains(&x) && (13..27).contains(&y);
                assert_eq!(at(&pixels, x, y), if inside && !hollow { BOX_COLOR } else { 0 }, "{x}, {y}");
            }
        }
    }

    #[test]
    fn runtime_d31_labels_without_end_are_bounded_work() {
        let mut picture = plain(64, 40, [0, 0, 0]);
        picture.labels = vec![("i".repeat(256), 0.0, 1.0); LABEL_CHARACTERS];
        picture.labels.push(("x".into(), 0.0, 0.0));
        let pixels = drawn(|canvas| compose(canvas, &[&picture]));
        // The last one, at another place, is not reached.
        assert_eq!(at(&pixels, 2, 2), 0);
        picture.labels.drain(..LABEL_CHARACTERS);
        let pixels = drawn(|canvas| compose(canvas, &[&picture]));
        assert_ne!(at(&pixels, 2, 2), 0);
    }

    #[test]
    fn marks_at_and_beyond_the_border_stay_in_their_picture() {
        for rectangle in
            [[-1.0, -1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.9, 0.9, 0.1, 0.1], [f32::NAN; 4]]
        {
            let mut left = plain(32, 40, [0, 0, 0]);
            left.rectangles.push(rectangle);
            left.labels.push(("a label that is much too long to fit".into(), 0.99, 0.0));
            let right = plain(32, 40, [9, 9, 9]);
            let pixels = drawn(|canvas| compose(canvas, &[&left, &right]));
            for y in 0..40 {
                for x in 32..64 {
                    assert_eq!(at(&pixels, x, y), 0x09_0909, "{rectangle:?}");
                }
            }
        }
    }

    #[test]
    fn a_label_stands_above_its_corner_and_under_boxes() {
        let mut picture = plain(64, 40, [0, 0, 0]);
        picture.labels.push(("I".into(), 0.25, 0.75));
        picture.rectangles.push([0.25, 0.5, 0.5, 0.75]);
        let pixels = drawn(|canvas| compose(canvas, &[&picture]));
        assert!(pixels.contains(&LABEL_COLOR) && pixels.contains(&LABEL_BACKGROUND));
        assert_eq!(at(&pixels, 16, 29), BOX_COLOR);
        assert!((30..40).all(|y| (0..64).all(|x| at(&pixels, x, y) == 0)));
    }

    #[test]
    fn a_picture_of_the_wrong_size_is_not_drawn() {
        let mut picture = plain(4, 4, [9, 9, 9]);
        picture.pixels.pop();
        drawn(|canvas| compose(canvas, &[&picture]));
    }
}

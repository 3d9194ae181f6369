//! From decoded pictures to what applications see: at most 2 megapixels, BGR24.

use crate::Picture;
use yuv::{YuvPlanarImage, YuvRange, YuvStandardMatrix, yuv420_to_bgr};

/// The longer side of the largest picture that applications get.
const LONG_SIDE: u32 = 1920;
/// The shorter side.
const SHORT_SIDE: u32 = 1080;

/// The size that applications see. What is larger than 2 megapixels (1920×1080) is scaled down to fit 1920×1080
/// (1080×1920 when it stands upright), keeping its proportions, in even numbers.
pub fn size_for_applications(width: u32, height: u32) -> (u32, u32) {
    let pixels = u64::from(width) * u64::from(height);
    if pixels <= u64::from(LONG_SIDE * SHORT_SIDE) && width.max(height) <= 4096 {
        return (width, height);
    }
    let (limit_width, limit_height) = if width >= height { (LONG_SIDE, SHORT_SIDE) } else { (SHORT_SIDE, LONG_SIDE) };
    // Compared as width/height > limit_width/limit_height, without fractions.
    let wide = u64::from(width) * u64::from(limit_height) > u64::from(limit_width) * u64::from(height);
    let even = |value: u64| ((value / 2 * 2) as u32).max(2);
    if wide {
        (limit_width, even(u64::from(height) * u64::from(limit_width) / u64::from(width)))
    } else {
        (even(u64::from(width) * u64::from(limit_height) / u64::from(height)), limit_height)
    }
}

/// Converts pictures; keeps its scratch memory from one to the next.
#[derive(Default)]
pub struct Converter {
    planes: [Vec<u8>; 3],
    line: Vec<u16>,
}

impl Converter {
    /// Writes `picture` into `out`: BGR24 of [`size_for_applications`], rows `stride` bytes apart. Whether it could.
    pub fn write(&mut self, picture: &Picture<'_>, out: &mut [u8], stride: usize) -> bool {
        let (width, height) = size_for_applications(picture.width, picture.height);
        let (mut planes, mut strides) = (picture.planes, picture.strides);
        if (width, height) != (picture.width, picture.height) {
            for plane in 0..3 {
                let half = |value: u32| if plane == 0 { value } else { value.div_ceil(2) } as usize;
                let to = (half(width), half(height));
                self.planes[plane].resize(to.0 * to.1, 0);
                let from = (half(picture.width), half(picture.height));
                shrink(planes[plane], strides[plane], from, &mut self.planes[plane], to, &mut self.line);
                strides[plane] = to.0;
            }
            planes = [&self.planes[0], &self.planes[1], &self.planes[2]];
        }
        let image = YuvPlanarImage {
            y_plane: planes[0],
            y_stride: strides[0] as u32,
            u_plane: planes[1],
            u_stride: strides[1] as u32,
            v_plane: planes[2],
            v_stride: strides[2] as u32,
            width,
            height,
        };
        let range = if picture.full_range { YuvRange::Full } else { YuvRange::Limited };
        let matrix = if picture.bt709 { YuvStandardMatrix::Bt709 } else { YuvStandardMatrix::Bt601 };
        yuv420_to_bgr(&image, out, stride as u32, range, matrix).is_ok()
    }
}

/// What one pixel of the smaller picture is made of: source pixels from `first`, with these weights, 256 in sum.
struct Taps {
    first: usize,
    weights: Vec<u16>,
}

/// Area averaging: every source pixel counts by the part of it that lies under the new pixel.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    (0..to)
        .map(|index| {
            // In units of 1/to of a source pixel.
            let (begin, end) = (index * from, (index + 1) * from);
            let first = begin / to;
            let last = (end - 1) / to;
            let mut given = 0;
            let weights = (first..=last)
                .map(|pixel| {
                    let covered = end.min((pixel + 1) * to) - begin;
                    // Rounded as a running sum, so that all together are exactly 256.
                    let sum = (covered * 256 + from / 2) / from;
                    let weight = sum - given;
                    given = sum;
                    weight as u16
                })
                .collect();
            Taps { first, weights }
        })
        .collect()
}

/// Scales one plane down; `from` and `to` are columns and rows.
fn shrink(source: &[u8], stride: usize, from: (usize, usize), out: &mut [u8], to: (usize, usize), line: &mut Vec<u16>) {
    let columns = taps(from.0, to.0);
    let rows = taps(from.1, to.1);
    line.resize(from.0, 0);
    for (taps, out) in rows.iter().zip(out.chunks_exact_mut(to.0)) {
        // Down first, a whole row at a time: a loop that the compiler turns into vector instructions.
        line.fill(0);
        for (row, weight) in (taps.first..).zip(&taps.weights) {
            for (sum, pixel) in line.iter_mut().zip(&source[row * stride..][..from.0]) {
                *sum += u16::from(*pixel) * weight;
            }
        }
        for (out, taps) in out.iter_mut().zip(&columns) {
            let sum: u32 =
                line[taps.first..].iter().zip(&taps.weights).map(|(sum, weight)| u32::from(*sum) * u32::from(*weight)).sum();
            *out = ((sum + (1 << 15)) >> 16) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_two_megapixels_fits_1920_by_1080() {
        for (from, to) in [
            ((640, 360), (640, 360)),
            ((1920, 1080), (1920, 1080)),
            ((1280, 1024), (1280, 1024)),
            ((3840, 2160), (1920, 1080)),
            ((2592, 1944), (1440, 1080)),
            ((2048, 1536), (1440, 1080)),
            ((4096, 1024), (1920, 480)),
            ((1920, 1200), (1728, 1080)),
            ((2160, 3840), (1080, 1920)),
        ] {
            assert_eq!(size_for_applications(from.0, from.1), to, "{from:?}");
        }
    }

    #[test]
    fn every_size_becomes_one_that_a_ring_takes() {
        for width in (2..4096).step_by(94) {
            for height in (2..2304).step_by(62) {
                let (to_width, to_height) = size_for_applications(width, height);
                let layout = belvedere_frames::memory::Layout { width: to_width, height: to_height, slots: 2 };
                assert!(layout.valid(), "{width}×{height} → {to_width}×{to_height}");
            }
        }
    }

    #[test]
    fn weights_are_whole() {
        for (from, to) in [(3840, 1920), (2592, 1440), (1945, 1081), (7, 3), (4096, 2), (5, 5)] {
            for taps in taps(from, to) {
                assert_eq!(taps.weights.iter().sum::<u16>(), 256);
                assert!(taps.first + taps.weights.len() <= from);
            }
        }
    }

    /// The definition, in floating point.
    #[allow(clippy::many_single_char_names)]
    fn bgr(y: u8, u: u8, v: u8, full: bool, bt709: bool) -> [f64; 3] {
        let (kr, kb) = if bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let (y, scale) = if full { (f64::from(y) / 255.0, 255.0) } else { ((f64::from(y) - 16.0) / 219.0, 224.0) };
        let (u, v) = ((f64::from(u) - 128.0) / scale, (f64::from(v) - 128.0) / scale);
        let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [b, g, r].map(|value| (value * 255.0).clamp(0.0, 255.0))
    }

    #[test]
    fn colours_are_those_of_the_standards() {
        let mut converter = Converter::default();
        for (full_range, bt709) in [(false, false), (false, true), (true, false), (true, true)] {
            for (y, u, v) in [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110)] {
                let (width, height) = (38, 22);
                let planes = [vec![y; 38 * 22], vec![u; 19 * 11], vec![v; 19 * 11]];
                let picture = Picture {
                    width,
                    height,
                    planes: [&planes[0], &planes[1], &planes[2]],
                    strides: [38, 19, 19],
                    full_range,
                    bt709,
                    timestamp_us: 0,
                    concealed: false,
                    unrecovered: false,
                };
                let mut out = vec![7; 38 * 22 * 3];
                assert!(converter.write(&picture, &mut out, 38 * 3));
                let expected = bgr(y, u, v, full_range, bt709);
                for pixel in out.chunks_exact(3) {
                    for (got, expected) in pixel.iter().zip(expected) {
                        assert!((f64::from(*got) - expected).abs() <= 2.5, "{pixel:?} for {expected:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_large_picture_is_averaged_down() {
        // Left half black, right half white, at 3840×2160, with padded rows.
        let stride = 3840 + 64;
        let mut luma = vec![16; stride * 2160];
        for row in luma.chunks_exact_mut(stride) {
            row[1920..3840].fill(235);
        }
        let chroma = vec![128; 1920 * 1080];
        let picture = Picture {
            width: 3840,
            height: 2160,
            planes: [&luma, &chroma, &chroma],
            strides: [stride, 1920, 1920],
            full_range: false,
            bt709: true,
            timestamp_us: 0,
            concealed: false,
            unrecovered: false,
        };
        let mut out = vec![7; 1920 * 1080 * 3];
        assert!(Converter::default().write(&picture, &mut out, 1920 * 3));
        for row in out.chunks_exact(1920 * 3) {
            assert!(row[..960 * 3].iter().all(|value| *value <= 1));
            assert!(row[960 * 3..].iter().all(|value| *value >= 254));
        }
    }
}

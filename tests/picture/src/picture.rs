//! A captured picture.

use crate::Error;
use belvedere_display::layout::Size;
use std::path::Path;

/// Colours of a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub size: Size,
    /// XRGB, row by row.
    pub pixels: Vec<u32>,
}

impl Picture {
    /// Reads a PNG file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = std::fs::File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let bad = |reason: String| Error::Picture { path: path.into(), reason };
        let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(|error| bad(error.to_string()))?;
        let bytes =
            reader.output_buffer_size().filter(|bytes| *bytes <= 256 << 20).ok_or_else(|| bad("it is too large".into()))?;
        let mut buffer = vec![0; bytes];
        let frame = reader.next_frame(&mut buffer).map_err(|error| bad(error.to_string()))?;
        let step = match frame.color_type {
            png::ColorType::Rgb => 3,
            png::ColorType::Rgba => 4,
            other => return Err(bad(format!("its colours are {other:?}"))),
        };
        let pixels = buffer[..frame.buffer_size()]
            .chunks_exact(step)
            .map(|pixel| u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]]))
            .collect();
        Ok(Self { size: Size { width: frame.width, height: frame.height }, pixels })
    }

    /// One pixel; black outside.
    pub fn at(&self, x: u32, y: u32) -> u32 {
        if x >= self.size.width || y >= self.size.height {
            return 0;
        }
        self.pixels[y as usize * self.size.width as usize + x as usize]
    }
}

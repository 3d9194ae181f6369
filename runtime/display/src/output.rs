//! Where pixels go.

use crate::compose::Canvas;
use std::io;
use std::os::fd::BorrowedFd;

/// A monitor, or what stands for one.
pub trait Output {
    /// Looks whether a monitor came or went. Called every few seconds and when nothing is connected. `true`: there is
    /// a new one (or the first), which has to be drawn on.
    fn probe(&mut self) -> bool;
    /// Shows what `draw` draws. `Ok(false)`: there is no monitor, or it still shows the last picture; ask again when
    /// [`Output::descriptor`] has something to read or after [`Output::probe`].
    fn present(&mut self, draw: &mut dyn FnMut(&mut Canvas<'_>)) -> io::Result<bool>;
    /// Readable when the monitor can take the next picture.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Call when [`Output::descriptor`] is readable.
    fn readable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The monitor as a PNG file, replaced at every picture by renaming, for tests without a monitor.
#[cfg(feature = "png")]
pub struct PngFile {
    path: std::path::PathBuf,
    size: crate::layout::Size,
    fresh: bool,
}

#[cfg(feature = "png")]
impl PngFile {
    /// A monitor of a size that writes its picture to `path`.
    pub fn new(path: std::path::PathBuf, size: crate::layout::Size) -> Self {
        Self { path, size, fresh: true }
    }
}

#[cfg(feature = "png")]
impl Output for PngFile {
    fn probe(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    #[expect(clippy::disallowed_methods, reason = "a picture for a person who looks, whole or not at all")]
    fn present(&mut self, draw: &mut dyn FnMut(&mut Canvas<'_>)) -> io::Result<bool> {
        let stride = self.size.width as usize * 4;
        let mut pixels = vec![0; stride * self.size.height as usize];
        draw(&mut Canvas { size: self.size, stride, pixels: &mut pixels });
        let colors: Vec<u8> = pixels.chunks_exact(4).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
        let unfinished = self.path.with_extension("unfinished");
        let mut encoder =
            png::Encoder::new(io::BufWriter::new(std::fs::File::create(&unfinished)?), self.size.width, self.size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&colors).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)?;
        std::fs::rename(&unfinished, &self.path)?;
        Ok(true)
    }
}

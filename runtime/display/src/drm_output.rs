//! A monitor through the kernel's mode setting interface: two dumb buffers, shown in turn by page flips.
//!
//! Opening the card when nobody else has it open makes us its master; no privilege is needed but access to the device.

use crate::compose::Canvas;
use crate::layout::Size;
use crate::output::Output;
use drm::Device as _;
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::{
    Device as _, Event, PageFlipFlags, connector, crtc,
    dumbbuffer::{DumbBuffer, DumbMapping},
    framebuffer,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A page flip takes one picture's time of the monitor. One that takes so long never comes: the monitor was switched off or
/// pulled out meanwhile, or the driver lost it.
const FLIP_TIME: Duration = Duration::from_secs(1);

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

struct Frame {
    memory: DumbBuffer,
    /// Kept for as long as the frame: mapping 4 MB anew for every picture costs a thousand page faults. In an `Option`
    /// because it has to go before the memory does.
    mapping: Option<DumbMapping<'static>>,
    framebuffer: framebuffer::Handle,
}

struct Screen {
    connector: connector::Handle,
    crtc: crtc::Handle,
    mode: drm::control::Mode,
    frames: [Frame; 2],
    /// Which of the two the monitor shows.
    front: usize,
    /// Whether the monitor was ever given a picture with this mode.
    set: bool,
    /// When a page flip was asked for that has not happened.
    flipping: Option<Instant>,
}

/// The first connected monitor of a card.
pub struct Drm {
    path: PathBuf,
    card: Option<Card>,
    screen: Option<Screen>,
    /// So that a state is logged when it changes, not at every look.
    said: String,
}

impl Drm {
    /// A card such as `/dev/dri/card0`. It may come later, and so may its monitor. Opens it now if it is there.
    pub fn new(path: PathBuf) -> Self {
        let mut output = Self { path, card: None, screen: None, said: String::new() };
        output.open();
        output
    }

    fn open(&mut self) {
        match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => self.card = Some(Card(file)),
            Err(error) => self.say(format!("no graphics card: open {}: {error}", self.path.display())),
        }
    }

    fn say(&mut self, line: String) {
        if line != self.said {
            log::info!("{line}");
            self.said = line;
        }
    }

    fn close_screen(&mut self) {
        let (Some(card), Some(screen)) = (&self.card, self.screen.take()) else { return };
        for mut frame in screen.frames {
            frame.mapping = None;
            // Whatever fails here, the kernel frees with the card.
            let _ = card.destroy_framebuffer(frame.framebuffer);
            let _ = card.destroy_dumb_buffer(frame.memory);
        }
    }
}

/// The connected monitor: its connector, a CRTC that can feed it, its preferred mode.
fn find_monitor(card: &Card) -> io::Result<Option<(connector::Handle, crtc::Handle, drm::control::Mode)>> {
    let resources = card.resource_handles()?;
    for handle in resources.connectors() {
        let Ok(information) = card.get_connector(*handle, true) else { continue };
        if information.state() != connector::State::Connected {
            continue;
        }
        let preferred =
            information.modes().iter().find(|mode| mode.mode_type().contains(drm::control::ModeTypeFlags::PREFERRED));
        let Some(mode) = preferred.or(information.modes().first()) else { continue };
        for encoder in information.encoders() {
            let Ok(encoder) = card.get_encoder(*encoder) else { continue };
            if let Some(crtc) = resources.filter_crtcs(encoder.possible_crtcs()).first() {
                return Ok(Some((*handle, *crtc, *mode)));
            }
        }
    }
    Ok(None)
}

fn new_frame(card: &Card, size: (u32, u32)) -> io::Result<Frame> {
    let memory = card.create_dumb_buffer(size, DrmFourcc::Xrgb8888, 32)?;
    // The mapping borrows the buffer's description (not the card). A leaked copy lets it live beside it; 48 bytes for
    // every monitor that is ever plugged in.
    let mapping = match card.map_dumb_buffer(Box::leak(Box::new(memory))) {
        Ok(mapping) => Some(mapping),
        Err(error) => {
            let _ = card.destroy_dumb_buffer(memory);
            return Err(error);
        }
    };
    match card.add_framebuffer(&memory, 24, 32) {
        Ok(framebuffer) => Ok(Frame { memory, mapping, framebuffer }),
        Err(error) => {
            drop(mapping);
            let _ = card.destroy_dumb_buffer(memory);
            Err(error)
        }
    }
}

/// Where a page flip is.
#[derive(Debug, PartialEq, Eq)]
enum Flip {
    /// None was asked for.
    None,
    /// The monitor is about to show it.
    OnItsWay,
    /// It never comes.
    Lost,
}

/// Pure.
fn flip(asked: Option<Instant>, now: Instant) -> Flip {
    match asked {
        None => Flip::None,
        Some(asked) if now.saturating_duration_since(asked) < FLIP_TIME => Flip::OnItsWay,
        Some(_) => Flip::Lost,
    }
}

impl Output for Drm {
    fn probe(&mut self) -> bool {
        if self.card.is_none() {
            self.open();
        }
        let Some(card) = &self.card else { return false };
        let found = match find_monitor(card) {
            Ok(found) => found,
            Err(error) => {
                self.say(format!("cannot ask the graphics card {} for monitors: {error}", self.path.display()));
                return false;
            }
        };
        let Some((connector, crtc, mode)) = found else {
            self.close_screen();
            self.say("no monitor is connected; one may be plugged in at any time".into());
            return false;
        };
        if let Some(screen) = &self.screen
            && (screen.connector, screen.crtc, screen.mode) == (connector, crtc, mode)
        {
            return false;
        }
        self.close_screen();
        let (width, height) = mode.size();
        let Some(card) = &self.card else { return false };
        // We are master already if nobody was; then this does nothing.
        let _ = card.acquire_master_lock();
        let size = (u32::from(width), u32::from(height));
        let frames = new_frame(card, size).and_then(|first| new_frame(card, size).map(|second| [first, second]));
        match frames {
            Ok(frames) => {
                self.screen = Some(Screen { connector, crtc, mode, frames, front: 0, set: false, flipping: None });
                self.say(format!("monitor connected, {width}×{height}"));
                true
            }
            Err(error) => {
                self.say(format!("cannot make picture memory of {width}×{height} for the monitor: {error}"));
                false
            }
        }
    }

    fn present(&mut self, draw: &mut dyn FnMut(&mut Canvas<'_>)) -> io::Result<bool> {
        let (Some(card), Some(screen)) = (&self.card, &mut self.screen) else { return Ok(false) };
        match flip(screen.flipping, Instant::now()) {
            Flip::None => {}
            Flip::OnItsWay => return Ok(false),
            Flip::Lost => {
                // Setting the mode also brings back a monitor that was pulled out and plugged in between two looks.
                log::warn!("the monitor did not show a picture within {} s; setting its mode anew", FLIP_TIME.as_secs());
                (screen.flipping, screen.set) = (None, false);
            }
        }
        let back = if screen.set { 1 - screen.front } else { screen.front };
        let frame = &mut screen.frames[back];
        let (width, height) = frame.memory.size();
        let stride = frame.memory.pitch() as usize;
        let Some(mapping) = &mut frame.mapping else { return Ok(false) };
        draw(&mut Canvas { size: Size { width, height }, stride, pixels: mapping.as_mut() });
        let framebuffer = frame.framebuffer;
        if screen.set {
            match card.page_flip(screen.crtc, framebuffer, PageFlipFlags::EVENT, None) {
                Ok(()) => screen.flipping = Some(Instant::now()),
                Err(error) => {
                    // A driver without page flips; slower, but it shows the picture.
                    log::debug!("page flip: {error}; setting the mode instead");
                    screen.set = false;
                }
            }
        }
        if !screen.set {
            card.set_crtc(screen.crtc, Some(framebuffer), (0, 0), &[screen.connector], Some(screen.mode))?;
            screen.set = true;
        }
        screen.front = back;
        Ok(true)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.card.as_ref().map(AsFd::as_fd)
    }

    fn readable(&mut self) -> io::Result<()> {
        let Some(card) = &self.card else { return Ok(()) };
        for event in card.receive_events()? {
            if let (Event::PageFlip(_), Some(screen)) = (event, &mut self.screen) {
                screen.flipping = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_d26_a_page_flip_whose_event_never_comes_is_given_up() {
        let now = Instant::now();
        assert_eq!(flip(None, now), Flip::None);
        assert_eq!(flip(Some(now), now), Flip::OnItsWay);
        assert_eq!(flip(Some(now), now + FLIP_TIME - Duration::from_millis(1)), Flip::OnItsWay);
        assert_eq!(flip(Some(now), now + FLIP_TIME), Flip::Lost);
    }
}

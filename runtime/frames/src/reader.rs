//! The client's side in Rust: for tests, and for programs of ours that watch a stream.

use crate::memory::{Consumer, Layout};
use crate::packet;
use belvedere_interfaces::channel::frames::{Event, Request};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a stream is, as its server said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Pictures arrive.
    pub playing: bool,
    /// For people.
    pub detail: String,
}

/// Receives one stream's pictures.
pub struct FrameReader {
    socket: Arc<OwnedFd>,
    ring: Option<(u64, Arc<Consumer>)>,
    condition: Condition,
    asked: bool,
}

/// A picture, with a lease on its memory that ends when it is dropped.
pub struct Frame {
    ring: Arc<Consumer>,
    socket: Arc<OwnedFd>,
    generation: u64,
    slot: u32,
    /// Counts pictures of the stream.
    pub sequence: u64,
    /// Microseconds since 1970 at which it arrived from the camera.
    pub timestamp_us: i64,
}

impl Frame {
    /// Width, height, stride.
    pub fn layout(&self) -> Layout {
        self.ring.layout()
    }

    /// The picture, BGR24, row by row.
    pub fn bytes(&self) -> &[u8] {
        self.ring.slot(self.slot).unwrap_or_default()
    }

    /// One pixel: blue, green, red.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        let start = y as usize * self.layout().stride() as usize + x as usize * 3;
        self.bytes().get(start..start + 3)?.try_into().ok()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let release = Request::Release { generation: self.generation, slot: self.slot, sequence: self.sequence };
        // When the server is gone there is nothing to give back.
        let _ = packet::send(&self.socket, &release, &[]);
    }
}

impl FrameReader {
    /// Subscribes on a socket connected to `frames.sock`, on behalf of an owner.
    pub fn subscribe(socket: OwnedFd, stream_id: &str, owner: &str) -> Result<Self, packet::Error> {
        packet::send(&socket, &Request::Subscribe { stream_id: stream_id.to_owned(), owner: owner.to_owned() }, &[])?;
        Ok(FrameReader { socket: Arc::new(socket), ring: None, condition: Condition::default(), asked: false })
    }

    /// How the stream is.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// The newest picture not yet seen (an error is the end; [`FrameReader::condition`] says why if the server did); `None` when there was none within `patience`, in which case the question stays
    /// open and the next call waits on.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Frame>, packet::Error> {
        if !self.asked {
            match packet::send(&self.socket, &Request::Next {}, &[]) {
                // What the server said last is still there to be read.
                Ok(()) | Err(packet::Error::Closed) => self.asked = true,
                Err(error) => return Err(error),
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut waiting = [PollFd::new(&*self.socket, PollFlags::IN)];
            let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&timeout)))
                .map_err(|source| packet::Error::System { operation: "wait for a packet", source })?;
            if ready == 0 {
                return Ok(None);
            }
            let (event, mut descriptors) = packet::receive::<Event>(&self.socket)?;
            match event {
                Event::Ring { generation, slots, slot_bytes, width, height, stride, .. } => {
                    let Some(memory) = descriptors.pop() else { return Err(packet::Error::Closed) };
                    let consumer = Consumer::new(memory, Layout { width, height, slots }, slot_bytes, stride)
                        .map_err(|source| packet::Error::System { operation: "map a ring", source })?;
                    self.ring = Some((generation, Arc::new(consumer)));
                }
                Event::Stream { state, detail } => {
                    self.condition = Condition { playing: state == "playing", detail };
                }
                Event::Refused { message } => {
                    self.condition = Condition { playing: false, detail: message };
                    return Err(packet::Error::Closed);
                }
                Event::Frame { generation, slot, sequence, timestamp_us } => {
                    self.asked = false;
                    let Some((known, ring)) = &self.ring else { return Err(packet::Error::Closed) };
                    if *known != generation || slot >= ring.layout().slots {
                        return Err(packet::Error::Closed);
                    }
                    return Ok(Some(Frame {
                        ring: ring.clone(),
                        socket: self.socket.clone(),
                        generation,
                        slot,
                        sequence,
                        timestamp_us,
                    }));
                }
            }
        }
    }
}

//! Who may show what. Pure but for reading buffers: packets of clients go in, answers and the scene come out.

use crate::compose::Picture;
use crate::layout::Size;
use crate::memory::{Buffer, Error as MemoryError};
use belvedere_frames::shares::{Limits, Share, Shares};
use belvedere_interfaces::channel::display::{BUFFERS, Event, MAXIMUM_LABEL, MAXIMUM_MARKS, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Connections at a time; who has one too many is told so (`refused`).
pub const CLIENTS: Limits = Limits { in_all: 64, burst: 8, assured: 2 };
/// Connections that did not say yet whose they are, beyond those; `applications` says it at once.
pub const UNOPENED: usize = 16;
/// Longest side of a picture in pixels.
pub const MAXIMUM_SIDE: u32 = 4096;
/// Longest name of a stream or an application instance in bytes.
pub const MAXIMUM_NAME: usize = 256;
/// Most bytes of pictures that are kept, of all connections of the application that owns the monitor together.
pub const MAXIMUM_PICTURE_BYTES: usize = 96 << 20;

/// Why a client's packet was refused; its connection is closed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The first packet must be `open`, and there is one.
    #[error("the first packet of a display connection is `open`, and it comes once")]
    Order,
    /// Something is out of its bounds.
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
    /// The application, or all together, have too many connections.
    #[error("{0}")]
    TooMany(String),
    /// A picture format that there is none of.
    #[error("the picture format {0:?} is unknown; the only one is \"bgr24\"")]
    Format(String),
    /// Not exactly one descriptor with `buffer`, or one with anything else.
    #[error("a `buffer` packet carries one memfd, and no other packet carries any")]
    Descriptors,
    /// The buffer itself.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

struct Memory<B> {
    buffer: B,
    bytes: u64,
}

struct Client<B> {
    /// Application instance and when it started.
    application: Option<(String, i64)>,
    buffers: [Option<Memory<B>>; BUFFERS],
    /// By stream. Kept only while the application owns the monitor.
    pictures: BTreeMap<String, Picture>,
    /// Among the connections of all applications.
    place: Option<Share>,
}

/// All clients and what they show.
pub struct Stage<B> {
    clients: BTreeMap<u64, Client<B>>,
    places: Arc<Shares>,
    changed: bool,
}

/// What should be on the monitor.
#[derive(Debug, PartialEq)]
pub enum Scene<'a> {
    /// No application is connected.
    Empty,
    /// This application owns the monitor and has shown nothing yet.
    Waiting(&'a str),
    /// Its pictures, by the names of their streams.
    Pictures(Vec<&'a Picture>),
}

impl<B> Default for Stage<B> {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), places: Shares::new(CLIENTS), changed: true }
    }
}

impl<B: Buffer> Stage<B> {
    /// A new connection. `false`: there are too many, close it.
    pub fn connected(&mut self, client: u64) -> bool {
        if self.clients.len() >= CLIENTS.in_all as usize + UNOPENED {
            return false;
        }
        let buffers = std::array::from_fn(|_| None);
        self.clients.insert(client, Client { application: None, buffers, pictures: BTreeMap::new(), place: None });
        true
    }

    /// A connection ended; what it showed disappears.
    pub fn gone(&mut self, client: u64) {
        let owner = self.owner();
        if self.clients.remove(&client).is_some_and(|client| !client.pictures.is_empty()) || owner != self.owner() {
            self.changed = true;
        }
    }

    /// A packet of a client with the buffer that came beside it. `Ok(Some(…))` is the answer to send.
    pub fn packet(&mut self, client: u64, request: Request, memory: Option<B>) -> Result<Option<Event>, Refusal> {
        if memory.is_some() != matches!(request, Request::Buffer { .. }) {
            return Err(Refusal::Descriptors);
        }
        let owner = self.owner();
        let kept_in_all: usize =
            self.clients.values().flat_map(|client| client.pictures.values()).map(|picture| picture.pixels.len()).sum();
        let Some(state) = self.clients.get_mut(&client) else { return Err(Refusal::Order) };
        if state.application.is_some() == matches!(request, Request::Open { .. }) {
            return Err(Refusal::Order);
        }
        match (request, memory) {
            (Request::Open { application_instance_id, started_us }, _) => {
                if application_instance_id.is_empty() || application_instance_id.len() > MAXIMUM_NAME {
                    return Err(Refusal::Bounds("the application instance's name"));
                }
                let place = self.places.take(&application_instance_id, 1).ok_or_else(|| {
                    let (has, taken) = self.places.taken(&application_instance_id);
                    Refusal::TooMany(format!(
                        "the application has {has} connections to the display, of {taken} in all; an application may have {} \
                         (while few are in use, {}): use fewer processes and panoramasdk.node objects",
                        CLIENTS.assured, CLIENTS.burst
                    ))
                })?;
                state.place = Some(place);
                state.application = Some((application_instance_id, started_us));
                self.give_to_owner(owner);
                Ok(None)
            }
            (Request::Buffer { buffer, bytes }, Some(memory)) => {
                let place = state.buffers.get_mut(buffer as usize).ok_or(Refusal::Bounds("the number of a buffer"))?;
                *place = Some(Memory { buffer: memory, bytes });
                Ok(None)
            }
            (Request::Buffer { .. }, None) => Err(Refusal::Descriptors),
            (
                Request::Show { stream_id, sequence, buffer, offset, width, height, stride, format, rectangles, labels },
                _,
            ) => {
                let show = Show { size: Size { width, height }, offset, stride, rectangles, labels };
                let memory = state
                    .buffers
                    .get(buffer as usize)
                    .and_then(Option::as_ref)
                    .ok_or(Refusal::Bounds("the number of a buffer"))?;
                if format != "bgr24" {
                    return Err(Refusal::Format(format.chars().take(40).collect()));
                }
                if stream_id.is_empty() || stream_id.len() > MAXIMUM_NAME {
                    return Err(Refusal::Bounds("a stream's name"));
                }
                check(&show, memory.bytes)?;
                if state.application == owner {
                    let replaced = state.pictures.get(&stream_id).map(|picture| picture.pixels.len());
                    let kept = kept_in_all - replaced.unwrap_or(0);
                    if replaced.is_none() && state.pictures.len() >= BUFFERS {
                        return Err(Refusal::Bounds("the number of streams"));
                    }
                    if kept + show.size.width as usize * show.size.height as usize * 3 > MAXIMUM_PICTURE_BYTES {
                        return Err(Refusal::Bounds("the size of all pictures"));
                    }
                    // The old picture's memory is used again.
                    let old = state.pictures.remove(&stream_id).map(|picture| picture.pixels).unwrap_or_default();
                    let picture = take(show, &memory.buffer, old)?;
                    state.pictures.insert(stream_id, picture);
                    self.changed = true;
                }
                Ok(Some(Event::Shown { sequence }))
            }
        }
    }

    /// Whether the monitor is the application's whose connection this is; `None` before it said whose it is.
    pub fn owns(&self, client: u64) -> Option<bool> {
        let application = self.clients.get(&client)?.application.as_ref()?;
        Some(Some(application) == self.owner().as_ref())
    }

    /// Whether the scene changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What should be on the monitor now.
    pub fn scene(&self) -> Scene<'_> {
        let Some(owner) = self.owner() else { return Scene::Empty };
        let mut pictures: Vec<(&String, &Picture)> = Vec::new();
        let mut name = "";
        for client in self.clients.values().filter(|client| client.application.as_ref() == Some(&owner)) {
            pictures.extend(&client.pictures);
            name = client.application.as_ref().map_or("", |(name, _)| name);
        }
        if pictures.is_empty() {
            return Scene::Waiting(name);
        }
        pictures.sort_by_key(|(stream, _)| *stream);
        Scene::Pictures(pictures.into_iter().map(|(_, picture)| picture).collect())
    }

    /// The application that started last.
    fn owner(&self) -> Option<(String, i64)> {
        self.clients
            .values()
            .filter_map(|client| client.application.as_ref())
            .max_by_key(|(name, started)| (*started, name))
            .cloned()
    }

    /// Forgets the pictures of those that do not own the monitor.
    fn give_to_owner(&mut self, before: Option<(String, i64)>) {
        let owner = self.owner();
        if owner != before {
            self.changed = true;
            for client in self.clients.values_mut().filter(|client| client.application != owner) {
                client.pictures.clear();
            }
        }
    }
}

struct Show {
    size: Size,
    offset: u64,
    stride: u32,
    rectangles: Vec<[f32; 4]>,
    labels: Vec<(String, f32, f32)>,
}

/// Refuses what is out of bounds; pure.
fn check(show: &Show, buffer_bytes: u64) -> Result<(), Refusal> {
    let Size { width, height } = show.size;
    if !(1..=MAXIMUM_SIDE).contains(&width) || !(1..=MAXIMUM_SIDE).contains(&height) {
        return Err(Refusal::Bounds("a picture's width or height"));
    }
    if u64::from(show.stride) < u64::from(width) * 3 {
        return Err(Refusal::Bounds("a picture's stride"));
    }
    let last = u64::from(show.stride) * u64::from(height - 1) + u64::from(width) * 3;
    if show.offset.checked_add(last).is_none_or(|end| end > buffer_bytes) {
        return Err(Refusal::Bounds("a picture's place in its buffer"));
    }
    if show.rectangles.len() > MAXIMUM_MARKS || show.labels.len() > MAXIMUM_MARKS {
        return Err(Refusal::Bounds("the number of marks"));
    }
    if show.rectangles.iter().flatten().any(|value| !value.is_finite()) {
        return Err(Refusal::Bounds("a rectangle"));
    }
    if show.labels.iter().any(|(text, x, y)| text.len() > MAXIMUM_LABEL || !x.is_finite() || !y.is_finite()) {
        return Err(Refusal::Bounds("a label"));
    }
    Ok(())
}

/// Copies a picture out of its buffer into memory of ours.
fn take(show: Show, buffer: &impl Buffer, mut pixels: Vec<u8>) -> Result<Picture, Refusal> {
    let row = show.size.width as usize * 3;
    pixels.resize(row * show.size.height as usize, 0);
    if show.stride as usize == row {
        buffer.read(show.offset, &mut pixels)?;
    } else {
        for (index, into) in pixels.chunks_exact_mut(row).enumerate() {
            buffer.read(show.offset + u64::from(show.stride) * index as u64, into)?;
        }
    }
    Ok(Picture { size: show.size, pixels, rectangles: show.rectangles, labels: show.labels })
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;

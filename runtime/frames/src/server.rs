//! Serves rings to clients: the executor around [`crate::ring`] and [`crate::memory`].
//!
//! One thread waits for what clients say; the thread that decodes a stream converts and publishes. They meet under one
//! short lock that is never held while pixels are written or while anything waits: every send is non-blocking, and a
//! client whose socket is full is disconnected (it gets one packet per packet of its own, so that only one that does not
//! read can be).
//!
//! A ring's memory stays for as long as its stream does, and rings of earlier sizes are kept for when the size comes back:
//! whoever keeps the descriptor of a ring that is given up keeps its pages, and they stay charged to this process. So
//! clients come and go without a new ring, and a stream makes at most [`RINGS`] rings in [`RINGS_TIME`].

use crate::memory::{Layout, Producer};
use crate::packet;
use crate::ring::{ClientId, OwnerId, Ring, slots_for};
use crate::shares::{Limits, Share, Shares};
use belvedere_interfaces::channel::MAXIMUM_OWNER;
use belvedere_interfaces::channel::frames::{Event, Request};
use belvedere_varlink::Pulse;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Clients of one stream; who is one too many is told so (`refused`).
pub const CLIENTS_PER_STREAM: Limits = Limits { in_all: 32, burst: 8, assured: 2 };
/// Clients of all streams.
pub const CLIENTS: Limits = Limits { in_all: 640, burst: 64, assured: 16 };
/// Connections that did not say yet what they are for, beyond those; `applications` says it at once.
pub const UNOPENED: usize = 64;
/// Bytes of pictures in all rings together, unless [`Server::limited_to`] says otherwise. Beyond it pictures are dropped,
/// which harms less than the end of this process would.
pub const MEMORY: u64 = 832 << 20;
/// Rings of earlier sizes that a stream keeps.
const RETIRED: usize = 2;
/// Rings that a stream may make …
const RINGS: usize = 8;
/// … in this time.
const RINGS_TIME: Duration = Duration::from_secs(3600);
/// Bytes of a stream's identifier.
pub const MAXIMUM_STREAM_ID: usize = 128;

/// A turn of the serving thread waits for nobody; it takes the lock that all writers take.
const LONGEST_TURN: Duration = Duration::from_secs(30);
/// How often it turns while nobody says anything.
const IDLE_TURN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// What became of a picture that the decoder offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is the newest now, and was handed to this many clients.
    Published {
        /// Clients.
        clients: usize,
    },
    /// Nobody asks for one: it was not converted.
    NotWanted,
    /// Nowhere to write it.
    NoSlot,
    /// No memory for it, or larger than a ring allows.
    NoMemory,
    /// Another writer took the stream over; this one should end.
    Replaced,
}

/// What happened to a stream's pictures since the server began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Pictures offered.
    pub offered: u64,
    /// Written to a slot.
    pub published: u64,
    /// Packets with a lease, sent to clients.
    pub granted: u64,
    /// Not converted since nobody asked.
    pub not_wanted: u64,
    /// Dropped: no slot without a lease.
    pub no_slot: u64,
    /// Dropped: no memory, or too large.
    pub no_memory: u64,
}

/// One ring of a stream: who may do what, and its memory.
struct StreamRing {
    generation: u64,
    ring: Ring,
    /// None before the first picture.
    memory: Option<(Arc<OwnedFd>, Layout)>,
    /// Not here while somebody writes with it.
    producer: Option<Producer>,
    /// Bytes of slots that were used.
    allocated: u64,
}

impl StreamRing {
    fn none() -> Self {
        StreamRing { generation: 0, ring: Ring::new(0), memory: None, producer: None, allocated: 0 }
    }

    fn layout(&self) -> Option<Layout> {
        self.memory.as_ref().map(|(_, layout)| *layout)
    }
}

struct Stream {
    /// Which writer feeds it; a writer with another number has been replaced.
    writer: u64,
    /// Of the newest ring that was made.
    last_generation: u64,
    current: StreamRing,
    /// Of earlier sizes; the latest comes last.
    retired: Vec<StreamRing>,
    /// When rings were made.
    made: VecDeque<Instant>,
    sequence: u64,
    playing: bool,
    detail: String,
    clients: Arc<Shares>,
    counters: Counters,
}

/// Whether one more may be made at `now`; forgets what is too old to matter. Pure.
fn may_make(made: &mut VecDeque<Instant>, now: Instant) -> bool {
    while made.front().is_some_and(|first| now.saturating_duration_since(*first) >= RINGS_TIME) {
        made.pop_front();
    }
    made.len() < RINGS
}

impl Stream {
    fn new() -> Self {
        Stream {
            writer: 0,
            last_generation: 0,
            current: StreamRing::none(),
            retired: Vec::new(),
            made: VecDeque::new(),
            sequence: 0,
            playing: false,
            detail: "no camera delivers this stream yet".into(),
            clients: Shares::new(CLIENTS_PER_STREAM),
            counters: Counters::default(),
        }
    }

    /// Makes a ring for pictures of that layout the current one: an earlier one if there is one.
    fn change_to(&mut self, layout: Layout, now: Instant) -> Result<(), Errno> {
        let mut next = match self.retired.iter().position(|ring| ring.layout() == Some(layout)) {
            Some(index) => self.retired.remove(index),
            None => {
                if !may_make(&mut self.made, now) {
                    return Err(Errno::DQUOT);
                }
                let producer = Producer::new(layout)?;
                let memory = rustix::io::fcntl_dupfd_cloexec(producer.memory(), 0)?;
                self.made.push_back(now);
                self.last_generation += 1;
                StreamRing {
                    generation: self.last_generation,
                    ring: Ring::new(layout.slots),
                    memory: Some((Arc::new(memory), layout)),
                    producer: Some(producer),
                    allocated: 0,
                }
            }
        };
        next.ring.take_over(&mut self.current.ring);
        let before = std::mem::replace(&mut self.current, next);
        if before.memory.is_some() {
            self.retired.push(before);
            if self.retired.len() > RETIRED {
                self.retired.remove(0);
            }
        }
        Ok(())
    }

    fn ring_of(&mut self, generation: u64) -> Option<&mut StreamRing> {
        std::iter::once(&mut self.current).chain(&mut self.retired).find(|ring| ring.generation == generation)
    }

    fn rings(&self) -> impl Iterator<Item = &StreamRing> {
        std::iter::once(&self.current).chain(&self.retired)
    }

    fn condition(&self) -> Event {
        let state = if self.playing { "playing" } else { "offline" };
        Event::Stream { state: state.into(), detail: self.detail.clone() }
    }

    fn announcement(&self) -> Option<(Event, Arc<OwnedFd>)> {
        let (memory, layout) = self.current.memory.as_ref()?;
        let event = Event::Ring {
            generation: self.current.generation,
            slots: layout.slots,
            slot_bytes: layout.slot_bytes(),
            width: layout.width,
            height: layout.height,
            stride: layout.stride(),
            format: "bgr24".into(),
        };
        Some((event, memory.clone()))
    }

    fn unused(&self) -> bool {
        self.writer == 0 && self.clients.taken("").1 == 0
    }
}

struct Client {
    socket: Arc<OwnedFd>,
    stream: Option<String>,
    /// Its place among all clients, and among those of its stream.
    places: Option<(Share, Share)>,
}

impl Client {
    /// Never waits. A client that cannot be told is disconnected; the serving thread then sees the end and cleans up.
    fn tell(&self, event: &Event, memory: Option<BorrowedFd<'_>>) {
        if packet::try_send(&self.socket, event, memory.as_slice()).is_err() {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}

struct State {
    streams: BTreeMap<String, Stream>,
    clients: BTreeMap<ClientId, Client>,
    last_client: ClientId,
    last_writer: u64,
    owners: BTreeMap<String, OwnerId>,
    last_owner: OwnerId,
    places: Arc<Shares>,
    memory: u64,
}

impl Default for State {
    fn default() -> Self {
        State {
            streams: BTreeMap::new(),
            clients: BTreeMap::new(),
            last_client: 0,
            last_writer: 0,
            owners: BTreeMap::new(),
            last_owner: 0,
            places: Shares::new(CLIENTS),
            memory: MEMORY,
        }
    }
}

impl State {
    /// The number of an owner, the same as long as it has clients.
    fn owner(&mut self, name: &str) -> OwnerId {
        let places = &self.places;
        self.owners.retain(|known, _| known == name || places.taken(known).0 > 0);
        let last = &mut self.last_owner;
        *self.owners.entry(name.to_owned()).or_insert_with(|| {
            *last += 1;
            *last
        })
    }

    /// Bytes in all rings.
    fn allocated(&self) -> u64 {
        self.streams.values().flat_map(Stream::rings).map(|ring| ring.allocated).sum()
    }

    fn tell_stream(&self, stream_id: &str, event: &Event, memory: Option<BorrowedFd<'_>>) {
        for client in self.clients.values().filter(|client| client.stream.as_deref() == Some(stream_id)) {
            client.tell(event, memory);
        }
    }

    /// Hands out what can be handed out; how many clients got a picture.
    fn grant(&mut self, stream_id: &str) -> usize {
        let Some(stream) = self.streams.get_mut(stream_id) else { return 0 };
        let mut granted = 0;
        while let Some((id, picture)) = stream.current.ring.grant() {
            granted += 1;
            stream.counters.granted += 1;
            if let Some(client) = self.clients.get(&id) {
                let event = Event::Frame {
                    generation: stream.current.generation,
                    slot: picture.slot,
                    sequence: picture.sequence,
                    timestamp_us: picture.timestamp_us,
                };
                client.tell(&event, None);
            }
        }
        granted
    }

    /// What a client said; whether it may stay.
    fn handle(&mut self, id: ClientId, request: Request) -> bool {
        let Some(client) = self.clients.get(&id) else { return false };
        match (client.stream.clone(), request) {
            (None, Request::Subscribe { stream_id, owner }) => {
                if stream_id.is_empty() || stream_id.len() > MAXIMUM_STREAM_ID || owner.len() > MAXIMUM_OWNER {
                    return false;
                }
                match self.subscribe(id, &stream_id, &owner) {
                    Ok(()) => true,
                    Err(message) => {
                        log::warn!("stream {stream_id}: a client of {owner} is refused: {message}");
                        if let Some(client) = self.clients.get(&id) {
                            client.tell(&Event::Refused { message }, None);
                        }
                        false
                    }
                }
            }
            (None, Request::Withdraw { stream_id, owner }) => {
                self.withdraw(&stream_id, &owner);
                false
            }
            (Some(stream_id), Request::Next {}) => {
                if let Some(stream) = self.streams.get_mut(&stream_id) {
                    stream.current.ring.next(id);
                }
                self.grant(&stream_id);
                true
            }
            (Some(stream_id), Request::Release { generation, slot, sequence }) => {
                // Late, repeated and forged ones change nothing: the ring knows who holds what.
                if let Some(ring) = self.streams.get_mut(&stream_id).and_then(|stream| stream.ring_of(generation))
                    && ring.ring.release(id, slot, sequence)
                {
                    self.grant(&stream_id);
                }
                true
            }
            (None, _) | (Some(_), Request::Subscribe { .. } | Request::Withdraw { .. }) => false,
        }
    }

    /// Makes a client one of a stream's; the error says to its application why not.
    fn subscribe(&mut self, id: ClientId, stream_id: &str, owner: &str) -> Result<(), String> {
        let refused = |of: &str, shares: &Shares| {
            let (has, taken) = shares.taken(owner);
            let limits = shares.limits();
            format!(
                "the application has {has} connections to {of}, of {taken} in all; an application may have {} (while few \
                 are in use, {}): use fewer processes and panoramasdk.node objects",
                limits.assured, limits.burst
            )
        };
        let all = self.places.take(owner, 1).ok_or_else(|| refused("cameras", &self.places))?;
        let owner_id = self.owner(owner);
        let stream = self.streams.entry(stream_id.to_owned()).or_insert_with(Stream::new);
        let Some(place) = stream.clients.take(owner, 1) else {
            return Err(refused("this camera", &stream.clients));
        };
        let Some(client) = self.clients.get_mut(&id) else { return Err("it left".into()) };
        client.places = Some((all, place));
        client.stream = Some(stream_id.to_owned());
        stream.current.ring.join(id, owner_id);
        client.tell(&stream.condition(), None);
        if let Some((event, memory)) = stream.announcement() {
            client.tell(&event, Some(memory.as_fd()));
        }
        Ok(())
    }

    /// Ends an owner's connections to a stream. What it leased returns when their ends are seen.
    fn withdraw(&mut self, stream_id: &str, owner: &str) {
        let message = "its camera node is paused; it waits for a RESUME signal";
        for client in self.clients.values() {
            let of_owner = client.places.as_ref().is_some_and(|(place, _)| place.owner() == owner);
            if of_owner && client.stream.as_deref() == Some(stream_id) {
                client.tell(&Event::Refused { message: message.into() }, None);
                let _ = rustix::net::shutdown(&client.socket, rustix::net::Shutdown::Both);
            }
        }
    }

    fn remove_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        // Its places are free before it is asked whether anybody is left.
        drop(client.places);
        if let Some(stream_id) = client.stream {
            if let Some(stream) = self.streams.get_mut(&stream_id) {
                stream.current.ring.gone(id);
                stream.retired.iter_mut().for_each(|ring| ring.ring.gone(id));
                if stream.unused() {
                    self.streams.remove(&stream_id);
                }
            }
            // What it did not give back may be what another connection of its application waits for.
            self.grant(&stream_id);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic while it was held cannot leave half of a change behind that matters more than going on.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the streams of all [`Writer`]s.
#[derive(Clone, Default)]
pub struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    /// A server without clients and streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another bound on the memory of all rings than [`MEMORY`].
    pub fn limited_to(self, bytes: u64) -> Self {
        lock(&self.state).memory = bytes;
        self
    }

    /// Serves at `path`, on a thread of its own, until the process ends.
    pub fn serve_at(&self, path: impl AsRef<Path>) -> Result<(), packet::Error> {
        let listener = packet::listen(path)?;
        self.serve(listener)
    }

    /// Serves a socket that already listens, on a thread of its own, until the process ends.
    pub fn serve(&self, listener: OwnedFd) -> Result<(), packet::Error> {
        let server = self.clone();
        std::thread::Builder::new()
            .name("frames".into())
            .spawn(move || {
                let pulse = Pulse::new("frames", LONGEST_TURN);
                loop {
                    pulse.beat();
                    if let Err(error) = server.turn(&listener) {
                        log::error!("cannot wait for clients: {error}");
                        std::thread::sleep(std::time::Duration::from_millis(100));
                    }
                }
            })
            .map_err(|_| packet::Error::System { operation: "start a thread", source: Errno::AGAIN })?;
        Ok(())
    }

    /// Waits for one or more packets or connections, and answers them.
    fn turn(&self, listener: &OwnedFd) -> Result<(), Errno> {
        let clients: Vec<(ClientId, Arc<OwnedFd>)> =
            lock(&self.state).clients.iter().map(|(id, client)| (*id, client.socket.clone())).collect();
        let mut waiting = vec![PollFd::new(listener, PollFlags::IN)];
        waiting.extend(clients.iter().map(|(_, socket)| PollFd::new(&**socket, PollFlags::IN)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&IDLE_TURN)))?;
        for ((id, socket), ready) in clients.iter().zip(&waiting[1..]) {
            if ready.revents().is_empty() {
                continue;
            }
            let stays = match packet::try_receive::<Request>(socket) {
                Ok((request, _)) => lock(&self.state).handle(*id, request),
                Err(error) if error.would_block() => true,
                Err(packet::Error::Closed) => false,
                Err(error) => {
                    log::warn!("a client was disconnected: {error}");
                    false
                }
            };
            if !stays {
                lock(&self.state).remove_client(*id);
            }
        }
        if !waiting[0].revents().is_empty() {
            let socket = match packet::accept(listener) {
                Ok(socket) => socket,
                Err(error) => {
                    log::warn!("{error}");
                    return Ok(());
                }
            };
            if !belvedere_varlink::may_connect(&socket, "frames") {
                return Ok(());
            }
            let client = Client { socket: Arc::new(socket), stream: None, places: None };
            let mut state = lock(&self.state);
            if state.clients.len() >= CLIENTS.in_all as usize + UNOPENED {
                let message = format!("the decoder has {} connections, which is all that it serves", state.clients.len());
                log::warn!("a client is refused: {message}");
                client.tell(&Event::Refused { message }, None);
                return Ok(());
            }
            state.last_client += 1;
            let id = state.last_client;
            state.clients.insert(id, client);
        }
        Ok(())
    }

    /// Takes over a stream: whoever wrote to it before is replaced.
    pub fn writer(&self, stream_id: &str) -> Writer {
        let mut state = lock(&self.state);
        state.last_writer += 1;
        let number = state.last_writer;
        state.streams.entry(stream_id.to_owned()).or_insert_with(Stream::new).writer = number;
        Writer { state: self.state.clone(), stream_id: stream_id.to_owned(), number }
    }

    /// What happened to a stream's pictures.
    pub fn counters(&self, stream_id: &str) -> Counters {
        lock(&self.state).streams.get(stream_id).map(|stream| stream.counters).unwrap_or_default()
    }

    /// Bytes of pictures in all rings.
    pub fn allocated(&self) -> u64 {
        lock(&self.state).allocated()
    }

    /// Connected clients.
    pub fn clients(&self) -> usize {
        lock(&self.state).clients.len()
    }
}

/// The side that has pictures of one stream. Dropping it makes the stream offline.
pub struct Writer {
    state: Arc<Mutex<State>>,
    stream_id: String,
    number: u64,
}

impl Writer {
    /// Tells clients how the stream is, when that changed.
    pub fn condition(&self, playing: bool, detail: &str) {
        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return };
        if stream.writer != self.number || (stream.playing == playing && stream.detail == detail) {
            return;
        }
        stream.playing = playing;
        if !playing {
            stream.current.ring.outdate();
        }
        stream.detail = detail.to_owned();
        let event = stream.condition();
        state.tell_stream(&self.stream_id, &event, None);
    }

    /// Offers the next picture. `write` fills one picture of `width` × `height` in BGR24 (bytes, bytes per row) and is
    /// called only if some client asks for a picture; whether it could. Never waits for a client.
    pub fn offer(
        &mut self,
        width: u32,
        height: u32,
        timestamp_us: i64,
        write: impl FnOnce(&mut [u8], usize) -> bool,
    ) -> Offered {
        let layout = Layout { width, height, slots: slots_for(CLIENTS_PER_STREAM.in_all as usize) };
        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        if stream.writer != self.number {
            return Offered::Replaced;
        }
        stream.sequence += 1;
        stream.counters.offered += 1;
        let sequence = stream.sequence;
        if !stream.current.ring.wanted() {
            stream.current.ring.outdate();
            stream.counters.not_wanted += 1;
            return Offered::NotWanted;
        }
        if stream.current.layout() != Some(layout) {
            if let Err(error) = stream.change_to(layout, Instant::now()) {
                let why = match error {
                    Errno::DQUOT => "the camera changes the size of its pictures too often".to_owned(),
                    error => error.to_string(),
                };
                // A camera goes on with such pictures: one line for the first.
                if stream.counters.no_memory == 0 {
                    log::error!("stream {}: no ring for {width}×{height}: {why}", self.stream_id);
                }
                stream.counters.no_memory += 1;
                return Offered::NoMemory;
            }
            if let Some((event, memory)) = stream.announcement() {
                state.tell_stream(&self.stream_id, &event, Some(memory.as_fd()));
            }
        }
        let (allocated, bound) = (state.allocated(), state.memory);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        let ring = &mut stream.current;
        // Whoever writes with it at this moment has been replaced by this writer, and brings it back.
        let Some(mut producer) = ring.producer.take() else {
            ring.ring.outdate();
            stream.counters.no_slot += 1;
            return Offered::NoSlot;
        };
        let Some(slot) = ring.ring.begin() else {
            ring.producer = Some(producer);
            ring.ring.outdate();
            stream.counters.no_slot += 1;
            return Offered::NoSlot;
        };
        let more = producer.missing(slot);
        if more > 0 && allocated + more > bound {
            ring.producer = Some(producer);
            ring.ring.abandon();
            ring.ring.outdate();
            if stream.counters.no_memory == 0 {
                log::error!(
                    "stream {}: a picture is dropped: the rings of all streams have {allocated} bytes already; \
                     applications keep too many pictures, or there are too many cameras",
                    self.stream_id
                );
            }
            stream.counters.no_memory += 1;
            return Offered::NoMemory;
        }
        ring.allocated += more;
        let generation = ring.generation;
        drop(state);

        let written = match producer.slot(slot) {
            Ok(bytes) => Ok(write(bytes, layout.stride() as usize)),
            Err(error) => Err(error),
        };

        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        let replaced = stream.writer != self.number || stream.current.generation != generation;
        let Some(ring) = stream.ring_of(generation) else { return Offered::Replaced };
        ring.producer = Some(producer);
        if written.is_err() {
            ring.allocated = ring.allocated.saturating_sub(more);
        }
        if replaced {
            ring.ring.abandon();
            return Offered::Replaced;
        }
        match written {
            Ok(true) => {
                ring.ring.publish(sequence, timestamp_us);
                stream.counters.published += 1;
                Offered::Published { clients: state.grant(&self.stream_id) }
            }
            Ok(false) => {
                ring.ring.abandon();
                Offered::NotWanted
            }
            Err(error) => {
                log::error!("stream {}: no memory for a picture: {error}", self.stream_id);
                ring.ring.abandon();
                stream.counters.no_memory += 1;
                Offered::NoMemory
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.condition(false, "the camera's stream ended");
        let mut state = lock(&self.state);
        if let Some(stream) = state.streams.get_mut(&self.stream_id)
            && stream.writer == self.number
        {
            stream.writer = 0;
            if stream.unused() {
                state.streams.remove(&self.stream_id);
            }
        }
    }
}

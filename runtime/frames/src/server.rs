//! Serves rings to clients: the executor around [`crate::ring`] and [`crate::memory`].
//!
//! One thread waits for what clients say; the thread that decodes a stream converts and publishes. They meet under one
//! short lock that is never held while pixels are written or while anything waits: every send is non-blocking, and a
//! client whose socket is full is disconnected (it gets one packet per packet of its own, so that only one that does not
//! read can be).

use crate::memory::{Layout, Producer};
use crate::packet;
use crate::ring::{ClientId, Ring, slots_for};
use belvedere_interfaces::channel::frames::{Event, Request};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clients of one stream; beyond it, `subscribe` is answered by the end of the connection.
pub const CLIENTS_PER_STREAM: usize = 16;
/// Clients in all.
pub const CLIENTS: usize = 256;
/// Bytes of a stream's identifier.
pub const MAXIMUM_STREAM_ID: usize = 128;

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

struct Stream {
    /// Which writer feeds it; a writer with another number has been replaced.
    writer: u64,
    generation: u64,
    ring: Ring,
    memory: Option<(Arc<OwnedFd>, Layout)>,
    sequence: u64,
    playing: bool,
    detail: String,
    clients: usize,
    counters: Counters,
}

impl Stream {
    fn new() -> Self {
        Stream {
            writer: 0,
            generation: 0,
            ring: Ring::new(0),
            memory: None,
            sequence: 0,
            playing: false,
            detail: "no camera delivers this stream yet".into(),
            clients: 0,
            counters: Counters::default(),
        }
    }

    fn condition(&self) -> Event {
        let state = if self.playing { "playing" } else { "offline" };
        Event::Stream { state: state.into(), detail: self.detail.clone() }
    }

    fn announcement(&self) -> Option<(Event, Arc<OwnedFd>)> {
        let (memory, layout) = self.memory.as_ref()?;
        let event = Event::Ring {
            generation: self.generation,
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
        self.writer == 0 && self.clients == 0
    }
}

struct Client {
    socket: Arc<OwnedFd>,
    stream: Option<String>,
}

impl Client {
    /// Never waits. A client that cannot be told is disconnected; the serving thread then sees the end and cleans up.
    fn tell(&self, event: &Event, memory: Option<BorrowedFd<'_>>) {
        if packet::try_send(&self.socket, event, memory.as_slice()).is_err() {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct State {
    streams: BTreeMap<String, Stream>,
    clients: BTreeMap<ClientId, Client>,
    last_client: ClientId,
    last_writer: u64,
}

impl State {
    fn tell_stream(&self, stream_id: &str, event: &Event, memory: Option<BorrowedFd<'_>>) {
        for client in self.clients.values().filter(|client| client.stream.as_deref() == Some(stream_id)) {
            client.tell(event, memory);
        }
    }

    /// Hands out what can be handed out; how many clients got a picture.
    fn grant(&mut self, stream_id: &str) -> usize {
        let Some(stream) = self.streams.get_mut(stream_id) else { return 0 };
        let mut granted = 0;
        while let Some((id, picture)) = stream.ring.grant() {
            granted += 1;
            stream.counters.granted += 1;
            if let Some(client) = self.clients.get(&id) {
                let event = Event::Frame {
                    generation: stream.generation,
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
        let Some(client) = self.clients.get_mut(&id) else { return false };
        match (client.stream.clone(), request) {
            (None, Request::Subscribe { stream_id }) => {
                if stream_id.is_empty() || stream_id.len() > MAXIMUM_STREAM_ID {
                    return false;
                }
                let stream = self.streams.entry(stream_id.clone()).or_insert_with(Stream::new);
                if stream.clients >= CLIENTS_PER_STREAM {
                    log::warn!("stream {stream_id}: refused a client beyond {CLIENTS_PER_STREAM}");
                    return false;
                }
                stream.clients += 1;
                stream.ring.join(id);
                client.stream = Some(stream_id);
                client.tell(&stream.condition(), None);
                if let Some((event, memory)) = stream.announcement() {
                    client.tell(&event, Some(memory.as_fd()));
                }
                true
            }
            (Some(stream_id), Request::Next {}) => {
                if let Some(stream) = self.streams.get_mut(&stream_id) {
                    stream.ring.next(id);
                }
                self.grant(&stream_id);
                true
            }
            (Some(stream_id), Request::Release { generation, slot, sequence }) => {
                // Late, repeated and forged ones change nothing: the ring knows who holds what.
                if let Some(stream) = self.streams.get_mut(&stream_id)
                    && stream.generation == generation
                    && stream.ring.release(id, slot, sequence)
                {
                    self.grant(&stream_id);
                }
                true
            }
            (None, _) | (Some(_), Request::Subscribe { .. }) => false,
        }
    }

    fn remove_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        if let Some(stream_id) = client.stream
            && let Some(stream) = self.streams.get_mut(&stream_id)
        {
            stream.ring.gone(id);
            stream.clients -= 1;
            if stream.unused() {
                self.streams.remove(&stream_id);
            }
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
                loop {
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
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, None))?;
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
            let mut state = lock(&self.state);
            if state.clients.len() >= CLIENTS {
                log::warn!("refused a client beyond {CLIENTS}");
                return Ok(());
            }
            state.last_client += 1;
            let id = state.last_client;
            state.clients.insert(id, Client { socket: Arc::new(socket), stream: None });
        }
        Ok(())
    }

    /// Takes over a stream: whoever wrote to it before is replaced.
    pub fn writer(&self, stream_id: &str) -> Writer {
        let mut state = lock(&self.state);
        state.last_writer += 1;
        let number = state.last_writer;
        state.streams.entry(stream_id.to_owned()).or_insert_with(Stream::new).writer = number;
        Writer { state: self.state.clone(), stream_id: stream_id.to_owned(), number, producer: None }
    }

    /// What happened to a stream's pictures.
    pub fn counters(&self, stream_id: &str) -> Counters {
        lock(&self.state).streams.get(stream_id).map(|stream| stream.counters).unwrap_or_default()
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
    producer: Option<Producer>,
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
            stream.ring.outdate();
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
        let layout = Layout { width, height, slots: slots_for(CLIENTS_PER_STREAM) };
        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        if stream.writer != self.number {
            return Offered::Replaced;
        }
        stream.sequence += 1;
        stream.counters.offered += 1;
        let sequence = stream.sequence;
        if stream.clients == 0 {
            // Memory that nobody watches goes back; the next client gets a new ring.
            stream.memory = None;
            stream.ring = Ring::new(0);
            self.producer = None;
        }
        if !stream.ring.wanted() {
            stream.ring.outdate();
            stream.counters.not_wanted += 1;
            return Offered::NotWanted;
        }
        let producer = match &mut self.producer {
            Some(producer) if producer.layout() == layout => producer,
            none_or_other => {
                let made = Producer::new(layout)
                    .and_then(|producer| Ok((rustix::io::fcntl_dupfd_cloexec(producer.memory(), 0)?, producer)));
                let (memory, producer) = match made {
                    Ok(made) => made,
                    Err(error) => {
                        log::error!("stream {}: no ring for {width}×{height}: {error}", self.stream_id);
                        stream.counters.no_memory += 1;
                        return Offered::NoMemory;
                    }
                };
                stream.generation += 1;
                stream.ring = stream.ring.replaced_by(layout.slots);
                stream.memory = Some((Arc::new(memory), layout));
                if let Some((event, memory)) = stream.announcement() {
                    state.tell_stream(&self.stream_id, &event, Some(memory.as_fd()));
                }
                none_or_other.insert(producer)
            }
        };
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        let Some(slot) = stream.ring.begin() else {
            stream.ring.outdate();
            stream.counters.no_slot += 1;
            return Offered::NoSlot;
        };
        let generation = stream.generation;
        drop(state);

        let written = match producer.slot(slot) {
            Ok(bytes) => Ok(write(bytes, layout.stride() as usize)),
            Err(error) => Err(error),
        };

        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&self.stream_id) else { return Offered::Replaced };
        if stream.writer != self.number || stream.generation != generation {
            return Offered::Replaced;
        }
        match written {
            Ok(true) => {
                stream.ring.publish(sequence, timestamp_us);
                stream.counters.published += 1;
                Offered::Published { clients: state.grant(&self.stream_id) }
            }
            Ok(false) => {
                stream.ring.abandon();
                Offered::NotWanted
            }
            Err(error) => {
                log::error!("stream {}: no memory for a picture: {error}", self.stream_id);
                stream.ring.abandon();
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

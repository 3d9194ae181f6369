//! The loop: clients' packets in, answers out, and the monitor drawn when something changed.
//!
//! A client is answered as soon as its picture was copied; drawing happens after all waiting packets were read, so of
//! pictures that come faster than the monitor takes them only the newest are drawn. No client is ever waited for.

use crate::compose;
use crate::memory::SealedMemory;
use crate::output::Output;
use crate::stage::{Refusal, Scene, Stage};
use belvedere_frames::packet;
use belvedere_interfaces::channel::display::{Event, Request};
use belvedere_varlink::Pulse;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often the card is asked for monitors.
const PROBE: Duration = Duration::from_secs(2);
/// A turn draws one picture and asks the card for monitors, which takes it a second for each at worst.
const LONGEST_TURN: Duration = Duration::from_secs(30);
/// Packets read from one client before the next one's turn.
const PACKETS_PER_TURN: usize = 32;

/// Serves clients for ever. `Err`: the listening socket failed.
pub fn serve(listener: &OwnedFd, output: &mut dyn Output) -> io::Result<()> {
    let mut server = Server { stage: Stage::default(), clients: BTreeMap::new(), next: 0, dirty: true };
    let mut probed: Option<Instant> = None;
    let pulse = Pulse::new("display", LONGEST_TURN);
    loop {
        pulse.beat();
        if probed.is_none_or(|probed| probed.elapsed() >= PROBE) {
            probed = Some(Instant::now());
            server.dirty |= output.probe();
        }
        server.dirty |= server.stage.take_changed();
        if server.dirty {
            match output.present(&mut |canvas| draw(canvas, &server.stage)) {
                Ok(shown) => server.dirty = !shown,
                Err(error) => {
                    log::warn!("cannot show a picture on the monitor: {error}");
                    // Tried again with the next picture or probe.
                    server.dirty = false;
                }
            }
        }
        server.wait(listener, output)?;
    }
}

fn draw(canvas: &mut compose::Canvas<'_>, stage: &Stage<SealedMemory>) {
    match stage.scene() {
        Scene::Pictures(pictures) => compose::compose(canvas, &pictures),
        Scene::Waiting(name) => compose::idle(canvas, &format!("waiting for the first picture of {name}")),
        Scene::Empty => compose::idle(canvas, "no application shows a picture"),
    }
}

/// A connection.
struct Client {
    socket: OwnedFd,
    /// What it was last told about whether the monitor is its application's.
    owns: Option<bool>,
}

struct Server {
    stage: Stage<SealedMemory>,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// What the monitor shows is not what it should.
    dirty: bool,
}

impl Server {
    /// Waits for something to happen, at most until the next probe, and handles it.
    fn wait(&mut self, listener: &OwnedFd, output: &mut dyn Output) -> io::Result<()> {
        let numbers: Vec<u64> = self.clients.keys().copied().collect();
        let (listening, monitor, ready) = {
            let mut polled = vec![PollFd::new(listener, PollFlags::IN)];
            polled.extend(self.clients.values().map(|client| PollFd::new(&client.socket, PollFlags::IN)));
            let descriptor = output.descriptor();
            if let Some(descriptor) = &descriptor {
                polled.push(PollFd::new(descriptor, PollFlags::IN));
            }
            let timeout = Timespec { tv_sec: PROBE.as_secs() as i64, tv_nsec: 0 };
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let happened: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            (happened[0], descriptor.is_some() && happened[happened.len() - 1], happened[1..=numbers.len()].to_vec())
        };
        if monitor && let Err(error) = output.readable() {
            log::warn!("read the monitor's events: {error}");
        }
        for (number, _) in numbers.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            self.read(number);
        }
        if listening {
            match packet::accept(listener) {
                Ok(client) if !belvedere_varlink::may_connect(&client, "display") => {}
                Ok(client) => {
                    self.next += 1;
                    if self.stage.connected(self.next) {
                        self.clients.insert(self.next, Client { socket: client, owns: None });
                    } else {
                        let message =
                            format!("the display has {} connections, which is all that it serves", self.clients.len());
                        log::warn!("a display connection is refused: {message}");
                        let _ = packet::try_send(&client, &Event::Refused { message }, &[]);
                    }
                }
                Err(error) => log::warn!("{error}"),
            }
        }
        self.tell_owners();
        Ok(())
    }

    /// Tells clients whether what they show is seen, when that changed.
    fn tell_owners(&mut self) {
        let mut deaf = Vec::new();
        for (number, client) in &mut self.clients {
            let owns = self.stage.owns(*number);
            let (Some(mine), true) = (owns, owns != client.owns) else { continue };
            client.owns = owns;
            if let Err(error) = packet::try_send(&client.socket, &Event::Owner { mine }, &[]) {
                log::warn!("a display client that does not read is disconnected: {error}");
                deaf.push(*number);
            }
        }
        deaf.into_iter().for_each(|number| self.close(number));
    }

    /// Reads what a client sent, and answers; closes the connection when it ended or the client misbehaved.
    fn read(&mut self, number: u64) {
        for _ in 0..PACKETS_PER_TURN {
            let Some(client) = self.clients.get(&number) else { return };
            let received = match packet::try_receive::<Request>(&client.socket) {
                Ok(received) => received,
                Err(error) if error.would_block() => return,
                Err(packet::Error::Closed) => return self.close(number),
                Err(error) => {
                    log::warn!("a display client is disconnected: {error}");
                    return self.close(number);
                }
            };
            match self.handle(number, received) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    let Some(client) = self.clients.get(&number) else { return };
                    if let Err(error) = packet::try_send(&client.socket, &answer, &[]) {
                        log::warn!("a display client that does not read its answers is disconnected: {error}");
                        return self.close(number);
                    }
                }
                Err(refusal) => {
                    log::warn!("a display client is disconnected: {refusal}");
                    if let (Refusal::TooMany(message), Some(client)) = (refusal, self.clients.get(&number)) {
                        let _ = packet::try_send(&client.socket, &Event::Refused { message }, &[]);
                    }
                    return self.close(number);
                }
            }
        }
    }

    fn handle(&mut self, number: u64, (request, descriptors): (Request, Vec<OwnedFd>)) -> Result<Option<Event>, Refusal> {
        let mut descriptors = descriptors.into_iter();
        let memory = match (&request, descriptors.next(), descriptors.next()) {
            (Request::Buffer { bytes, .. }, Some(descriptor), None) => Some(SealedMemory::new(descriptor, *bytes)?),
            (Request::Buffer { .. }, _, _) | (_, Some(_), _) => return Err(Refusal::Descriptors),
            _ => None,
        };
        self.stage.packet(number, request, memory)
    }

    fn close(&mut self, number: u64) {
        self.stage.gone(number);
        self.clients.remove(&number);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

//! The connection of one stream to the decoder, which comes back by itself when the decoder restarts.

use crate::backlog::{Backlog, Unit};
use belvedere_interfaces::access_units::{Header, Kind, MAXIMUM_DETAIL};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Between two attempts to reach the decoder.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Waiting {
    backlog: Backlog,
    /// To be said before the next access unit.
    state: Option<(bool, String)>,
    /// Said again to every new decoder.
    last_state: Option<(bool, String)>,
}

/// The near end: takes everything at once, never waits.
#[derive(Clone, Default)]
pub struct Feed {
    waiting: Arc<Mutex<Waiting>>,
    something: Arc<Notify>,
    sent: Arc<AtomicU64>,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An access unit for the decoder.
    pub fn push(&self, unit: Unit) {
        self.lock().backlog.push(unit);
        self.something.notify_one();
    }

    /// How the stream is from now on, for those who wait for its pictures.
    pub fn state(&self, playing: bool, detail: &str) {
        let mut end = detail.len().min(MAXIMUM_DETAIL);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        let state = Some((playing, detail[..end].to_owned()));
        let mut waiting = self.lock();
        if waiting.last_state != state {
            waiting.last_state.clone_from(&state);
            waiting.state = state;
            self.something.notify_one();
        }
    }

    /// Access units handed to the decoder.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Access units dropped because the decoder was slow or away.
    pub fn dropped(&self) -> u64 {
        self.lock().backlog.dropped()
    }

    /// Carries everything to the decoder at `path`, for ever.
    pub async fn run(self, stream_id: String, path: PathBuf) {
        let mut reachable = true;
        loop {
            match self.connection(&stream_id, &path, &mut reachable).await {
                Ok(never) => match never {},
                Err(error) => {
                    if reachable {
                        log::warn!("stream {stream_id}: the decoder at {} is away: {error}", path.display());
                        reachable = false;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connection(&self, stream_id: &str, path: &Path, reachable: &mut bool) -> io::Result<std::convert::Infallible> {
        let mut decoder = UnixStream::connect(path).await?;
        write(&mut decoder, Kind::Open, stream_id.as_bytes()).await?;
        if !*reachable {
            log::info!("stream {stream_id}: the decoder is back");
            *reachable = true;
        }
        {
            let mut waiting = self.lock();
            waiting.backlog.restart();
            waiting.state = waiting.last_state.clone();
        }
        loop {
            let (state, unit) = {
                let mut waiting = self.lock();
                (waiting.state.take(), waiting.backlog.pop())
            };
            let idle = state.is_none() && unit.is_none();
            if let Some((playing, detail)) = state {
                write(&mut decoder, Kind::State { playing }, detail.as_bytes()).await?;
            }
            if let Some(unit) = unit {
                let Unit { bytes, key, gap, timestamp_us } = unit;
                write(&mut decoder, Kind::AccessUnit { key, gap, timestamp_us }, &bytes).await?;
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            if idle {
                // The decoder sends nothing: when it can be read, it has ended.
                tokio::select! {
                    () = self.something.notified() => {}
                    _ = decoder.readable() => {
                        if !matches!(decoder.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
            }
        }
    }
}

async fn write(decoder: &mut UnixStream, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let Ok(header) = Header::new(kind, payload) else {
        // Larger than any picture of a camera: left out, the decoder waits for the next key picture.
        log::warn!("left out an access unit of {} bytes", payload.len());
        return Ok(());
    };
    decoder.write_all(&header.encode()).await?;
    decoder.write_all(payload).await
}

//! The connection of one stream to the decoder, which comes back by itself when the decoder restarts.

use crate::backlog::{Backlog, Item, Unit};
use belvedere_interfaces::access_units::{Header, Kind, MAXIMUM_DETAIL, REPORT, Report};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two attempts to reach the decoder.
const RETRY: Duration = Duration::from_millis(500);

/// What came of the access units.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delivered {
    /// Pictures since the stream was first asked for.
    pub pictures: u64,
    /// Pixels of the last one.
    pub size: (u32, u32),
    /// When the decoder last told of new ones.
    pub at: Option<Instant>,
    /// Whether the decoder is reachable.
    pub decoder: bool,
}

/// The near end: takes everything at once, never waits.
#[derive(Clone, Default)]
pub struct Feed {
    backlog: Arc<Mutex<Backlog>>,
    something: Arc<Notify>,
    sent: Arc<AtomicU64>,
    delivered: Arc<Mutex<Delivered>>,
    news: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// An access unit for the decoder.
    pub fn push(&self, unit: Unit) {
        lock(&self.backlog).push(unit);
        self.something.notify_one();
    }

    /// How the stream is from now on, for those who wait for its pictures.
    pub fn state(&self, playing: bool, detail: &str) {
        let mut end = detail.len().min(MAXIMUM_DETAIL);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        if lock(&self.backlog).state((playing, detail[..end].to_owned())) {
            self.something.notify_one();
        }
    }

    /// Access units handed to the decoder.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Access units dropped because the decoder was slow or away, or because they were too large.
    pub fn dropped(&self) -> u64 {
        lock(&self.backlog).dropped()
    }

    /// What came of them.
    pub fn delivered(&self) -> Delivered {
        *lock(&self.delivered)
    }

    /// Waits until [`Feed::delivered`] says something new.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    fn reachable(&self, decoder: bool) {
        lock(&self.delivered).decoder = decoder;
        self.news.notify_one();
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
        let (reports, mut decoder) = UnixStream::connect(path).await?.into_split();
        write(&mut decoder, Kind::Open, stream_id.as_bytes()).await?;
        if !*reachable {
            log::info!("stream {stream_id}: the decoder is back");
            *reachable = true;
        }
        lock(&self.backlog).restart();
        self.reachable(true);
        // Both for ever: the first that fails ends the connection.
        let result = tokio::select! {
            result = self.send(&mut decoder) => result,
            result = self.listen(&reports) => result,
        };
        self.reachable(false);
        result
    }

    async fn send(&self, decoder: &mut OwnedWriteHalf) -> io::Result<std::convert::Infallible> {
        loop {
            let item = lock(&self.backlog).pop();
            match item {
                None => self.something.notified().await,
                Some(Item::State((playing, detail))) => write(decoder, Kind::State { playing }, detail.as_bytes()).await?,
                Some(Item::Unit(Unit { bytes, key, intra, gap, timestamp_us })) => {
                    write(decoder, Kind::AccessUnit { key, gap, intra, timestamp_us }, &bytes).await?;
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The decoder's reports. They may be cut anywhere.
    async fn listen(&self, decoder: &OwnedReadHalf) -> io::Result<std::convert::Infallible> {
        let before = lock(&self.delivered).pictures;
        let (mut bytes, mut length) = ([0; REPORT], 0);
        loop {
            decoder.readable().await?;
            match decoder.try_read(&mut bytes[length..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if length == REPORT {
                length = 0;
                let report = Report::decode(&bytes);
                {
                    let mut delivered = lock(&self.delivered);
                    delivered.pictures = before.saturating_add(report.pictures);
                    delivered.size = (report.width, report.height);
                    delivered.at = Some(Instant::now());
                }
                self.news.notify_one();
            }
        }
    }
}

async fn write(decoder: &mut OwnedWriteHalf, kind: Kind, payload: &[u8]) -> io::Result<()> {
    // The backlog holds nothing that has no header.
    let header = Header::new(kind, payload)
        .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidInput, malformed.to_string()))?;
    decoder.write_all(&header.encode()).await?;
    decoder.write_all(payload).await
}

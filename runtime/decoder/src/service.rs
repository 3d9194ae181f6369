//! Listens for cameras; a thread for each stream.

use crate::libavcodec::Libavcodec;
use crate::stream::{self, End};
use belvedere_frames::Server;
use belvedere_varlink::Pulse;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Streams at a time: as many as `camera` watches, and those that it is just replacing.
pub const MAXIMUM_STREAMS: usize = 96;
/// A connection says which stream it is within this time.
const TIME_TO_OPEN: Duration = Duration::from_secs(30);
/// A turn of the loop that takes connections starts one thread.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// `camera` reads a report within this time: it always listens.
const TIME_TO_REPORT: Duration = Duration::from_secs(10);

/// Listens at `path`; what stood there from an earlier run is removed.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // `camera` has a user of its own; applications cannot reach the directory.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until the process ends.
pub fn run(listener: &UnixListener, frames: &Server) -> ! {
    let running = Arc::new(AtomicUsize::new(0));
    let pulse = Pulse::new("streams", LONGEST_TURN);
    loop {
        pulse.beat();
        if !Pulse::wait_for(listener) {
            continue;
        }
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) => {
                log::error!("cannot accept a camera's stream: {error}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        if !belvedere_varlink::may_connect(&connection, "decoder") {
            continue;
        }
        if running.load(Ordering::Relaxed) >= MAXIMUM_STREAMS {
            log::warn!("refused a stream beyond {MAXIMUM_STREAMS}");
            continue;
        }
        let place = Place::take(&running);
        let frames = frames.clone();
        let started = std::thread::Builder::new().name("stream".into()).spawn(move || {
            let _place = place;
            serve(connection, &frames);
        });
        if let Err(error) = started {
            log::error!("cannot start a thread for a stream: {error}");
        }
    }
}

/// One of the streams that may run; given back however the thread ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Place(running.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(connection: UnixStream, frames: &Server) {
    let begin = || -> Result<(String, Libavcodec), End> {
        connection.set_read_timeout(Some(TIME_TO_OPEN)).map_err(End::Connection)?;
        let stream_id = stream::open(&mut &connection)?;
        connection.set_read_timeout(None).map_err(End::Connection)?;
        connection.set_write_timeout(Some(TIME_TO_REPORT)).map_err(End::Connection)?;
        Ok((stream_id, Libavcodec::new()?))
    };
    match begin() {
        Ok((stream_id, mut decoder)) => {
            log::info!("stream {stream_id}: connected");
            stream::run(&mut &connection, &mut &connection, &stream_id, frames, &mut decoder);
        }
        Err(end) => log::warn!("a camera's connection was closed: {end}"),
    }
}

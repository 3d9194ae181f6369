//! `org.belvedere.Camera`: which streams to watch, and how they are.

use crate::feed::Feed;
use crate::machine::Policy;
use crate::watch::{SharedStatus, watch};
use belvedere_interfaces::camera::{GetStreams, SetStreams, StreamConfiguration, StreamState, StreamStatus, Streams};
use belvedere_interfaces::{Done, Failure, access_units};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Streams that may be watched at a time.
pub const MAXIMUM_STREAMS: usize = 80;
/// Bytes of a URL, a user name and a password.
const MAXIMUM_TEXT: usize = 2048;

struct Watched {
    configuration: StreamConfiguration,
    status: SharedStatus,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// All streams.
#[derive(Clone)]
pub struct Service {
    runtime: Handle,
    policy: Policy,
    decoder: PathBuf,
    streams: Arc<Mutex<BTreeMap<String, Watched>>>,
}

/// What to do to come from what is watched to what shall be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    stop: Vec<String>,
    start: Vec<StreamConfiguration>,
}

fn plan(watched: &BTreeMap<String, StreamConfiguration>, wanted: Vec<StreamConfiguration>) -> Plan {
    let stop = watched
        .iter()
        .filter(|(_, configuration)| !wanted.contains(configuration))
        .map(|(stream_id, _)| stream_id.clone())
        .collect();
    let start =
        wanted.into_iter().filter(|configuration| watched.get(&configuration.stream_id) != Some(configuration)).collect();
    Plan { stop, start }
}

fn check(streams: &[StreamConfiguration]) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure { reason: "invalid_parameter".into(), message });
    if streams.len() > MAXIMUM_STREAMS {
        return invalid(format!("{} streams were asked for; at most {MAXIMUM_STREAMS} can be watched", streams.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for stream in streams {
        if stream.stream_id.is_empty() || stream.stream_id.len() > access_units::MAXIMUM_STREAM_ID {
            return invalid(format!("a stream's identifier has 1 to {} bytes", access_units::MAXIMUM_STREAM_ID));
        }
        if !seen.insert(&stream.stream_id) {
            return invalid(format!("stream {} was given twice", stream.stream_id));
        }
        let texts = [Some(&stream.url), stream.username.as_ref(), stream.password.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > MAXIMUM_TEXT) {
            return invalid(format!("stream {}: URL, user name or password is too long", stream.stream_id));
        }
    }
    Ok(())
}

impl Service {
    /// Watches nothing yet. Streams run on `runtime` and go to the decoder at `decoder`.
    pub fn new(runtime: Handle, policy: Policy, decoder: PathBuf) -> Self {
        Service { runtime, policy, decoder, streams: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`SetStreams`]. A URL that cannot be used is that stream's failure and does not keep the others from playing.
    pub fn set_streams(&self, call: SetStreams) -> Result<Done, Failure> {
        check(&call.streams)?;
        let mut streams = self.lock();
        let watched = streams.iter().map(|(id, watched)| (id.clone(), watched.configuration.clone())).collect();
        let plan = plan(&watched, call.streams);
        for stream_id in plan.stop {
            log::info!("stream {stream_id}: no longer watched");
            streams.remove(&stream_id);
        }
        for configuration in plan.start {
            let stream_id = configuration.stream_id.clone();
            let status = Arc::new(Mutex::new(StreamStatus {
                stream_id: stream_id.clone(),
                state: StreamState::Connecting,
                detail: "connecting".into(),
                access_units: 0,
            }));
            let feed = Feed::default();
            let tasks = [
                self.runtime.spawn(feed.clone().run(stream_id.clone(), self.decoder.clone())),
                self.runtime.spawn(watch(configuration.clone(), self.policy, feed, status.clone())),
            ];
            streams.insert(stream_id, Watched { configuration, status, tasks });
        }
        Ok(Done {})
    }

    /// See [`GetStreams`].
    pub fn get_streams(&self) -> Streams {
        let streams = self.lock();
        let status = |watched: &Watched| watched.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Streams { streams: streams.values().map(status).collect() }
    }

    /// Answers calls at `path`, on threads of its own.
    pub fn serve(&self, path: &std::path::Path) -> Result<(), belvedere_varlink::BindError> {
        let (setting, asking, watched) = (self.clone(), self.clone(), self.clone());
        // Nothing waits while it has the streams.
        let pulse = belvedere_varlink::Pulse::new("calls", Duration::from_secs(30));
        belvedere_varlink::Server::bind(path)?
            .watch(pulse, move || !matches!(watched.streams.try_lock(), Err(TryLockError::WouldBlock)))
            .route(move |call: SetStreams, _| setting.set_streams(call))
            .route(move |_: GetStreams, _| Ok(asking.get_streams()))
            .spawn();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stream_id: &str, url: &str) -> StreamConfiguration {
        StreamConfiguration { stream_id: stream_id.into(), url: url.into(), username: None, password: None }
    }

    #[test]
    fn what_is_the_same_goes_on_and_the_rest_is_stopped_or_started() {
        let watched = [stream("a", "rtsp://a"), stream("b", "rtsp://b"), stream("c", "rtsp://c")]
            .map(|stream| (stream.stream_id.clone(), stream))
            .into();
        let wanted = vec![stream("a", "rtsp://a"), stream("b", "rtsp://other"), stream("d", "rtsp://d")];
        assert_eq!(
            plan(&watched, wanted),
            Plan { stop: vec!["b".into(), "c".into()], start: vec![stream("b", "rtsp://other"), stream("d", "rtsp://d")] }
        );
    }

    #[test]
    fn the_number_and_the_names_of_streams_are_bounded() {
        let many = |count: usize| (0..count).map(|n| stream(&n.to_string(), "rtsp://x")).collect::<Vec<_>>();
        assert!(check(&many(MAXIMUM_STREAMS)).is_ok());
        assert!(check(&many(MAXIMUM_STREAMS + 1)).is_err());
        assert!(check(&[stream("", "rtsp://x")]).is_err());
        assert!(check(&[stream(&"x".repeat(129), "rtsp://x")]).is_err());
        assert!(check(&[stream("a", "rtsp://x"), stream("a", "rtsp://y")]).is_err());
        assert!(check(&[stream("a", &"x".repeat(2049))]).is_err());
    }
}

//! `org.belvedere.Camera`: which cameras to watch. Served by `camera`; called by `applications`.

use crate::{Done, Method};
use serde::{Deserialize, Serialize};

/// The whole set of streams to watch; what is missing is stopped, what is new is started, what is the same goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStreams {
    /// At most 80.
    pub streams: Vec<StreamConfiguration>,
}
impl Method for SetStreams {
    const NAME: &'static str = "org.belvedere.Camera.SetStreams";
    type Reply = Done;
}

/// One camera's stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfiguration {
    /// Names the stream in [`crate::channel::frames`]: the same URL and credentials always have the same name, so
    /// that one camera is watched once (`applications` derives it as a hash).
    pub stream_id: String,
    /// `rtsp://host[:port]/path`.
    pub url: String,
    /// For digest (or basic) authentication.
    pub username: Option<String>,
    /// Never logged.
    pub password: Option<String>,
}
impl core::fmt::Debug for StreamConfiguration {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamConfiguration").field("stream_id", &self.stream_id).finish_non_exhaustive()
    }
}

/// How the streams are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStreams {}
impl Method for GetStreams {
    const NAME: &'static str = "org.belvedere.Camera.GetStreams";
    type Reply = Streams;
}

/// All streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Streams {
    /// In the order of their identifiers.
    pub streams: Vec<StreamStatus>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// As configured.
    pub stream_id: String,
    /// Where it stands.
    pub state: StreamState,
    /// One line for people: the last error, or the picture's size and rate. The guide's text for what is not H.264.
    pub detail: String,
    /// Access units handed to the decoder since the stream was first asked for.
    pub access_units: u64,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// First attempt.
    Connecting,
    /// Pictures arrive.
    Playing,
    /// Connected, but nothing came for longer than the watchdog allows.
    Stalled,
    /// Waiting before the next attempt; never given up.
    Backoff,
    /// User name or password refused; tried again slowly.
    AuthenticationFailed,
    /// Not H.264.
    Unsupported,
}

//! From cameras to coded pictures: RTSP over TCP, one session per camera, however many applications watch it.
//!
//! - [`machine`]: when to connect, to wait, to give a silent session up; pure.
//! - [`backlog`]: what waits for the decoder, bounded; pure.
//! - [`session`]: one RTSP session: the connection of a `belvedere_rtsp::conversation`.
//! - [`feed`]: the connection to the decoder.
//! - [`mod@watch`]: one stream's task; [`report`]: what it says of the stream, pure.
//! - [`service`]: serves `org.belvedere.Camera`.

pub mod backlog;
pub mod chance;
pub mod feed;
pub mod machine;
pub mod report;
pub mod service;
pub mod session;
pub mod watch;

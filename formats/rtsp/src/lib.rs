//! What an H.264 camera and its client say to each other: RTSP 1.0 and RTP over one TCP connection.
//!
//! Pure: bytes and a clock's time in, bytes and coded pictures out. Who opens the connection is somebody else's matter.
//!
//! - [`message`]: requests, answers and interleaved packets in a stream of bytes, and the way back after garbage.
//! - [`authentication`]: Basic and Digest.
//! - [`description`]: SDP, as far as it says where the H.264 is.
//! - [`address`]: control URLs, redirects.
//! - [`conversation`]: the whole session as a state machine.
//! - [`rtp`], [`depacketizer`]: from packets to coded pictures, with [`nal`] and [`parameter_sets`].
//!
//! Two rules run through it. *Lenient in form*: what a camera gets wrong and ffmpeg forgives is forgiven (lower-case
//! header names, LF alone, missing parameters, a wrong CSeq). *Strict in amount*: every length, count and repetition has
//! a bound that is named where it is checked, since the other end may be anything.

pub mod address;
pub mod authentication;
pub mod conversation;
pub mod depacketizer;
pub mod description;
pub mod message;
pub mod nal;
pub mod parameter_sets;
pub mod rtp;

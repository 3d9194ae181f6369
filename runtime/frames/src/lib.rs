//! Decoded pictures in shared memory: one ring per camera, however many applications watch it.
//!
//! - [`ring`]: who may read and write which slot; pure.
//! - [`memory`]: the sealed memfd that the pictures are in.
//! - [`server`]: serves rings at `frames.sock`; used by `decoder`.
//! - [`reader`]: the client's side in Rust. The one for Python is `panoramasdk/_frames.py`.
//! - [`shares`]: how much of something that is bounded an application may have; of all servers of channels.
//! - [`packet`]: how the packets of all channels travel (also those of `inference`, `display` and `applications`).
//!
//! The protocol is `formats/interfaces/src/channel.rs`, module `frames`.

pub mod memory;
pub mod packet;
pub mod reader;
pub mod ring;
pub mod server;
pub mod shares;

pub use reader::{Frame, FrameReader};
pub use server::{Offered, Server, Writer};

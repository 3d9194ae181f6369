//! Decoded pictures in shared memory, and how channels' packets travel.

pub mod packet;

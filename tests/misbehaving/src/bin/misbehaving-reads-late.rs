//! A service that works, and 20 seconds later reads a part of the root image that nobody read until then.

use belvedere_misbehaving::{READ_LATE, work};
use std::time::{Duration, Instant};

fn main() {
    let ready = Instant::now();
    let mut read = false;
    work(|| {
        if !read && ready.elapsed() >= Duration::from_secs(20) {
            read = true;
            println!("reading what nobody read before");
            let bytes = std::fs::read(READ_LATE).map(|bytes| bytes.len());
            println!("read {bytes:?}");
        }
    })
}

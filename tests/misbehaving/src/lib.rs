//! What programs of bad releases do; see the README. Never part of an image that anybody is given.

use std::process::ExitCode;
use std::time::Duration;

/// A bad `init`: the true one in the first stage, and `misbehave` where the root image takes over.
pub fn init(misbehave: impl FnOnce() -> ExitCode) -> ExitCode {
    if std::process::id() != 1 {
        return ExitCode::from(2);
    }
    if std::env::args().nth(1).as_deref() == Some("--supervise") {
        println!("belvedere: a bad init takes over");
        return misbehave();
    }
    belvedere_init::early::run()
}

/// Does nothing, for ever.
pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Takes memory, and writes to all of it, until something ends this.
pub fn fill_memory() -> ! {
    loop {
        // Small pieces: a large one would be refused before there is no memory any more.
        std::mem::forget(vec![0x5a_u8; 1 << 20]);
    }
}

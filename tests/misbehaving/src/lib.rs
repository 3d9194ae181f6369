//! What programs of bad releases do; see the README. Never part of an image that anybody is given.

use belvedere_varlink::{Pulse, notify_ready};
use std::process::ExitCode;
use std::time::Duration;

pub mod intrusion;

/// A file of the root image that the test puts there and `misbehaving-reads-late` reads.
pub const READ_LATE: &str = "/usr/share/doc/belvedere/read-late";

/// Is ready and gives signs of life, as a service that works does; does `more` in between.
pub fn work(mut more: impl FnMut()) -> ! {
    notify_ready();
    let pulse = Pulse::new("work", Duration::from_secs(30));
    loop {
        pulse.beat();
        more();
        std::thread::sleep(Duration::from_secs(1));
    }
}

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
        // Looked at, or the compiler sees that nobody needs it and takes none.
        std::mem::forget(std::hint::black_box(vec![0x5a_u8; 1 << 20]));
    }
}

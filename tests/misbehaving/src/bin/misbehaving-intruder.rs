//! A service that somebody has taken over, whichever it is: it looks for what an earlier start left behind, tries to leave
//! something itself, and says both. Then it works on like a good one, so that the appliance operates.
//!
//! Each attempt is a process of its own: the sandbox ends a process that tries more than it may.

use belvedere_misbehaving::{intrusion, work};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first() {
        Some(attempt) => intrusion::attempt(attempt),
        None => {
            for attempt in intrusion::ATTEMPTS {
                let tried = std::process::Command::new("/proc/self/exe").arg(attempt).status();
                println!("intruder: tried {attempt}: {tried:?}");
            }
            work(|| {})
        }
    }
}

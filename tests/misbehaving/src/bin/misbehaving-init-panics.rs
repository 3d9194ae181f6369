//! PID 1 panics.

use std::process::ExitCode;

fn main() -> ExitCode {
    belvedere_misbehaving::init(|| panic!("a bad init"))
}

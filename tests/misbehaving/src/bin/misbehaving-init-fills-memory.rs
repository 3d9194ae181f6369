//! PID 1 takes all memory.

use std::process::ExitCode;

fn main() -> ExitCode {
    belvedere_misbehaving::init(|| belvedere_misbehaving::fill_memory())
}

//! PID 1 ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    belvedere_misbehaving::init(|| ExitCode::FAILURE)
}

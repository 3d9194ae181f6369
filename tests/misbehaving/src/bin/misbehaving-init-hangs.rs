//! PID 1 hangs.

use std::process::ExitCode;

fn main() -> ExitCode {
    belvedere_misbehaving::init(|| belvedere_misbehaving::hang())
}

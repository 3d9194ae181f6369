//! `belvedere-init`: see the library.

use belvedere_init::{early, launcher, supervisor};
use std::process::ExitCode;

const HELP: &str = "\
belvedere-init: starts and supervises the appliance. The kernel runs it; people do not.

  /init                         first stage, as PID 1 of the initial RAM file system: finds the root image that
                                the signed command line names, checks it, switches to it
  belvedere-init --supervise    second stage, as PID 1 of the root image: mounts, services, logs, shutdown
  belvedere-init --start NAME   becomes the service NAME with its user and limits; run by the second stage
  belvedere-init --help         this text

As PID 1 it powers off on SIGTERM and starts the machine again on SIGINT.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The kernel hands words of its command line that it does not know to PID 1: only ours count.
        _ if std::process::id() == 1 && words != ["--supervise"] => early::run(),
        ["--supervise"] if std::process::id() == 1 => supervisor::run(),
        ["--start", name] => {
            eprintln!("{}", launcher::become_service(name));
            ExitCode::from(127)
        }
        ["--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

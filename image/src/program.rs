//! Runs the programs that do part of the work, with an environment that does not depend on who runs them.

use crate::error::{Error, Result};
use std::process::{Command, Stdio};

/// The moment that is written wherever a format demands one (seconds since 1970: 2026-01-01), so that the same inputs
/// give the same bytes.
pub const FIXED_TIME: u64 = 1_767_225_600;

/// A program with the environment that reproducible work needs.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", FIXED_TIME.to_string()).stdin(Stdio::null());
    command
}

/// Runs to the end and gives what was written to standard output.
///
/// # Errors
/// When the program is not installed or does not end with 0; the error carries the end of what it printed.
pub fn run(command: &mut Command, task: &str) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::ProgramMissing { program: name.clone() },
        _ => Error::Program {
            program: name.clone(),
            task: task.into(),
            status: "not started".into(),
            output: error.to_string(),
        },
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let lines: Vec<&str> = printed.lines().collect();
    Err(Error::Program {
        program: name,
        task: task.into(),
        status: output.status.to_string(),
        output: lines[lines.len().saturating_sub(20)..].join("\n"),
    })
}

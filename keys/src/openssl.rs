//! Runs the `openssl` program.
//!
//! The program and not a library: RSA key generation in Rust (`rsa` 0.9) carries an open timing advisory
//! (RUSTSEC-2023-0071) and `ring` cannot generate RSA keys at all, while every machine that builds an image has
//! OpenSSL for `sbsign` anyway. Private keys travel over pipes and files of mode 0600, never over arguments.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Error;

/// Runs `openssl <arguments>` with `input` on its standard input and returns its standard output.
pub fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut child = Command::new("openssl")
        .args(arguments)
        // The user's own configuration must not change what our keys look like.
        .env("OPENSSL_CONF", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::OpensslMissing)?;
    if let Some(mut pipe) = child.stdin.take() {
        // Inputs are a few kilobytes: they fit in the pipe, so this cannot dead-lock. A command that reads nothing
        // may close the pipe early; what counts is its exit status.
        let _ = pipe.write_all(input);
    }
    let output = child.wait_with_output().map_err(Error::OpensslMissing)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message: String = String::from_utf8_lossy(&output.stderr).chars().take(400).collect();
    Err(Error::Openssl {
        command: arguments.first().copied().unwrap_or_default().to_owned(),
        message: message.trim().to_owned(),
    })
}

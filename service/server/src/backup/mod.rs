//! Backups: one file from which the same service can be made again, here or elsewhere, on either kind of database.
//!
//! A plain tar archive, in this order:
//!
//! | entry | what |
//! |---|---|
//! | `belvedere-backup.json` | [`Header`] |
//! | `service.json`, `ca.pem` | the configuration and the authority's certificate |
//! | `secrets.key` | only when asked for: with it the archive opens every password |
//! | `objects/<file>` | objects as they are stored |
//! | `rows.jsonl.gz` | every row, one moment ([`belvedere_store::dump`]) |
//! | `manifest.json` | [`Manifest`]: name, size and SHA-256 of every entry above |
//! | `manifest.seal` | the manifest's SHA-256, sealed with `secrets.key`: nobody else can have made or changed it |
//!
//! The service keeps running meanwhile. Objects are copied first and rows last: the rows of a moment at which all files
//! that they name are in the archive already. What was replaced meanwhile stays in the archive, marked as surplus.
//!
//! The key directory (`belvedere-keys`) is not in it: it is kept where keys are kept.

pub mod read;
pub mod write;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, Instant};

/// This form of archive.
pub const FORMAT: u32 = 1;
/// Purpose of the seal.
const SEAL: &str = "backup manifest";
/// Longest of the small entries, bytes.
const MAX_SMALL: u64 = 1024 * 1024;
/// Longest manifest, bytes: about a million objects.
const MAX_MANIFEST: u64 = 256 * 1024 * 1024;

const HEADER: &str = "belvedere-backup.json";
const SERVICE: &str = "service.json";
const AUTHORITY: &str = "ca.pem";
const SECRETS: &str = "secrets.key";
const ROWS: &str = "rows.jsonl.gz";
const MANIFEST: &str = "manifest.json";
const MANIFEST_SEAL: &str = "manifest.seal";
const OBJECTS: &str = "objects/";

/// `belvedere-backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// The program that made it.
    pub program: String,
    /// The service's account.
    pub account: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// An entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Whether it was replaced while the backup was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub surplus: bool,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the schema whose rows these are.
    pub schema: usize,
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of the rows before compression.
    pub rows_size: u64,
    /// Every entry before this one.
    pub entries: Vec<Entry>,
}

/// What was done, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows.
    pub rows: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of the archive's entries.
    pub bytes: u64,
}

/// Reads through, and hashes and counts what was read.
struct Hashing<R> {
    inner: R,
    context: Context,
    size: u64,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Hashing { inner, context: Context::new(&SHA256), size: 0 }
    }
    fn finish(self) -> (u64, String) {
        (self.size, hex::encode(self.context.finish()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Writes through, and counts what was written.
struct Counting<W> {
    inner: W,
    size: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A line on the terminal that says how far it is.
pub struct Progress {
    verb: &'static str,
    bytes: u64,
    said: Instant,
    loud: bool,
}

impl Progress {
    /// `verb`: what is being done.
    pub fn new(verb: &'static str) -> Progress {
        Progress { verb, bytes: 0, said: Instant::now(), loud: std::io::stderr().is_terminal() }
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        let pause = if self.loud { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.said.elapsed() >= pause {
            self.said = Instant::now();
            let end = if self.loud { "\r" } else { "\n" };
            eprint!("{} {}{end}", self.verb, size(self.bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.loud {
            eprint!("\x1b[2K");
        }
    }
}

/// `12.3 MB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests;

//! The `init` of a release that measures its disk and switches off: with and without encryption, and with dm-verity above.
//! Put into an image by `tests/benchmark/disk`. What it writes to is lost.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use rustix::fs::OFlags;

/// One transfer.
const PIECE: usize = 1 << 20;
/// Transfers of one measurement.
const PIECES: u64 = 32;
/// Measurements of each kind, in turns.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    belvedere_misbehaving::init(|| {
        let outcome = measure();
        if let Err(error) = outcome {
            println!("benchmark: FAILED: {error}");
        }
        println!("belvedere: benchmark over");
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
        ExitCode::FAILURE
    })
}

/// The block device of which a file of sysfs has a line that begins so.
fn device(file: &str, line: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/block")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join(file)).is_ok_and(|text| text.lines().any(|found| found.starts_with(line))) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!("no block device has {line} in {file}")))
}

fn measure() -> io::Result<()> {
    let partition = |name: &str| device("uevent", &format!("PARTNAME={name}"));
    let mapped = |name: &str| device("dm/name", name);
    let (plain, encrypted, verified) = (partition("data")?, mapped("belvedere-data")?, mapped("belvedere-root")?);
    // The two of one kind see the same places of the same disk. Beyond headers and everything that the first start wrote.
    let start = 64 << 20;
    for round in 1..=ROUNDS {
        for (what, path, write) in [("plain", &plain, true), ("encrypted", &encrypted, true)] {
            let place = start + (round as u64 - 1) * PIECES * PIECE as u64;
            if write {
                report(round, what, "write", transfer(path, place, true)?);
            }
            report(round, what, "read", transfer(path, place, false)?);
        }
        report(round, "encrypted and verified", "read", transfer(&verified, (round as u64 - 1) * (8 << 20), false)?);
    }
    Ok(())
}

fn report(round: usize, what: &str, direction: &str, (bytes, seconds): (u64, f64)) {
    println!("benchmark: round {round}: {what} {direction}: {:.1} MB/s", bytes as f64 / seconds / 1e6);
}

/// Past the page cache, one transfer after the other. Gives bytes and seconds.
fn transfer(path: &PathBuf, start: u64, write: bool) -> io::Result<(u64, f64)> {
    let flags = (OFlags::DIRECT | OFlags::CLOEXEC).bits() as i32;
    let file: File = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
    // Direct transfers want memory on a block's boundary.
    let mut memory = vec![0x5a_u8; PIECE + 4096];
    let offset = memory.as_ptr().align_offset(4096);
    let buffer = &mut memory[offset..offset + PIECE];
    let begun = Instant::now();
    let mut bytes = 0;
    for piece in 0..PIECES {
        let place = start + piece * PIECE as u64;
        if write {
            file.write_all_at(buffer, place)?;
            bytes += PIECE as u64;
        } else {
            let read = file.read_at(buffer, place)?;
            bytes += read as u64;
            if read < PIECE {
                break;
            }
        }
    }
    if write {
        file.sync_data()?;
    }
    Ok((bytes, begun.elapsed().as_secs_f64()))
}

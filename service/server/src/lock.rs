//! One process serves a data directory. A second one would take the first one's connections for dead and sweep away its
//! uploads, so it is refused at its start.
//!
//! The lock is the kernel's (`flock`): it ends with the process that holds it, however that ends. The file stays, and may
//! stay in copies of the directory.

use crate::ServerError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file's name in the data directory.
pub const FILE: &str = "lock";

/// Holds the directory until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the directory for this process, or says who has it.
pub fn take(data: &Path) -> Result<Lock, ServerError> {
    let path = data.join(FILE);
    let error = |source| ServerError::File { operation: "lock", path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ServerError::Served { data: data.to_owned(), process: holder(&file) }),
        Err(TryLockError::Error(source)) => return Err(error(source)),
    }
    // For people alone: nothing depends on what is written here.
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(error)?;
    Ok(Lock { _file: file })
}

/// What the holder wrote.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(process) if read.is_ok() => process.to_string(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_free_again_after_it() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join(FILE), "a longer text than a number, left by somebody").unwrap();
        let held = take(data.path()).unwrap();
        let refused = take(data.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())) && refused.contains("stop"), "{refused}");
        drop(held);
        take(data.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let data = tempfile::tempdir().unwrap();
        let error = take(&data.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none/lock"), "{error}");
    }
}

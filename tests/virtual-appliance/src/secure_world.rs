//! What a board with a secure world has beyond the other: the flash that its processor starts with, and what a chip would have
//! of its own in it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Error, file_error, process};

/// Size of a flash of QEMU's machine `virt`, bytes.
const FLASH: u64 = 64 << 20;
/// Where OP-TEE looks for the board's fuses, 16 bytes: see `firmware/secure-world/build`.
const FUSES: u64 = 0x3ff_f000;
/// Where it looks for 32 random bytes of this start.
const SEED: u64 = 0x3ff_f100;

/// The flash of one board, and what is burnt into its fuses.
#[derive(Debug, Clone)]
pub struct SecureWorld {
    firmware: PathBuf,
}

impl SecureWorld {
    /// Of the directory that `firmware/secure-world/build` printed.
    pub fn new(firmware: impl Into<PathBuf>) -> Self {
        Self { firmware: firmware.into() }
    }

    /// The flash as it is at a power-on: the firmware, the board's fuses, fresh random bytes. The fuses are made once for each
    /// state directory, in which the flash is too.
    ///
    /// # Errors
    /// When there is no such firmware, or the state directory cannot be written.
    pub fn flash(&self, state: &Path) -> Result<PathBuf, Error> {
        let fuses = fuses(&state.join("board-fuses"))?;
        let mut seed = [0; 32];
        random(&mut seed)?;
        let (original, flash) = (self.firmware.join("flash.bin"), state.join("secure-flash.bin"));
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).arg(&original).arg(&flash);
        process::run(&mut copy, "coreutils")?;
        let file = OpenOptions::new().write(true).open(&flash).map_err(file_error("open", &flash))?;
        let length = file.metadata().map_err(file_error("look at", &flash))?.len();
        if length != FLASH {
            return Err(Error::Input(format!("{} has {length} bytes, not {FLASH}", original.display())));
        }
        file.write_all_at(&fuses, FUSES)
            .and_then(|()| file.write_all_at(&seed, SEED))
            .map_err(file_error("write", &flash))?;
        Ok(flash)
    }
}

/// What is burnt into the fuses of the board in this state directory; burnt now if it is a new one.
fn fuses(path: &Path) -> Result<[u8; 16], Error> {
    if let Ok(bytes) = fs::read(path) {
        return bytes.try_into().map_err(|_| Error::Input(format!("{} has not 16 bytes", path.display())));
    }
    let mut made = [0; 16];
    random(&mut made)?;
    fs::write(path, made).map_err(file_error("write", path))?;
    Ok(made)
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(length) if length == bytes.len() => Ok(()),
        _ => Err(Error::Input("the host has no random bytes".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_keeps_its_fuses_and_has_other_random_bytes_at_each_start() {
        let directory = tempfile::tempdir().unwrap();
        let world = SecureWorld::new(directory.path());
        let original = fs::File::create(directory.path().join("flash.bin")).unwrap();
        original.write_all_at(b"BL1", 0).unwrap();
        original.set_len(FLASH).unwrap();
        let read = |state: &Path| {
            let flash = fs::File::open(world.flash(state).unwrap()).unwrap();
            let (mut fuses, mut seed, mut start) = ([0; 16], [0; 32], [0; 3]);
            flash.read_exact_at(&mut fuses, FUSES).unwrap();
            flash.read_exact_at(&mut seed, SEED).unwrap();
            flash.read_exact_at(&mut start, 0).unwrap();
            assert_eq!(&start, b"BL1");
            (fuses, seed)
        };
        let other = tempfile::tempdir().unwrap();
        let (first, second, foreign) = (read(directory.path()), read(directory.path()), read(other.path()));
        assert_eq!(first.0, second.0);
        assert_ne!(first.0, foreign.0);
        assert_ne!(first.1, second.1);
        original.set_len(FLASH - 1).unwrap();
        assert!(world.flash(directory.path()).unwrap_err().to_string().contains("bytes"));
    }
}

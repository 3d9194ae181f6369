//! Volume keys on their way to the kernel's `crypt` target: as keys of type `logon`, which the kernel uses and shows nobody.
//!
//! They lie in the process's own keyring: no other process can find them there, and it ends with this one.

use crate::{StorageError, failed};
use std::ffi::CString;
use std::io;

/// `KEY_SPEC_PROCESS_KEYRING`.
const PROCESS_KEYRING: libc::c_long = -2;
const REVOKE: libc::c_long = 3;
const UNLINK: libc::c_long = 9;
/// The kernel takes a `logon` key only with a description that says whose it is.
const PREFIX: &str = "belvedere:";

/// A key in the process's keyring; when dropped, the kernel wipes it and takes it out again.
#[derive(Debug)]
pub struct Key {
    number: libc::c_long,
    description: String,
}

impl Key {
    /// Hands the key of the device `name` to the kernel.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(name: &str, key: &[u8]) -> Result<Key, StorageError> {
        let description = format!("{PREFIX}{name}");
        let number = add(&description, key).map_err(failed::<io::Error>("hand over the key of", name))?;
        Ok(Key { number, description })
    }

    /// What a table calls it.
    pub fn description(&self) -> &str {
        &self.description
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // Revoking wipes it now, and not only once nobody holds on to it. That it cannot fail: the key is ours. If it did,
        // the key would still go with the process.
        let _ = control(REVOKE, self.number, 0);
        let _ = control(UNLINK, self.number, PROCESS_KEYRING);
    }
}

fn add(description: &str, key: &[u8]) -> io::Result<libc::c_long> {
    let description = CString::new(description)?;
    // SAFETY: the kernel reads the two texts up to their NUL and `key.len()` bytes of the key, all alive during the call,
    // and writes nothing.
    let number = unsafe {
        libc::syscall(libc::SYS_add_key, c"logon".as_ptr(), description.as_ptr(), key.as_ptr(), key.len(), PROCESS_KEYRING)
    };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

fn control(operation: libc::c_long, key: libc::c_long, keyring: libc::c_long) -> io::Result<()> {
    // SAFETY: both operations take numbers alone.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, operation, key, keyring) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: libc::c_long = 11;
    const SEARCH: libc::c_long = 10;

    fn read(key: libc::c_long) -> io::Result<[u8; 64]> {
        let mut bytes = [0u8; 64];
        // SAFETY: the kernel writes at most the number of bytes that is given.
        let read = unsafe { libc::syscall(libc::SYS_keyctl, READ, key, bytes.as_mut_ptr(), bytes.len()) };
        if read < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
    }

    /// As the kernel's target looks for it.
    fn find(description: &str) -> io::Result<libc::c_long> {
        let description = CString::new(description)?;
        // SAFETY: the kernel reads two texts up to their NUL.
        let found = unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                SEARCH,
                PROCESS_KEYRING,
                c"logon".as_ptr(),
                description.as_ptr(),
                0 as libc::c_long,
            )
        };
        if found < 0 { Err(io::Error::last_os_error()) } else { Ok(found) }
    }

    #[test]
    fn the_kernel_finds_a_key_by_its_name_shows_it_to_nobody_and_has_none_afterwards() {
        let key = Key::add("test-volume", &[0xa5; 64]).unwrap();
        assert_eq!(key.description(), "belvedere:test-volume");
        assert_eq!(find(key.description()).unwrap(), key.number);
        assert_eq!(read(key.number).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        let (number, description) = (key.number, key.description().to_owned());
        drop(key);
        assert!(find(&description).is_err());
        assert!(read(number).is_err());
        assert!(Key::add("test\0volume", &[0xa5; 64]).is_err());
    }
}

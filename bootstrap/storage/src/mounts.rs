//! Mounting, with errors that name what was mounted where.

use crate::{StorageError, failed};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::path::Path;

/// What almost every mount of ours is: no device nodes, no set-user-ID programs.
pub const PLAIN: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID);
/// The same without programs.
pub const DATA_ONLY: MountFlags = PLAIN.union(MountFlags::NOEXEC);

/// Mounts; `options` are the file system's own, such as `mode=755`.
pub fn mount(
    source: &str,
    target: impl AsRef<Path>,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), StorageError> {
    let target = target.as_ref();
    let options = CString::new(options).ok().filter(|options| !options.is_empty());
    rustix::mount::mount(source, target, kind, flags, options.as_deref()).map_err(|error| StorageError::Io {
        operation: "mount",
        object: format!("{kind} {source} on {}", target.display()),
        source: error.into(),
    })
}

/// Makes the directory, unless it is there, and mounts on it.
pub fn mount_new(source: &str, target: &str, kind: &str, flags: MountFlags, options: &str) -> Result<(), StorageError> {
    std::fs::create_dir_all(target).map_err(failed::<std::io::Error>("make", target))?;
    mount(source, target, kind, flags, options)
}

/// Moves a mount to another place.
pub fn move_mount(from: &str, to: impl AsRef<Path>) -> Result<(), StorageError> {
    rustix::mount::mount_move(from, to.as_ref()).map_err(failed::<rustix::io::Errno>("move the mount", from))
}

/// From here on mounts in this namespace are not seen in others, nor theirs here.
pub fn make_private() -> Result<(), StorageError> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(failed::<rustix::io::Errno>("make the mounts private below", "/"))
}

/// Unmounts; what is still in use goes away when its last user does.
pub fn unmount(target: impl AsRef<Path>, lazy: bool) -> Result<(), StorageError> {
    let target = target.as_ref();
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(target, flags).map_err(failed::<rustix::io::Errno>("unmount", target))
}

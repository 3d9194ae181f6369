//! What a service sees of the machine: a mount name space of its own, in which the rest is not there or cannot be written.
//!
//! | what | a service sees |
//! |---|---|
//! | the `data` partition | its own directory |
//! | `/tmp`, `/dev/shm` | its own |
//! | `/dev` | the nodes of the table ([`crate::devices`]): no disk, no memory, no watchdog |
//! | EFI variables | none |
//! | `/proc` | processes that it could trace, so in practice its own; settings (`/proc/sys`) cannot be written |
//! | `/sys`, control groups | cannot be written, but for the [`Kernel`] column of the table |
//!
//! A service with CAP_SYS_ADMIN could mount again what it does not see. This keeps it from what it is tricked into by a
//! path or a link, and keeps the others from it altogether; only the right itself can keep it from more.

use crate::table::{Kernel, Service};
use crate::{Result, devices, named};
use belvedere_interfaces::paths;
use belvedere_storage::mounts;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags};
use std::path::Path;

const CGROUPS: &str = "/sys/fs/cgroup";
const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Of `/proc`, what is the kernel's settings and not a process.
const SETTINGS: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];
/// Where a service that makes containers has a second, whole `/proc`. The kernel lets a container mount its own only
/// where one is visible without anything over parts of it.
pub const WHOLE_PROC: &str = "/run/belvedere-proc";

fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

/// Restricts what this process sees, which has a mount name space of its own already.
pub fn restrict(service: &Service) -> Result<()> {
    mounts::make_private().map_err(text)?;
    hide_data(service)?;
    mounts::mount("tmpfs", "/tmp", "tmpfs", mounts::DATA_ONLY, "size=64m,mode=1777").map_err(text)?;
    restrict_devices(service)?;
    restrict_kernel(service)
}

/// Leaves of the `data` partition the service's own directory.
fn hide_data(service: &Service) -> Result<()> {
    // It is held on to while the partition is covered.
    let own = format!("{}/{}", paths::DATA, service.name);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let kept = if Path::new(&own).is_dir() {
        Some(rustix::mount::open_tree(rustix::fs::CWD, own.as_str(), flags).map_err(named("hold on to", &own))?)
    } else {
        None
    };
    mounts::mount("tmpfs", paths::DATA, "tmpfs", mounts::DATA_ONLY, "size=64k,mode=755").map_err(text)?;
    if let Some(kept) = kept {
        std::fs::create_dir(&own).map_err(named("make", &own))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&kept, "", rustix::fs::CWD, own.as_str(), flags).map_err(named("mount", &own))?;
    }
    Ok(())
}

fn restrict_devices(service: &Service) -> Result<()> {
    let nodes = devices::directory_of(service);
    rustix::mount::mount_bind(&nodes, "/dev").map_err(named("mount", format!("{} on /dev", nodes.display())))?;
    mounts::mount("tmpfs", "/dev/shm", "tmpfs", mounts::DATA_ONLY, "size=64m,mode=1777").map_err(text)?;
    // The other services' nodes.
    mounts::mount("tmpfs", devices::ROOT, "tmpfs", mounts::DATA_ONLY | MountFlags::RDONLY, "size=4k,mode=700").map_err(text)
}

fn restrict_kernel(service: &Service) -> Result<()> {
    while rustix::mount::unmount(EFI_VARIABLES, rustix::mount::UnmountFlags::DETACH).is_ok() {}
    mounts::mount("proc", "/proc", "proc", mounts::DATA_ONLY, "hidepid=invisible").map_err(text)?;
    if service.kernel == Kernel::Containers {
        mounts::mount("proc", WHOLE_PROC, "proc", mounts::DATA_ONLY, "").map_err(text)?;
    }
    for path in SETTINGS {
        match rustix::mount::mount_bind(path, path) {
            Ok(()) => read_only(path)?,
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(named("mount", path)(error)),
        }
    }
    if service.kernel == Kernel::ReadOnly {
        read_only("/sys")?;
    }
    if service.kernel != Kernel::Containers && Path::new(CGROUPS).join("cgroup.procs").exists() {
        read_only(CGROUPS)?;
    }
    Ok(())
}

/// Makes a mount read-only, in this name space alone.
fn read_only(path: &str) -> Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | mounts::DATA_ONLY;
    rustix::mount::mount_remount(path, flags, "").map_err(named("forbid writing to", path))
}

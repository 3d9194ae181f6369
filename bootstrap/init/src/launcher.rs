//! What a service's process does to itself between PID 1 and the service: `belvedere-init --start <service>`.
//!
//! PID 1 starts *itself* once more for every service, and that process gives up its rights step by step and becomes
//! the service. The usual way, code between `fork` and `exec` in a process with threads, may not even allocate memory;
//! this way the steps are plain, safe Rust, and PID 1 never has a half-made service in its address space.
//!
//! The steps, in this order because each takes away what those before it need:
//! 1. its control group (made by PID 1)
//! 2. name spaces of its own
//! 3. what it sees of the files
//! 4. resource limits
//! 5. capabilities that nobody below may ever have again (bounding set)
//! 6. groups, group, user
//! 7. the capabilities that it keeps, as ambient ones: they survive `exec` without being in the file
//! 8. no new privileges
//! 9. `exec` with a clean environment

use crate::table::{Files, Network, SERVICES, Service, number_of, user_of};
use crate::{Result, machine, named};
use belvedere_interfaces::paths;
use belvedere_storage::mounts;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Becomes the service; returns only the reason why not.
pub fn become_service(name: &str) -> String {
    let Some(number) = number_of(name) else { return format!("there is no service {name:?}") };
    let Err(error) = prepare(&SERVICES[number]);
    format!("start {name}: {error}")
}

fn prepare(service: &Service) -> Result<Infallible> {
    // PID 1 blocks signals to read them as events; services start with none blocked.
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(named("unblock", "signals"))?;
    // 1
    machine::write_kernel_file(&format!("{}/cgroup.procs", machine::cgroup_of(service)), "0")?;
    // 2
    let mut spaces = UnshareFlags::empty();
    if service.network == Network::None {
        spaces |= UnshareFlags::NEWNET;
    }
    if service.files == Files::Own {
        spaces |= UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    }
    if !spaces.is_empty() {
        // SAFETY: this process has one thread and shares no descriptor table with another.
        unsafe { rustix::thread::unshare_unsafe(spaces) }.map_err(named("make", "name spaces"))?;
    }
    // 3
    if service.files == Files::Own {
        hide_files(service)?;
    }
    // 4
    limit(Resource::Nofile, service.open_files)?;
    limit(Resource::Core, 0)?;
    // 5
    for number in 0..=63 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !service.capabilities.contains(capability) {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The kernel's last capability was the one before.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(named("drop", format!("capability {number}"))(error)),
            }
        }
    }
    // 6
    let id = user_of(service);
    // What root writes for containers must not take the reserve, so root is not in its group.
    let reserve = Gid::from_raw(belvedere_interfaces::users::RESERVE_GROUP);
    let groups = if service.root { &[][..] } else { std::slice::from_ref(&reserve) };
    rustix::thread::set_thread_groups(groups).map_err(named("leave", "groups"))?;
    rustix::thread::set_thread_res_gid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id))
        .map_err(named("become group", id))?;
    if id != 0 {
        rustix::thread::set_keep_capabilities(true).map_err(named("keep", "capabilities"))?;
        rustix::thread::set_thread_res_uid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id))
            .map_err(named("become user", id))?;
    }
    // 7
    let kept = service.capabilities;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets).map_err(named("keep", "capabilities"))?;
    for capability in kept.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(named("keep", "capabilities"))?;
    }
    // 8
    rustix::thread::set_no_new_privs(true).map_err(named("forbid", "new privileges"))?;
    // 9
    let program = machine::program_of(service.name);
    let mut command = Command::new(&program);
    command.env_clear();
    for (key, value) in [("PATH", "/usr/lib/belvedere/bin:/usr/sbin:/usr/bin"), ("HOME", "/"), ("LANG", "C.UTF-8")] {
        command.env(key, value);
    }
    for key in [belvedere_varlink::READY_VARIABLE, "BELVEDERE_LOG"] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    let error = command.exec();
    Err(format!("{program}: {error}"))
}

fn limit(resource: Resource, value: u64) -> Result<()> {
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    rustix::process::setrlimit(resource, limit).map_err(named("limit", format!("{resource:?}")))
}

/// Leaves of the machine's files what the service may see.
fn hide_files(service: &Service) -> Result<()> {
    let text = |error: belvedere_storage::StorageError| error.to_string();
    mounts::make_private().map_err(text)?;
    // Its own directory is held on to while the data partition is covered.
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
    mounts::mount("tmpfs", "/tmp", "tmpfs", mounts::DATA_ONLY, "size=64m,mode=1777").map_err(text)
}

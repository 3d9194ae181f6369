//! What a service's process does to itself between PID 1 and the service: `belvedere-init --start <service>`.
//!
//! PID 1 starts *itself* once more for every service, and that process gives up its rights step by step and becomes
//! the service. The usual way, code between `fork` and `exec` in a process with threads, may not even allocate memory;
//! this way the steps are plain, safe Rust, and PID 1 never has a half-made service in its address space.
//!
//! The steps, in this order because each one takes away what the earlier ones need:
//! 1. its control group (made by PID 1)
//! 2. name spaces of its own
//! 3. what it sees of files, devices and the kernel ([`crate::view`])
//! 4. resource limits
//! 5. capabilities that nobody below may ever have again (bounding set)
//! 6. groups, group, user
//! 7. the capabilities that it keeps, as ambient ones: they survive `exec` without being in the file
//! 8. no new privileges
//! 9. fewer system calls
//! 10. `exec` with a clean environment

use crate::table::{Network, SERVICES, Service, number_of, user_of};
use crate::{Result, machine, named, view};
use belvedere_interfaces::rights::SERVICE_VARIABLE;
use belvedere_sandbox::launched::enter_before_exec;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
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
    narrow(service)?;
    // 10
    let program = machine::program_of(service.name);
    let mut command = Command::new(&program);
    command.env_clear().env(SERVICE_VARIABLE, service.name);
    for (key, value) in [("PATH", "/usr/lib/belvedere/bin:/usr/sbin:/usr/bin"), ("HOME", "/"), ("LANG", "C.UTF-8")] {
        command.env(key, value);
    }
    for key in [
        belvedere_varlink::READY_VARIABLE,
        belvedere_varlink::PROVEN_VARIABLE,
        belvedere_varlink::RESTORED_VARIABLE,
        "BELVEDERE_LOG",
    ] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    let error = command.exec();
    Err(format!("{program}: {error}"))
}

/// Steps 2 to 9: from here on this process sees and may do what the table gives the service. One thread only.
pub fn narrow(service: &Service) -> Result<()> {
    // 2
    let mut spaces = UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    if service.network == Network::None {
        spaces |= UnshareFlags::NEWNET;
    }
    // SAFETY: this process has one thread and shares no descriptor table with another.
    unsafe { rustix::thread::unshare_unsafe(spaces) }.map_err(named("make", "name spaces"))?;
    // 3
    view::restrict(service)?;
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
    if let Some(sandbox) = service.sandbox {
        enter_before_exec(sandbox).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn limit(resource: Resource, value: u64) -> Result<()> {
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    rustix::process::setrlimit(resource, limit).map_err(named("limit", format!("{resource:?}")))
}

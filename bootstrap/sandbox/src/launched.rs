//! What the launcher puts around a service before the service's program begins: fewer system calls and kinds of socket,
//! whatever the program then does or forgets to do.
//!
//! A program that parses hostile bytes closes its own, tighter sandbox ([`crate::enter`]) when it has opened what it
//! needs; the ones here do not know that moment, or need more. So this is a list of what they never do, and not of what
//! they do: [`FORBIDDEN`] without what each needs. `execve` stays: the launcher has yet to become the service.

use crate::calls::FORBIDDEN;
use crate::{CLONE_NAMESPACES, SandboxError, filter_failed, process_failed, program};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, apply_filter};
use std::collections::BTreeMap;

/// A service whose sandbox the launcher closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launched {
    /// Lights: Unix sockets.
    FrontPanel,
    /// Addresses, routes, DHCP, name servers and the clock.
    Network,
    /// Sticks, which it mounts; the registration over the network; the clock.
    Provisioning,
    /// The link to the service.
    Agent,
}

impl Launched {
    /// Every one.
    pub const ALL: [Launched; 4] = [Launched::FrontPanel, Launched::Network, Launched::Provisioning, Launched::Agent];

    /// Kinds of socket that it may make.
    fn families(self) -> &'static [i32] {
        match self {
            Launched::FrontPanel => &[libc::AF_UNIX],
            Launched::Network => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET],
            Launched::Provisioning | Launched::Agent => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
        }
    }

    /// What it needs of [`FORBIDDEN`].
    fn needs(self) -> &'static [i64] {
        match self {
            Launched::FrontPanel | Launched::Agent => &[libc::SYS_execve],
            Launched::Network => &[libc::SYS_execve, libc::SYS_clock_settime],
            Launched::Provisioning => &[libc::SYS_execve, libc::SYS_clock_settime, libc::SYS_mount, libc::SYS_umount2],
        }
    }
}

fn condition(operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value).map_err(filter_failed("make a condition"))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, SandboxError> {
    SeccompRule::new(conditions).map_err(filter_failed("make a rule"))
}

/// The filter that ends the process, and the one whose calls fail.
fn programs(service: Launched) -> Result<[BpfProgram; 2], SandboxError> {
    let forbidden = FORBIDDEN.iter().filter(|call| !service.needs().contains(call));
    let mut ends: BTreeMap<i64, Vec<SeccompRule>> = forbidden.map(|&call| (call, Vec::new())).collect();
    let mut names = Vec::new();
    // `clone` with any of the name spaces; `clone3`, whose flags a filter cannot see, fails below, and libraries then
    // take `clone`.
    for bit in 0..32 {
        let flag = 1u64 << bit;
        if CLONE_NAMESPACES & flag != 0 {
            names.push(rule(vec![condition(SeccompCmpOp::MaskedEq(flag), flag)?])?);
        }
    }
    ends.insert(libc::SYS_clone, names);
    let mut others = Vec::new();
    for &family in service.families() {
        others.push(condition(SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))?);
    }
    let fails = BTreeMap::from([(libc::SYS_socket, vec![rule(others)?]), (libc::SYS_clone3, Vec::new())]);
    let error = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    Ok([program(ends, SeccompAction::Allow, SeccompAction::KillProcess)?, program(fails, SeccompAction::Allow, error)?])
}

/// Closes the sandbox around this thread and what it becomes, for good.
pub fn enter_before_exec(service: Launched) -> Result<(), SandboxError> {
    let programs = programs(service)?;
    rustix::thread::set_no_new_privs(true).map_err(process_failed("forbid new privileges"))?;
    for program in &programs {
        apply_filter(program).map_err(filter_failed("install the filter"))?;
    }
    Ok(())
}

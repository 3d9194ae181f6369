//! What a service that parses hostile bytes does to itself at its start: fewer system calls, no capabilities, no new
//! privileges.
//!
//! Services that cannot do so, or might forget it, get a looser one from the launcher ([`launched`]).
//!
//! `init` already gives such a service its own user, an empty network and next to no files; this closes the kernel's
//! door. Call [`enter`] first thing in `main`, before threads are started and before the first byte from outside.
//!
//! Two filters lie over one another, and the stricter answer counts:
//! - [`calls::FORBIDDEN`]: no program of ours ever makes these; whoever does is no longer our program. The process is
//!   killed (SIGSYS), `init` logs it and starts it anew.
//! - everything that is not in [`calls::ALLOWED`] (with what the [`Profile`] says of sockets): fails with `ENOSYS`, so
//!   that libraries fall back to older calls, as they do on older kernels. `clone3` is one of those: a filter cannot see
//!   its flags, `clone`'s it can.

pub mod calls;
pub mod launched;

use calls::{ALLOWED, FORBIDDEN};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Coded pictures to pictures: Unix sockets.
    Decoder,
    /// Models: Unix sockets.
    Inference,
    /// Cameras: Unix and internet sockets, netlink for the C library's resolver.
    Camera,
    /// The monitor: Unix sockets, netlink for the kernel's messages about monitors.
    Display,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 4] = [Profile::Decoder, Profile::Inference, Profile::Camera, Profile::Display];

    /// Kinds of socket that it may make.
    fn families(self) -> &'static [i32] {
        match self {
            Profile::Decoder | Profile::Inference => &[libc::AF_UNIX],
            Profile::Camera => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
            Profile::Display => &[libc::AF_UNIX, libc::AF_NETLINK],
        }
    }
}

/// Why the sandbox could not be closed. A service must not go on then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A process attribute.
    #[error("{operation}: {source}")]
    Process {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// The filter.
    #[error("{operation}: {detail}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Filter {
        /// What was tried.
        operation: &'static str,
        /// What is wrong.
        detail: String,
    },
}

fn filter_failed<E: std::fmt::Display>(operation: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::Filter { operation, detail: error.to_string() }
}

fn process_failed(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> SandboxError {
    move |source| SandboxError::Process { operation, source }
}

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

fn architecture() -> Result<TargetArch, SandboxError> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(filter_failed("choose the filter's processor"))
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture()?).map_err(filter_failed("make the filter"))?;
    BpfProgram::try_from(filter).map_err(filter_failed("compile the filter"))
}

fn argument(number: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, SandboxError> {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value)
        .map_err(filter_failed("make a condition"))?;
    SeccompRule::new(vec![condition]).map_err(filter_failed("make a rule"))
}

/// Both filters, the killing one first.
fn programs(profile: Profile) -> Result<[BpfProgram; 2], SandboxError> {
    let forbidden = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let kill = program(forbidden, SeccompAction::Allow, SeccompAction::KillProcess)?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let mut families = Vec::new();
    for &family in profile.families() {
        families.push(argument(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))?);
    }
    allowed.insert(libc::SYS_socket, families);
    allowed.insert(libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?]);
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    Ok([kill, program(allowed, missing, SeccompAction::Allow)?])
}

/// Closes the sandbox around this process, for good.
pub fn enter(profile: Profile) -> Result<(), SandboxError> {
    let programs = programs(profile)?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // No core dumps: they hold pictures.
    rustix::process::setrlimit(Resource::Core, none).map_err(process_failed("forbid core dumps"))?;
    let empty = CapabilitySet::empty();
    let sets = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
    rustix::thread::set_capabilities(None, sets).map_err(process_failed("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(process_failed("forbid new privileges"))?;
    for program in &programs {
        seccompiler::apply_filter_all_threads(program).map_err(filter_failed("install the filter"))?;
    }
    Ok(())
}

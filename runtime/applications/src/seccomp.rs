//! The system calls that an application's container may make: the usual default profile of container engines
//! (`containers-common`, Apache-2.0), without those that make or enter namespaces, mount, trace other processes or
//! touch keys. What is not on the list fails with `ENOSYS`, so that newer C libraries fall back to older calls.

use serde_json::{Value, json};

/// Names separated by blanks. Some exist on one architecture only; the runtime skips what it does not know.
const ALLOWED: &str = include_str!("seccomp-allowed.txt");
/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
const ENOSYS: u32 = 38;

/// `linux.seccomp` of an OCI configuration.
pub fn profile() -> Value {
    let names: Vec<&str> = ALLOWED.split_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
            // The usual execution domains: Linux, and the query.
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 0xFFFF_FFFFu32, "op": "SCMP_CMP_EQ" }] },
            // Every family but the audit netlink.
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 2, "value": 9, "op": "SCMP_CMP_NE" }] },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_reach_out_of_a_container_are_not_allowed() {
        let names: Vec<&str> = ALLOWED.split_whitespace().collect();
        for name in [
            "mount", "setns", "unshare", "ptrace", "bpf", "keyctl", "kexec_load", "init_module", "clone3",
            "open_by_handle_at",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        for name in
            ["read", "futex", "execve", "memfd_create", "recvmsg", "mmap", "openat", "getrandom", "sched_setaffinity"]
        {
            assert!(names.contains(&name), "{name}");
        }
    }
}
